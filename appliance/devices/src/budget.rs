//! Fair use of a BMC: one request at a time, and peace after failures. BMCs are small computers; two careless clients
//! are enough to make one reset itself.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What a BMC was asked so far, for whoever wants to see.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Budget {
    /// Requests on their way: 0 or 1.
    pub in_flight: u32,
    /// Callers waiting for their turn.
    pub waiting: u32,
    /// Operations that succeeded.
    pub done: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Failures to reach the BMC in a row.
    pub failures_in_a_row: u32,
    /// How long it is still left in peace.
    pub peace: Duration,
}

#[derive(Debug, Default)]
struct Account {
    budget: Budget,
    until: Option<Instant>,
}

/// Keeps the account.
#[derive(Debug, Default)]
pub(crate) struct Keeper(Mutex<Account>);

impl Keeper {
    fn with<T>(&self, act: impl FnOnce(&mut Account) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn budget(&self) -> Budget {
        self.with(|account| {
            let peace = account
                .until
                .map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
            Budget {
                peace,
                ..account.budget
            }
        })
    }

    /// A caller queues up; it counts as waiting until the guard is dropped.
    pub(crate) fn queue(&self) -> Waiting<'_> {
        self.with(|account| account.budget.waiting += 1);
        Waiting(self)
    }

    /// A caller whose turn it is begins; it counts as in flight until the guard is dropped, also when it is cancelled.
    pub(crate) fn begin(&self) -> InFlight<'_> {
        self.with(|account| account.budget.in_flight += 1);
        InFlight(self)
    }

    /// The BMC answered, gladly or not.
    pub(crate) fn answered(&self, success: bool) {
        self.with(|account| {
            account.until = None;
            account.budget.failures_in_a_row = 0;
            if success {
                account.budget.done += 1;
            } else {
                account.budget.failed += 1;
            }
        });
    }

    /// Nobody answered, or the BMC said it has too much to do.
    pub(crate) fn overworked(&self) {
        self.with(|account| {
            account.budget.failed += 1;
            let row = &mut account.budget.failures_in_a_row;
            let wait = FIRST_WAIT.saturating_mul(1 << (*row).min(10)).min(LONGEST_WAIT);
            *row = row.saturating_add(1);
            account.until = Some(Instant::now() + wait);
        });
    }
}

pub(crate) struct Waiting<'a>(&'a Keeper);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.with(|account| account.budget.waiting -= 1);
    }
}

pub(crate) struct InFlight<'a>(&'a Keeper);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.with(|account| account.budget.in_flight -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failures_lengthen_the_peace_and_an_answer_ends_it() {
        let keeper = Keeper::default();
        let mut last = Duration::ZERO;
        for _ in 0..4 {
            keeper.overworked();
            let peace = keeper.budget().peace;
            assert!(peace > last, "{peace:?} after {last:?}");
            last = peace;
        }
        for _ in 0..40 {
            keeper.overworked();
        }
        assert!(keeper.budget().peace <= LONGEST_WAIT);
        keeper.answered(false);
        let budget = keeper.budget();
        assert_eq!(
            (budget.peace, budget.failures_in_a_row, budget.failed),
            (Duration::ZERO, 0, 45)
        );
    }
}
