//! Digests that indexes of packages promise, by key. A million of them take some 50 MB, and no more are kept.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use rackbar_model::Digest;

/// So many are kept.
pub(crate) const MOST: usize = 1_000_000;

#[derive(Default)]
pub(crate) struct Promises {
    /// Keys by their hash, with a seed that nobody outside knows: nobody can make two keys meet on purpose.
    all: Mutex<HashMap<u64, Digest>>,
    seed: RandomState,
}

impl Promises {
    /// False when there are too many, so that this one is not kept.
    pub(crate) fn add(&self, key: &str, digest: Digest) -> bool {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = self.seed.hash_one(crate::rules::target::plain(key));
        let kept = all.len() < MOST || all.contains_key(&hash);
        if kept {
            all.insert(hash, digest);
        }
        kept
    }

    pub(crate) fn of(&self, key: &str) -> Option<Digest> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() {
            return None;
        }
        all.get(&self.seed.hash_one(crate::rules::target::plain(key))).copied()
    }
}
