//! What the writing thread is sent, and how it puts it on the disk: in order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rackbar_model::Timestamp;
use serde_json::json;

use super::{Direction, Entry, pcapng};

const FLUSH: Duration = Duration::from_millis(200);
/// An entry may be told so long after it happened and still come in its place. The appliance's events are asked for once
/// a second.
const HOLD: Duration = Duration::from_millis(2_500);
/// How long items wait for one who tells late and is later than that: a machine under load answers after many seconds.
const LONGEST_HOLD: Duration = Duration::from_secs(20);

/// For the writing thread.
pub(super) enum Record {
    /// A port that later packets name.
    Interface(String),
    /// Something with its time.
    Item(SystemTime, Item),
    /// Who tells late has told all that happened before this time.
    ToldUntil(SystemTime),
}

/// Something to write.
pub(super) enum Item {
    Packet {
        interface: u32,
        direction: Direction,
        tag: Option<u16>,
        data: Arc<[u8]>,
    },
    Entry(Entry),
}

/// An item that waits for its turn.
struct Held {
    at: SystemTime,
    arrival: u64,
    item: Item,
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.arrival) == (other.at, other.arrival)
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.arrival).cmp(&(other.at, other.arrival))
    }
}

/// The timeline's two files.
struct Timeline {
    text: BufWriter<File>,
    json: BufWriter<File>,
    /// The first entry's time, from which the text counts.
    start: Option<SystemTime>,
}

/// The files of a capture.
pub(super) struct Writer {
    packets: BufWriter<File>,
    timeline: Option<Timeline>,
    held: BinaryHeap<Reverse<Held>>,
    arrivals: u64,
    /// Time of the newest item written; none may be earlier.
    newest: SystemTime,
    /// Until when one who tells late has told all, if there is one.
    told: Option<SystemTime>,
}

impl Writer {
    /// A writer of packets, its header written.
    pub(super) fn new(mut packets: BufWriter<File>) -> io::Result<Self> {
        pcapng::section_header(&mut packets)?;
        packets.flush()?;
        Ok(Self {
            packets,
            timeline: None,
            held: BinaryHeap::new(),
            arrivals: 0,
            newest: UNIX_EPOCH,
            told: None,
        })
    }

    /// The same, with a timeline.
    pub(super) fn with_timeline(self, text: BufWriter<File>, json: BufWriter<File>) -> Self {
        Self {
            timeline: Some(Timeline {
                text,
                json,
                start: None,
            }),
            ..self
        }
    }

    /// Writes until all senders are gone.
    pub(super) fn run(&mut self, receiver: &Receiver<Record>) -> io::Result<()> {
        let mut clean = true;
        loop {
            match receiver.recv_timeout(FLUSH) {
                Ok(Record::Interface(name)) => pcapng::interface_description(&mut self.packets, &name)?,
                Ok(Record::Item(at, item)) => self.take(at, item)?,
                Ok(Record::ToldUntil(at)) => self.told = self.told.max(Some(at)),
                Err(RecvTimeoutError::Timeout) if clean && self.held.is_empty() => continue,
                Err(RecvTimeoutError::Timeout) => {
                    self.release(SystemTime::now())?;
                    self.flush()?;
                    clean = true;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    while let Some(Reverse(held)) = self.held.pop() {
                        self.write(held.at, &held.item)?;
                    }
                    return self.flush();
                }
            }
            clean = false;
        }
    }

    fn take(&mut self, at: SystemTime, item: Item) -> io::Result<()> {
        // Of packets alone nobody is told late.
        if self.timeline.is_none() {
            return self.write(at, &item);
        }
        self.arrivals += 1;
        let arrival = self.arrivals;
        self.held.push(Reverse(Held { at, arrival, item }));
        self.release(SystemTime::now())
    }

    /// Writes what nobody will tell anything from before of.
    fn release(&mut self, now: SystemTime) -> io::Result<()> {
        let told = self.told.map_or(now, |told| told.max(now - LONGEST_HOLD));
        let before = told.min(now - HOLD);
        while self.held.peek().is_some_and(|Reverse(held)| held.at <= before) {
            if let Some(Reverse(held)) = self.held.pop() {
                self.write(held.at, &held.item)?;
            }
        }
        Ok(())
    }

    /// Writes an item. What is told too late gets the time of what is already written, so that the file stays in order.
    fn write(&mut self, at: SystemTime, item: &Item) -> io::Result<()> {
        self.newest = self.newest.max(at);
        let at = self.newest;
        match item {
            Item::Packet {
                interface,
                direction,
                tag,
                data,
            } => pcapng::enhanced_packet(&mut self.packets, *interface, at, *direction, *tag, data),
            Item::Entry(entry) => {
                pcapng::journal_entry(&mut self.packets, at, entry)?;
                self.timeline
                    .as_mut()
                    .map_or(Ok(()), |timeline| timeline.write(at, entry))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.packets.flush()?;
        if let Some(timeline) = &mut self.timeline {
            timeline.text.flush()?;
            timeline.json.flush()?;
        }
        Ok(())
    }
}

impl Timeline {
    fn write(&mut self, at: SystemTime, entry: &Entry) -> io::Result<()> {
        let start = *self.start.get_or_insert(at);
        let seconds = at.duration_since(start).unwrap_or_default().as_secs_f64();
        let millis = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let at = Timestamp(u64::try_from(millis(at)).unwrap_or(u64::MAX));
        writeln!(self.text, "{at} {seconds:>9.3}  {:<18} {}", entry.source, entry.text)?;
        let line = json!({ "at": at.to_string(), "source": entry.source, "text": entry.text });
        writeln!(self.json, "{line}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str, at: SystemTime) -> Item {
        let (source, text) = ("test".to_owned(), text.to_owned());
        Item::Entry(Entry { at, source, text })
    }

    #[test]
    fn what_is_told_very_late_comes_in_its_place_while_its_teller_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| BufWriter::new(File::create(folder.path().join(name)).unwrap());
        let mut writer = Writer::new(file("pcapng")).unwrap();
        writer = writer.with_timeline(file("text"), file("json"));
        let start = UNIX_EPOCH + Duration::from_secs(1_000);
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        writer.told = Some(start);
        let hold = |writer: &mut Writer, text: &str, at: SystemTime| {
            writer.arrivals += 1;
            let arrival = writer.arrivals;
            writer.held.push(Reverse(Held {
                at,
                arrival,
                item: entry(text, at),
            }));
        };
        hold(&mut writer, "console", after(2));
        writer.release(after(10)).unwrap();
        assert_eq!(writer.held.len(), 1, "written before its time");
        hold(&mut writer, "appliance", after(1));
        writer.told = Some(after(8));
        writer.release(after(10)).unwrap();
        writer.flush().unwrap();
        let told = std::fs::read_to_string(folder.path().join("text")).unwrap();
        assert!(
            told.find("appliance").unwrap() < told.find("console").unwrap(),
            "{told}"
        );
        // One who never speaks again holds nobody up for ever.
        hold(&mut writer, "last", after(9));
        writer.release(after(28)).unwrap();
        assert_eq!(writer.held.len(), 1);
        writer.release(after(30)).unwrap();
        assert!(writer.held.is_empty());
    }
}
