//! How much is under way in a rack: one count, shared by the engines of all its runs. Fifty runs of one machine each write no
//! more images at once than one run of fifty.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The count. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Room(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    kinds: BTreeMap<&'static str, usize>,
    /// Attempts that ever began.
    ever: u64,
}

impl Room {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attempts under way.
    pub(super) fn all(&self) -> usize {
        self.taken().all
    }

    /// Those of one kind.
    pub(super) fn of(&self, kind: &str) -> usize {
        self.taken().kinds.get(kind).copied().unwrap_or(0)
    }

    /// An attempt begins, or is taken up: that is not asked for, as what runs already runs. Gives the how manieth it is.
    pub(super) fn take(&self, kind: &'static str) -> u64 {
        let mut taken = self.taken();
        taken.ever = taken.ever.saturating_add(1);
        taken.all = taken.all.saturating_add(1);
        *taken.kinds.entry(kind).or_default() += 1;
        taken.ever
    }

    /// An attempt is over.
    pub(super) fn give(&self, kind: &str) {
        let mut taken = self.taken();
        taken.all = taken.all.saturating_sub(1);
        if let Some(count) = taken.kinds.get_mut(kind) {
            *count = count.saturating_sub(1);
        }
    }
}
