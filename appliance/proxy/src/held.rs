//! Contents that a locked repository keeps, whatever its origin does: stored a second time under `locked:NAME/PATH`, which a pin
//! of the whole prefix covers. The content is there once; what clients fetch from the same URL by other ways replaces it nowhere.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use http::HeaderMap;
use nix::sys::statvfs::statvfs;
use rackbar_model::Digest;
use rackbar_upstream::Sum;

use crate::Proxy;
use crate::operate::CacheError;
use crate::rules::target::{Url, plain};
use crate::store::{Entry, Record};

/// Headers of an origin's answer that are kept: the others are of no use behind a promised digest, and there may be 100,000.
const HEADERS: [&str; 3] = ["content-type", "last-modified", "etag"];

/// A file of a locked state that is to be kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promised {
    /// Path below the repository's URL.
    pub path: String,
    /// Digest of its content.
    pub sum: Sum,
    /// Its length in bytes, when that is said.
    pub bytes: Option<u64>,
}

/// What keeping files would take.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Need {
    /// Those that are not kept yet.
    pub missing: Vec<Promised>,
    /// Bytes of their contents, each counted once.
    pub bytes: u64,
    /// Bytes that there is room for, once all that may be evicted is.
    pub room: u64,
}

/// Under which a file of a repository is kept.
pub(crate) fn held_key(name: &str, path: &str) -> String {
    format!("locked:{name}/{}", plain(path))
}

/// Name and path of such a key.
pub(crate) fn of_held(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix("locked:")?.split_once('/')
}

fn pattern(name: &str) -> String {
    format!("locked:{name}/*")
}

impl Proxy {
    /// What keeping these files of a repository would take; what is kept of it for a state before counts as room. Blocks where
    /// contents have to be read, to know whether they are what a SHA-512 promises.
    pub fn need(&self, name: &str, all: &[Promised]) -> Need {
        let wanted: HashSet<Sum> = all.iter().map(|one| one.sum).collect();
        let long = |one: &&Promised| matches!(one.sum, Sum::Sha512(_));
        let lengths: HashSet<Option<u64>> = all.iter().filter(long).map(|one| one.bytes).collect();
        let mut pinned: HashMap<Digest, u64> = HashMap::new();
        let mut there: HashSet<Sum> = HashSet::new();
        let start = held_key(name, "");
        for entry in self.store.entries() {
            let ours = entry.record.key.starts_with(&start);
            let counts = entry.pinned() && entry.pack.is_none();
            if !ours && !counts {
                continue;
            }
            let sums = self.sums(&entry, &lengths);
            let wanted = sums.iter().any(|sum| wanted.contains(sum));
            if counts && (wanted || !ours) {
                pinned.insert(entry.object.digest, entry.record.size);
            }
            if counts || wanted {
                there.extend(sums);
            }
        }
        let missing: Vec<Promised> = all.iter().filter(|one| !self.holds(name, one)).cloned().collect();
        let new: HashMap<Sum, u64> = missing
            .iter()
            .filter(|one| !there.contains(&one.sum))
            .map(|one| (one.sum, one.bytes.unwrap_or(0)))
            .collect();
        let (used, budget) = self.store.usage();
        let pinned = pinned.values().fold(0_u64, |sum, size| sum.saturating_add(*size));
        let free = statvfs(self.store.folder())
            .map_or(u64::MAX, |fs| fs.blocks_available().saturating_mul(fs.fragment_size()));
        let on_disk = free.saturating_add(used.saturating_sub(pinned));
        Need {
            missing,
            bytes: new.values().fold(0_u64, |sum, size| sum.saturating_add(*size)),
            room: budget.saturating_sub(pinned).min(on_disk),
        }
    }

    /// The digests of a stored content that may be promised: the SHA-512 only where one is promised of a file of its length, or of one
    /// whose length nobody said.
    fn sums(&self, entry: &Entry, lengths: &HashSet<Option<u64>>) -> Vec<Sum> {
        let mut sums = vec![Sum::Sha256(entry.object.digest.0)];
        if lengths.contains(&Some(entry.record.size)) || lengths.contains(&None) {
            sums.extend(self.store.sha512(&entry.object).ok().map(Sum::Sha512));
        }
        sums
    }

    /// Fetches a file below a URL unless it is here, and keeps it for a repository; gives its length in bytes.
    ///
    /// # Errors
    /// When it is not to be had, is not what was promised, or cannot be kept.
    pub async fn hold(self: &Arc<Self>, name: &str, folder: &str, one: &Promised) -> Result<u64, CacheError> {
        let key = held_key(name, &one.path);
        if let Some(entry) = self.store.find(&key, &HeaderMap::new()).0 {
            if let Sum::Sha512(_) = one.sum {
                // What cannot be read is not taken for kept.
                let _ = self.store.know(&entry.object).await;
            }
            if entry.object.has(&one.sum) {
                return Ok(entry.record.size);
            }
        }
        let most = one.bytes.unwrap_or(u64::MAX);
        let (entry, _) = self.had(folder, &one.path, Some((one.sum, false)), most).await?;
        let proxy = self.clone();
        let kept = tokio::task::spawn_blocking(move || proxy.keep_held(key, &entry)).await;
        kept.map_err(|error| CacheError::Fetch(error.to_string()))?
    }

