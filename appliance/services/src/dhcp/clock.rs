//! The engine's time: the wall clock's, but only a set clock makes it jump, and then the engine is told.
//!
//! Leases are on the disk with times of the wall clock, so the engine goes by it. Its deadlines are seconds, though, and
//! a clock that NTP sets back by hours in the first minutes would hold every offer and probe for as long. So time passes
//! by the steady clock, and where the wall clock has left it, the difference goes to `Engine::shift`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rackbar_model::Timestamp;

use crate::running;

/// A difference smaller than this is no clock that was set but one that was read late, in milliseconds.
const TOLERANCE: u64 = 2_000;

/// The clocks the DHCP service goes by.
#[derive(Clone)]
pub struct Clock {
    /// The time of day; may be set at any time.
    pub wall: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Time since any point; nobody sets it.
    pub steady: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Default for Clock {
    /// The system's.
    fn default() -> Self {
        let begun = Instant::now();
        Self {
            wall: Arc::new(running::now),
            steady: Arc::new(move || begun.elapsed()),
        }
    }
}

/// The engine's time.
pub(super) struct Time {
    clock: Clock,
    /// What the wall clock said when it was last believed, and the steady one then.
    from: (Timestamp, Duration),
}

impl Time {
    pub(super) fn new(clock: Clock) -> Self {
        let from = ((clock.wall)(), (clock.steady)());
        Self { clock, from }
    }

    /// The engine's time now.
    pub(super) fn now(&self) -> Timestamp {
        let (wall, steady) = self.from;
        let passed = (self.clock.steady)().saturating_sub(steady).as_millis();
        wall.plus(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// The milliseconds by which the wall clock was set since the last call; [`Self::now`] is from then on as it says.
    pub(super) fn set_by(&mut self) -> Option<i64> {
        let (now, wall) = (self.now(), (self.clock.wall)());
        if now.0.abs_diff(wall.0) < TOLERANCE {
            return None;
        }
        self.from = (wall, (self.clock.steady)());
        // Both are milliseconds since 1970: their difference has room.
        Some(wall.0.wrapping_sub(now.0).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const HOUR: u64 = 3_600_000;
    const START: u64 = 1_795_000_000_000;

    /// A time, and the clocks behind it: wall and steady, in milliseconds.
    fn time() -> (Time, Arc<Mutex<(u64, u64)>>) {
        let hands = Arc::new(Mutex::new((START, 7_000)));
        let (wall, steady) = (Arc::clone(&hands), Arc::clone(&hands));
        let time = Time::new(Clock {
            wall: Arc::new(move || Timestamp(wall.lock().unwrap().0)),
            steady: Arc::new(move || Duration::from_millis(steady.lock().unwrap().1)),
        });
        (time, hands)
    }

    #[test]
    fn time_passes_by_the_steady_clock_and_a_set_clock_is_told_once() {
        let (mut time, hands) = time();
        *hands.lock().unwrap() = (START + 5_000, 12_000);
        assert_eq!((time.set_by(), time.now()), (None, Timestamp(START + 5_000)));
        // Set back by an hour, a second later.
        *hands.lock().unwrap() = (START + 6_000 - HOUR, 13_000);
        assert_eq!(time.now(), Timestamp(START + 6_000), "nothing waits for an hour");
        assert_eq!(time.set_by(), Some(-(HOUR as i64)));
        assert_eq!((time.set_by(), time.now()), (None, Timestamp(START + 6_000 - HOUR)));
        *hands.lock().unwrap() = (START + 7_000 + HOUR, 14_000);
        assert_eq!(time.set_by(), Some(2 * HOUR as i64));
        assert_eq!(time.now(), Timestamp(START + 7_000 + HOUR));
    }

    #[test]
    fn what_is_read_a_little_late_is_no_set_clock() {
        let (mut time, hands) = time();
        *hands.lock().unwrap() = (START + 1_900, 7_000);
        assert_eq!(time.set_by(), None);
        *hands.lock().unwrap() = (START + 2_100, 7_000);
        assert_eq!(time.set_by(), Some(2_100));
    }
}
