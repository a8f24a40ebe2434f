//! `[packs]`: whose data packs are taken besides our own.

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
