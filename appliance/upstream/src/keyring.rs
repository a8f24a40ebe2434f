//! Trusted certificates (RFC 9580 section 10.1), and whether a key of theirs may sign at a time.
//!
//! A certificate counts by its own words alone: of each part its newest self-signature. Words with MD5, SHA-1 or anything that
//! is not SHA-2 of 256 bits or more do not count, with one exception: who says that a key is not to be trusted is believed.

use pgp::composed::{Deserializable as _, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{RevocationCode, Signature, SignatureType, SignatureVersion, SubpacketData};
use pgp::types::{Fingerprint, KeyDetails, KeyVersion, PublicParams, Tag};

use crate::armor::{self, ArmorError, PUBLIC_KEY};
use crate::signed::Refusal;
use crate::{MAX_AHEAD, MAX_KEYS};

/// Certificates at most, and parts (names, subkeys) and signatures of each: what is looked at costs time.
const MAX_CERTIFICATES: usize = 64;
const MAX_PARTS: usize = 64;
const MAX_SIGNATURES: usize = 512;
/// Bits of an RSA key at least.
const MIN_RSA: usize = 2048;

/// Why a file of keys is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyringError {
    /// Its frame is not right.
    #[error("these are no OpenPGP keys: {0}")]
    Armor(#[from] ArmorError),
    /// What is in it makes no sense.
    #[error("these are no OpenPGP keys: {0}")]
    Content(String),
    /// There is none.
    #[error("there is no OpenPGP certificate in it; `gpg --armor --export KEY` writes one")]
    Empty,
    /// There are too many.
    #[error(
        "more than {MAX_CERTIFICATES} certificates, or one with more than {MAX_PARTS} parts or {MAX_SIGNATURES} signatures; \
         `gpg --export-options export-minimal --armor --export KEY` leaves out what others said of it"
    )]
    Many,
}

/// Trusted certificates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keyring(Vec<SignedPublicKey>);

/// A key of a trusted certificate that may have made a signature.
pub(crate) struct Candidate<'k> {
    certificate: &'k SignedPublicKey,
    /// `None` for the primary key.
    subkey: Option<&'k SignedPublicSubKey>,
}

impl Keyring {
    /// Reads certificates, in ASCII armor (several blocks may follow each other) or binary.
    ///
    /// # Errors
    /// When anything else is in it, or none.
    pub fn read(bytes: &[u8]) -> Result<Self, KeyringError> {
        // A packet's first bit is set (RFC 9580 section 4.2); a text's is not.
        let blocks = if bytes.first().is_some_and(|first| first & 0x80 != 0) {
            let found = bytes.len();
            if found > MAX_KEYS {
                return Err(ArmorError::Large { found, most: MAX_KEYS }.into());
            }
            vec![bytes.to_vec()]
        } else {
            armor::blocks(bytes, PUBLIC_KEY, MAX_KEYS)?
        };
        let mut all = Vec::new();
        for block in blocks {
            let found = SignedPublicKey::from_bytes_many(block.as_slice());
            for certificate in found.map_err(|error| content(&error))? {
                let certificate = certificate.map_err(|error| content(&error))?;
                if all.len() >= MAX_CERTIFICATES || !bounded(&certificate) {
                    return Err(KeyringError::Many);
                }
                all.push(certificate);
            }
        }
        if all.is_empty() {
            Err(KeyringError::Empty)
        } else {
            Ok(Self(all))
        }
    }

    /// Fingerprints of the primary keys, in upper-case hexadecimal digits.
    pub fn fingerprints(&self) -> Vec<String> {
        self.0.iter().map(|one| format!("{:X}", one.fingerprint())).collect()
    }

    /// Keys that a signature names as its maker.
    pub(crate) fn candidates<'k>(&'k self, signature: &Signature) -> Vec<Candidate<'k>> {
        let (prints, ids) = (signature.issuer_fingerprint(), signature.issuer_key_id());
        let named = |key: &dyn KeyDetails| {
            prints.iter().any(|print| **print == key.fingerprint())
                || (prints.is_empty() && ids.iter().any(|id| **id == key.legacy_key_id()))
        };
        let mut out = Vec::new();
        for certificate in &self.0 {
            if named(&certificate.primary_key) {
                out.push(Candidate {
                    certificate,
                    subkey: None,
                });
            }
            let subkeys = certificate.public_subkeys.iter().filter(|subkey| named(&subkey.key));
            out.extend(subkeys.map(|subkey| Candidate {
                certificate,
                subkey: Some(subkey),
            }));
        }
        out
    }
}

