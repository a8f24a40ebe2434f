//! Texts with signatures over them, judged.

use std::fmt;
use std::io::BufReader;

use pgp::packet::{Packet, PacketParser, Signature, SignatureType};

use crate::armor::{self, ArmorError, SIGNATURE};
use crate::keyring::{Keyring, created, strong, understood};
use crate::release::in_words;
use crate::{MAX_AHEAD, MAX_SIGNATURE, MAX_TEXT};

/// Signatures of one text that are looked at.
const MAX_SIGNATURES: usize = 16;

/// A text that a trusted key signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signed {
    /// What the signature covers: nothing else may be read of the file.
    pub text: String,
    /// Fingerprint of the certificate, in upper-case hexadecimal digits.
    pub signer: String,
    /// Fingerprint of the key of it that signed.
    pub key: String,
    /// When it was signed, in seconds since 1970.
    pub time: u64,
}

/// Why one signature does not count.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// By a key that is not trusted.
    #[error("the key is not among those that are trusted")]
    UnknownKey,
    /// The text or the signature was changed, or the key is not the one it names.
    #[error("it does not fit the text: the text was changed, or another key signed it")]
    Bad,
    /// MD5, SHA-1 or another digest that does not count.
    #[error("it is made with {0}, and SHA-256, SHA-384 or SHA-512 are asked for")]
    WeakHash(String),
    /// RSA of less than 2048 bits, DSA, or a kind that is not known.
    #[error("the key is of a kind that does not count: RSA of 2048 bits or more, ECDSA and Ed25519 do")]
    WeakKey,
    /// Of a kind that is not for texts.
    #[error("it is no signature of a text")]
    Kind,
    /// It says something that must be understood, and is not.
    #[error("it says something that has to be understood and is not known here")]
    Critical,
    /// Without a time.
    #[error("it does not say when it was made")]
    NoTime,
    /// From the future.
    #[error("it was made at {}, and the clock here says {}; see `rackbar status` for the clock", in_words(*.made), in_words(*.now))]
    Future {
        /// When it says that it was made.
        made: u64,
        /// The clock's time.
        now: u64,
    },
    /// It does not count any more.
    #[error("it counted until {}", in_words(*.0))]
    Expired(u64),
    /// Made before its key.
    #[error("it was made before its key")]
    BeforeKey,
    /// The key had expired.
    #[error("the key had expired on {}, before it was made; take the publisher's new key", in_words(*.0))]
    KeyExpired(u64),
    /// The key is revoked.
    #[error("the key is revoked; take the publisher's new key")]
    Revoked,
    /// The key's own words for it are missing or weak.
    #[error(
        "nothing that counts binds the key to its certificate: its own signatures are missing, wrong or made with SHA-1"
    )]
    Unbound,
    /// The key is for something else.
    #[error("the key is not one for signing")]
    NotForSigning,
}

/// Why a signed text is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// It is not what it should be.
    #[error("it is not signed as it should be: {0}")]
    Frame(#[from] ArmorError),
    /// The signature is no OpenPGP.
    #[error("its signature makes no sense: {0}")]
    Packets(String),
    /// No signature is in it.
    #[error("there is no signature in it")]
    None,
    /// None of its signatures counts.
    #[error("none of its signatures counts: {}", Listed(.0))]
    NoneGood(Vec<(String, Refusal)>),
}

struct Listed<'r>(&'r [(String, Refusal)]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, why)) in self.0.iter().enumerate() {
            let between = if at == 0 { "" } else { "; " };
            write!(f, "{between}of key {key}: {why}")?;
        }
        Ok(())
    }
}

/// Judges a text that is signed in the clear, as Debian's InRelease. `now` is in seconds since 1970.
///
/// # Errors
/// When it is anything but one text with signatures, one of which is good and by a trusted key.
pub fn cleartext(file: &[u8], keys: &Keyring, now: u64) -> Result<Signed, Refused> {
    let taken = armor::cleartext(file, MAX_TEXT)?;
    let signatures = signatures(&taken.packets)?;
    judge(&signatures, taken.text, &[SignatureType::Text], keys, now)
}

