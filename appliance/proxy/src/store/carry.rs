//! What is stored on its way to another appliance, as files of a saved state, and taken in from one.
//!
//! ```text
//! cache/answers.list     { length u32, little-endian  entry } ...   each as it is on disk, with a digest of itself
//! cache/<sha256>.object  one content
//! cache/pins.list        pins, one a line
//! ```
//! Entries travel in one file: a cache has tens of thousands of them, and each file of a saved state is named in its header.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rackbar_model::Digest;
use rackbar_trust::{Sha256, sha256};

use super::load::{ENTRY_MOST, files_below, look};
use super::{Record, StoreError, entry_path, make_parent, object_path};

/// The folder that these files have in a saved state.
pub const CACHE: &str = "cache";

const ANSWERS: &str = "answers.list";
const PINS: &str = "pins.list";
const OBJECT: &str = ".object";

/// Where contents that leave have a second name, so that none goes meanwhile.
const LEAVING: &str = "leaving";

/// Numbers those who leave at the same time.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// One file on its way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Left {
    /// Its folder and name in a saved state.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 that its content must have.
    pub sha256: Digest,
    /// Where it lies for as long as [`Leaving`] lives.
    pub path: PathBuf,
}

/// All that is stored as it was at one moment: the proxy goes on, evicts and stores. Dropped, it gives back what it held.
#[derive(Debug)]
pub struct Leaving {
    /// The files: pins, answers, contents.
    pub files: Vec<Left>,
    /// Stored answers among them.
    pub answers: u64,
    folder: PathBuf,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        // What is left goes with the next start.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// True for a name that a file of this kind may have; `sha256` is the file's.
pub fn is_carried(name: &str, sha256: &Digest) -> bool {
    let Some(file) = name.strip_prefix(CACHE).and_then(|rest| rest.strip_prefix('/')) else {
        return false;
    };
    let content = |stem: &str| stem == sha256.to_string();
    matches!(file, ANSWERS | PINS) || file.strip_suffix(OBJECT).is_some_and(content)
}

/// How many answers are stored in `folder` and how many bytes their contents have. Reads the entries alone.
///
/// # Errors
/// When the folder cannot be read.
pub fn stored(folder: &Path) -> Result<(u64, u64), StoreError> {
    let (mut answers, mut contents) = (0, HashMap::new());
    each(folder, |record, _| {
        answers += 1;
        contents.insert(record.digest, record.size);
        Ok(())
    })?;
    Ok((answers, contents.into_values().fold(0u64, u64::saturating_add)))
}

/// Gives each whole entry in `folder`, as it is now, with its bytes.
fn each(folder: &Path, mut take: impl FnMut(&Record, &[u8]) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let entries = folder.join("entries");
    if look(&entries)?.is_none() {
        return Ok(());
    }
    for path in files_below(&entries)? {
        // One that goes meanwhile is not there.
        if look(&path)?.is_none_or(|meta| meta.len() > ENTRY_MOST) {
            continue;
        }
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            read => read.map_err(StoreError::io("read", &path))?,
        };
        if let Some(record) = Record::from_bytes(&bytes).filter(|record| entry_path(folder, record) == path) {
            take(&record, &bytes)?;
        }
    }
    Ok(())
}

/// Holds all that is stored in `folder`, also while a proxy works there. `contents` false: the pins alone.
///
/// # Errors
/// When something cannot be read, or there is no room for a list of the answers.
pub fn leave(folder: &Path, contents: bool) -> Result<Leaving, StoreError> {
    let number = SERIAL.fetch_add(1, Ordering::Relaxed);
    let mut leaving = Leaving {
        files: Vec::new(),
        answers: 0,
        folder: folder.join(LEAVING).join(number.to_string()),
    };
    let pins = folder.join("pins");
    if let Some(text) = read_if_there(&pins)? {
        let (at, digest) = (leaving.folder.join(PINS), Digest(sha256(&text)));
        leaving.add(PINS, at.clone(), text.len() as u64, digest);
        std::fs::create_dir_all(&leaving.folder).map_err(StoreError::io("make", &leaving.folder))?;
        std::fs::write(&at, &text).map_err(StoreError::io("write", &at))?;
    }
    if contents {
        leaving.hold(folder)?;
    }
    Ok(leaving)
}

impl Leaving {
    fn add(&mut self, name: &str, path: PathBuf, bytes: u64, sha256: Digest) {
        self.files.push(Left {
            name: format!("{CACHE}/{name}"),
            bytes,
            sha256,
            path,
        });
    }

