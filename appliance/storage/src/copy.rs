//! Copying the state, twice: once while the appliance runs, which takes the time, and once after it stopped, which takes
//! what has changed since.

use std::fs::{self, File, FileTimes, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::{StorageError, during};

/// A file whose time of change is this near to the first copy may have changed within one tick of the clock that stamps it.
const TICK: Duration = Duration::from_secs(2);

/// What ext4 has in its root besides what is put there.
const FOUND: &str = "lost+found";

/// What a copy came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Copied {
    /// Files written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Makes `to` hold what `from` holds. Without `earlier` the files of `from` may change meanwhile, and what is gone by the
/// time it is read is left out; with it, the time at which such a first copy began, nothing may change, and only what
/// differs from the first copy is written.
///
/// # Errors
/// Names the file.
pub fn copy(from: &Path, to: &Path, earlier: Option<SystemTime>) -> Result<Copied, StorageError> {
    let mut copied = Copied::default();
    let mode = fs::metadata(from).map(|found| found.permissions());
    mode.and_then(|mode| fs::set_permissions(to, mode))
        .map_err(during(format!("setting the mode of {}", to.display())))?;
    folder(from, to, earlier, &mut copied)?;
    Ok(copied)
}

/// Bytes of all files below a folder.
pub(crate) fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).fold(0, u64::saturating_add)
}

