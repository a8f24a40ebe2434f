//! Another image in the place of an entry, in one step: whoever looks finds the old one or the new one, also after a power cut.
//!
//! An image that took another's place is `<name>@<sha256>.image`; the record, written last, says which one counts. What runs
//! that have not ended were planned with stays, served by its digest, with its record in `<name>@<sha256>.held`, until none
//! of them needs it any more.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use rackbar_model::{Digest, ImageEntry};

use super::upload::Upload;
use super::{ImageError, Images, Shared, check_name};
use crate::keep::{sync_folder, write_durably};

/// Ending of the record of an image that only runs under way need.
pub(super) const HELD: &str = "held";

impl Shared {
    fn stem(entry: &ImageEntry) -> String {
        format!("{}@{}", entry.name, entry.sha256)
    }

    fn swapped(&self, entry: &ImageEntry) -> PathBuf {
        self.folder.join(format!("{}.image", Self::stem(entry)))
    }

    pub(super) fn held(&self, entry: &ImageEntry) -> PathBuf {
        self.folder.join(format!("{}.{HELD}", Self::stem(entry)))
    }

    /// Where an entry's bytes are.
    pub(super) fn data_of(&self, entry: &ImageEntry) -> PathBuf {
        let swapped = self.swapped(entry);
        if swapped.exists() {
            swapped
        } else {
            self.data(&entry.name)
        }
    }

    /// Serves what is held. A record that makes no sense is of no use to any run: it goes, and the image with it.
    pub(super) fn load_held(&self, stem: &str) {
        let path = self.folder.join(format!("{stem}.{HELD}"));
        let read = std::fs::read(&path).ok();
        let entry: Option<ImageEntry> = read.and_then(|text| serde_json::from_slice(&text).ok());
        let right = |entry: &ImageEntry| check_name(&entry.name).is_ok() && Self::stem(entry) == stem;
        let current = |entry: &ImageEntry| {
            let state = self.state();
            state
                .entries
                .get(&entry.name)
                .is_some_and(|now| now.sha256 == entry.sha256)
        };
        // A swap that was cut short before its record holds what still counts: that has its own record.
        let entry = entry.filter(right).filter(|entry| !current(entry));
        let served = entry.filter(|entry| self.serve(entry).is_ok());
        match served {
            Some(entry) => self.state().held.push(Arc::new(entry)),
            // What is left is looked for again at the next start.
            None => drop(std::fs::remove_file(path)),
        }
    }

    /// Removes images that no record names: what a swap that was cut short left on either side.
    pub(super) fn clear(&self) {
        let state = self.state();
        let known = state.entries.values().chain(&state.held);
        let known: HashSet<PathBuf> = known.map(|entry| self.data_of(entry)).collect();
        let found = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let images = found.map(|entry| entry.path());
        for path in images.filter(|path| path.extension().is_some_and(|ending| ending == "image")) {
            if !known.contains(&path) && !state.stuck.contains(&path) {
                // One that cannot be removed takes room, and is tried again at the next start.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

impl Upload {
    /// Ends the upload by putting it in the place of `old`: digest and content are looked at as in [`Upload::finish`], and it
    /// must be of the same kind. When `used` (digests of runs that have not ended) has the old one, that stays for them. The
    /// same content as before gives `old`.
    ///
    /// # Errors
    /// When the digest differs, the content is not usable or of another kind, the entry was changed or pinned meanwhile, or
    /// writing fails. The entry is as it was then.
    pub fn replace(
        mut self,
        expected: Option<Digest>,
        old: &Arc<ImageEntry>,
        used: &HashSet<Digest>,
    ) -> Result<Arc<ImageEntry>, ImageError> {
        let entry = self.examine(expected)?;
        // Answers are of a release, and plans name the entry: another release under its name would be a surprise.
        let kind = |entry: &ImageEntry| entry.installer.as_ref().map(|one| (one.system, one.release.clone()));
        if kind(&entry) != kind(old) {
            return Err(ImageError::Kind(entry.name.clone()));
        }
        let shared = Arc::clone(self.shared());
        let mut state = shared.state();
        let same = |now: &&Arc<ImageEntry>| Arc::ptr_eq(now, old);
        let pinned = state
            .upkeep
            .get(&old.name)
            .is_some_and(|upkeep| upkeep.pinned.is_some());
        if state.entries.get(&old.name).filter(same).is_none() || pinned {
            return Err(ImageError::Changed(old.name.clone()));
        }
        if entry.sha256 == old.sha256 {
            return Ok(Arc::clone(old));
        }
        let (was, keep) = (shared.data_of(old), used.contains(&old.sha256));
        if keep {
            let apart = shared.swapped(old);
            if was != apart {
                std::fs::hard_link(&was, &apart).map_err(ImageError::io("link", &apart))?;
            }
            let held = shared.held(old);
            write_durably(&shared.folder, &held, &**old).map_err(ImageError::io("write", &held))?;
        }
        let again = state
            .held
            .iter()
            .any(|held| held.name == entry.name && held.sha256 == entry.sha256);
        let undo = |error| {
            // The record still names the old one; what is left beside it goes at the next start.
            if !again {
                let _ = std::fs::remove_file(shared.swapped(&entry));
            }
            let _ = std::fs::remove_file(shared.held(old));
            error
        };
        let data = shared.swapped(&entry);
        std::fs::rename(self.part(), &data)
            .map_err(ImageError::io("rename", self.part()))
            .map_err(undo)?;
        sync_folder(&shared.folder)
            .map_err(ImageError::io("write", &shared.folder))
            .map_err(undo)?;
        shared.serve(&entry).map_err(undo)?;
        let record = shared.record(&entry.name);
        if let Err(error) = write_durably(&shared.folder, &record, &*entry) {
            shared.withdraw(&state, &entry);
            return Err(undo(ImageError::io("write", &record)(error)));
        }
        // From here on the new one counts.
        state.entries.insert(entry.name.clone(), Arc::clone(&entry));
        state
            .held
            .retain(|held| held.sha256 != entry.sha256 || held.name != entry.name);
        let _ = std::fs::remove_file(shared.held(&entry));
        let plain = shared.data(&entry.name);
        if keep {
            state.held.push(Arc::clone(old));
        } else {
            shared.withdraw(&state, old);
            let _ = std::fs::remove_file(shared.swapped(old));
        }
        // Both names of a linked file are the same bytes: the one that tells which is the one that stays.
        let _ = std::fs::remove_file(plain);
        drop(state);
        Ok(entry)
    }
}

impl Images {
    /// The image of this name with this digest: the one that counts now, or one that stays for runs that began with it.
    pub fn exact(&self, name: &str, sha256: Digest) -> Option<Arc<ImageEntry>> {
        let now = self.get(name).filter(|entry| entry.sha256 == sha256);
        now.or_else(|| {
            let state = self.shared.state();
            let held = state
                .held
                .iter()
                .find(|held| held.name == name && held.sha256 == sha256);
            held.cloned()
        })
    }

    /// Lets go of images that stayed for runs alone and that none of them needs any more: `used` are the digests of runs that
    /// have not ended. A transfer under way still finishes.
    pub fn release(&self, used: &HashSet<Digest>) {
        let mut state = self.shared.state();
        let all = std::mem::take(&mut state.held);
        let (held, gone): (Vec<_>, Vec<_>) = all.into_iter().partition(|entry| used.contains(&entry.sha256));
        state.held = held;
        for entry in gone {
            self.shared.withdraw(&state, &entry);
            // The record first: an image without one goes at the next start.
            for path in [self.shared.held(&entry), self.shared.swapped(&entry)] {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}
