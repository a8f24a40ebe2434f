//! pkt-lines: four hexadecimal digits of length, themselves counted, and content; lengths below four are marks.

use crate::GitError;

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packet<'a> {
    /// `0000`: the end of a message.
    Flush,
    /// `0001`: the end of a section.
    Delimiter,
    /// Content, perhaps with a newline at its end.
    Data(&'a [u8]),
}

/// Those of a text.
pub(crate) struct Packets<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Packets<'a> {
    pub(crate) fn new(all: &'a [u8]) -> Self {
        Self { all, at: 0 }
    }

    /// Where the next one begins.
    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// When there is none, or it is the server's word of what is wrong.
    pub(crate) fn read(&mut self) -> Result<Option<Packet<'a>>, GitError> {
        let rest = self.all.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let digits = rest.get(..4).ok_or(GitError::Short)?;
        let plain = digits.iter().all(u8::is_ascii_hexdigit);
        let length = std::str::from_utf8(digits).ok().filter(|_| plain);
        let length = length.and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let length = length.ok_or(GitError::Answer("where a length belongs is something else"))?;
        self.at = self.at.saturating_add(length.max(4));
        match length {
            0 => Ok(Some(Packet::Flush)),
            1 => Ok(Some(Packet::Delimiter)),
            2 | 3 => Err(GitError::Answer("a mark that nobody asked for")),
            _ => {
                let data = rest.get(4..length).ok_or(GitError::Short)?;
                match data.strip_prefix(b"ERR ") {
                    Some(words) => Err(GitError::Said(said(words))),
                    None => Ok(Some(Packet::Data(data))),
                }
            }
        }
    }
}

/// Words of a server, as much of them as a person reads.
pub(crate) fn said(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    text.trim()
        .chars()
        .take(300)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Writes one with a newline at its end. None of ours comes near the longest there may be.
pub(crate) fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(format!("{:04x}{text}\n", text.len().saturating_add(5)).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_marks_are_read_and_what_is_cut_is_told() {
        let mut text = Vec::new();
        line(&mut text, "version 2");
        text.extend_from_slice(b"00010000");
        let mut packets = Packets::new(&text);
        assert_eq!(packets.read(), Ok(Some(Packet::Data(b"version 2\n"))));
        assert_eq!(packets.read(), Ok(Some(Packet::Delimiter)));
        assert_eq!(packets.read(), Ok(Some(Packet::Flush)));
        assert_eq!(packets.read(), Ok(None));
        assert_eq!(Packets::new(b"000").read(), Err(GitError::Short));
        assert_eq!(Packets::new(b"0009ab").read(), Err(GitError::Short));
        for bad in [&b"+00fx"[..], b"<htm", b"0003"] {
            assert!(matches!(Packets::new(bad).read(), Err(GitError::Answer(_))), "{bad:?}");
        }
        let error = Packets::new(b"0010ERR go away\n").read();
        assert_eq!(error, Err(GitError::Said("go away".to_owned())));
    }
}
