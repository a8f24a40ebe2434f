//! The catalogue of operating-system images: files in one folder, each with a record beside it.
//!
//! An image is `<name>.image`; what is known of it is `<name>.json`, written last; `<name>.standing` says that it is
//! retired, and `<name>.upkeep` where it is had from. A file without a record is what a
//! broken upload left and is removed when the folder is opened, so an image is either whole and listed or not there.
//! Every entry is also given to [`Artifacts`], so that boot HTTP serves it by its digest from that moment on.
//!
//! After a restart each file's size is compared at once and its digest in the background. What is not what it was
//! goes to `broken/` and is no longer served; [`Images::problems`] says so.

mod carried;
mod detect;
mod disc;
mod installer;
mod mounted;
mod quarantine;
mod standing;
mod swap;
mod upkeep;
mod upload;
mod window;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rackbar_model::{Digest, ImageEntry, ImageFormat};

use crate::budget::is_memory;
use crate::disc::Disc;
use crate::keep::{self, Mib};
use crate::{Artifact, Artifacts};
use installer::{digests, parts};

pub use crate::budget::budget;
pub use detect::DetectError;
pub use installer::boot_names;
pub use mounted::{Complaint, PackedImage};
pub use standing::Retired;
pub use upkeep::Upkeep;
pub use upload::Upload;
pub(crate) use window::Window;

/// What the sender of an image says about it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ImageMeta {
    /// Its name: lower-case letters, digits, `.`, `_`, `-`; at most 64; begins with a letter or digit.
    pub name: String,
    /// Packing; told from the content when `None`.
    pub format: Option<ImageFormat>,
    /// Architecture as `uname -m` says it; `x86_64` when empty.
    pub arch: String,
    /// Where it came from, for people.
    pub source: String,
    /// Licence note.
    pub licence: String,
    /// Account that logs in over SSH; `root` when empty.
    pub user: String,
}

/// Why an image was not taken, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name is not one we take.
    #[error(
        "image name {0:?}: use 1 to 64 lower-case letters, digits, `.`, `_` and `-`, beginning with a letter or digit"
    )]
    Name(String),
    /// Another image has the name.
    #[error("an image named {name} is here already, with SHA-256 {sha256}; remove it first, or choose another name")]
    Exists {
        /// The name.
        name: String,
        /// What it has.
        sha256: Digest,
    },
    /// No image has the name.
    #[error("no image is named {0}; `rackbar os list` shows those that are here")]
    Unknown(String),
    /// It lies in a data pack.
    #[error("image {name} is part of the data pack {pack}; `rackbar pack list` shows where that lies")]
    InPack {
        /// The image.
        name: String,
        /// The pack.
        pack: String,
    },
    /// It cannot take a retired image's place.
    #[error("{0} cannot take its place: name another image, which is not retired")]
    Instead(String),
    /// It is not retired.
    #[error("image {0} is not retired; nothing was changed")]
    NotRetired(String),
    /// It stays as it is.
    #[error("image {0} is pinned, so it stays as it is; `rackbar os pin {0} --undo` lets it be refreshed")]
    Pinned(String),
    /// It was changed while another was on its way into its place.
    #[error("image {0} was replaced, removed or pinned in the meantime; nothing was changed")]
    Changed(String),
    /// What should take its place is something else.
    #[error(
        "what was to take the place of {0} is of another kind (an image, an installer) or release; add it under another name"
    )]
    Kind(String),
    /// A run installs it right now.
    #[error("image {0} is used by a run that has not ended; cancel the run or wait for its end")]
    InUse(String),
    /// It does not fit.
    #[error(
        "image {name} does not fit: images may take {} here, {} are taken, and {} of this one arrived; remove an image \
         that is not needed{}",
        Mib(*budget), Mib(*used), Mib(*bytes),
        if *in_memory { ", or give the appliance a data partition: without one, images are kept in memory" } else { "" }
    )]
    Full {
        /// The image.
        name: String,
        /// What all images may take, in bytes.
        budget: u64,
        /// What the others take, uploads under way included.
        used: u64,
        /// What arrived of this one.
        bytes: u64,
        /// The folder is a file system in memory.
        in_memory: bool,
    },
    /// The content is not what was announced.
    #[error("image {name} arrived with SHA-256 {found}, announced was {expected}; send it again")]
    Digest {
        /// The image.
        name: String,
        /// What was announced.
        expected: Digest,
        /// What arrived.
        found: Digest,
    },
    /// The content is nothing a disk could boot from.
    #[error("image {name} is not usable: {source}")]
    Content {
        /// The image.
        name: String,
        /// What is wrong with it.
        source: DetectError,
    },
    /// Reading or writing failed.
    #[error("image folder: cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ImageError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// All images. Shared; images come and go while the services run.
