//! Files that arrive piece by piece and records beside them, kept so that a power cut leaves all of one or nothing of it.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rackbar_model::{Digest, Timestamp};
use rackbar_trust::Sha256;

/// So often the disk is made to keep up: a page cache full of one upload would stall the journal's commits.
const SYNC_EVERY: u64 = 32 << 20;

/// A file that arrives, hashed on the way. Dropping it removes what was written, unless it was put in its place.
pub(crate) struct Arriving {
    path: PathBuf,
    file: File,
    hash: Sha256,
    bytes: u64,
    /// Bytes that the disk was not yet asked to keep.
    unsynced: u64,
}

impl Arriving {
    /// Begins a file at `path`, where it lies until it is whole.
    pub(crate) fn begin(path: PathBuf) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        Ok(Self {
            path,
            file,
            hash: Sha256::new(),
            bytes: 0,
            unsynced: 0,
        })
    }

    /// Where it lies for now.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What arrived so far.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// Bytes that arrived so far.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes = self.bytes.saturating_add(length);
        self.unsynced = self.unsynced.saturating_add(length);
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// The digest of all that arrived. To be asked once, at the end.
    pub(crate) fn digest(&mut self) -> Digest {
        Digest(std::mem::replace(&mut self.hash, Sha256::new()).finish())
    }

    /// Moves the file, which must be on the disk by then, to its place. The name is durable with the next
    /// [`write_durably`] into the same folder.
    pub(crate) fn place(&self, to: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, to)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        // Gone already when it was put in its place.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Writes a file of `folder` so that a power cut leaves all of it or what was there before. What else was renamed in the
/// folder is durable then, too.
pub(crate) fn write_durably(folder: &Path, path: &Path, content: &impl serde::Serialize) -> io::Result<()> {
    // Behind the whole name: `x.json.part` can be no upload's, whose names end in a number before that.
    let mut new = path.as_os_str().to_owned();
    new.push(".part");
    let new = PathBuf::from(new);
    let write = || -> io::Result<()> {
        let mut file = File::create(&new)?;
        serde_json::to_writer_pretty(&mut file, content)?;
        file.sync_all()?;
        sync_folder(folder)?;
        std::fs::rename(&new, path)?;
        sync_folder(folder)
    };
    write().inspect_err(|_| {
        // Whoever opens the folder next clears it away.
        let _ = std::fs::remove_file(&new);
    })
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes a file; not being there is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// SHA-256 of a content from where it stands; `None` when `stop` says so before the end.
pub(crate) fn digest_of(mut file: impl io::Read, stop: impl Fn() -> bool) -> io::Result<Option<Digest>> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        if stop() {
            return Ok(None);
        }
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(Digest(hash.finish()))),
            Ok(count) => hash.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// True for a name that an image or a program may have: 1 to 64 lower-case letters, digits, `.`, `_` and `-`, beginning
/// with a letter or digit. It is a file's name as it is, and never a path.
pub(crate) fn is_name(name: &str) -> bool {
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let plain = |b: u8| edge(&b) || matches!(b, b'.' | b'_' | b'-');
    name.len() <= 64 && name.as_bytes().first().is_some_and(edge) && name.bytes().all(plain)
}

/// A size in MiB, rounded up, as it stands in sentences.
pub(crate) struct Mib(pub(crate) u64);

impl std::fmt::Display for Mib {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} MiB", self.0.div_ceil(1 << 20))
    }
}

/// The time by the system's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