    fn keep_held(&self, key: String, entry: &Arc<Entry>) -> Result<u64, CacheError> {
        let size = entry.record.size;
        // What lies in a pack is there as long as the pack is.
        if entry.pack.is_some() {
            return Ok(size);
        }
        let mut record = Record {
            key: key.clone(),
            ..entry.record.clone()
        };
        record.headers.retain(|(name, _)| HEADERS.contains(&name.as_str()));
        match self.store.renew(entry, record)? {
            Some(_) => Ok(size),
            None => Err(CacheError::Fetch(format!(
                "{key}: it had to make room in the moment before it was kept; do it again"
            ))),
        }
    }

    /// From now on what is kept for a repository is never evicted.
    ///
    /// # Errors
    /// When the list of pins cannot be written.
    pub fn pin_held(&self, name: &str) -> Result<(), CacheError> {
        self.store.pin(&pattern(name), true)?;
        Ok(())
    }

    /// Lets go of what is kept for a repository and is none of these files; without any, of all of it and of the pin. Blocks while
    /// it writes, and where contents have to be read, to know whether they are what a SHA-512 promises.
    ///
    /// # Errors
    /// When the list of pins cannot be written.
    pub fn let_go(&self, name: &str, wanted: &HashMap<String, Sum>) -> Result<(), CacheError> {
        if wanted.is_empty() && self.store.pins().contains(&pattern(name)) {
            self.store.pin(&pattern(name), false)?;
        }
        let start = held_key(name, "");
        let wanted: HashMap<String, Sum> = wanted.iter().map(|(path, sum)| (plain(path), *sum)).collect();
        for entry in self.store.entries() {
            let Some(path) = entry.record.key.strip_prefix(&start) else {
                continue;
            };
            // What cannot be read just now may be what is wanted.
            let is = |sum: &Sum| self.store.is(&entry.object, sum).unwrap_or(true);
            if !wanted.get(path).is_some_and(is) {
                self.store.remove(&entry.record.key);
            }
        }
        Ok(())
    }

    /// Lets go of what is kept for repositories that are none of these: of those that were unlocked while no proxy ran. Blocks while
    /// it writes.
    ///
    /// # Errors
    /// When the list of pins cannot be written.
    pub fn let_go_others(&self, locked: &BTreeSet<String>) -> Result<(), CacheError> {
        let pinned = self.store.pins();
        let kept = self.store.entries();
        let keys = kept.iter().map(|entry| entry.record.key.as_str());
        let names = pinned.iter().map(String::as_str).chain(keys).filter_map(of_held);
        let gone: BTreeSet<&str> = names
            .map(|(name, _)| name)
            .filter(|name| !locked.contains(*name))
            .collect();
        gone.into_iter().try_for_each(|name| self.let_go(name, &HashMap::new()))
    }

    fn holds(&self, name: &str, one: &Promised) -> bool {
        let found = self.store.find(&held_key(name, &one.path), &HeaderMap::new()).0;
        found.is_some_and(|entry| self.store.is(&entry.object, &one.sum).unwrap_or(false))
    }

    /// The URL of what is kept under a key.
    pub(crate) fn held_url(&self, key: &str) -> Option<String> {
        let (name, path) = of_held(key)?;
        let folder = self.locked_url(name)?;
        Some(Url::parse(&folder)?.join(path).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use crate::store::tests::sealed;

    #[test]
    fn what_had_to_go_before_it_was_kept_is_not_called_kept() {
        let folder = tempfile::tempdir().unwrap();
        let proxy = Proxy::open(folder.path(), Settings::default(), Arc::new(|_, _| {}));
        let (record, held) = sealed(&proxy.store, "http://a/p", b"content");
        let entry = proxy.store.insert(record, held.object.clone()).unwrap();
        drop(held);
        proxy.pin_held("ours").unwrap();
        let one = Promised {
            path: "p".into(),
            sum: Sum::Sha256(entry.object.digest.0),
            bytes: None,
        };
        assert_eq!(proxy.keep_held(held_key("ours", "p"), &entry).unwrap(), 7);
        assert!(proxy.need("ours", std::slice::from_ref(&one)).missing.is_empty());
        proxy.let_go("ours", &HashMap::new()).unwrap();
        proxy.pin_held("ours").unwrap();
        proxy.store.remove("http://a/p");
        let kept = proxy.keep_held(held_key("ours", "p"), &entry);
        assert!(kept.unwrap_err().to_string().contains("do it again"));
        assert_eq!(proxy.need("ours", std::slice::from_ref(&one)).missing, [one]);
        assert_eq!((proxy.store.counts(), proxy.usage().0), ((0, 0), 0));
    }
}
