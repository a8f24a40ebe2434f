//! What is never evicted: keys, and prefixes that end in `*`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::{Store, StoreError};

#[derive(Clone, Default)]
pub(super) struct Pins(BTreeSet<String>);

impl Pins {
    pub(super) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Self(
            text.lines()
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect(),
        )
    }

    pub(super) fn covers(&self, key: &str) -> bool {
        self.0.contains(key)
            || self
                .0
                .iter()
                .any(|pin| pin.strip_suffix('*').is_some_and(|start| key.starts_with(start)))
    }
}

impl Store {
    /// Pins a key, or a prefix that ends in `*`, also for what is stored later; or takes that back. How many stored
    /// answers it covers.
    ///
    /// # Errors
    /// When the list of pins cannot be written; nothing is changed then.
    pub fn pin(&self, pattern: &str, pinned: bool) -> Result<usize, StoreError> {
        let mut pins = self.state().pins.clone();
        if pinned {
            pins.0.insert(pattern.to_owned());
        } else {
            pins.0.remove(pattern);
        }
        let text: String = pins.0.iter().flat_map(|pin| [pin.as_str(), "\n"]).collect();
        self.write_file(&self.folder.join("pins"), text.as_bytes())?;
        let mut state = self.state();
        let one = Pins(BTreeSet::from([pattern.to_owned()]));
        let covered: Vec<_> = state
            .entries
            .values()
            .flatten()
            .filter(|e| one.covers(&e.record.key))
            .cloned()
            .collect();
        for entry in &covered {
            entry.pinned.store(pins.covers(&entry.record.key), Ordering::Relaxed);
        }
        state.pins = pins;
        Ok(covered.len())
    }

    /// All pins.
    pub fn pins(&self) -> Vec<String> {
        self.state().pins.0.iter().cloned().collect()
    }
}
