//! Data packs in the daemon: found where they lie, judged by who signed them, and given to the catalogue and the proxy,
//! which read them in place.
//!
//! Of several packs with one name the one made last counts. A pack that is gone takes its images and answers with it.

mod deeds;
mod find;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rackbar_artifacts::images::{Complaint, Images, PackedImage};
use rackbar_control::operations::{PackEntry, PackState, TrustedKey, count};
use rackbar_model::{EventKind, ImageEntry, Severity};
use rackbar_orchestrator::{Executor, Rack};
use rackbar_packs::{Index, Key, Pack, Trust};
use rackbar_proxy::Proxy;
use rackbar_proxy::store::Record;
use rackbar_services::EventSink as _;
use rackbar_trust::{Signer as _, SigningKey};

use super::cache::CacheDoor;
use crate::config::Config;
use find::{Device, Place};

/// Files in a folder that are named like packs.
pub(super) fn in_folder(folder: &Path) -> Vec<PathBuf> {
    find::in_folder(folder).into_iter().map(|place| place.path).collect()
}

/// The folder for packs that are put in, on the data partition.
pub(super) const FOLDER: &str = "packs";

/// The kernel's argument for a key whose packs are taken: boot media name the key of whoever made their packs.
const ARGUMENT: &str = "rackbar.pack_key=";

/// What the packs are started with.
pub(super) struct Start<'a> {
    pub(super) rack: Rack,
    pub(super) executor: Executor,
    pub(super) images: Option<Arc<Images>>,
    pub(super) cache: CacheDoor,
    pub(super) signer: Arc<SigningKey>,
    pub(super) site: &'a str,
    /// Folder of the store.
    pub(super) data: &'a Path,
    /// More folders to look in.
    pub(super) folders: Vec<PathBuf>,
    /// Also look at the machine's disks.
    pub(super) devices: bool,
}

/// All packs. Shared by who asks for something.
#[derive(Clone)]
pub(super) struct Packs(Arc<Shared>);

struct Shared {
    rack: Rack,
    executor: Executor,
    images: Option<Arc<Images>>,
    cache: CacheDoor,
    signer: Arc<SigningKey>,
    site: String,
    /// Where packs that are put in lie.
    own: PathBuf,
    folders: Vec<PathBuf>,
    devices: bool,
    /// Held for as long as a medium takes to answer, so only threads that may wait take it.
    state: Mutex<State>,
    /// A look at all places is under way.
    looking: AtomicBool,
    /// There was a look before.
    looked: AtomicBool,
}

#[derive(Default)]
struct State {
    trust: Trust,
    /// The keys behind it, for people.
    trusted: Vec<TrustedKey>,
    disks: Vec<Device>,
    on_disks: Vec<Place>,
    /// What was there at the last look.
    places: Vec<Place>,
    known: Vec<Known>,
    /// The proxy that has the answers.
    proxy: Option<Arc<Proxy>>,
    /// Numbers temporary files.
    serial: u64,
    /// The daemon ends: nothing is put in use any more.
    ended: bool,
}

/// What lies at a place.
struct Known {
    place: PathBuf,
    pack: Result<Arc<Pack>, String>,
    /// Why it is not in use although it is good.
    hidden: Option<String>,
}

impl Known {
    /// The pack, when it is in use.
    fn in_use(&self) -> Option<&Arc<Pack>> {
        self.pack.as_ref().ok().filter(|_| self.hidden.is_none())
    }

    fn entry(&self, own: &Path) -> PackEntry {
        let place = self.place.display().to_string();
        let removable = self.place.parent() == Some(own);
        let Ok(pack) = &self.pack else {
            return PackEntry {
                place,
                removable,
                name: self
                    .place
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                why_not: self.pack.as_ref().err().cloned(),
                ..PackEntry::default()
            };
        };
        let index = &pack.index;
        PackEntry {
            name: index.name.clone(),
            place,
            in_use: self.hidden.is_none(),
            why_not: self.hidden.clone(),
            removable,
            bytes: pack.total,
            made: index.made,
            by: index.by.clone(),
            note: index.note.clone(),
            key: pack.key.to_string(),
            images: index.images.iter().map(|image| image.name.clone()).collect(),
            answers: index.answers.len() as u64,
        }
    }
}

