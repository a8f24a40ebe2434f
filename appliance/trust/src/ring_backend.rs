//! Everything by `ring`: hashing, verifying, signing, randomness.

use alloc::vec::Vec;

use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::{PUBLIC_KEY_LENGTH, SIGNATURE_LENGTH, Secret, Signer, TrustError};

/// A SHA-256 in the making, for content that comes in pieces.
#[derive(Clone)]
pub struct Sha256(digest::Context);

impl Sha256 {
    /// Over nothing yet.
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

/// A SHA-512 in the making: what publishers say of their files, and nothing of ours.
#[derive(Clone)]
pub struct Sha512(digest::Context);

impl Sha512 {
    /// Over nothing yet.
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA512))
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

impl Default for Sha512 {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) fn verify(key: &[u8; PUBLIC_KEY_LENGTH], message: &[u8], signature: &[u8]) -> Result<(), TrustError> {
    UnparsedPublicKey::new(&ED25519, key)
        .verify(message, signature)
        .map_err(|_| TrustError::BadSignature)
}

/// `N` bytes from the system's random number generator. Tokens and keys belong into [`Secret::random`].
///
/// # Errors
/// [`TrustError::NoRandomness`] when the system gives none.
pub fn random<const N: usize>() -> Result<[u8; N], TrustError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| TrustError::NoRandomness)?;
    Ok(bytes)
}

impl<const N: usize> Secret<N> {
    /// A new random secret.
    ///
    /// # Errors
    /// [`TrustError::NoRandomness`] when the system gives none.
    pub fn random() -> Result<Self, TrustError> {
        random().map(Self::new)
    }
}

/// An Ed25519 key pair. `Debug` shows the public half.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A new random key, with its PKCS#8 form (RFC 8410) to be stored.
    ///
    /// # Errors
    /// [`TrustError::NoRandomness`] when the system gives none.
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), TrustError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| TrustError::NoRandomness)?;
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// Reads a key from PKCS#8, version 1 (as OpenSSL writes it) or 2 (with the public key, as [`generate`](Self::generate)
    /// writes it).
    ///
    /// # Errors
    /// [`TrustError::BadPrivateKey`] when the bytes are something else or the two halves do not match.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, TrustError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8)
            .map(Self)
            .map_err(|_| TrustError::BadPrivateKey)
    }

    /// The key of a 32-byte seed (RFC 8032 section 5.1.5).
    ///
    /// # Errors
    /// None of today's backends refuses a seed; [`TrustError::BadPrivateKey`] should one ever do.
    pub fn from_seed(seed: &Secret<32>) -> Result<Self, TrustError> {
        Ed25519KeyPair::from_seed_unchecked(seed.expose())
            .map(Self)
            .map_err(|_| TrustError::BadPrivateKey)
    }
}

impl Signer for SigningKey {
    fn public_key(&self) -> [u8; PUBLIC_KEY_LENGTH] {
        let mut out = [0; PUBLIC_KEY_LENGTH];
        out.copy_from_slice(self.0.public_key().as_ref());
        out
    }

    fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        let mut out = [0; SIGNATURE_LENGTH];
        out.copy_from_slice(self.0.sign(message).as_ref());
        out
    }
}

impl core::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SigningKey(public ")?;
        self.public_key().iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        f.write_str(")")
    }
}
