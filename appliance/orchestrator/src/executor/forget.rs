//! Forgetting a machine that is gone for good.

use rackbar_model::{EventKind, NodeId, Severity};
use rackbar_store::StoreError;

use super::types::NodeError;
use super::{Executor, adopted, memory};
use crate::bmc::bmc_mac;
use crate::enrolments::Enrolments;
use crate::rack::locked;

impl Executor {
    /// Forgets a machine that is gone for good: its name, its addresses, what was installed on it and the secrets by which it
    /// could still enrol itself. What happened to it
    /// stays in the journal, and runs that it had a part in stay as they are. The password that was made for its BMC is kept
    /// by the BMC's MAC address. One that comes back is a new node, of which
    /// nothing is known and on which nothing is destroyed without consent.
    ///
    /// # Errors
    /// When there is no such node, it is being worked on, its agent is connected, or it could not be written down.
    pub fn forget(&self, node: NodeId, by: &str) -> Result<(), NodeError> {
        let inner = &self.inner;
        let shown = inner.rack.node_by_id(node).ok_or(NodeError::NoSuchNode(node))?;
        let (node, name) = (shown.id, shown.name.clone());
        let mut book = locked(&inner.book);
        if let Some(run) = book.runs_of(node).first() {
            return Err(NodeError::Busy { name, run: *run });
        }
        if shown.agent_connected {
            return Err(NodeError::StillThere(name));
        }
        // What waits to be written of it must not come after.
        inner.keep(&mut book)?;
        let store = |error: StoreError| NodeError::Store(error.to_string());
        // First what it could still enrol itself by: as long as the node is there, whoever forgets it can do so again.
        Enrolments::new(inner.store.clone()).forget(node).map_err(store)?;
        let note = EventKind::Note {
            text: format!("forgotten by {by}; if it comes back it is a new machine"),
            severity: Severity::Info,
        };
        let gone = [memory::no_node_entry(node)];
        memory::write_and_tell(&inner.rack, &gone, vec![(Some(node), note)]).map_err(store)?;
        let work = book.work.remove(&node);
        adopted::forget_key(&book, &inner.store, work.as_ref().and_then(adopted::key_of));
        // Nobody else knows the password that was made for its BMC.
        let seen = shown
            .inventory
            .as_ref()
            .and_then(|inventory| inventory.bmc.as_ref()?.mac);
        if let Some(mac) = bmc_mac(&shown).or(seen)
            && let Err(error) = inner.store.keep_bmc_login(node, mac)
        {
            tracing::error!(%node, %error, "the account of its BMC stays with the node that is forgotten");
        }
        inner.rack.forget(node);
        book.looked_at = 0;
        drop(book);
        inner.wake();
        Ok(())
    }
}
