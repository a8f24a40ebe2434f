//! The UEFI loader's share: hashing and verifying without SSE, an operating system or randomness.

use ed25519_dalek::{Signature, VerifyingKey};
use sha2::Digest as _;

use crate::{PUBLIC_KEY_LENGTH, TrustError};

/// A SHA-256 in the making, for content that comes in pieces.
#[derive(Clone)]
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// Over nothing yet.
    pub fn new() -> Self {
        Self(sha2::Sha256::new())
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) fn verify(key: &[u8; PUBLIC_KEY_LENGTH], message: &[u8], signature: &[u8]) -> Result<(), TrustError> {
    let key = VerifyingKey::from_bytes(key).map_err(|_| TrustError::BadSignature)?;
    let signature = Signature::from_slice(signature).map_err(|_| TrustError::BadSignature)?;
    // Strict: refuses keys of small order, under which one signature fits every message.
    key.verify_strict(message, &signature)
        .map_err(|_| TrustError::BadSignature)
}
