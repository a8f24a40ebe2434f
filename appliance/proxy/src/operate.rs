//! What an operator does with the cache.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use rackbar_model::{Digest, Severity, Timestamp};

use crate::fetch::{Ask, How, Phase};
use crate::metrics::Sample;
use crate::pinning::{mirrors_below, prefix, unknown_mirror};
use crate::rules::target::{Url, mirror_of};
use crate::settings::Mode;
use crate::store::{Entry, StoreError};
use crate::{Proxy, now};

/// Why an operation on the cache was not done; a sentence each.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The key is none.
    #[error(
        "{0:?} is neither a URL nor mirror:NAME/PATH of a mirror in the [proxy] section of rackbar.toml, nor either of them with * \
         at its end"
    )]
    Key(String),
    /// There is no such mirror.
    #[error("{0}")]
    Mirror(String),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be fetched.
    #[error("{0}")]
    Fetch(String),
    /// The origin gave none, and what was stored before stands in for it.
    #[error(
        "{key}: the origin gave nothing, or an error; what is stored is from {}, and stays",
        Timestamp(stored.saturating_mul(1000))
    )]
    Stands {
        /// What was asked for.
        key: String,
        /// When what is stored came or was last found to hold, in seconds since 1970.
        stored: u64,
    },
}

/// A stored answer as an operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// What it answers.
    pub key: String,
    /// SHA-256 of its content.
    pub digest: Digest,
    /// Bytes of its content.
    pub size: u64,
    /// When it came or was last found to hold, in seconds since 1970.
    pub stored: u64,
    /// When it was used last.
    pub used: u64,
    /// Answers given from it since the start.
    pub hits: u64,
    /// It is never evicted.
    pub pinned: bool,
    /// For how many seconds more it is fresh; negative when stale.
    pub fresh_seconds: i64,
    /// The data pack it lies in.
    pub pack: Option<String>,
}

/// What a look at all objects found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// Objects that are what they were.
    pub whole: u64,
    /// Objects that were not, and are gone: they will be fetched again.
    pub damaged: u64,
    /// Objects that could not be read, and stay: the disk, or the system, gave an error that says nothing of them.
    pub unreadable: u64,
}

impl Proxy {
    fn ask_key(&self, key: &str) -> Result<Ask, CacheError> {
        let none = HeaderMap::new();
        let wrong = || CacheError::Key(key.to_owned());
        match mirror_of(key) {
            Some((name, path)) => {
                let unknown = || CacheError::Mirror(unknown_mirror(&self.settings(), name));
                self.ask_mirror(name, path, &none).ok_or_else(unknown)
            }
            None => {
                let url = Url::parse(key).ok_or_else(wrong)?;
                self.ask_url(&url, &none)
                    .map_err(|refusal| CacheError::Fetch(refusal.to_string()))
            }
        }
    }

    /// All stored answers, sorted by key.
    pub fn list(&self) -> Vec<Item> {
        let now = now();
        let item = |entry: &Arc<Entry>| Item {
            key: entry.record.key.clone(),
            digest: entry.record.digest,
            size: entry.record.size,
            stored: entry.record.response_time,
            used: entry.used() / 1000,
            hits: entry.hits(),
            pinned: entry.pinned(),
            fresh_seconds: entry.fresh.left(now),
            pack: entry.pack.as_deref().map(str::to_owned),
        };
        self.store.entries().iter().map(item).collect()
    }

    /// Keys and prefixes that are never evicted.
    pub fn pins(&self) -> Vec<String> {
        self.store.pins()
    }

    /// Pins what was served in the recording mode and is not pinned yet. Blocks while it writes.
    pub(crate) fn pin_noted(&self) {
        if let Err(error) = self.store.pin_noted() {
            (self.tell)(
                Severity::Warning,
                format!("what was served while recording is not pinned yet: {error}"),
            );
        }
    }

    /// Bytes of objects, and the budget for them.
    pub fn usage(&self) -> (u64, u64) {
        self.store.usage()
    }

    /// What a pin is kept as: the key of what it names, where that is a mirror's the mirror's key; for a prefix that ends in `*` the
    /// same with a `*`.
    ///
    /// # Errors
    /// When it is no key, or a mirror's that does not exist.
    pub fn pinned_as(&self, pattern: &str) -> Result<String, CacheError> {
        match pattern.strip_suffix('*') {
            Some(start) => prefix(&self.settings(), start).map(|start| start + "*"),
            None => self.ask_key(pattern).map(|ask| ask.key),
        }
    }

    /// Mirrors with an upstream below a prefix of URLs that ends in `*`, which a pin of that leaves out: what they have is
    /// stored under keys of their own.
    pub fn pin_leaves_out(&self, pattern: &str) -> Vec<String> {
        let start = pattern.strip_suffix('*');
        start.map_or_else(Vec::new, |start| mirrors_below(&self.settings(), start))
    }

    /// Pins a key, fetching it when it is not stored, or a prefix that ends in `*`. How many stored answers it covers. They outlast
    /// a power cut from then on.
    ///
    /// # Errors
    /// When it is no key, cannot be written, or cannot be fetched; it stays pinned in the last case.
    pub async fn pin(self: &Arc<Self>, pattern: &str) -> Result<usize, CacheError> {
        if pattern.ends_with('*') {
            let covered = self.store.pin(&self.pinned_as(pattern)?, true)?;
            return self.settle().await.map(|()| covered);
        }
        let ask = self.ask_key(pattern)?;
        let mut covered = self.store.pin(&ask.key, true)?;
        if covered == 0 {
            self.fetch(ask).await?;
            covered = 1;
        }
        self.settle().await.map(|()| covered)
    }

