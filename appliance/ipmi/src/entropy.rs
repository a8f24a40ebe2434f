//! Where random numbers come from.

use ring::rand::{SecureRandom, SystemRandom};

/// A source of unpredictable bytes. Tests give a counted one to make a session's bytes repeatable.
pub trait Entropy: Send {
    /// Fills `out`; `false` when the source failed and the bytes must not be used.
    #[must_use]
    fn fill(&mut self, out: &mut [u8]) -> bool;
}

/// The operating system's generator.
#[derive(Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, out: &mut [u8]) -> bool {
        SystemRandom::new().fill(out).is_ok()
    }
}
