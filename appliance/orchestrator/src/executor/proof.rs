//! Signed reports: what the checks of each machine came to, and which machines there is nothing to show for.

use std::collections::BTreeMap;
use std::sync::Arc;

use rackbar_model::{Node, NodeId, NodeState};
use rackbar_plan::rules::{Rules, shortfall};
use rackbar_plan::site::Machine;
use rackbar_verify::{NodeReport, Report, SignedReport};

use super::{Book, Executor, Inner};
use crate::rack::{locked, now};

impl Executor {
    /// The newest signed report of a node's checks; `None` when none were run on what is on it.
    pub fn report(&self, node: NodeId) -> Option<SignedReport> {
        let node = self.inner.rack.node_by_id(node)?;
        let book = locked(&self.inner.book);
        let report = book.work.get(&node.id)?.report.clone()?;
        let state = Some(state(&node));
        self.inner.signed(&book, vec![NodeReport { state, ..report }])
    }

    /// The signed report of the rack: every machine whose checks were run, and, without proof, every other one that has
    /// a role, was to be installed, or is expected. `None` when no checks were run at all.
    pub fn rack_report(&self) -> Option<SignedReport> {
        let book = locked(&self.inner.book);
        let expected = self.inner.expected(&book);
        let is_expected = |node: NodeId| {
            expected
                .iter()
                .any(|one| one.node.as_ref().is_some_and(|seen| seen.id == node))
        };
        let seen = self.inner.rack.nodes();
        let mut nodes: Vec<NodeReport> = seen
            .iter()
            .filter_map(|node| of_node(&book, node, is_expected(node.id)))
            .collect();
        let proved = nodes.iter().any(|node| !node.checks.is_empty());
        let missing = expected.iter().filter(|one| one.node.is_none());
        nodes.extend(missing.map(|one| never_seen(&one.machine.name)));
        nodes.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
        proved.then(|| self.inner.signed(&book, nodes)).flatten()
    }
}

/// A machine of the site file, and who it turned out to be.
#[derive(Clone, Debug)]
pub struct Expected {
    /// As the site file has it.
    pub machine: Machine,
    /// The node that it is; `None` while none has shown itself.
    pub node: Option<Arc<Node>>,
}

impl Expected {
    /// What the machine has less of than its bill of materials says, in words; nothing while it was not inspected.
    pub fn shortfall(&self) -> Vec<String> {
        let inventory = self.node.as_ref().and_then(|node| node.inventory.as_ref());
        inventory.map_or_else(Vec::new, |inventory| shortfall(&self.machine, inventory))
    }
}

impl Executor {
    /// The machines that the site in force expects, in the order of its file.
    pub fn expected(&self) -> Vec<Expected> {
        self.inner.expected(&locked(&self.inner.book))
    }
}

impl Inner {
    fn expected(&self, book: &Book) -> Vec<Expected> {
        let site = book.site.as_ref().map(|site| &site.site);
        let Some(site) = site.filter(|site| !site.machine.is_empty()) else {
            return Vec::new();
        };
        let rules = Rules::new(site);
        let mut seen: BTreeMap<String, Arc<Node>> = BTreeMap::new();
        for node in self.rack.nodes() {
            let facts = self.node_facts(book, node.clone());
            seen.extend(rules.trace(&facts).machine.map(|machine| (machine, node)));
        }
        let each = site.machine.iter().cloned();
        each.map(|machine| Expected {
            node: seen.remove(&machine.name),
            machine,
        })
        .collect()
    }
}

/// What is to be said of a node; `None` when nothing is wanted of it.
fn of_node(book: &Book, node: &Node, expected: bool) -> Option<NodeReport> {
    let work = book.work.get(&node.id);
    let state = Some(state(node));
    if let Some(report) = work.and_then(|work| work.report.clone()) {
        return Some(NodeReport { state, ..report });
    }
    let burned_in = work.map(|work| work.burned_in.clone()).unwrap_or_default();
    let was_wanted = work.is_some_and(|work| !work.checks.is_empty() || work.adopted.is_some());
    let wanted = expected || node.role.is_some() || was_wanted || book.busy(node.id).is_some();
    let inventory = node.inventory.as_ref();
    wanted.then(|| NodeReport {
        node: node.id,
        role: node.role.clone(),
        serial: inventory.and_then(|inventory| inventory.system.serial.clone()),
        state,
        burned_in,
        ..without_proof(&node.name)
    })
}

fn never_seen(machine: &str) -> NodeReport {
    NodeReport {
        state: Some("expected, and never seen".into()),
        ..without_proof(machine)
    }
}

fn without_proof(name: &str) -> NodeReport {
    NodeReport {
        node: NodeId([0; 16]),
        name: name.to_owned(),
        role: None,
        serial: None,
        image: None,
        plan: None,
        run: None,
        checks: Vec::new(),
        erased: Vec::new(),
        burned_in: Vec::new(),
        state: None,
    }
}

/// A node's state with what it failed in.
fn state(node: &Node) -> String {
    match &node.state {
        NodeState::Failed(failed) => format!("failed in {}: {}", failed.during, failed.reason),
        state => state.name().to_owned(),
    }
}

impl Inner {
    fn signed(&self, book: &Book, nodes: Vec<NodeReport>) -> Option<SignedReport> {
        let report = Report {
            site: self.site_name.clone(),
            site_sha256: book.site.as_ref().map(|site| site.digest),
            appliance: env!("CARGO_PKG_VERSION").into(),
            capabilities: rackbar_verify::capabilities().version,
            at: now(),
            nodes,
            ..Report::default()
        };
        let signed = rackbar_verify::sign(&report, self.signer.as_ref());
        signed
            .inspect_err(|error| tracing::error!(%error, "a report could not be signed"))
            .ok()
    }
}
