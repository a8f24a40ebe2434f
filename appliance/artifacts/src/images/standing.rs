//! Whether new plans may take an image. A retired one stays where it is, for runs that began with it and for machines that
//! have it. The word is about the name: it stays when an image in a pack goes and comes back with its stick.

use rackbar_model::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::{ImageError, Images, Shared, check_name};
use crate::keep::{now, remove, write_durably};

/// Ending of the file that says how an image stands.
pub(super) const ENDING: &str = "standing";

/// No new plan takes an image.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Retired {
    /// Since when.
    pub since: Timestamp,
    /// The image that takes its place.
    pub instead: Option<String>,
}

impl Shared {
    fn standing(&self, name: &str) -> std::path::PathBuf {
        self.folder.join(format!("{name}.{ENDING}"))
    }

    /// Reads how the image of this name stands. A file that makes no sense must not make a retired image one that is not.
    pub(super) fn load_standing(&self, name: &str) -> Result<(), ImageError> {
        let path = self.standing(name);
        if check_name(name).is_err() {
            return Ok(());
        }
        let text = std::fs::read(&path).map_err(ImageError::io("read", &path))?;
        let retired = serde_json::from_slice(&text).unwrap_or_else(|error| {
            self.state().problems.push(format!(
                "{} makes no sense ({error}): image {name} is taken to be retired; `rackbar os retire {name} --undo` if it is not",
                path.display()
            ));
            Retired {
                since: now(),
                instead: None,
            }
        });
        self.state().retired.insert(name.to_owned(), retired);
        Ok(())
    }

    /// Takes back what was said of a name. Not being there is fine.
    pub(super) fn forget_standing(&self, name: &str) -> Result<(), ImageError> {
        let path = self.standing(name);
        remove(&path).map_err(ImageError::io("remove", &path))
    }
}

impl Images {
    /// Retires an image: no new plan takes it. `instead` names the one that does. Said again, it may name another.
    ///
    /// # Errors
    /// When either is not in the catalogue, `instead` is the image itself or retired, or the word cannot be kept.
    pub fn retire(&self, name: &str, instead: Option<&str>) -> Result<Retired, ImageError> {
        let mut state = self.shared.state();
        let there = |name: &str| state.entries.contains_key(name) || state.packed(name).is_some();
        if let Some(missing) = std::iter::once(name).chain(instead).find(|name| !there(name)) {
            return Err(ImageError::Unknown(missing.to_owned()));
        }
        if let Some(instead) = instead.filter(|instead| *instead == name || state.retired.contains_key(*instead)) {
            return Err(ImageError::Instead(instead.to_owned()));
        }
        let retired = Retired {
            since: state.retired.get(name).map_or_else(now, |before| before.since),
            instead: instead.map(str::to_owned),
        };
        let path = self.shared.standing(name);
        write_durably(&self.shared.folder, &path, &retired).map_err(ImageError::io("write", &path))?;
        state.retired.insert(name.to_owned(), retired.clone());
        Ok(retired)
    }

    /// Lets new plans take an image again.
    ///
    /// # Errors
    /// When it is not retired, or that cannot be taken back.
    pub fn reinstate(&self, name: &str) -> Result<(), ImageError> {
        let mut state = self.shared.state();
        if !state.retired.contains_key(name) {
            return Err(ImageError::NotRetired(name.to_owned()));
        }
        self.shared.forget_standing(name)?;
        state.retired.remove(name);
        Ok(())
    }

    /// All retired images by name, also such whose pack is not there now.
    pub fn retired(&self) -> BTreeMap<String, Retired> {
        self.shared.state().retired.clone()
    }
}
