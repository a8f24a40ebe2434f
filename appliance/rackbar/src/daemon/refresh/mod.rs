//! Refreshing images of the catalogue from their publishers: one job per image, which changes nothing before all is proven.

mod fetch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rackbar_artifacts::images::Images;
use rackbar_control::operations::{ImagePin, ImageRefresh, RefreshState, Refused};
use rackbar_model::{EventKind, ImageEntry, Severity, Timestamp, Upstream};
use rackbar_orchestrator::Rack;
use rackbar_orchestrator::executor::Executor;
use rackbar_proxy::origin::{Origins, check_url};
use rackbar_proxy::{Mode, Settings};
use rackbar_services::EventSink as _;
use rackbar_upstream::{Keyring, Sums};

use super::cache::CacheDoor;
use super::refusals::of_image;

/// Jobs under way and the last ended one of each image.
#[derive(Clone)]
pub(super) struct Refreshes {
    rack: Rack,
    executor: Executor,
    images: Option<Arc<Images>>,
    cache: CacheDoor,
    jobs: Arc<Mutex<BTreeMap<String, ImageRefresh>>>,
}

/// One refresh.
struct Job {
    all: Refreshes,
    images: Arc<Images>,
    origins: Origins,
    old: Arc<ImageEntry>,
    upstream: Upstream,
}

/// What came of one that did not fail.
enum End {
    Current(String),
    Replaced(String),
}

impl Refreshes {
    pub(super) fn new(rack: Rack, executor: Executor, images: Option<Arc<Images>>, cache: CacheDoor) -> Self {
        let jobs = Arc::default();
        Self {
            rack,
            executor,
            images,
            cache,
            jobs,
        }
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<String, ImageRefresh>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn images(&self) -> Result<Arc<Images>, Refused> {
        let none = || Refused::Unavailable("there is no image catalogue; the events say why".into());
        self.images.clone().ok_or_else(none)
    }

    /// Says where an image is had from.
    pub(super) fn set_upstream(&self, name: &str, upstream: Upstream) -> Result<String, Refused> {
        let images = self.images()?;
        let signers = check(&upstream).map_err(Refused::Invalid)?;
        self.idle(name)?;
        let from = upstream.asked().to_owned();
        images.set_upstream(name, upstream).map_err(|error| of_image(&error))?;
        Ok(format!(
            "{name} is had from {from}, signed by {}; `rackbar os refresh {name}` looks there",
            signers.join(" or ")
        ))
    }

    /// Keeps an image as it is, or lets it be refreshed again.
    pub(super) fn pin(&self, name: &str, pin: &ImagePin) -> Result<String, Refused> {
        self.images()?.pin(name, pin.pinned).map_err(|error| of_image(&error))?;
        Ok(match pin.pinned {
            true => format!("{name} is pinned: it stays as it is, whatever its publisher offers"),
            false => format!("{name} may be refreshed again"),
        })
    }

    /// How the last refresh of an image goes or went.
    pub(super) fn show(&self, name: &str) -> Result<ImageRefresh, Refused> {
        let none = || Refused::NotFound(format!("{name} was not refreshed since the appliance started"));
        self.jobs().get(name).cloned().ok_or_else(none)
    }

    fn idle(&self, name: &str) -> Result<(), Refused> {
        match self.jobs().get(name) {
            Some(job) if job.ended.is_none() => {
                let words = format!("{name} is being refreshed right now ({}); wait for its end", job.words);
                Err(Refused::Conflict(words))
            }
            _ => Ok(()),
        }
    }

    /// Begins to refresh an image.
    pub(super) fn begin(&self, name: &str) -> Result<ImageRefresh, Refused> {
        let images = self.images()?;
        // Nothing is held longer than a run needs it, and what is let go makes room.
        images.release(&self.executor.images_in_use());
        let job = self.job(images, name)?;
        let begun = ImageRefresh {
            image: name.to_owned(),
            state: RefreshState::Asking,
            words: format!("asking {}", job.upstream.asked()),
            bytes: 0,
            total: None,
            began: now(),
            ended: None,
        };
        {
            let mut jobs = self.jobs();
            if jobs.get(name).is_some_and(|job| job.ended.is_none()) {
                drop(jobs);
                self.idle(name)?;
                return Err(Refused::Conflict(format!("a refresh of {name} just ended; ask again")));
            }
            jobs.insert(name.to_owned(), begun.clone());
        }
        let (all, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            let outcome = job.run().await;
            all.end(&name, outcome);
        });
        Ok(begun)
    }

