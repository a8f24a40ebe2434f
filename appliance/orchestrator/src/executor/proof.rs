//! Signed reports: what the checks of each machine came to, and which machines there is nothing to show for.

use std::collections::BTreeSet;

use rackbar_model::{Node, NodeId, NodeState};
use rackbar_plan::rules::Rules;
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
        let seen = self.inner.rack.nodes();
        let site = book.site.as_ref().map(|site| &site.site);
        let mut missing: BTreeSet<&str> = BTreeSet::new();
        let rules = site.filter(|site| !site.machine.is_empty()).map(Rules::new);
        missing.extend(site.iter().flat_map(|site| &site.machine).map(|one| one.name.as_str()));
        let mut nodes = Vec::new();
        for node in seen {
            let facts = rules.as_ref().map(|_| self.inner.node_facts(&book, node.clone()));
            let trace = rules.as_ref().zip(facts).map(|(rules, facts)| rules.trace(&facts));
            let machine = trace.and_then(|trace| trace.machine);
            if let Some(machine) = &machine {
                missing.remove(machine.as_str());
            }
            nodes.extend(of_node(&book, &node, machine.is_some()));
        }
        let proved = nodes.iter().any(|node: &NodeReport| !node.checks.is_empty());
        nodes.extend(missing.into_iter().map(never_seen));
        nodes.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
        proved.then(|| self.inner.signed(&book, nodes)).flatten()
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
    let was_wanted = work.is_some_and(|work| !work.checks.is_empty());
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
