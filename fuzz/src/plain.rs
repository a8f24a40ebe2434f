//! A target tried without coverage counters, in a process of its own: kept inputs first, then mutations until time is over.
//!
//! Each input is written down before it is tried, so that whoever started this knows it however this process ends: by a
//! panic, out of stack, out of memory, or killed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::sys::resource::{Resource, setrlimit};

use crate::Target;
use crate::mutation::Mutator;

/// Address space of the process: what takes more is a finding.
const MEMORY_BYTES: u64 = 1 << 30;

/// Status with which the process ends when an input takes too long.
pub const TOO_SLOW: i32 = 70;

/// How a target is tried.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long mutations are tried.
    pub time: Duration,
    /// An input that takes longer is a finding.
    pub slow: Duration,
    /// With the same seed the same mutations come.
    pub seed: u64,
}

/// The input that is being tried, in a file.
struct Current(File);

impl Current {
    fn write(&self, input: &[u8]) -> io::Result<()> {
        let mut whole = Vec::with_capacity(input.len().saturating_add(8));
        whole.extend((input.len() as u64).to_le_bytes());
        whole.extend(input);
        self.0.write_all_at(&whole, 0)
    }
}

/// The input that a process was trying when it ended, from the file that [`run`] was given.
///
/// # Errors
/// When the file cannot be read, or ends before its input does.
pub fn current(path: &Path) -> io::Result<Vec<u8>> {
    let whole = std::fs::read(path)?;
    let (length, rest) = whole.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let input = rest.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(input.to_vec())
}

/// The kept inputs of a folder, by name; none when there is no folder.
///
/// # Errors
/// When a file in it cannot be read.
pub fn kept(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(std::fs::read).collect()
}

/// Tries `target`, and gives how many inputs it took. Bounds the memory of the whole process, and ends it with
/// [`TOO_SLOW`] when an input takes too long. `current` is the file that says which input is being tried.
///
/// # Errors
/// When the file cannot be written, or the memory cannot be bounded.
pub fn run(target: Target, kept: Vec<Vec<u8>>, bounds: Bounds, current: &Path) -> io::Result<u64> {
    setrlimit(Resource::RLIMIT_AS, MEMORY_BYTES, MEMORY_BYTES)?;
    let current = Current(File::create(current)?);
    let tried: &'static AtomicU64 = Box::leak(Box::default());
    thread::Builder::new().spawn(move || watch(tried, bounds.slow))?;
    let one = |input: &[u8]| -> io::Result<()> {
        current.write(input)?;
        target(input);
        tried.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    one(&[])?;
    kept.iter().try_for_each(|input| one(input))?;
    let mut mutator = Mutator::new(kept, bounds.seed);
    let begun = Instant::now();
    while begun.elapsed() < bounds.time {
        one(&mutator.next_input())?;
    }
    Ok(tried.load(Ordering::Relaxed))
}

/// Ends the process when no input has ended for so long. A thread that merely looks: the input itself is in an endless
/// loop.
fn watch(tried: &AtomicU64, slow: Duration) {
    let mut seen = (tried.load(Ordering::Relaxed), Instant::now());
    loop {
        thread::sleep(slow / 8);
        let now = tried.load(Ordering::Relaxed);
        if now != seen.0 {
            seen = (now, Instant::now());
        } else if seen.1.elapsed() >= slow {
            eprintln!("an input takes longer than {} ms", slow.as_millis());
            std::process::exit(TOO_SLOW);
        }
    }
}
