//! How long to wait before connecting again.

use std::time::Duration;

use rackbar_messages::BUSY_PAUSE;
use ring::rand::{SecureRandom, SystemRandom};

use crate::session::End;

/// First wait after a failure.
const FIRST: Duration = Duration::from_secs(1);

/// Longest wait: an appliance that comes back sees all its nodes within a minute.
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row, and with them the next wait.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after a connection that ended so. It is drawn between half and whole: after a restart of the
    /// appliance a rack of agents must not come back in one moment. An agent that is `busy` with a job never waits
    /// longer than [`BUSY_PAUSE`]: an appliance that starts again would take its machine for lost, and reset it.
    pub fn after(&mut self, end: &End, busy: bool) -> Duration {
        self.failures = if end.was_welcome() {
            1
        } else {
            self.failures.saturating_add(1)
        };
        let whole = match end {
            // Only a person can change this answer.
            End::Refused(_) => LONGEST,
            _ => {
                let longest = if busy { BUSY_PAUSE } else { LONGEST };
                FIRST.saturating_mul(1 << (self.failures - 1).min(10)).min(longest)
            }
        };
        let mut random = [0u8; 2];
        // Without randomness the wait is whole; that only costs the spread.
        let share = SystemRandom::new()
            .fill(&mut random)
            .map_or(1.0, |()| f64::from(u16::from_ne_bytes(random)) / 65_535.0);
        whole.mul_f64(0.5 + share / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use rackbar_messages::{CONNECTING, RefusedReason};

    use super::*;
    use crate::session::{PATIENCE, WELCOME_PATIENCE};

    /// Of a try, each with a patience of its own: connecting, the server's part of the handshake, our greeting.
    const STEPS: u32 = 3;

    #[test]
    fn an_agent_with_a_job_is_back_as_soon_as_the_appliance_counts_on() {
        let mut backoff = Backoff::default();
        let waits = (0..20).map(|_| backoff.after(&End::Failed("x".into()), true));
        assert!(waits.max().unwrap() <= BUSY_PAUSE);
        assert!(PATIENCE * STEPS + WELCOME_PATIENCE <= CONNECTING);
    }

    #[test]
    fn waits_grow_to_a_minute_and_start_anew_after_a_welcome() {
        let mut backoff = Backoff::default();
        for whole in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = backoff.after(&End::Failed("x".into()), false).as_secs_f64();
            assert!(
                (f64::from(whole) / 2.0..=f64::from(whole)).contains(&wait),
                "{whole}: {wait}"
            );
        }
        assert!(backoff.after(&End::Lost("x".into()), false) <= Duration::from_secs(1));
        assert!(backoff.after(&End::Refused(RefusedReason::TokenUsed), false) >= Duration::from_secs(30));
    }
}
