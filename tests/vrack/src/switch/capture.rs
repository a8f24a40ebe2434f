//! Capture files in pcapng (draft-ietf-opsawg-pcapng), one interface per switch port, readable by tcpdump and Wireshark
//! while they are written. A thread of its own writes, so a slow disk never holds a frame up.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::locked;

/// Packets waiting for the disk; beyond it the capture misses some, the network does not.
const BACKLOG: usize = 65_536;
const FLUSH: Duration = Duration::from_millis(200);
const LINKTYPE_ETHERNET: u16 = 1;

/// Which 802.1Q tags a capture shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tags {
    /// What is on the wire: tags on trunks only.
    Wire,
    /// Every frame tagged with the VLAN the switch put it in, so one file of many ports stays readable.
    Always,
}

/// Seen from the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    In,
    Out,
}

/// A capture file being written. Clones share it; it is closed when the last clone and the last tap are gone.
#[derive(Clone)]
pub struct CaptureFile {
    sender: SyncSender<Record>,
    tags: Tags,
    interfaces: Arc<Mutex<u32>>,
    path: PathBuf,
}

enum Record {
    Interface(String),
    Packet {
        interface: u32,
        at: SystemTime,
        direction: Direction,
        tag: Option<u16>,
        data: Arc<[u8]>,
    },
}

/// One port's way into a capture file.
pub(super) struct Tap {
    sender: SyncSender<Record>,
    tags: Tags,
    interface: u32,
    /// Shared with the file this tap leads to, and with no other.
    interfaces: Arc<Mutex<u32>>,
}

impl Tap {
    pub(super) fn leads_to(&self, file: &CaptureFile) -> bool {
        Arc::ptr_eq(&self.interfaces, &file.interfaces)
    }

    pub(super) fn record(&self, direction: Direction, wire_tag: Option<u16>, vlan: u16, data: &Arc<[u8]>) {
        let tag = match self.tags {
            Tags::Wire => wire_tag,
            // VLAN 0 marks the switch's own frames, which belong to no VLAN.
            Tags::Always => (vlan != 0).then_some(vlan),
        };
        let data = Arc::clone(data);
        let packet = Record::Packet {
            interface: self.interface,
            at: SystemTime::now(),
            direction,
            tag,
            data,
        };
        if let Err(TrySendError::Full(_)) = self.sender.try_send(packet) {
            tracing::debug!(
                interface = self.interface,
                "the capture missed a frame: the disk is slower than the rack"
            );
        }
    }
}

impl CaptureFile {
    /// Creates the file.
    ///
    /// # Errors
    /// When the file cannot be created or its header not be written.
    pub fn create(path: &Path, tags: Tags) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(256 << 10, File::create(path)?);
        section_header(&mut file)?;
        file.flush()?;
        let (sender, receiver) = sync_channel(BACKLOG);
        let shown = path.display().to_string();
        std::thread::Builder::new().name("capture".into()).spawn(move || {
            if let Err(error) = write_all(&mut file, &receiver) {
                tracing::warn!(file = shown, %error, "capture stopped");
            }
        })?;
        Ok(Self {
            sender,
            tags,
            interfaces: Arc::default(),
            path: path.to_path_buf(),
        })
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.interfaces, &other.interfaces)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds an interface for a port.
    pub(super) fn tap(&self, name: &str) -> Tap {
        let mut interfaces = locked(&self.interfaces);
        let interface = *interfaces;
        // Blocking is right here: an interface the file does not describe makes the whole file unreadable.
        let _ = self.sender.send(Record::Interface(name.to_owned()));
        *interfaces += 1;
        let interfaces = Arc::clone(&self.interfaces);
        Tap {
            sender: self.sender.clone(),
            tags: self.tags,
            interface,
            interfaces,
        }
    }
}

fn write_all(file: &mut impl Write, receiver: &Receiver<Record>) -> io::Result<()> {
    let mut clean = true;
    loop {
        match receiver.recv_timeout(FLUSH) {
            Ok(Record::Interface(name)) => interface_description(file, &name)?,
            Ok(Record::Packet {
                interface,
                at,
                direction,
                tag,
                data,
            }) => {
                enhanced_packet(file, interface, at, direction, tag, &data)?;
            }
            Err(RecvTimeoutError::Timeout) if clean => continue,
            Err(RecvTimeoutError::Timeout) => {
                file.flush()?;
                clean = true;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return file.flush(),
        }
        clean = false;
    }
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

fn section_header(file: &mut impl Write) -> io::Result<()> {
    let mut body = Vec::new();
    body.extend_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
    body.extend_from_slice(&[1, 0, 0, 0]);
    body.extend_from_slice(&u64::MAX.to_le_bytes());
    block(file, 0x0a0d_0d0a, &body)
}

fn interface_description(file: &mut impl Write, name: &str) -> io::Result<()> {
    let mut body = Vec::new();
    body.extend_from_slice(&LINKTYPE_ETHERNET.to_le_bytes());
    body.extend_from_slice(&[0; 6]);
    option(&mut body, 2, name.as_bytes());
    // if_tsresol: 10^-9 s.
    option(&mut body, 9, &[9]);
    option(&mut body, 0, &[]);
    block(file, 1, &body)
}

fn enhanced_packet(
    file: &mut impl Write,
    interface: u32,
    at: SystemTime,
    direction: Direction,
    tag: Option<u16>,
    data: &Arc<[u8]>,
) -> io::Result<()> {
    let frame = super::Frame {
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
