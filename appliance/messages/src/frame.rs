//! Frames on a byte stream: a 32-bit big-endian length, then that many bytes of postcard.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use embedded_io::{Read, ReadExactError, Write};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest frame either side accepts, in bytes. The inventory of a machine with 96 disks is about 60 KiB.
pub const MAX_FRAME: usize = 1 << 20;

/// Why a frame was not read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError<E> {
    /// The stream failed.
    Io(E),
    /// The stream ended; at a frame's border when `in_frame` is false, which is an orderly end.
    Closed {
        /// True when a frame had begun.
        in_frame: bool,
    },
    /// The length field says more than [`MAX_FRAME`].
    TooLong(u32),
    /// The bytes are no message of ours.
    Malformed,
}

impl<E: fmt::Debug> fmt::Display for FrameError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the connection failed: {error:?}"),
            Self::Closed { in_frame: false } => f.write_str("the other side closed the connection"),
            Self::Closed { in_frame: true } => f.write_str("the connection ended in the middle of a message"),
            Self::TooLong(length) => write!(f, "a message of {length} bytes is over the limit of {MAX_FRAME}"),
            Self::Malformed => f.write_str("the bytes are not a message of this protocol"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for FrameError<E> {}

/// The frame of `message`: length and body.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Serialising our own plain data into a growing vector cannot fail; an empty frame is refused by every reader.
    let body = postcard::to_allocvec(message).unwrap_or_default();
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(&body);
    frame
}

/// The message in the body of a frame. Bytes left over are an error: both ends know the same versions.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError<core::convert::Infallible>> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Malformed),
    }
}

/// Writes one message and flushes.
pub fn write_frame<T: Serialize, W: Write>(stream: &mut W, message: &T) -> Result<(), FrameError<W::Error>> {
    stream.write_all(&encode(message)).map_err(FrameError::Io)?;
    stream.flush().map_err(FrameError::Io)
}

/// Reads one message. The buffer grows with the bytes that arrive, not with what the length field promises.
pub fn read_frame<T: DeserializeOwned, R: Read>(stream: &mut R) -> Result<T, FrameError<R::Error>> {
    let mut header = [0u8; 4];
    let mut have = 0;
    while have < header.len() {
        match stream.read(&mut header[have..]).map_err(FrameError::Io)? {
            0 => return Err(FrameError::Closed { in_frame: have > 0 }),
            n => have += n,
        }
    }
    let length = u32::from_be_bytes(header);
    if length as usize > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    let mut body = Vec::new();
    while body.len() < length as usize {
        let mut chunk = vec![0u8; (length as usize - body.len()).min(16 << 10)];
        stream.read_exact(&mut chunk).map_err(|error| match error {
            ReadExactError::UnexpectedEof => FrameError::Closed { in_frame: true },
            ReadExactError::Other(error) => FrameError::Io(error),
        })?;
        body.extend_from_slice(&chunk);
    }
    decode(&body).map_err(|_| FrameError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FromAgent, ToAgent};

    #[test]
    fn a_frame_is_read_back() {
        let message = FromAgent::Heartbeat { uptime_millis: 12_345 };
        let frame = encode(&message);
        assert_eq!(read_frame::<FromAgent, _>(&mut frame.as_slice()), Ok(message));
    }

    #[test]
    fn an_end_between_frames_is_orderly_and_one_inside_is_not() {
        let frame = encode(&FromAgent::Heartbeat { uptime_millis: 1 });
        let read = |mut bytes: &[u8]| read_frame::<FromAgent, _>(&mut bytes).unwrap_err();
        assert_eq!(read(&[]), FrameError::Closed { in_frame: false });
        for cut in 1..frame.len() {
            assert_eq!(
                read(&frame[..cut]),
                FrameError::Closed { in_frame: true },
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_reading() {
        let read = read_frame::<ToAgent, _>(&mut [0xff, 0xff, 0xff, 0xff].as_slice());
        assert_eq!(read.unwrap_err(), FrameError::TooLong(u32::MAX));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: alloc::vec::Vec<u8>) {
            let _ = decode::<FromAgent>(&bytes);
            let _ = decode::<ToAgent>(&bytes);
            let _ = read_frame::<FromAgent, _>(&mut bytes.as_slice());
        }
    }
}
