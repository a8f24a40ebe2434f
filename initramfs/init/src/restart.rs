//! When a service that ended is started again. Pure: time is an argument.
//!
//! ```text
//!            ended                    due
//! Running ──────────▶ Waiting(delay) ─────▶ Running
//!    │  ran STABLE or longer: delay and budget start anew
//!    └─ more than BUDGET short runs in a row: degraded, the delay stays at DEGRADED
//! ```
//! A service is never given up: on a machine nobody sits in front of, the next try may follow the repair.

use std::time::{Duration, Instant};

/// First delay: long enough for the kernel to close the sockets of the last run.
const FIRST: Duration = Duration::from_millis(250);

/// Longest delay within the budget.
const LONGEST: Duration = Duration::from_secs(15);

/// A run of this length counts as good. Longer than any start-up, shorter than an operator's patience.
const STABLE: Duration = Duration::from_secs(60);

/// Short runs in a row that are put up with: 0.25 + 0.5 + ... + 8 s, about 16 s of trying.
const BUDGET: u32 = 6;

/// Delay when the budget is spent: seldom enough to keep the log readable and the processor free.
const DEGRADED: Duration = Duration::from_secs(60);

/// What to do with a service that ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    /// How long to wait.
    pub(crate) delay: Duration,
    /// True when the crash budget is spent.
    pub(crate) degraded: bool,
}

/// The memory of one service's ends.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    short_runs: u32,
}

impl Restarts {
    /// Judges a run from `started` to `ended`.
    pub(crate) fn ended(&mut self, started: Instant, ended: Instant) -> Verdict {
        if ended.saturating_duration_since(started) >= STABLE {
            self.short_runs = 0;
        }
        self.short_runs = self.short_runs.saturating_add(1);
        let degraded = self.short_runs > BUDGET;
        let doubled = FIRST.saturating_mul(1 << (self.short_runs - 1).min(10));
        Verdict {
            delay: if degraded { DEGRADED } else { doubled.min(LONGEST) },
            degraded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_then_the_budget_is_spent_and_a_good_run_restores_it() {
        let start = Instant::now();
        let mut restarts = Restarts::default();
        let delays: Vec<u64> = (0..6)
            .map(|_| {
                let verdict = restarts.ended(start, start + Duration::from_secs(1));
                assert!(!verdict.degraded);
                verdict.delay.as_millis() as u64
            })
            .collect();
        assert_eq!(delays, [250, 500, 1000, 2000, 4000, 8000]);
        let spent = restarts.ended(start, start);
        assert_eq!(
            spent,
            Verdict {
                delay: DEGRADED,
                degraded: true
            }
        );
        assert_eq!(restarts.ended(start, start), spent);
        let good = restarts.ended(start, start + STABLE);
        assert_eq!(
            good,
            Verdict {
                delay: FIRST,
                degraded: false
            }
        );
    }
}
