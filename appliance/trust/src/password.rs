//! Passwords for machines: one per BMC, random, of characters that every BMC and every keyboard takes.

use alloc::string::String;

use zeroize::Zeroizing;

use crate::{TrustError, random};

/// No character that looks like another in a console's font (`0O`, `1lI`), none that a shell, a URL, XML or a keyboard
/// of another country changes. Of the signs that policies ask for, these three are taken everywhere. Draws of six bits that hit none
/// are thrown away, so that each is as likely as the other.
const ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789-_.";

/// Shortest and longest password: IPMI 2.0 stores 16 or 20 bytes (section 22.30), and some BMCs that say 20 keep 16.
pub const PASSWORD_LENGTHS: core::ops::RangeInclusive<usize> = 16..=20;

/// A random password of `length` characters, held to [`PASSWORD_LENGTHS`], with at least one capital, one small letter,
/// one digit and one of `-_.`, and a letter at both ends: BMCs were seen to trim or misread a sign there. 16 characters
/// are about 92 bits.
///
/// # Errors
/// [`TrustError::NoRandomness`] when the system gives none.
pub fn password(length: usize) -> Result<Zeroizing<String>, TrustError> {
    let length = length.clamp(*PASSWORD_LENGTHS.start(), *PASSWORD_LENGTHS.end());
    loop {
        let mut text = Zeroizing::new(String::with_capacity(length));
        while text.len() < length {
            let bytes = Zeroizing::new(random::<64>()?);
            let drawn = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 63)));
            drawn.take(length - text.len()).for_each(|c| text.push(char::from(*c)));
        }
        if keeps_policies(&text) {
            return Ok(text);
        }
    }
}

/// What the common complexity rules ask for.
fn keeps_policies(text: &str) -> bool {
    let has = |is: fn(char) -> bool| text.chars().any(is);
    let ends = [text.chars().next(), text.chars().next_back()];
    has(|c| c.is_ascii_uppercase())
        && has(|c| c.is_ascii_lowercase())
        && has(|c| c.is_ascii_digit())
        && has(|c| "-_.".contains(c))
        && ends.iter().all(|end| end.is_some_and(|c| c.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use alloc::borrow::ToOwned as _;
    use alloc::collections::BTreeSet;

    use super::*;

    #[test]
    fn passwords_keep_policies_and_differ() {
        let mut seen = BTreeSet::new();
        for round in 0..500 {
            let text = password(14 + round % 10).unwrap();
            assert!(
                PASSWORD_LENGTHS.contains(&text.len()) && keeps_policies(&text),
                "{}",
                *text
            );
            assert!(text.bytes().all(|byte| ALPHABET.contains(&byte)));
            assert!(seen.insert(text.as_str().to_owned()));
        }
        // Every letter of the alphabet turns up: none is out of reach of the draw.
        let used: BTreeSet<u8> = seen.iter().flat_map(|text| text.bytes()).collect();
        assert_eq!(used.len(), ALPHABET.len());
    }
}
