//! SHA-256 as lower-case hex, and identifiers derived from names by hashing.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The SHA-256 of `bytes`, as 64 lower-case hex digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The SHA-256 of a file, read piece by piece, and its length.
pub fn sha256_file(path: &Path) -> Result<(String, u64)> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let (mut hasher, mut length) = (Sha256::new(), 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = file
            .read(&mut piece)
            .with_context(|| format!("reading {}", path.display()))?;
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        hasher.update(bytes);
        length += read as u64;
    }
    Ok((hex(&hasher.finalize()), length))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A UUID (version 8, RFC 9562 section 5.8) derived from a name, in the byte order it is written in text.
pub(crate) fn uuid(name: &str) -> [u8; 16] {
    let mut id = [0; 16];
    id.iter_mut()
        .zip(Sha256::digest(format!("rackbar image {name}").as_bytes()))
        .for_each(|(to, from)| *to = from);
    id[6] = id[6] & 0x0F | 0x80;
    id[8] = id[8] & 0x3F | 0x80;
    id
}

/// The same UUID in the order GPT stores it: the first three fields are little-endian (UEFI 2.10, Appendix A).
pub(crate) fn guid(name: &str) -> [u8; 16] {
    let mut id = uuid(name);
    id[..4].reverse();
    id[4..6].reverse();
    id[6..8].reverse();
    id
}

/// A 32-bit serial number derived from a name.
pub(crate) fn serial(name: &str) -> u32 {
    let [a, b, c, d, ..] = uuid(name);
    u32::from_le_bytes([a, b, c, d])
}
