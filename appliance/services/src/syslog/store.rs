//! Records on the disk: a ring of segment files under a byte budget, each named by the number of its first record.
//!
//! A batch is one write; the disk is told to keep it once a second, so a power cut costs the last second at most, and
//! never more than the torn end, which is cut off at the next start. The newest records are in memory too, for those who
//! look on.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rackbar_syslog::{Filter, Message, Record, decode, encode};

use crate::running::lock;

/// Segments that the budget is cut into: the oldest goes as a whole.
const SEGMENTS: u64 = 16;
/// Smallest segment.
const SMALLEST: u64 = 256 << 10;
/// Records in memory.
const TAIL: usize = 2048;
/// Most records of one answer.
const MOST: usize = 10_000;

struct Segment {
    first: u64,
    bytes: u64,
}

struct Inner {
    segments: VecDeque<Segment>,
    file: Option<File>,
    next: u64,
    budget: u64,
    tail: VecDeque<Record>,
    dirty: bool,
}

/// The records.
pub struct LogStore {
    folder: PathBuf,
    inner: Mutex<Inner>,
}

impl LogStore {
    /// Opens the folder, makes it when it is not there, and cuts off what a power cut tore.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn open(folder: &Path, budget: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut firsts: Vec<u64> = fs::read_dir(folder)?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".log")?.parse().ok())
            .collect();
        firsts.sort_unstable();
        let mut inner = Inner {
            segments: VecDeque::new(),
            file: None,
            next: 1,
            budget,
            tail: VecDeque::new(),
            dirty: false,
        };
        let last = firsts.last().copied();
        for first in firsts {
            let path = path(folder, first);
            let mut bytes = fs::metadata(&path)?.len();
            if Some(first) == last {
                let content = fs::read(&path)?;
                let (mut at, mut next) = (0, first);
                while let Ok(Some((record, length))) = decode(content.get(at..).unwrap_or_default()) {
                    at += length;
                    next = record.seq.saturating_add(1);
                    inner.remember(record);
                }
                if at < content.len() {
                    OpenOptions::new().write(true).open(&path)?.set_len(at as u64)?;
                }
                (bytes, inner.next) = (at as u64, next);
            }
            inner.segments.push_back(Segment { first, bytes });
        }
        let store = Self {
            folder: folder.to_owned(),
            inner: Mutex::new(inner),
        };
        store.set_budget(budget);
        Ok(store)
    }

    /// Keeps at most so many bytes from now on.
    pub fn set_budget(&self, budget: u64) {
        let mut inner = lock(&self.inner);
        inner.budget = budget;
        inner.shrink(&self.folder);
    }

    /// Bytes on the disk.
    pub fn bytes(&self) -> u64 {
        lock(&self.inner).segments.iter().map(|one| one.bytes).sum()
    }

    /// Keeps messages that came at `at` (milliseconds since 1970).
    ///
    /// # Errors
    /// When the disk refuses; the messages are then lost, and what was kept before is whole.
    pub fn append(&self, at: u64, messages: Vec<(IpAddr, Message)>) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        let (mut bytes, mut records) = (Vec::new(), Vec::with_capacity(messages.len()));
        for (source, message) in messages {
            let record = Record::new(inner.next + records.len() as u64, at, source, message);
            encode(&record, &mut bytes);
            records.push(record);
        }
        inner.write(&self.folder, &bytes)?;
        inner.next += records.len() as u64;
        records.into_iter().for_each(|record| inner.remember(record));
        Ok(())
    }

    /// Tells the disk to keep what was written.
    ///
    /// # Errors
    /// When it cannot.
    pub fn sync(&self) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        if std::mem::take(&mut inner.dirty)
            && let Some(file) = &inner.file
        {
            file.sync_data()?;
        }
        Ok(())
    }

    /// The newest `limit` records that fit, oldest first; with `after`, the first ones behind that number instead.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn read(&self, filter: &Filter, after: Option<u64>, limit: usize) -> io::Result<Vec<Record>> {
        let limit = limit.min(MOST);
        let wanted = |record: &Record| filter.fits(record) && after.is_none_or(|after| record.seq > after);
        let firsts: Vec<u64> = {
            let inner = lock(&self.inner);
            let begin = inner.tail.front().map_or(inner.next, |record| record.seq);
            if after.is_some_and(|after| after.saturating_add(1) >= begin) {
                return Ok(inner
                    .tail
                    .iter()
                    .filter(|one| wanted(one))
                    .take(limit)
                    .cloned()
                    .collect());
            }
            inner.segments.iter().map(|one| one.first).collect()
        };
        match after {
            Some(after) => {
                let mut out = Vec::new();
                for (n, first) in firsts.iter().enumerate() {
                    // A segment whose successor begins at or before the number has nothing behind it.
                    if firsts.get(n + 1).is_some_and(|next| *next <= after.saturating_add(1)) || out.len() >= limit {
                        continue;
                    }
                    out.extend(self.segment(*first)?.into_iter().filter(wanted));
                }
                out.truncate(limit);
                Ok(out)
            }
            None => {
                let mut out: VecDeque<Record> = VecDeque::new();
                for first in firsts.iter().rev() {
                    let mut found: VecDeque<Record> = self.segment(*first)?.into_iter().filter(wanted).collect();
                    found.extend(out);
                    out = found;
                    if out.len() >= limit {
                        break;
                    }
                }
                let spare = out.len().saturating_sub(limit);
                Ok(out.into_iter().skip(spare).collect())
            }
        }
    }

    /// The whole records of a segment; none when it went meanwhile.
    fn segment(&self, first: u64) -> io::Result<Vec<Record>> {
        let content = match fs::read(path(&self.folder, first)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let (mut at, mut out) = (0, Vec::new());
        while let Ok(Some((record, length))) = decode(content.get(at..).unwrap_or_default()) {
            at += length;
            out.push(record);
        }
        Ok(out)
    }
}

fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.log"))
}

impl Inner {
    fn remember(&mut self, record: Record) {
        self.tail.push_back(record);
        if self.tail.len() > TAIL {
            self.tail.pop_front();
        }
    }

    fn segment_bytes(&self) -> u64 {
        (self.budget / SEGMENTS).max(SMALLEST)
    }

    fn write(&mut self, folder: &Path, bytes: &[u8]) -> io::Result<()> {
        let full = self
            .segments
            .back()
            .is_none_or(|last| last.bytes >= self.segment_bytes());
        if full {
            if let Some(file) = self.file.take() {
                file.sync_data()?;
            }
            self.segments.push_back(Segment {
                first: self.next,
                bytes: 0,
            });
            self.shrink(folder);
        }
        let Some(last) = self.segments.back_mut() else {
            return Ok(());
        };
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            // Readable by root alone: logs hold what people typed.
            std::os::unix::fs::OpenOptionsExt::mode(options.create(true).append(true), 0o600);
            self.file = Some(options.open(path(folder, last.first))?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if let Err(error) = file.write_all(bytes) {
            // A part of it may be there: the next batch must not stand behind a torn record.
            file.set_len(last.bytes)?;
            return Err(error);
        }
        last.bytes += bytes.len() as u64;
        self.dirty = true;
        Ok(())
    }

    /// The oldest go until one more segment fits.
    fn shrink(&mut self, folder: &Path) {
        let room = self.budget.saturating_sub(self.segment_bytes());
        while self.segments.len() > 1 && self.segments.iter().map(|one| one.bytes).sum::<u64>() > room {
            if let Some(oldest) = self.segments.pop_front() {
                // It may be gone already.
                let _ = fs::remove_file(path(folder, oldest.first));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackbar_syslog::parse;

    fn append(store: &LogStore, texts: &[&str]) {
        let from: IpAddr = [10, 0, 0, 5].into();
        let messages = texts.iter().map(|text| (from, parse(text.as_bytes()))).collect();
        store.append(1000, messages).unwrap();
    }

    fn texts(store: &LogStore, after: Option<u64>, limit: usize) -> Vec<String> {
        let records = store.read(&Filter::default(), after, limit).unwrap();
        records.into_iter().map(|record| record.text).collect()
    }

    #[test]
    fn the_newest_are_read_also_after_a_power_cut_tore_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let store = LogStore::open(folder.path(), 8 << 20).unwrap();
        append(&store, &["one", "two"]);
        append(&store, &["three"]);
        assert_eq!(texts(&store, None, 2), ["two", "three"]);
        assert_eq!(texts(&store, Some(1), 10), ["two", "three"]);
        drop(store);
        let segment = path(folder.path(), 1);
        let whole = fs::read(&segment).unwrap();
        for cut in 0..whole.len() {
            fs::write(&segment, &whole[..cut]).unwrap();
            let store = LogStore::open(folder.path(), 8 << 20).unwrap();
            append(&store, &["new"]);
            let got = texts(&store, None, 9);
            assert_eq!(got.last().unwrap(), "new", "cut at {cut}");
            assert_eq!(got[..got.len() - 1], ["one", "two", "three"][..got.len() - 1]);
            drop(store);
            let again = LogStore::open(folder.path(), 8 << 20).unwrap();
            assert_eq!(texts(&again, None, 9), got);
        }
    }

    #[test]
    fn stays_within_its_budget_and_numbers_are_never_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let budget = 8 << 20;
        let store = LogStore::open(folder.path(), budget).unwrap();
        let line = "x".repeat(1000);
        for _ in 0..200 {
            append(&store, &[line.as_str(); 100]);
            let on_disk: u64 = fs::read_dir(folder.path())
                .unwrap()
                .map(|one| one.unwrap().metadata().unwrap().len())
                .sum();
            assert!(on_disk <= budget && on_disk == store.bytes(), "{on_disk}");
        }
        assert!(store.bytes() > budget / 2);
        let records = store.read(&Filter::default(), None, 5).unwrap();
        assert_eq!(
            records.iter().map(|one| one.seq).collect::<Vec<_>>(),
            [19_996, 19_997, 19_998, 19_999, 20_000]
        );
        // From far back: what is still there, in order and without a gap.
        let records = store.read(&Filter::default(), Some(0), 10_000).unwrap();
        assert!(records.len() > 4000 && records.windows(2).all(|two| two[0].seq + 1 == two[1].seq));
        store.set_budget(budget / 4);
        assert!(store.bytes() <= budget / 4);
        drop(store);
        let store = LogStore::open(folder.path(), budget).unwrap();
        append(&store, &["after"]);
        assert_eq!(store.read(&Filter::default(), None, 1).unwrap()[0].seq, 20_001);
    }
}
