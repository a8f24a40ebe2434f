//! `[packs]`: whose data packs and signed hardware profiles are taken besides our own; `[profiles]`: whether others are.

use rackbar_packs::Key;
use serde::Deserialize;
use toml::Spanned;

use super::check::Checker;

/// The section as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPacks {
    #[serde(default)]
    trust: Vec<Spanned<String>>,
}

/// The section `[profiles]` as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProfiles {
    /// Hardware profiles of the site count only when somebody trusted has signed them.
    #[serde(default)]
    pub(super) signed_only: bool,
}

impl Checker<'_> {
    pub(super) fn packs(&mut self, raw: &RawPacks) -> Vec<Key> {
        let mut keys = Vec::new();
        for text in &raw.trust {
            match text.get_ref().parse() {
                Ok(key) => keys.push(key),
                Err(problem) => {
                    let instead = "`rackbar pack list` shows the key of the appliance that made the pack";
                    self.wrong(Some(text.span()), "packs.trust", problem, instead);
                }
            }
        }
        keys
    }
}
