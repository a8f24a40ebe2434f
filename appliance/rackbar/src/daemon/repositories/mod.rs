//! The site's package repositories in the daemon: locking them, saying what a new lock would bring, and having the proxy serve
//! what they are locked to.

mod archive;
mod deb;
mod fetch;
mod git;
mod hold;
mod rpm;
mod serve;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use rackbar_control::operations::{Answer, Refused, RepositoryCheck, RepositoryEntry};
use rackbar_model::{EventKind, RepositoryKind, RepositoryLock, Severity, Timestamp};
use rackbar_orchestrator::Rack;
use rackbar_orchestrator::executor::Executor;
use rackbar_orchestrator::repositories::{self, Kept};
use rackbar_plan::planner::lock_differs;
use rackbar_plan::site::Repository;
use rackbar_proxy::Proxy;
use rackbar_services::EventSink as _;
use rackbar_store::Store;
use rackbar_upstream::Keyring;

use super::cache::CacheDoor;
use fetch::{Found, Order};
use hold::Files;

/// The way to repositories for API and command line.
#[derive(Clone)]
pub(super) struct Repositories {
    rack: Rack,
    executor: Executor,
    store: Store,
    cache: CacheDoor,
    /// Those that are being locked or looked at: each by one at a time.
    busy: Arc<Mutex<BTreeSet<String>>>,
    /// Fetches of all packages.
    fetches: hold::Fetches,
}

/// A repository that is worked on, until this goes.
struct Busy {
    all: Arc<Mutex<BTreeSet<String>>>,
    name: String,
}

impl Drop for Busy {
    fn drop(&mut self) {
        locked(&self.all).remove(&self.name);
    }
}

impl Repositories {
    /// With what the store holds: the proxy serves it as soon as it runs.
    pub(super) fn new(rack: &Rack, executor: &Executor, store: &Store, cache: &CacheDoor) -> Self {
        let all = Self {
            rack: rack.clone(),
            executor: executor.clone(),
            store: store.clone(),
            cache: cache.clone(),
            busy: Arc::default(),
            fetches: Arc::default(),
        };
        if let Err(error) = all.in_force() {
            let text = format!("locked repositories are not served: {error}");
            let severity = Severity::Error;
            all.rack.event(None, EventKind::Note { text, severity });
        }
        all
    }

    /// Has planner and proxy go by what the store holds.
    fn in_force(&self) -> Result<(), Refused> {
        let all = repositories::load(&self.store).map_err(|error| Refused::Internal(error.to_string()))?;
        let names = all.iter().map(|kept| kept.lock.name.clone()).collect();
        let (mut served, mut locks) = (Vec::new(), Vec::new());
        for kept in all {
            match serve::served(&kept) {
                Ok(one) => {
                    served.push(one);
                    locks.push(kept.lock);
                }
                Err(error) => tracing::error!(repository = kept.lock.name, error, "a lock cannot be served"),
            }
        }
        self.cache.serve(served, names);
        self.executor.set_repositories(locks);
        Ok(())
    }

