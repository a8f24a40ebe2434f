//! One content, wherever it lies.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
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
    /// Inside a data pack.
    Pack {
        /// The pack's file, which stays open.
        file: Arc<File>,
        /// Where in it the content begins.
        offset: u64,
    },
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
    /// Its SHA-512, once somebody had to know it.
    pub(super) sha512: OnceCell<Box<[u8; 64]>>,
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
            sha512: OnceCell::new(),
            file: Mutex::default(),
        }
    }

    /// One whose digest was just computed.
    pub(super) fn known_whole(self) -> Self {
        let _ = self.whole.set(true);
        self
    }

    /// It was found whole since the start, or came since then.
    pub(crate) fn known(&self) -> bool {
        self.whole.get() == Some(&true)
    }

    /// It is a file of the store, and not part of a pack.
    pub(super) fn own(&self) -> Option<&Path> {
        match &self.place {
            Place::Own(path) => Some(path),
            Place::Pack { .. } => None,
        }
    }

    pub(super) fn opened(&self) -> Option<(Arc<File>, u64)> {
        if let Place::Pack { file, offset } = &self.place {
            return Some((file.clone(), *offset));
        }
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.clone().map(|file| (file, 0))
    }

    /// A descriptor to read it by, and where in it the content begins.
    fn handle(&self) -> Result<(Arc<File>, u64), StoreError> {
        match &self.place {
            Place::Own(path) => Ok((Arc::new(File::open(path).map_err(StoreError::io("open", path))?), 0)),
            Place::Pack { file, offset } => Ok((file.clone(), *offset)),
        }
    }

    pub(super) fn open(&self) -> Result<(Arc<File>, u64), StoreError> {
        let (file, offset) = self.handle()?;
        if self.own().is_some() {
            *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file.clone());
        }
        Ok((file, offset))
    }

    /// Its bytes from the first to the last.
    ///
    /// # Errors
    /// When its file cannot be opened.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        let (file, at) = self.handle()?;
        let left = self.size;
        Ok(Reader { file, at, left })
    }

    pub(super) fn close(&self) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Reads it through.
    ///
    /// # Errors
    /// When it cannot be read or is shorter than it was.
    pub fn hash(&self) -> Result<Digest, StoreError> {
        self.read_through(&mut |_| {})
    }

    /// The same, and gives each piece.
    pub(super) fn read_through(&self, each: &mut dyn FnMut(&[u8])) -> Result<Digest, StoreError> {
        let (file, offset) = self.handle()?;
        if self.own().is_some() && file.metadata().is_ok_and(|meta| meta.len() != self.size) {
            return Err(StoreError::Damaged(self.digest));
        }
        let path = self.own().unwrap_or(Path::new("a data pack"));
        hash_file(&file, offset, self.size, each).map_err(StoreError::io("read", path))
    }
}

/// Reads one content wherever it lies. Others may read from the same file meanwhile.
pub struct Reader {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Reader {
    /// Of `left` bytes of a file from `at` on.
    pub(crate) fn of(file: Arc<File>, at: u64, left: u64) -> Self {
        Self { file, at, left }
    }
}

impl io::Read for Reader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        let count = self.file.read_at(out.get_mut(..want).unwrap_or_default(), self.at)?;
        self.at = self.at.saturating_add(count as u64);
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}

/// The digest of a part of a file, of which it gives each piece.
fn hash_file(file: &File, offset: u64, size: u64, each: &mut dyn FnMut(&[u8])) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let (mut at, mut left) = (offset, size);
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = file.read_at(buffer.get_mut(..want).unwrap_or_default(), at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let piece = buffer.get(..count).unwrap_or_default();
        hash.update(piece);
        each(piece);
        at = at.saturating_add(count as u64);
        left = left.saturating_sub(count as u64);
    }
    Ok(Digest(hash.finish()))
}
