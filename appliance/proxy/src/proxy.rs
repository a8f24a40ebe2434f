//! The proxy as a whole.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use rackbar_model::Severity;
use rackbar_upstream::Sum;
use tokio::sync::Semaphore;

use crate::crowd::Crowd;
use crate::fetch::{Ask, Flights, Upstream};
use crate::index::{self, Kind};
use crate::metrics::Metrics;
use crate::mirrors::Mirrors;
use crate::origin::Origins;
use crate::promises::{Promises, Turn};
use crate::repositories::Repositories;
use crate::rules::cache_control::CacheControl;
use crate::rules::destination::Refusal;
use crate::rules::target::{Url, digest_in, mirror_key, mirror_of, without_query};
use crate::settings::{Mode, Settings};
use crate::store::{Entry, Store};
use crate::{Tell, Watch, now};

/// So many contents that did not fit are remembered, for so many seconds.
const TOO_LARGE_MOST: usize = 256;
const TOO_LARGE_FOR: u64 = 3600;

/// The mirror that a URL belongs to, with the path there, and the number of the upstream it lies below.
pub(crate) fn mirrored<'a>(settings: &'a Settings, url: &'a Url) -> Option<(&'a str, &'a str, usize)> {
    settings.mirrors.iter().find_map(|mirror| {
        let mut bases = mirror.upstreams.iter().enumerate();
        let (index, path) = bases.find_map(|(index, base)| Some((index, url.below(base)?)))?;
        Some((mirror.name.as_str(), path, index))
    })
}

/// The settings, and the mode that they had before somebody ordered another.
#[derive(Default)]
struct InForce {
    settings: Arc<Settings>,
    configured: Mode,
}

