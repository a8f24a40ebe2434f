//! Recording a machine that was adopted: which may be, and the one commit by which it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use rackbar_model::{Adopted, EventKind, Node, NodeId, NodeState, SecretText, Severity};
use rackbar_store::{Store, StoreError, Table};

use super::memory::NodeWork;
use super::nodes::hardware;
use super::{Book, Executor, Inner, memory};
use crate::adopt::{AdoptError, Found, in_the_way, key_place};
use crate::held::Taken;
use crate::rack::{locked, now};

impl Executor {
    /// Whether a node that is known may be adopted.
    pub(crate) fn may_adopt(&self, node: &Node) -> Result<(), AdoptError> {
        may(&locked(&self.inner.book), node)
    }

    /// Records what was found; from then on it is Ready with the system that it has.
    pub(crate) fn adopt(&self, mut found: Found, by: &str) -> Result<Arc<Node>, AdoptError> {
        let inner = &self.inner;
        let mut book = locked(&inner.book);
        // What waits to be written of it must not come after.
        let waits = inner.keep(&mut book);
        waits.map_err(|error| AdoptError::Store(error.to_string()))?;
        // It may have been given work while it was looked at.
        let known = found.recognised.and_then(|id| inner.rack.node_by_id(id));
        if let Some(node) = &known {
            may(&book, node)?;
        }
        let known = known.map(|node| node.id);
        let inventory = std::mem::take(&mut found.report.inventory);
        let taken = inner.rack.take_machine(known, inventory, found.adopted.address);
        let Taken { node: id, new } = taken.ok_or_else(|| {
            let words = "there are as many machines as this appliance can follow: forget some that are gone";
            AdoptError::InTheWay(words.into())
        })?;
        if let Err(error) = inner.record_adopted(&mut book, id, &found) {
            if new {
                inner.rack.forget(id);
            }
            return Err(error);
        }
        let text = format!("its system was adopted by {by} as it is: {}", in_words(&found.adopted));
        let severity = Severity::Info;
        inner.rack.tell(Some(id), EventKind::Note { text, severity });
        inner
            .rack
            .hold(id, NodeState::Ready, &format!("its system was adopted by {by}"));
        inner.show_work(&book, id);
        book.looked_at = 0;
        drop(book);
        inner.wake();
        let gone = || AdoptError::Store("the node went away while it was recorded".into());
        inner.rack.node_by_id(id).ok_or_else(gone)
    }
}

impl Inner {
    /// Records the adoption of a node that the machine was taken into.
    fn record_adopted(&self, book: &mut Book, id: NodeId, found: &Found) -> Result<(), AdoptError> {
        // Discovery may have found it while it was looked at, and somebody have given it work.
        if let Some(node) = self.rack.node_by_id(id) {
            may(book, &node)?;
        }
        if let Some(name) = &found.name {
            let named = self.rack.rename(id, name);
            named.map_err(|error| AdoptError::InTheWay(error.to_string()))?;
        }
        self.keep_adopted(book, id, &found.adopted, found.key.as_ref())
    }

    /// Writes down that a node's system was adopted, with the key that it lets in.
    fn keep_adopted(
        &self,
        book: &mut Book,
        node: NodeId,
        adopted: &Adopted,
        key: Option<&SecretText>,
    ) -> Result<(), AdoptError> {
        let store = |error: rackbar_store::StoreError| AdoptError::Store(error.to_string());
        if let (Some(key), Some(print)) = (key, &adopted.own_key) {
            let kept = self.store.put(Table::Secrets, &key_place(print), key.0.as_bytes());
            kept.map_err(store)?;
        }
        let before = book.work.get(&node).cloned();
        let work = NodeWork {
            boots_disk: true,
            ready: self.rack.node_by_id(node).map(|node| hardware(&node, now())),
            report: None,
            erased: Vec::new(),
            adopted: Some(adopted.clone()),
            ..before.clone().unwrap_or_default()
        };
        if let Err(error) = memory::write(&self.store, &[memory::node_entry(node, &work)]) {
            forget_key(book, &self.store, key_of(&work));
            return Err(store(error));
        }
        book.work.insert(node, work);
        // It may have let in another key before.
        forget_key(book, &self.store, before.as_ref().and_then(key_of));
        Ok(())
    }
}

fn may(book: &Book, node: &Node) -> Result<(), AdoptError> {
    if let Some(run) = book.busy(node.id) {
        let name = &node.name;
        return Err(AdoptError::InTheWay(format!(
            "run {run} works on {name}: wait for it or cancel it"
        )));
    }
    let work = book.work.get(&node.id);
    let installed = work.is_some_and(|work| work.installed.is_some());
    let maintenance = work.is_some_and(|work| work.maintenance.is_some());
    in_the_way(node, installed, maintenance).map_or(Ok(()), |reason| Err(AdoptError::InTheWay(reason)))
}

/// The key of its own that an adopted system lets in, by its fingerprint.
pub(super) fn key_of(work: &NodeWork) -> Option<&String> {
    work.adopted.as_ref()?.own_key.as_ref()
}

/// Takes a key away, unless the system of a node lets it in.
pub(super) fn forget_key(book: &Book, store: &Store, print: Option<&String>) {
    let Some(print) = print else { return };
    if !book.work.values().any(|work| key_of(work) == Some(print)) {
        store.queue(Table::Secrets, &key_place(print), None);
    }
}

/// Takes those away whose systems are about to be emptied, now that this is written down.
pub(super) fn forget_keys(book: &mut Book, store: &Store) {
    for print in std::mem::take(&mut book.unneeded_keys) {
        forget_key(book, store, Some(&print));
    }
}

/// Takes those away that no system lets in any more, nor one that never was adopted: the power may go between the commit that
/// ends a need and the removal of the key. Asked at a start; of records that cannot be read nobody knows what they need, and
/// then, as while the secrets are locked, all stay.
pub(super) fn sweep_keys(book: &Book, store: &Store) {
    let secrets = match store.list(Table::Secrets) {
        Ok(secrets) => secrets,
        Err(StoreError::Locked(_)) => return,
        Err(error) => {
            tracing::error!(%error, "keys that adopted systems let in are not looked through");
            return;
        }
    };
    let prefix = key_place("");
    let mut places: Vec<Vec<u8>> = secrets.into_iter().map(|(place, _)| place).collect();
    places.retain(|place| place.starts_with(&prefix));
    // What is on the disk counts, too: what the book has may not be written yet.
    let Some(written) = (!places.is_empty()).then(|| memory::nodes(store)).flatten() else {
        return;
    };
    let needed = written.iter().chain(book.work.values()).filter_map(key_of);
    let needed: BTreeSet<Vec<u8>> = needed.map(|print| key_place(print)).collect();
    for place in places.into_iter().filter(|place| !needed.contains(place)) {
        store.queue(Table::Secrets, &place, None);
    }
}

/// What was adopted, for the timeline.
fn in_words(adopted: &Adopted) -> String {
    let named = |text: &str| {
        if text.is_empty() {
            "unnamed".to_owned()
        } else {
            text.to_owned()
        }
    };
    let system = &adopted.system;
    let disks = system.in_use.iter();
    let disks: Vec<String> = disks
        .map(|one| format!("{} ({})", one.disk, one.uses.join(", ")))
        .collect();
    let disks = if disks.is_empty() {
        "none".to_owned()
    } else {
        disks.join("; ")
    };
    format!(
        "{}, kernel {}, host name {}; disks in use: {disks}",
        named(&system.name),
        named(&system.kernel),
        named(&system.hostname)
    )
}
