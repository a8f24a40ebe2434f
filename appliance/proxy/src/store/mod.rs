//! What is stored: objects by the SHA-256 of their content, and entries that say which answer to which request has which
//! object.
//!
//! ```text
//! objects/ab/<sha256>    content, written once, never changed
//! entries/ab/<sha256>    one small file per stored answer: headers, times, the object's digest, a digest of itself
//! arriving/<number>      being written; whatever is there at the start is what a power cut left
//! leaving/<number>/      second names of what a saved state is being made of
//! pins                   keys and prefixes that are never evicted, one a line
//! ```
//! Entries are files of their own and not rows of a database: each is written whole beside its place, synced and renamed,
//! so that a power cut or a full disk at any instant costs that one entry and nothing else, and there is no file that
//! grows, needs compaction, or refuses all writes after one failed. An object is renamed into place before the entry that
//! names it is; an entry without its object is dropped at the start. What was read from disk at the start is hashed
//! before it is first served.

pub mod carry;
mod entry;
mod evict;
mod load;
mod mount;
mod object;
mod pins;
mod record;
mod spool;
mod sums;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use rackbar_model::{Digest, Severity};
use rackbar_upstream::Sum;

use crate::Tell;
use crate::rules::vary::fits;

pub use entry::Entry;
pub use evict::{NoRoom, Reservation};
pub use object::{Object, Place, Reader};
pub use record::Record;
pub(crate) use record::pairs;
pub use spool::{Held, Spool, SpoolError};

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("cache: cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content is no longer what it was.
    #[error("object {0} is damaged on disk; it was removed, and will be fetched again when it is asked for")]
    Damaged(Digest),
    /// The content in a data pack is not what the pack's index says.
    #[error("object {0} is damaged in the data pack {1}; it is out of use, and the pack should be copied again")]
    DamagedPack(Digest, Arc<str>),
    /// The folder could not be read at the start.
    #[error("{0}")]
    Shut(String),
}

impl StoreError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// It says that the content is not what it was. Other errors of a disk or of the system, as too many open files, pass.
    fn is_damage(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
            }
            Self::Damaged(_) | Self::DamagedPack(..) => true,
            Self::Shut(_) => false,
        }
    }
}

/// All that is stored. Shared.
pub struct Store {
    folder: PathBuf,
    budget: AtomicU64,
    /// Bytes of memory that entries may take.
    memory: AtomicU64,
    /// Why nothing is stored: the folder is not ours to write then.
    trouble: Option<String>,
    told_of_entries: AtomicBool,
    /// When an object that could not be read was last told of, in seconds since 1970.
    told_of_unreadable: AtomicU64,
    serial: AtomicU64,
    state: Mutex<State>,
    /// Held by whoever changes the list of pins and writes it.
    pinning: Mutex<()>,
    /// What is to be pinned next.
    noted: Mutex<BTreeSet<String>>,
    /// A pack was mounted: until then nobody needs to look for more than one key.
    packs: AtomicBool,
    /// Objects whose file is open, the longest open first.
    open: Mutex<std::collections::VecDeque<Arc<Object>>>,
    tell: Tell,
}

#[derive(Default)]
struct State {
    entries: HashMap<Arc<str>, Vec<Arc<Entry>>>,
    /// Objects of our own. A content that a pack has too is counted here only for our own copy: each comes and goes
    /// without the other.
    objects: HashMap<Digest, Arc<Object>>,
    /// How many entries, and contents that are about to be one's, have an object of our own.
    users: HashMap<Digest, usize>,
    /// Bytes of objects of our own.
    used: u64,
    /// Bytes of memory that entries of our own take.
    weight: u64,
    /// Bytes that what arrives may come to have.
    claimed: u64,
    /// Bytes of those for which room was made.
    made: u64,
    pins: pins::Pins,
}

impl State {
    /// Notes one more that has an object of our own.
    fn take(&mut self, object: &Arc<Object>) {
        if !self.objects.contains_key(&object.digest) {
            self.used = self.used.saturating_add(object.size);
            self.objects.insert(object.digest, object.clone());
        }
        *self.users.entry(object.digest).or_default() += 1;
    }
}

/// Open files at most; more are closed, the longest open first.
const OPEN_MOST: usize = 512;

impl Store {
    /// Opens the store in `folder`, clearing what a power cut left. `budget`: bytes of contents; `memory`: bytes of what is
    /// kept in memory of each answer.
    ///
    /// # Errors
    /// When the folder cannot be made, or something in it not be read: what is there may be well, and is left alone.
    pub fn open(folder: &Path, budget: u64, memory: u64, tell: Tell) -> Result<Self, StoreError> {
        let store = Self::empty(folder, None, tell);
        store.set_limits(budget, memory);
        store.load()?;
        Ok(store)
    }

