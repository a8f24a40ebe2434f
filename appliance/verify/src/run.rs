//! Runs checks one after the other and writes down what came of each.

use std::time::Duration;

use rackbar_model::{CheckResult, CheckStatus, Timestamp};

use crate::checks::{self, Check, Probed, Verdict};
use crate::{Context, Reach, capabilities};

/// The check that fails where a machine could not be asked.
pub(crate) const REACHABLE: &str = "os.reachable";

/// One probe, if its check does not say otherwise.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs the checks with these `ids`, or all of them when `ids` is empty, in the order of the list. An id that is not in
/// the list gives a failed result: a typing error must not make a node ready. Of burn-ins all are those that were done: whoever
/// wants one in any case names it.
pub async fn run(context: &Context, ids: &[String], reach: &dyn Reach) -> Vec<CheckResult> {
    let mut results = Vec::new();
    for check in &capabilities().checks {
        let all = ids.is_empty() && checks::was_asked_for(context, &check.id);
        if all || ids.contains(&check.id) {
            results.push(one(&check.id, context, reach).await);
        }
    }
    for id in ids.iter().filter(|id| checks::find(id).is_none()) {
        results.push(result(id, unknown(id), reach.now(), reach.now()));
    }
    results
}

/// Runs those checks of `results` again that failed and may come right by themselves while a system starts: names,
/// clocks, neighbours. True when there is nothing left to wait for.
pub async fn settle(results: &mut [CheckResult], context: &Context, reach: &dyn Reach) -> bool {
    let mut settled = true;
    for result in results {
        let check = checks::find(&result.id).filter(|check| check.settles);
        if result.status == CheckStatus::Failed && check.is_some() {
            *result = one(&result.id, context, reach).await;
            settled &= result.status != CheckStatus::Failed;
        }
    }
    settled
}

/// The result of a machine that could not be asked at all, in place of all others: what it was found to be before proves
/// nothing any more. `reason` says why, and `advice` what to do.
pub fn unreached(reason: &str, advice: &str, at: Timestamp) -> CheckResult {
    let verdict = Verdict::Failed {
        wanted: "an answer".into(),
        observed: reason.into(),
        advice: advice.into(),
    };
    result(REACHABLE, verdict, at, at)
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
            Ok(Some(script)) => match reach.applies(id) {
                Ok(()) => asked(check, &script, began, context, reach).await,
                Err(why) => Verdict::Skipped(why),
            },
            Err(why) => Verdict::Skipped(why),
        },
        None => unknown(id),
    };
    result(id, verdict, began, reach.now())
}

async fn asked(check: &Check, script: &str, began: Timestamp, context: &Context, reach: &dyn Reach) -> Verdict {
    let asked = reach.ask(check.id, script, check.limit.unwrap_or(LIMIT)).await;
    match asked {
        Ok(text) => {
            let (sent, back) = reach.between().unwrap_or_else(|| (began, reach.now()));
            (check.judge)(context, &Probed::new(text, sent, back))
        }
        Err(reason) => Verdict::Failed {
            wanted: "an answer from the node".into(),
            observed: reason,
            advice: "see that the node is up and answers SSH, then run `rackbar verify` again".into(),
        },
    }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::Asked;

    /// A node whose clock is an hour off until it was asked three times, and whose kernel had an oops.
    #[derive(Default)]
    struct Starting(AtomicU32);

    impl Reach for Starting {
        fn ask<'a>(&'a self, _: &'a str, script: &'a str, _: Duration) -> Asked<'a> {
            let clock = script.contains("clock=");
            let asked = if clock {
                self.0.fetch_add(1, Ordering::Relaxed)
            } else {
                0
            };
            Box::pin(std::future::ready(Ok(match (clock, asked) {
                (true, 0..=2) => "clock=3700.000000000\n".into(),
                (true, _) => "clock=100.000000000\n".into(),
                _ => "tainted=128\nbad=Oops: 0000\n".into(),
            })))
        }

        fn now(&self) -> Timestamp {
            Timestamp(100_000)
        }
    }

    #[tokio::test]
    async fn what_settles_is_looked_at_again_and_nothing_else() {
        let (context, node) = (Context::default(), Starting::default());
        let ids = ["time.sync", "kernel.taint"].map(str::to_owned);
        let mut results = run(&context, &ids, &node).await;
        assert!(
            results.iter().all(|result| result.status == CheckStatus::Failed),
            "{results:#?}"
        );
        let tainted = results[1].clone();
        assert!(!settle(&mut results, &context, &node).await);
        assert!(!settle(&mut results, &context, &node).await);
        assert!(settle(&mut results, &context, &node).await, "{results:#?}");
        assert_eq!(results[0].status, CheckStatus::Passed);
        assert_eq!(results[1], tainted, "a fault of the kernel does not go away by waiting");
    }
}