/// Judges a text whose signature lies beside it, in ASCII armor or binary. `now` is in seconds since 1970.
///
/// # Errors
/// When none of the signatures is good and by a trusted key.
pub fn detached(text: &[u8], signature: &[u8], keys: &Keyring, now: u64) -> Result<Signed, Refused> {
    let text = armor::plain(text, MAX_TEXT)?.to_owned();
    let packets = if signature.first().is_some_and(|first| first & 0x80 != 0) {
        let found = signature.len();
        if found > MAX_SIGNATURE {
            let most = MAX_SIGNATURE;
            return Err(ArmorError::Large { found, most }.into());
        }
        signature.to_vec()
    } else {
        armor::blocks(signature, SIGNATURE, MAX_SIGNATURE)?.concat()
    };
    let signatures = signatures(&packets)?;
    judge(
        &signatures,
        text,
        &[SignatureType::Binary, SignatureType::Text],
        keys,
        now,
    )
}

/// The signatures in a row of packets that has nothing else.
fn signatures(packets: &[u8]) -> Result<Vec<Signature>, Refused> {
    let mut out = Vec::new();
    for packet in PacketParser::new(BufReader::new(packets)) {
        match packet {
            Ok(Packet::Signature(signature)) if out.len() < MAX_SIGNATURES => out.push(signature),
            Ok(Packet::Signature(_)) => {
                return Err(Refused::Packets(format!(
                    "it has more than {MAX_SIGNATURES} signatures"
                )));
            }
            Ok(_) => return Err(Refused::Packets("something else is among its signatures".into())),
            Err(error) => return Err(Refused::Packets(error.to_string())),
        }
    }
    if out.is_empty() { Err(Refused::None) } else { Ok(out) }
}

fn judge(
    all: &[Signature],
    text: String,
    kinds: &[SignatureType],
    keys: &Keyring,
    now: u64,
) -> Result<Signed, Refused> {
    let mut refusals = Vec::new();
    for signature in all {
        match one(signature, text.as_bytes(), kinds, keys, now) {
            Ok((signer, key, time)) => {
                return Ok(Signed {
                    text,
                    signer,
                    key,
                    time,
                });
            }
            Err(why) => refusals.push((named(signature), why)),
        }
    }
    Err(Refused::NoneGood(refusals))
}

/// Certificate, key and time of a good signature.
fn one(
    signature: &Signature,
    text: &[u8],
    kinds: &[SignatureType],
    keys: &Keyring,
    now: u64,
) -> Result<(String, String, u64), Refusal> {
    let candidates = keys.candidates(signature);
    if candidates.is_empty() {
        return Err(Refusal::UnknownKey);
    }
    if !signature.typ().is_some_and(|kind| kinds.contains(&kind)) {
        return Err(Refusal::Kind);
    }
    if !strong(signature) {
        let hash = signature
            .hash_alg()
            .map_or_else(|| "an unknown digest".to_owned(), |hash| hash.to_string());
        return Err(Refusal::WeakHash(hash));
    }
    if !understood(signature) {
        return Err(Refusal::Critical);
    }
    let made = created(signature).ok_or(Refusal::NoTime)?;
    if made > now.saturating_add(MAX_AHEAD) {
        return Err(Refusal::Future { made, now });
    }
    let lasts = signature
        .signature_expiration_time()
        .map_or(0, |time| u64::from(time.as_secs()));
    if lasts != 0 && made.saturating_add(lasts) <= now {
        return Err(Refusal::Expired(made.saturating_add(lasts)));
    }
    let mut why = Refusal::Bad;
    for candidate in candidates {
        if !candidate.made(signature, text) {
            continue;
        }
        match candidate.may_sign(made, now) {
            Ok(()) => return Ok((candidate.certificate(), candidate.key(), made)),
            Err(refusal) => why = refusal,
        }
    }
    Err(why)
}

/// The key that a signature names, for people.
fn named(signature: &Signature) -> String {
    let print = signature.issuer_fingerprint().first().map(|print| format!("{print:X}"));
    let id = || {
        signature
            .issuer_key_id()
            .first()
            .map(|id| id.to_string().to_uppercase())
    };
    print.or_else(id).unwrap_or_else(|| "that it does not name".into())
}