/// The proxy.
pub struct Proxy {
    pub(crate) store: Arc<Store>,
    pub(crate) flights: Flights,
    pub(crate) mirrors: Mirrors,
    pub(crate) metrics: Metrics,
    pub(crate) origins: Origins,
    pub(crate) crowd: Arc<Crowd>,
    pub(crate) tell: Tell,
    watch: OnceLock<Watch>,
    /// How we name ourselves in `Via`.
    pub(crate) via: HeaderValue,
    pub(crate) promises: Promises,
    pub(crate) repositories: Repositories,
    settings: RwLock<InForce>,
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
    /// Opens the store in `folder`. When that cannot be done, everything passes through, nothing in the folder is touched,
    /// and the operator is told.
    pub fn open(folder: &Path, settings: Settings, tell: Tell) -> Arc<Self> {
        let store = Store::open(folder, settings.budget, settings.entries_memory, tell.clone());
        let store = Arc::new(store.unwrap_or_else(|error| {
            let store = Store::shut(folder, &error, tell.clone());
            store
                .trouble()
                .iter()
                .for_each(|why| tell(Severity::Error, why.clone()));
            store
        }));
        let name = rackbar_trust::random::<4>().map_or(0, u32::from_be_bytes);
        let via = HeaderValue::from_str(&format!("1.1 rackbar-{name:08x}"));
        let proxy = Self {
            store,
            flights: Flights::default(),
            mirrors: Mirrors::default(),
            metrics: Metrics::default(),
            origins: Origins::new(settings.rule.clone(), &settings.roots, settings.parent.clone()),
            crowd: Arc::default(),
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
        Arc::new(proxy)
    }

    /// Why nothing is stored, when its folder could not be read.
    pub fn trouble(&self) -> Option<String> {
        self.store.trouble()
    }

    /// Puts settings in force, but for the places to listen, the roots and the parent. A mode that was ordered stays until these have
    /// another mode than the settings before them.
    pub fn set(&self, mut settings: Settings) {
        self.mirrors.set(&settings.mirrors);
        self.store.set_limits(settings.budget, settings.entries_memory);
        self.origins.set_rule(settings.rule.clone());
        let mut now = self.in_force();
        let before = now.settings.mode;
        if settings.mode == now.configured {
            settings.mode = before;
        } else {
            if before != now.configured {
                let text = format!(
                    "the proxy was ordered to be {before}; its settings now make it {}",
                    settings.mode
                );
                (self.tell)(Severity::Warning, text);
            }
            now.configured = settings.mode;
        }
        now.settings = Arc::new(settings);
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

    fn in_force(&self) -> RwLockWriteGuard<'_, InForce> {
        self.settings.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in force.
    pub fn settings(&self) -> Arc<Settings> {
        let now = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        now.settings.clone()
    }

    /// Changes the mode until settings with another mode than now are put in force.
    pub fn set_mode(&self, mode: Mode) {
        let mut now = self.in_force();
        now.settings = Arc::new(Settings {
            mode,
            ..Settings::clone(&now.settings)
        });
    }

    /// The mode that was ordered, when it is another than the settings'.
    pub fn ordered_mode(&self) -> Option<Mode> {
        let now = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        Some(now.settings.mode).filter(|mode| *mode != now.configured)
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
    pub(crate) fn expected(&self, key: &str) -> Option<Sum> {
        let named = digest_in(key).map(|digest| Sum::Sha256(digest.0));
        named.or_else(|| self.promises.of_key(key))
    }

    /// Reads the digests in an index that came, in the background.
    pub(crate) fn learn(self: &Arc<Self>, entry: &Arc<Entry>) {
        let wanted = entry.record.status == 200 && index::kind_of(&entry.record.key).is_some();
        if wanted {
            let (proxy, entry, came) = (self.clone(), entry.clone(), self.promises.turn());
            tokio::spawn(async move {
                // Whoever waits here holds no thread, so that contents go on being stored meanwhile.
                let turn = proxy.learning.clone().acquire_owned().await;
                drop(
                    tokio::task::spawn_blocking(move || {
                        proxy.learn_now(&entry, came);
                        drop(turn);
                    })
                    .await,
                );
            });
        }
    }

    fn learn_now(&self, entry: &Entry, came: Turn) {
        let Some((kind, root)) = index::kind_of(&self.key_here(&entry.record.key)) else {
            return;
        };
        // What lies in a pack was not hashed when it came, nor what lay on our disk since before the start: it shall promise
        // nothing before it is.
        if !entry.object.known() && self.store.check(&entry.object).is_err() {
            return;
        }
        match entry.object.reader() {
            Ok(bytes) => self.take_promises(&entry.record.key, (&kind, &root), came, bytes),
            Err(error) => self.tell_of_unread(&entry.record.key, &error),
        }
    }

    /// Takes over what an index promises that came at this turn.
    pub(crate) fn take_promises(&self, key: &str, (kind, root): (&Kind, &str), came: Turn, bytes: impl std::io::Read) {
        let mut reading = self.promises.read(root, came);
        let mut lost = 0u64;
        let read = index::read(kind, bytes, &mut |path, sum| {
            lost += u64::from(!self.promises.add(&mut reading, &format!("{root}{path}"), sum));
        });
        self.tell_of_lost(key, lost);
        if let Err(error) = read {
            self.tell_of_unread(key, &error);
        }
    }

    fn tell_of_unread(&self, key: &str, error: &dyn std::error::Error) {
        let text = format!("{} cannot be read as an index: {error}", without_query(key));
        (self.tell)(Severity::Warning, text);
    }

    /// The kind and root of an index that names other indexes, all of which are then asked for at once: what it promises is
    /// known before anybody has it whole.
    pub(crate) fn names_others(&self, key: &str) -> Option<(Kind, String)> {
        let found = index::kind_of(&self.key_here(key));
        found.filter(|(kind, _)| matches!(kind, Kind::Release | Kind::Repomd))
    }

    fn tell_of_lost(&self, key: &str, lost: u64) {
        if lost > 0 {
            let text = format!(
                "{lost} files that {} names are not held to its digests: it names more than are kept of one; the package \
                 managers check them all the same",
                without_query(key)
            );
            (self.tell)(Severity::Warning, text);
        }
    }

    /// Reads all indexes of packages that are stored: at the start, and when a pack came. Blocks while it reads.
    pub fn learn_all(&self) {
        let _turn = self.learning_all.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before all that is there is looked at: what comes after that is later than any of it.
        let turns = self.promises.turns_of_stored();
        let mut all = self.store.entries();
        // What came later speaks last.
        all.sort_by_key(|entry| entry.record.response_time);
        let wanted = all.iter().filter(|entry| entry.record.status == 200);
        wanted.zip(turns).for_each(|(entry, turn)| self.learn_now(entry, turn));
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
        let expected = self.expected(&key);
        let mut headers = Ask::forwarded(client, &self.via);
        if expected.is_some() {
            // A digest is promised of the file itself, and not of what an origin packs for those who take that.
            headers.insert(http::header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        Ask {
            expected,
            key,
            mirror,
            upstreams,
            headers,
            wanted: CacheControl::of(client, true),
            strict: false,
            held: None,
        }
    }
}
