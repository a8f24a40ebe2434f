//! Which repositories are locked and which images are out of reach, as plans see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rackbar_model::RepositoryLock;

use super::Executor;
use crate::rack::locked;

/// Locks by name.
pub type Locks = Arc<BTreeMap<String, RepositoryLock>>;

impl Executor {
    /// The repositories that are locked, by name.
    pub fn repositories(&self) -> Locks {
        locked(&self.inner.repositories).clone()
    }

    /// Has plans made from now on rest on these locks.
    pub fn set_repositories(&self, all: impl IntoIterator<Item = RepositoryLock>) {
        let all = all.into_iter().map(|lock| (lock.name.clone(), lock));
        *locked(&self.inner.repositories) = Arc::new(all.collect());
    }

    /// Has plans made from now on refuse these images, each with what is missing: they need the uplink, and the appliance asks
    /// nobody outside.
    pub fn set_out_of_reach(&self, all: BTreeMap<String, String>) {
        *locked(&self.inner.out_of_reach) = all;
    }
}