    /// One that stores nothing, has nothing, and touches nothing in `folder`.
    pub(crate) fn shut(folder: &Path, why: &StoreError, tell: Tell) -> Self {
        let text = format!(
            "nothing is stored, and nothing that was stored is served: {why}. Everything passes through, and what is in {} is \
             left as it is. See to its disk, or remove what cannot be read; then start the appliance anew",
            folder.display()
        );
        Self::empty(folder, Some(text), tell)
    }

    fn empty(folder: &Path, trouble: Option<String>, tell: Tell) -> Self {
        Self {
            folder: folder.to_owned(),
            budget: AtomicU64::new(0),
            memory: AtomicU64::new(0),
            trouble,
            told_of_entries: AtomicBool::new(false),
            told_of_unreadable: AtomicU64::new(0),
            serial: AtomicU64::new(0),
            state: Mutex::default(),
            pinning: Mutex::default(),
            noted: Mutex::default(),
            packs: AtomicBool::new(false),
            open: Mutex::default(),
            tell,
        }
    }

    /// Why nothing is stored.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    fn writable(&self) -> Result<(), StoreError> {
        self.trouble.clone().map_or(Ok(()), |why| Err(StoreError::Shut(why)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stored answer that fits a request, and whether there are any for its key. The newest counts, be it of our own
    /// or of a pack.
    pub fn find(&self, key: &str, request: &HeaderMap) -> (Option<Arc<Entry>>, bool) {
        let state = self.state();
        let Some(all) = state.entries.get(key) else {
            return (None, false);
        };
        let fitting = all.iter().filter(|entry| fits(&entry.record.selecting, request));
        let best = fitting.max_by_key(|entry| (entry.record.response_time, entry.pack.is_none()));
        (best.cloned(), true)
    }

    /// The stored answer with this content, whichever requests of its key it fits.
    pub(crate) fn find_proved(&self, key: &str, sum: &Sum) -> Option<Arc<Entry>> {
        let state = self.state();
        let mut all = state.entries.get(key)?.iter();
        all.find(|entry| entry.record.status == 200 && entry.object.has(sum))
            .cloned()
    }

    /// The object of our own that has this content.
    pub fn find_digest(&self, digest: &Digest) -> Option<Arc<Object>> {
        self.state().objects.get(digest).cloned()
    }

    /// All entries, sorted by key.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        let mut all: Vec<_> = self.state().entries.values().flatten().cloned().collect();
        all.sort_by(|a, b| a.record.key.cmp(&b.record.key));
        all
    }

    /// Bytes of objects and the budget for them.
    pub fn usage(&self) -> (u64, u64) {
        let used = self.state().used;
        (used, self.budget.load(Ordering::Relaxed))
    }

    /// Entries and objects there are.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.entries.values().map(Vec::len).sum(), state.objects.len())
    }

    /// Changes the budget, and the memory for entries; what is above them goes with the next arrival.
    pub fn set_limits(&self, budget: u64, memory: u64) {
        self.budget.store(budget, Ordering::Relaxed);
        self.memory.store(memory, Ordering::Relaxed);
    }

    /// Stores an answer whose content is `object`, in place of an earlier one for the same requests.
    ///
    /// # Errors
    /// When its entry cannot be written; the answer is then kept until the end of the program only.
    pub fn insert(&self, record: Record, object: Arc<Object>) -> Result<Arc<Entry>, StoreError> {
        let path = self.entry_path(&record);
        let beside = self.write_beside(&path, &record.to_bytes());
        let entry = Arc::new(Entry::new(record, object, None));
        let mut state = self.state();
        // Whoever lets an older answer to the same requests go meanwhile would remove this one's file for it.
        let written = beside.and_then(|beside| settle_at(&beside, &path));
        self.put_in(&mut state, entry.clone());
        drop(state);
        self.bound(Some(&entry));
        written.map(|()| entry)
    }

    pub(crate) fn put(&self, entry: Arc<Entry>) {
        self.put_in(&mut self.state(), entry);
    }

    fn put_in(&self, state: &mut State, entry: Arc<Entry>) {
        entry
            .pinned
            .store(state.pins.covers(&entry.record.key), Ordering::Relaxed);
        if entry.object.own().is_some() {
            state.take(&entry.object);
            state.weight = state.weight.saturating_add(entry.weight());
        }
        let all = state.entries.entry(entry.record.key.as_str().into()).or_default();
        let same = |other: &Arc<Entry>| other.record.selecting == entry.record.selecting && other.pack == entry.pack;
        let replaced = all.iter().position(same).map(|at| all.swap_remove(at));
        all.push(entry);
        if let Some(old) = replaced {
            self.leave(state, &old);
        }
    }