/// The keys whose signature counts here, each with why: our own, those of the configuration, and those that the kernel's
/// command line names.
pub(super) fn trusted(ours: Key, config: &Config, kernel: &str) -> Vec<(Key, &'static str)> {
    let mut all = vec![(ours, "this appliance's own")];
    all.extend(config.packs.iter().map(|key| (*key, "named in rackbar.toml")));
    let named = kernel
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix(ARGUMENT));
    all.extend(named.filter_map(|key| Some((key.parse().ok()?, "named by the boot medium"))));
    all
}

impl Packs {
    /// With nothing looked at yet.
    pub(super) fn new(start: Start<'_>) -> Self {
        let own = start.data.join(FOLDER);
        deeds::clear(&own);
        Self(Arc::new(Shared {
            rack: start.rack,
            executor: start.executor,
            images: start.images,
            cache: start.cache,
            signer: start.signer,
            site: start.site.to_owned(),
            own,
            folders: start.folders,
            devices: start.devices,
            state: Mutex::default(),
            looking: AtomicBool::new(false),
            looked: AtomicBool::new(false),
        }))
    }

    /// Looks whether packs came or went, and whether others are trusted now. Cheap when nothing changed.
    ///
    /// The first look is waited for, since a run that is taken up again may need an image of a pack. Those that follow have
    /// a thread of their own: a stick that dies keeps whoever reads it waiting for as long as the kernel tries.
    pub(super) fn follow(&self, config: &Config, kernel: &str) {
        let all = trusted(Key(self.0.signer.public_key()), config, kernel);
        if self.0.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let first = !self.0.looked.swap(true, Ordering::AcqRel);
        let shared = self.0.clone();
        let look = move || {
            shared.follow(&all);
            shared.looking.store(false, Ordering::Release);
        };
        if first {
            look();
        } else {
            drop(tokio::task::spawn_blocking(look));
        }
    }

    /// Gives up what is mounted; the proxy may be stopped then.
    pub(super) fn stop(&self) {
        let mut state = self.0.state();
        state.proxy = None;
        state.ended = true;
    }

    /// All packs. May wait for a medium.
    pub(super) fn entries(&self) -> Vec<PackEntry> {
        let state = self.0.state();
        let mut packs: Vec<_> = state.known.iter().map(|known| known.entry(&self.0.own)).collect();
        packs.sort_by(|a, b| (&a.name, &a.place).cmp(&(&b.name, &b.place)));
        packs
    }

