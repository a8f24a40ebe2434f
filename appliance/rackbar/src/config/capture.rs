//! `[capture]`: whether boot packets are kept and captures made, and in how much memory.

use serde::Deserialize;
use toml::Spanned;

use super::check::Checker;

/// MiB of boot packets that are kept.
const MEBIBYTES: u16 = 6;

/// The section as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCapture {
    recent: Option<bool>,
    on_demand: Option<bool>,
    megabytes: Option<Spanned<u16>>,
}

/// What is captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Capture {
    /// Bytes of the newest boot packets that are kept; 0 keeps none.
    pub(crate) memory: usize,
    /// People may have captures made.
    pub(crate) on_demand: bool,
}

impl Checker<'_> {
    pub(super) fn capture(&mut self, raw: &RawCapture) -> Capture {
        let megabytes = raw.megabytes.as_ref().map_or(MEBIBYTES, |one| *one.get_ref());
        if let Some(one) = raw.megabytes.as_ref().filter(|one| !(1..=256).contains(one.get_ref())) {
            let problem = "boot packets take 1 to 256 megabytes of memory";
            let instead = "6 is usual; recent = false keeps none";
            self.wrong(Some(one.span()), "capture.megabytes", problem, instead);
        }
        let recent = raw.recent.unwrap_or(true);
        Capture {
            memory: if recent { usize::from(megabytes) << 20 } else { 0 },
            on_demand: raw.on_demand.unwrap_or(true),
        }
    }
}
