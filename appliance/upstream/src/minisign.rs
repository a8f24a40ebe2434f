//! Public keys and signatures in minisign's format (<https://jedisct1.github.io/minisign/>, "Signature format" and "Public key
//! format"), verified.
//!
//! ```text
//! untrusted comment: anything                    untrusted comment: anything
//! base64("ED" key-id[8] signature[64])           base64("Ed" key-id[8] key[32])
//! trusted comment: what the signer says
//! base64(signature[64] over signature and trusted comment)
//! ```
//! The signature is Ed25519 over the BLAKE2b-512 of the file (`ED`). The old kind over the file itself (`Ed`) is refused by
//! name: minisign has made none since 2021 unless it was told to.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest as _};

/// Letters of a key's file, or of a signature's, that are read; minisign writes 0.3 KiB, and its comments may have 8 KiB.
const MAX_LETTERS: usize = 32 << 10;
const KEY: [u8; 2] = *b"Ed";
const PREHASHED: [u8; 2] = *b"ED";
const UNTRUSTED: &str = "untrusted comment:";
const TRUSTED: &str = "trusted comment: ";

/// Why a key or a signature was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MinisignError {
    /// Not a public key.
    #[error(
        "this is no public key of minisign's: it is one line of 56 letters that begins with RW, or a file with a comment above it"
    )]
    Key,
    /// A secret key stands where a public one should.
    #[error(
        "this is a secret key; what checks a signature is the public one, and a secret key belongs nowhere else than with its owner"
    )]
    SecretKey,
    /// Not a signature.
    #[error(
        "this is no signature of minisign's: four lines, a comment, the signature, the trusted comment, and its signature"
    )]
    Signature,
    /// Of the old kind.
    #[error("this signature is over the file itself, as minisign -l makes it; sign it anew without -l")]
    Old,
    /// By another key.
    #[error("it was signed with key {by}, and the key that is trusted is {trusted}")]
    Stranger {
        /// Who signed, by what the signature says.
        by: KeyId,
        /// Who is trusted.
        trusted: KeyId,
    },
    /// The file is not what was signed.
    #[error("the signature does not fit the file: one of the two was changed")]
    Changed,
    /// The trusted comment is not what was signed.
    #[error("the signature fits the file, but its trusted comment was changed")]
    Comment,
}

/// A key's identifier, shown as minisign shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A public key. Read from the line alone or from a whole file; written as the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MinisignKey {
    /// Its identifier.
    pub id: KeyId,
    /// The Ed25519 key.
    pub key: [u8; 32],
}

impl FromStr for MinisignKey {
    type Err = MinisignError;

    fn from_str(text: &str) -> Result<Self, MinisignError> {
        if text.len() > MAX_LETTERS {
            return Err(MinisignError::Key);
        }
        let mut lines = text.trim().lines();
        let first = lines.next().ok_or(MinisignError::Key)?;
        let line = if first.starts_with(UNTRUSTED) {
            lines.next().ok_or(MinisignError::Key)?
        } else {
            first
        };
        let bytes = STANDARD.decode(line.trim_end()).map_err(|_| MinisignError::Key)?;
        if bytes.len() == 158 {
            return Err(MinisignError::SecretKey);
        }
        let (kind, id, key) = parts(&bytes).ok_or(MinisignError::Key)?;
        if kind != KEY || lines.any(|line| !line.trim().is_empty()) {
            return Err(MinisignError::Key);
        }
        Ok(Self { id: KeyId(id), key })
    }
}

impl fmt::Display for MinisignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode([&KEY[..], &self.id.0, &self.key].concat()))
    }
}

/// Checks the `signature` over `file` and gives its trusted comment: what the signer says of the file.
///
/// # Errors
/// When the signature cannot be read, is not this key's, or fits neither file nor comment.
pub fn minisign<'a>(file: &[u8], signature: &'a str, key: &MinisignKey) -> Result<&'a str, MinisignError> {
    if signature.len() > MAX_LETTERS {
        return Err(MinisignError::Signature);
    }
    let lines: Vec<_> = signature.lines().collect();
    let &[comment, first, said, second] = lines.as_slice() else {
        return Err(MinisignError::Signature);
    };
    let said = said.strip_prefix(TRUSTED).ok_or(MinisignError::Signature)?;
    let first = STANDARD.decode(first).map_err(|_| MinisignError::Signature)?;
    let second = STANDARD.decode(second).map_err(|_| MinisignError::Signature)?;
    let (kind, id, over_file) = parts::<64>(&first).ok_or(MinisignError::Signature)?;
    match kind {
        _ if !comment.starts_with(UNTRUSTED) || said.chars().any(char::is_control) => {
            return Err(MinisignError::Signature);
        }
        PREHASHED => {}
        KEY => return Err(MinisignError::Old),
        _ => return Err(MinisignError::Signature),
    }
    if KeyId(id) != key.id {
        return Err(MinisignError::Stranger {
            by: KeyId(id),
            trusted: key.id,
        });
    }
    rackbar_trust::verify(&key.key, &Blake2b512::digest(file), &over_file).map_err(|_| MinisignError::Changed)?;
    let commented = [&over_file[..], said.as_bytes()].concat();
    rackbar_trust::verify(&key.key, &commented, &second).map_err(|_| MinisignError::Comment)?;
    Ok(said)
}

