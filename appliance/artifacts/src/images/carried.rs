//! Images as files of a saved state.

use std::path::PathBuf;

use rackbar_model::ImageEntry;

use super::{ImageError, Images, Shared, standing, upkeep};
use crate::carry::{Carried, IMAGES};

impl Shared {
    /// Where what is kept of an entry may be.
    fn records_of(&self, entry: &ImageEntry, held: bool) -> Vec<PathBuf> {
        if held {
            return vec![self.held(entry)];
        }
        let beside = |ending: &str| self.folder.join(format!("{}.{ending}", entry.name));
        vec![
            beside(standing::ENDING),
            beside(upkeep::ENDING),
            self.record(&entry.name),
        ]
    }
}

impl Images {
    /// All images of our own with all that is kept of them, those that only runs under way need included, open to be carried
    /// elsewhere. Images in data packs are not among them.
    ///
    /// # Errors
    /// When one cannot be opened or read.
    pub fn carried(&self) -> Result<Vec<Carried>, ImageError> {
        let state = self.shared.state();
        let mut all = Vec::new();
        let held = state.held.iter().map(|entry| (entry, true));
        for (entry, held) in state.entries.values().map(|entry| (entry, false)).chain(held) {
            let data = self.shared.data_of(entry);
            let content = Carried::content(IMAGES, &data, entry.bytes, entry.sha256);
            all.push(content.map_err(ImageError::io("open", &data))?);
            for path in self.shared.records_of(entry, held) {
                all.extend(Carried::record(IMAGES, &path).map_err(ImageError::io("read", &path))?);
            }
        }
        Ok(all)
    }
}
