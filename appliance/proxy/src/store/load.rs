//! Opening a store: clearing what a power cut left and reading what is whole.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use rackbar_model::{Digest, Severity};

use super::{Entry, Object, Place, Record, Store, StoreError, pins};

/// An entry's file larger than this is none of ours.
const ENTRY_MOST: u64 = 256 << 10;

impl Store {
    pub(super) fn load(&self) -> Result<(), StoreError> {
        for name in ["objects", "entries", "arriving"] {
            let folder = self.folder.join(name);
            std::fs::create_dir_all(&folder).map_err(StoreError::io("make", &folder))?;
        }
        for path in files(&self.folder.join("arriving")) {
            std::fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
        self.state().pins = pins::Pins::read(&self.folder.join("pins"));
        let objects = self.objects();
        let mut dropped = 0;
        for path in files_below(&self.folder.join("entries")) {
            if !self.load_entry(&path, &objects) {
                dropped += 1;
                let _ = std::fs::remove_file(&path);
            }
        }
        let wanted: HashSet<Digest> = self.state().objects.keys().copied().collect();
        for path in objects
            .iter()
            .filter(|(digest, _)| !wanted.contains(digest))
            .map(|(_, (path, _))| path)
        {
            let _ = std::fs::remove_file(path);
        }
        if dropped > 0 {
            let text = format!(
                "cache: {dropped} stored answers were not whole after the last stop and are gone; they will be fetched again"
            );
            (self.tell)(Severity::Warning, text);
        }
        Ok(())
    }

    /// Files of objects by their names, with sizes.
    fn objects(&self) -> HashMap<Digest, (PathBuf, u64)> {
        let all = files_below(&self.folder.join("objects")).into_iter();
        let known = all.filter_map(|path| {
            let digest = path.file_name()?.to_str()?.parse().ok()?;
            let size = path.metadata().ok()?.len();
            Some((digest, (path, size)))
        });
        known.collect()
    }

    fn load_entry(&self, path: &Path, objects: &HashMap<Digest, (PathBuf, u64)>) -> bool {
        let Ok(meta) = path.metadata() else { return false };
        let record = (meta.len() <= ENTRY_MOST)
            .then(|| std::fs::read(path).ok())
            .flatten()
            .and_then(|bytes| Record::from_bytes(&bytes));
        let Some(record) = record.filter(|record| self.entry_path(record) == path) else {
            return false;
        };
        let Some((place, _)) = objects.get(&record.digest).filter(|(_, size)| *size == record.size) else {
            return false;
        };
        let object = self.find_digest(&record.digest);
        let object =
            object.unwrap_or_else(|| Arc::new(Object::new(record.digest, record.size, Place::Own(place.clone()))));
        let entry = Entry::new(record, object, None);
        let used = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        entry.used.store(
            used.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(0)),
            Ordering::Relaxed,
        );
        self.put(Arc::new(entry));
        true
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .flat_map(|path| files(&path))
        .collect()
}
