//! One image on its way in: written to a temporary file and hashed on the way, moved to its place when it is whole.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rackbar_model::{Digest, ImageEntry, ImageFormat};

use super::{ImageError, ImageMeta, Shared, Window, detect, installer};
use crate::budget::room;
use crate::keep::{Arriving, now, remove, write_durably};

/// An image that arrives. Dropping it removes what was written.
pub struct Upload {
    shared: Arc<Shared>,
    meta: ImageMeta,
    arriving: Arriving,
    /// Bytes that were counted against the budget.
    bytes: u64,
}

impl Upload {
    pub(super) fn begin(shared: Arc<Shared>, meta: ImageMeta) -> Result<Self, ImageError> {
        let number = {
            let mut state = shared.state();
            state.uploads += 1;
            state.uploads
        };
        let part = shared.folder.join(format!("{}.{number}.part", meta.name));
        let arriving = Arriving::begin(part.clone()).map_err(ImageError::io("create", &part))?;
        Ok(Self {
            shared,
            meta,
            arriving,
            bytes: 0,
        })
    }

    /// Bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When the budget or the disk is full, or writing fails. The upload is then of no more use: drop it.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.reserve(bytes.len() as u64)?;
        self.arriving.write(bytes).map_err(|error| self.failed("write", error))
    }

    /// Ends the upload: compares the digest with `expected`, looks at what the content is, and puts image and record
    /// in their places, both safely on disk before this returns. The same image sent again under the same name gives
    /// the entry that is there.
    ///
    /// # Errors
    /// When the digest differs, the content is no disk image, the name is taken by another image, or writing fails.
    /// Nothing is left of the upload then.
    pub fn finish(mut self, expected: Option<Digest>) -> Result<Arc<ImageEntry>, ImageError> {
        let entry = self.examine(expected)?;
        self.place(entry)
    }

    /// What arrived, as an entry that has no place yet; safely on disk.
    pub(super) fn examine(&mut self, expected: Option<Digest>) -> Result<Arc<ImageEntry>, ImageError> {
        let found = self.arriving.digest();
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(ImageError::Digest {
                name: self.meta.name.clone(),
                expected,
                found,
            });
        }
        let wrong = |source| ImageError::Content {
            name: self.meta.name.clone(),
            source,
        };
        let found_installer = installer::find(&Window::whole(self.arriving.file(), self.bytes)).map_err(wrong)?;
        let (format, disk_bytes) = match &found_installer {
            Some(_) => (ImageFormat::Raw, None),
            None => detect::detect(self.arriving.file(), self.bytes, self.meta.format).map_err(wrong)?,
        };
        let synced = self.arriving.file().sync_all();
        synced.map_err(|error| self.failed("write", error))?;
        let or = |given: &str, default: &str| if given.is_empty() { default } else { given }.to_owned();
        Ok(Arc::new(ImageEntry {
            name: self.meta.name.clone(),
            format,
            sha256: found,
            bytes: self.bytes,
            disk_bytes,
            arch: or(&self.meta.arch, "x86_64"),
            source: self.meta.source.clone(),
            licence: self.meta.licence.clone(),
            user: or(&self.meta.user, "root"),
            added: now(),
            installer: found_installer,
        }))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Where the bytes are until the end.
    pub(super) fn part(&self) -> &Path {
        self.arriving.path()
    }

    fn place(self, entry: Arc<ImageEntry>) -> Result<Arc<ImageEntry>, ImageError> {
        let shared = Arc::clone(&self.shared);
        // Held to the end: two uploads of one name must not mix one's record with the other's file.
        let mut state = shared.state();
        if let Some(present) = state.entries.get(&entry.name) {
            let present = Arc::clone(present);
            drop(state);
            return if present.sha256 == entry.sha256 {
                Ok(present)
            } else {
                Err(ImageError::Exists {
                    name: present.name.clone(),
                    sha256: present.sha256,
                })
            };
        }
        shared.forget_earlier(&mut state, &entry.name)?;
        let data = shared.data(&entry.name);
        // The record's write makes the image's own name durable, too.
        let record = shared.record(&entry.name);
        let placed = self
            .arriving
            .place(&data)
            .map_err(|error| self.failed("rename", error))
            .and_then(|()| write_durably(&shared.folder, &record, &*entry).map_err(ImageError::io("write", &record)))
            .and_then(|()| shared.serve(&entry));
        if let Err(error) = placed {
            for path in [record, data] {
                // What cannot be removed now has no place in the catalogue and goes at the next start.
                let _ = remove(&path);
            }
            drop(state);
            return Err(error);
        }
        state.entries.insert(entry.name.clone(), Arc::clone(&entry));
        drop(state);
        Ok(entry)
    }

    /// Counts bytes against the budget before they are written.
    fn reserve(&mut self, more: u64) -> Result<(), ImageError> {
        let mut state = self.shared.state();
        let used = state.used();
        // Others write to the same partition: what was free when the budget was made may not be any more.
        let budget = self.shared.budget.min(used.saturating_add(room(&self.shared.folder)));
        if used.saturating_add(more) > budget {
            return Err(ImageError::Full {
                name: self.meta.name.clone(),
                budget,
                used: used.saturating_sub(self.bytes),
                bytes: self.bytes.saturating_add(more),
                in_memory: self.shared.in_memory,
            });
        }
        state.arriving = state.arriving.saturating_add(more);
        self.bytes = self.bytes.saturating_add(more);
        Ok(())
    }

    fn failed(&self, what: &'static str, error: io::Error) -> ImageError {
        ImageError::io(what, self.arriving.path())(error)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.arriving = state.arriving.saturating_sub(self.bytes);
    }
}
