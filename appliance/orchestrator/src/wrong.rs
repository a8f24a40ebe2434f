//! Credentials that a BMC did not take, whoever tried them: the watcher, a run or a person.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rackbar_devices::{Attempts, Credentials};

use crate::rack::locked;

/// Credentials of a BMC that are remembered; sites have a handful.
const KEPT: usize = 32;

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
    /// Nothing yet.
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            attempts: Arc::new(Attempts::new(window)),
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
