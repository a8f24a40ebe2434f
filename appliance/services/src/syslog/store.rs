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
/// Smallest and largest segment: one is read as a whole, whatever the budget.
const SMALLEST: u64 = 256 << 10;
const LARGEST: u64 = 16 << 20;
/// Bytes of segments that one search reads, so that a rare word in a large log costs no request more than a moment.
const WORK: u64 = 32 << 20;
/// Records in memory.
const TAIL: usize = 2048;
/// Most octets of their texts.
const TAIL_BYTES: usize = 4 << 20;
/// Most records of one answer.
const MOST: usize = 10_000;

/// Where a search begins, and which way it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// With the first record behind this number, towards newer ones.
    After(u64),
    /// With the last record before this number, or the newest, towards older ones.
    Before(Option<u64>),
}

/// What a search found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The records, oldest first.
    pub records: Vec<Record>,
    /// How far it looked: everything behind [`Start::After`] up to this number, or everything before [`Start::Before`] from
    /// this number on. The next search of its kind begins there.
    pub position: u64,
    /// There are records that it did not look at.
    pub more: bool,
    /// Number of the newest record of all when it began; 0 when there is none.
    pub newest: u64,
}

impl Found {
    /// The first `limit` that fit of records in their order, which end before `next`.
    fn forward(all: impl Iterator<Item = Record>, filter: &Filter, limit: usize, next: u64) -> Self {
        let mut all = all.peekable();
        let (mut records, mut position) = (Vec::new(), next.saturating_sub(1));
        while let Some(record) = all.next() {
            let seq = record.seq;
            if filter.fits(&record) {
                records.push(record);
            }
            if records.len() >= limit && all.peek().is_some() {
                position = seq;
                break;
            }
        }
        Self {
            records,
            position,
            more: all.peek().is_some(),
            newest: next.saturating_sub(1),
        }
    }
}

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
    tail_bytes: usize,
    dirty: bool,
}

/// The records.
pub struct LogStore {
    folder: PathBuf,
    inner: Mutex<Inner>,
    /// [`WORK`].
    work: u64,
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
            tail_bytes: 0,
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
            work: WORK,
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
    /// When the disk refuses; the messages that were not yet written are then lost, and what was kept before is whole.
    pub fn append(&self, at: u64, messages: Vec<(IpAddr, Message)>) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        let largest = usize::try_from(inner.segment_bytes()).unwrap_or(usize::MAX);
        let (mut bytes, mut records) = (Vec::new(), Vec::with_capacity(messages.len()));
        for (source, message) in messages {
            let record = Record::new(inner.next + records.len() as u64, at, source, message);
            let before = bytes.len();
            encode(&record, &mut bytes);
            // A thousand messages of the longest kind are more than a whole segment.
            if before > 0 && bytes.len() > largest {
                let own = bytes.split_off(before);
                inner.keep(&self.folder, &bytes, &mut records)?;
                bytes = own;
            }
            records.push(record);
        }
        inner.keep(&self.folder, &bytes, &mut records)
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