    /// All packs, and whose are taken. May wait for a medium.
    fn list(&self) -> PackState {
        let packs = self.entries();
        let state = self.0.state();
        PackState {
            key: Key(self.0.signer.public_key()).to_string(),
            trusted: state.trusted.clone(),
            packs,
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, text: String, severity: Severity) {
        self.rack.event(None, EventKind::Note { text, severity });
    }

    /// Takes packs of these keys, and looks at all places.
    fn follow(&self, all: &[(Key, &str)]) {
        let trust = all
            .iter()
            .fold(Trust::nobody(), |trust, (key, why)| trust.and(*key, *why));
        let mut state = self.state();
        let anew = state.trust != trust;
        if anew {
            let shown = |(key, why): &(Key, &str)| TrustedKey {
                key: key.to_string(),
                why: (*why).to_owned(),
            };
            state.trusted = all.iter().map(shown).collect();
            state.trust = trust;
        }
        self.look(&mut state, anew);
    }

    /// Looks at all places; `anew`: also when nothing changed there.
    fn look(&self, state: &mut State, anew: bool) {
        if state.ended {
            return;
        }
        if self.devices {
            let disks = find::devices(Path::new("/sys/class/block"));
            if disks != state.disks {
                state.on_disks = find::on_devices(&disks, Path::new("/dev"));
                state.disks = disks;
            }
        }
        let mut places: Vec<Place> = find::in_folder(&self.own);
        places.extend(self.folders.iter().flat_map(|folder| find::in_folder(folder)));
        places.extend(state.on_disks.iter().cloned());
        if anew || places != state.places {
            self.sort(state, &places);
            state.places = places;
        }
        self.follow_proxy(state);
    }

    /// Opens what lies at these places and puts in use what is to be.
    fn sort(&self, state: &mut State, places: &[Place]) {
        let before = std::mem::take(&mut state.known);
        let unchanged = |place: &Place| state.places.contains(place);
        let mut known: Vec<Known> = Vec::new();
        for place in places {
            let old = before
                .iter()
                .find(|known| known.place == place.path && unchanged(place));
            // One that was open stays open; whom it is of is asked again, since that may have changed.
            let pack = match old.and_then(|known| known.pack.as_ref().ok()) {
                Some(pack) => state.trust.check(pack.key).map(|()| pack.clone()),
                None => Pack::open(&place.path, &state.trust).map(Arc::new),
            };
            known.push(Known {
                place: place.path.clone(),
                pack: pack.map_err(|error| error.to_string()),
                hidden: None,
            });
        }
        hide_older(&mut known);
        self.mount_images(&before, &mut known);
        self.tell_changes(&before, &known);
        state.known = known;
        // The answers are given out anew as well.
        if let Some(proxy) = &state.proxy {
            unmount_answers(proxy, &before, &state.known);
            self.mount_answers(proxy, &before, &state.known);
        }
    }

    fn mount_images(&self, before: &[Known], known: &mut [Known]) {
        let Some(images) = &self.images else { return };
        for gone in gone(before, known) {
            images.unmount(&gone.index.name);
        }
        for one in known.iter_mut() {
            let Some(pack) = one.in_use().filter(|pack| is_new(pack, before)) else {
                continue;
            };
            let (rack, name) = (self.rack.clone(), pack.index.name.clone());
            let complaint: Complaint = Arc::new(move |why| {
                let (text, severity) = (format!("data pack {name}: {why}"), Severity::Error);
                rack.event(None, EventKind::Note { text, severity });
            });
            if let Err(error) = images.mount(&pack.index.name, packed_images(pack), &complaint) {
                one.hidden = Some(format!("it cannot be read: {error}"));
            }
        }
    }

    fn tell_changes(&self, before: &[Known], known: &[Known]) {
        for gone in gone(before, known) {
            let text = format!(
                "data pack {} ({}) is no longer in use",
                gone.index.name,
                gone.path.display()
            );
            self.tell(text, Severity::Info);
        }
        for one in known {
            let place = one.place.display();
            match (&one.pack, &one.hidden) {
                (Ok(pack), None) if is_new(pack, before) => {
                    let index = &pack.index;
                    let (name, images, answers) = (&index.name, index.images.len(), index.answers.len());
                    let text = format!("data pack {name} ({place}) is in use: {}", holds(images, answers));
                    self.tell(text, Severity::Info);
                }
                (Err(why), _) => {
                    let told = |old: &Known| old.place == one.place && old.pack.as_ref().err() == Some(why);
                    if !before.iter().any(told) {
                        self.tell(format!("{place} is not used: {why}"), Severity::Warning);
                    }
                }
                _ => {}
            }
        }
    }

    /// The proxy may have been started since, or be another one.
    fn follow_proxy(&self, state: &mut State) {
        let now = self.cache.open().map(|(proxy, _)| proxy);
        let same = match (&state.proxy, &now) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if !same {
            if let Some(proxy) = &now {
                self.mount_answers(proxy, &[], &state.known);
            }
            state.proxy = now;
        }
    }

    fn mount_answers(&self, proxy: &Arc<Proxy>, before: &[Known], known: &[Known]) {
        let mut any = false;
        for pack in known
            .iter()
            .filter_map(Known::in_use)
            .filter(|pack| is_new(pack, before))
        {
            any = true;
            proxy.mount(&pack.index.name, &pack.file, records(pack));
        }
        // Indexes of packages are read through, which takes its time on a slow medium.
        if let (true, Some((proxy, threads))) = (any, self.cache.open()) {
            threads.spawn_blocking(move || proxy.learn_all());
        }
    }
}

fn unmount_answers(proxy: &Proxy, before: &[Known], known: &[Known]) {
    for gone in gone(before, known) {
        proxy.unmount(&gone.index.name);
    }
}

/// What a pack has, in words.
fn holds(images: usize, answers: usize) -> String {
    let images = count(images, "image", "images");
    format!("{images}, {}", count(answers, "stored answer", "stored answers"))
}

/// Packs that were in use and are no more.
fn gone<'a>(before: &'a [Known], known: &'a [Known]) -> impl Iterator<Item = &'a Arc<Pack>> {
    let still = |pack: &Arc<Pack>| {
        known
            .iter()
            .filter_map(Known::in_use)
            .any(|other| Arc::ptr_eq(other, pack))
    };
    before.iter().filter_map(Known::in_use).filter(move |pack| !still(pack))
}

fn is_new(pack: &Arc<Pack>, before: &[Known]) -> bool {
    !before
        .iter()
        .filter_map(Known::in_use)
        .any(|other| Arc::ptr_eq(other, pack))
}

/// Of packs with one name the one made last counts; of two made at once the one found first.
fn hide_older(known: &mut [Known]) {
    let mut newest: BTreeMap<String, (rackbar_model::Timestamp, PathBuf)> = BTreeMap::new();
    for pack in known.iter().filter_map(|one| one.pack.as_ref().ok()) {
        let best = newest.get(&pack.index.name);
        if best.is_none_or(|(made, _)| *made < pack.index.made) {
            newest.insert(pack.index.name.clone(), (pack.index.made, pack.path.clone()));
        }
    }
    for one in known.iter_mut() {
        let best = one.pack.as_ref().ok().and_then(|pack| newest.get(&pack.index.name));
        if let Some((_, path)) = best.filter(|(_, path)| *path != one.place) {
            one.hidden = Some(format!("a pack of this name that is as new lies at {}", path.display()));
        }
    }
}

fn packed_images(pack: &Pack) -> Vec<PackedImage> {
    let images = pack.index.images.iter();
    let packed = images.filter_map(|image| {
        let content = pack.index.content(image.content)?;
        let entry = ImageEntry {
            name: image.name.clone(),
            format: image.format,
            sha256: content.sha256,
            bytes: content.bytes,
            disk_bytes: image.disk_bytes,
            arch: image.arch.clone(),
            source: image.source.clone(),
            licence: image.licence.clone(),
            user: image.user.clone(),
            added: image.added,
            // Found in its content.
            installer: None,
        };
        Some(PackedImage {
            entry: Arc::new(entry),
            file: pack.file.clone(),
            path: pack.path.clone(),
            offset: pack.place(content),
        })
    });
    packed.collect()
}

/// The answers of a pack as the proxy knows them, each with the place of its content.
fn records(pack: &Pack) -> Vec<(Record, u64)> {
    let index: &Index = &pack.index;
    let record = |answer: &rackbar_packs::Answer| {
        let content = index.content(answer.content)?;
        let record = Record {
            key: answer.key.clone(),
            selecting: answer.selecting.clone(),
            status: answer.status,
            headers: answer.headers.clone(),
            request_time: answer.request_time,
            response_time: answer.response_time,
            digest: content.sha256,
            size: content.bytes,
        };
        Some((record, pack.place(content)))
    };
    index.answers.iter().filter_map(record).collect()
}
