//! Time: the processor's counter, measured once against the firmware's stall. UEFI has no finer clock than seconds.

use core::arch::x86_64::_rdtsc;
use core::time::Duration;

use uefi::boot;

/// Counts microseconds from when it was made.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    start: u64,
    ticks_per_milli: u64,
}

impl Clock {
    /// Takes 20 ms to measure the counter.
    pub(super) fn new() -> Self {
        const MEASURE_MILLIS: u64 = 20;
        let start = counter();
        boot::stall(Duration::from_millis(MEASURE_MILLIS));
        let ticks = counter().wrapping_sub(start);
        Self {
            start,
            ticks_per_milli: (ticks / MEASURE_MILLIS).max(1),
        }
    }

    /// Microseconds since [`new`](Self::new).
    pub(super) fn micros(&self) -> u64 {
        let ticks = u128::from(counter().wrapping_sub(self.start));
        (ticks * 1000 / u128::from(self.ticks_per_milli)) as u64
    }

    /// Milliseconds since [`new`](Self::new).
    pub(super) fn millis(&self) -> u64 {
        self.micros() / 1000
    }
}

/// The time-stamp counter.
pub(super) fn counter() -> u64 {
    // SAFETY: every x86-64 processor has it, and firmware leaves it readable.
    unsafe { _rdtsc() }
}
