//! What was asked of a machine and outlives its process.

use std::path::PathBuf;

use crate::seat::{BootEntry, BootOverride};

/// What the next starts are to be like.
#[derive(Default)]
pub(super) struct Wishes {
    pub(super) boot: Option<BootOverride>,
    /// What HTTP boot is to fetch while the override is in force.
    pub(super) url: Option<String>,
    /// The firmware of this life was told the URL.
    pub(super) url_told: bool,
    /// The machine's own order, first device first.
    pub(super) order: Vec<BootEntry>,
    pub(super) starts: u64,
    pub(super) media: Option<PathBuf>,
    /// NICs whose carrier was taken away.
    pub(super) unplugged: Vec<usize>,
}

impl Wishes {
    /// The machine started with them. True when a one-time override has now been used.
    pub(super) fn started(&mut self) -> bool {
        self.starts += 1;
        // A guest that restarts by itself has not been told the URL: that is for the next start by the BMC.
        let waits = self.url.is_some() && !self.url_told;
        let used = self.boot.take_if(|boot| boot.once && !waits).is_some();
        self.url.take_if(|_| used);
        used
    }
}
