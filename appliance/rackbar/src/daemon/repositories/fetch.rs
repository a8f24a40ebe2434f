//! The state of a Debian repository as its origin has it: fetched, its signature judged, its lists against their digests.

use std::collections::BTreeMap;
use std::sync::Arc;

use rackbar_model::{Digest, LockedIndex, RepositoryLock, Timestamp};
use rackbar_orchestrator::repositories::Kept;
use rackbar_plan::site::Repository;
use rackbar_proxy::Proxy;
use rackbar_proxy::index::read_packages;
use rackbar_trust::sha256;
use rackbar_upstream::{Keyring, MAX_TEXT, PackageList, Release, ReleaseError, Signed, cleartext};

/// Bytes of all lists of a lock: they are held in memory and in the store.
const MOST: u64 = 64 << 20;

/// What is to be found out.
pub(super) struct Order {
    pub(super) name: String,
    pub(super) by: String,
    pub(super) wanted: Repository,
    /// Nothing of before this date is taken, in seconds since 1970.
    pub(super) after: Option<u64>,
}

/// What was found.
pub(super) struct Found {
    pub(super) kept: Kept,
    /// Its origin gave none just now: this is what was stored then, in seconds since 1970.
    pub(super) stored: Option<u64>,
}

/// A package's version and content, by its name and architecture. Of several versions all are there.
pub(super) type Packages = BTreeMap<(String, String), Vec<(String, Option<Digest>)>>;

impl Order {
    /// Fetches and judges.
    ///
    /// # Errors
    /// What was wrong, with its URL and what to do.
    pub(super) async fn run(self, proxy: &Arc<Proxy>) -> Result<Found, String> {
        let wanted = &self.wanted;
        let path = format!("dists/{}/InRelease", wanted.suite);
        let at = format!("{}/{path}", wanted.url.trim_end_matches('/'));
        let file = proxy.document(&wanted.url, &path, None, MAX_TEXT as u64).await;
        let file = file.map_err(|error| {
            format!(
                "{error}; look whether repository.{} of the site file has the right URL and suite",
                self.name
            )
        })?;
        let (bytes, keys, suite) = (file.bytes, wanted.keys.clone(), wanted.suite.clone());
        let judged = blocking(move || judge(bytes, &keys, &suite));
        let (text, signed, release) = judged.await.map_err(|error| format!("{at}: {error}"))?;
        if let Some(before) = self.after.filter(|before| *before > release.date) {
            return Err(format!(
                "{at}: it is of {}, and repository {} is locked to one of {}; an old one is being given out, by a mirror that is \
                 behind or by somebody. If it is right, `rackbar repository unlock {}` first",
                of(release.date),
                self.name,
                of(before),
                self.name
            ));
        }
        let lists = release.package_lists(&wanted.components, &wanted.architectures);
        let lists = lists.map_err(|error| {
            format!(
                "{at}: {error}; correct components and architectures of repository.{} in the site file",
                self.name
            )
        })?;
        let mut kept = BTreeMap::new();
        let mut left = MOST;
        for list in lists {
            self.list(proxy, &release, list, &mut kept, &mut left).await?;
        }
        let lock = self.lock(&release, &signed, &text, &kept);
        let found = Found {
            kept: Kept {
                lock,
                release: text,
                text: signed.text,
                lists: kept,
            },
            stored: file.stored,
        };
        blocking(move || counted(found)).await
    }

