//! What the API says when it refuses: problem documents (RFC 9457) that name what is wrong, where, and how to mend it. They
//! never repeat a secret or a URL's query (promise 7).

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::subscription::FieldError;

/// The media type of RFC 9457.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// One thing that is wrong with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// JSON pointer (RFC 6901) to the member of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/url")]
    pub pointer: Option<String>,
    /// Or the name of the query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// Or the line of the body that is not JSON, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// And its column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What is wrong and how to mend it.
    #[schema(example = "`url` must begin with https:// or http://; this one begins with ftp:")]
    pub detail: String,
}

/// A refusal.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// `about:blank`: the status says the kind.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    #[schema(example = "Bad Request")]
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 400)]
    status: u16,
    /// What is wrong and how to mend it.
    #[schema(example = "the webhook has 1 fault")]
    pub detail: String,
    /// Each fault with its place; empty where the request as a whole is refused.
    pub errors: Vec<Fault>,
    #[serde(skip)]
    #[schema(ignore)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A refusal with this status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// 400 for one member of the body.
    pub fn at(pointer: &str, detail: impl Into<String>) -> Self {
        Self::of_fields(vec![FieldError {
            pointer: pointer.to_owned(),
            message: detail.into(),
        }])
    }

    /// 400 for members of the body.
    pub fn of_fields(errors: Vec<FieldError>) -> Self {
        let count = errors.len();
        let plural = if count == 1 { "" } else { "s" };
        let mut problem = Self::new(
            StatusCode::BAD_REQUEST,
            format!("the body has {count} fault{plural}; see `errors`"),
        );
        problem.errors = errors
            .into_iter()
            .map(|error| Fault {
                pointer: Some(error.pointer),
                detail: error.message,
                ..Fault::default()
            })
            .collect();
        problem
    }

    /// 400 for a query parameter.
    pub fn of_parameter(name: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let mut problem = Self::new(StatusCode::BAD_REQUEST, format!("{name}: {detail}"));
        problem.errors.push(Fault {
            parameter: Some(name.to_owned()),
            detail,
            ..Fault::default()
        });
        problem
    }

    /// 404. The same words for what does not exist and for what another tenant has.
    pub fn no_such(what: &str, id: &str) -> Self {
        let id: String = id.chars().take(80).collect();
        Self::new(StatusCode::NOT_FOUND, format!("there is no {what} {id:?}"))
    }

    /// 500: a defect of ours.
    pub fn fault() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "a fault in Postrider; its log says more",
        )
    }

    /// 503: the cluster did not answer in time.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).with(header::RETRY_AFTER, "5")
    }

    /// Adds a header to the answer.
    pub fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (
            self.status(),
            [
                (header::CONTENT_TYPE, MEDIA_TYPE),
                (header::CACHE_CONTROL, "no-store"),
            ],
            body,
        )
            .into_response();
        response.headers_mut().extend(
            self.headers
                .into_iter()
                .map(|(name, value)| (Some(name), value))
                .filter_map(|(name, value)| Some((name?, value))),
        );
        response
    }
}
