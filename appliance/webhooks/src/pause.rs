//! When to try again.

use std::time::Duration;

/// After the first failure; doubled with each further one.
const FIRST: Duration = Duration::from_secs(1);

/// The longest between two tries.
const SLOWEST: Duration = Duration::from_secs(5 * 60);

/// The longest that a receiver may ask for with `Retry-After`.
const ASKED: Duration = Duration::from_secs(60 * 60);

/// Tries of one event that the receiver says it will never take.
const REFUSED_TRIES: u32 = 10;

/// What came of a try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answered {
    /// Heard.
    Well,
    /// Not now; with what the receiver asked for in `Retry-After`.
    Later(String, Option<Duration>),
    /// This event, as it is, will not be taken.
    Refused(String),
}

/// What an HTTP status means. Redirects are not followed: an event and its signature go where the configuration says.
pub fn judge(status: u16, retry_after: Option<Duration>) -> Answered {
    match status {
        200..=299 => Answered::Well,
        // The message itself is not to its liking. All else may be mended at the receiver: its path, its key, its load.
        400 | 405 | 406 | 413 | 415 | 422 => Answered::Refused(format!("it answers with status {status}")),
        301 | 302 | 307 | 308 => Answered::Later(
            format!("it answers with status {status}, a redirect, which is not followed: write the new URL"),
            None,
        ),
        _ => Answered::Later(format!("it answers with status {status}"), retry_after),
    }
}

/// Failures in a row of one event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pause {
    /// How many.
    pub failures: u32,
}

impl Pause {
    /// Takes a failure; gives the time to the next try, or `None` when this event is passed over.
    pub fn after(&mut self, answered: &Answered) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        let doublings = 1 << self.failures.saturating_sub(1).min(16);
        let usual = FIRST.saturating_mul(doublings).min(SLOWEST);
        match answered {
            Answered::Refused(_) if self.failures >= REFUSED_TRIES => None,
            Answered::Later(_, Some(asked)) => Some((*asked).min(ASKED).max(usual)),
            Answered::Well | Answered::Refused(_) | Answered::Later(_, None) => Some(usual),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_grow_rarer_up_to_a_bound_and_never_end_while_nobody_says_no() {
        let later = Answered::Later("x".into(), None);
        let mut pause = Pause::default();
        let seconds: Vec<u64> = (0..200).map(|_| pause.after(&later).unwrap().as_secs()).collect();
        assert_eq!(seconds[..5], [1, 2, 4, 8, 16]);
        assert_eq!(seconds[199], SLOWEST.as_secs());
    }

    #[test]
    fn a_receiver_may_ask_for_time_but_not_for_ever() {
        let asks = |seconds| {
            Pause::default()
                .after(&judge(503, Some(Duration::from_secs(seconds))))
                .unwrap()
        };
        assert_eq!(asks(30), Duration::from_secs(30));
        assert_eq!(asks(0), FIRST);
        assert_eq!(asks(u64::MAX), ASKED);
    }

    #[test]
    fn an_event_that_is_refused_for_what_it_is_does_not_stop_the_others_for_ever() {
        let refused = judge(422, None);
        let mut pause = Pause::default();
        let tries = (0..).take_while(|_| pause.after(&refused).is_some()).count();
        assert_eq!(tries as u32 + 1, REFUSED_TRIES);
        for status in [401, 404, 410, 429, 500, 301] {
            assert!(matches!(judge(status, None), Answered::Later(..)), "{status}");
        }
    }
}