    /// Waits until all that is stored and pinned by now outlasts a power cut.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn settle(self: &Arc<Self>) -> Result<(), CacheError> {
        let store = self.store.clone();
        let settled = tokio::task::spawn_blocking(move || store.settle()).await;
        Ok(settled.map_err(|error| CacheError::Fetch(error.to_string()))??)
    }

    /// Takes a pin back, also one that could not be given any more: of a mirror that is gone, or as it was written before a
    /// mirror had the URL. How many stored answers it covered.
    ///
    /// # Errors
    /// When the list of pins cannot be written.
    pub fn unpin(&self, pattern: &str) -> Result<usize, CacheError> {
        let key = self.pinned_as(pattern).unwrap_or_else(|_| pattern.to_owned());
        let mut covered = self.store.pin(&key, false)?;
        if key != pattern {
            covered += self.store.pin(pattern, false)?;
        }
        Ok(covered)
    }

    /// Asks the origin whether what is stored still holds, and fetches it when it does not, or is not stored.
    ///
    /// # Errors
    /// When it is no key, or no origin answers, also where what is stored stands in for its answer.
    pub async fn refresh(self: &Arc<Self>, key: &str) -> Result<(), CacheError> {
        let ask = self.ask_key(key)?;
        let key = ask.key.clone();
        match self.fetch(ask).await? {
            Some(stored) => Err(CacheError::Stands { key, stored }),
            None => Ok(()),
        }
    }

    /// Has the origin asked. When it gave nothing and what was stored before stands in for it: of when that is, in seconds since
    /// 1970.
    pub(crate) async fn fetch(self: &Arc<Self>, ask: Ask) -> Result<Option<u64>, CacheError> {
        if self.settings().mode == Mode::Offline {
            return Err(CacheError::Fetch(format!(
                "{}: the proxy is offline and asks no origin; `rackbar cache mode online` lets it",
                ask.key
            )));
        }
        self.compare(&ask).await;
        let stale = self.stored(&ask, &ask.headers).0;
        let seat = self.flights.board(&ask.flight());
        let mut phases = seat.flight.phase.subscribe();
        if let Some(lead) = seat.lead {
            let (name, flight) = (ask.flight(), seat.flight.clone());
            tokio::spawn(self.clone().fly(name, flight, ask.clone(), stale, lead));
        }
        let fail = |text: String| Err(CacheError::Fetch(format!("{}: {text}", ask.key)));
        loop {
            let phase = phases.borrow_and_update().clone();
            match phase {
                Phase::Entry(entry, How::StaleIfError) => return Ok(Some(entry.record.response_time)),
                Phase::Entry(..) => return Ok(None),
                Phase::Small(small) => return fail(format!("the origin answers {}", small.status)),
                Phase::Private(why) => return fail(format!("it is not to be stored: {why}")),
                Phase::Failed(_, why) => return fail(why.to_string()),
                Phase::Arriving(arriving) => {
                    let mut progress = arriving.progress.subscribe();
                    let end = progress
                        .wait_for(|progress| progress.end != crate::fetch::End::Open)
                        .await;
                    if end.is_ok_and(|progress| progress.end == crate::fetch::End::Whole) {
                        // Kept or not, the flight is over then.
                        while self.flights.is_flying(&ask.flight(), &seat.flight) {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        if let Phase::Private(why) = &*phases.borrow() {
                            return fail(format!("it came and was not kept: {why}"));
                        }
                        return Ok(None);
                    }
                }
                Phase::Asking => {}
            }
            if phases.changed().await.is_err() {
                return fail("the fetch was given up".into());
            }
        }
    }

    /// Hashes every object. Damaged ones are dropped. Blocks while it reads all there is.
    pub fn verify(&self) -> Verified {
        let mut out = Verified::default();
        let mut seen = std::collections::HashSet::new();
        for entry in self.store.entries() {
            // The same content may be of our own and in a pack: each can be damaged without the other.
            if seen.insert(Arc::as_ptr(&entry.object)) {
                match self.store.check(&entry.object) {
                    Ok(()) => out.whole += 1,
                    Err(StoreError::Damaged(_) | StoreError::DamagedPack(..)) => out.damaged += 1,
                    Err(_) => out.unreadable += 1,
                }
            }
        }
        out
    }

    /// All counters, and how full the store is.
    pub fn samples(&self) -> Vec<Sample> {
        let (used, budget) = self.store.usage();
        let (entries, objects) = self.store.counts();
        let gauge = |name, help, value| Sample {
            name,
            help,
            gauge: true,
            value,
        };
        let mut all = self.metrics.samples();
        all.extend([
            gauge("rackbar_proxy_store_bytes", "Bytes of stored contents.", used),
            gauge(
                "rackbar_proxy_store_budget_bytes",
                "Bytes that stored contents may take.",
                budget,
            ),
            gauge("rackbar_proxy_store_entries", "Stored answers.", entries as u64),
            gauge("rackbar_proxy_store_objects", "Stored contents.", objects as u64),
            gauge(
                "rackbar_proxy_fetches",
                "Fetches under way.",
                self.flights.count() as u64,
            ),
        ]);
        all
    }
}
