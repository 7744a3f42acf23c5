//! The part of a request that a webhook's owner writes: headers, cookies and authentication, checked.
//!
//! Part of promise 7: nothing that is written here can end a header early, frame the message anew, or pass for one of
//! our own headers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue};

use super::EndpointError;
use crate::subscription::read::checks::CONNECTION_HEADERS;

/// The most custom headers of a webhook. hyper and most servers refuse requests with more than about 100.
pub const MOST_HEADERS: usize = 64;
/// The longest name or value of a custom header, in bytes.
pub const LONGEST_HEADER: usize = 8192;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// How a receiver wants us to prove who we are, beside the signature.
#[derive(Clone, Copy)]
pub enum Auth<'a> {
    /// Not at all.
    None,
    /// `Authorization: Bearer <token>`.
    Bearer {
        /// The token.
        token: &'a str,
    },
    /// A header of its own.
    ApiKey {
        /// The header's name, `X-API-Key` where none is given.
        header: Option<&'a str>,
        /// The key.
        token: &'a str,
    },
    /// `Authorization: Basic …` (RFC 7617).
    Basic {
        /// The user's name; must not hold a colon.
        username: &'a str,
        /// The password.
        password: &'a str,
    },
}

/// Checks, prepares and joins all custom headers.
pub(super) fn prepare(
    custom: &[(&str, &str)],
    cookies: &[(&str, &str)],
    auth: Auth<'_>,
) -> Result<HeaderMap, EndpointError> {
    if custom.len() > MOST_HEADERS {
        return Err(EndpointError::new(
            "/headers",
            format!("has more than {MOST_HEADERS} headers; remove some"),
        ));
    }
    let mut headers = HeaderMap::with_capacity(custom.len() + 4);
    for (name, text) in custom {
        let refused = |message| EndpointError::new(pointer("/headers/", name), message);
        let (parsed, value) = header(name, text).map_err(refused)?;
        if headers.insert(parsed, value).is_some() {
            return Err(refused(
                "is given twice (header names ignore case); remove one".to_owned(),
            ));
        }
    }
    add_cookies(&mut headers, cookies)?;
    add_auth(&mut headers, auth)?;
    Ok(headers)
}

/// Whether a custom header may be sent.
///
/// # Errors
/// What is wrong and what to do about it; never the value.
pub fn check_header(name: &str, value: &str) -> Result<(), String> {
    header(name, value).map(|_| ())
}

/// Whether a cookie may be sent (RFC 6265 section 4.1.1, which allows fewer characters than a header).
///
/// # Errors
/// What is wrong and what to do about it; never the value.
pub fn check_cookie(name: &str, value: &str) -> Result<(), String> {
    if HeaderName::try_from(name).is_err() {
        return Err("the cookie's name must be of letters, digits and !#$%&'*+-.^_`|~".to_owned());
    }
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b';' | b'\\');
    match value.bytes().all(is_allowed) {
        true => Ok(()),
        false => Err("the cookie's value holds a space, comma, semicolon, backslash, control or non-ASCII character; percent-encode it".to_owned()),
    }
}

fn header(name: &str, text: &str) -> Result<(HeaderName, HeaderValue), String> {
    if name.len().max(text.len()) > LONGEST_HEADER {
        return Err(format!("is longer than {LONGEST_HEADER} bytes; shorten it"));
    }
    let parsed = HeaderName::try_from(name).map_err(|_| {
        "is no header name: use letters, digits and !#$%&'*+-.^_`|~ only".to_owned()
    })?;
    let lower = parsed.as_str();
    if CONNECTION_HEADERS.contains(&lower) {
        return Err(format!(
            "{lower} is set by the HTTP connection itself; remove it"
        ));
    }
    if lower.starts_with("webhook-") || lower.starts_with("x-webhook-") {
        return Err(
            "names beginning with webhook- and x-webhook- are Postrider's own; choose another"
                .to_owned(),
        );
    }
    Ok((parsed, secret_value(text)?))
}

