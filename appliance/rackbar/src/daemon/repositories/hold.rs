//! Keeping all packages of a locked repository, so that they are to be had whatever their origin deletes: how many bytes that takes
//! is known before it begins, and doing it again goes on where it ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use rackbar_control::operations::{Refused, RepositoryFetch};
use rackbar_model::{Digest, EventKind, RepositoryKind, Severity};
use rackbar_orchestrator::repositories::Kept;
use rackbar_proxy::index::read_packages;
use rackbar_proxy::{Need, Promised, Proxy};
use rackbar_services::EventSink as _;
use rackbar_upstream::{Repomd, Sum};

use super::{Repositories, locked};

/// Packages that are fetched at a time.
const AT_ONCE: usize = 4;
/// After so many that could not be had it ends: its origin is gone, or another.
const MOST_FAILURES: u64 = 20;

/// Fetches of all packages by repository, each with the digest of the state that it is for.
pub(super) type Fetches = Arc<Mutex<BTreeMap<String, (Digest, RepositoryFetch)>>>;

/// Files of a locked state that can be kept.
pub(super) struct Files {
    /// Those that are kept always: data files that the lock itself has no room for.
    pub(super) always: Vec<Promised>,
    pub(super) packages: Vec<Promised>,
}

impl Files {
    /// Of a lock.
    ///
    /// # Errors
    /// When one of its lists cannot be read.
    pub(super) fn of(kept: &Kept) -> Result<Self, String> {
        let (mut always, mut packages) = (Vec::new(), BTreeMap::new());
        let mut add = |path: String, sum: Sum, bytes: Option<u64>| {
            packages.entry(path.clone()).or_insert(Promised { path, sum, bytes });
        };
        match kept.lock.kind {
            RepositoryKind::Deb => {
                for (path, bytes) in super::deb::each_list(kept) {
                    let read = read_packages(bytes.as_slice(), &mut |one| {
                        if let Some(digest) = one.digest {
                            add(
                                super::deb::location(&one.path).to_owned(),
                                Sum::Sha256(digest.0),
                                one.bytes,
                            );
                        }
                    });
                    read.map_err(|error| format!("the list {path} cannot be read: {error}"))?;
                }
            }
            RepositoryKind::Git => {}
            RepositoryKind::Rpm => {
                super::rpm::each_package(kept, &mut |one| add(one.path, one.sum, one.bytes))?;
                let repomd = Repomd::read(&kept.release, u64::MAX).map_err(|error| error.to_string())?;
                let large = repomd
                    .data
                    .into_iter()
                    .filter(|data| !kept.lists.contains_key(&data.path));
                always.extend(large.map(|data| Promised {
                    path: data.path,
                    sum: data.sum,
                    bytes: data.bytes,
                }));
            }
        }
        let packages = packages.into_values().collect();
        Ok(Self { always, packages })
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.always.len().saturating_add(self.packages.len())).unwrap_or(u64::MAX)
    }

    fn all(&self) -> Vec<Promised> {
        self.always.iter().chain(&self.packages).cloned().collect()
    }

    /// Keeps what is kept always, before the lock is written down; and, where all is wanted, finds out what is missing and whether
    /// there is room for it.
    ///
    /// # Errors
    /// When there is no room, or a file is not to be had.
    pub(super) async fn prepared(
        &self,
        proxy: &Arc<Proxy>,
        name: &str,
        folder: &str,
        fetch: bool,
    ) -> Result<Option<Need>, Refused> {
        let failed = |error: rackbar_proxy::CacheError| Refused::Device(error.to_string());
        let need = match fetch {
            true => Some(self.need(proxy, name).await?),
            false => None,
        };
        if let Some(need) = need.as_ref().filter(|need| need.bytes > need.room) {
            return Err(Refused::Conflict(format!(
                "the packages of repository {name} that are not kept yet have {} MiB, and the cache has room for {} MiB of what is \
                 never evicted; set more `megabytes` in [proxy] of rackbar.toml, take pins back (`rackbar cache list` shows what \
                 is pinned), or lock without fetching. Nothing was changed",
                mib(need.bytes),
                mib(need.room)
            )));
        }
        if fetch || !self.always.is_empty() {
            proxy.pin_held(name).map_err(failed)?;
        }
        for one in &self.always {
            proxy.hold(name, folder, one).await.map_err(failed)?;
        }
        // The lock, written down after this, outlasts a power cut too.
        if fetch || !self.always.is_empty() {
            proxy.settle().await.map_err(failed)?;
        }
        Ok(need)
    }

    /// What keeping all of it would take. After a restart what is kept has to be read for that where its digests are SHA-512.
    async fn need(&self, proxy: &Arc<Proxy>, name: &str) -> Result<Need, Refused> {
        let (proxy, name, all) = (proxy.clone(), name.to_owned(), self.all());
        let done = tokio::task::spawn_blocking(move || proxy.need(&name, &all)).await;
        done.map_err(|error| Refused::Internal(error.to_string()))
    }

    /// Lets go of what was kept for the state before, and is of no use for this one.
    ///
    /// # Errors
    /// When the list of pins cannot be written.
    pub(super) async fn let_go(&self, proxy: &Arc<Proxy>, name: &str) -> Result<(), Refused> {
        let all = self.all().into_iter().map(|one| (one.path, one.sum));
        let (proxy, name, all): (_, _, HashMap<String, Sum>) = (proxy.clone(), name.to_owned(), all.collect());
        let done = tokio::task::spawn_blocking(move || proxy.let_go(&name, &all)).await;
        let done = done.map_err(|error| Refused::Internal(error.to_string()))?;
        done.map_err(|error| Refused::Internal(error.to_string()))
    }
}

