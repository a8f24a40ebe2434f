//! The answer to an order to check: the signed report, unless it would prove what the run did not.

use rackbar_control::operations::Refused;
use rackbar_plan::{Run, Stand};

/// The report, when every machine whose checks did not end well also fails in it. Checks that were given up, as of a
/// machine that was taken out of the run, leave the proof of before behind, which answers nothing that was asked now.
///
/// # Errors
/// [`Refused::Conflict`] with the machines and why.
pub(super) fn answer(run: &Run, report: String) -> Result<String, Refused> {
    let checked = rackbar_verify::check(report.as_bytes(), None);
    let checked = checked.map_err(|error| Refused::Internal(error.to_string()))?.report;
    let shown = |action: &rackbar_plan::Action| {
        let of = checked.nodes.iter().find(|node| Some(node.node) == action.node);
        of.is_some_and(|node| !node.passed())
    };
    let mut faults = Vec::new();
    for action in run.plan.actions.iter().filter(|action| !shown(action)) {
        match run.actions.get(&action.id) {
            Some(Stand::Done { .. }) => {}
            Some(Stand::Failed { reason, .. } | Stand::Skipped { reason }) => {
                faults.push(format!("{}: {reason}", action.id));
            }
            Some(Stand::Waiting | Stand::Running(_) | Stand::Again { .. }) | None => {
                faults.push(format!("{}: it did not end", action.id));
            }
        }
    }
    match faults.as_slice() {
        [] => Ok(report),
        faults => Err(Refused::Conflict(format!(
            "the checks did not end: {}; the report in `rackbar report show` is the one of before; check again",
            faults.join("; ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rackbar_model::{CheckResult, CheckStatus, Digest, NodeId, Timestamp};
    use rackbar_plan::{
        Action, ActionId, ActionKind, Inputs, Layer, Limits, Outcome, Plan, PlanId, RunId, Scope, Target,
    };
    use rackbar_trust::SigningKey;
    use rackbar_verify::{NodeReport, Report};

    use super::*;

    const NODE: NodeId = NodeId([1; 16]);

    /// A run that checked one machine, and it came to this.
    fn run(stand: Stand) -> Run {
        let action = Action {
            id: ActionId("db-1/verify".into()),
            node: Some(NODE),
            target: Target::Node(NODE),
            layer: Layer::System,
            kind: ActionKind::Verify { checks: Vec::new() },
            changes: Vec::new(),
            needs: Vec::new(),
            destroys: None,
            reboots: false,
            estimate_seconds: 1,
            reason: String::new(),
            limits: Limits { seconds: 1, tries: 1 },
        };
        let plan = Plan {
            id: PlanId("p".into()),
            made: Timestamp(1),
            inputs: Inputs::of(Digest([0; 32])),
            actions: vec![action],
            refused: Vec::new(),
            unchanged: Vec::new(),
            left_out: Vec::new(),
            scope: Scope::default(),
            limits: rackbar_plan::site::RunLimits::default(),
        };
        let mut run = Run::new(RunId(1), Arc::new(plan), "anna", Timestamp(1));
        run.actions.insert(ActionId("db-1/verify".into()), stand);
        run
    }

    /// The rack's report, with one check of that machine.
    fn report(status: CheckStatus) -> String {
        let check = CheckResult {
            id: "os.reachable".into(),
            status,
            wanted: String::new(),
            observed: String::new(),
            advice: String::new(),
            at: Timestamp(1),
            millis: 1,
        };
        let node = NodeReport {
            node: NODE,
            name: "db-1".into(),
            role: None,
            serial: None,
            image: None,
            plan: None,
            run: None,
            checks: vec![check],
            erased: Vec::new(),
            burned_in: Vec::new(),
            state: None,
        };
        let report = Report {
            nodes: vec![node],
            ..Report::default()
        };
        let signed = rackbar_verify::sign(&report, &SigningKey::generate().unwrap().0).unwrap();
        String::from_utf8(signed.to_bytes()).unwrap()
    }

    #[test]
    fn checks_that_were_given_up_are_not_answered_with_the_proof_of_before() {
        let (good, bad) = (report(CheckStatus::Passed), report(CheckStatus::Failed));
        let done = run(Stand::Done {
            outcome: Outcome::default(),
            tries: 1,
            at: Timestamp(2),
        });
        let given_up = run(Stand::Skipped {
            reason: "recovered by ben".into(),
        });
        assert_eq!(answer(&done, good.clone()).unwrap(), good);
        // That it failed is in the report, which says more than a refusal could.
        assert_eq!(answer(&given_up, bad.clone()).unwrap(), bad);
        let refused = answer(&given_up, good).unwrap_err().to_string();
        assert!(refused.contains("db-1/verify: recovered by ben"), "{refused}");
    }
}
