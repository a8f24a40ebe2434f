//! How much room images and programs may take: most of what a data partition has left, or a part of memory when there is none.

use std::path::Path;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};

/// Left free on a data partition: the journal, leases and reports of years, and the room ext4 needs to stay quick.
pub(crate) const RESERVE: u64 = 128 << 20;

/// Whether files in `folder` are kept in memory.
pub(crate) fn is_memory(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|at| at.filesystem_type() == TMPFS_MAGIC)
}

/// What images or programs in `folder` may take in bytes, those that are there included: on a disk all of its free space but a
/// reserve; in memory half of what is available now, because the services need the rest.
pub fn budget(folder: &Path) -> u64 {
    let Ok(at) = statfs(folder) else { return 0 };
    let block = u64::try_from(at.block_size()).unwrap_or(0);
    let free = at.blocks_available().saturating_mul(block);
    let here = contents_size(folder);
    if is_memory(folder) {
        let half = available_memory().unwrap_or(0).saturating_add(here) / 2;
        // A tmpfs has a limit of its own, unless it was mounted with none and says 0 blocks.
        let limit = if at.blocks() == 0 {
            u64::MAX
        } else {
            free.saturating_add(here)
        };
        half.min(limit)
    } else {
        free.saturating_add(here).saturating_sub(RESERVE)
    }
}

/// What may still be written into `folder` now, in bytes: others write to the same data partition, the proxy above all, so what
/// was free at the start says nothing of now. Of a folder in memory only its budget counts.
pub(crate) fn room(folder: &Path) -> u64 {
    if is_memory(folder) {
        return u64::MAX;
    }
    // A file system that cannot be asked cannot be told full either; writing then fails in its own words.
    let Ok(at) = statfs(folder) else { return u64::MAX };
    let block = u64::try_from(at.block_size()).unwrap_or(0);
    at.blocks_available().saturating_mul(block).saturating_sub(RESERVE)
}

fn contents_size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_content = |ending: &std::ffi::OsStr| ending == "image" || ending == "program";
    let contents = entries.filter(|entry| entry.path().extension().is_some_and(is_content));
    contents.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

/// `MemAvailable` of proc(5) in bytes: what programs can have without swapping.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_memory_gets_at_most_half_of_it() {
        let memory = Path::new("/dev/shm");
        assert!(is_memory(memory));
        assert!(budget(memory) <= available_memory().unwrap());
        assert_eq!(budget(Path::new("/nonexistent")), 0);
    }

    #[test]
    fn room_is_what_is_left_now_and_no_more_than_all_that_may_be_taken() {
        // Of the kernel's own, whose every block is taken at any time.
        assert_eq!(room(Path::new("/proc")), 0);
        assert_eq!(room(Path::new("/dev/shm")), u64::MAX, "a budget rules memory");
    }
}