fn content(error: &pgp::errors::Error) -> KeyringError {
    KeyringError::Content(error.to_string())
}

fn bounded(certificate: &SignedPublicKey) -> bool {
    let details = &certificate.details;
    let parts = details.users.len() + details.user_attributes.len() + certificate.public_subkeys.len();
    let users = details.users.iter().map(|user| user.signatures.len());
    let subkeys = certificate.public_subkeys.iter().map(|subkey| subkey.signatures.len());
    let own = details.direct_signatures.len() + details.revocation_signatures.len();
    parts <= MAX_PARTS && own + users.chain(subkeys).sum::<usize>() <= MAX_SIGNATURES
}

impl Candidate<'_> {
    /// Fingerprint of the certificate, in upper-case hexadecimal digits.
    pub(crate) fn certificate(&self) -> String {
        print(&self.certificate.fingerprint())
    }

    /// Fingerprint of the key itself.
    pub(crate) fn key(&self) -> String {
        print(
            &self
                .subkey
                .map_or_else(|| self.certificate.fingerprint(), |subkey| subkey.key.fingerprint()),
        )
    }

    /// Whether the key made this signature of this text.
    pub(crate) fn made(&self, signature: &Signature, text: &[u8]) -> bool {
        match self.subkey {
            Some(subkey) => signature.verify(&subkey.key, text).is_ok(),
            None => signature.verify(&self.certificate.primary_key, text).is_ok(),
        }
    }

    /// Whether the key might sign at `time`, as we know it at `now`; both in seconds since 1970.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn may_sign(&self, time: u64, now: u64) -> Result<(), Refusal> {
        let at = At { time, now };
        at.primary(self.certificate, self.subkey.is_none())?;
        self.subkey.map_or(Ok(()), |subkey| at.subkey(self.certificate, subkey))
    }
}

fn print(print: &Fingerprint) -> String {
    format!("{print:X}")
}

#[derive(Clone, Copy)]
struct At {
    time: u64,
    now: u64,
}

impl At {
    fn primary(self, certificate: &SignedPublicKey, signs: bool) -> Result<(), Refusal> {
        let key = &certificate.primary_key;
        sound(key)?;
        let details = &certificate.details;
        for revocation in &details.revocation_signatures {
            if revocation.verify_key(key).is_ok() && self.revokes(revocation) {
                return Err(Refusal::Revoked);
            }
        }
        let of_user = |user: &pgp::types::SignedUser| {
            let own: Vec<Signature> = user
                .signatures
                .iter()
                .filter(|one| one.verify_certification(key, Tag::UserId, &user.id).is_ok())
                .cloned()
                .collect();
            let revoked = own
                .iter()
                .any(|one| one.typ() == Some(SignatureType::CertRevocation) && self.revokes(one));
            let newest = self.newest(
                own.iter()
                    .filter(|one| one.typ() != Some(SignatureType::CertRevocation)),
            );
            newest.filter(|_| !revoked).cloned()
        };
        let direct = details.direct_signatures.iter();
        let direct =
            self.newest(direct.filter(|one| one.typ() == Some(SignatureType::Key) && one.verify_key(key).is_ok()));
        let words: Vec<Signature> = details
            .users
            .iter()
            .filter_map(of_user)
            .chain(direct.cloned())
            .collect();
        let newest = self.newest(words.iter()).ok_or(Refusal::Unbound)?;
        // Flags of the newest word count; where there are none, the key may do what its algorithm can (section 5.2.3.29).
        if signs && has_flags(newest) && !newest.key_flags().sign() {
            return Err(Refusal::NotForSigning);
        }
        self.alive(key, newest)
    }

    fn subkey(self, certificate: &SignedPublicKey, subkey: &SignedPublicSubKey) -> Result<(), Refusal> {
        let (primary, key) = (&certificate.primary_key, &subkey.key);
        sound(key)?;
        let own = |one: &&Signature| one.verify_subkey_binding(primary, key).is_ok();
        let own: Vec<&Signature> = subkey.signatures.iter().filter(own).collect();
        let is = |one: &Signature, kind| one.typ() == Some(kind);
        if own
            .iter()
            .any(|one| is(one, SignatureType::SubkeyRevocation) && self.revokes(one))
        {
            return Err(Refusal::Revoked);
        }
        let bindings = own.into_iter().filter(|one| is(one, SignatureType::SubkeyBinding));
        let binding = self.newest(bindings).ok_or(Refusal::Unbound)?;
        if !binding.key_flags().sign() {
            return Err(Refusal::NotForSigning);
        }
        // Without the subkey's own word anybody could claim another's signing key as theirs (section 10.1.5).
        let back = binding.embedded_signature().ok_or(Refusal::Unbound)?;
        if !strong(back) || back.verify_primary_key_binding(key, primary).is_err() {
            return Err(Refusal::Unbound);
        }
        self.alive(key, binding)
    }

