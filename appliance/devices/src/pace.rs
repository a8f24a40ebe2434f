//! How fast a BMC is asked: a bounded rate of requests, whoever asks and by whichever way. A BMC's processor is that of
//! a small router; one that is asked as fast as it answers has no time left for the machine it watches.
//!
//! A token bucket, as the time at which it is full again: a request takes `pause` out of it, up to `burst` of them at once.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rackbar_hw_profiles::Quirks;
use tokio::time::{Instant, sleep_until};

/// Between two requests in the long run, where no profile says otherwise: 100 in a second. Redfish on a BMC takes longer for
/// nearly every answer, so this holds back who is answered from a cache, or refused at once, again and again.
const PAUSE: Duration = Duration::from_millis(10);

/// Requests that may go at once after a rest, where no profile says otherwise: more than one look at a machine takes.
const BURST: u32 = 100;

/// The longest pause that a profile is believed.
const LONGEST: Duration = Duration::from_secs(10);

/// The pace of one BMC, shared by all its clients.
#[derive(Debug)]
pub(crate) struct Pace(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    pause: Duration,
    burst: u32,
    /// When it is full again; `None` until the first request.
    full: Option<Instant>,
}

impl Bucket {
    /// Takes a place for a request: when it may go.
    fn place(&mut self, now: Instant) -> Instant {
        let full = self.full.map_or(now, |full| full.max(now));
        self.full = Some(full + self.pause);
        let ahead = self.pause.saturating_mul(self.burst.saturating_sub(1));
        full.checked_sub(ahead).map_or(now, |turn| turn.max(now))
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self(Mutex::new(Bucket {
            pause: PAUSE,
            burst: BURST,
            full: None,
        }))
    }
}

impl Pace {
    fn with<T>(&self, act: impl FnOnce(&mut Bucket) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes as this BMC's profiles say, from the next request on. A pause without a burst is one between any two requests.
    pub(crate) fn treat(&self, quirks: &Quirks) {
        let stated = quirks.request_pause_ms.map(|ms| Duration::from_millis(ms.into()));
        let burst = quirks.request_burst.map(|burst| u32::from(burst).max(1));
        self.with(|bucket| {
            bucket.burst = burst.unwrap_or(if stated.is_some() { 1 } else { BURST });
            bucket.pause = stated.unwrap_or(PAUSE).min(LONGEST);
        });
    }

    /// Waits until the next request may go. Who gives up waiting leaves its place unused.
    pub(crate) async fn turn(&self) {
        let turn = self.with(|bucket| bucket.place(Instant::now()));
        if turn > Instant::now() {
            sleep_until(turn).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// The moments at which so many callers that come at once are let through, in milliseconds.
    async fn turns(pace: Arc<Pace>, callers: usize) -> Vec<u64> {
        let start = Instant::now();
        let all: Vec<_> = (0..callers)
            .map(|_| {
                let pace = Arc::clone(&pace);
                tokio::spawn(async move {
                    pace.turn().await;
                    u64::try_from(start.elapsed().as_millis()).unwrap()
                })
            })
            .collect();
        let mut turns = Vec::new();
        for one in all {
            turns.push(one.await.unwrap());
        }
        turns.sort_unstable();
        turns
    }

    fn paced(pause: Option<u16>, burst: Option<u8>) -> Arc<Pace> {
        let pace = Pace::default();
        pace.treat(&Quirks {
            request_pause_ms: pause,
            request_burst: burst,
            ..Quirks::default()
        });
        Arc::new(pace)
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_queue_up_go_at_the_pace_of_the_profile() {
        assert_eq!(turns(paced(Some(250), None), 5).await, [0, 250, 500, 750, 1_000]);
        let pace = paced(Some(100), Some(3));
        assert_eq!(turns(Arc::clone(&pace), 7).await, [0, 0, 0, 100, 200, 300, 400]);
        // After a rest the burst is there again, and no more than that.
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(turns(pace, 5).await, [0, 0, 0, 100, 200]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_profile_one_look_goes_at_once_and_many_are_bounded() {
        let pace = Arc::new(Pace::default());
        let turns = turns(pace, 300).await;
        assert_eq!((turns[99], turns[100], turns[299]), (0, 10, 2_000));
        assert_eq!(paced(Some(u16::MAX), None).with(|bucket| bucket.pause), LONGEST);
        assert_eq!(paced(None, Some(0)).with(|bucket| bucket.burst), 1);
    }

    proptest! {
        #[test]
        fn in_no_stretch_of_time_is_a_bmc_asked_more_than_its_pace_allows(
            pause in 1u64..500, burst in 1u32..8, gaps in proptest::collection::vec(0u64..600, 1..60),
        ) {
            let mut bucket = Bucket { pause: Duration::from_millis(pause), burst, full: None };
            let mut now = Instant::now();
            let mut turns = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                let turn = bucket.place(now);
                prop_assert!(turn >= now && turns.last().is_none_or(|last| turn >= *last));
                turns.push(turn);
            }
            for (at, first) in turns.iter().enumerate() {
                for (count, last) in turns.iter().skip(at).enumerate() {
                    let allowed = u128::from(burst) + (*last - *first).as_millis() / u128::from(pause);
                    prop_assert!(count as u128 <= allowed, "{count} in {:?}", *last - *first);
                }
            }
        }
    }
}