    /// Takes note that what is stored under a key may hold no longer: what `keep` or a pin spares is asked for anew before
    /// it is next served, until then it stays; the rest is removed.
    pub(crate) fn invalidate(&self, key: &str, keep: bool) {
        let mut state = self.state();
        let Some(all) = state.entries.remove(key) else { return };
        let spared = |entry: &Arc<Entry>| keep || entry.pinned() || entry.pack.is_some();
        let (kept, gone): (Vec<_>, Vec<_>) = all.into_iter().partition(spared);
        for entry in &kept {
            entry.invalid.store(true, Ordering::Relaxed);
        }
        if !kept.is_empty() {
            state.entries.insert(key.into(), kept);
        }
        for entry in &gone {
            let _ = std::fs::remove_file(self.entry_path(&entry.record));
            self.leave(&mut state, entry);
        }
    }

    /// Removes what is stored under a key by ourselves, pinned or not.
    pub(crate) fn remove(&self, key: &str) {
        let mut state = self.state();
        let Some(all) = state.entries.remove(key) else { return };
        let (kept, gone): (Vec<_>, Vec<_>) = all.into_iter().partition(|entry| entry.pack.is_some());
        if !kept.is_empty() {
            state.entries.insert(key.into(), kept);
        }
        for entry in &gone {
            let _ = std::fs::remove_file(self.entry_path(&entry.record));
            self.leave(&mut state, entry);
        }
    }

    /// The folder it is in.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes an entry that is no longer listed out of the account.
    fn leave(&self, state: &mut State, entry: &Entry) {
        if entry.object.own().is_some() {
            state.weight = state.weight.saturating_sub(entry.weight());
        }
        self.let_go(state, &entry.object);
    }

    /// Notes that one entry less has an object, and removes its file when that was the last. A client that reads it has
    /// it open.
    fn let_go(&self, state: &mut State, object: &Arc<Object>) {
        let Some(path) = object.own() else { return };
        if let Some(users) = state.users.get_mut(&object.digest).filter(|users| **users > 1) {
            *users -= 1;
            return;
        }
        state.users.remove(&object.digest);
        if state.objects.remove(&object.digest).is_some() {
            state.used = state.used.saturating_sub(object.size);
            let _ = std::fs::remove_file(path);
            // A descriptor that stays would keep its blocks on the disk.
            self.close(&object.digest);
        }
    }

    /// Closes the file of an object of our own; whoever reads it now has it to the end.
    fn close(&self, digest: &Digest) {
        let mut queue = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        queue.retain(|open| {
            let other = open.digest != *digest;
            if !other {
                open.close();
            }
            other
        });
    }

    /// Hashes an object and removes it with all its entries when it is not what it was. One that cannot be read just now
    /// stays.
    ///
    /// # Errors
    /// When it is damaged or cannot be read.
    pub fn check(&self, object: &Arc<Object>) -> Result<(), StoreError> {
        self.judged(object, object.hash())
    }

    /// The same for an object that was just read, with what was found.
    fn judged(&self, object: &Arc<Object>, found: Result<Digest, StoreError>) -> Result<(), StoreError> {
        match found {
            Ok(found) if found == object.digest => {
                // Whoever looks at the same time notes the same.
                let _ = object.whole.set(true);
                Ok(())
            }
            Err(error) if !error.is_damage() => Err(self.unreadable(error)),
            Ok(_) | Err(_) => Err(self.damaged(object)),
        }
    }

    fn damaged(&self, object: &Arc<Object>) -> StoreError {
        let error = match self.drop_object(object) {
            Some(pack) => StoreError::DamagedPack(object.digest, pack),
            None => StoreError::Damaged(object.digest),
        };
        (self.tell)(Severity::Warning, error.to_string());
        error
    }

    /// Tells of it, once a minute: a failing disk gives an error for each request.
    fn unreadable(&self, error: StoreError) -> StoreError {
        let now = crate::now();
        let last = self.told_of_unreadable.load(Ordering::Relaxed);
        if now >= last.saturating_add(60) {
            self.told_of_unreadable.store(now, Ordering::Relaxed);
            let text = format!(
                "{error}; nothing was removed, and what cannot be read is asked of the origin. See to the disk if this goes on"
            );
            (self.tell)(Severity::Error, text);
        }
        error
    }

