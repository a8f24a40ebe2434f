//! What happens at the switch in the words of a pcapng file.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rackbar_capture::pcapng::{self, Interface, Packet};

use super::{Direction, Entry};

fn nanos(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn journal_entry(file: &mut impl Write, at: SystemTime, entry: &Entry) -> io::Result<()> {
    pcapng::journal_entry(file, nanos(at), &entry.source, &entry.text)
}

pub(super) fn section_header(file: &mut impl Write) -> io::Result<()> {
    pcapng::section_header(file, "")
}

pub(super) fn interface_description(file: &mut impl Write, name: &str) -> io::Result<()> {
    let interface = Interface {
        name,
        ..Interface::default()
    };
    pcapng::interface_description(file, &interface)
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
    let mut bytes = Vec::with_capacity(frame.wire_len());
    frame.append_to(&mut bytes);
    let packet = Packet {
        interface,
        at: nanos(at),
        direction,
        length: 0,
        bytes: &bytes,
    };
    pcapng::enhanced_packet(file, &packet)
}
