//! Blocks of a pcapng file (draft-ietf-opsawg-pcapng).

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Direction, Entry};

const LINKTYPE_ETHERNET: u16 = 1;

/// Something that happened, as a systemd Journal Export Block (section 4.7): Wireshark shows it as a line among the
/// packets, tcpdump passes it over. One line of text: a line break
/// would begin another field.
pub(super) fn journal_entry(file: &mut impl Write, at: SystemTime, entry: &Entry) -> io::Result<()> {
    let micros = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let Entry { source, text, .. } = entry;
    let body =
        format!("__REALTIME_TIMESTAMP={micros}\nSYSLOG_IDENTIFIER={source}\nPRIORITY=6\nMESSAGE={source}: {text}\n");
    block(file, 9, body.as_bytes())
}

/// Writes one block: type, length, body padded to 4 bytes, length again.
fn block(file: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let padding = body.len().next_multiple_of(4) - body.len();
    let length = u32::try_from(12 + body.len() + padding)
        .map_err(io::Error::other)?
        .to_le_bytes();
    file.write_all(&kind.to_le_bytes())?;
    file.write_all(&length)?;
    file.write_all(body)?;
    file.write_all(&[0; 3][..padding])?;
    file.write_all(&length)
}

pub(super) fn section_header(file: &mut impl Write) -> io::Result<()> {
    let mut body = Vec::new();
    body.extend_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
    body.extend_from_slice(&[1, 0, 0, 0]);
    body.extend_from_slice(&u64::MAX.to_le_bytes());
    block(file, 0x0a0d_0d0a, &body)
}

pub(super) fn interface_description(file: &mut impl Write, name: &str) -> io::Result<()> {
    let mut body = Vec::new();
    body.extend_from_slice(&LINKTYPE_ETHERNET.to_le_bytes());
    body.extend_from_slice(&[0; 6]);
    option(&mut body, 2, name.as_bytes());
    // if_tsresol: 10^-9 s.
    option(&mut body, 9, &[9]);
    option(&mut body, 0, &[]);
    block(file, 1, &body)
}

pub(super) fn enhanced_packet(
    file: &mut impl Write,
    interface: u32,
    at: SystemTime,
    direction: Direction,
    tag: Option<u16>,
    data: &Arc<[u8]>,
) -> io::Result<()> {
    let frame = crate::switch::Frame {
        tag,
        data: Arc::clone(data),
    };
    let nanos = u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
    let length = u32::try_from(frame.wire_len()).map_err(io::Error::other)?.to_le_bytes();
    let mut body = Vec::with_capacity(frame.wire_len() + 48);
    body.extend_from_slice(&interface.to_le_bytes());
    body.extend_from_slice(&u32::try_from(nanos >> 32).unwrap_or(0).to_le_bytes());
    body.extend_from_slice(&u32::try_from(nanos & 0xffff_ffff).unwrap_or(0).to_le_bytes());
    body.extend_from_slice(&length);
    body.extend_from_slice(&length);
    frame.append_to(&mut body);
    body.resize(body.len().next_multiple_of(4), 0);
    // epb_flags, bits 0-1: 1 inbound, 2 outbound, as the switch sees it.
    let flags: u32 = if direction == Direction::In { 1 } else { 2 };
    option(&mut body, 2, &flags.to_le_bytes());
    option(&mut body, 0, &[]);
    block(file, 6, &body)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = value.len().min(usize::from(u16::MAX));
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_le_bytes());
    body.extend_from_slice(&value[..length]);
    body.resize(body.len().next_multiple_of(4), 0);
}
