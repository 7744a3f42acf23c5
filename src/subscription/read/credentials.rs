//! Reads what a request carries beside its body: headers, cookies, credentials, the signing secret. No message here
//! ever shows a value (promise 7).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::super::{Auth, DEFAULT_API_KEY_HEADER, MASK, SecretChange};
use super::checks::{LONGEST_VALUE, check_cookie, check_header_name, check_header_value};
use super::fields::{Fields, kind, unknown};

const MOST_HEADERS: usize = 64;
const LONGEST_SECRET: usize = 512;

pub(super) fn headers(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let headers = strings(fields, "headers", |name, value| {
        check_header_name(name)?;
        check_header_value(value)
    });
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for name in headers.keys() {
        if let Some(first) = seen.insert(name.to_ascii_lowercase(), name) {
            fields.fail(
                &["headers", name],
                format!("{name} and {first} are the same header; keep one"),
            );
        }
    }
    headers
}

pub(super) fn cookies(
    fields: &mut Fields<'_>,
    headers: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let cookies = strings(fields, "cookies", check_cookie);
    let header = headers
        .keys()
        .find(|name| name.eq_ignore_ascii_case("cookie"));
    if let (Some(header), false) = (header, cookies.is_empty()) {
        fields.fail(
            &["headers", header],
            "cookies are written twice; move this header's into `cookies`",
        );
    }
    cookies
}

/// An object of strings, each checked.
fn strings(
    fields: &mut Fields<'_>,
    field: &'static str,
    check: impl Fn(&str, &str) -> Result<(), String>,
) -> BTreeMap<String, String> {
    let Some(value) = fields.get(field) else {
        return BTreeMap::new();
    };
    let Some(object) = value.as_object() else {
        fields.fail(
            &[field],
            format!(
                "`{field}` must be an object of names and texts; it is {}",
                kind(value)
            ),
        );
        return BTreeMap::new();
    };
    if object.len() > MOST_HEADERS {
        fields.fail(
            &[field],
            format!(
                "`{field}` may have at most {MOST_HEADERS} entries; it has {}",
                object.len()
            ),
        );
    }
    let mut values = BTreeMap::new();
    for (name, value) in object {
        match value.as_str() {
            None => {
                fields.fail(
                    &[field, name],
                    format!(
                        "the value must be text; it is {}: put it in quotes",
                        kind(value)
                    ),
                );
            }
            Some(value) => match check(name, value) {
                Err(message) => fields.fail(&[field, name], message),
                Ok(()) => {
                    values.insert(name.clone(), value.to_owned());
                }
            },
        }
    }
    values
}

/// `auth` as an object, NetPulse's `["user", "password"]`, or RAG's four flat fields.
pub(super) fn auth(fields: &mut Fields<'_>, headers: &BTreeMap<String, String>) -> Auth {
    const FLAT: [&str; 4] = ["auth_type", "auth_token", "auth_username", "auth_password"];
    let flat = FLAT.into_iter().find(|name| fields.get(name).is_some());
    let auth = match (fields.get("auth"), flat) {
        (Some(_), Some(flat)) => {
            fields.fail(
                &[flat],
                format!("`{flat}` means the same as a part of `auth`; write only one of them"),
            );
            None
        }
        (Some(Value::Array(list)), None) => pair(fields, list),
        (Some(Value::Object(object)), None) => {
            const KNOWN: [&str; 5] = ["type", "token", "username", "password", "header"];
            for name in object.keys().filter(|name| !KNOWN.contains(&name.as_str())) {
                fields.fail(&["auth", name], unknown(name, &KNOWN));
            }
            let parts = KNOWN.map(|part| {
                (
                    vec!["auth", part],
                    object.get(part).filter(|value| !value.is_null()),
                )
            });
            typed(fields, parts)
        }
        (Some(value), None) => {
            let message = "`auth` must be an object with a `type`, or a list of user and password";
            fields.fail(&["auth"], format!("{message}; it is {}", kind(value)));
            None
        }
        (None, Some(_)) => {
            let part = |name: &'static str| (vec![name], fields.get(name));
            let [kind, token, username, password] = FLAT.map(part);
            typed(
                fields,
                [kind, token, username, password, (vec!["auth_header"], None)],
            )
        }
        (None, None) => None,
    };
    let auth = auth.unwrap_or_default();
    let header = match &auth {
        Auth::None => None,
        Auth::Bearer { .. } | Auth::Basic { .. } => Some("Authorization"),
        Auth::ApiKey { header, .. } => Some(header.as_str()),
    };
    let twice = header.and_then(|header| {
        headers
            .keys()
            .find(|name| name.eq_ignore_ascii_case(header))
    });
    if let Some(name) = twice {
        fields.fail(
            &["headers", name],
            format!("{name} is set by `auth` too; remove one of them"),
        );
    }
    auth
}

fn pair(fields: &mut Fields<'_>, list: &[Value]) -> Option<Auth> {
    let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
    match (texts.as_slice(), list.len()) {
        ([username, password], 2) => {
            let path = vec!["auth", "0"];
            let username = checked(fields, &path, username, true)?;
            let password = checked(fields, &["auth", "1"], password, true)?;
            user(fields, &path, username, password)
        }
        _ => {
            fields.fail(
                &["auth"],
                "`auth` as a list must be exactly two texts: [\"user\", \"password\"]",
            );
            None
        }
    }
}

