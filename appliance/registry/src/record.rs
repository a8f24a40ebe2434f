//! What was registered, as the store has it.

use std::collections::BTreeSet;

use rackbar_model::NodeId;
use rackbar_store::{Store, StoreError, Table};
use serde::{Deserialize, Serialize};

/// What was, or may have been, registered for one machine under one name in one catalogue.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The machine.
    pub id: NodeId,
    /// Its name in the catalogue.
    pub node: String,
    /// The catalogue's URL.
    pub url: String,
    /// Its datacentre; the catalogue's own when there is none.
    pub datacenter: Option<String>,
    /// Ids of the services.
    pub services: BTreeSet<String>,
}

impl Record {
    /// True when both are of one machine, name and catalogue: then the services may differ.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        (self.id, &self.node, &self.url, &self.datacenter) == (other.id, &other.node, &other.url, &other.datacenter)
    }

    fn key(&self) -> Vec<u8> {
        let datacenter = self.datacenter.as_deref().unwrap_or_default();
        // None of the three has blanks, so that no two records have one key.
        format!("{} {} {datacenter} {}", self.id, self.url, self.node).into_bytes()
    }

    /// Waits until it is safe.
    pub(crate) fn keep(&self, store: &Store) -> Result<(), StoreError> {
        let json = serde_json::to_vec(self).map_err(|error| StoreError::Failed(error.to_string()))?;
        store.put(Table::Registrations, &self.key(), &json)
    }

    /// Not waited for: a power cut has it looked at once more.
    pub(crate) fn forget(&self, store: &Store) {
        store.queue(Table::Registrations, &self.key(), None);
    }
}

/// Everything that was registered. Waits for the store.
///
/// # Errors
/// When the store cannot be read.
pub fn records(store: &Store) -> Result<Vec<Record>, StoreError> {
    let all = store.list(Table::Registrations)?.into_iter();
    Ok(all.filter_map(|(_, json)| serde_json::from_slice(&json).ok()).collect())
}
