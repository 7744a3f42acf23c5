//! What may stand in a request: URLs, header and cookie names and values. Refused here, at the door, so that no byte of
//! a webhook can split a request in two, name another host, or pass for one of our signatures.

use url::Url;

/// The longest URL, in bytes.
pub const LONGEST_URL: usize = 2_048;
/// The longest value of a header or cookie, token or password, in bytes.
pub const LONGEST_VALUE: usize = 8_192;

/// Headers that belong to the connection or to the HTTP client (RFC 9110 7.6.1, RFC 9112 6).
pub const CONNECTION_HEADERS: [&str; 13] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
    "expect",
];

/// Reads a URL to which deliveries may go. Which addresses it may lead to is decided when it connects.
///
/// # Errors
/// A sentence that says what is wrong with it; it never repeats the URL, which may hold a secret.
pub fn check_url(text: &str) -> Result<Url, String> {
    if text.len() > LONGEST_URL {
        return Err(format!(
            "`url` may have at most {LONGEST_URL} characters; it has {}",
            text.len()
        ));
    }
    // The parser would drop these silently, and what is sent would not be what was written.
    if text.contains(|letter: char| letter.is_control() || letter.is_whitespace()) {
        return Err(
            "`url` has a space or control character; write it percent-encoded (%20)".to_owned(),
        );
    }
    let url = Url::parse(text).map_err(|error| {
        format!("`url` cannot be read: {error}; write it in full, such as https://example.com/hook")
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!(
            "`url` must begin with https:// or http://; this one begins with {}:",
            url.scheme()
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "`url` may not hold a user or password; put them into `auth` with type basic"
                .to_owned(),
        );
    }
    // Percent-encoding can make it longer than what was written.
    if url.as_str().len() > LONGEST_URL {
        return Err(format!(
            "`url` may have at most {LONGEST_URL} characters once it is percent-encoded"
        ));
    }
    Ok(url)
}

/// Whether a header may be set by a webhook.
///
/// # Errors
/// A sentence that says why not and what to do.
pub fn check_header_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > 128 || !name.bytes().all(is_token_byte) {
        return Err("a header's name has 1 to 128 letters, digits or !#$%&'*+-.^_`|~, and no space or colon".to_owned());
    }
    let lower = name.to_ascii_lowercase();
    if CONNECTION_HEADERS.contains(&lower.as_str()) {
        return Err(format!("{name} is set by the connection itself; remove it"));
    }
    if lower.starts_with("webhook-") || lower.starts_with("x-webhook-") {
        return Err(format!(
            "{name} is kept for our own headers (webhook-*, X-Webhook-*); choose another name"
        ));
    }
    Ok(())
}

/// Whether a text may be sent as a header's value (RFC 9110 5.5).
///
/// # Errors
/// A sentence that says what is wrong; it never repeats the value.
pub fn check_header_value(value: &str) -> Result<(), String> {
    if value.len() > LONGEST_VALUE {
        return Err(format!(
            "the value may have at most {LONGEST_VALUE} characters"
        ));
    }
    if value.contains(['\r', '\n', '\0']) {
        return Err(
            "the value has a line break or NUL, which would end the header; remove it".to_owned(),
        );
    }
    if value
        .bytes()
        .any(|byte| byte.is_ascii_control() && byte != b'\t')
    {
        return Err("the value has a control character; remove it".to_owned());
    }
    if !value.is_ascii() {
        return Err("the value must be ASCII; write other characters percent-encoded".to_owned());
    }
    if value != value.trim() {
        return Err(
            "the value begins or ends with a space, which HTTP drops; remove it".to_owned(),
        );
    }
    Ok(())
}

/// Whether a cookie may be sent (RFC 6265 4.1.1; spaces, commas and quotes in values are let through, as servers do).
///
/// # Errors
/// A sentence that says what is wrong; it never repeats the value.
pub fn check_cookie(name: &str, value: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > 128 || !name.bytes().all(is_token_byte) {
        return Err("a cookie's name has 1 to 128 letters, digits or !#$%&'*+-.^_`|~".to_owned());
    }
    check_header_value(value)?;
    if value.contains(';') {
        return Err("a cookie's value has no semicolon; write it percent-encoded (%3B)".to_owned());
    }
    Ok(())
}

/// tchar of RFC 9110 5.6.2.
const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}
