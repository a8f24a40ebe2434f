//! Blocks of a pcapng file (draft-ietf-opsawg-pcapng): one section, Ethernet, little-endian, times in nanoseconds.

use std::io::{self, Write};

/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

/// Which way a packet went, seen from who captured it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// It came.
    In,
    /// It went.
    Out,
}

/// An interface that packets name by its place in the file, from 0 (section 4.2).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Interface<'a> {
    /// Its name.
    pub name: &'a str,
    /// Most bytes of a packet that are in the file; 0 for all.
    pub snap: u32,
    /// Which packets were looked for, in words; empty for all.
    pub filter: &'a str,
}

/// A packet (section 4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// Number of its interface.
    pub interface: u32,
    /// When, in nanoseconds since 1970.
    pub at: u64,
    /// Which way.
    pub direction: Direction,
    /// Bytes it had on the wire; never fewer than are here.
    pub length: u32,
    /// Its first bytes.
    pub bytes: &'a [u8],
}

/// How an interface did (section 4.6).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Statistics {
    /// From when, in nanoseconds since 1970.
    pub start: u64,
    /// Until when.
    pub end: u64,
    /// Packets that were looked for and came.
    pub accepted: u64,
    /// Of these, how many the system had no room for.
    pub dropped: u64,
    /// Of these, how many are in the file.
    pub delivered: u64,
}

/// Begins the file; `by` is the program that writes it (section 4.1).
///
/// # Errors
/// Those of `out`; as everywhere here.
pub fn section_header(out: &mut impl Write, by: &str) -> io::Result<()> {
    let mut body = Vec::new();
    body.extend_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
    body.extend_from_slice(&[1, 0, 0, 0]);
    body.extend_from_slice(&u64::MAX.to_le_bytes());
    if !by.is_empty() {
        // shb_userappl.
        option(&mut body, 4, by.as_bytes());
        option(&mut body, 0, &[]);
    }
    block(out, 0x0a0d_0d0a, &body)
}

/// Describes the next interface.
///
/// # Errors
/// Those of `out`.
pub fn interface_description(out: &mut impl Write, interface: &Interface<'_>) -> io::Result<()> {
    let mut body = Vec::new();
    body.extend_from_slice(&ETHERNET.to_le_bytes());
    body.extend_from_slice(&[0; 2]);
    body.extend_from_slice(&interface.snap.to_le_bytes());
    option(&mut body, 2, interface.name.as_bytes());
    // if_tsresol: 10^-9 s.
    option(&mut body, 9, &[9]);
    if !interface.filter.is_empty() {
        // if_filter, 0: as text.
        option(&mut body, 11, &[&[0], interface.filter.as_bytes()].concat());
    }
    option(&mut body, 0, &[]);
    block(out, 1, &body)
}

/// Writes a packet.
///
/// # Errors
/// Those of `out`, and a packet of more than 4 GiB.
pub fn enhanced_packet(out: &mut impl Write, packet: &Packet<'_>) -> io::Result<()> {
    let kept = u32::try_from(packet.bytes.len()).map_err(io::Error::other)?;
    let mut body = Vec::with_capacity(packet.bytes.len() + 48);
    body.extend_from_slice(&packet.interface.to_le_bytes());
    time(&mut body, packet.at);
    body.extend_from_slice(&kept.to_le_bytes());
    body.extend_from_slice(&packet.length.max(kept).to_le_bytes());
    body.extend_from_slice(packet.bytes);
    body.resize(body.len().next_multiple_of(4), 0);
    // epb_flags, bits 0-1: 1 inbound, 2 outbound.
    let flags: u32 = match packet.direction {
        Direction::In => 1,
        Direction::Out => 2,
    };
    option(&mut body, 2, &flags.to_le_bytes());
    option(&mut body, 0, &[]);
    block(out, 6, &body)
}

/// Says how an interface did; for the end of the file.
///
/// # Errors
/// Those of `out`.
pub fn interface_statistics(out: &mut impl Write, interface: u32, statistics: &Statistics) -> io::Result<()> {
    let mut body = Vec::new();
    body.extend_from_slice(&interface.to_le_bytes());
    time(&mut body, statistics.end);
    for (code, at) in [(2, statistics.start), (3, statistics.end)] {
        let mut halves = Vec::with_capacity(8);
        time(&mut halves, at);
        option(&mut body, code, &halves);
    }
    // isb_filteraccept, isb_osdrop, isb_usrdeliv.
    for (code, count) in [
        (6, statistics.accepted),
        (7, statistics.dropped),
        (8, statistics.delivered),
    ] {
        option(&mut body, code, &count.to_le_bytes());
    }
    option(&mut body, 0, &[]);
    block(out, 5, &body)
}

