//! A content while it arrives: one writes, many read what is there.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use nix::fcntl::{FallocateFlags, fallocate};
use rackbar_model::Digest;
use rackbar_trust::{Sha256, Sha512};
use rackbar_upstream::Sum;

use super::evict::STEP;
use super::{Entry, NoRoom, Object, Place, Record, Reservation, Store, StoreError, make_parent};

/// A content that arrives. Dropped before it is sealed, it is gone.
pub struct Spool {
    store: Arc<Store>,
    file: Arc<File>,
    path: PathBuf,
    hash: Sha256,
    /// There where a SHA-512 is promised.
    sha512: Option<Sha512>,
    written: u64,
    /// Its room on the disk is taken before it comes.
    known: bool,
    room: Reservation,
    sealed: bool,
}

/// Why a content cannot be taken further.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// There is no room.
    #[error(transparent)]
    Room(#[from] NoRoom),
    /// The system refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Spool {
    /// Begins one of `size` bytes, as far as that is known. What can have no room is told here, and not when half of it is with
    /// the clients; room is made, and taken on the disk, step by step while it comes.
    ///
    /// # Errors
    /// When there is no room, or no file can be made.
    pub fn begin(store: &Arc<Store>, size: Option<u64>) -> Result<Self, SpoolError> {
        store.writable()?;
        let room = store.reserve(size.unwrap_or(STEP))?;
        let path = store.arriving();
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let file = Arc::new(file.map_err(StoreError::io("write", &path))?);
        let spool = Self {
            store: store.clone(),
            file,
            path,
            hash: Sha256::new(),
            sha512: None,
            written: 0,
            known: size.is_some(),
            room,
            sealed: false,
        };
        spool.allocate(0)?;
        Ok(spool)
    }

    /// The same content, to be compared with a digest that is promised of it.
    pub fn promised(mut self, sum: Option<&Sum>) -> Self {
        // Only what comes from here on would be in it.
        if self.written == 0 && matches!(sum, Some(Sum::Sha512(_))) {
            self.sha512 = Some(Sha512::new());
        }
        self
    }

    /// Takes the room on the disk that was made beyond `from`. Of a content of unknown size it would outlast the content.
    fn allocate(&self, from: u64) -> Result<(), StoreError> {
        let length = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let more = self.room.made().saturating_sub(from);
        if !self.known || more == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(&self.file, flags, length(from), length(more)) {
            // Not every file system can; then a full disk is met on the way.
            Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS) => Ok(()),
            Err(errno) => Err(StoreError::io("make room in", &self.path)(errno.into())),
        }
    }

    /// The file that readers read.
    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Bytes so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Appends.
    ///
    /// # Errors
    /// When there is no more room, or the system refuses.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let end = self.written.saturating_add(bytes.len() as u64);
        let made = self.room.made();
        if end > made {
            self.room.grow(end)?;
            self.allocate(made)?;
        }
        io::Write::write_all(&mut &*self.file, bytes).map_err(StoreError::io("write", &self.path))?;
        self.hash.update(bytes);
        self.sha512.iter_mut().for_each(|hash| hash.update(bytes));
        self.written = end;
        Ok(())
    }

    /// The digest of what is there.
    pub fn digest(&self) -> Digest {
        Digest(self.hash.clone().finish())
    }

    /// The digest of what is there, of the kind that was promised.
    pub fn sum(&self) -> Sum {
        match &self.sha512 {
            Some(hash) => Sum::Sha512(hash.clone().finish()),
            None => Sum::Sha256(self.hash.clone().finish()),
        }
    }

    /// Makes it an object: synced, under its digest. From then on the reservation is the object's. It stays for as long as
    /// what is given is kept, and then for as long as an entry has it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn seal(mut self, digest: Digest) -> Result<Held, StoreError> {
        let path = self.store.object_path(&digest);
        let ready = self.file.sync_all().and_then(|()| make_parent(&path));
        ready.map_err(StoreError::io("keep", &path))?;
        // Whoever lets the same content go meanwhile would remove this file for the old one.
        let mut state = self.store.state();
        // The same content may be there already, but it is this one that was just hashed: it takes the old one's place.
        std::fs::rename(&self.path, &path).map_err(StoreError::io("keep", &path))?;
        self.sealed = true;
        self.store.close(&digest);
        let object = match state.objects.get(&digest) {
            Some(object) if object.whole.get() == Some(&true) => object.clone(),
            _ => Arc::new(Object::new(digest, self.written, Place::Own(path)).known_whole()),
        };
        if let Some(hash) = self.sha512.take() {
            let _ = object.sha512.set(Box::new(hash.finish()));
        }
        state.take(&object);
        drop(state);
        let store = self.store.clone();
        Ok(Held { store, object })
    }
}

/// An object that is not let go of, whatever becomes of the entries that have it.
pub struct Held {
    store: Arc<Store>,
    /// The object.
    pub object: Arc<Object>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.store.state();
        self.store.let_go(&mut state, &self.object);
    }
}

impl Store {
    /// Stores what an entry has with other fields, or under another key, when its object is still there; `None` when it was let go
    /// of.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub(crate) fn renew(self: &Arc<Self>, entry: &Entry, record: Record) -> Result<Option<Arc<Entry>>, StoreError> {
        let mut state = self.state();
        if !state.objects.contains_key(&entry.object.digest) {
            return Ok(None);
        }
        state.take(&entry.object);
        drop(state);
        let (store, object) = (self.clone(), entry.object.clone());
        let held = Held { store, object };
        self.insert(record, held.object.clone()).map(Some)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !self.sealed {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
