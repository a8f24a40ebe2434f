//! Taking a body that comes in chunks (RFC 9112 section 7.1) apart. Pure.

/// A line of a chunk's size with its extensions, and all trailers together, are refused when longer.
const LINE_MOST: usize = 1024;
const TRAILERS_MOST: usize = 8 << 10;

/// Why a body is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the body's chunks are malformed")]
pub struct Malformed;

/// How far a body is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chunks {
    at: At,
    trailers: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum At {
    /// Before the size of a chunk.
    #[default]
    Size,
    /// So many bytes of a chunk are to come.
    Data(u64),
    /// Before the line's end that is after a chunk.
    End,
    /// After the last chunk.
    Trailers,
    /// Nothing of the body is left.
    Done,
}

/// What the first bytes of an input are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// So many bytes that are no content: to be passed over.
    Over(usize),
    /// So many bytes of content.
    Content(usize),
    /// More has to come before it can be told.
    Partial,
    /// The body is over; what follows is not of it.
    Done,
}

impl Chunks {
    /// Says what `input` begins with, which is to be taken away before the next call.
    ///
    /// # Errors
    /// When it is no body in chunks.
    pub fn next(&mut self, input: &[u8]) -> Result<Piece, Malformed> {
        match self.at {
            At::Size => self.size(input),
            At::Data(left) => {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                if count == 0 {
                    return Ok(Piece::Partial);
                }
                let left = left.saturating_sub(count as u64);
                self.at = if left == 0 { At::End } else { At::Data(left) };
                Ok(Piece::Content(count))
            }
            At::End => match input {
                [b'\r', b'\n', ..] => {
                    self.at = At::Size;
                    Ok(Piece::Over(2))
                }
                [] | [b'\r'] => Ok(Piece::Partial),
                _ => Err(Malformed),
            },
            At::Trailers => self.trailer(input),
            At::Done => Ok(Piece::Done),
        }
    }

    fn size(&mut self, input: &[u8]) -> Result<Piece, Malformed> {
        if input.first().is_some_and(|first| !first.is_ascii_hexdigit()) {
            return Err(Malformed);
        }
        match httparse::parse_chunk_size(input) {
            Ok(httparse::Status::Complete((length, size))) if length <= LINE_MOST => {
                self.at = if size == 0 { At::Trailers } else { At::Data(size) };
                Ok(Piece::Over(length))
            }
            Ok(httparse::Status::Partial) if input.len() < LINE_MOST => Ok(Piece::Partial),
            Ok(_) | Err(_) => Err(Malformed),
        }
    }

    fn trailer(&mut self, input: &[u8]) -> Result<Piece, Malformed> {
        let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
            return if self.trailers.saturating_add(input.len()) < TRAILERS_MOST {
                Ok(Piece::Partial)
            } else {
                Err(Malformed)
            };
        };
        self.trailers = self.trailers.saturating_add(end + 1);
        if self.trailers > TRAILERS_MOST {
            return Err(Malformed);
        }
        if input.get(..end) == Some(b"\r") {
            self.at = At::Done;
        }
        Ok(Piece::Over(end + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Content, and what follows the body.
    type Parts = (Vec<u8>, Vec<u8>);

    /// The parts of an input that comes in such pieces; `None` for more to come.
    fn read(input: &[u8], step: usize) -> Result<Option<Parts>, Malformed> {
        let (mut chunks, mut out, mut at, mut end) = (Chunks::default(), Vec::new(), 0, 0);
        loop {
            match chunks.next(&input[at..end])? {
                Piece::Over(count) => at += count,
                Piece::Content(count) => {
                    out.extend_from_slice(&input[at..at + count]);
                    at += count;
                }
                Piece::Partial if end == input.len() => return Ok(None),
                Piece::Partial => end = (end + step).min(input.len()),
                Piece::Done => return Ok(Some((out, input[at..].to_vec()))),
            }
        }
    }

    #[test]
    fn content_is_told_from_what_is_around_it_however_it_comes() {
        let input = b"4;name=\"x\"\r\nWiki\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\nGET /";
        for step in [1, 2, 3, 100] {
            let wanted = (b"Wiki0123456789".to_vec(), b"GET /".to_vec());
            assert_eq!(read(input, step), Ok(Some(wanted)));
        }
        for end in 0..input.len() - 5 {
            assert_eq!(read(&input[..end], 100), Ok(None), "{end}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for bad in [
            "\r\n",
            "x\r\n",
            " 1\r\na\r\n",
            "1\na\r\n",
            "1\r\nab\r\n",
            "-1\r\n",
            "0x1\r\na\r\n",
            "11111111111111111\r\n",
        ] {
            assert_eq!(read(bad.as_bytes(), 1), Err(Malformed), "{bad:?}");
        }
        let long = format!("1;{}\r\n", "x".repeat(LINE_MOST));
        assert_eq!(read(long.as_bytes(), 7), Err(Malformed));
        let trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(TRAILERS_MOST));
        assert_eq!(read(trailers.as_bytes(), 1000), Err(Malformed));
        assert_eq!(
            read(format!("0\r\n{}", "x".repeat(TRAILERS_MOST)).as_bytes(), 1000),
            Err(Malformed)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_take_more_than_there_is(input in proptest::collection::vec(any::<u8>(), 0..300), step in 1usize..40) {
            let _ = read(&input, step);
        }

        #[test]
        fn what_was_put_into_chunks_comes_out(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8), step in 1usize..40) {
            let mut text = Vec::new();
            for piece in &pieces {
                text.extend(format!("{:X}\r\n", piece.len()).bytes());
                text.extend_from_slice(piece);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            let wanted = (pieces.concat(), Vec::new());
            prop_assert_eq!(read(&text, step), Ok(Some(wanted)));
        }
    }
}