/// Bytes as people read them, never less than they are.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

impl Repositories {
    /// How far the fetch of a repository's packages is.
    pub(super) fn fetch_of(&self, name: &str) -> Option<RepositoryFetch> {
        locked(&self.fetches).get(name).map(|(_, fetch)| fetch.clone())
    }

    /// Begins to fetch what is missing; gives that in words. `proxy` runs it.
    pub(super) fn begin_fetch(&self, proxy: &Arc<Proxy>, kept: &Kept, files: u64, need: Need) -> String {
        let (name, release) = (kept.lock.name.clone(), kept.lock.release);
        let missing = u64::try_from(need.missing.len()).unwrap_or(u64::MAX);
        let words = format!(
            "; {missing} of {files} files are fetched and kept, {} MiB",
            mib(need.bytes)
        );
        let fetch = RepositoryFetch {
            running: true,
            files,
            kept: files.saturating_sub(missing),
            bytes: need.bytes,
            ..RepositoryFetch::default()
        };
        let running = |(known, fetch): &(Digest, RepositoryFetch)| *known == release && fetch.running;
        let mut all = locked(&self.fetches);
        if all.get(&name).is_some_and(running) {
            return "; its packages are being fetched already".to_owned();
        }
        all.insert(name.clone(), (release, fetch));
        drop(all);
        let (repositories, proxy, url) = (self.clone(), proxy.clone(), kept.lock.url.clone());
        tokio::spawn(async move { repositories.fetch(&proxy, &name, &url, release, need.missing).await });
        words
    }

    async fn fetch(&self, proxy: &Arc<Proxy>, name: &str, url: &str, release: Digest, missing: Vec<Promised>) {
        let one = |one: Promised| async move { proxy.hold(name, url, &one).await.map_err(|error| error.to_string()) };
        let mut done = futures_util::stream::iter(missing).map(one).buffer_unordered(AT_ONCE);
        let mut failed = 0_u64;
        while let Some(result) = done.next().await {
            failed = failed.saturating_add(u64::from(result.is_err()));
            self.told(name, release, |fetch| match result {
                Ok(bytes) => {
                    fetch.kept = fetch.kept.saturating_add(1);
                    fetch.kept_bytes = fetch.kept_bytes.saturating_add(bytes);
                }
                Err(error) => (fetch.failed, fetch.trouble) = (failed, Some(error)),
            });
            let still = self.executor.repositories().get(name).map(|lock| lock.release) == Some(release);
            if !still || failed >= MOST_FAILURES {
                break;
            }
        }
        drop(done);
        let settled = proxy.settle().await;
        self.told(name, release, |fetch| {
            fetch.running = false;
            if let Err(error) = settled {
                fetch.trouble = Some(error.to_string());
            }
        });
        let Some(fetch) = self.fetch_of(name) else { return };
        let (text, severity) = match &fetch.trouble {
            None => (
                format!(
                    "all {} files of repository {name} are kept, whatever becomes of its origin",
                    fetch.files
                ),
                Severity::Info,
            ),
            Some(trouble) => (
                format!(
                    "{} of {} files of repository {name} are kept, and fetching the others ended: {trouble}; `rackbar repository \
                     lock {name} --fetch` goes on",
                    fetch.kept, fetch.files
                ),
                Severity::Warning,
            ),
        };
        self.rack.event(None, EventKind::Note { text, severity });
    }

    /// Changes what is known of a fetch, unless another state is fetched by now.
    fn told(&self, name: &str, release: Digest, change: impl FnOnce(&mut RepositoryFetch)) {
        let mut all = locked(&self.fetches);
        if let Some((_, fetch)) = all.get_mut(name).filter(|(known, _)| *known == release) {
            change(fetch);
        }
    }
}