    /// Records that fit, oldest first, `limit` at most: those behind a number, or the newest before one. A search reads
    /// [`WORK`] bytes of the disk at most, or one segment; [`Found::more`] says whether it ended before it was through.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn search(&self, filter: &Filter, start: Start, limit: usize) -> io::Result<Found> {
        let limit = limit.clamp(1, MOST);
        let (next, segments) = {
            let inner = lock(&self.inner);
            let behind = match start {
                // A number that was not given yet is of a store that is gone.
                Start::After(after) if after >= inner.next => Some(0),
                Start::After(after) => Some(after),
                Start::Before(_) => None,
            };
            let begin = inner.tail.front().map_or(inner.next, |record| record.seq);
            if let Some(after) = behind.filter(|after| after.saturating_add(1) >= begin) {
                let later = inner.tail.iter().filter(|one| one.seq > after).cloned();
                return Ok(Found::forward(later, filter, limit, inner.next));
            }
            let segments: Vec<_> = inner.segments.iter().map(|one| (one.first, one.bytes)).collect();
            (inner.next, segments)
        };
        match start {
            Start::After(after) => self.forward(filter, if after >= next { 0 } else { after }, limit, next, &segments),
            Start::Before(before) => self.backward(filter, before.unwrap_or(next).min(next), limit, next, &segments),
        }
    }

    fn forward(
        &self,
        filter: &Filter,
        after: u64,
        limit: usize,
        next: u64,
        segments: &[(u64, u64)],
    ) -> io::Result<Found> {
        let (mut records, mut read) = (Vec::new(), 0u64);
        for (n, (first, bytes)) in segments.iter().enumerate() {
            let end = segments.get(n + 1).map_or(next, |(first, _)| *first);
            // A segment whose successor begins at or before the number has nothing behind it.
            if end <= after.saturating_add(1) {
                continue;
            }
            if read > 0 && read.saturating_add(*bytes) > self.work {
                return Ok(Found {
                    records,
                    position: first.saturating_sub(1),
                    more: true,
                    newest: next.saturating_sub(1),
                });
            }
            read = read.saturating_add((*bytes).max(1));
            // What came since this search began is for the next one.
            let later = self.segment(*first)?.into_iter();
            let part = Found::forward(
                later.filter(|one| one.seq > after && one.seq < end),
                filter,
                limit - records.len(),
                end,
            );
            records.extend(part.records);
            if part.more || records.len() >= limit {
                return Ok(Found {
                    records,
                    position: part.position,
                    more: part.position.saturating_add(1) < next,
                    newest: next.saturating_sub(1),
                });
            }
        }
        Ok(Found {
            records,
            position: next.saturating_sub(1),
            more: false,
            newest: next.saturating_sub(1),
        })
    }

    fn backward(
        &self,
        filter: &Filter,
        before: u64,
        limit: usize,
        next: u64,
        segments: &[(u64, u64)],
    ) -> io::Result<Found> {
        let (mut newest_first, mut read, mut position) = (Vec::new(), 0u64, before);
        let mut more = false;
        for (first, bytes) in segments.iter().rev().filter(|(first, _)| *first < before) {
            more = read > 0 && read.saturating_add(*bytes) > self.work || newest_first.len() >= limit;
            if more {
                break;
            }
            read = read.saturating_add((*bytes).max(1));
            let whole = self.segment(*first)?;
            // The segment may have gone meanwhile, and every older one with it.
            position = *first;
            let mut older = whole.into_iter().rev().filter(|one| one.seq < before);
            let wanted = older.by_ref().filter(|one| filter.fits(one));
            newest_first.extend(wanted.take(limit - newest_first.len()));
            let last = newest_first.last().map(|one: &Record| one.seq);
            if let Some(seq) = last.filter(|_| newest_first.len() >= limit && older.next().is_some()) {
                (position, more) = (seq, true);
                break;
            }
        }
        newest_first.reverse();
        Ok(Found {
            records: newest_first,
            position,
            more,
            newest: next.saturating_sub(1),
        })
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
    /// Writes records, and has them at hand for those who follow.
    fn keep(&mut self, folder: &Path, bytes: &[u8], records: &mut Vec<Record>) -> io::Result<()> {
        self.write(folder, bytes)?;
        self.next += records.len() as u64;
        records.drain(..).for_each(|record| self.remember(record));
        Ok(())
    }

    fn remember(&mut self, record: Record) {
        self.tail_bytes += record.text.len();
        self.tail.push_back(record);
        while self.tail.len() > TAIL || self.tail.len() > 1 && self.tail_bytes > TAIL_BYTES {
            let gone = self.tail.pop_front();
            self.tail_bytes -= gone.map_or(0, |record| record.text.len());
        }
    }

    fn segment_bytes(&self) -> u64 {
        (self.budget / SEGMENTS).clamp(SMALLEST, LARGEST)
    }

    fn write(&mut self, folder: &Path, bytes: &[u8]) -> io::Result<()> {
        let (more, largest) = (bytes.len() as u64, self.segment_bytes());
        let fits = |last: &Segment| last.bytes == 0 || last.bytes.saturating_add(more) <= largest;
        let full = !self.segments.back().is_some_and(fits);
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
        let start = after.map_or(Start::Before(None), Start::After);
        let found = store.search(&Filter::default(), start, limit).unwrap();
        found.records.into_iter().map(|record| record.text).collect()
    }

    fn newest(store: &LogStore, limit: usize) -> Vec<Record> {
        let found = store.search(&Filter::default(), Start::Before(None), limit);
        found.unwrap().records
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
        let records = newest(&store, 5);
        assert_eq!(
            records.iter().map(|one| one.seq).collect::<Vec<_>>(),
            [19_996, 19_997, 19_998, 19_999, 20_000]
        );
        // From far back: what is still there, in order and without a gap.
        let records = store
            .search(&Filter::default(), Start::After(0), 10_000)
            .unwrap()
            .records;
        assert!(records.len() > 4000 && records.windows(2).all(|two| two[0].seq + 1 == two[1].seq));
        store.set_budget(budget / 4);
        assert!(store.bytes() <= budget / 4);
        drop(store);
        let store = LogStore::open(folder.path(), budget).unwrap();
        append(&store, &["after"]);
        assert_eq!(newest(&store, 1)[0].seq, 20_001);
    }

    #[test]
    fn a_flood_of_the_longest_messages_at_once_stays_within_its_budget_on_disk_and_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let budget = 4 << 20;
        let store = LogStore::open(folder.path(), budget).unwrap();
        // Each of these octets is written as four.
        let long = "\u{1}".repeat(8000);
        for _ in 0..2 {
            append(&store, &[long.as_str(); 1024]);
            assert!(store.bytes() <= budget, "{}", store.bytes());
        }
        let inner = lock(&store.inner);
        let at_hand: usize = inner.tail.iter().map(|one| one.text.len()).sum();
        assert!(
            at_hand > 16 << 10 && at_hand <= TAIL_BYTES && at_hand == inner.tail_bytes,
            "{at_hand}"
        );
        let largest = inner.segments.iter().map(|one| one.bytes).max().unwrap();
        assert!(largest <= inner.segment_bytes(), "{largest}");
        drop(inner);
        let seen = newest(&store, 3).iter().map(|one| one.seq).collect::<Vec<_>>();
        assert_eq!(seen, [2046, 2047, 2048]);
        let all = store
            .search(&Filter::default(), Start::After(0), 10_000)
            .unwrap()
            .records;
        assert!(
            all.len() > 50 && all.windows(2).all(|two| two[0].seq + 1 == two[1].seq),
            "{}",
            all.len()
        );
    }

    #[test]
    fn a_search_for_a_rare_word_reads_a_part_at_a_time_and_misses_nothing_either_way() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = LogStore::open(folder.path(), 8 << 20).unwrap();
        store.work = 1 << 20;
        let line = "x".repeat(1000);
        // The rare word at the very beginning, in the middle and at the end of four times the work of one search.
        for part in 0..8 {
            append(&store, &["rare"]);
            while store.bytes() < (part + 1) * store.work / 2 {
                append(&store, &[line.as_str(); 100]);
            }
        }
        append(&store, &["rare"]);
        let filter = Filter {
            grep: Some("RARE".into()),
            ..Filter::default()
        };
        let numbers = |found: &Found| found.records.iter().map(|one| one.seq).collect::<Vec<_>>();
        let (mut forward, mut after, mut looks) = (Vec::new(), 0, 0);
        loop {
            let found = store.search(&filter, Start::After(after), 100).unwrap();
            forward.extend(numbers(&found));
            assert!(found.position > after || !found.more, "{found:?}");
            (after, looks) = (found.position, looks + 1);
            if !found.more {
                assert_eq!(found.position, found.newest);
                break;
            }
        }
        assert!(forward.len() == 9 && looks >= 4, "{forward:?} in {looks} looks");
        let (mut backward, mut before, mut looks) = (Vec::new(), None, 0);
        loop {
            // Two at a time: the limit ends a look as well as the work does.
            let found = store.search(&filter, Start::Before(before), 2).unwrap();
            backward.extend(numbers(&found).into_iter().rev());
            assert!(before.is_none_or(|before| found.position < before), "{found:?}");
            (before, looks) = (Some(found.position), looks + 1);
            if !found.more {
                break;
            }
        }
        backward.reverse();
        assert!(backward == forward && looks >= 4, "{backward:?} in {looks} looks");
        // Who stands at the end reads nothing, and a number of another store begins anew.
        let found = store.search(&filter, Start::After(after), 100).unwrap();
        assert_eq!((found.records.len(), found.position, found.more), (0, after, false));
        let anew = store.search(&filter, Start::After(after + 1), 1).unwrap();
        assert_eq!((numbers(&anew), anew.more), (vec![1], true));
    }
}
