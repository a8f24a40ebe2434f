//! A clock that was set: how far the times move that were read from it.

use rackbar_model::Timestamp;

/// Milliseconds by which the clock was set; what was read from it before moves along.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shift(pub(crate) i64);

impl Shift {
    /// Moves one time. Zero is no time but "at once" or "first of all", and stays; no time becomes zero.
    pub(crate) fn apply(self, at: &mut Timestamp) {
        if *at != Timestamp(0) {
            at.0 = at.0.saturating_add_signed(self.0).max(1);
        }
    }
}