/// A part of the credentials: where it stands, and its value if it was written.
type Part<'a> = (Vec<&'static str>, Option<&'a Value>);

/// The parts are type, token, username, password, header.
fn typed(fields: &mut Fields<'_>, parts: [Part<'_>; 5]) -> Option<Auth> {
    let [(at, given), token, username, password, header] = parts;
    let word = match given {
        // RAG's flat fields and NetPulse's users leave it out where the rest says it.
        None if username.1.is_some() && token.1.is_none() => "basic",
        None => {
            fields.fail(&at, "say which kind: none, bearer, api_key or basic");
            return None;
        }
        Some(value) => value.as_str().unwrap_or_default(),
    };
    let stray = |fields: &mut Fields<'_>, strays: [&Part<'_>; 3]| {
        for (path, _) in strays.into_iter().filter(|(_, value)| value.is_some()) {
            fields.fail(
                path,
                format!("this does not belong to credentials of type {word}; remove it"),
            );
        }
    };
    match word {
        "none" => {
            stray(fields, [&token, &username, &password]);
            Some(Auth::None)
        }
        "bearer" => {
            stray(fields, [&username, &password, &header]);
            Some(Auth::Bearer {
                token: part(fields, token, "token")?,
            })
        }
        "api_key" => {
            stray(fields, [&username, &password, &(Vec::new(), None)]);
            let (path, value) = &header;
            let name = value
                .map_or(Some(DEFAULT_API_KEY_HEADER), Value::as_str)
                .unwrap_or_default();
            if let Err(message) = check_header_name(name) {
                fields.fail(path, message);
            }
            Some(Auth::ApiKey {
                token: part(fields, token, "token")?,
                header: name.to_owned(),
            })
        }
        "basic" => {
            stray(fields, [&token, &header, &(Vec::new(), None)]);
            let at = username.0.clone();
            let username = part(fields, username, "username");
            let password = match password {
                (path, Some(Value::String(text))) => checked(fields, &path, text, true),
                other => part(fields, other, "password"),
            };
            user(fields, &at, username?, password?)
        }
        _ => {
            fields.fail(
                &at,
                "the kind of credentials must be none, bearer, api_key or basic",
            );
            None
        }
    }
}

fn part(fields: &mut Fields<'_>, (path, value): Part<'_>, name: &str) -> Option<String> {
    match value {
        None => {
            fields.fail(
                &path,
                format!(
                    "the {name} is missing; write it, or ${{NAME}} to take it from the environment"
                ),
            );
            None
        }
        Some(Value::String(text)) => checked(fields, &path, text, false),
        Some(other) => {
            fields.fail(
                &path,
                format!(
                    "the {name} must be text; it is {}: put it in quotes",
                    kind(other)
                ),
            );
            None
        }
    }
}

fn checked(
    fields: &mut Fields<'_>,
    path: &[&str],
    text: &str,
    may_be_empty: bool,
) -> Option<String> {
    if text.is_empty() && !may_be_empty {
        fields.fail(path, "it is empty; write it, or leave the credentials out");
    } else if text.contains(char::is_control) || text.len() > LONGEST_VALUE {
        fields.fail(path, format!("it may have at most {LONGEST_VALUE} characters and no line break or control character"));
    } else if !text.is_ascii() && path.last().is_some_and(|name| name.ends_with("token")) {
        fields.fail(path, "a token must be ASCII, as headers are");
    } else {
        return Some(text.to_owned());
    }
    None
}

fn user(
    fields: &mut Fields<'_>,
    path: &[&str],
    username: String,
    password: String,
) -> Option<Auth> {
    if username.contains(':') {
        fields.fail(
            path,
            "a user name has no colon, because a colon ends it (RFC 7617)",
        );
        return None;
    }
    Some(Auth::Basic { username, password })
}

pub(super) fn secret(fields: &mut Fields<'_>) -> SecretChange {
    let change = match (fields.get("secret"), fields.has("secret")) {
        (None, false) => Ok(SecretChange::Keep),
        (None, true) => Ok(SecretChange::Remove),
        (Some(Value::String(text)), _) => check_secret(text),
        (Some(value), _) => Err(format!(
            "`secret` must be text, \"generate\" or null; it is {}",
            kind(value)
        )),
    };
    change.unwrap_or_else(|message| {
        fields.fail(&["secret"], message);
        SecretChange::Keep
    })
}

fn check_secret(text: &str) -> Result<SecretChange, String> {
    let encoded = text.strip_prefix("whsec_");
    if text == "generate" {
        Ok(SecretChange::Generate)
    } else if text == MASK {
        Ok(SecretChange::Stored)
    } else if text.is_empty() || text.len() > LONGEST_SECRET || text.contains(char::is_control) {
        Err(format!(
            "`secret` has 1 to {LONGEST_SECRET} characters and no line break; \"generate\" makes one"
        ))
    } else if encoded
        .is_some_and(|encoded| !STANDARD.decode(encoded).is_ok_and(|key| !key.is_empty()))
    {
        Err(
            "`secret` begins with whsec_, so base64 must follow; \"generate\" makes such a one"
                .to_owned(),
        )
    } else {
        Ok(SecretChange::Set(text.to_owned()))
    }
}
