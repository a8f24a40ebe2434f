//! What is never evicted: keys, and prefixes that end in `*`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use nix::unistd::syncfs;

use super::{Store, StoreError};

#[derive(Clone, Default)]
pub(super) struct Pins(BTreeSet<String>);

impl Pins {
    /// Reads the list; there is none at first.
    pub(super) fn read(path: &Path) -> Result<Self, StoreError> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            text => text.map_err(StoreError::io("read", path))?,
        };
        let lines = text.lines().filter(|line| !line.is_empty());
        Ok(Self(lines.map(str::to_owned).collect()))
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
        let _turn = self.pinning.lock().unwrap_or_else(PoisonError::into_inner);
        let one = BTreeSet::from([pattern.to_owned()]);
        if !pinned {
            // Whoever takes a pin back means it, also while what was served just now waits for its turn.
            self.noted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(pattern);
        }
        self.change_pins(one, |pins| {
            if pinned {
                pins.insert(pattern.to_owned());
            } else {
                pins.remove(pattern);
            }
        })
    }

    /// Waits until all that was stored and pinned so far outlasts a power cut: contents are synced when they come, and here the
    /// names of all of them.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn settle(&self) -> Result<(), StoreError> {
        let folder = File::open(&self.folder).map_err(StoreError::io("open", &self.folder))?;
        syncfs(&folder).map_err(|errno| StoreError::io("sync", &self.folder)(errno.into()))
    }

    /// Notes that a key is to be pinned, which [`Self::pin_noted`] does. False when it is already, and for a key that would be
    /// read as a prefix: of what a client asks for only that is kept.
    pub(crate) fn note_pin(&self, key: &str) -> bool {
        if key.ends_with('*') || self.trouble.is_some() || self.state().pins.covers(key) {
            return false;
        }
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.insert(key.to_owned())
    }

    /// Pins all that was noted, in one write however many they are. Blocks while it writes.
    ///
    /// # Errors
    /// When the list of pins cannot be written; what was noted stays noted.
    pub(crate) fn pin_noted(&self) -> Result<(), StoreError> {
        let _turn = self.pinning.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if noted.is_empty() {
            return Ok(());
        }
        self.change_pins(noted.clone(), |pins| pins.extend(noted.iter().cloned()))?;
        let mut left = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|key| !noted.contains(key));
        Ok(())
    }

    /// To be called by whoever holds `pinning`: of two that read the list, change it and write it, the one that writes
    /// first would be lost.
    fn change_pins(
        &self,
        patterns: BTreeSet<String>,
        change: impl FnOnce(&mut BTreeSet<String>),
    ) -> Result<usize, StoreError> {
        let mut pins = self.state().pins.clone();
        change(&mut pins.0);
        let text: String = pins.0.iter().flat_map(|pin| [pin.as_str(), "\n"]).collect();
        self.write_file(&self.folder.join("pins"), text.as_bytes())?;
        let mut state = self.state();
        let changed = Pins(patterns);
        let mut covered = 0;
        for entry in state.entries.values().flatten() {
            if changed.covers(&entry.record.key) {
                entry.pinned.store(pins.covers(&entry.record.key), Ordering::Relaxed);
                covered += 1;
            }
        }
        state.pins = pins;
        Ok(covered)
    }

    /// All pins.
    pub fn pins(&self) -> Vec<String> {
        self.state().pins.0.iter().cloned().collect()
    }
}