pub struct Images {
    shared: Arc<Shared>,
    checker: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    folder: PathBuf,
    budget: u64,
    in_memory: bool,
    artifacts: Arc<Artifacts>,
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<String, Arc<ImageEntry>>,
    /// Images in data packs, by the pack's name.
    mounted: BTreeMap<String, Vec<PackedImage>>,
    /// Packs of which a large installer is still read through, each with its file.
    reading: Vec<(String, Arc<File>)>,
    /// Names that no new plan takes.
    retired: BTreeMap<String, Retired>,
    /// What is kept besides, by name.
    upkeep: BTreeMap<String, Upkeep>,
    /// Images whose place another took, and that runs under way were planned with.
    held: Vec<Arc<ImageEntry>>,
    /// Bytes that uploads under way have written.
    arriving: u64,
    /// Numbers the temporary files.
    uploads: u64,
    problems: Vec<String>,
    /// Files out of use that could not be moved away.
    stuck: HashSet<PathBuf>,
}

impl State {
    fn used(&self) -> u64 {
        let kept: u64 = self.entries.values().chain(&self.held).map(|entry| entry.bytes).sum();
        kept.saturating_add(self.arriving)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.image"))
    }

    fn record(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// Opens an entry's file and serves it.
    fn serve(&self, entry: &ImageEntry) -> Result<(), ImageError> {
        let path = self.data_of(entry);
        let file = File::open(&path).map_err(ImageError::io("open", &path))?;
        self.serve_at(entry, &Arc::new(file), &path, 0)
            .map_err(ImageError::io("read", &path))
    }

    /// Serves an entry whose content begins at `begin` of a file, and what is in it.
    fn serve_at(&self, entry: &ImageEntry, file: &Arc<File>, path: &Path, begin: u64) -> io::Result<()> {
        let one = |name: &str, sha256, offset: u64, bytes| {
            let offset = begin.saturating_add(offset);
            Artifact::of_part(name.to_owned(), sha256, bytes, path.to_owned(), file.clone(), offset)
        };
        let mut all = vec![one(&served_name(entry), entry.sha256, 0, entry.bytes)?];
        for (name, part) in parts(entry) {
            all.push(one(name, part.sha256, part.offset, part.bytes)?);
        }
        if is_disc(entry) {
            let disc = Disc::open(entry.sha256, entry.bytes, path, file.clone(), begin)?;
            self.artifacts.serve_disc(disc);
        }
        all.into_iter().for_each(|artifact| self.artifacts.serve(artifact));
        Ok(())
    }

    /// Stops serving an entry's digests unless another entry has the same.
    fn withdraw(&self, state: &State, gone: &ImageEntry) {
        let digests: Vec<Digest> = digests(gone).collect();
        digests.iter().for_each(|digest| self.artifacts.withdraw(digest));
        let same = |entry: &ImageEntry| self::digests(entry).any(|digest| digests.contains(&digest));
        // It was whole a moment ago; when it cannot be opened now, a node's request says so.
        for other in state.packs().filter(|image| same(&image.entry)) {
            let _ = self.serve_packed(other);
        }
        for other in state.entries.values().chain(&state.held).filter(|entry| same(entry)) {
            let _ = self.serve(other);
        }
    }

    /// Hashes one file and compares. `None` when asked to stop.
    fn check(&self, entry: &ImageEntry) -> Option<Result<(), String>> {
        let read = || keep::digest_of(&File::open(self.data_of(entry))?, || self.stop.load(Ordering::Relaxed));
        match read() {
            Ok(None) => None,
            Ok(Some(found)) if found == entry.sha256 => Some(Ok(())),
            Ok(Some(found)) => Some(Err(format!("its SHA-256 is {found}, and was {}", entry.sha256))),
            Err(error) => Some(Err(format!("it cannot be read ({error})"))),
        }
    }
}

impl Images {
    /// Opens the catalogue in `folder`, which is made when missing, and begins to check the files in the background.
    /// `budget_bytes` is what all images together may take ([`budget()`] says how much there is); entries are served
    /// through `artifacts`.
    ///
    /// # Errors
    /// When the folder cannot be made or read. A damaged image or record is no error: see [`Self::problems`].
    pub fn open(folder: &Path, budget_bytes: u64, artifacts: Arc<Artifacts>) -> Result<Self, ImageError> {
        std::fs::create_dir_all(folder).map_err(ImageError::io("create", folder))?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            budget: budget_bytes,
            in_memory: is_memory(folder),
            artifacts,
            stop: AtomicBool::new(false),
            state: Mutex::default(),
        });
        load(&shared)?;
        let background = Arc::clone(&shared);
        let checker = std::thread::Builder::new()
            .name("image-check".into())
            .spawn(move || check_all(&background))
            .map_err(ImageError::io("start checking", folder))?;
        Ok(Self {
            shared,
            checker: Mutex::new(Some(checker)),
        })
    }

    /// All images, sorted by name: our own, and those in data packs whose names none of our own has.
    pub fn list(&self) -> Vec<Arc<ImageEntry>> {
        let state = self.shared.state();
        let mut all: BTreeMap<&str, &Arc<ImageEntry>> = BTreeMap::new();
        let packed = state.mounted.values().flatten().map(|image| &image.entry);
        for entry in state.entries.values().chain(packed) {
            all.entry(entry.name.as_str()).or_insert(entry);
        }
        all.into_values().cloned().collect()
    }

    /// The image of this name.
    pub fn get(&self, name: &str) -> Option<Arc<ImageEntry>> {
        let state = self.shared.state();
        let own = state.entries.get(name);
        own.or_else(|| state.packed(name).map(|(_, image)| &image.entry))
            .cloned()
    }

    /// Bytes taken, uploads under way included, and bytes that may be taken in all.
    pub fn space(&self) -> (u64, u64) {
        (self.shared.state().used(), self.shared.budget)
    }

    /// What was found wrong with images since the start, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        self.shared.state().problems.clone()
    }

    /// Waits until every image found at the start has been checked.
    pub fn settle(&self) {
        let checker = self.checker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(checker) = checker {
            // A checker that panicked has nothing more to tell.
            let _ = checker.join();
        }
    }

    /// Begins to take in an image. Nothing of it is seen before [`Upload::finish`]; dropping the upload leaves
    /// nothing. Writes block: call from a thread that may.
    ///
    /// # Errors
    /// When the name is not one we take or nothing more may be taken in. That the name is in use is only an error at
    /// the end, so that sending the same image twice is harmless.
    pub fn begin(&self, meta: ImageMeta) -> Result<Upload, ImageError> {
        check_name(&meta.name)?;
        Upload::begin(Arc::clone(&self.shared), meta)
    }

    /// Removes an image, unless its digest is among `used`: those of runs that have not ended. A transfer under way
    /// still finishes.
    ///
    /// # Errors
    /// When it is used, unknown, or cannot be removed.
    pub fn remove(&self, name: &str, used: &HashSet<Digest>) -> Result<Arc<ImageEntry>, ImageError> {
        let mut state = self.shared.state();
        let entry = state.entries.get(name).cloned();
        let entry = entry.ok_or_else(|| state.not_ours(name))?;
        if used.contains(&entry.sha256) {
            return Err(ImageError::InUse(name.to_owned()));
        }
        // The record first: a file without one is not an image.
        for path in [self.shared.record(name), self.shared.data_of(&entry)] {
            keep::remove(&path).map_err(ImageError::io("remove", &path))?;
        }
        state.entries.remove(name);
        self.shared.withdraw(&state, &entry);
        // Last: while the image is there it stays retired. Whoever adds one of this name later means it to be used.
        self.shared.forget_standing(name)?;
        state.retired.remove(name);
        self.shared.forget_upkeep(&mut state, name)?;
        Ok(entry)
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.settle();
    }
}

