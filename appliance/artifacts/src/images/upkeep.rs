//! What is kept of an entry besides the image: where it is had from, what was found there last, and whether it stays as it is.
//! In `<name>.upkeep` beside the image; it holds for the entry and goes with it.

use rackbar_model::{Refreshed, Timestamp, Upstream};
use serde::{Deserialize, Serialize};

use super::{ImageError, Images, Shared, State, check_name};
use crate::keep::{now, remove, write_durably};

/// Ending of the file.
pub(super) const ENDING: &str = "upkeep";

/// What is kept of an entry besides the image.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Upkeep {
    /// Where it is had from.
    #[serde(default)]
    pub upstream: Option<Upstream>,
    /// What was accepted from there last.
    #[serde(default)]
    pub refreshed: Option<Refreshed>,
    /// Since when it stays as it is.
    #[serde(default)]
    pub pinned: Option<Timestamp>,
}

impl Shared {
    fn upkeep_path(&self, name: &str) -> std::path::PathBuf {
        self.folder.join(format!("{name}.{ENDING}"))
    }

    /// Reads what is kept of the entry of this name. Of a file that makes no sense no refresh must follow: the entry counts as
    /// pinned.
    pub(super) fn load_upkeep(&self, name: &str) -> Result<(), ImageError> {
        let path = self.upkeep_path(name);
        if check_name(name).is_err() {
            return Ok(());
        }
        let text = std::fs::read(&path).map_err(ImageError::io("read", &path))?;
        let upkeep = serde_json::from_slice(&text).unwrap_or_else(|error| {
            self.state().problems.push(format!(
                "{} makes no sense ({error}): image {name} is taken to be pinned; say again where it is had from, then \
                 `rackbar os pin {name} --undo`",
                path.display()
            ));
            Upkeep {
                pinned: Some(now()),
                ..Upkeep::default()
            }
        });
        self.state().upkeep.insert(name.to_owned(), upkeep);
        Ok(())
    }

    /// Forgets what is kept of an entry. Not being there is fine.
    pub(super) fn forget_upkeep(&self, state: &mut State, name: &str) -> Result<(), ImageError> {
        let path = self.upkeep_path(name);
        remove(&path).map_err(ImageError::io("remove", &path))?;
        state.upkeep.remove(name);
        Ok(())
    }

    /// Forgets what was said of an earlier entry of a name that a new one is about to have: a removal that was cut short, or
    /// damage, took only the entry. What was said of an image that lies in a pack stays. The record of the new one makes it
    /// durable.
    pub(super) fn forget_earlier(&self, state: &mut State, name: &str) -> Result<(), ImageError> {
        if state.packed(name).is_none() {
            self.forget_standing(name)?;
            state.retired.remove(name);
        }
        self.forget_upkeep(state, name)
    }

    pub(super) fn change_upkeep(
        &self,
        state: &mut State,
        name: &str,
        change: impl FnOnce(&mut Upkeep),
    ) -> Result<Upkeep, ImageError> {
        if !state.entries.contains_key(name) {
            return Err(state.not_ours(name));
        }
        let mut upkeep = state.upkeep.get(name).cloned().unwrap_or_default();
        change(&mut upkeep);
        let path = self.upkeep_path(name);
        write_durably(&self.folder, &path, &upkeep).map_err(ImageError::io("write", &path))?;
        state.upkeep.insert(name.to_owned(), upkeep.clone());
        Ok(upkeep)
    }
}

impl State {
    /// Why an entry of ours of this name cannot be had.
    pub(super) fn not_ours(&self, name: &str) -> ImageError {
        match self.packed(name) {
            Some((pack, _)) => ImageError::InPack {
                name: name.to_owned(),
                pack: pack.to_owned(),
            },
            None => ImageError::Unknown(name.to_owned()),
        }
    }
}

impl Images {
    /// What is kept of an entry besides the image.
    pub fn upkeep(&self, name: &str) -> Upkeep {
        self.shared.state().upkeep.get(name).cloned().unwrap_or_default()
    }

    /// Says where an entry is had from. What was accepted from elsewhere is forgotten.
    ///
    /// # Errors
    /// When there is no such entry of our own, it is pinned, or this cannot be kept.
    pub fn set_upstream(&self, name: &str, upstream: Upstream) -> Result<(), ImageError> {
        let mut state = self.shared.state();
        if state.upkeep.get(name).is_some_and(|upkeep| upkeep.pinned.is_some()) {
            return Err(ImageError::Pinned(name.to_owned()));
        }
        let done = self.shared.change_upkeep(&mut state, name, |upkeep| {
            if upkeep.upstream.as_ref().map(Upstream::asked) != Some(upstream.asked()) {
                upkeep.refreshed = None;
            }
            upkeep.upstream = Some(upstream);
        });
        done.map(drop)
    }

    /// Keeps an entry as it is, or lets it be refreshed again.
    ///
    /// # Errors
    /// When there is no such entry of our own, or this cannot be kept.
    pub fn pin(&self, name: &str, pinned: bool) -> Result<Upkeep, ImageError> {
        let mut state = self.shared.state();
        self.shared.change_upkeep(&mut state, name, |upkeep| {
            upkeep.pinned = pinned.then(|| upkeep.pinned.unwrap_or_else(now));
        })
    }

    /// Notes what was accepted from where an entry is had from.
    ///
    /// # Errors
    /// When the entry is gone, or this cannot be kept.
    pub fn note_refreshed(&self, name: &str, refreshed: Refreshed) -> Result<(), ImageError> {
        let mut state = self.shared.state();
        let done = self
            .shared
            .change_upkeep(&mut state, name, |upkeep| upkeep.refreshed = Some(refreshed));
        done.map(drop)
    }
}
