//! Sealing: values that only the holder of a key can read or change.
//!
//! ChaCha20-Poly1305 (RFC 8439) with a random 96-bit nonce. What a value is for (its context, such as table and key) is
//! authenticated with it, so that a value moved to another place does not open there. A key is random, or comes from a
//! passphrase by PBKDF2-HMAC-SHA256 (RFC 8018 section 5.2).
//!
//! ```text
//! "RBS1"  key id (8)  nonce (12)  ciphertext  tag (16)
//! ```
//! With random nonces one key may seal 2^32 values before a repeat becomes likelier than 2^-32 (NIST SP 800-38D's bound
//! for nonces of this size); an appliance seals some thousands in its life.

use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU32;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::pbkdf2;
use zeroize::Zeroizing;

use crate::{Secret, Sha256, TrustError, random};

/// First bytes of every sealed value: the format's version.
const MAGIC: &[u8; 4] = b"RBS1";

const KEY_ID: usize = 8;
const HEADER: usize = MAGIC.len() + KEY_ID;

/// Names a key without telling it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyId(pub [u8; KEY_ID]);

/// Why a sealed value did not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealError {
    /// The bytes are no sealed value of a version this program knows.
    NotSealed,
    /// It was sealed with another key.
    OtherKey,
    /// It was changed, or belongs to another place.
    Damaged,
    /// The system gave no random numbers.
    NoRandomness,
    /// The parameters of the passphrase are out of bounds.
    BadParameters,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSealed => "the value is not sealed in a form this program knows",
            Self::OtherKey => "the value was sealed with another key or passphrase",
            Self::Damaged => "the sealed value was changed, or was moved from another place",
            Self::NoRandomness => "the system's random number generator gave nothing",
            Self::BadParameters => "the passphrase's parameters are out of bounds",
        })
    }
}

impl core::error::Error for SealError {}

impl From<TrustError> for SealError {
    fn from(_: TrustError) -> Self {
        Self::NoRandomness
    }
}

/// How a passphrase becomes a key. Stored beside what it protects; none of it is secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// Random, new for each passphrase.
    pub salt: [u8; 16],
    /// Rounds of PBKDF2.
    pub iterations: u32,
}

impl Stretch {
    /// Rounds for new passphrases (OWASP's figure of 2023 for HMAC-SHA256): under half a second on a slow appliance.
    pub const ITERATIONS: u32 = 600_000;

    /// Rounds that are taken from a file: fewer protect nothing, more are an attack on our time.
    pub const BOUNDS: core::ops::RangeInclusive<u32> = 100_000..=10_000_000;

    /// A new salt.
    ///
    /// # Errors
    /// [`SealError::NoRandomness`].
    pub fn new() -> Result<Self, SealError> {
        Ok(Self {
            salt: random()?,
            iterations: Self::ITERATIONS,
        })
    }
}

/// A key that seals. `Debug` shows its id.
pub struct SealKey {
    id: KeyId,
    key: LessSafeKey,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({:?})", self.id)
    }
}

impl SealKey {
    /// A key of these bytes.
    ///
    /// # Errors
    /// None of today's backends refuses 32 bytes; [`SealError::BadParameters`] should one ever do.
    pub fn new(secret: &Secret<32>) -> Result<Self, SealError> {
        let mut id = Sha256::new();
        id.update(b"rackbar seal key id\0");
        id.update(secret.expose());
        let mut short = [0; KEY_ID];
        short.copy_from_slice(id.finish().get(..KEY_ID).unwrap_or_default());
        let key = UnboundKey::new(&CHACHA20_POLY1305, secret.expose()).map_err(|_| SealError::BadParameters)?;
        Ok(Self {
            id: KeyId(short),
            key: LessSafeKey::new(key),
        })
    }

