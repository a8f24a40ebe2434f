//! Which of several upstreams to ask next, and when one that failed is tried again.

use std::time::Duration;

/// A failed upstream rests this long at first, and twice as long after each further failure.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(120);

/// How the upstreams of one mirror did. Times are since any fixed moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ranking(Vec<Standing>);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Standing {
    failures: u32,
    rests_until: Duration,
}

impl Ranking {
    /// Of so many upstreams, none of which failed yet.
    pub fn new(count: usize) -> Self {
        Self(vec![Standing::default(); count])
    }

    /// All upstreams in the order to try: those that do not rest as configured, then the others, the soonest rested
    /// first. Resting ones are not left out: asking one of them is better than asking nobody.
    pub fn order(&self, now: Duration) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.0.len()).collect();
        all.sort_by_key(|index| {
            let until = self.0.get(*index).map_or(Duration::ZERO, |one| one.rests_until);
            if until > now { until } else { Duration::ZERO }
        });
        all
    }

    /// Notes that an upstream answered.
    pub fn good(&mut self, index: usize) {
        if let Some(one) = self.0.get_mut(index) {
            *one = Standing::default();
        }
    }

    /// Notes that an upstream failed.
    pub fn bad(&mut self, index: usize, now: Duration) {
        if let Some(one) = self.0.get_mut(index) {
            let rest = FIRST_REST.saturating_mul(1u32.checked_shl(one.failures).unwrap_or(u32::MAX));
            one.failures = one.failures.saturating_add(1).min(20);
            one.rests_until = now.saturating_add(rest.min(LONGEST_REST));
        }
    }
}

/// The pause before the `attempt`th try (from 1) to go on with a broken fetch; `None` when it is given up.
pub fn pause_before(attempt: u32) -> Option<Duration> {
    const PAUSES: [u64; 6] = [50, 250, 1000, 2000, 4000, 8000];
    let index = usize::try_from(attempt.checked_sub(1)?).ok()?;
    PAUSES.get(index).copied().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_failed_upstream_rests_longer_each_time_and_is_never_forgotten() {
        let mut ranking = Ranking::new(3);
        assert_eq!(ranking.order(at(0)), [0, 1, 2]);
        ranking.bad(0, at(0));
        assert_eq!(ranking.order(at(0)), [1, 2, 0]);
        assert_eq!(ranking.order(at(1)), [0, 1, 2]);
        ranking.bad(0, at(1));
        assert_eq!(ranking.order(at(2)), [1, 2, 0]);
        assert_eq!(ranking.order(at(3)), [0, 1, 2]);
        (0..40).for_each(|_| ranking.bad(0, at(3)));
        assert_eq!(ranking.order(at(122)), [1, 2, 0]);
        assert_eq!(ranking.order(at(123)), [0, 1, 2]);
        ranking.good(0);
        ranking.bad(0, at(200));
        assert_eq!(ranking.order(at(201)), [0, 1, 2]);
    }

    #[test]
    fn a_broken_fetch_is_given_up_in_the_end() {
        let tries = (1..).map_while(pause_before).count();
        assert_eq!(tries, 6);
        assert_eq!(pause_before(0), None);
    }
}