    fn hold(&mut self, folder: &Path) -> Result<(), StoreError> {
        std::fs::create_dir_all(&self.folder).map_err(StoreError::io("make", &self.folder))?;
        let list = self.folder.join(ANSWERS);
        let failed = || StoreError::io("write", &list);
        let mut out = BufWriter::new(File::create(&list).map_err(failed())?);
        let (mut hash, mut bytes, mut held) = (Sha256::new(), 0u64, HashMap::new());
        each(folder, |record, entry| {
            if !self.held(folder, record, &mut held)? {
                return Ok(());
            }
            let length = u32::try_from(entry.len()).unwrap_or(u32::MAX).to_le_bytes();
            for part in [length.as_slice(), entry] {
                out.write_all(part).map_err(failed())?;
                hash.update(part);
                bytes = bytes.saturating_add(part.len() as u64);
            }
            self.answers += 1;
            Ok(())
        })?;
        out.flush().map_err(failed())?;
        if self.answers > 0 {
            self.add(ANSWERS, list, bytes, Digest(hash.finish()));
        }
        Ok(())
    }

    /// Gives the content of an answer a second name, once however many have it. False when it is not there any more.
    fn held(&mut self, folder: &Path, record: &Record, held: &mut HashMap<Digest, bool>) -> Result<bool, StoreError> {
        if let Some(known) = held.get(&record.digest) {
            return Ok(*known);
        }
        let from = object_path(folder, &record.digest);
        let name = format!("{}{OBJECT}", record.digest);
        let to = self.folder.join(&name);
        let there = look(&from)?.is_some_and(|meta| meta.len() == record.size)
            && match std::fs::hard_link(&from, &to) {
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                linked => linked.map(|()| true).map_err(StoreError::io("hold", &from))?,
            };
        if there {
            self.add(&name, to, record.size, record.digest);
        }
        held.insert(record.digest, there);
        Ok(there)
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(StoreError::io("read", path)),
    }
}

/// Removes what those left who were cut off while something was on its way out. To be called while nothing is.
pub fn clear(folder: &Path) {
    let _ = std::fs::remove_dir_all(folder.join(LEAVING));
}

/// Moves what came in `from` to the store in `folder`, on one file system, beside what is stored there; an answer to the
/// same request is replaced, and pins of both hold. Done again after a power cut it goes on where it was. To be called
/// while no store is open in `folder`.
///
/// # Errors
/// When something cannot be read, written or moved; what was moved by then is in its place.
pub fn settle(from: &Path, folder: &Path) -> io::Result<()> {
    let found = match std::fs::read_dir(from) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    for entry in found {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(OBJECT));
        if let Some(digest) = name.and_then(|name| name.parse().ok()) {
            let to = object_path(folder, &digest);
            make_parent(&to)?;
            std::fs::rename(&path, &to)?;
        }
    }
    let (answers, pins) = (from.join(ANSWERS), from.join(PINS));
    if answers.exists() {
        let mut list = BufReader::new(File::open(&answers)?);
        while let Some(entry) = next(&mut list)? {
            settle_entry(folder, &entry)?;
        }
    }
    if pins.exists() {
        settle_pins(folder, &pins)?;
    }
    if folder.exists() {
        // One wait for all: entries and contents know by their digests whether they are whole.
        nix::unistd::syncfs(File::open(folder)?)?;
    }
    for done in [answers, pins] {
        match std::fs::remove_file(done) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The next entry of a list; none at its end, and none where it goes on as no list does.
fn next(list: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match list.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u64::from(u32::from_le_bytes(length));
    if length > ENTRY_MOST {
        return Ok(None);
    }
    let mut entry = Vec::new();
    list.take(length).read_to_end(&mut entry)?;
    Ok((entry.len() as u64 == length).then_some(entry))
}

fn settle_entry(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let Some(record) = Record::from_bytes(bytes) else {
        return Ok(());
    };
    let content = object_path(folder, &record.digest).metadata();
    if content.is_ok_and(|meta| meta.len() == record.size) {
        put(folder, &entry_path(folder, &record), bytes)?;
    }
    Ok(())
}

fn settle_pins(folder: &Path, came: &Path) -> io::Result<()> {
    let to = folder.join("pins");
    let here = match std::fs::read_to_string(&to) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        read => read?,
    };
    let came = std::fs::read_to_string(came)?;
    let both: BTreeSet<&str> = here.lines().chain(came.lines()).filter(|pin| !pin.is_empty()).collect();
    let text: String = both.iter().flat_map(|pin| [*pin, "\n"]).collect();
    put(folder, &to, text.as_bytes())
}