    /// Drops the entries that have this very object, and its file when no others are left. A copy of the same content that lies
    /// elsewhere stays, with its entries; so does one that came since this one was found to be damaged. Gives the pack's name
    /// when it lay in one.
    fn drop_object(&self, object: &Arc<Object>) -> Option<Arc<str>> {
        let mut state = self.state();
        let mut gone = Vec::new();
        state.entries.retain(|_, all| {
            gone.extend(all.extract_if(.., |entry| Arc::ptr_eq(&entry.object, object)));
            !all.is_empty()
        });
        let mut pack = None;
        for entry in &gone {
            match &entry.pack {
                Some(name) => pack = Some(name.clone()),
                None => drop(std::fs::remove_file(self.entry_path(&entry.record))),
            }
            self.leave(&mut state, entry);
        }
        pack
    }

    /// The open file of an object, checked when this is its first use since the start.
    ///
    /// # Errors
    /// When it is gone or damaged, or cannot be read just now.
    pub async fn reading(self: &Arc<Self>, object: &Arc<Object>) -> Result<(Arc<File>, u64), StoreError> {
        let checked = object.whole.get_or_try_init(|| async {
            let (store, object) = (self.clone(), object.clone());
            match tokio::task::spawn_blocking(move || store.check(&object)).await {
                Ok(Ok(())) => Ok(true),
                Ok(Err(error)) if error.is_damage() => Ok(false),
                // Whoever asks next looks again.
                Ok(Err(error)) => Err(error),
                Err(error) => Err(StoreError::io("check objects in", &self.folder)(error.into())),
            }
        });
        if !*checked.await? {
            // Whoever stored it again meanwhile, by an old entry, has another that is damaged.
            drop(self.drop_object(object));
            return Err(StoreError::Damaged(object.digest));
        }
        if let Some(open) = object.opened() {
            return Ok(open);
        }
        let open = match object.open() {
            Ok(open) => open,
            Err(error) if error.is_damage() => {
                // It was let go of a moment ago, most likely.
                drop(self.drop_object(object));
                return Err(StoreError::Damaged(object.digest));
            }
            Err(error) => return Err(self.unreadable(error)),
        };
        // It may have been let go since: then it is open for this reader and nobody else.
        let state = self.state();
        if !state.objects.contains_key(&object.digest) {
            object.close();
            return Ok(open);
        }
        let mut queue = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push_back(object.clone());
        while queue.len() > OPEN_MOST {
            queue.pop_front().iter().for_each(|oldest| oldest.close());
        }
        Ok(open)
    }

    fn entry_path(&self, record: &Record) -> PathBuf {
        entry_path(&self.folder, record)
    }

    fn object_path(&self, digest: &Digest) -> PathBuf {
        object_path(&self.folder, digest)
    }

    /// A name in `arriving/` that nobody has.
    fn arriving(&self) -> PathBuf {
        let number = self.serial.fetch_add(1, Ordering::Relaxed);
        self.folder.join("arriving").join(number.to_string())
    }

    /// Writes a small file whole or not at all.
    fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let beside = self.write_beside(path, bytes)?;
        settle_at(&beside, path)
    }

    /// Writes what is to be a small file; [`settle_at`] puts it in its place.
    fn write_beside(&self, path: &Path, bytes: &[u8]) -> Result<PathBuf, StoreError> {
        self.writable()?;
        let beside = self.arriving();
        let written = (|| {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
            io::Write::write_all(&mut file, bytes)?;
            file.sync_data()?;
            make_parent(path)
        })();
        match written {
            Ok(()) => Ok(beside),
            Err(error) => Err(unwritten(&beside, path, error)),
        }
    }
}

/// Puts a file that was written beside its place there.
fn settle_at(beside: &Path, path: &Path) -> Result<(), StoreError> {
    std::fs::rename(beside, path).map_err(|error| unwritten(beside, path, error))
}

/// Clears away what did not come to its place.
fn unwritten(beside: &Path, path: &Path, error: io::Error) -> StoreError {
    let _ = std::fs::remove_file(beside);
    StoreError::io("write", path)(error)
}

fn entry_path(folder: &Path, record: &Record) -> PathBuf {
    spread(folder.join("entries"), &record.file_name())
}

fn object_path(folder: &Path, digest: &Digest) -> PathBuf {
    spread(folder.join("objects"), &digest.to_string())
}

/// The place of a name among many: below its first two letters.
fn spread(folder: PathBuf, name: &str) -> PathBuf {
    folder.join(name.get(..2).unwrap_or("00")).join(name)
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)
}

#[cfg(test)]
pub(crate) mod tests;
