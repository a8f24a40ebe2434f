//! Capture files in pcapng, one interface per switch port, readable by tcpdump and Wireshark while they are written; with
//! what happened in the rack beside the packets, where that is wanted. A thread of its own writes, so a slow disk never
//! holds a frame up.

mod pcapng;
mod record;

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::locked;
/// Seen from the switch.
pub(super) use rackbar_capture::Direction;
use record::{Item, Record, Writer};

/// Packets waiting for the disk; beyond it the capture misses some, the network does not.
const BACKLOG: usize = 65_536;

/// Which 802.1Q tags a capture shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tags {
    /// What is on the wire: tags on trunks only.
    Wire,
    /// Every frame tagged with the VLAN the switch put it in, so one file of many ports stays readable.
    Always,
}

fn create(path: &Path) -> io::Result<BufWriter<File>> {
    Ok(BufWriter::with_capacity(256 << 10, File::create(path)?))
}

/// A capture file being written. Clones share it; it is closed when the last clone and the last tap are gone.
#[derive(Clone)]
pub struct CaptureFile {
    sender: SyncSender<Record>,
    tags: Tags,
    interfaces: Arc<Mutex<u32>>,
    path: PathBuf,
}

/// Something that happened in the rack beside its packets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// When.
    pub at: SystemTime,
    /// Who says so, such as `switch`, `console n1` or `appliance`.
    pub source: String,
    /// What, one line.
    pub text: String,
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
        let item = Item::Packet {
            interface: self.interface,
            direction,
            tag,
            data,
        };
        let packet = Record::Item(SystemTime::now(), item);
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
        Self::begin(path, tags, Writer::new(create(path)?)?)
    }

    /// Creates the file, and beside it `.timeline.txt` and `.timeline.jsonl` with what happened. Packets and entries
    /// are then put in order of time, which holds them back for a few seconds; for longer while one who tells late
    /// ([`Switch::told_until`](super::Switch::told_until)) is waited for.
    ///
    /// # Errors
    /// When a file cannot be created or a header not be written.
    pub fn create_with_timeline(path: &Path, tags: Tags) -> io::Result<Self> {
        let text = create(&path.with_extension("timeline.txt"))?;
        let json = create(&path.with_extension("timeline.jsonl"))?;
        Self::begin(path, tags, Writer::new(create(path)?)?.with_timeline(text, json))
    }

    fn begin(path: &Path, tags: Tags, mut writer: Writer) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(BACKLOG);
        let shown = path.display().to_string();
        std::thread::Builder::new().name("capture".into()).spawn(move || {
            if let Err(error) = writer.run(&receiver) {
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

    /// Writes an entry; one that a full disk leaves no room for is missing, as packets are.
    pub(super) fn tell(&self, entry: Entry) {
        let _ = self.sender.try_send(Record::Item(entry.at, Item::Entry(entry)));
    }

    /// Has what happened before a time written: who tells late has told all of it.
    pub(super) fn told_until(&self, at: SystemTime) {
        let _ = self.sender.try_send(Record::ToldUntil(at));
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
