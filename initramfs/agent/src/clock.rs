//! The machine's clock, set by the appliance's when it is far off.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use crate::report::say;

/// Less than this is left alone: a step would do more harm to logs than the error.
const TOLERANCE_MILLIS: u64 = 60_000;

/// Milliseconds since 1970 by this machine's clock.
fn now_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Steps the clock to `now_millis` when it is more than a minute off. True when the clock may be relied on afterwards.
pub(crate) fn follow(appliance: u64) -> bool {
    let off = now_millis().abs_diff(appliance);
    if off <= TOLERANCE_MILLIS {
        return true;
    }
    match clock_settime(
        ClockId::CLOCK_REALTIME,
        TimeSpec::from(Duration::from_millis(appliance)),
    ) {
        Ok(()) => {
            say!("the clock was {} s off and now follows the appliance", off / 1000);
            true
        }
        Err(error) => {
            say!("the clock is {} s off and cannot be set: {error}", off / 1000);
            false
        }
    }
}