    /// The key of a passphrase.
    ///
    /// # Errors
    /// [`SealError::BadParameters`] when the rounds are out of [`Stretch::BOUNDS`].
    pub fn from_passphrase(passphrase: &str, stretch: &Stretch) -> Result<Self, SealError> {
        let iterations = NonZeroU32::new(stretch.iterations)
            .filter(|rounds| Stretch::BOUNDS.contains(&rounds.get()))
            .ok_or(SealError::BadParameters)?;
        let mut bytes = Zeroizing::new([0; 32]);
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &stretch.salt,
            passphrase.as_bytes(),
            bytes.as_mut(),
        );
        Self::new(&Secret::new(*bytes))
    }

    /// Names the key.
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Seals `plain` for the place that `context` names.
    ///
    /// # Errors
    /// [`SealError::NoRandomness`].
    pub fn seal(&self, context: &[&[u8]], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_LEN] = random()?;
        // Reserved whole: a growing buffer would leave copies of the plain text behind.
        let mut out = Vec::with_capacity(HEADER + NONCE_LEN + plain.len() + CHACHA20_POLY1305.tag_len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.id.0);
        let aad = associated(&out, context);
        out.extend_from_slice(&nonce);
        let from = out.len();
        out.extend_from_slice(plain);
        let body = out.get_mut(from..).unwrap_or_default();
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), body)
            .map_err(|_| SealError::Damaged)?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Opens what [`seal`](Self::seal) made for the same `context`.
    ///
    /// # Errors
    /// [`SealError`]: no sealed value, of another key, or changed.
    pub fn open(&self, context: &[&[u8]], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (header, rest) = sealed.split_at_checked(HEADER).ok_or(SealError::NotSealed)?;
        if key_of(sealed).ok_or(SealError::NotSealed)? != self.id {
            return Err(SealError::OtherKey);
        }
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(SealError::NotSealed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::NotSealed)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .key
            .open_in_place(nonce, Aad::from(associated(header, context)), &mut body)
            .map_err(|_| SealError::Damaged)?
            .len();
        body.truncate(length);
        Ok(body)
    }
}

/// The key a value was sealed with; `None` when it is no sealed value.
pub fn key_of(sealed: &[u8]) -> Option<KeyId> {
    let id = sealed.strip_prefix(MAGIC)?.get(..KEY_ID)?;
    id.try_into().ok().map(KeyId)
}

/// The header and each part of the context behind its length, so that no two contexts give the same bytes.
fn associated(header: &[u8], context: &[&[u8]]) -> Vec<u8> {
    let mut out = header.to_vec();
    for part in context {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> SealKey {
        SealKey::new(&Secret::new([byte; 32])).unwrap()
    }

    #[test]
    fn a_value_opens_in_its_place_with_its_key_only() {
        let sealed = key(1).seal(&[b"secrets", b"ca"], b"plain").unwrap();
        assert_eq!(&**key(1).open(&[b"secrets", b"ca"], &sealed).unwrap(), b"plain");
        assert_eq!(key(2).open(&[b"secrets", b"ca"], &sealed), Err(SealError::OtherKey));
        assert_eq!(key(1).open(&[b"secretsc", b"a"], &sealed), Err(SealError::Damaged));
        assert_eq!(key(1).open(&[b"secrets", b"signer"], &sealed), Err(SealError::Damaged));
        assert_eq!(key_of(&sealed), Some(key(1).id()));
        assert_ne!(key(1).seal(&[], b"plain").unwrap(), key(1).seal(&[], b"plain").unwrap());
    }

    #[test]
    fn a_passphrase_gives_the_same_key_again_and_another_salt_another() {
        let (one, two) = (Stretch::new().unwrap(), Stretch::new().unwrap());
        let id = |passphrase, stretch| SealKey::from_passphrase(passphrase, stretch).unwrap().id();
        assert_eq!(id("correct horse", &one), id("correct horse", &one));
        assert_ne!(id("correct horse", &one), id("correct horse", &two));
        assert_ne!(id("correct horse", &one), id("battery staple", &one));
        for iterations in [0, 1, u32::MAX] {
            let weak = Stretch { iterations, ..one };
            assert_eq!(
                SealKey::from_passphrase("x", &weak).unwrap_err(),
                SealError::BadParameters
            );
        }
    }

    proptest! {
        #[test]
        fn every_changed_byte_is_noticed(plain: Vec<u8>, place: prop::sample::Index, change in 1u8..) {
            let mut sealed = key(1).seal(&[b"x"], &plain).unwrap();
            let at = place.index(sealed.len());
            sealed[at] ^= change;
            prop_assert!(key(1).open(&[b"x"], &sealed).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            prop_assert!(key(1).open(&[], &bytes).is_err());
        }
    }
}
