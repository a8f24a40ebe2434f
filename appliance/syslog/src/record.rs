//! A record as it lies on the disk: its length, its checksum, its content. A power cut in the middle of one leaves a
//! torn end, which is seen by the checksum and cut off.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Facility, LONGEST, Level, Message};

/// A message with what we know of it ourselves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its number, from 1, rising, never used again.
    pub seq: u64,
    /// When it came, in milliseconds since 1970 by our clock; the sender's own time is not kept, clocks of new machines
    /// being what they are.
    pub at: u64,
    /// Where it came from. This alone decides whose message it is.
    pub source: IpAddr,
    /// How bad, as the sender says.
    pub level: Level,
    /// From which part of the sender.
    pub facility: Facility,
    /// The host it names itself; empty when it names none.
    pub host: String,
    /// The program and its process number.
    pub program: String,
    /// The text.
    pub text: String,
}

impl Record {
    /// A message that came.
    pub fn new(seq: u64, at: u64, source: IpAddr, message: Message) -> Self {
        Self {
            seq,
            at,
            source,
            level: message.level,
            facility: message.facility,
            host: message.host,
            program: message.program,
            text: message.text,
        }
    }
}

/// What stands at a place is no whole record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Torn;

const HEAD: usize = 8;

/// Appends a record.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    let body = postcard::to_allocvec(record).unwrap_or_default();
    out.extend_from_slice(&body);
    let length = u32::try_from(body.len()).unwrap_or(0).to_le_bytes();
    let sum = checksum(&body).to_le_bytes();
    if let Some(head) = out.get_mut(start..start + HEAD) {
        head[..4].copy_from_slice(&length);
        head[4..].copy_from_slice(&sum);
    }
}

/// Reads the record at the beginning of `bytes`, and how long it is; none at the end.
///
/// # Errors
/// When there is something else.
pub fn decode(bytes: &[u8]) -> Result<Option<(Record, usize)>, Torn> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let word = |at: usize| -> Result<u32, Torn> {
        let part = bytes.get(at..at + 4).and_then(|part| part.try_into().ok());
        part.map(u32::from_le_bytes).ok_or(Torn)
    };
    let (length, sum) = (word(0)? as usize, word(4)?);
    if length > 4 * LONGEST + 256 {
        return Err(Torn);
    }
    let body = bytes.get(HEAD..HEAD + length).ok_or(Torn)?;
    if checksum(body) != sum {
        return Err(Torn);
    }
    let record = postcard::from_bytes(body).map_err(|_| Torn)?;
    Ok(Some((record, HEAD + length)))
}

/// CRC-32 (IEEE 802.3), four bits at a time: the records are short and the disk is slower.
fn checksum(bytes: &[u8]) -> u32 {
    const fn table() -> [u32; 16] {
        let mut out = [0; 16];
        let mut n = 0;
        while n < 16 {
            let mut value = n as u32;
            let mut bit = 0;
            while bit < 4 {
                value = if value & 1 == 1 {
                    value >> 1 ^ 0xedb8_8320
                } else {
                    value >> 1
                };
                bit += 1;
            }
            out[n] = value;
            n += 1;
        }
        out
    }
    const TABLE: [u32; 16] = table();
    let step = |sum: u32, nibble: u32| sum >> 4 ^ TABLE[((sum ^ nibble) & 15) as usize];
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        step(step(sum, u32::from(*byte)), u32::from(*byte >> 4))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn record(text: &str) -> Record {
        Record::new(7, 1_790_000_000_000, [10, 10, 0, 5].into(), parse(text.as_bytes()))
    }

    #[test]
    fn records_read_back_and_a_torn_end_is_seen() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
        let (one, two) = (record("<13>a: one"), record("<11>b[2]: two"));
        let mut bytes = Vec::new();
        encode(&one, &mut bytes);
        let first = bytes.len();
        encode(&two, &mut bytes);
        assert_eq!(decode(&bytes), Ok(Some((one, first))));
        assert_eq!(decode(&bytes[first..]), Ok(Some((two, bytes.len() - first))));
        assert_eq!(decode(&[]), Ok(None));
        for cut in first + 1..bytes.len() {
            assert_eq!(decode(&bytes[first..cut]), Err(Torn));
        }
    }

    proptest::proptest! {
        #[test]
        fn a_changed_record_is_torn_and_nothing_breaks(at in 0usize..60, bit in 0u32..8) {
            let mut bytes = Vec::new();
            encode(&record("<13>Oct 11 22:14:15 host program: a text of some length"), &mut bytes);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            proptest::prop_assert_eq!(decode(&bytes), Err(Torn));
        }
    }
}
