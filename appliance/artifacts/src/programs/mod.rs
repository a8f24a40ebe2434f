//! The users' programs: static executables that steps of a site file name, carried to machines over SSH.
//!
//! A program's content is `<sha256>.program`, and what has which name is `<name>.json`, written last. So another upload
//! under a name leaves the content alone that plans under way have pinned: it stays until [`Programs::sweep`] hears that
//! none needs it. Only what [`elf::examine`] finds to be a static program for x86-64 Linux is taken, and of what is not
//! taken nothing stays.

pub mod elf;
mod upload;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rackbar_model::{Digest, ProgramEntry};

use crate::budget::is_memory;
use crate::carry::{Carried, PROGRAMS};
use crate::keep::{self, Mib};
pub use elf::ElfError;
pub use upload::{Placed, Upload};

/// Bytes that one program may have: a static program of Go or Rust has some MiB.
pub const LARGEST: u64 = 64 << 20;

/// Bytes that all programs together may have where there is room for them.
pub const ALL: u64 = 1 << 30;

/// Programs that runs which have not ended name, each with the digest that its plan pinned.
pub type InUse = HashSet<(String, Digest)>;

/// Why a program was not taken, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The name is not one we take.
    #[error(
        "program name {0:?}: use 1 to 64 lower-case letters, digits, `.`, `_` and `-`, beginning with a letter or digit"
    )]
    Name(String),
    /// No program has the name.
    #[error("no program is named {0}; `rackbar program list` shows those that are here")]
    Unknown(String),
    /// A run is to run it.
    #[error("program {0} is used by a run that has not ended; cancel the run or wait for its end")]
    InUse(String),
    /// It is larger than a program may be.
    #[error("program {0} has more than {most}, which is the most that is taken: leave debug information out (strip; Go: \
             -ldflags \"-s -w\"), or put its data elsewhere", most = Mib(LARGEST))]
    TooLarge(String),
    /// There is no room for it.
    #[error(
        "program {name} does not fit: programs may take {} here, and {} are taken; remove a program that is not needed{}",
        Mib(*budget), Mib(*used),
        if *in_memory { ", or give the appliance a data partition: without one, programs are kept in memory" } else { "" }
    )]
    Full {
        /// The program.
        name: String,
        /// What all programs may take, in bytes.
        budget: u64,
        /// What the others take, uploads under way included.
        used: u64,
        /// The folder is a file system in memory.
        in_memory: bool,
    },
    /// The content is not what was announced.
    #[error("program {name} arrived with SHA-256 {found}, announced was {expected}; send it again")]
    Digest {
        /// The program.
        name: String,
        /// What was announced.
        expected: Digest,
        /// What arrived.
        found: Digest,
    },
    /// The content is no static program.
    #[error("program {name} is not taken: {source}")]
    Content {
        /// The program.
        name: String,
        /// What is wrong with it.
        source: ElfError,
    },
    /// The content that a plan pinned is gone or damaged.
    #[error("no whole program with SHA-256 {0} is here any more; put it in again (`rackbar program add`)")]
    Gone(Digest),
    /// Reading or writing failed.
    #[error("program folder: cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ProgramError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// All programs. Shared; programs come and go while the services run.
#[derive(Clone)]
pub struct Programs {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    budget: u64,
    in_memory: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<String, Arc<ProgramEntry>>,
    /// Contents on the disk and their sizes, with and without a name.
    contents: BTreeMap<Digest, u64>,
    /// Bytes that uploads under way have written.
    arriving: u64,
    /// Numbers the temporary files.
    uploads: u64,
    problems: Vec<String>,
}

impl State {
    fn used(&self) -> u64 {
        let kept = self
            .contents
            .values()
            .fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
        kept.saturating_add(self.arriving)
    }

    fn named(&self, sha256: &Digest) -> bool {
        self.entries.values().any(|entry| entry.sha256 == *sha256)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn content(&self, sha256: &Digest) -> PathBuf {
        self.folder.join(format!("{sha256}.program"))
    }

    fn record(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }
}

impl Programs {
    /// Opens the store in `folder`, which is made when missing. `budget_bytes` is what all programs together may take
    /// ([`crate::images::budget`] says how much there is), [`ALL`] at most.
    ///
    /// # Errors
    /// When the folder cannot be made or read. A damaged program or record is no error: see [`Self::problems`].
    pub fn open(folder: &Path, budget_bytes: u64) -> Result<Self, ProgramError> {
        std::fs::create_dir_all(folder).map_err(ProgramError::io("create", folder))?;
        let shared = Shared {
            folder: folder.to_owned(),
            budget: budget_bytes.min(ALL),
            in_memory: is_memory(folder),
            state: Mutex::default(),
        };
        load(&shared)?;
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// All programs, sorted by name.
    pub fn list(&self) -> Vec<Arc<ProgramEntry>> {
        self.shared.state().entries.values().cloned().collect()
    }

    /// The program of this name.
    pub fn get(&self, name: &str) -> Option<Arc<ProgramEntry>> {
        self.shared.state().entries.get(name).cloned()
    }

    /// Bytes taken, uploads under way included, and bytes that may be taken in all.
    pub fn space(&self) -> (u64, u64) {
        (self.shared.state().used(), self.shared.budget)
    }

    /// What was found wrong when the store was opened, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        self.shared.state().problems.clone()
    }

