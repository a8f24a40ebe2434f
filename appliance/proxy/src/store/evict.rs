//! Keeping to the byte budget: what was not used for longest goes first, pinned things never.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::sys::statvfs::statvfs;
use rackbar_model::{Digest, Severity};

use super::{Entry, State, Store};

/// Left free on the file system, so that the appliance's own journal never meets a full disk because of us.
const MARGIN: u64 = 64 << 20;

/// Why something is not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{size} bytes do not fit into the cache: {used} of {budget} bytes are taken by what is pinned or arriving, {free} are free on its file system"
)]
pub struct NoRoom {
    /// What was to come.
    pub size: u64,
    /// Bytes that could not be evicted.
    pub used: u64,
    /// The budget.
    pub budget: u64,
    /// Free on the file system.
    pub free: u64,
}

/// Room for something that arrives; given back when dropped, by when the object counts itself.
pub struct Reservation {
    store: Arc<Store>,
    size: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.store.state();
        state.reserved = state.reserved.saturating_sub(self.size);
    }
}

impl Store {
    /// Makes room for `size` bytes.
    ///
    /// # Errors
    /// When even evicting everything that may go is not enough. Then nothing was evicted.
    pub fn reserve(self: &Arc<Self>, size: u64) -> Result<Reservation, NoRoom> {
        let budget = self.budget.load(Ordering::Relaxed);
        let free =
            statvfs(&self.folder).map_or(u64::MAX, |fs| fs.blocks_available().saturating_mul(fs.fragment_size()));
        // A small budget is a small file system or a test; a fixed margin would leave nothing of it.
        let free = free.saturating_sub(MARGIN.min(budget / 16));
        let mut state = self.state();
        let over = |state: &State| {
            let taken = state.used.saturating_add(state.reserved).saturating_add(size);
            // What arrives has its room on the disk already, so that only the new bytes are held against what is free.
            taken.saturating_sub(budget).max(size.saturating_sub(free))
        };
        let missing = over(&state);
        if missing > 0 && !self.evict(&mut state, missing, size <= budget) {
            return Err(NoRoom {
                size,
                used: state.used.saturating_add(state.reserved),
                budget,
                free,
            });
        }
        state.reserved = state.reserved.saturating_add(size);
        drop(state);
        Ok(Reservation {
            store: self.clone(),
            size,
        })
    }

    /// Evicts at least `missing` bytes and a sixteenth of what may go, or nothing: so not each of many that come to a full
    /// store looks through all there are. What would free nothing, since something pinned has the same content, is left.
    fn evict(&self, state: &mut State, missing: u64, possible: bool) -> bool {
        let mut going = free_to_go(state);
        let mut going_by_content: HashMap<Digest, usize> = HashMap::new();
        for entry in &going {
            *going_by_content.entry(entry.object.digest).or_default() += 1;
        }
        going_by_content.retain(|digest, count| state.users.get(digest) == Some(count));
        let sizes = going_by_content.keys().filter_map(|digest| state.objects.get(digest));
        let evictable: u64 = sizes.map(|object| object.size).sum();
        if !possible || evictable < missing {
            return false;
        }
        going.retain(|entry| going_by_content.contains_key(&entry.object.digest));
        by_use(&mut going);
        let (before, aim) = (state.used, missing.max(evictable / 16));
        for entry in going {
            if before.saturating_sub(state.used) >= aim {
                break;
            }
            self.drop_entry(state, &entry);
        }
        before.saturating_sub(state.used) >= missing
    }

    /// Has what was not used for longest go until what is left has room in memory; pinned things and `spared` stay.
    pub(super) fn bound(&self, spared: Option<&Arc<Entry>>) {
        let most = self.memory.load(Ordering::Relaxed);
        let mut state = self.state();
        if state.weight <= most {
            return;
        }
        // Some more than is necessary, so that not each of many that come sorts all there are.
        let aim = most - most / 16;
        for entry in may_go(&state) {
            if state.weight <= aim {
                break;
            }
            if spared.is_none_or(|spared| !Arc::ptr_eq(spared, &entry)) {
                self.drop_entry(&mut state, &entry);
            }
        }
        drop(state);
        if !self.told_of_entries.swap(true, Ordering::Relaxed) {
            let text = format!(
                "cache: its answers are so many that their names and headers do not fit into {} MiB of memory: those not used \
                 for longest go",
                most >> 20
            );
            (self.tell)(Severity::Warning, text);
        }
    }

    fn drop_entry(&self, state: &mut State, entry: &Arc<Entry>) {
        let _ = std::fs::remove_file(self.entry_path(&entry.record));
        if let Some(all) = state.entries.get_mut(entry.record.key.as_str()) {
            all.retain(|other| !Arc::ptr_eq(other, entry));
            if all.is_empty() {
                state.entries.remove(entry.record.key.as_str());
            }
        }
        self.leave(state, entry);
    }
}

/// What may be evicted, in no order.
fn free_to_go(state: &State) -> Vec<Arc<Entry>> {
    let free = |entry: &&Arc<Entry>| !entry.pinned() && entry.object.own().is_some();
    state.entries.values().flatten().filter(free).cloned().collect()
}

/// What was not used for longest first. Clients go on using them meanwhile, without the store's lock: each time is looked
/// at once, since sorting by what changes may panic.
fn by_use(going: &mut [Arc<Entry>]) {
    going.sort_by_cached_key(|entry| entry.used());
}

/// What may be evicted, what was not used for longest first.
pub(super) fn may_go(state: &State) -> Vec<Arc<Entry>> {
    let mut going = free_to_go(state);
    by_use(&mut going);
    going
}
