//! Results that take long to make, kept in one folder under names that hold the digest of all they were made from.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

/// Results of one kind that are kept.
const KEPT: usize = 24;

/// A folder of results. Several builds may use it at once: files appear complete or not at all.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Opens a cache, creating its folder.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// A result, if it is there.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.folder.join(name);
        match std::fs::read(&path) {
            Ok(content) => {
                // Its time says when it was last of use. Failing to say so costs at most a result made again.
                let _ = File::options()
                    .append(true)
                    .open(&path)
                    .and_then(|file| file.set_modified(SystemTime::now()));
                Ok(Some(content))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Keeps a result, and lets go of those of its kind that have not been of use for longest. The kind is the name up
    /// to the first `-`.
    pub fn put(&self, name: &str, content: &[u8]) -> Result<()> {
        write_whole(&self.folder.join(name), content)?;
        let kind = name.split_inclusive('-').next().unwrap_or(name);
        let mut kept: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(&self.folder)
            .with_context(|| format!("reading {}", self.folder.display()))?
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(kind))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        kept.sort_by(|one, two| two.cmp(one));
        for (_, old) in kept.iter().skip(KEPT) {
            // Another build may have removed it first.
            let _ = std::fs::remove_file(old);
        }
        Ok(())
    }
}

/// Writes a file so that a reader sees all of it or none.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    std::fs::write(&temporary, content)
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_results_of_a_kind_go_and_used_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        cache.put("other-kind", b"stays").unwrap();
        for number in 0..KEPT + 3 {
            cache.put(&format!("kind-{number}"), b"x").unwrap();
            assert!(
                cache.get("kind-0").unwrap().is_some(),
                "in use, yet gone after {number} more"
            );
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), KEPT + 1);
        assert_eq!(cache.get("kind-1").unwrap(), None);
        assert!(cache.get("other-kind").unwrap().is_some());
    }
}