/// Kind, identifier, and exactly so many bytes behind them.
fn parts<const N: usize>(bytes: &[u8]) -> Option<([u8; 2], [u8; 8], [u8; N])> {
    let (kind, rest) = bytes.split_first_chunk()?;
    let (id, rest) = rest.split_first_chunk()?;
    Some((*kind, *id, rest.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Made by minisign 0.11 of Debian, `OLD` with -l.
    const PUBLIC: &str = "RWSqwdGatraMVRKGIzYe2vLO05M4qUDi+Ra7gWsNLTZp5Ux8ol2rEcWh";
    const FILE: &[u8] = b"release";
    const SIGNED: &str = "untrusted comment: signature from minisign secret key\n\
        RUSqwdGatraMVXdEwtxT2eZ1I3Of+dZ0YSBl4Z5m6ChJPOrkhrM5Zw2Q+waiM51xOjY2AQ82WhE7Xd/gyFKm3rqZRFHVjQYw3Q8=\n\
        trusted comment: Rackbar 1.2.3\n\
        5kSwSRZniKVA488XuYYrQSLYhVXqdqNHfwHdeGPZzrqMS24cHUk2Am47xbIU57KH4F7dD0YTNNrqBWPLcWliBw==\n";
    const OLD: &str = "untrusted comment: signature from minisign secret key\n\
        RWSqwdGatraMVYhTIF817NsPuwiXctxj0+WyKWPVzEC+F8dvU0l+GYE5NvhgUbTdzY7Kv+qcGS5MAQEK8Ghfbtck6kv8+o5XnQI=\n\
        trusted comment: Rackbar 1.2.3\n\
        y82+Qo/F57xy+h7lUWWvuL6f21NO/s5zC8XDLsxOFggiBflk9yr0DxgivsdYzt7Xbn8pa0usgnzzLDlSwkR/Cw==\n";

    fn key() -> MinisignKey {
        PUBLIC.parse().unwrap()
    }

    #[test]
    fn what_minisign_signed_is_believed_and_nothing_else() {
        assert_eq!(minisign(FILE, SIGNED, &key()), Ok("Rackbar 1.2.3"));
        let windows = SIGNED.replace('\n', "\r\n");
        assert_eq!(minisign(FILE, &windows, &key()), Ok("Rackbar 1.2.3"));
        for bit in 0..FILE.len() * 8 {
            let mut file = FILE.to_vec();
            file[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(minisign(&file, SIGNED, &key()), Err(MinisignError::Changed), "{bit}");
        }
        let comment = SIGNED.replace("1.2.3", "1.2.4");
        assert_eq!(minisign(FILE, &comment, &key()), Err(MinisignError::Comment));
        assert_eq!(minisign(FILE, OLD, &key()), Err(MinisignError::Old));
        let mut other = key();
        other.id.0[0] ^= 1;
        assert!(matches!(
            minisign(FILE, SIGNED, &other),
            Err(MinisignError::Stranger { .. })
        ));
        let mut forged = key();
        forged.key[0] ^= 1;
        assert_eq!(minisign(FILE, SIGNED, &forged), Err(MinisignError::Changed));
    }

    #[test]
    fn no_letter_of_a_signature_can_change_but_in_the_untrusted_comment() {
        let from = SIGNED.find('\n').unwrap() + 1;
        for at in from..SIGNED.trim_end().len() {
            let mut changed = SIGNED.as_bytes().to_vec();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert!(minisign(FILE, &changed, &key()).is_err(), "{at}: {changed}");
        }
        for cut in 0..SIGNED.trim_end().len() {
            assert!(minisign(FILE, &SIGNED[..cut], &key()).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_key_is_read_from_its_line_or_its_file_and_a_secret_one_is_named() {
        let file = format!("untrusted comment: minisign public key {}\n{PUBLIC}\n", key().id);
        assert_eq!(file.parse(), Ok(key()));
        assert_eq!(key().to_string(), PUBLIC);
        let secret = STANDARD.encode([7; 158]);
        assert_eq!(secret.parse::<MinisignKey>(), Err(MinisignError::SecretKey));
        for bad in [
            "",
            "untrusted comment: x",
            &PUBLIC[1..],
            &format!("{PUBLIC}\n{PUBLIC}"),
            &STANDARD.encode([0; 42]),
        ] {
            assert_eq!(bad.parse::<MinisignKey>(), Err(MinisignError::Key), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,300}") {
            let _ = text.parse::<MinisignKey>();
            let _ = minisign(b"", &text, &key());
        }

        #[test]
        fn what_is_written_is_read(id in any::<[u8; 8]>(), bytes in any::<[u8; 32]>()) {
            let key = MinisignKey { id: KeyId(id), key: bytes };
            prop_assert_eq!(key.to_string().parse(), Ok(key));
        }
    }
}
