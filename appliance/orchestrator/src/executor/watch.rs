//! A look at all nodes, once a second when something changed: which role each has, and whether ready ones are still as
//! they were proved to be.

use std::sync::Arc;

use rackbar_model::{CheckStatus, EventKind, Node, NodeId, NodeState};
use rackbar_plan::rules::Rules;

use super::{Book, Inner, memory, nodes, settings};
use crate::rack::{locked, now};

impl Inner {
    pub(super) fn look(&self) {
        let mut book = locked(&self.book);
        let revision = self.rack.revision();
        if book.looked_at == revision {
            return;
        }
        let site = book.site.clone();
        let rules = site.as_ref().map(|site| Rules::new(&site.site));
        for node in self.rack.nodes() {
            self.merge(&mut book, &node);
            let traced = rules
                .as_ref()
                .map(|rules| rules.trace(&self.node_facts(&book, node.clone())));
            let (role, why) = traced.map_or_else(Default::default, |trace| (trace.role, trace.decided));
            self.show_role(&book, &node, role, &why);
            self.show_drift(&book, &node);
        }
        // What was just shown is no news.
        book.looked_at = self.rack.revision();
    }

    /// A node that turned out to be another: what was known of the identity that went away is known of the one that
    /// stays, unless that one has its own.
    fn merge(&self, book: &mut Book, node: &Arc<Node>) {
        let aliases = self
            .rack
            .look(|mind| mind.records.get(&node.id).map(|record| record.aliases.clone()));
        for alias in aliases.unwrap_or_default() {
            if let Some(gone) = book.work.remove(&alias) {
                book.unwritten.push(memory::no_node_entry(alias));
                if !book.work.contains_key(&node.id) {
                    book.work(node.id, |work| *work = gone);
                    self.show_work(book, node.id);
                }
            }
        }
    }

    fn show_role(&self, book: &Book, node: &Arc<Node>, role: Option<String>, why: &str) {
        // A machine in work keeps the role it is worked on for.
        if book.busy(node.id).is_none() {
            self.set_role(book, node, role, why);
        }
    }

    /// The roles that nodes have from now on, read anew and not at the next look: what is begun on them now is for those.
    pub(super) fn read_roles(&self, book: &Book, nodes: impl IntoIterator<Item = NodeId>) {
        let Some(site) = &book.site else { return };
        let rules = Rules::new(&site.site);
        for node in nodes.into_iter().filter_map(|node| self.rack.node_by_id(node)) {
            let trace = rules.trace(&self.node_facts(book, node.clone()));
            self.set_role(book, &node, trace.role, &trace.decided);
        }
    }

    fn set_role(&self, book: &Book, node: &Arc<Node>, role: Option<String>, why: &str) {
        if node.role != role {
            let by_hand = book.work.get(&node.id).is_some_and(|work| work.role.is_some());
            let shown = role.clone();
            self.rack.show(node.id, true, |node| node.role = shown);
            // Who binds by hand has said so already.
            if !by_hand {
                let by = why.to_owned();
                self.rack
                    .tell(Some(node.id), EventKind::RoleBound { role: role.clone(), by });
            }
        }
        match (&node.state, role) {
            (NodeState::Discovered, Some(role)) => {
                self.rack
                    .hold(node.id, NodeState::Available, &format!("role {role}, {why}"));
            }
            (NodeState::Available, None) => self
                .rack
                .hold(node.id, NodeState::Discovered, "it has no role any more"),
            _ => {}
        }
    }

    /// What a ready node shows against what it was when its checks passed.
    fn show_drift(&self, book: &Book, node: &Arc<Node>) {
        let work = book.work.get(&node.id);
        let found = match work.and_then(|work| Some((work, work.ready.as_ref()?))) {
            Some((work, ready)) if node.state == NodeState::Ready => {
                let mut found = nodes::drift(ready, &nodes::hardware(node, now()));
                let checks = work.report.iter().flat_map(|report| &report.checks);
                let failed = checks.filter(|check| check.status == CheckStatus::Failed);
                found.extend(settings::drift(book, node, work));
                found.extend(failed.map(|check| {
                    format!(
                        "the check {} fails: wanted {}, found {}",
                        check.id, check.wanted, check.observed
                    )
                }));
                found
            }
            _ => Vec::new(),
        };
        if found == node.drift {
            return;
        }
        for what in found.iter().filter(|what| !node.drift.contains(what)) {
            self.rack
                .tell(Some(node.id), EventKind::DriftSeen { what: what.clone() });
        }
        if node.state == NodeState::Ready {
            for what in node.drift.iter().filter(|what| !found.contains(what)) {
                self.rack
                    .tell(Some(node.id), EventKind::DriftGone { what: what.clone() });
            }
        }
        self.rack.show(node.id, true, |node| node.drift = found);
    }
}