fn folder(from: &Path, to: &Path, earlier: Option<SystemTime>, copied: &mut Copied) -> Result<(), StorageError> {
    let words = |path: &Path| during(format!("copying {}", path.display()));
    for entry in fs::read_dir(from).map_err(words(from))? {
        let entry = entry.map_err(words(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let done = one(&source, &target, earlier, copied);
        match done {
            Err(error) if earlier.is_none() && !source.exists() => drop(error),
            other => other?,
        }
    }
    if earlier.is_some() {
        remove_gone(from, to)?;
    }
    Ok(())
}

fn one(source: &Path, target: &Path, earlier: Option<SystemTime>, copied: &mut Copied) -> Result<(), StorageError> {
    let words = || during(format!("copying {}", source.display()));
    let found = fs::symlink_metadata(source).map_err(words())?;
    let there = fs::symlink_metadata(target).ok();
    if there
        .as_ref()
        .is_some_and(|there| there.file_type() != found.file_type())
    {
        remove(target)?;
    }
    if found.is_dir() {
        match fs::create_dir(target) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(words()(error)),
            _ => {}
        }
        fs::set_permissions(target, found.permissions()).map_err(words())?;
        return folder(source, target, earlier, copied);
    }
    if found.is_symlink() {
        remove(target)?;
        let to = fs::read_link(source).map_err(words())?;
        return symlink(to, target).map_err(words());
    }
    // Sockets and the like are made anew by whoever wants them.
    if !found.is_file() || there.is_some_and(|there| is_same(&found, &there, earlier)) {
        return Ok(());
    }
    copied.bytes = copied
        .bytes
        .saturating_add(file(source, target, &found).map_err(words())?);
    copied.files = copied.files.saturating_add(1);
    Ok(())
}

/// Copies one file. Its mode is set before the first byte is in it: some are for root alone.
fn file(source: &Path, target: &Path, found: &Metadata) -> std::io::Result<u64> {
    let mut from = File::open(source)?;
    let mut to = File::create(target)?;
    to.set_permissions(fs::Permissions::from_mode(found.mode() & 0o7777))?;
    let bytes = std::io::copy(&mut from, &mut to)?;
    // The time of before: what changes while it is copied is then seen to differ.
    to.set_times(FileTimes::new().set_modified(found.modified()?))?;
    Ok(bytes)
}

fn is_same(found: &Metadata, there: &Metadata, earlier: Option<SystemTime>) -> bool {
    let Some(earlier) = earlier.and_then(|at| at.checked_sub(TICK)) else {
        return false;
    };
    let (Ok(changed), Ok(copied)) = (found.modified(), there.modified()) else {
        return false;
    };
    changed == copied && found.len() == there.len() && changed < earlier
}

/// Removes from `to` what `from` does not have any more.
fn remove_gone(from: &Path, to: &Path) -> Result<(), StorageError> {
    let words = || during(format!("looking through {}", to.display()));
    for entry in fs::read_dir(to).map_err(words())? {
        let name = entry.map_err(words())?.file_name();
        if name != FOUND && fs::symlink_metadata(from.join(&name)).is_err() {
            remove(&to.join(&name))?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), StorageError> {
    let gone = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gone {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(during(format!("removing {}", path.display()))(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Every file below a folder, with content and mode.
    fn tree(path: &Path) -> BTreeMap<String, (Vec<u8>, u32)> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let (name, found) = (entry.file_name().into_string().unwrap(), entry.metadata().unwrap());
            if found.is_dir() {
                all.extend(
                    tree(&entry.path())
                        .into_iter()
                        .map(|(below, one)| (format!("{name}/{below}"), one)),
                );
            } else {
                all.insert(name, (fs::read(entry.path()).unwrap(), found.mode() & 0o7777));
            }
        }
        all
    }

    fn put(folder: &Path, name: &str, content: &[u8]) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn folders() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        (folder, from, to)
    }

    #[test]
    fn the_second_copy_takes_what_changed_and_what_is_gone_goes() {
        let (_folder, from, to) = folders();
        fs::create_dir(to.join(FOUND)).unwrap();
        put(&from, "rackbar.redb", b"one");
        put(&from, "key", b"secret");
        fs::set_permissions(from.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
        put(&from, "images/abc", &[7; 100_000]);
        put(&from, "cache/old", b"x");
        let past = SystemTime::now() - Duration::from_secs(60);
        for name in ["images/abc", "key"] {
            let file = File::options().write(true).open(from.join(name)).unwrap();
            file.set_times(FileTimes::new().set_modified(past)).unwrap();
        }
        let began = SystemTime::now();
        assert_eq!(copy(&from, &to, None).unwrap().files, 4);
        // Same length, and as it may be within one tick also the same time of change.
        let stamp = fs::metadata(from.join("rackbar.redb")).unwrap().modified().unwrap();
        put(&from, "rackbar.redb", b"two");
        let file = File::options().write(true).open(from.join("rackbar.redb")).unwrap();
        file.set_times(FileTimes::new().set_modified(stamp)).unwrap();
        fs::remove_dir_all(from.join("cache")).unwrap();
        put(&from, "console/n1", b"hello");
        let second = copy(&from, &to, Some(began)).unwrap();
        assert_eq!(second, Copied { files: 2, bytes: 8 });
        assert!(to.join(FOUND).exists());
        fs::remove_dir(to.join(FOUND)).unwrap();
        assert_eq!(tree(&from), tree(&to));
        assert_eq!(tree(&to)["key"].1, 0o600);
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let (_folder, from, to) = folders();
        put(&from, "images/abc", b"x");
        fs::remove_dir(&to).unwrap();
        let error = copy(&from, &to, None).unwrap_err();
        assert!(error.to_string().contains("/to"), "{error}");
        fs::write(&to, "a file where the folder should be").unwrap();
        let error = copy(&from, &to, None).unwrap_err();
        assert!(error.to_string().contains("from/images"), "{error}");
    }

    proptest! {
        #[test]
        fn whatever_happens_between_the_copies_they_end_equal(
            first in prop::collection::btree_map("[ab]{1,2}(/[ab]{1,2})?", ".{0,4}", 0..6),
            then in prop::collection::btree_map("[ab]{1,2}(/[ab]{1,2})?", ".{0,4}", 0..6),
        ) {
            let (_folder, from, to) = folders();
            let fill = |files: &BTreeMap<String, String>| {
                for (name, content) in files {
                    let path = from.join(name);
                    // A name may be a folder in one and a file in the other.
                    let room = path.parent().is_some_and(|parent| fs::create_dir_all(parent).is_ok());
                    if room && !path.is_dir() {
                        fs::write(path, content).unwrap();
                    }
                }
            };
            fill(&first);
            let began = SystemTime::now();
            copy(&from, &to, None).unwrap();
            fs::remove_dir_all(&from).unwrap();
            fs::create_dir(&from).unwrap();
            fill(&then);
            copy(&from, &to, Some(began)).unwrap();
            prop_assert_eq!(tree(&from), tree(&to));
        }
    }
}