/// Something that happened, as a systemd Journal Export Block (section 4.7): Wireshark shows it as a line among the
/// packets, tcpdump passes it over. `at` is in nanoseconds since 1970. A line break would begin another field, so each
/// becomes a space.
///
/// # Errors
/// Those of `out`.
pub fn journal_entry(out: &mut impl Write, at: u64, source: &str, text: &str) -> io::Result<()> {
    let (micros, source, text) = (at / 1_000, source.replace('\n', " "), text.replace('\n', " "));
    let body =
        format!("__REALTIME_TIMESTAMP={micros}\nSYSLOG_IDENTIFIER={source}\nPRIORITY=6\nMESSAGE={source}: {text}\n");
    block(out, 9, body.as_bytes())
}

/// A time as the format has it: the upper half first.
fn time(body: &mut Vec<u8>, at: u64) {
    for half in [at >> 32, at & 0xffff_ffff] {
        body.extend_from_slice(&u32::try_from(half).unwrap_or(0).to_le_bytes());
    }
}

/// Writes one block: type, length, body padded to 4 bytes, length again.
fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let padding = body.len().next_multiple_of(4) - body.len();
    let length = u32::try_from(12 + body.len() + padding)
        .map_err(io::Error::other)?
        .to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&length)?;
    out.write_all(body)?;
    out.write_all(&[0; 3][..padding])?;
    out.write_all(&length)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&u16::try_from(value.len()).unwrap_or(0).to_le_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Types and bodies of all blocks; what is not well formed fails the test.
    pub(crate) fn blocks(file: &[u8]) -> Vec<(u32, &[u8])> {
        let (mut blocks, mut rest) = (Vec::new(), file);
        while !rest.is_empty() {
            let length = word(rest, 4) as usize;
            assert!(length >= 12 && length.is_multiple_of(4) && length <= rest.len());
            assert_eq!(word(rest, length - 4) as usize, length, "both lengths");
            blocks.push((word(rest, 0), &rest[8..length - 4]));
            rest = &rest[length..];
        }
        blocks
    }

    #[test]
    fn a_file_says_who_wrote_it_and_how_each_interface_did() {
        let mut file = Vec::new();
        section_header(&mut file, "Rackbar").unwrap();
        let interface = Interface {
            name: "rack0",
            snap: 2_048,
            filter: "boot",
        };
        interface_description(&mut file, &interface).unwrap();
        let statistics = Statistics {
            start: 1,
            end: 1 << 33,
            accepted: 9,
            dropped: 2,
            delivered: 7,
        };
        interface_statistics(&mut file, 0, &statistics).unwrap();
        journal_entry(&mut file, 5_000, "rack", "one\nMESSAGE=two").unwrap();
        let blocks = blocks(&file);
        let kinds: Vec<u32> = blocks.iter().map(|block| block.0).collect();
        assert_eq!(kinds, [0x0a0d_0d0a, 1, 5, 9]);
        assert_eq!(word(blocks[1].1, 4), 2_048);
        // The end's upper half, then start and end, then the three counts, each an option of 8 bytes.
        let body = blocks[2].1;
        assert_eq!((word(body, 4), word(body, 8)), (2, 0));
        let counts: Vec<u32> = (0..3).map(|n| word(body, 12 + 24 + 4 + n * 12)).collect();
        assert_eq!(counts, [9, 2, 7]);
        let text = String::from_utf8_lossy(blocks[3].1);
        assert!(text.contains("MESSAGE=rack: one MESSAGE=two\n"), "{text}");
    }

    proptest! {
        #[test]
        fn packets_come_back_as_they_were(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<u64>(), more in 0u32..9_000, out in any::<bool>(),
        ) {
            let direction = if out { Direction::Out } else { Direction::In };
            let length = u32::try_from(bytes.len()).unwrap() + more;
            let mut file = Vec::new();
            let packet = Packet { interface: 3, at, direction, length, bytes: &bytes };
            enhanced_packet(&mut file, &packet).unwrap();
            let blocks = blocks(&file);
            prop_assert_eq!(blocks.len(), 1);
            let (kind, body) = blocks[0];
            prop_assert_eq!((kind, word(body, 0)), (6, 3));
            prop_assert_eq!(u64::from(word(body, 4)) << 32 | u64::from(word(body, 8)), at);
            prop_assert_eq!((word(body, 12) as usize, word(body, 16)), (bytes.len(), length));
            prop_assert_eq!(&body[20..20 + bytes.len()], &bytes[..]);
            let flags = 20 + bytes.len().next_multiple_of(4);
            prop_assert_eq!(word(body, flags + 4), if out { 2 } else { 1 });
        }
    }
}