/// Path of an image on the boot HTTP server, to be put behind `http://<address>`.
pub fn url_path(entry: &ImageEntry) -> String {
    format!("/boot/v1/files/{}/{}", entry.sha256, served_name(entry))
}

/// The name with the ending that people know the packing by.
fn served_name(entry: &ImageEntry) -> String {
    let ending = match entry.format {
        ImageFormat::Raw if is_disc(entry) => "iso",
        ImageFormat::Raw if entry.installer.is_some() => "tar",
        ImageFormat::Raw => "img",
        ImageFormat::Zstd => "img.zst",
        ImageFormat::Xz => "img.xz",
        ImageFormat::Gzip => "img.gz",
        ImageFormat::Qcow2 => "qcow2",
    };
    format!("{}.{ending}", entry.name)
}

fn is_disc(entry: &ImageEntry) -> bool {
    entry
        .installer
        .as_ref()
        .is_some_and(|installer| installer.disc.is_some())
}

fn check_name(name: &str) -> Result<(), ImageError> {
    if keep::is_name(name) {
        Ok(())
    } else {
        Err(ImageError::Name(name.to_owned()))
    }
}

/// Reads the records, serves what they name, and clears away what broken uploads left.
fn load(shared: &Shared) -> Result<(), ImageError> {
    let folder = &shared.folder;
    let (mut names, mut held, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for found in std::fs::read_dir(folder).map_err(ImageError::io("read", folder))? {
        let path = found.map_err(ImageError::io("read", folder))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let stale = match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => {
                names.push(stem.to_owned());
                false
            }
            Some(swap::HELD) => {
                held.push(stem.to_owned());
                false
            }
            Some("part") => true,
            Some(standing::ENDING) => {
                shared.load_standing(stem)?;
                false
            }
            Some(upkeep::ENDING) => {
                kept.push(stem.to_owned());
                false
            }
            _ => false,
        };
        if stale {
            std::fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
        }
    }
    for name in kept {
        if names.contains(&name) {
            shared.load_upkeep(&name)?;
        } else {
            // Its entry was removed, and the power went before this was.
            shared.forget_upkeep(&mut shared.state(), &name)?;
        }
    }
    for name in names {
        if let Err(why) = load_one(shared, &name) {
            shared.quarantine(&name, &why);
        }
    }
    held.iter().for_each(|stem| shared.load_held(stem));
    shared.clear();
    Ok(())
}

