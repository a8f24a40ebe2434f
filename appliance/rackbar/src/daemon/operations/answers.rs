//! What was asked for by name, or the words for what is not there.

use std::sync::Arc;

use rackbar_control::operations::{ExpectedMachine, Refused, RuleMatch, RuleTry};
use rackbar_model::Node;
use rackbar_orchestrator::Rack;
use rackbar_orchestrator::executor::{Executor, Expected};
use rackbar_plan::{RuleTrace, Run, RunId};

pub(super) fn node(rack: &Rack, name: &str) -> Result<Arc<Node>, Refused> {
    rack.node(name)
        .ok_or_else(|| Refused::NotFound(format!("there is no node {name:?}")))
}

pub(super) fn no_report() -> Refused {
    Refused::NotFound("no checks were run yet: `rackbar verify` runs them".into())
}

/// An expected machine as the API shows it.
pub(super) fn expected(one: Expected) -> ExpectedMachine {
    let missing = one.shortfall();
    let machine = one.machine;
    let by = [
        ("serial", machine.serial),
        ("MAC address", machine.mac),
        ("BMC", machine.bmc_mac),
    ];
    let by = by
        .into_iter()
        .filter_map(|(what, value)| Some(format!("{what} {}", value?)));
    ExpectedMachine {
        name: machine.name,
        known_by: by.collect::<Vec<_>>().join(", "),
        role: machine.role,
        node: one.node.map(|node| node.name.clone()),
        missing,
    }
}

/// What the rules decided on a machine, as the API shows it.
pub(super) fn rule_match(rack: &Rack, trace: RuleTrace) -> RuleMatch {
    let found = rack.node(&trace.node.to_string());
    let tried = trace.rules.into_iter().map(|one| RuleTry {
        rule: one.rule,
        fits: one.matched,
        why: one.why,
    });
    RuleMatch {
        node: found.map(|node| node.name.clone()).unwrap_or_default(),
        rule: trace.role.is_some().then_some(trace.decided),
        role: trace.role,
        name: trace.hostname,
        tried: tried.collect(),
    }
}

pub(super) fn text(report: &rackbar_verify::SignedReport) -> String {
    String::from_utf8_lossy(&report.to_bytes()).into_owned()
}

pub(super) fn the_run(executor: &Executor, id: RunId) -> Result<Arc<Run>, Refused> {
    executor
        .run(id)
        .ok_or_else(|| Refused::NotFound(format!("there is no run {id}")))
}