    /// Begins to take in a program. Nothing of it is seen before [`Upload::finish`]; dropping the upload leaves nothing.
    /// Writes block: call from a thread that may.
    ///
    /// # Errors
    /// When the name is not one we take or no file can be made.
    pub fn begin(&self, name: &str) -> Result<Upload, ProgramError> {
        if !keep::is_name(name) {
            return Err(ProgramError::Name(name.to_owned()));
        }
        Upload::begin(Arc::clone(&self.shared), name.to_owned())
    }

    /// The content with this digest, open at its beginning, and its size in bytes. It is read through once before, so
    /// what is given out was whole a moment ago, and stays readable when it is removed. Blocks.
    ///
    /// # Errors
    /// [`ProgramError::Gone`] when it is not here as it was, and when it cannot be read.
    pub fn content(&self, sha256: &Digest) -> Result<(File, u64), ProgramError> {
        let path = self.shared.content(sha256);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ProgramError::Gone(*sha256)),
            opened => opened.map_err(ProgramError::io("open", &path))?,
        };
        let found = keep::digest_of(&file, || false).map_err(ProgramError::io("read", &path))?;
        if found != Some(*sha256) {
            return Err(ProgramError::Gone(*sha256));
        }
        let bytes = file.stream_position().map_err(ProgramError::io("read", &path))?;
        file.rewind().map_err(ProgramError::io("read", &path))?;
        Ok((file, bytes))
    }

    /// All programs, those that only runs under way need included, open to be carried elsewhere.
    ///
    /// # Errors
    /// When one cannot be opened or read.
    pub fn carried(&self) -> Result<Vec<Carried>, ProgramError> {
        let state = self.shared.state();
        let mut all = Vec::new();
        for (sha256, bytes) in &state.contents {
            let path = self.shared.content(sha256);
            let content = Carried::content(PROGRAMS, &path, *bytes, *sha256);
            all.push(content.map_err(ProgramError::io("open", &path))?);
        }
        for name in state.entries.keys() {
            let path = self.shared.record(name);
            all.extend(Carried::record(PROGRAMS, &path).map_err(ProgramError::io("read", &path))?);
        }
        Ok(all)
    }

    /// Takes a name away, unless a run that has not ended names it: `used` holds what those name, and with which digest.
    /// The content goes with the next [`Self::sweep`].
    ///
    /// # Errors
    /// When it is used, unknown, or cannot be removed.
    pub fn remove(&self, name: &str, used: &InUse) -> Result<Arc<ProgramEntry>, ProgramError> {
        let mut state = self.shared.state();
        let unknown = || ProgramError::Unknown(name.to_owned());
        let entry = state.entries.get(name).cloned().ok_or_else(unknown)?;
        if used.iter().any(|(named, _)| named == name) {
            return Err(ProgramError::InUse(name.to_owned()));
        }
        let record = self.shared.record(name);
        keep::remove(&record).map_err(ProgramError::io("remove", &record))?;
        state.entries.remove(name);
        Ok(entry)
    }

    /// Removes contents that no name has and no run needs: `used` is what runs that have not ended name, asked after the
    /// last change, so that what is committed by now is among it.
    pub fn sweep(&self, used: &InUse) {
        let used: HashSet<&Digest> = used.iter().map(|(_, sha256)| sha256).collect();
        let mut state = self.shared.state();
        let idle = |sha256: &&Digest| !used.contains(*sha256) && !state.named(sha256);
        let gone: Vec<Digest> = state.contents.keys().filter(idle).copied().collect();
        for sha256 in gone {
            // What cannot be removed now stays counted, and is tried again at the next sweep.
            if keep::remove(&self.shared.content(&sha256)).is_ok() {
                state.contents.remove(&sha256);
            }
        }
    }
}

/// Reads records and contents, and clears away what broken uploads left. Contents without a name stay for a run that may
/// be taken up: the first [`Programs::sweep`] knows.
fn load(shared: &Shared) -> Result<(), ProgramError> {
    let folder = &shared.folder;
    let mut names = Vec::new();
    let mut state = shared.state();
    for found in std::fs::read_dir(folder).map_err(ProgramError::io("read", folder))? {
        let path = found.map_err(ProgramError::io("read", folder))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => names.push(stem.to_owned()),
            Some("program") => {
                let bytes = std::fs::metadata(&path).map_err(ProgramError::io("read", &path))?.len();
                if let Ok(sha256) = stem.parse() {
                    state.contents.insert(sha256, bytes);
                }
            }
            Some("part") => keep::remove(&path).map_err(ProgramError::io("remove", &path))?,
            _ => {}
        }
    }
    for name in names {
        match load_one(shared, &state, &name) {
            Ok(entry) => {
                state.entries.insert(name, Arc::new(entry));
            }
            Err(why) => state.problems.push(format!(
                "program {name} is out of use: {why}; put it in again (`rackbar program add`)"
            )),
        }
    }
    Ok(())
}

fn load_one(shared: &Shared, state: &State, name: &str) -> Result<ProgramEntry, String> {
    let record = std::fs::read(shared.record(name)).map_err(|error| format!("its record cannot be read ({error})"))?;
    let entry: ProgramEntry =
        serde_json::from_slice(&record).map_err(|error| format!("its record makes no sense ({error})"))?;
    if entry.name != name || !keep::is_name(name) {
        return Err(format!("its record is that of {:?}", entry.name));
    }
    match state.contents.get(&entry.sha256) {
        None => Err("its file is gone".to_owned()),
        Some(bytes) if *bytes != entry.bytes => Err(format!("it has {bytes} bytes, and had {}", entry.bytes)),
        Some(_) => Ok(entry),
    }
}

#[cfg(test)]
mod tests;
