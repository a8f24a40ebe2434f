//! One content, wherever it lies.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rackbar_model::Digest;
use rackbar_trust::Sha256;
use tokio::sync::OnceCell;

use super::StoreError;

/// Where a content lies.
#[derive(Clone, Debug)]
pub enum Place {
    /// A file of the store.
    Own(PathBuf),
    /// Inside a data pack, from this offset on.
    Pack(PathBuf, u64),
}

/// A content by its digest.
pub struct Object {
    /// SHA-256.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Where it lies.
    pub place: Place,
    /// Whether it was found whole since the start.
    pub(super) whole: OnceCell<bool>,
    file: Mutex<Option<Arc<File>>>,
}

impl Object {
    /// One that has to be checked before its first use.
    pub fn new(digest: Digest, size: u64, place: Place) -> Self {
        Self {
            digest,
            size,
            place,
            whole: OnceCell::new(),
            file: Mutex::default(),
        }
    }

    /// One whose digest was just computed.
    pub(super) fn known_whole(self) -> Self {
        let _ = self.whole.set(true);
        self
    }

    fn offset(&self) -> u64 {
        match self.place {
            Place::Own(_) => 0,
            Place::Pack(_, offset) => offset,
        }
    }

    pub(super) fn opened(&self) -> Option<(Arc<File>, u64)> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.clone().map(|file| (file, self.offset()))
    }

    pub(super) fn open(&self) -> Result<(Arc<File>, u64), StoreError> {
        let (Place::Own(path) | Place::Pack(path, _)) = &self.place;
        let file = Arc::new(File::open(path).map_err(StoreError::io("open", path))?);
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file.clone());
        Ok((file, self.offset()))
    }

    pub(super) fn close(&self) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Reads it through.
    ///
    /// # Errors
    /// When it cannot be read or is shorter than it was.
    pub fn hash(&self) -> Result<Digest, StoreError> {
        let (Place::Own(path) | Place::Pack(path, _)) = &self.place;
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        if matches!(self.place, Place::Own(_)) && file.metadata().is_ok_and(|meta| meta.len() != self.size) {
            return Err(StoreError::Damaged(self.digest));
        }
        hash_file(&file, self.offset(), self.size).map_err(StoreError::io("read", path))
    }
}

/// The digest of a part of a file.
pub(crate) fn hash_file(file: &File, offset: u64, size: u64) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let (mut at, mut left) = (offset, size);
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = file.read_at(buffer.get_mut(..want).unwrap_or_default(), at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(buffer.get(..count).unwrap_or_default());
        at = at.saturating_add(count as u64);
        left = left.saturating_sub(count as u64);
    }
    Ok(Digest(hash.finish()))
}
