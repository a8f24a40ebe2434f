//! The state of a repository as its origin has it, of whatever kind: what is asked for, what was found, and what both kinds do
//! alike.

use std::collections::BTreeMap;
use std::sync::Arc;

use rackbar_model::{Digest, LockedIndex, RepositoryKind, RepositoryLock, Timestamp};
use rackbar_orchestrator::repositories::Kept;
use rackbar_plan::site::Repository;
use rackbar_proxy::Proxy;
use rackbar_trust::sha256;
use rackbar_upstream::Sum;

/// Bytes of all lists of a lock: they are held in memory and in the store.
pub(super) const MOST: u64 = 64 << 20;

/// Bytes of the lists of all locks together: they are in memory, and in a saved state, which has at most 512 MiB of records.
const MOST_OF_ALL: u64 = 320 << 20;

/// What is to be found out.
pub(super) struct Order {
    pub(super) name: String,
    pub(super) by: String,
    pub(super) wanted: Repository,
    /// Nothing of before this date is taken, in seconds since 1970.
    pub(super) after: Option<u64>,
    /// Of a Git repository what is locked, if it is of the same URL and ref.
    pub(super) kept: Option<Kept>,
}

/// What was found.
pub(super) struct Found {
    pub(super) kept: Kept,
    /// Its origin gave none just now: this is what was stored then, in seconds since 1970.
    pub(super) stored: Option<u64>,
}

/// A package's version and content, by its name and architecture. Of several versions all are there.
pub(super) type Packages = BTreeMap<(String, String), Vec<(String, Option<Sum>)>>;

impl Order {
    /// Fetches and judges.
    ///
    /// # Errors
    /// What was wrong, with its URL and what to do.
    pub(super) async fn run(self, proxy: &Arc<Proxy>) -> Result<Found, String> {
        match self.wanted.kind {
            RepositoryKind::Deb => self.of_debian(proxy).await,
            RepositoryKind::Rpm => self.of_rpm(proxy).await,
            RepositoryKind::Git => self.of_git(proxy).await,
        }
    }

    /// Whether a state of this date may follow the one that is locked.
    ///
    /// # Errors
    /// When it is older.
    pub(super) fn not_older(&self, at: &str, date: u64) -> Result<(), String> {
        match self.after.filter(|before| *before > date) {
            Some(before) => Err(format!(
                "{at}: it is of {}, and repository {} is locked to one of {}; an old one is being given out, by a mirror that is \
                 behind or by somebody. If it is right, `rackbar repository unlock {}` first",
                of(date),
                self.name,
                of(before),
                self.name
            )),
            None => Ok(()),
        }
    }

    /// The lock to a state, its packages not counted yet.
    pub(super) fn lock(
        &self,
        date: u64,
        revision: Option<String>,
        signer: &str,
        text: &[u8],
        kept: &BTreeMap<String, Vec<u8>>,
    ) -> RepositoryLock {
        let wanted = &self.wanted;
        let index = |(path, bytes): (&String, &Vec<u8>)| LockedIndex {
            path: path.clone(),
            bytes: bytes.len() as u64,
            sha256: Digest(sha256(bytes)),
        };
        RepositoryLock {
            name: self.name.clone(),
            kind: wanted.kind,
            url: wanted.url.clone(),
            suite: wanted.suite().to_owned(),
            revision,
            reference: wanted.reference().map(str::to_owned),
            components: wanted.components(),
            architectures: wanted.architectures(),
            keys: Digest(sha256(wanted.keys().as_bytes())),
            date,
            release: Digest(sha256(text)),
            signer: signer.to_owned(),
            indexes: kept.iter().map(index).collect(),
            packages: 0,
            locked: Timestamp(seconds().saturating_mul(1000)),
            by: self.by.clone(),
        }
    }
}

/// Whether there is room for a lock beside all others that there are.
///
/// # Errors
/// When there is none, with what to do.
pub(super) fn has_room<'a>(all: impl Iterator<Item = &'a RepositoryLock>, new: &RepositoryLock) -> Result<(), String> {
    let bytes = |lock: &RepositoryLock| {
        lock.indexes
            .iter()
            .fold(0, |sum: u64, list| sum.saturating_add(list.bytes))
    };
    let others = all.filter(|lock| lock.name != new.name).map(bytes);
    let (others, own) = (others.fold(0, u64::saturating_add), bytes(new));
    if others.saturating_add(own) <= MOST_OF_ALL {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(format!(
        "what is kept with a lock of repository {} has {} MiB, and with all other locks {} MiB, where {} MiB are the most; unlock what \
         is not needed (`rackbar repository list`), or lock fewer components and architectures, or a shorter history. Nothing was \
         changed",
        new.name,
        mib(own),
        mib(others.saturating_add(own)),
        MOST_OF_ALL >> 20
    ))
}

/// With the number of its packages, when all its lists can be read, and all of it be served.
pub(super) fn counted(mut found: Found) -> Result<Found, String> {
    super::serve::served(&found.kept).map_err(|error| format!("repository {}: {error}", found.kept.lock.name))?;
    let all = packages(&found.kept)?;
    let count = all.values().map(Vec::len).sum::<usize>();
    found.kept.lock.packages = u64::try_from(count).unwrap_or(u64::MAX);
    Ok(found)
}

/// The packages of all lists that are kept.
///
/// # Errors
/// When one cannot be read.
pub(super) fn packages(kept: &Kept) -> Result<Packages, String> {
    let mut all = Packages::new();
    match kept.lock.kind {
        RepositoryKind::Deb => super::deb::packages(kept, &mut all)?,
        RepositoryKind::Rpm => super::rpm::packages(kept, &mut all)?,
        RepositoryKind::Git => super::git::commits(kept, &mut all)?,
    }
    Ok(all)
}

/// Adds a package, once.
pub(super) fn add(all: &mut Packages, name: (String, String), one: (String, Option<Sum>)) {
    let entry = all.entry(name).or_default();
    if !entry.contains(&one) {
        entry.push(one);
    }
}

/// Does what takes a processor on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(error.to_string()))
}

fn of(seconds: u64) -> Timestamp {
    Timestamp(seconds.saturating_mul(1000))
}

/// Seconds since 1970.
pub(super) fn seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(name: &str, mib: u64) -> RepositoryLock {
        let list = LockedIndex {
            path: "list".into(),
            bytes: mib << 20,
            sha256: Digest([0; 32]),
        };
        RepositoryLock {
            name: name.into(),
            kind: RepositoryKind::Git,
            url: String::new(),
            suite: String::new(),
            revision: None,
            reference: None,
            components: Vec::new(),
            architectures: Vec::new(),
            keys: Digest([0; 32]),
            date: 0,
            release: Digest([0; 32]),
            signer: String::new(),
            indexes: vec![list],
            packages: 0,
            locked: Timestamp(0),
            by: String::new(),
        }
    }

    #[test]
    fn all_locks_together_have_no_more_than_a_saved_state_takes() {
        let all: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|name| lock(name, 60)).collect();
        assert_eq!(has_room(all.iter(), &lock("f", 20)), Ok(()));
        assert_eq!(has_room(all.iter(), &lock("a", 64)), Ok(()), "in the place of its own");
        let refused = has_room(all.iter(), &lock("f", 21)).unwrap_err();
        for words in ["repository f has 21 MiB", "321 MiB", "320 MiB are the most", "unlock"] {
            assert!(refused.contains(words), "{words}: {refused}");
        }
    }
}
