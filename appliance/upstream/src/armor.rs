//! Frames of OpenPGP: ASCII armor (RFC 9580 section 6.2) and the cleartext signature framework (section 7).
//!
//! Stricter than the standard where a reader that takes more could see another text than the one that was signed: nothing
//! before, between or behind, no header that is not known, no line ends but LF and CR LF.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

const SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
/// Name of a block that holds signatures.
pub(crate) const SIGNATURE: &str = "PGP SIGNATURE";
/// Name of a block that holds certificates.
pub(crate) const PUBLIC_KEY: &str = "PGP PUBLIC KEY BLOCK";

/// Why a frame is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ArmorError {
    /// It is longer than what is read.
    #[error("it has {found} bytes, and {most} are read at most")]
    Large {
        /// What it has.
        found: usize,
        /// What is read.
        most: usize,
    },
    /// It is no text.
    #[error("it is no UTF-8 text")]
    Text,
    /// A control character that programs read differently.
    #[error("line {0} has a control character in it")]
    Control(usize),
    /// It does not begin as it should.
    #[error("its first line is not `{0}`; what stands before a signed text is covered by no signature")]
    Begin(String),
    /// A header that nobody knows.
    #[error("line {0} is no armor header of this kind of block")]
    Header(usize),
    /// The block does not end.
    #[error("there is no line `{0}`")]
    End(String),
    /// Something follows.
    #[error("something follows in line {0}, behind the block's end, where no signature covers it")]
    Behind(usize),
    /// A line that begins with a dash and was not escaped.
    #[error("line {0} of the signed text begins with a dash that is not escaped")]
    Dash(usize),
    /// What should be base64 is not.
    #[error("what is in the block is not base64")]
    Base64,
}

/// A text with the signature over it, not verified yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cleartext {
    /// The text without escapes and without white space at ends of lines, lines ended by LF but the last.
    pub(crate) text: String,
    /// Signature packets.
    pub(crate) packets: Vec<u8>,
}

/// The bytes as text that every reader sees alike.
///
/// # Errors
/// When it is too long, no UTF-8, or has control characters other than tab and line ends.
pub(crate) fn plain(bytes: &[u8], most: usize) -> Result<&str, ArmorError> {
    let found = bytes.len();
    if found > most {
        return Err(ArmorError::Large { found, most });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| ArmorError::Text)?;
    let bad = |line: &str| line.chars().any(|c| c.is_control() && c != '\t');
    match lines(text).position(bad) {
        Some(at) => Err(ArmorError::Control(at.saturating_add(1))),
        None => Ok(text),
    }
}

/// Lines by LF, without the CR of a CR LF; one that stands alone stays in.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line))
}

/// Takes a text signed in the clear apart.
///
/// # Errors
/// When it is not exactly one signed text with one block of signatures.
pub(crate) fn cleartext(bytes: &[u8], most: usize) -> Result<Cleartext, ArmorError> {
    let mut rest = lines(plain(bytes, most)?).enumerate();
    if rest.next().map(|(_, line)| line) != Some(SIGNED) {
        return Err(ArmorError::Begin(SIGNED.to_owned()));
    }
    for (at, line) in rest.by_ref() {
        if line.is_empty() {
            break;
        }
        // Which algorithms count is read from the signatures themselves; another header could be part of the text to some.
        if !line.starts_with("Hash: ") {
            return Err(ArmorError::Header(at.saturating_add(1)));
        }
    }
    let begin = format!("-----BEGIN {SIGNATURE}-----");
    let mut text: Vec<&str> = Vec::new();
    let found = loop {
        let Some((at, line)) = rest.next() else { break false };
        if line == begin {
            break true;
        }
        let line = match line.strip_prefix("- ") {
            Some(line) => line,
            None if line.starts_with('-') => return Err(ArmorError::Dash(at.saturating_add(1))),
            None => line,
        };
        text.push(line.trim_end_matches([' ', '\t']));
    };
    if !found {
        return Err(ArmorError::End(begin));
    }
    let packets = body(&mut rest, SIGNATURE)?;
    nothing(&mut rest)?;
    let text = text.join("\n");
    Ok(Cleartext { text, packets })
}

/// What is in the blocks of a file that has nothing but such blocks, in their order.
///
/// # Errors
/// When there is anything else, or none.
pub(crate) fn blocks(bytes: &[u8], name: &str, most: usize) -> Result<Vec<Vec<u8>>, ArmorError> {
    let begin = format!("-----BEGIN {name}-----");
    let mut rest = lines(plain(bytes, most)?).enumerate();
    let mut out = Vec::new();
    loop {
        match rest.find(|(_, line)| !line.is_empty()) {
            None if out.is_empty() => return Err(ArmorError::Begin(begin)),
            None => return Ok(out),
            Some((_, line)) if line == begin => {}
            Some(_) if out.is_empty() => return Err(ArmorError::Begin(begin)),
            Some((at, _)) => return Err(ArmorError::Behind(at.saturating_add(1))),
        }
        loop {
            match rest.next() {
                None => return Err(ArmorError::End(format!("-----END {name}-----"))),
                Some((_, "")) => break,
                Some((_, line)) if line.contains(": ") || line.ends_with(':') => {}
                Some((at, _)) => return Err(ArmorError::Header(at.saturating_add(1))),
            }
        }
        out.push(data(&mut rest, name)?);
    }
}