    /// Those of the site, and those that are locked.
    pub(super) fn all(&self) -> Answer<'static, Vec<RepositoryEntry>> {
        let all = self.clone();
        async move { blocking(move || Ok(all.list())).await }.boxed()
    }

    fn list(&self) -> Vec<RepositoryEntry> {
        let (site, locks) = (self.executor.site(), self.executor.repositories());
        let of_site = site.as_deref().map(|one| &one.site);
        let wanted: BTreeMap<&String, &Repository> = of_site.iter().flat_map(|site| &site.repository).collect();
        let names: BTreeSet<&String> = wanted.keys().copied().chain(locks.keys()).collect();
        let entry = |name: &String| {
            let (wanted, lock) = (wanted.get(name).copied(), locks.get(name).cloned());
            let roles = of_site.iter().flat_map(|site| &site.role);
            let roles = roles.filter(|(_, role)| role.repositories.contains(name));
            let ring = wanted.and_then(|wanted| Keyring::read(wanted.keys().as_bytes()).ok());
            Some(RepositoryEntry {
                name: name.clone(),
                kind: wanted.map_or_else(|| lock.as_ref().map(|lock| lock.kind), |one| Some(one.kind))?,
                url: wanted.map_or_else(
                    || lock.as_ref().map(|lock| lock.url.clone()),
                    |one| Some(one.url.clone()),
                )?,
                suite: wanted.map_or_else(
                    || lock.as_ref().map(|lock| lock.suite.clone()),
                    |one| Some(one.suite().to_owned()),
                )?,
                reference: match wanted {
                    Some(wanted) => wanted.reference().map(str::to_owned),
                    None => lock.as_ref().and_then(|lock| lock.reference.clone()),
                },
                keys: ring.map(|ring| ring.fingerprints()).unwrap_or_default(),
                in_site: wanted.is_some(),
                fetch: self.fetch_of(name),
                roles: roles.map(|(role, _)| role.clone()).collect(),
                differs: lock
                    .as_ref()
                    .zip(wanted)
                    .and_then(|(lock, wanted)| lock_differs(lock, wanted)),
                lock,
            })
        };
        names.into_iter().filter_map(entry).collect()
    }

    fn wanted(&self, name: &str) -> Result<Repository, Refused> {
        let site = self.executor.site();
        let found = site.as_deref().and_then(|one| one.site.repository.get(name));
        found.cloned().ok_or_else(|| {
            Refused::NotFound(format!(
                "the site file in force has no repository {name:?}; `rackbar repository list` shows those it has"
            ))
        })
    }

    fn begin(&self, name: &str) -> Result<Busy, Refused> {
        if !locked(&self.busy).insert(name.to_owned()) {
            let words = format!("repository {name} is being looked at right now; try again when that has ended");
            return Err(Refused::Conflict(words));
        }
        Ok(Busy {
            all: self.busy.clone(),
            name: name.to_owned(),
        })
    }

    /// Asks the origin of a repository what it has, all of it verified.
    async fn found(&self, name: &str, by: &str) -> Result<(Found, Option<RepositoryLock>), Refused> {
        let wanted = self.wanted(name)?;
        let before = self.executor.repositories().get(name).cloned();
        let same = |lock: &&RepositoryLock| {
            let names = lock.suite == wanted.suite() && lock.reference.as_deref() == wanted.reference();
            names && lock.kind == wanted.kind && lock.url == wanted.url
        };
        let same = before.as_ref().filter(same);
        let kept = match same.filter(|lock| lock.kind == RepositoryKind::Git) {
            Some(_) => self.stored(name).await?,
            None => None,
        };
        let order = Order {
            name: name.to_owned(),
            by: by.to_owned(),
            after: same.map(|lock| lock.date),
            kept,
            wanted,
        };
        let found = self
            .cache
            .ask(move |proxy| async move { order.run(&proxy).await.map_err(Refused::Device) });
        Ok((found.await?, before))
    }

    /// What is kept of a repository.
    async fn stored(&self, name: &str) -> Result<Option<Kept>, Refused> {
        let (store, name) = (self.store.clone(), name.to_owned());
        let found = move || repositories::load_one(&store, &name);
        blocking(move || found().map_err(|error| Refused::Internal(error.to_string()))).await
    }

    /// Locks a repository to what its origin has now, and has all its packages fetched and kept where that is wanted.
    pub(super) fn lock(&self, name: &str, by: &str, fetch: bool) -> Answer<'static, String> {
        let (all, name, by) = (self.clone(), name.to_owned(), by.to_owned());
        async move {
            let _busy = all.begin(&name)?;
            if fetch && all.wanted(&name)?.kind == RepositoryKind::Git {
                return Err(Refused::Invalid(format!(
                    "repository {name} is one of Git, and those are kept whole with each lock; lock it without fetching"
                )));
            }
            let (found, before) = all.found(&name, &by).await?;
            fetch::has_room(all.executor.repositories().values(), &found.kept.lock).map_err(Refused::Conflict)?;
            let words = words(&found, before.as_ref());
            let (cache, kept) = (all.cache.clone(), found.kept);
            let done = cache.ask(move |proxy| async move { all.kept(&proxy, kept, words, fetch).await });
            done.await
        }
        .boxed()
    }

    /// Writes a lock down and puts it in force, once what it needs of the cache is there; gives what was done, in words.
    async fn kept(&self, proxy: &Arc<Proxy>, kept: Kept, words: String, fetch: bool) -> Result<String, Refused> {
        let (kept, files) = blocking(move || {
            let files = Files::of(&kept).map_err(Refused::Internal)?;
            Ok((kept, files))
        })
        .await?;
        let (name, url) = (kept.lock.name.clone(), kept.lock.url.clone());
        let need = files.prepared(proxy, &name, &url, fetch).await?;
        let (all, text) = (self.clone(), words.clone());
        let done = blocking(move || {
            repositories::keep(&all.store, &kept).map_err(|error| Refused::Internal(error.to_string()))?;
            all.in_force()?;
            let severity = Severity::Info;
            all.rack.event(None, EventKind::Note { text, severity });
            Ok(kept)
        });
        let kept = done.await?;
        files.let_go(proxy, &name).await?;
        let begun = need.map(|need| self.begin_fetch(proxy, &kept, files.count(), need));
        Ok(words + &begun.unwrap_or_default())
    }

    /// Takes a lock back.
    pub(super) fn unlock(&self, name: &str) -> Answer<'static, String> {
        let (all, name) = (self.clone(), name.to_owned());
        async move { blocking(move || all.take_back(&name)).await }.boxed()
    }

    fn take_back(&self, name: &str) -> Result<String, Refused> {
        let _busy = self.begin(name)?;
        if !self.executor.repositories().contains_key(name) {
            return Err(Refused::NotFound(format!("repository {name:?} is not locked")));
        }
        repositories::forget(&self.store, name).map_err(|error| Refused::Internal(error.to_string()))?;
        self.in_force()?;
        locked(&self.fetches).remove(name);
        if let Some((proxy, _)) = self.cache.open() {
            let gone = proxy.let_go(name, &HashMap::new());
            gone.map_err(|error| Refused::Internal(error.to_string()))?;
        }
        Ok(format!(
            "repository {name} is not locked any more: machines can get nothing from it, and roles that name it are not planned"
        ))
    }

    /// What a new lock would bring.
    pub(super) fn check(&self, name: &str) -> Answer<'static, RepositoryCheck> {
        let (all, name) = (self.clone(), name.to_owned());
        async move {
            let _busy = all.begin(&name)?;
            let (found, before) = all.found(&name, "").await?;
            let kept = all.stored(&name).await?;
            blocking(move || compared(&found, before.as_ref(), kept.as_ref())).await
        }
        .boxed()
    }
}

