//! Makes and checks the two signatures a receiver gets, so that it can tell our requests from anybody else's.
//!
//! Part of promise 7: a signature is compared in constant time and in full, and a key never shows in a log.
//! Pure: the time of a check is a parameter.

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{
    DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How far the timestamp of a Standard Webhooks signature may lie from the receiver's clock, in seconds.
pub const TOLERANCE_SECONDS: u64 = 300;

const SECRET_PREFIX: &str = "whsec_";
const PLAIN_PREFIX: &str = "sha256=";
const STANDARD_PREFIX: &str = "v1,";

/// Secrets are pasted by people: padding may be missing.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a secret cannot be used or made. The subscription is refused; nothing is sent unsigned instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The text, or what follows its prefix, is empty.
    #[error(
        "the secret is empty; give a text of 24 bytes or more, or ask for one with \"generate\""
    )]
    Empty,
    /// The text begins with `whsec_`, and the rest is not base64.
    #[error(
        "what follows whsec_ in the secret is not base64; copy the whole secret, or leave out the prefix"
    )]
    NotBase64,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes for a new secret: {0}")]
    NoRandomness(String),
}

/// Why a received signature was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureRefused {
    /// The header has no signature of the wanted form.
    #[error("no signature of the form {0} was found in the header")]
    Malformed(&'static str),
    /// `webhook-timestamp` is not a whole number of seconds.
    #[error("webhook-timestamp is not a number of seconds since 1970")]
    BadTimestamp,
    /// The request is older than the tolerance: a copy sent again, or a slow clock here.
    #[error(
        "webhook-timestamp is {0} s in the past, more than 300 s: an old request sent again, or a wrong clock"
    )]
    TooOld(u64),
    /// The request is from the future.
    #[error("webhook-timestamp is {0} s in the future, more than 300 s: check the clocks")]
    TooNew(u64),
    /// Another key or another body.
    #[error(
        "the signature does not match: another secret was used, or the body was changed on its way"
    )]
    Mismatch,
}

/// One live secret of a webhook, ready to sign.
///
/// The two HMAC states are computed once: a signature then costs two SHA-256 blocks less. The key differs between the
/// forms: `X-Webhook-Signature` uses the text as it stands, Standard Webhooks what follows `whsec_`, decoded.
#[derive(Clone)]
pub struct SigningKey {
    plain: Hmac<Sha256>,
    standard: Hmac<Sha256>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SigningKey(secret)")
    }
}

impl SigningKey {
    /// Reads a secret as it stands in a subscription.
    ///
    /// # Errors
    /// [`SecretError::Empty`] or [`SecretError::NotBase64`].
    pub fn new(secret_text: &str) -> Result<Self, SecretError> {
        let standard_key = match secret_text.strip_prefix(SECRET_PREFIX) {
            Some(encoded) => LENIENT
                .decode(encoded)
                .map_err(|_| SecretError::NotBase64)?,
            None => secret_text.as_bytes().to_vec(),
        };
        if standard_key.is_empty() {
            return Err(SecretError::Empty);
        }
        Ok(Self {
            plain: keyed(secret_text.as_bytes())?,
            standard: keyed(&standard_key)?,
        })
    }

    /// The value of `X-Webhook-Signature`: `sha256=` and the HMAC-SHA256 of the body in hex.
    pub fn plain(&self, body: &[u8]) -> String {
        let mut state = self.plain.clone();
        state.update(body);
        let mut text = String::with_capacity(PLAIN_PREFIX.len() + 64);
        text.push_str(PLAIN_PREFIX);
        for byte in state.finalize().into_bytes() {
            for digit in [byte >> 4, byte & 0x0f] {
                text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
        text
    }

    /// One element of `webhook-signature`: `v1,` and the base64 HMAC-SHA256 of `id.timestamp.body` (Standard Webhooks).
    pub fn standard(&self, id: &str, timestamp_seconds: u64, body: &[u8]) -> String {
        let state = self.standard_state(id, &timestamp_seconds.to_string(), body);
        let mut text = String::with_capacity(STANDARD_PREFIX.len() + 44);
        text.push_str(STANDARD_PREFIX);
        STANDARD.encode_string(state.finalize().into_bytes(), &mut text);
        text
    }

    /// Checks a value of `X-Webhook-Signature` in constant time.
    ///
    /// # Errors
    /// [`SignatureRefused`]; a shortened signature is malformed, never a match of what is left (CVE-2024-21491).
    pub fn verify_plain(&self, header: &str, body: &[u8]) -> Result<(), SignatureRefused> {
        let received = header
            .trim()
            .strip_prefix(PLAIN_PREFIX)
            .and_then(decode_hex)
            .ok_or(SignatureRefused::Malformed("sha256=<64 hex digits>"))?;
        let mut state = self.plain.clone();
        state.update(body);
        state
            .verify_slice(&received)
            .map_err(|_| SignatureRefused::Mismatch)
    }

    /// Checks the three `webhook-*` headers. `signatures` may hold several, space separated, as it does while a secret is rotated.
    ///
    /// # Errors
    /// [`SignatureRefused`]; the timestamp may lie [`TOLERANCE_SECONDS`] before or after `now_seconds`.
    pub fn verify_standard(
        &self,
        id: &str,
        timestamp: &str,
        signatures: &str,
        body: &[u8],
        now_seconds: u64,
    ) -> Result<(), SignatureRefused> {
        let seconds: u64 = timestamp
            .parse()
            .map_err(|_| SignatureRefused::BadTimestamp)?;
        if now_seconds.saturating_sub(seconds) > TOLERANCE_SECONDS {
            return Err(SignatureRefused::TooOld(now_seconds - seconds));
        }
        if seconds.saturating_sub(now_seconds) > TOLERANCE_SECONDS {
            return Err(SignatureRefused::TooNew(seconds - now_seconds));
        }
        // The text that was sent is what was signed, so `007` is not turned into `7` first.
        let state = self.standard_state(id, timestamp, body);
        let mut seen = false;
        for encoded in signatures
            .split(' ')
            .filter_map(|element| element.strip_prefix(STANDARD_PREFIX))
        {
            seen = true;
            if let Ok(received) = STANDARD.decode(encoded)
                && state.clone().verify_slice(&received).is_ok()
            {
                return Ok(());
            }
        }
        Err(if seen {
            SignatureRefused::Mismatch
        } else {
            SignatureRefused::Malformed("v1,<base64>")
        })
    }

    fn standard_state(&self, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
        let mut state = self.standard.clone();
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            state.update(part);
        }
        state
    }
}

/// A new secret: `whsec_` and 32 random bytes in base64.
///
/// # Errors
/// [`SecretError::NoRandomness`] where the operating system has none to give.
pub fn generate_secret() -> Result<String, SecretError> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| SecretError::NoRandomness(error.to_string()))?;
    Ok(format!("{SECRET_PREFIX}{}", STANDARD.encode(bytes)))
}

fn keyed(key: &[u8]) -> Result<Hmac<Sha256>, SecretError> {
    // HMAC takes keys of any length; the error exists only in the trait.
    Hmac::new_from_slice(key).map_err(|_| SecretError::Empty)
}

fn decode_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0_u8; 32];
    let mut digits = text.chars().map(|digit| {
        digit
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    });
    for byte in &mut bytes {
        *byte = digits.next()?? << 4 | digits.next()??;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