/// The body of a block whose first line was read: its headers, then its data.
fn body<'a>(rest: &mut impl Iterator<Item = (usize, &'a str)>, name: &str) -> Result<Vec<u8>, ArmorError> {
    for (at, line) in rest.by_ref() {
        if line.is_empty() {
            return data(rest, name);
        }
        if !line.contains(": ") {
            return Err(ArmorError::Header(at.saturating_add(1)));
        }
    }
    Err(ArmorError::End(format!("-----END {name}-----")))
}

/// Base64 up to the block's end. The CRC-24 is passed over, as RFC 9580 section 6.1 has it: a signature tells more.
fn data<'a>(rest: &mut impl Iterator<Item = (usize, &'a str)>, name: &str) -> Result<Vec<u8>, ArmorError> {
    let end = format!("-----END {name}-----");
    let (mut text, mut summed) = (String::new(), false);
    for (_, line) in rest {
        if line == end {
            return BASE64_STANDARD.decode(text).map_err(|_| ArmorError::Base64);
        }
        if line.starts_with('-') || summed {
            break;
        }
        if line.starts_with('=') {
            summed = true;
        } else {
            text.push_str(line.trim_end_matches([' ', '\t']));
        }
    }
    Err(ArmorError::End(end))
}

fn nothing<'a>(rest: &mut impl Iterator<Item = (usize, &'a str)>) -> Result<(), ArmorError> {
    match rest.find(|(_, line)| !line.is_empty()) {
        Some((at, _)) => Err(ArmorError::Behind(at.saturating_add(1))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nfirst \n- -dash\n\nlast\n\
        -----BEGIN PGP SIGNATURE-----\n\nAAEC\n=abcd\n-----END PGP SIGNATURE-----\n";

    fn read(text: &str) -> Result<Cleartext, ArmorError> {
        cleartext(text.as_bytes(), 4096)
    }

    #[test]
    fn a_signed_text_is_taken_apart() {
        let expected = Cleartext {
            text: "first\n-dash\n\nlast".into(),
            packets: vec![0, 1, 2],
        };
        assert_eq!(read(GOOD).unwrap(), expected);
        assert_eq!(read(&GOOD.replace('\n', "\r\n")).unwrap(), expected);
        assert_eq!(read(&format!("{GOOD}\n\n")).unwrap(), expected);
    }

    #[test]
    fn what_no_signature_covers_is_refused() {
        let end = "-----END PGP SIGNATURE-----\n";
        for (bad, why) in [
            (format!("Origin: Evil\n{GOOD}"), ArmorError::Begin(SIGNED.into())),
            (format!("\n{GOOD}"), ArmorError::Begin(SIGNED.into())),
            (format!("\u{feff}{GOOD}"), ArmorError::Begin(SIGNED.into())),
            (format!("{GOOD}Origin: Evil\n"), ArmorError::Behind(13)),
            (format!("{GOOD}{GOOD}"), ArmorError::Behind(13)),
            (GOOD.replace("Hash: ", "Origin: "), ArmorError::Header(2)),
            (
                GOOD.replace("\n\nfirst", "\nOrigin: Evil\n\nfirst"),
                ArmorError::Header(3),
            ),
            (GOOD.replace("- -dash", "-dash"), ArmorError::Dash(5)),
            (GOOD.replace("last", "la\rst"), ArmorError::Control(7)),
            (GOOD.replace("last", "la\0st"), ArmorError::Control(7)),
            (GOOD.replace("AAEC", "A!EC"), ArmorError::Base64),
            (GOOD.replace(end, ""), ArmorError::End(end.trim_end().into())),
            (
                GOOD.split("-----BEGIN PGP SIGNATURE").next().unwrap().to_owned(),
                ArmorError::End("-----BEGIN PGP SIGNATURE-----".into()),
            ),
            (
                "x".repeat(4097),
                ArmorError::Large {
                    found: 4097,
                    most: 4096,
                },
            ),
        ] {
            assert_eq!(read(&bad), Err(why), "{bad}");
        }
        assert_eq!(cleartext(b"\xff\xfe", 9), Err(ArmorError::Text));
    }

    #[test]
    fn several_blocks_of_certificates_are_read_and_nothing_beside_them() {
        let one =
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: a\n\nAAEC\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n";
        let read = |text: &str| blocks(text.as_bytes(), PUBLIC_KEY, 4096);
        assert_eq!(read(&format!("{one}\n{one}")).unwrap(), [[0, 1, 2], [0, 1, 2]]);
        assert!(matches!(read(""), Err(ArmorError::Begin(_))));
        assert!(matches!(read(&format!("{one}more")), Err(ArmorError::Behind(7))));
        assert!(matches!(read(&format!("text\n{one}")), Err(ArmorError::Begin(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 0usize..200) {
            let mut whole = GOOD.as_bytes().to_vec();
            let at = cut.min(whole.len());
            whole.splice(at..at, bytes.iter().copied());
            let _ = (cleartext(&bytes, 300), cleartext(&whole, 4096), blocks(&whole, SIGNATURE, 4096));
        }
    }
}
