//! The key of the catalog's secrets, and those that it took the place of: while a catalog is written anew with another key, records
//! of both are read (promise 7, and no delivery waits for the change).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::KeyInit;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::super::identity::hex;

/// Why a text is not a sealing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It is not base64 (RFC 4648 4).
    #[error("the secret key is not base64; make one with: head -c 32 /dev/urandom | base64")]
    NotBase64,
    /// It has another length.
    #[error(
        "the secret key has {0} bytes and must have 32; make one with: head -c 32 /dev/urandom | base64"
    )]
    WrongLength(usize),
}

/// The key that encrypts the secrets of webhooks in the catalog topic.
/// Keys that were in its place before only open what they sealed.
#[derive(Clone)]
pub struct SealingKey {
    cipher: XChaCha20Poly1305,
    id: String,
    naming: Hmac<Sha256>,
    old: Vec<SealingKey>,
}

impl SealingKey {
    /// Reads a key of 32 bytes in base64; white space around it is ignored.
    ///
    /// # Errors
    /// [`InvalidKey`]; it never repeats the text.
    pub fn from_base64(text: &str) -> Result<Self, InvalidKey> {
        let bytes = STANDARD
            .decode(text.trim())
            .map_err(|_| InvalidKey::NotBase64)?;
        let cipher = XChaCha20Poly1305::new_from_slice(&bytes)
            .map_err(|_| InvalidKey::WrongLength(bytes.len()))?;
        let naming = <Hmac<Sha256> as KeyInit>::new_from_slice(&bytes)
            .map_err(|_| InvalidKey::WrongLength(bytes.len()))?;
        let id = hex(&Sha256::digest(&bytes), 4);
        Ok(Self {
            cipher,
            id,
            naming,
            old: Vec::new(),
        })
    }

    /// The first 8 hexadecimal digits of the key's SHA-256: tells keys apart and gives nothing away.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The same key, which opens what these sealed too.
    #[must_use]
    pub fn with_old(mut self, old: Vec<Self>) -> Self {
        self.old = old;
        self
    }

    /// The ids of all keys that open, its own first.
    pub fn ids(&self) -> String {
        let ids: Vec<&str> = self.all().map(Self::id).collect();
        ids.join(", ")
    }

    /// A name for some texts that does not tell them: 128 bits of an HMAC, in hexadecimal digits.
    pub(in super::super) fn tag(&self, texts: &[&str]) -> String {
        let mut mac = self.naming.clone();
        mac.update(b"postrider name");
        for text in texts {
            // The length, so that no two lists run together into the same bytes.
            mac.update(&text.len().to_be_bytes());
            mac.update(text.as_bytes());
        }
        hex(&mac.finalize().into_bytes(), 16)
    }

    /// What seals.
    pub(super) fn cipher(&self) -> &XChaCha20Poly1305 {
        &self.cipher
    }

    /// What opens what the key of this id sealed, if it is there.
    pub(super) fn cipher_of(&self, id: &str) -> Option<&XChaCha20Poly1305> {
        let mut all = self.all();
        all.find(|key| key.id == id).map(Self::cipher)
    }

    fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.old)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SealingKey({})", self.id)
    }
}
