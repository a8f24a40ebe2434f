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

/// Bytes for which room is made at a time.
pub(super) const STEP: u64 = 8 << 20;

/// Room for something that arrives; given back when dropped, by when the object counts itself. What an origin only announces is
/// kept free of others' claims, and costs nothing that is stored before it comes.
pub struct Reservation {
    store: Arc<Store>,
    claimed: u64,
    made: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.store.state();
        state.claimed = state.claimed.saturating_sub(self.claimed);
        state.made = state.made.saturating_sub(self.made);
    }
}

impl Reservation {
    /// Bytes for which room was made.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// Makes room for all up to `end` bytes, and some more when more is to come.
    ///
    /// # Errors
    /// When there is none: something was pinned since it began, others filled the disk, or more comes than was claimed.
    pub fn grow(&mut self, end: u64) -> Result<(), NoRoom> {
        while end > self.made {
            let step = match self.claimed.saturating_sub(self.made) {
                0 => STEP,
                left => left.min(STEP),
            };
            let more = self.made.saturating_add(step).saturating_sub(self.claimed);
            let (budget, free) = self.store.limits();
            let mut state = self.store.state();
            if more > 0 {
                fits(&state, more, budget, free)?;
            }
            let taken = state.used.saturating_add(state.made).saturating_add(step);
            // What arrives has its room on the disk already, so that only the new bytes are held against what is free.
            let missing = taken.saturating_sub(budget).max(step.saturating_sub(free));
            if missing > 0 && !self.store.evict(&mut state, missing) {
                return Err(no_room(&state, step, budget, free));
            }
            state.claimed = state.claimed.saturating_add(more);
            state.made = state.made.saturating_add(step);
            self.claimed = self.claimed.saturating_add(more);
            self.made = self.made.saturating_add(step);
        }
        Ok(())
    }
}

/// Whether so many bytes could have room besides what others claim, were all evicted that may go.
fn fits(state: &State, size: u64, budget: u64, free: u64) -> Result<(), NoRoom> {
    let taken = state.used.saturating_add(state.claimed).saturating_add(size);
    let coming = state.claimed.saturating_sub(state.made).saturating_add(size);
    let missing = taken.saturating_sub(budget).max(coming.saturating_sub(free));
    if missing == 0 || (size <= budget && evictable(state).1 >= missing) {
        return Ok(());
    }
    Err(no_room(state, size, budget, free))
}

fn no_room(state: &State, size: u64, budget: u64, free: u64) -> NoRoom {
    NoRoom {
        size,
        used: state.used.saturating_add(state.claimed),
        budget,
        free,
    }
}

impl Store {
    /// Claims `size` bytes, and makes room for the first of them.
    ///
    /// # Errors
    /// When even evicting everything that may go would not be enough. Then nothing was evicted.
    pub fn reserve(self: &Arc<Self>, size: u64) -> Result<Reservation, NoRoom> {
        let (budget, free) = self.limits();
        let mut state = self.state();
        fits(&state, size, budget, free)?;
        state.claimed = state.claimed.saturating_add(size);
        drop(state);
        let mut room = Reservation {
            store: self.clone(),
            claimed: size,
            made: 0,
        };
        room.grow(size.min(STEP))?;
        Ok(room)
    }

    /// The budget, and what is free on the disk.
    fn limits(&self) -> (u64, u64) {
        let budget = self.budget.load(Ordering::Relaxed);
        let free =
            statvfs(&self.folder).map_or(u64::MAX, |fs| fs.blocks_available().saturating_mul(fs.fragment_size()));
        // A small budget is a small file system or a test; a fixed margin would leave nothing of it.
        (budget, free.saturating_sub(MARGIN.min(budget / 16)))
    }

    /// Evicts at least `missing` bytes and a sixteenth of what may go, or nothing: so not each of many that come to a full
    /// store looks through all there are.
    fn evict(&self, state: &mut State, missing: u64) -> bool {
        let (mut going, evictable) = evictable(state);
        if evictable < missing {
            return false;
        }
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

/// What may be evicted and would free something, in no order, and how many bytes all of it has. What would free nothing, since
/// something pinned has the same content, is left.
fn evictable(state: &State) -> (Vec<Arc<Entry>>, u64) {
    let mut going = free_to_go(state);
    let mut by_content: HashMap<Digest, usize> = HashMap::new();
    for entry in &going {
        *by_content.entry(entry.object.digest).or_default() += 1;
    }
    by_content.retain(|digest, count| state.users.get(digest) == Some(count));
    going.retain(|entry| by_content.contains_key(&entry.object.digest));
    let sizes = by_content.keys().filter_map(|digest| state.objects.get(digest));
    (going, sizes.map(|object| object.size).sum())
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
