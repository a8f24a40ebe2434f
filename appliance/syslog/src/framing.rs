//! Where a message ends in a stream (RFC 6587): a length in front of it, or a line feed behind it.

use crate::LONGEST;

/// How a sender frames its messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// `LENGTH SP MESSAGE` (section 3.4.1).
    Counted,
    /// `MESSAGE LF` (section 3.4.2); a NUL ends one too.
    Lines,
}

/// Cuts a stream into messages. The framing is known by the first byte of each message: a digit other than zero begins a
/// length, anything else (a priority begins with `<`) a line.
#[derive(Debug, Default)]
pub struct Splitter {
    buffer: Vec<u8>,
    /// Bytes of a too long message that are still to be thrown away.
    skip: usize,
    /// The rest of a too long line is thrown away.
    skip_line: bool,
}

impl Splitter {
    /// Takes what came and calls `each` with every whole message, cut to [`LONGEST`]. Holds no more than that in between.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for part in bytes.chunks(LONGEST) {
            self.buffer.extend_from_slice(part);
            let mut at = 0;
            while let Some(used) = self.one(at, &mut each) {
                at += used;
            }
            self.buffer.drain(..at.min(self.buffer.len()));
        }
    }

    /// The sender has gone: what is left is a message too, when it is a line.
    pub fn end(&mut self, mut each: impl FnMut(&[u8])) {
        if self.skip == 0 && !self.skip_line && !self.buffer.is_empty() && self.framing(0) == Some(Framing::Lines) {
            each(&self.buffer);
        }
        self.buffer.clear();
    }

    fn framing(&self, at: usize) -> Option<Framing> {
        self.buffer.get(at).map(|first| match first {
            b'1'..=b'9' => Framing::Counted,
            _ => Framing::Lines,
        })
    }

    /// Bytes that were used; none when more must come first.
    fn one(&mut self, at: usize, each: &mut impl FnMut(&[u8])) -> Option<usize> {
        let rest = self.buffer.get(at..).filter(|rest| !rest.is_empty())?;
        if self.skip > 0 {
            let used = self.skip.min(rest.len());
            self.skip -= used;
            return Some(used);
        }
        match self.framing(at)? {
            Framing::Counted if !self.skip_line => match counted(rest) {
                Counted::More => None,
                Counted::No => self.line(at, each),
                Counted::Is { head, length } => {
                    let kept = length.min(LONGEST);
                    let message = rest.get(head..head + kept)?;
                    if !message.is_empty() {
                        each(message);
                    }
                    self.skip = length - kept;
                    Some(head + kept)
                }
            },
            _ => self.line(at, each),
        }
    }

    fn line(&mut self, at: usize, each: &mut impl FnMut(&[u8])) -> Option<usize> {
        let rest = self.buffer.get(at..)?;
        let end = rest.iter().take(LONGEST).position(|byte| matches!(byte, b'\n' | 0));
        let (used, line) = match end {
            Some(end) => (end + 1, rest.get(..end)?),
            None if rest.len() >= LONGEST => (LONGEST, rest.get(..LONGEST)?),
            None => return None,
        };
        let tail = std::mem::replace(&mut self.skip_line, end.is_none());
        if !tail && !line.is_empty() {
            each(line);
        }
        Some(used)
    }
}

enum Counted {
    More,
    No,
    Is { head: usize, length: usize },
}

fn counted(rest: &[u8]) -> Counted {
    // Seven digits are more than any message; what goes on is a line that begins with a digit.
    let digits = rest.iter().take(8).take_while(|byte| byte.is_ascii_digit()).count();
    let number = rest.get(..digits).and_then(|text| std::str::from_utf8(text).ok());
    match (rest.get(digits), number.and_then(|text| text.parse().ok())) {
        (None, _) if digits < 8 => Counted::More,
        (Some(b' '), Some(length)) if digits < 8 => Counted::Is {
            head: digits + 1,
            length,
        },
        _ => Counted::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(parts: &[&[u8]]) -> Vec<String> {
        let (mut splitter, mut out) = (Splitter::default(), Vec::new());
        let mut each = |message: &[u8]| out.push(String::from_utf8_lossy(message).into_owned());
        for part in parts {
            splitter.push(part, &mut each);
        }
        splitter.end(&mut each);
        out
    }

    #[test]
    fn both_framings_are_cut_however_the_bytes_come() {
        let lines = b"<13>one\n<13>two\r\n\n<13>three";
        assert_eq!(split(&[lines]), ["<13>one", "<13>two\r", "<13>three"]);
        let counted = b"7 <13>one9 <13>two\nx5 <13>a";
        assert_eq!(split(&[counted]), ["<13>one", "<13>two\nx", "<13>a"]);
        let bytes: Vec<&[u8]> = counted.chunks(1).collect();
        assert_eq!(split(&bytes), split(&[counted]));
        assert_eq!(split(&[b"12345678 is a line\n"]), ["12345678 is a line"]);
        assert_eq!(split(&[b"4242 is cut short"]), [] as [&str; 0]);
    }

    #[test]
    fn too_long_messages_are_cut_and_the_next_is_found() {
        let long = [b"<13>".to_vec(), vec![b'x'; 3 * LONGEST], b"\n<13>next\n".to_vec()].concat();
        let got = split(&[&long]);
        assert_eq!((got.len(), got[0].len(), &*got[1]), (2, LONGEST, "<13>next"));
        let counted = [
            format!("{} ", 3 * LONGEST).into_bytes(),
            vec![b'x'; 3 * LONGEST],
            b"8 <13>next".to_vec(),
        ]
        .concat();
        let got = split(&[&counted]);
        assert_eq!((got.len(), got[0].len(), &*got[1]), (2, LONGEST, "<13>next"));
    }

    proptest::proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(bytes in proptest::collection::vec(proptest::prop_oneof![
            proptest::prelude::Just(b'\n'), proptest::prelude::Just(b' '), 48u8..58, 0u8..], 0..400), size in 1usize..50) {
            let parts: Vec<&[u8]> = bytes.chunks(size).collect();
            proptest::prop_assert_eq!(split(&parts), split(&[&bytes]));
        }
    }
}
