//! Numbers nobody can guess from the network: for the nonce that keeps old manifests out, sequence numbers and ports.

use rackbar_trust::Sha256;
use uefi::boot;
use uefi::proto::rng::Rng;

use super::clock;

/// A hash over everything unpredictable there is, hashed on for each number.
#[derive(Clone)]
pub(super) struct Random([u8; 32]);

impl Random {
    /// Gathers from the firmware's generator where there is one, and from the jitter of the clock where there is none.
    pub(super) fn new() -> Self {
        let mut hash = Sha256::new();
        let mut seed = [0u8; 32];
        let generator = boot::get_handle_for_protocol::<Rng>().and_then(super::machine::get::<Rng>);
        if let Ok(mut generator) = generator {
            // Without one the zeroes stay, and the rest must do.
            let _ = generator.get_rng(None, &mut seed);
        }
        hash.update(&seed);
        for _ in 0..256 {
            hash.update(&clock::counter().to_le_bytes());
            boot::stall(core::time::Duration::from_micros(1));
        }
        if let Ok(time) = uefi::runtime::get_time() {
            hash.update(&[time.minute(), time.second()]);
            hash.update(&time.nanosecond().to_le_bytes());
        }
        Self(hash.finish())
    }

    /// The next 16 bytes.
    pub(super) fn bytes(&mut self) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(&self.0);
        hash.update(&clock::counter().to_le_bytes());
        self.0 = hash.finish();
        // Half of the state is given out as it is; the other half keeps the next ones unknown.
        let mut out = [0; 16];
        out.copy_from_slice(&self.0[16..]);
        out
    }

    /// The next number.
    pub(super) fn number(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}