/// Writes a file beside its place and renames it there.
fn put(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = folder.join("arriving").join("settled");
    make_parent(&beside)?;
    make_parent(path)?;
    std::fs::write(&beside, bytes)?;
    std::fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderMap;
    use proptest::prelude::*;

    use super::super::tests::{sealed, store};
    use super::*;

    fn with(folder: &Path, answers: &[(&str, &[u8])]) {
        let store = store(folder);
        for (key, content) in answers {
            let (record, held) = sealed(&store, key, content);
            store.insert(record, held.object.clone()).unwrap();
        }
    }

    /// Copies what leaves, as an import unpacks it.
    fn unpack(leaving: &Leaving, to: &Path) {
        std::fs::create_dir_all(to.join(CACHE)).unwrap();
        for file in &leaving.files {
            let content = std::fs::read(&file.path).unwrap();
            assert_eq!(
                (content.len() as u64, Digest(sha256(&content))),
                (file.bytes, file.sha256)
            );
            assert!(is_carried(&file.name, &file.sha256), "{}", file.name);
            std::fs::write(to.join(&file.name), content).unwrap();
        }
    }

    #[test]
    fn what_is_stored_here_is_stored_there_beside_what_was() {
        let at = tempfile::tempdir().unwrap();
        let [here, there, came] = ["here", "there", "came"].map(|name| at.path().join(name));
        with(
            &here,
            &[("http://a/1", b"one"), ("http://a/2", b"two"), ("http://a/3", b"two")],
        );
        store(&here).pin("http://a/1", true).unwrap();
        with(&there, &[("http://a/1", b"older"), ("http://b/1", b"other")]);
        store(&there).pin("http://b/*", true).unwrap();
        assert_eq!(stored(&here).unwrap(), (3, 6));
        let leaving = leave(&here, true).unwrap();
        assert_eq!(
            (leaving.answers, leaving.files.len()),
            (3, 4),
            "two contents, pins and the list"
        );
        // What is evicted meanwhile leaves all the same.
        store(&here).invalidate("http://a/2", false);
        store(&here).invalidate("http://a/3", false);
        unpack(&leaving, &came);
        drop(leaving);
        assert_eq!(std::fs::read_dir(here.join(LEAVING)).unwrap().count(), 0);
        settle(&came.join(CACHE), &there).unwrap();
        settle(&came.join(CACHE), &there).unwrap();
        let open = store(&there);
        for (key, content) in [
            ("http://a/1", "one"),
            ("http://a/2", "two"),
            ("http://a/3", "two"),
            ("http://b/1", "other"),
        ] {
            let (entry, _) = open.find(key, &HeaderMap::new());
            let object = entry.unwrap().object.clone();
            open.check(&object).unwrap();
            let mut text = String::new();
            object.reader().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, content, "{key}");
        }
        assert_eq!(open.pins(), ["http://a/1", "http://b/*"]);
        assert_eq!(std::fs::read_dir(came.join(CACHE)).unwrap().count(), 0);
    }

    #[test]
    fn the_pins_leave_alone_and_nothing_leaves_an_empty_cache() {
        let at = tempfile::tempdir().unwrap();
        assert_eq!(leave(&at.path().join("none"), true).unwrap().files, []);
        assert_eq!(stored(&at.path().join("none")).unwrap(), (0, 0));
        with(at.path(), &[("http://a/1", b"one")]);
        store(at.path()).pin("http://a/*", true).unwrap();
        let leaving = leave(at.path(), false).unwrap();
        assert_eq!(leaving.files.len(), 1, "{leaving:?}");
        assert_eq!(leaving.files[0].name, "cache/pins.list");
    }

    #[test]
    fn an_answer_whose_content_is_not_there_does_not_leave() {
        let at = tempfile::tempdir().unwrap();
        with(at.path(), &[("http://a/1", b"one"), ("http://a/2", b"two")]);
        std::fs::remove_file(object_path(at.path(), &Digest(sha256(b"one")))).unwrap();
        let leaving = leave(at.path(), true).unwrap();
        assert_eq!((leaving.answers, leaving.files.len()), (1, 2));
    }

    #[test]
    fn names_of_other_folders_are_none_of_ours() {
        let digest = Digest([0xab; 32]);
        assert!(is_carried("cache/answers.list", &digest) && is_carried("cache/pins.list", &digest));
        assert!(is_carried(&format!("cache/{digest}.object"), &digest));
        for name in [
            "cache/pins",
            "cache/../rackbar.redb",
            "cache//pins.list",
            "cachepins.list",
            "images/answers.list",
            "cache/.object",
            "/cache/pins.list",
        ] {
            assert!(!is_carried(name, &digest), "{name}");
        }
        assert!(!is_carried(&format!("cache/{}.object", Digest([1; 32])), &digest));
    }

    proptest! {
        #[test]
        fn no_list_makes_it_panic_or_write_elsewhere(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let at = tempfile::tempdir().unwrap();
            let (came, folder) = (at.path().join("came"), at.path().join("store"));
            std::fs::create_dir_all(&came).unwrap();
            std::fs::write(came.join(ANSWERS), &bytes).unwrap();
            settle(&came, &folder).unwrap();
            let open = super::super::Store::open(&folder, 1 << 20, 1 << 20, Arc::new(|_, _| {})).unwrap();
            prop_assert_eq!(open.counts(), (0, 0));
            prop_assert_eq!(std::fs::read_dir(at.path()).unwrap().count(), 2);
        }
    }
}
