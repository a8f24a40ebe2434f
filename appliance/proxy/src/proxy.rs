//! The proxy as a whole, and what an operator does with it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use rackbar_model::{Digest, Severity};
use tokio::sync::Semaphore;

use crate::fetch::{Ask, Flights, How, Phase, Upstream};
use crate::index;
use crate::metrics::{Metrics, Sample};
use crate::mirrors::Mirrors;
use crate::origin::Origins;
use crate::promises::Promises;
use crate::repositories::Repositories;
use crate::rules::cache_control::CacheControl;
use crate::rules::destination::Refusal;
use crate::rules::target::{Url, digest_in, mirror_key, mirror_of};
use crate::settings::{Mode, Settings};
use crate::store::{Entry, Store, StoreError};
use crate::{Tell, Watch, now};

/// So many contents that did not fit are remembered, for so many seconds.
const TOO_LARGE_MOST: usize = 256;
const TOO_LARGE_FOR: u64 = 3600;

/// Why an operation on the cache was not done; a sentence each.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The key is none.
    #[error(
        "{0:?} is neither a URL nor mirror:NAME/PATH of a mirror in the [proxy] section of rackbar.toml, nor either of them with * \
         at its end"
    )]
    Key(String),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be fetched.
    #[error("{0}")]
    Fetch(String),
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
}

/// The mirror that a URL belongs to, with the path there, and the number of the upstream it lies below.
pub(crate) fn mirrored<'a>(settings: &'a Settings, url: &'a Url) -> Option<(&'a str, &'a str, usize)> {
    settings.mirrors.iter().find_map(|mirror| {
        let mut bases = mirror.upstreams.iter().enumerate();
        let (index, path) = bases.find_map(|(index, base)| Some((index, url.below(base)?)))?;
        Some((mirror.name.as_str(), path, index))
    })
}

/// The proxy.
pub struct Proxy {
    pub(crate) store: Arc<Store>,
    pub(crate) flights: Flights,
    pub(crate) mirrors: Mirrors,
    pub(crate) metrics: Metrics,
    pub(crate) origins: Origins,
    pub(crate) tell: Tell,
    watch: OnceLock<Watch>,
    /// How we name ourselves in `Via`.
    pub(crate) via: HeaderValue,
    promises: Promises,
    pub(crate) repositories: Repositories,
    settings: RwLock<Arc<Settings>>,
    began: Instant,
    told_of_room: AtomicU64,
    /// Keys whose content, of a size nobody knew, did not fit, with the time until when they are passed on unstored.
    too_large: Mutex<VecDeque<(String, u64)>>,
    /// Indexes that came are read one after the other: reading one may take a hundred MiB.
    learning: Arc<Semaphore>,
    /// Held by whoever reads all indexes there are.
    learning_all: Mutex<()>,
}