/// Does what waits for a disk on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refused> + Send + 'static) -> Result<T, Refused> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Refused::Internal(error.to_string())))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn of_seconds(seconds: u64) -> Timestamp {
    Timestamp(seconds.saturating_mul(1000))
}

/// Where what was found does not come from its origin just now, in words.
fn from_where(found: &Found) -> String {
    match found.stored {
        Some(at) => format!(
            "; its origin was not asked or did not answer, and this is of what was stored {}",
            of_seconds(at)
        ),
        None => String::new(),
    }
}

/// What a lock is to: its suite, or what the publisher calls the state.
fn state(lock: &RepositoryLock) -> String {
    match (&lock.revision, lock.kind) {
        (_, RepositoryKind::Deb) => lock.suite.clone(),
        (Some(revision), RepositoryKind::Rpm) => format!("revision {revision}"),
        (None, RepositoryKind::Rpm | RepositoryKind::Git) => "the state".to_owned(),
        (Some(commit), RepositoryKind::Git) => format!("commit {commit}"),
    }
}

fn words(found: &Found, before: Option<&RepositoryLock>) -> String {
    let lock = &found.kept.lock;
    let again = match before {
        Some(before) if before.release == lock.release => ", as it was",
        Some(_) => " in place of the state before",
        None => "",
    };
    let what = match lock.kind {
        RepositoryKind::Deb | RepositoryKind::Rpm => format!("{} packages, signed by {}", lock.packages, lock.signer),
        RepositoryKind::Git if found.kept.lists.contains_key(archive::ARCHIVE) => format!("{} commits", lock.packages),
        RepositoryKind::Git => format!(
            "{} commits; its files alone are too large for {}",
            lock.packages,
            archive::ARCHIVE
        ),
    };
    format!(
        "repository {} is locked to {} of {}{again}: {what}{}",
        lock.name,
        state(lock),
        of_seconds(lock.date),
        from_where(found)
    )
}

fn compared(found: &Found, before: Option<&RepositoryLock>, kept: Option<&Kept>) -> Result<RepositoryCheck, Refused> {
    let lock = &found.kept.lock;
    let now = fetch::packages(&found.kept).map_err(Refused::Internal)?;
    let old = kept
        .map(fetch::packages)
        .transpose()
        .map_err(Refused::Internal)?
        .unwrap_or_default();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let added = count(now.keys().filter(|name| !old.contains_key(*name)).count());
    let removed = count(old.keys().filter(|name| !now.contains_key(*name)).count());
    let changed = count(
        now.iter()
            .filter(|(name, one)| old.get(*name).is_some_and(|two| two != *one))
            .count(),
    );
    let current = before.is_some_and(|before| before.release == lock.release);
    let name = &lock.name;
    let words = match before {
        None => format!(
            "{name} is not locked; a lock would be to {} of {}, {} {}",
            state(lock),
            of_seconds(lock.date),
            lock.packages,
            if lock.kind == RepositoryKind::Git {
                "commits"
            } else {
                "packages"
            }
        ),
        Some(_) if current => format!("{name} is locked to what its origin has"),
        Some(before) if lock.kind == RepositoryKind::Git => format!(
            "{name} is locked to {} of {}, and its origin has {} of {}: a new lock would bring {added} commits",
            state(before),
            of_seconds(before.date),
            state(lock),
            of_seconds(lock.date)
        ),
        Some(before) => format!(
            "{name} is locked to {}, and its origin has {}: a new lock would bring {added} packages, take away {removed} and \
             change {changed}",
            of_seconds(before.date),
            of_seconds(lock.date)
        ),
    };
    Ok(RepositoryCheck {
        name: name.clone(),
        current,
        locked_date: before.map(|before| of_seconds(before.date)),
        found_date: of_seconds(lock.date),
        stored: found.stored.map(of_seconds),
        added,
        removed,
        changed,
        words: words + &from_where(found),
    })
}
