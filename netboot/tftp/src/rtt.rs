//! When to send again: a smoothed round-trip time (RFC 6298), fitted to a rack.
//!
//! The usual servers wait a whole second, so that one lost block in a hundred turns 0.2 s into 15 s. Here the timer
//! follows the client, with a floor that keeps a busy client from being flooded.

use std::time::Duration;

/// Before the first round trip is known.
const INITIAL: Duration = Duration::from_millis(100);
/// Never sooner.
const FLOOR: Duration = Duration::from_millis(10);
/// What the estimate alone may reach. Beyond this it is not the client that is slow: an acknowledgement was lost and the
/// client's own timer, a second in most ROMs, sent another. Believing that would slow every later repair down.
const CEILING: Duration = Duration::from_millis(250);
/// Never later, however often doubled.
const CAP: Duration = Duration::from_secs(1);

/// The estimate for one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rtt {
    /// Smoothed round trip and its deviation; `None` before the first measurement.
    smoothed: Option<(Duration, Duration)>,
    /// Doublings since the last clean measurement.
    doublings: u32,
    cap: Duration,
}

impl Rtt {
    /// No estimate yet; a client may have asked for a timeout of its own (RFC 2349), which then is the longest wait.
    pub(crate) fn new(asked: Option<Duration>) -> Self {
        Self {
            smoothed: None,
            doublings: 0,
            cap: asked.unwrap_or(CAP).min(CAP),
        }
    }

    /// A round trip whose blocks were sent once only (Karn's rule: others prove nothing).
    pub(crate) fn measured(&mut self, trip: Duration) {
        self.doublings = 0;
        self.smoothed = Some(match self.smoothed {
            None => (trip, trip / 2),
            Some((smoothed, deviation)) => (
                smoothed * 7 / 8 + trip / 8,
                deviation * 3 / 4 + smoothed.abs_diff(trip) / 4,
            ),
        });
    }

    /// Nothing came in time. The doubling stays until the next clean measurement: a client slower than the floor is
    /// thus found out instead of being sent everything twice.
    pub(crate) fn timed_out(&mut self) {
        self.doublings = (self.doublings + 1).min(16);
    }

    /// Part of a window came through: the client is there and quick, the link loses. Takes back one doubling.
    pub(crate) fn lossy(&mut self) {
        self.doublings = self.doublings.saturating_sub(1);
    }

    /// The client goes on, but its answer may be to any of several sendings. The long waits were for a client that is
    /// gone; what stays of them is enough for one that is slow.
    pub(crate) fn alive(&mut self) {
        let enough = if self.smoothed.is_some() { 2 } else { 0 };
        self.doublings = self.doublings.min(enough);
    }

    /// How long to wait now.
    pub(crate) fn timeout(&self) -> Duration {
        let base = self.smoothed.map_or(INITIAL, |(smoothed, deviation)| {
            (smoothed + deviation * 4).clamp(FLOOR, CEILING)
        });
        base.saturating_mul(1 << self.doublings).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn follows_the_client_down_to_the_floor_and_up() {
        let mut rtt = Rtt::new(None);
        assert_eq!(rtt.timeout(), INITIAL);
        (0..50).for_each(|_| rtt.measured(MS / 5));
        assert_eq!(rtt.timeout(), FLOOR);
        (0..50).for_each(|_| rtt.measured(MS * 30));
        assert!(
            rtt.timeout() > MS * 30 && rtt.timeout() < MS * 60,
            "{:?}",
            rtt.timeout()
        );
    }

    #[test]
    fn doubles_to_the_cap_and_forgets_it_with_a_clean_round_trip() {
        let mut rtt = Rtt::new(None);
        rtt.measured(MS);
        rtt.timed_out();
        rtt.timed_out();
        assert_eq!(rtt.timeout(), FLOOR * 4);
        (0..40).for_each(|_| rtt.timed_out());
        assert_eq!(rtt.timeout(), CAP);
        rtt.measured(MS);
        assert_eq!(rtt.timeout(), FLOOR);
    }

    #[test]
    fn a_client_that_goes_on_is_not_waited_for_as_one_that_is_gone() {
        let mut rtt = Rtt::new(None);
        (0..40).for_each(|_| rtt.timed_out());
        rtt.alive();
        assert_eq!(rtt.timeout(), INITIAL);
        rtt.measured(MS);
        (0..40).for_each(|_| rtt.timed_out());
        rtt.alive();
        assert_eq!(rtt.timeout(), FLOOR * 4);
    }

    #[test]
    fn the_clients_own_timeout_is_the_longest_wait() {
        let mut rtt = Rtt::new(Some(MS * 800));
        (0..40).for_each(|_| rtt.timed_out());
        assert_eq!(rtt.timeout(), MS * 800);
    }
}
