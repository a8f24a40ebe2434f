//! Answers of upstreams, kept for as long as they say and no longer, within a budget of bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::name::Name;

/// What an answer depends on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    pub(crate) name: Name,
    pub(crate) rtype: u16,
    /// DO: with signatures.
    pub(crate) dnssec: bool,
    /// CD: not checked by the upstream.
    pub(crate) unchecked: bool,
}

/// An answer as it came, without its OPT record.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) message: Vec<u8>,
    pub(crate) ttls: Vec<u16>,
    /// When it came, in milliseconds.
    pub(crate) at: u64,
    pub(crate) until: u64,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    kept: HashMap<Key, Arc<Kept>>,
    order: VecDeque<(Key, u64)>,
    bytes: usize,
    budget: usize,
}

/// Overhead of an entry beside its message, roughly.
const ENTRY: usize = 256;

impl Cache {
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            kept: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            budget,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(crate) fn clear(&mut self) {
        self.kept.clear();
        self.order.clear();
        self.bytes = 0;
    }

    pub(crate) fn get(&self, key: &Key, now: u64) -> Option<Arc<Kept>> {
        self.kept.get(key).filter(|kept| now < kept.until).cloned()
    }

    /// Keeps an answer; the oldest go when the budget is spent.
    pub(crate) fn put(&mut self, key: Key, kept: Kept) {
        self.order.push_back((key.clone(), kept.at));
        self.bytes += size(&kept);
        if let Some(before) = self.kept.insert(key, Arc::new(kept)) {
            self.bytes = self.bytes.saturating_sub(size(&before));
        }
        // The second bound is on entries of the order that a newer answer made void.
        while self.bytes > self.budget || self.order.len() > 2 * self.kept.len() + 64 {
            let Some((key, at)) = self.order.pop_front() else {
                return;
            };
            if self.kept.get(&key).is_some_and(|kept| kept.at == at)
                && (self.bytes > self.budget || self.order.len() > 2 * self.kept.len() + 64)
                && let Some(gone) = self.kept.remove(&key)
            {
                self.bytes = self.bytes.saturating_sub(size(&gone));
            }
        }
    }
}

fn size(kept: &Kept) -> usize {
    kept.message.len() + 2 * kept.ttls.len() + ENTRY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_its_budget_and_forgets_the_oldest() {
        let mut cache = Cache::new(20_000);
        let key = |n: u64| Key {
            name: Name::parse(&format!("n{n}.example")).unwrap(),
            rtype: 1,
            dnssec: false,
            unchecked: false,
        };
        for n in 0..1000 {
            let kept = Kept {
                message: vec![0; 100],
                ttls: Vec::new(),
                at: n,
                until: n + 10,
            };
            cache.put(key(n % 100), kept);
        }
        assert!(
            cache.bytes <= 20_000 && cache.order.len() < 400,
            "{}",
            cache.order.len()
        );
        assert!(cache.get(&key(99), 1000).is_some() && cache.get(&key(0), 1000).is_none());
        assert!(cache.get(&key(99), 1009).is_none());
    }
}
