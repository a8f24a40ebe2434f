//! Names of objects.

use std::fmt;

use sha1_checked::{Digest as _, Sha1};

/// The name of an object: the SHA-1 of its kind, length and content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub [u8; 20]);

impl Id {
    /// Reads 40 hexadecimal digits in lower case.
    pub fn read(text: &[u8]) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte.wrapping_sub(b'0')),
            b'a'..=b'f' => Some(byte.wrapping_sub(b'a').wrapping_add(10)),
            _ => None,
        };
        if text.len() != 40 {
            return None;
        }
        let mut out = [0; 20];
        for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(out))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// SHA-1 of these pieces one after the other; `None` for content that is made to have the digest of another (the attacks of
/// 2017 and 2020, which leave traces).
pub(crate) fn digest(pieces: &[&[u8]]) -> Option<Id> {
    let mut sum = Sha1::new();
    pieces.iter().for_each(|piece| sum.update(piece));
    let result = sum.try_finalize();
    (!result.has_collision()).then(|| Id((*result.hash()).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let text = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
        let id = Id::read(text.as_bytes()).unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(digest(&[b"blob 0\0"]), Some(id));
        for bad in [
            "",
            "e69de2",
            &text.to_uppercase(),
            &text.replace('e', "g"),
            &format!("{text}0"),
        ] {
            assert_eq!(Id::read(bad.as_bytes()), None, "{bad}");
        }
    }
}
