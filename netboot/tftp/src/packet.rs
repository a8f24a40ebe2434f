//! The messages on the wire (RFC 1350 section 5, RFC 2347).

use std::fmt;

const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// Error codes (RFC 1350 appendix, RFC 2347).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum ErrorCode {
    /// See the message.
    NotDefined = 0,
    /// File not found.
    NotFound = 1,
    /// Access violation.
    AccessViolation = 2,
    /// Illegal operation.
    IllegalOperation = 4,
}

/// A received message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// RRQ.
    Read(Request<'a>),
    /// WRQ.
    Write(Request<'a>),
    /// DATA.
    Data {
        /// Block number.
        block: u16,
        /// Its octets.
        data: &'a [u8],
    },
    /// ACK.
    Ack {
        /// Block number.
        block: u16,
    },
    /// ERROR.
    Error {
        /// Code.
        code: u16,
        /// Text, as sent.
        message: &'a [u8],
    },
    /// OACK.
    OptionAck(Options<'a>),
}

/// A read or write request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// File name, as sent.
    pub file: &'a [u8],
    /// Transfer mode, as sent; compare without regard to case.
    pub mode: &'a [u8],
    /// Options.
    pub options: Options<'a>,
}

/// Option names and values, as sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// Pairs of name and value. A last pair cut short is left out.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (name, tail) = text(rest)?;
            let (value, tail) = text(tail)?;
            rest = tail;
            Some((name, value))
        })
    }
}

/// Why bytes are not a TFTP message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PacketError {
    /// Cut short.
    TooShort,
    /// An opcode nobody defined.
    Opcode(u16),
    /// A request whose name or mode does not end.
    Unterminated,
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => f.write_str("TFTP message cut short"),
            Self::Opcode(code) => write!(f, "opcode {code} at offset 0 is not TFTP's"),
            Self::Unterminated => f.write_str("file name or mode without its ending NUL"),
        }
    }
}

impl std::error::Error for PacketError {}

impl<'a> Packet<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    /// When it is not a TFTP message.
    pub fn new(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let (opcode, rest) = word(bytes)?;
        Ok(match opcode {
            RRQ => Self::Read(Request::new(rest)?),
            WRQ => Self::Write(Request::new(rest)?),
            DATA => {
                let (block, data) = word(rest)?;
                Self::Data { block, data }
            }
            ACK => Self::Ack { block: word(rest)?.0 },
            ERROR => {
                let (code, rest) = word(rest)?;
                Self::Error {
                    code,
                    message: text(rest).map_or(rest, |(message, _)| message),
                }
            }
            OACK => Self::OptionAck(Options(rest)),
            other => return Err(PacketError::Opcode(other)),
        })
    }
}

impl<'a> Request<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let (file, rest) = text(bytes).ok_or(PacketError::Unterminated)?;
        // Some ROMs forget the last NUL.
        let (mode, rest) = text(rest).unwrap_or((rest, &[]));
        if mode.is_empty() {
            return Err(PacketError::Unterminated);
        }
        Ok(Self {
            file,
            mode,
            options: Options(rest),
        })
    }
}

/// Writes a request, as a client does.
pub fn read_request(file: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut out = RRQ.to_be_bytes().to_vec();
    for part in [file, "octet"]
        .into_iter()
        .chain(options.iter().flat_map(|(name, value)| [*name, *value]))
    {
        put_text(&mut out, part);
    }
    out
}

/// Writes an acknowledgement, as a client does.
pub fn ack(block: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (ACK.to_be_bytes(), block.to_be_bytes());
    [a, b, c, d]
}

/// The four octets in front of a block's data.
pub fn data_header(block: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (DATA.to_be_bytes(), block.to_be_bytes());
    [a, b, c, d]
}

/// Writes an error message.
pub fn error(code: ErrorCode, message: &str) -> Vec<u8> {
    let mut out = [ERROR.to_be_bytes(), (code as u16).to_be_bytes()].concat();
    put_text(&mut out, message);
    out
}

/// Writes an option acknowledgement.
pub fn option_ack<'o>(options: impl IntoIterator<Item = (&'o str, u64)>) -> Vec<u8> {
    let mut out = OACK.to_be_bytes().to_vec();
    for (name, value) in options {
        put_text(&mut out, name);
        put_text(&mut out, &value.to_string());
    }
    out
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|b| *b != 0));
    out.push(0);
}

fn word(bytes: &[u8]) -> Result<(u16, &[u8]), PacketError> {
    let (word, rest) = bytes.split_first_chunk::<2>().ok_or(PacketError::TooShort)?;
    Ok((u16::from_be_bytes(*word), rest))
}

fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|b| *b == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_edk2_sends() {
        let bytes = b"\0\x01loader.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0";
        let Ok(Packet::Read(request)) = Packet::new(bytes) else {
            panic!("not a read request")
        };
        assert_eq!((request.file, request.mode), (&b"loader.efi"[..], &b"octet"[..]));
        let options: Vec<_> = request.options.iter().collect();
        let want: [(&[u8], &[u8]); 3] = [(b"tsize", b"0"), (b"blksize", b"1468"), (b"windowsize", b"4")];
        assert_eq!(options, want);
    }

    #[test]
    fn tolerates_a_mode_without_its_nul() {
        let Ok(Packet::Read(request)) = Packet::new(b"\0\x01x\0octet") else {
            panic!("not a read request")
        };
        assert_eq!(request.mode, b"octet");
        assert_eq!(Packet::new(b"\0\x01x"), Err(PacketError::Unterminated));
    }

    proptest! {
        #[test]
        fn arbitrary_octets_never_panic(opcode in 0u16..8, tail in prop::collection::vec(any::<u8>(), 0..80)) {
            let bytes = [&opcode.to_be_bytes()[..], &tail].concat();
            if let Ok(Packet::Read(r) | Packet::Write(r)) = Packet::new(&bytes) {
                prop_assert!(r.options.iter().count() <= tail.len());
            }
            let _ = Packet::new(&tail);
        }

        #[test]
        fn requests_round_trip(file in "[a-zA-Z0-9./]{0,40}", values in prop::collection::vec(("[a-z]{1,10}", "[0-9]{1,6}"), 0..5)) {
            let options: Vec<_> = values.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let bytes = read_request(&file, &options);
            let Ok(Packet::Read(request)) = Packet::new(&bytes) else { panic!("not a read request") };
            prop_assert_eq!(request.file, file.as_bytes());
            let read: Vec<_> = request.options.iter().collect();
            let want: Vec<_> = options.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            prop_assert_eq!(read, want);
        }
    }
}
