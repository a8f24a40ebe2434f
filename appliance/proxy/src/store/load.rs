//! Opening a store: clearing what a power cut left and reading what is whole.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use rackbar_model::{Digest, Severity};

use super::{Entry, Object, Place, Record, Store, StoreError, pins};

/// An entry's file larger than this is none of ours.
pub(super) const ENTRY_MOST: u64 = 256 << 10;

impl Store {
    pub(super) fn load(&self) -> Result<(), StoreError> {
        for name in ["objects", "entries", "arriving"] {
            let folder = self.folder.join(name);
            std::fs::create_dir_all(&folder).map_err(StoreError::io("make", &folder))?;
        }
        for path in files(&self.folder.join("arriving"))? {
            std::fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
        self.state().pins = pins::Pins::read(&self.folder.join("pins"))?;
        let objects = self.objects()?;
        let mut dropped = 0;
        for path in files_below(&self.folder.join("entries"))? {
            if !self.load_entry(&path, &objects)? {
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
        self.bound(None);
        if dropped > 0 {
            let text = format!(
                "cache: {dropped} stored answers were not whole after the last stop and are gone; they will be fetched again"
            );
            (self.tell)(Severity::Warning, text);
        }
        Ok(())
    }

    /// Files of objects by their names, with sizes.
    fn objects(&self) -> Result<HashMap<Digest, (PathBuf, u64)>, StoreError> {
        let mut known = HashMap::new();
        for path in files_below(&self.folder.join("objects"))? {
            let digest = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let Some(digest) = digest else { continue };
            if let Some(meta) = look(&path)? {
                known.insert(digest, (path, meta.len()));
            }
        }
        Ok(known)
    }

    /// Takes in what one file says; false when it is not whole, or what it is about is not there.
    fn load_entry(&self, path: &Path, objects: &HashMap<Digest, (PathBuf, u64)>) -> Result<bool, StoreError> {
        let Some(meta) = look(path)? else { return Ok(false) };
        if meta.len() > ENTRY_MOST {
            return Ok(false);
        }
        let bytes = std::fs::read(path).map_err(StoreError::io("read", path))?;
        let record = Record::from_bytes(&bytes).filter(|record| self.entry_path(record) == path);
        let Some(record) = record else { return Ok(false) };
        let Some((place, _)) = objects.get(&record.digest).filter(|(_, size)| *size == record.size) else {
            return Ok(false);
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
        Ok(true)
    }
}

/// What there is at a path. A disk that gives an error is another thing than nothing: whoever took it for that would delete
/// all that is well.
pub(super) fn look(path: &Path) -> Result<Option<Metadata>, StoreError> {
    match path.metadata() {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

/// What is in a folder and is such a thing.
fn inside(folder: &Path, wanted: fn(&Metadata) -> bool) -> Result<Vec<PathBuf>, StoreError> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(StoreError::io("read", folder))? {
        let path = entry.map_err(StoreError::io("read", folder))?.path();
        if look(&path)?.is_some_and(|meta| wanted(&meta)) {
            out.push(path);
        }
    }
    Ok(out)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    inside(folder, Metadata::is_file)
}

pub(super) fn files_below(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut out = Vec::new();
    for below in inside(folder, Metadata::is_dir)? {
        out.extend(files(&below)?);
    }
    Ok(out)
}
