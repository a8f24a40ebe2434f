//! How a link misbehaves. Loss is drawn from a seeded generator, so a run can be repeated.

use std::time::Duration;

/// What is wrong with a link, both directions alike.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Fault {
    /// Part of the frames lost, 0.0 to 1.0.
    pub loss: f64,
    /// Seed of the loss: the same seed and the same frames lose the same frames.
    pub seed: u64,
    /// Time every frame is held back, once in each direction.
    pub delay: Duration,
    /// Nothing passes and the port counts as down: a pulled cable. A guest's carrier stays up on its own; drop it too
    /// with `set_link` of [`crate::qmp`].
    pub cut: bool,
}

impl Fault {
    /// A link that loses this part of its frames.
    pub fn loss(part: f64, seed: u64) -> Self {
        Self {
            loss: part,
            seed,
            ..Self::default()
        }
    }

    /// A link that holds every frame back.
    pub fn delay(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }

    /// A pulled cable.
    pub fn cut() -> Self {
        Self {
            cut: true,
            ..Self::default()
        }
    }
}

/// A fault at work.
#[derive(Default)]
pub(super) struct FaultState {
    pub(super) fault: Fault,
    random: u64,
}

impl FaultState {
    pub(super) fn new(fault: Fault) -> Self {
        Self {
            fault,
            random: fault.seed,
        }
    }

    /// Draws whether this frame is lost.
    pub(super) fn loses(&mut self) -> bool {
        self.fault.loss > 0.0 && unit(splitmix(&mut self.random)) < self.fault.loss
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): good enough to drop frames, and seedable with any value including zero.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in 0.0..1.0 from the upper 53 bits.
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loses_about_the_part_it_was_told_and_the_same_frames_again() {
        let draw = |seed| {
            let mut state = FaultState::new(Fault::loss(0.2, seed));
            (0..10_000).map(|_| state.loses()).collect::<Vec<_>>()
        };
        let lost = draw(7).iter().filter(|lost| **lost).count();
        assert!((1_800..2_200).contains(&lost), "{lost}");
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
