//! Wrong passwords, counted per account: most BMCs lock an account after three to five of them within some minutes, and a
//! locked account refuses the right one too.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Cause;

/// Wrong passwords that are tried of an account within the window. No BMC is known to lock after fewer than three.
const MOST: usize = 2;

/// Accounts that are remembered, far more than a BMC has.
const ACCOUNTS: usize = 64;

/// The wrong passwords that one BMC was shown lately, whoever asked. Shared by all that log in there.
#[derive(Debug)]
pub struct Attempts {
    window: Duration,
    /// When they were shown, by user name in small letters: some firmware does not tell `Admin` from `admin`.
    wrong: Mutex<HashMap<String, Vec<Instant>>>,
}

impl Attempts {
    /// None so far. At most two are made of an account within `window`.
    pub fn new(window: Duration) -> Self {
        let wrong = Mutex::default();
        Self { window, wrong }
    }

    /// How long no further password of this user is tried; nothing when one may be.
    pub fn wait(&self, user: &str) -> Option<Duration> {
        let wrong = self.locked();
        let (first, now) = match wrong.get(&user.to_lowercase())?.as_slice() {
            [.., first, _] => (*first, Instant::now()),
            _ => return None,
        };
        let left = (first + self.window).saturating_duration_since(now);
        Some(left).filter(|left| !left.is_zero())
    }

    pub(crate) fn may(&self, user: &str) -> Result<(), Cause> {
        let user = user.to_owned();
        let window = self.window;
        self.wait(&user)
            .map_or(Ok(()), |wait| Err(Cause::HeldBack { user, window, wait }))
    }

    pub(crate) fn wrong(&self, user: &str) {
        let mut wrong = self.locked();
        if wrong.len() >= ACCOUNTS && !wrong.contains_key(&user.to_lowercase()) {
            let last = |times: &Vec<Instant>| times.last().copied();
            let oldest = wrong.iter().min_by_key(|(_, times)| last(times));
            let oldest = oldest.map(|(user, _)| user.clone());
            oldest.map(|user| wrong.remove(&user));
        }
        let times = wrong.entry(user.to_lowercase()).or_default();
        times.push(Instant::now());
        let more = times.len().saturating_sub(MOST);
        times.drain(..more);
    }

    /// A login succeeded, or the account is new: the BMC counts anew, and so do we.
    pub(crate) fn right(&self, user: &str) {
        self.locked().remove(&user.to_lowercase());
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, Vec<Instant>>> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(600);

    #[tokio::test(start_paused = true)]
    async fn two_wrong_passwords_in_any_window_and_no_third() {
        let attempts = Attempts::new(WINDOW);
        let minutes = |n: u64| tokio::time::advance(Duration::from_secs(60 * n));
        attempts.wrong("admin");
        assert_eq!(attempts.wait("admin"), None);
        minutes(4).await;
        attempts.wrong("Admin");
        assert_eq!(attempts.wait("admin"), Some(Duration::from_secs(360)));
        assert!(matches!(attempts.may("admin"), Err(Cause::HeldBack { .. })));
        assert_eq!(attempts.wait("root"), None, "another account");
        minutes(6).await;
        assert_eq!(attempts.wait("admin"), None);
        attempts.wrong("admin");
        assert_eq!(
            attempts.wait("admin"),
            Some(Duration::from_secs(240)),
            "the second and this one"
        );
        attempts.right("admin");
        assert_eq!(attempts.wait("admin"), None);
    }

    #[test]
    fn made_up_names_do_not_pile_up() {
        let attempts = Attempts::new(WINDOW);
        for n in 0..10_000 {
            attempts.wrong(&format!("user-{n}"));
        }
        assert!(attempts.locked().len() <= ACCOUNTS);
    }
}