/// Custom values often hold a token, so none of them shows when a header map is printed.
fn secret_value(text: &str) -> Result<HeaderValue, String> {
    if let Some(found) = text.chars().find(|each| matches!(each, '\r' | '\n' | '\0')) {
        return Err(format!(
            "the value holds {}, which would end the header; remove it",
            found.escape_default()
        ));
    }
    let cure = || {
        "the value holds a control or non-ASCII character; percent-encode or base64-encode it"
            .to_owned()
    };
    // The http crate would send the bytes of any UTF-8; receivers read them as Latin-1 or refuse them (RFC 9110 section 5.5).
    if !text.is_ascii() {
        return Err(cure());
    }
    let mut value = HeaderValue::from_str(text).map_err(|_| cure())?;
    value.set_sensitive(true);
    Ok(value)
}

fn add_cookies(headers: &mut HeaderMap, cookies: &[(&str, &str)]) -> Result<(), EndpointError> {
    let mut pairs = Vec::with_capacity(cookies.len());
    for (name, value) in cookies {
        check_cookie(name, value)
            .map_err(|message| EndpointError::new(pointer("/cookies/", name), message))?;
        pairs.push(format!("{name}={value}"));
    }
    if pairs.is_empty() {
        return Ok(());
    }
    let text = pairs.join("; ");
    if text.len() > LONGEST_HEADER {
        return Err(EndpointError::new(
            "/cookies",
            format!("are longer than {LONGEST_HEADER} bytes together; shorten them"),
        ));
    }
    let value = secret_value(&text).map_err(|message| EndpointError::new("/cookies", message))?;
    if headers.insert(COOKIE, value).is_some() {
        return Err(EndpointError::new(
            "/cookies",
            "are given, and a Cookie header too; keep one of them",
        ));
    }
    Ok(())
}

fn add_auth(headers: &mut HeaderMap, auth: Auth<'_>) -> Result<(), EndpointError> {
    let (name, value) = match auth {
        Auth::None => return Ok(()),
        Auth::Bearer { token } => (
            AUTHORIZATION,
            credential("/auth/token", token, |token| format!("Bearer {token}"))?,
        ),
        Auth::ApiKey {
            header: None,
            token,
        } => (API_KEY, credential("/auth/token", token, str::to_owned)?),
        Auth::ApiKey {
            header: Some(name),
            token,
        } => {
            let value = credential("/auth/token", token, str::to_owned)?;
            let (name, _) =
                header(name, "").map_err(|message| EndpointError::new("/auth/header", message))?;
            (name, value)
        }
        Auth::Basic { username, .. } if username.contains(':') => {
            return Err(EndpointError::new(
                "/auth/username",
                "holds a colon, which ends the name; remove it",
            ));
        }
        Auth::Basic { username, password } => {
            // Either part may be empty (RFC 7617), not both. Base64 takes any character.
            let pair = if username.is_empty() && password.is_empty() {
                String::new()
            } else {
                format!("{username}:{password}")
            };
            (
                AUTHORIZATION,
                credential("/auth/username", &pair, |pair| {
                    format!("Basic {}", STANDARD.encode(pair))
                })?,
            )
        }
    };
    let message = format!("sets {name}, and so do the custom headers; remove one of them");
    match headers.insert(name, value) {
        None => Ok(()),
        Some(_) => Err(EndpointError::new("/auth", message)),
    }
}

fn credential(
    pointer: &str,
    text: &str,
    form: impl Fn(&str) -> String,
) -> Result<HeaderValue, EndpointError> {
    if text.is_empty() {
        return Err(EndpointError::new(
            pointer,
            "is empty; give a value, or set the type to none",
        ));
    }
    if text.len() > LONGEST_HEADER {
        return Err(EndpointError::new(
            pointer,
            format!("is longer than {LONGEST_HEADER} bytes; shorten it"),
        ));
    }
    secret_value(&form(text)).map_err(|message| EndpointError::new(pointer, message))
}

/// RFC 6901.
fn pointer(prefix: &str, name: &str) -> String {
    format!("{prefix}{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests;
