//! Credentials that a BMC did not take, whoever tried them: the watcher, a run or a person.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rackbar_devices::{Attempts, Counting, Credentials};
use rackbar_model::Timestamp;
use rackbar_store::{Store, Table};

use crate::rack::{locked, now};

/// Credentials of a BMC that are remembered; sites have a handful.
const KEPT: usize = 32;

/// A wrong password in the store: whose, and until when it counts.
type Kept = (String, Timestamp);

/// What one BMC did not take.
pub(crate) struct Wrong {
    /// Held by who tries credentials.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// How often each account was tried in vain lately.
    pub(crate) attempts: Arc<Attempts>,
    /// The latest last.
    refused: Mutex<VecDeque<Credentials>>,
}

impl Wrong {
    /// What `store` has under this key, where it is kept from now on: a restart of ours is none of the BMC's.
    pub(crate) fn kept(window: Duration, store: &Store, key: String) -> Self {
        let keep = {
            let (store, key) = (store.clone(), key.clone());
            move |all: Vec<Counting>| {
                let until = |left: Duration| now().plus(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
                let all: Vec<Kept> = all.into_iter().map(|(user, left)| (user, until(left))).collect();
                let value = Some(all)
                    .filter(|all| !all.is_empty())
                    .and_then(|all| serde_json::to_vec(&all).ok());
                store.queue(Table::Bmcs, key.as_bytes(), value.as_deref());
            }
        };
        let before = store.get(Table::Bmcs, key.as_bytes());
        let before =
            before.inspect_err(|error| tracing::error!(%error, "wrong passwords of a BMC cannot be looked up"));
        let before = before.ok().flatten();
        let before: Vec<Kept> = before
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default();
        let now = now();
        // A clock that was set back makes the wait longer, never longer than the window.
        let left = |(user, until): Kept| (user, Duration::from_millis(until.since(now)));
        let before = before
            .into_iter()
            .map(left)
            .filter(|(_, left)| !left.is_zero())
            .collect();
        Self {
            turn: tokio::sync::Mutex::default(),
            attempts: Arc::new(Attempts::kept(window, before, Box::new(keep))),
            refused: Mutex::default(),
        }
    }

    pub(crate) fn refused(&self, credential: &Credentials) {
        let mut refused = locked(&self.refused);
        refused.retain(|one| !same(one, credential));
        refused.push_back(credential.clone());
        if refused.len() > KEPT {
            refused.pop_front();
        }
    }

    /// Those that were refused come last, the latest at the end: with more passwords than may be tried at a time, each has
    /// its turn.
    pub(crate) fn untried_first(&self, credentials: &mut [Credentials]) {
        let refused = locked(&self.refused);
        credentials.sort_by_key(|credential| refused.iter().position(|one| same(one, credential)));
    }

    /// An account had wrong passwords enough for now.
    pub(crate) fn counts(&self) -> bool {
        let refused = locked(&self.refused);
        refused.iter().any(|one| self.attempts.wait(&one.user).is_some())
    }
}

fn same(one: &Credentials, other: &Credentials) -> bool {
    one.user == other.user && one.password() == other.password()
}