    /// The newest of a key's own words that count now.
    fn newest<'s>(self, all: impl Iterator<Item = &'s Signature>) -> Option<&'s Signature> {
        let counts = |one: &&Signature| {
            let Some(created) = created(one) else { return false };
            let ends = one
                .signature_expiration_time()
                .map_or(0, |time| u64::from(time.as_secs()));
            let ended = ends != 0 && created.saturating_add(ends) <= self.time;
            strong(one) && understood(one) && created <= self.now.saturating_add(MAX_AHEAD) && !ended
        };
        all.filter(counts).max_by_key(|one| created(one))
    }

    fn alive(self, key: &impl KeyDetails, words: &Signature) -> Result<(), Refusal> {
        let made = u64::from(key.created_at().as_secs());
        if self.time < made {
            return Err(Refusal::BeforeKey);
        }
        let lasts = words.key_expiration_time().map_or(0, |time| u64::from(time.as_secs()));
        if lasts != 0 && made.saturating_add(lasts) <= self.time {
            return Err(Refusal::KeyExpired(made.saturating_add(lasts)));
        }
        Ok(())
    }

    /// A key that was replaced or laid down was good until then; any other reason, or none, means that it never was
    /// (section 5.2.3.31).
    fn revokes(self, revocation: &Signature) -> bool {
        let soft = matches!(
            revocation.revocation_reason_code(),
            Some(RevocationCode::KeySuperseded | RevocationCode::KeyRetired | RevocationCode::CertUserIdInvalid)
        );
        !soft || created(revocation).is_none_or(|since| since <= self.time)
    }
}

/// When a signature was made, in seconds since 1970; only what the signature itself covers counts.
pub(crate) fn created(signature: &Signature) -> Option<u64> {
    signature.created().map(|time| u64::from(time.as_secs()))
}

/// Whether a signature is of a kind and with a digest that counts.
pub(crate) fn strong(signature: &Signature) -> bool {
    matches!(signature.version(), SignatureVersion::V4 | SignatureVersion::V6)
        && matches!(
            signature.hash_alg(),
            Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512)
        )
}

/// Whether all is known that a signature says must be (section 5.2.3.7).
pub(crate) fn understood(signature: &Signature) -> bool {
    let unknown = |data: &SubpacketData| {
        matches!(
            data,
            SubpacketData::Experimental(..) | SubpacketData::Other(..) | SubpacketData::Notation(_)
        )
    };
    let config = signature.config();
    config.is_some_and(|config| {
        !config
            .hashed_subpackets()
            .any(|one| one.is_critical && unknown(&one.data))
    })
}

fn has_flags(signature: &Signature) -> bool {
    let config = signature.config();
    config.is_some_and(|config| {
        config
            .hashed_subpackets()
            .any(|one| matches!(one.data, SubpacketData::KeyFlags(_)))
    })
}

/// Whether the key is of a kind that counts today.
fn sound(key: &impl KeyDetails) -> Result<(), Refusal> {
    let good = matches!(key.version(), KeyVersion::V4 | KeyVersion::V6)
        && matches!(
            key.algorithm(),
            PublicKeyAlgorithm::RSA
                | PublicKeyAlgorithm::RSASign
                | PublicKeyAlgorithm::ECDSA
                | PublicKeyAlgorithm::EdDSALegacy
                | PublicKeyAlgorithm::Ed25519
        );
    let long = match key.public_params() {
        PublicParams::RSA(params) => rsa_bits(params) >= MIN_RSA,
        _ => true,
    };
    if good && long { Ok(()) } else { Err(Refusal::WeakKey) }
}

fn rsa_bits(params: &pgp::types::RsaPublicParams) -> usize {
    use pgp::ser::Serialize as _;
    let mut bytes = Vec::new();
    // An MPI: its length in bits, big-endian, in front (section 3.2).
    match params.to_writer(&mut bytes).map(|()| bytes.first_chunk::<2>().copied()) {
        Ok(Some(bits)) => usize::from(u16::from_be_bytes(bits)),
        _ => 0,
    }
}
