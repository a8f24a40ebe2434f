//! Wrong passwords, counted per account: most BMCs lock an account after three to five of them within some minutes, and a
//! locked account refuses the right one too.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Cause;

/// Wrong passwords that are tried of an account within the window. No BMC is known to lock after fewer than three.
const MOST: usize = 2;

/// Accounts that are remembered, far more than a BMC has.
const ACCOUNTS: usize = 64;

/// A wrong password that counts: the user name in small letters, and how long it still does.
pub type Counting = (String, Duration);

/// Is told of all that counts, whenever that has changed.
pub type Keep = Box<dyn Fn(Vec<Counting>) + Send + Sync>;

/// The wrong passwords that one BMC was shown lately, whoever asked. Shared by all that log in there.
pub struct Attempts {
    window: Duration,
    /// Until when each counts, by user name in small letters: some firmware does not tell `Admin` from `admin`.
    wrong: Mutex<HashMap<String, Vec<Instant>>>,
    keep: Option<Keep>,
}

impl fmt::Debug for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { window, wrong, keep: _ } = self;
        let mut out = f.debug_struct("Attempts");
        out.field("window", window)
            .field("wrong", wrong)
            .finish_non_exhaustive()
    }
}

impl Attempts {
    /// None so far. At most two are made of an account within `window`.
    pub fn new(window: Duration) -> Self {
        let wrong = Mutex::default();
        let keep = None;
        Self { window, wrong, keep }
    }

    /// With those that an earlier life of the program counted, none of which counts for longer than `window`; `keep` is told of
    /// all that count, whenever that has changed.
    pub fn kept(window: Duration, before: Vec<Counting>, keep: Keep) -> Self {
        let mut wrong: HashMap<String, Vec<Instant>> = HashMap::new();
        let now = Instant::now();
        for (user, left) in before.into_iter().take(ACCOUNTS * MOST) {
            wrong.entry(user).or_default().push(now + left.min(window));
        }
        wrong.values_mut().for_each(|times| times.sort());
        Self {
            window,
            wrong: Mutex::new(wrong),
            keep: Some(keep),
        }
    }

    /// How long no further password of this user is tried; nothing when one may be.
    pub fn wait(&self, user: &str) -> Option<Duration> {
        let wrong = self.locked();
        let (first, now) = match wrong.get(&user.to_lowercase())?.as_slice() {
            [.., first, _] => (*first, Instant::now()),
            _ => return None,
        };
        let left = first.saturating_duration_since(now);
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
        times.push(Instant::now() + self.window);
        let more = times.len().saturating_sub(MOST);
        times.drain(..more);
        self.changed(&wrong);
    }

    /// A login succeeded, or the account is new: the BMC counts anew, and so do we.
    pub(crate) fn right(&self, user: &str) {
        let mut wrong = self.locked();
        if wrong.remove(&user.to_lowercase()).is_some() {
            self.changed(&wrong);
        }
    }

    fn changed(&self, wrong: &HashMap<String, Vec<Instant>>) {
        let Some(keep) = &self.keep else { return };
        let now = Instant::now();
        let all = wrong
            .iter()
            .flat_map(|(user, times)| times.iter().map(move |until| (user, until)));
        let left = all.map(|(user, until)| (user.clone(), until.saturating_duration_since(now)));
        keep(left.filter(|(_, left)| !left.is_zero()).collect());
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

    #[tokio::test(start_paused = true)]
    async fn what_an_earlier_life_counted_counts() {
        let kept = std::sync::Arc::new(Mutex::new(Vec::new()));
        let life = || {
            let (before, keep) = (kept.lock().unwrap().clone(), kept.clone());
            let keep: Keep = Box::new(move |all| *keep.lock().unwrap() = all);
            Attempts::kept(WINDOW, before, keep)
        };
        life().wrong("Admin");
        let attempts = life();
        assert_eq!(attempts.wait("admin"), None);
        tokio::time::advance(Duration::from_secs(60)).await;
        attempts.wrong("admin");
        tokio::time::advance(Duration::from_secs(60)).await;
        // Who keeps it says how long each still counts.
        kept.lock()
            .unwrap()
            .iter_mut()
            .for_each(|one| one.1 -= Duration::from_secs(60));
        assert_eq!(
            life().wait("admin"),
            Some(Duration::from_secs(480)),
            "the first counts until then"
        );
        life().right("admin");
        assert_eq!(life().wait("admin"), None);
        assert!(kept.lock().unwrap().is_empty());
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