    /// Fetches a list in every form that the origin has of it.
    async fn list(
        &self,
        proxy: &Arc<Proxy>,
        release: &Release,
        list: PackageList,
        kept: &mut BTreeMap<String, Vec<u8>>,
        left: &mut u64,
    ) -> Result<(), String> {
        let (mut any, mut last) = (false, String::new());
        let forms = list.packed.into_iter().chain(list.plain);
        for (path, bytes, sum) in forms {
            // The plain form is most often not there, and not wanted where there is another.
            if any && path == list.path {
                break;
            }
            if bytes > *left {
                return Err(format!(
                    "repository {}: its lists of packages have more than {} MiB, and a lock keeps no more; name fewer components \
                     or architectures in the site file",
                    self.name,
                    MOST >> 20
                ));
            }
            let below = format!("dists/{}/{path}", self.wanted.suite);
            let expected = Some((Digest(sum), release.by_hash));
            match proxy.document(&self.wanted.url, &below, expected, bytes).await {
                Ok(document) if document.bytes.len() as u64 == bytes => {
                    *left = left.saturating_sub(bytes);
                    any = true;
                    kept.insert(path, document.bytes);
                }
                Ok(document) => {
                    last = format!(
                        "{below} has {} bytes, and its Release says {bytes}",
                        document.bytes.len()
                    );
                }
                Err(error) => last = error.to_string(),
            }
        }
        match any {
            true => Ok(()),
            false => Err(format!(
                "{last}; the repository is being changed right now, or is not whole: try again later"
            )),
        }
    }

    fn lock(&self, release: &Release, signed: &Signed, text: &str, kept: &BTreeMap<String, Vec<u8>>) -> RepositoryLock {
        let Repository {
            kind,
            url,
            suite,
            components,
            architectures,
            keys,
        } = self.wanted.clone();
        let index = |(path, bytes): (&String, &Vec<u8>)| LockedIndex {
            path: path.clone(),
            bytes: bytes.len() as u64,
            sha256: Digest(sha256(bytes)),
        };
        RepositoryLock {
            name: self.name.clone(),
            kind,
            url,
            suite,
            components,
            architectures,
            keys: Digest(sha256(keys.as_bytes())),
            date: release.date,
            release: Digest(sha256(text.as_bytes())),
            signer: signed.signer.clone(),
            indexes: kept.iter().map(index).collect(),
            packages: 0,
            locked: Timestamp(seconds().saturating_mul(1000)),
            by: self.by.clone(),
        }
    }
}

/// The file as text, what of it is signed, and that read: by a trusted key, of this suite, and still counting.
fn judge(bytes: Vec<u8>, keys: &str, suite: &str) -> Result<(String, Signed, Release), String> {
    let keys = Keyring::read(keys.as_bytes()).map_err(|error| format!("the keys: {error}"))?;
    let signed = cleartext(&bytes, &keys, seconds())
        .map_err(|error| format!("{error}; if its publisher has a new key, write that into the site file"))?;
    let release = Release::read(&signed.text).map_err(|error| error.to_string())?;
    // A suite in a folder of its own is often called by that folder's name.
    let names = [suite, suite.split('/').next().unwrap_or(suite)];
    let judged = names.map(|name| release.judge(name, seconds()));
    let [first, second] = judged;
    match (first, second) {
        (Err(ReleaseError::Suite { .. }), Ok(())) | (Ok(()), _) => {}
        (Err(error), _) => return Err(error.to_string()),
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is no UTF-8 text".to_owned())?;
    Ok((text, signed, release))
}

/// With the number of its packages, when all its lists can be read.
fn counted(mut found: Found) -> Result<Found, String> {
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
    for (path, bytes) in each_list(kept) {
        let read = read_packages(bytes.as_slice(), &mut |one| {
            let entry = all.entry((one.name, one.architecture)).or_default();
            if !entry.contains(&(one.version.clone(), one.digest)) {
                entry.push((one.version, one.digest));
            }
        });
        read.map_err(|error| {
            format!(
                "the list {path} of repository {} cannot be read: {error}",
                kept.lock.name
            )
        })?;
    }
    Ok(all)
}

/// One form of every list.
pub(super) fn each_list(kept: &Kept) -> impl Iterator<Item = (&String, &Vec<u8>)> {
    let bare = |path: &str| path.rsplit_once("Packages").map(|(folder, _)| folder.to_owned());
    let mut seen = std::collections::BTreeSet::new();
    kept.lists.iter().filter(move |(path, _)| seen.insert(bare(path)))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(error.to_string()))
}

fn of(seconds: u64) -> Timestamp {
    Timestamp(seconds.saturating_mul(1000))
}

fn seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
