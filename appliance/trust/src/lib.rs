//! Hashes, signatures, random tokens and secrets, behind one small interface with two backends.
//!
//! `ring` does the work everywhere but in the UEFI loader: it asserts SSE2 at compile time, which that soft-float target
//! lacks, so there `ed25519-dalek` and `sha2` take its place and only verify. Nothing here knows what it signs.
//!
//! Signatures are pure Ed25519 (RFC 8032 section 5.1.7), 64 bytes; keys are 32 bytes; SHA-256 and SHA-512 are
//! FIPS 180-4.
#![no_std]

extern crate alloc;

#[cfg(any(test, all(feature = "dalek", not(feature = "ring"))))]
#[cfg_attr(test, allow(unreachable_pub, reason = "it is the public backend where ring is not"))]
mod dalek_backend;
#[cfg(any(test, feature = "ring"))]
mod password;
#[cfg(any(test, feature = "ring"))]
mod ring_backend;
#[cfg(any(test, feature = "ring"))]
pub mod seal;
mod secret;

#[cfg(any(test, feature = "ring"))]
use ring_backend as backend;

#[cfg(all(feature = "dalek", not(any(test, feature = "ring"))))]
use dalek_backend as backend;

#[cfg(not(any(test, feature = "ring", feature = "dalek")))]
compile_error!("rackbar-trust needs a backend: enable the feature `ring`, or `dalek` for the UEFI loader");

pub use backend::Sha256;
#[cfg(any(test, feature = "ring"))]
pub use password::{PASSWORD_LENGTHS, password};
#[cfg(any(test, feature = "ring"))]
pub use ring_backend::{Sha512, SigningKey, random};
pub use secret::{ParseSecretError, Secret, constant_time_eq};

/// Length of an Ed25519 public key in bytes.
pub const PUBLIC_KEY_LENGTH: usize = 32;

/// Length of an Ed25519 signature in bytes.
pub const SIGNATURE_LENGTH: usize = 64;

/// Why something here was refused. Says nothing of the secret itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrustError {
    /// The signature is not this key's over this message, or one of the two is malformed.
    BadSignature,
    /// The bytes are no Ed25519 private key in PKCS#8 form.
    BadPrivateKey,
    /// The system's random number generator gave nothing.
    NoRandomness,
}

impl core::fmt::Display for TrustError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::BadSignature => "the signature is not by the trusted key",
            Self::BadPrivateKey => "the bytes are not an Ed25519 private key in PKCS#8 form",
            Self::NoRandomness => "the system's random number generator gave nothing",
        })
    }
}

impl core::error::Error for TrustError {}

/// One who signs. The appliance's is [`SigningKey`]; code that only arranges what is signed takes this.
pub trait Signer {
    /// The public key that verifies what [`sign`](Self::sign) gives.
    fn public_key(&self) -> [u8; PUBLIC_KEY_LENGTH];

    /// The signature over `message`.
    fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LENGTH];
}

/// SHA-256 of `bytes`. For content that comes in pieces use [`Sha256`].
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(bytes);
    hash.finish()
}

/// Checks an Ed25519 `signature` by `key` over `message`.
///
/// # Errors
/// [`TrustError::BadSignature`] for anything but a good one, wrong lengths and impossible keys included.
pub fn verify(key: &[u8; PUBLIC_KEY_LENGTH], message: &[u8], signature: &[u8]) -> Result<(), TrustError> {
    backend::verify(key, message, signature)
}

#[cfg(test)]
mod tests;
