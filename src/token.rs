//! Who may use the API: a token's name, role, customer and hash. The text of a token is never kept, only its SHA-256, and a
//! token of a customer sees that customer only (promise 7).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::subscription::Customer;

/// What every token begins with, so that scanners for leaked secrets know it.
pub const PREFIX: &str = "prt_";

/// What the holder of a token may do; each may all that the one before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Sends events and tests, retries, replays, pauses and resumes.
    Operator,
    /// Writes webhooks and tokens.
    Admin,
}

impl Role {
    /// Every role, the weakest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The SHA-256 of a token's text.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            if !pair.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }

    /// 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether two are equal, in a time that does not tell where they differ.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// Not even the hash is printed: who has it can try words against it.
impl fmt::Debug for TokenHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenHash(***)")
    }
}

impl Serialize for TokenHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("not 64 hexadecimal digits"))
    }
}

/// A token as it is stored: in the configuration, or in the catalog topic under the key `token/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// `tok_…`; the name for one of the configuration.
    pub id: String,
    /// For people; who did it, in the audit trail.
    pub name: String,
    /// Of the token's text.
    pub sha256: TokenHash,
    /// What it allows.
    pub role: Role,
    /// The one customer that it sees; `None` sees all.
    pub customer: Option<Customer>,
    /// When it was made; `None` for one of the configuration.
    pub created_at: Option<Timestamp>,
    /// It is refused from then on.
    pub expires_at: Option<Timestamp>,
}

impl Token {
    /// Whether it may be used at this time.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// A new token's text: [`PREFIX`] and 32 random bytes in URL-safe base64.
///
/// # Errors
/// The system's random source failed.
pub fn generate() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_survives_its_text_and_nothing_else_is_taken_for_one() {
        let hash = TokenHash::of("prt_x");
        assert!(TokenHash::from_hex(&hash.to_hex()).unwrap().is(&hash));
        assert!(!TokenHash::of("prt_y").is(&hash));
        for wrong in ["", "ab", &"g".repeat(64), &"+1".repeat(32), &"é".repeat(32)] {
            assert!(TokenHash::from_hex(wrong).is_none(), "{wrong}");
        }
        assert_eq!(format!("{hash:?}"), "TokenHash(***)");
    }

    #[test]
    fn roles_are_ordered_by_what_they_allow() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        assert_eq!(Role::from_word("admin"), Some(Role::Admin));
        assert_eq!(Role::from_word("root"), None);
    }

    #[test]
    fn a_token_ends_at_its_time() {
        let end: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let token = Token {
            id: "tok_1".into(),
            name: "ci".into(),
            sha256: TokenHash::of("x"),
            role: Role::Viewer,
            customer: None,
            created_at: None,
            expires_at: Some(end),
        };
        assert!(token.is_live(end - jiff::SignedDuration::from_millis(1)));
        assert!(!token.is_live(end));
    }
}