    fn job(&self, images: Arc<Images>, name: &str) -> Result<Job, Refused> {
        if let Some(pack) = images.pack_of(name) {
            let words = format!("image {name} is part of the data pack {pack}, which brings a newer one itself");
            return Err(Refused::Conflict(words));
        }
        let unknown = || {
            Refused::NotFound(format!(
                "no image is named {name}; `rackbar os list` shows those that are here"
            ))
        };
        let old = images.get(name).ok_or_else(unknown)?;
        let upkeep = images.upkeep(name);
        if upkeep.pinned.is_some() {
            let words = format!(
                "image {name} is pinned, so it stays as it is; `rackbar os pin {name} --undo` lets it be refreshed"
            );
            return Err(Refused::Conflict(words));
        }
        let upstream = upkeep.upstream.ok_or_else(|| {
            Refused::Conflict(format!(
                "nobody said where {name} is had from and who signs it; `rackbar os refresh {name} --upstream FILE.toml` does"
            ))
        })?;
        let settings = self.cache.open().map(|(proxy, _)| proxy.settings());
        let settings = settings.unwrap_or_else(|| Arc::new(Settings::default()));
        if settings.mode == Mode::Offline {
            let words = "the proxy is offline, so nobody outside is asked; `rackbar cache mode online` changes that";
            return Err(Refused::Conflict(words.into()));
        }
        Ok(Job {
            all: self.clone(),
            images,
            origins: Origins::new(settings.rule.clone(), &settings.roots, settings.parent.clone()),
            old,
            upstream,
        })
    }

    fn end(&self, name: &str, outcome: Result<End, String>) {
        let (state, words, severity) = match outcome {
            Ok(End::Current(words)) => (RefreshState::Current, words, Severity::Info),
            Ok(End::Replaced(words)) => (RefreshState::Replaced, words, Severity::Info),
            Err(words) => (
                RefreshState::Failed,
                format!("{name} was not refreshed and is as it was: {words}"),
                Severity::Warning,
            ),
        };
        let text = words.clone();
        self.note(name, |job| {
            job.state = state;
            job.words = words;
            job.ended = Some(now());
        });
        if state != RefreshState::Current {
            self.rack.event(None, EventKind::Note { text, severity });
        }
    }

    fn note(&self, name: &str, change: impl FnOnce(&mut ImageRefresh)) {
        if let Some(job) = self.jobs().get_mut(name) {
            change(job);
        }
    }
}

/// Whether a refresh from there could be proven; gives the fingerprints of those who may sign.
fn check(upstream: &Upstream) -> Result<Vec<String>, String> {
    let url = |what: &str, url: &str| check_url(url).map_err(|error| format!("{what} {url:?}: {error}"));
    match upstream {
        Upstream::Sums {
            sums, signature, file, ..
        } => {
            url("sums", sums)?;
            signature.iter().try_for_each(|one| url("signature", one))?;
            // Of an empty list nothing is to be had, but a pattern that is none is told.
            match Sums::default().find(file) {
                Err(rackbar_upstream::SumsError::Missing(_)) | Ok(_) => {}
                Err(error) => return Err(format!("file: {error}")),
            }
        }
        Upstream::DebianInstaller { archive, suite, .. } => {
            url("archive", archive)?;
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/');
            if suite.is_empty() || suite.starts_with('/') || suite.contains("..") || !suite.chars().all(plain) {
                return Err(format!("suite {suite:?}: name one, such as \"bookworm\""));
            }
        }
    }
    let ring = Keyring::read(upstream.keys().as_bytes()).map_err(|error| format!("keys: {error}"))?;
    Ok(ring.fingerprints())
}

fn now() -> Timestamp {
    Timestamp(seconds().saturating_mul(1000))
}

/// The clock, in seconds since 1970.
fn seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
