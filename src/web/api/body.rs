//! Bodies and queries of requests: bounded, of the right media type, and refused with line and column, or by the parameter's
//! name (promise 6: no request takes more than [`BODY_BYTES`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde_json::{Map, Value};

use super::Api;
use super::problem::{Fault, Problem};

/// The largest body of a request.
pub const BODY_BYTES: usize = 1_048_576;

/// Of a larger one so much is read before it is refused.
const MOST_READ: usize = 8 * BODY_BYTES;

/// The bytes of a body, at most [`BODY_BYTES`].
pub struct Raw {
    /// What was sent.
    pub bytes: Bytes,
    /// With which headers.
    pub headers: HeaderMap,
}

impl FromRequest<Arc<Api>> for Raw {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Arc<Api>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        Ok(Self {
            bytes: read(&parts.headers, body).await?,
            headers: parts.headers,
        })
    }
}

/// Reads a body. Of one that is too large some more is read and thrown away: a client that is still sending when the connection ends
/// does not see the answer.
///
/// # Errors
/// 413: it is larger than [`BODY_BYTES`].
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let is_hopeless = declared.is_some_and(|declared| {
        declared > MOST_READ || (declared > BODY_BYTES && headers.contains_key(header::EXPECT))
    });
    let mut bytes = BytesMut::new();
    let mut received = 0;
    let mut chunks = body.into_data_stream();
    while !is_hopeless && received <= MOST_READ {
        let Some(chunk) = chunks.next().await else {
            break;
        };
        let chunk =
            chunk.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the body broke off"))?;
        received += chunk.len();
        if received <= BODY_BYTES {
            bytes.extend_from_slice(&chunk);
        } else {
            bytes = BytesMut::new();
        }
    }
    if is_hopeless || received > BODY_BYTES {
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body may have at most {BODY_BYTES} bytes; send less"),
        ));
    }
    Ok(bytes.freeze())
}

/// A JSON body.
pub struct Json(pub Value);

impl FromRequest<Arc<Api>> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        check_media_type(request.headers())?;
        let raw = Raw::from_request(request, api).await?;
        parse(&raw.bytes).map(Self)
    }
}

/// A JSON object that may be left out.
pub struct OptionalObject(pub Map<String, Value>);

impl FromRequest<Arc<Api>> for OptionalObject {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        let media_type = check_media_type(request.headers());
        let raw = Raw::from_request(request, api).await?;
        if raw.bytes.is_empty() {
            return Ok(Self(Map::new()));
        }
        media_type?;
        object(parse(&raw.bytes)?).map(Self)
    }
}

/// JSON, or a kind of it; a body without a type is taken for JSON, as the seeds' examples have none.
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let full = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let essence = full.split(';').next().unwrap_or_default().trim();
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!(
            "the body is said to be {essence:?}; send JSON with Content-Type: application/json"
        ),
    ))
}

/// Reads JSON.
///
/// # Errors
/// 400 with line and column.
pub fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    crate::json::parse(bytes).map_err(|error| {
        let detail = if bytes.is_empty() {
            "the body is empty; send a JSON object".to_owned()
        } else {
            format!("the body is not JSON: {error}")
        };
        let mut problem = Problem::new(StatusCode::BAD_REQUEST, detail.clone());
        problem.errors.push(Fault {
            line: Some(error.line()),
            column: Some(error.column()),
            detail,
            ..Fault::default()
        });
        problem
    })
}

/// The members of an object.
///
/// # Errors
/// 400: it is something else.
pub fn object(value: Value) -> Result<Map<String, Value>, Problem> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(Problem::at("", "the body must be a JSON object")),
    }
}

/// Refuses members that are not known, with the nearest that is.
///
/// # Errors
/// 400 with a pointer to each.
pub fn refuse_unknown(members: &Map<String, Value>, known: &[&str]) -> Result<(), Problem> {
    let unknown: Vec<_> = members
        .keys()
        .filter(|name| !known.contains(&name.as_str()))
        .map(|name| crate::subscription::FieldError {
            pointer: crate::subscription::read::pointer("", name),
            message: nearest("field", name, known),
        })
        .collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(Problem::of_fields(unknown))
    }
}

fn nearest(what: &str, name: &str, known: &[&str]) -> String {
    let name: String = name.chars().take(80).collect();
    let likeness = |candidate: &str| strsim::normalized_damerau_levenshtein(&name, candidate);
    let best = known
        .iter()
        .max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
        .filter(|best| likeness(best) >= 0.5);
    match best {
        Some(best) => format!("there is no {what} {name:?}; did you mean `{best}`?"),
        None if known.is_empty() => format!("there is no {what} {name:?}; there are none here"),
        None => format!(
            "there is no {what} {name:?}; known are {}",
            known.join(", ")
        ),
    }
}

/// The parameters of a query, each at most once.
pub struct Query(BTreeMap<String, String>);

impl FromRequestParts<Arc<Api>> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Problem> {
        let mut parameters = BTreeMap::new();
        let text = parts.uri.query().unwrap_or_default();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            if parameters
                .insert(name.to_string(), value.into_owned())
                .is_some()
            {
                return Err(Problem::of_parameter(
                    &name,
                    "it is given twice; give it once",
                ));
            }
        }
        Ok(Self(parameters))
    }
}

impl Query {
    /// Refuses parameters that are not known.
    ///
    /// # Errors
    /// 400 with the nearest known one.
    pub fn refuse_unknown(&self, known: &[&str]) -> Result<(), Problem> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Problem::of_parameter(
                name,
                nearest("parameter", name, known),
            )),
            None => Ok(()),
        }
    }

    /// A parameter's text; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    /// A parameter that is true or false.
    ///
    /// # Errors
    /// 400 for another word.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(Problem::of_parameter(name, "it must be true or false")),
        }
    }

    /// All parameters but these as one text: what a list was asked for.
    pub fn without(&self, names: &[&str]) -> String {
        let rest = self
            .0
            .iter()
            .filter(|(name, _)| !names.contains(&name.as_str()));
        rest.map(|(name, value)| format!("{name}={value}\n"))
            .collect()
    }
}

/// The `{id}` of a path, whatever it is.
pub struct Id(pub String);

impl FromRequestParts<Arc<Api>> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, api).await;
        path.map(|path| Self(path.0))
            .map_err(|_| Problem::no_such("path", parts.uri.path()))
    }
}
