//! One image on its way in: written to a temporary file and hashed on the way, moved to its place when it is whole.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rackbar_model::{Digest, ImageEntry, ImageFormat, Timestamp};
use rackbar_trust::Sha256;

use super::{ImageError, ImageMeta, Shared, detect, installer};

/// An image that arrives. Dropping it removes what was written.
pub struct Upload {
    shared: Arc<Shared>,
    meta: ImageMeta,
    /// Where the bytes are until the end.
    part: PathBuf,
    file: File,
    hash: Sha256,
    bytes: u64,
    /// Bytes that were not yet asked of the disk to be kept.
    unsynced: u64,
}

/// So often the disk is made to keep up: a page cache full of one image would stall the journal's commits.
const SYNC_EVERY: u64 = 32 << 20;

impl Upload {
    pub(super) fn begin(shared: Arc<Shared>, meta: ImageMeta) -> Result<Self, ImageError> {
        let number = {
            let mut state = shared.state();
            state.uploads += 1;
            state.uploads
        };
        let part = shared.folder.join(format!("{}.{number}.part", meta.name));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&part)
            .map_err(ImageError::io("create", &part))?;
        Ok(Self {
            shared,
            meta,
            part,
            file,
            hash: Sha256::new(),
            bytes: 0,
            unsynced: 0,
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
        let outcome = self.file.write_all(bytes).and_then(|()| {
            self.unsynced += bytes.len() as u64;
            if self.unsynced >= SYNC_EVERY {
                self.unsynced = 0;
                self.file.sync_data()?;
            }
            Ok(())
        });
        outcome.map_err(|error| self.failed("write", error))?;
        self.hash.update(bytes);
        Ok(())
    }

    /// Ends the upload: compares the digest with `expected`, looks at what the content is, and puts image and record
    /// in their places, both safely on disk before this returns. The same image sent again under the same name gives
    /// the entry that is there.
    ///
    /// # Errors
    /// When the digest differs, the content is no disk image, the name is taken by another image, or writing fails.
    /// Nothing is left of the upload then.
    pub fn finish(mut self, expected: Option<Digest>) -> Result<Arc<ImageEntry>, ImageError> {
        let hash = std::mem::replace(&mut self.hash, Sha256::new());
        let found = Digest(hash.finish());
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
        let found_installer = installer::find(&self.file, self.bytes).map_err(wrong)?;
        let (format, disk_bytes) = match &found_installer {
            Some(_) => (ImageFormat::Raw, None),
            None => detect::detect(&self.file, self.bytes, self.meta.format).map_err(wrong)?,
        };
        self.file.sync_all().map_err(|error| self.failed("write", error))?;
        let or = |given: &str, default: &str| if given.is_empty() { default } else { given }.to_owned();
        let entry = Arc::new(ImageEntry {
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
        });
        self.place(entry)
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
        let data = shared.data(&entry.name);
        let placed = std::fs::rename(&self.part, &data)
            .map_err(ImageError::io("rename", &self.part))
            .and_then(|()| write_record(&shared, &entry))
            .and_then(|()| shared.serve(&entry));
        if let Err(error) = placed {
            for path in [shared.record(&entry.name), data] {
                // What cannot be removed now has no place in the catalogue and goes at the next start.
                let _ = std::fs::remove_file(path);
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
        if used.saturating_add(more) > self.shared.budget {
            return Err(ImageError::Full {
                name: self.meta.name.clone(),
                budget: self.shared.budget,
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
        ImageError::io(what, &self.part)(error)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Gone already when the upload was whole.
        let _ = std::fs::remove_file(&self.part);
        let mut state = self.shared.state();
        state.arriving = state.arriving.saturating_sub(self.bytes);
    }
}

/// Writes the record so that a power cut leaves all of it or none; the image's own name is made durable by the same
/// write to the folder.
fn write_record(shared: &Shared, entry: &ImageEntry) -> Result<(), ImageError> {
    write_durably(&shared.folder, &shared.record(&entry.name), entry)
}

/// Writes a file of the folder so that a power cut leaves all of it or what was there before.
pub(super) fn write_durably(folder: &Path, path: &Path, content: &impl serde::Serialize) -> Result<(), ImageError> {
    let new = path.with_extension("part");
    let write = || -> io::Result<()> {
        let mut file = File::create(&new)?;
        serde_json::to_writer_pretty(&mut file, content)?;
        file.sync_all()?;
        sync_folder(folder)?;
        std::fs::rename(&new, path)?;
        sync_folder(folder)
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&new);
        ImageError::io("write", path)(error)
    })
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