fn load_one(shared: &Shared, name: &str) -> Result<(), String> {
    let record = std::fs::read(shared.record(name)).map_err(|error| format!("its record cannot be read ({error})"))?;
    let entry: ImageEntry =
        serde_json::from_slice(&record).map_err(|error| format!("its record makes no sense ({error})"))?;
    if entry.name != name || check_name(name).is_err() {
        return Err(format!("its record is that of {:?}", entry.name));
    }
    let meta = std::fs::metadata(shared.data_of(&entry)).map_err(|error| format!("it cannot be read ({error})"))?;
    if meta.len() != entry.bytes {
        return Err(format!("it has {} bytes, and had {}", meta.len(), entry.bytes));
    }
    shared.serve(&entry).map_err(|error| error.to_string())?;
    shared.state().entries.insert(name.to_owned(), Arc::new(entry));
    Ok(())
}

/// Compares every file with its record. What has changed since the list was taken is left alone.
fn check_all(shared: &Shared) {
    let entries: Vec<_> = shared.state().entries.values().cloned().collect();
    for entry in entries {
        let Some(verdict) = shared.check(&entry) else { return };
        let same = shared
            .state()
            .entries
            .get(&entry.name)
            .is_some_and(|now| Arc::ptr_eq(now, &entry));
        if let (true, Err(why)) = (same, verdict) {
            shared.quarantine(&entry.name, &why);
        }
    }
}

#[cfg(test)]
mod swap_tests;
#[cfg(test)]
mod tests;

#[cfg(test)]
mod disc_tests;