impl Proxy {
    /// Opens the store in `folder`.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn open(folder: &Path, settings: Settings, tell: Tell) -> Result<Arc<Self>, StoreError> {
        let store = Arc::new(Store::open(folder, settings.budget, tell.clone())?);
        let name = rackbar_trust::random::<4>().map_or(0, u32::from_be_bytes);
        let via = HeaderValue::from_str(&format!("1.1 rackbar-{name:08x}"));
        let proxy = Self {
            store,
            flights: Flights::default(),
            mirrors: Mirrors::default(),
            metrics: Metrics::default(),
            origins: Origins::new(settings.rule.clone(), &settings.roots),
            tell,
            watch: OnceLock::new(),
            via: via.unwrap_or_else(|_| HeaderValue::from_static("1.1 rackbar")),
            promises: Promises::default(),
            repositories: Repositories::default(),
            settings: RwLock::default(),
            began: Instant::now(),
            told_of_room: AtomicU64::new(0),
            too_large: Mutex::default(),
            learning: Arc::new(Semaphore::new(1)),
            learning_all: Mutex::default(),
        };
        proxy.set(settings);
        Ok(Arc::new(proxy))
    }

    /// Puts settings in force, but for the places to listen and the roots.
    pub fn set(&self, settings: Settings) {
        self.mirrors.set(&settings.mirrors);
        self.store.set_budget(settings.budget);
        self.origins.set_rule(settings.rule.clone());
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// Has every answer told to `watch` from now on; the first one that is given stays.
    pub fn set_watch(&self, watch: Watch) {
        let _ = self.watch.set(watch);
    }

    pub(crate) fn answered(&self, client: IpAddr, target: &str, status: u16) {
        if let Some(watch) = self.watch.get() {
            watch(client.to_canonical(), target, status);
        }
    }

    /// What is in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the mode until the settings are replaced.
    pub fn set_mode(&self, mode: Mode) {
        let mut settings = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        *settings = Arc::new(Settings {
            mode,
            ..Settings::clone(&settings)
        });
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether a minute has passed since this was last asked for: a full disk is not told of at every request.
    pub(crate) fn first_in_a_minute(&self) -> bool {
        let (now, last) = (now(), self.told_of_room.load(Ordering::Relaxed));
        now >= last.saturating_add(60)
            && self
                .told_of_room
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Notes that a content of unknown size did not fit: whoever asks again gets it without its being stored.
    pub(crate) fn note_too_large(&self, key: &str) {
        let mut all = self.too_large.lock().unwrap_or_else(PoisonError::into_inner);
        all.truncate(TOO_LARGE_MOST - 1);
        all.push_front((key.to_owned(), now().saturating_add(TOO_LARGE_FOR)));
    }

    pub(crate) fn is_too_large(&self, key: &str) -> bool {
        let mut all = self.too_large.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        all.retain(|(_, until)| *until > now);
        all.iter().any(|(other, _)| other == key)
    }

    /// The digest that the content of a key must have.
    pub(crate) fn expected(&self, key: &str) -> Option<Digest> {
        digest_in(key).or_else(|| self.promises.of(key))
    }

    /// Reads the digests in an index that came, in the background.
    pub(crate) fn learn(self: &Arc<Self>, entry: &Arc<Entry>) {
        let wanted = entry.record.status == 200 && index::kind_of(&entry.record.key).is_some();
        if wanted {
            let (proxy, entry) = (self.clone(), entry.clone());
            tokio::spawn(async move {
                // Whoever waits here holds no thread, so that contents go on being stored meanwhile.
                let turn = proxy.learning.clone().acquire_owned().await;
                drop(
                    tokio::task::spawn_blocking(move || {
                        proxy.learn_now(&entry);
                        drop(turn);
                    })
                    .await,
                );
            });
        }
    }

    fn learn_now(&self, entry: &Entry) {
        let Some((kind, root)) = index::kind_of(&self.key_here(&entry.record.key)) else {
            return;
        };
        // What lies in a pack was not hashed when it came, and shall promise nothing before it is.
        if entry.pack.is_some() && self.store.check(&entry.object).is_err() {
            return;
        }
        let read = entry
            .object
            .reader()
            .map_err(|error| error.to_string())
            .and_then(|bytes| {
                let read = index::read(&kind, bytes, &mut |path, digest| {
                    self.promises.add(&format!("{root}{path}"), digest);
                });
                read.map_err(|error| error.to_string())
            });
        if let Err(error) = read {
            (self.tell)(
                Severity::Warning,
                format!("{} cannot be read as an index: {error}", entry.record.key),
            );
        }
    }

    /// Reads all indexes of packages that are stored: at the start, and when a pack came. Blocks while it reads.
    pub fn learn_all(&self) {
        let _turn = self.learning_all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.store.entries();
        // What came later speaks last.
        all.sort_by_key(|entry| entry.record.response_time);
        all.iter()
            .filter(|entry| entry.record.status == 200)
            .for_each(|entry| self.learn_now(entry));
    }

    /// What a URL that a client names is asked for with.
    pub(crate) fn ask_url(&self, url: &Url, client: &HeaderMap) -> Result<Ask, Refusal> {
        let settings = self.settings();
        let of_mirror =
            mirrored(&settings, url).and_then(|(name, path, named)| self.ask_upstream(name, path, named, client));
        if let Some(ask) = of_mirror {
            return Ok(ask);
        }
        settings.rule.name(&url.host)?;
        settings.rule.port(url.port, false)?;
        let key = url.to_string();
        let upstreams = vec![Upstream {
            url: url.clone(),
            trusted: false,
            index: 0,
            named: true,
        }];
        Ok(self.ask(key, None, upstreams, client))
    }

    /// What a path of a mirror is asked for with; `None` when there is no such mirror.
    pub(crate) fn ask_mirror(&self, name: &str, path: &str, client: &HeaderMap) -> Option<Ask> {
        self.ask_upstream(name, path, 0, client)
    }

    /// The same for a client that named the upstream with this number.
    fn ask_upstream(&self, name: &str, path: &str, named: usize, client: &HeaderMap) -> Option<Ask> {
        let settings = self.settings();
        let mirror = settings.mirrors.iter().find(|mirror| mirror.name == name)?;
        let key = mirror_key(name, path);
        let (_, path) = mirror_of(&key)?;
        let upstream = |(index, url): (usize, &Url)| Upstream {
            url: url.join(path),
            trusted: true,
            index,
            named: index == named,
        };
        let upstreams = mirror.upstreams.iter().enumerate().map(upstream).collect();
        Some(self.ask(key.clone(), Some(name.to_owned()), upstreams, client))
    }

    fn ask(&self, key: String, mirror: Option<String>, upstreams: Vec<Upstream>, client: &HeaderMap) -> Ask {
        Ask {
            expected: self.expected(&key),
            key,
            mirror,
            upstreams,
            headers: Ask::forwarded(client, &self.via),
            wanted: CacheControl::of(client, true),
            strict: false,
        }
    }

    fn ask_key(&self, key: &str) -> Result<Ask, CacheError> {
        let none = HeaderMap::new();
        let wrong = || CacheError::Key(key.to_owned());
        match mirror_of(key) {
            Some((name, path)) => self.ask_mirror(name, path, &none).ok_or_else(wrong),
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

    /// Pins a key, fetching it when it is not stored, or a prefix that ends in `*`. How many stored answers it covers.
    ///
    /// # Errors
    /// When it is no key, cannot be written, or cannot be fetched; it stays pinned in the last case.
    pub async fn pin(self: &Arc<Self>, pattern: &str) -> Result<usize, CacheError> {
        if let Some(start) = pattern.strip_suffix('*') {
            let sound = start.starts_with("mirror:") || start.starts_with("http://") || start.starts_with("https://");
            if !sound || start.contains(['\n', '\r']) {
                return Err(CacheError::Key(pattern.to_owned()));
            }
            return Ok(self.store.pin(pattern, true)?);
        }
        let ask = self.ask_key(pattern)?;
        let covered = self.store.pin(&ask.key, true)?;
        if covered > 0 {
            return Ok(covered);
        }
        self.fetch(ask).await?;
        Ok(1)
    }

    /// Takes a pin back. How many stored answers it covered.
    ///
    /// # Errors
    /// When the list of pins cannot be written.
    pub fn unpin(&self, pattern: &str) -> Result<usize, CacheError> {
        let key = self.ask_key(pattern).map_or_else(|_| pattern.to_owned(), |ask| ask.key);
        let covered = self.store.pin(&key, false)?;
        if key != pattern {
            self.store.pin(pattern, false)?;
        }
        Ok(covered)
    }

    /// Asks the origin whether what is stored still holds, and fetches it when it does not, or is not stored.
    ///
    /// # Errors
    /// When it is no key, or no origin answers.
    pub async fn refresh(self: &Arc<Self>, key: &str) -> Result<(), CacheError> {
        let ask = self.ask_key(key)?;
        self.fetch(ask).await.map(drop)
    }

    /// Has the origin asked; true when it gave nothing, and what was stored before stands in for it.
    pub(crate) async fn fetch(self: &Arc<Self>, ask: Ask) -> Result<bool, CacheError> {
        if self.settings().mode == Mode::Offline {
            return Err(CacheError::Fetch(format!(
                "{}: the proxy is offline and asks no origin; `rackbar cache mode online` lets it",
                ask.key
            )));
        }
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
                Phase::Entry(_, how) => return Ok(how == How::StaleIfError),
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
                        return Ok(false);
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
            if seen.insert(entry.object.digest) {
                match self.store.check(&entry.object) {
                    Ok(()) => out.whole += 1,
                    Err(_) => out.damaged += 1,
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
