//! Runs checks one after the other and writes down what came of each.

use std::time::Duration;

use rackbar_model::{CheckResult, CheckStatus, Timestamp};

use crate::checks::{self, Probed, Verdict};
use crate::{Context, Reach, capabilities};

/// One probe, if its check does not say otherwise.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs the checks with these `ids`, or all of them when `ids` is empty, in the order of the list. An id that is not in
/// the list gives a failed result: a typing error must not make a node ready.
pub async fn run(context: &Context, ids: &[String], reach: &dyn Reach) -> Vec<CheckResult> {
    let mut results = Vec::new();
    for check in &capabilities().checks {
        if ids.is_empty() || ids.contains(&check.id) {
            results.push(one(&check.id, context, reach).await);
        }
    }
    for id in ids.iter().filter(|id| checks::find(id).is_none()) {
        results.push(result(id, unknown(id), reach.now(), reach.now()));
    }
    results
}

fn unknown(id: &str) -> Verdict {
    Verdict::Failed {
        wanted: "a check of this name".into(),
        observed: "there is none".into(),
        advice: format!("`rackbar verify --list` shows the names of all checks; correct {id} in the role"),
    }
}

async fn one(id: &str, context: &Context, reach: &dyn Reach) -> CheckResult {
    let began = reach.now();
    let verdict = match checks::find(id) {
        Some(check) => match (check.probe)(context) {
            Ok(None) => (check.judge)(context, &Probed::default()),
            Ok(Some(script)) => {
                let asked = reach.ask(&script, check.limit.unwrap_or(LIMIT)).await;
                match asked {
                    Ok(text) => (check.judge)(context, &Probed::new(text, began, reach.now())),
                    Err(reason) => Verdict::Failed {
                        wanted: "an answer from the node".into(),
                        observed: reason,
                        advice: "see that the node is up and answers SSH, then run `rackbar verify` again".into(),
                    },
                }
            }
            Err(why) => Verdict::Skipped(why),
        },
        None => unknown(id),
    };
    result(id, verdict, began, reach.now())
}

fn result(id: &str, verdict: Verdict, began: Timestamp, at: Timestamp) -> CheckResult {
    let (status, wanted, observed, advice) = match verdict {
        Verdict::Passed { wanted, observed } => (CheckStatus::Passed, wanted, observed, String::new()),
        Verdict::Failed {
            wanted,
            observed,
            advice,
        } => (CheckStatus::Failed, wanted, observed, advice),
        Verdict::Skipped(why) => (CheckStatus::Skipped, String::new(), String::new(), why),
    };
    CheckResult {
        id: id.into(),
        status,
        wanted,
        observed,
        advice,
        at,
        millis: at.0.saturating_sub(began.0),
    }
}
