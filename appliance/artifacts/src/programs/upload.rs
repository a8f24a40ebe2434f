//! One program on its way in: written to a temporary file, looked at when it is whole, moved to its place when it is one.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rackbar_model::{Digest, ProgramEntry};

use super::{LARGEST, ProgramError, Shared, elf};
use crate::budget::room;
use crate::keep::{Arriving, now, remove, write_durably};

/// A program that arrives. Dropping it removes what was written.
pub struct Upload {
    shared: Arc<Shared>,
    name: String,
    arriving: Arriving,
    /// Bytes that were counted against the budget.
    bytes: u64,
}

/// A program that was taken in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed {
    /// What is there under the name now.
    pub entry: Arc<ProgramEntry>,
    /// What had the name before, the same content included.
    pub before: Option<Arc<ProgramEntry>>,
}

impl Upload {
    pub(super) fn begin(shared: Arc<Shared>, name: String) -> Result<Self, ProgramError> {
        let number = {
            let mut state = shared.state();
            state.uploads += 1;
            state.uploads
        };
        let part = shared.folder.join(format!("{name}.{number}.part"));
        let arriving = Arriving::begin(part.clone()).map_err(ProgramError::io("create", &part))?;
        Ok(Self {
            shared,
            name,
            arriving,
            bytes: 0,
        })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When it is too large, there is no room, or writing fails. The upload is then of no more use: drop it.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ProgramError> {
        self.reserve(bytes.len() as u64)?;
        self.arriving.write(bytes).map_err(|error| self.failed("write", error))
    }

    /// Ends the upload: compares the digest with `expected`, looks at what the content is, and puts content and record
    /// in their places, both safely on disk before this returns. What had the name before loses it; its content stays
    /// until [`super::Programs::sweep`].
    ///
    /// # Errors
    /// When the digest differs, the content is no static program, or writing fails. Nothing is left of the upload then.
    pub fn finish(mut self, expected: Option<Digest>) -> Result<Placed, ProgramError> {
        let sha256 = self.arriving.digest();
        if let Some(expected) = expected.filter(|expected| *expected != sha256) {
            return Err(ProgramError::Digest {
                name: self.name.clone(),
                expected,
                found: sha256,
            });
        }
        let file = self.arriving.file();
        let looked = elf::examine(self.arriving.bytes(), &|offset, into| file.read_exact_at(into, offset));
        looked.map_err(|source| ProgramError::Content {
            name: self.name.clone(),
            source,
        })?;
        let synced = file.sync_all();
        synced.map_err(|error| self.failed("write", error))?;
        self.place(sha256)
    }

    fn place(self, sha256: Digest) -> Result<Placed, ProgramError> {
        let shared = Arc::clone(&self.shared);
        // Held to the end: two uploads of one name must not mix, and no sweep may come in between.
        let mut state = shared.state();
        let before = state.entries.get(&self.name).cloned();
        if let Some(same) = before.as_ref().filter(|before| before.sha256 == sha256) {
            // Also heals a file that was damaged. The time stays: the content came then.
            let placed = self.arriving.place(&shared.content(&sha256));
            let entry = Arc::clone(same);
            drop(state);
            placed.map_err(|error| self.failed("rename", error))?;
            return Ok(Placed { entry, before });
        }
        let entry = Arc::new(ProgramEntry {
            name: self.name.clone(),
            sha256,
            bytes: self.arriving.bytes(),
            added: now(),
        });
        let (content, record) = (shared.content(&sha256), shared.record(&self.name));
        // The record's write makes the content's own name durable, too.
        let placed = self
            .arriving
            .place(&content)
            .map_err(|error| self.failed("rename", error))
            .and_then(|()| write_durably(&shared.folder, &record, &*entry).map_err(ProgramError::io("write", &record)));
        if let Err(error) = placed {
            if !state.contents.contains_key(&sha256) {
                // What cannot be removed now has no name, and goes with the first sweep after the next start.
                let _ = remove(&content);
            }
            drop(state);
            return Err(error);
        }
        state.contents.insert(sha256, entry.bytes);
        state.entries.insert(entry.name.clone(), Arc::clone(&entry));
        drop(state);
        Ok(Placed { entry, before })
    }

    /// Counts bytes against what one and all programs may have, before they are written.
    fn reserve(&mut self, more: u64) -> Result<(), ProgramError> {
        if self.bytes.saturating_add(more) > LARGEST {
            return Err(ProgramError::TooLarge(self.name.clone()));
        }
        let mut state = self.shared.state();
        let used = state.used();
        // Others write to the same partition: what was free when the budget was made may not be any more.
        let budget = self.shared.budget.min(used.saturating_add(room(&self.shared.folder)));
        if used.saturating_add(more) > budget {
            return Err(ProgramError::Full {
                name: self.name.clone(),
                budget,
                used: used.saturating_sub(self.bytes),
                in_memory: self.shared.in_memory,
            });
        }
        state.arriving = state.arriving.saturating_add(more);
        self.bytes = self.bytes.saturating_add(more);
        Ok(())
    }

    fn failed(&self, what: &'static str, error: io::Error) -> ProgramError {
        ProgramError::io(what, self.arriving.path())(error)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.arriving = state.arriving.saturating_sub(self.bytes);
    }
}
