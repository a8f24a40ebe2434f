//! What the machine bore when our agent last exercised it. An installed machine is taken from its work for that, so it is
//! done when it is asked for (`rackbar verify --burn-in`, `burn_in` of a role), and looked at here each time.

use rackbar_model::{CheckResult, CheckStatus};

use super::Verdict;
use super::network::Probe;
use crate::Context;

/// Which results of a burn-in a check is about. Earlier programs wrote each disk's serial number behind a dot.
fn is_of(result: &CheckResult, id: &str) -> bool {
    let rest = result.id.strip_prefix(id);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The check that fails when the machine started anew under its load, and whose result is then the only one.
const MACHINE: &str = "burnin.machine";

/// True when there is a result that the check with this id can judge; of all other checks.
pub(crate) fn was_asked_for(context: &Context, id: &str) -> bool {
    let results = &context.seen.burned_in;
    !id.starts_with("burnin.") || id == MACHINE && !results.is_empty() || results.iter().any(|one| is_of(one, id))
}

pub(super) fn probe(_: &Context) -> Probe {
    Ok(None)
}

fn judge(context: &Context, id: &str) -> Verdict {
    let results: Vec<&CheckResult> = context.seen.burned_in.iter().filter(|one| is_of(one, id)).collect();
    let Some(first) = results.first() else {
        return Verdict::Failed {
            wanted: "it bore a burn-in".into(),
            observed: "it was not exercised since it is known".into(),
            advice: "exercise it (`rackbar verify NODE --burn-in 10m`), or give its role a `burn_in`".into(),
        };
    };
    if let Some(bad) = results.iter().find(|one| one.status == CheckStatus::Failed) {
        return Verdict::Failed {
            wanted: bad.wanted.clone(),
            observed: format!("{}, at {}", bad.observed, bad.at),
            advice: format!("{}, then exercise it again (`rackbar burn-in`)", bad.advice),
        };
    }
    let seconds = results.iter().map(|one| one.millis / 1000).max().unwrap_or_default();
    let (wanted, observed) = match results.as_slice() {
        [_] => (first.wanted.clone(), first.observed.clone()),
        all => {
            let each = all.iter().map(|one| format!("{}: {}", one.wanted, one.observed));
            (
                format!("{} of its parts bear it", all.len()),
                each.collect::<Vec<_>>().join("; "),
            )
        }
    };
    Verdict::Passed {
        wanted,
        observed: format!("{observed}; for {seconds} s until {}", first.at),
    }
}

pub(super) fn machine(context: &Context, _: &super::Probed) -> Verdict {
    let results = &context.seen.burned_in;
    match results.first() {
        Some(first) if !results.iter().any(|one| is_of(one, MACHINE)) => Verdict::Passed {
            wanted: "it runs until the end".into(),
            observed: format!("it ran until the end of its burn-in at {}", first.at),
        },
        Some(_) | None => judge(context, MACHINE),
    }
}

pub(super) fn cpu(context: &Context, _: &super::Probed) -> Verdict {
    judge(context, "burnin.cpu")
}

pub(super) fn memory(context: &Context, _: &super::Probed) -> Verdict {
    judge(context, "burnin.memory")
}

pub(super) fn disk(context: &Context, _: &super::Probed) -> Verdict {
    judge(context, "burnin.disk")
}

#[cfg(test)]
mod tests {
    use rackbar_model::Timestamp;

    use super::super::{Probed, find};
    use super::*;

    fn result(id: &str, good: bool, observed: &str) -> CheckResult {
        CheckResult {
            id: id.into(),
            status: if good { CheckStatus::Passed } else { CheckStatus::Failed },
            wanted: format!("{id} is sound"),
            observed: observed.into(),
            advice: if good { String::new() } else { "replace it".into() },
            at: Timestamp(1_700_000_000_000),
            millis: 600_500,
        }
    }

    fn judged(results: &[CheckResult], id: &str) -> Verdict {
        let mut context = Context::default();
        context.seen.burned_in = results.to_vec();
        let check = find(id).unwrap();
        assert_eq!((check.probe)(&context), Ok(None), "nothing is asked on the machine");
        (check.judge)(&context, &Probed::default())
    }

    #[test]
    fn each_part_is_judged_by_its_own_results() {
        let bore = [
            result("burnin.cpu", true, "8 threads"),
            result("burnin.disk", true, "S1: 9 MiB"),
            result("burnin.disk.S2", true, "4 MiB"),
        ];
        for (id, says) in [
            ("burnin.machine", "until the end of its burn-in at 2023-11-14"),
            ("burnin.cpu", "8 threads; for 600 s until 2023-11-14"),
            ("burnin.disk", "S1: 9 MiB; burnin.disk.S2 is sound: 4 MiB"),
        ] {
            let Verdict::Passed { observed, .. } = judged(&bore, id) else {
                panic!("{id}: {:?}", judged(&bore, id));
            };
            assert!(observed.contains(says), "{observed}");
        }
        let Verdict::Failed { observed, advice, .. } = judged(&bore, "burnin.memory") else {
            panic!("what was not exercised passed");
        };
        assert!(
            observed.contains("not exercised") && advice.contains("--burn-in"),
            "{observed} {advice}"
        );
    }

    #[test]
    fn one_disk_that_does_not_bear_it_is_enough() {
        let bore = [
            result("burnin.disk", true, "S1: 9 MiB"),
            result("burnin.disk", false, "S2: byte 4096: Input/output error"),
        ];
        let Verdict::Failed { observed, advice, .. } = judged(&bore, "burnin.disk") else {
            panic!("passed");
        };
        assert!(
            observed.contains("S2: byte 4096") && advice.starts_with("replace it"),
            "{observed} {advice}"
        );
    }

    #[test]
    fn a_machine_that_fell_over_shows_nothing_else() {
        let fell = [result("burnin.machine", false, "it started anew")];
        for id in ["burnin.machine", "burnin.cpu", "burnin.memory", "burnin.disk"] {
            assert!(matches!(judged(&fell, id), Verdict::Failed { .. }), "{id}");
        }
        let context = |results: &[CheckResult]| {
            let mut context = Context::default();
            context.seen.burned_in = results.to_vec();
            context
        };
        assert!(was_asked_for(&context(&fell), "burnin.machine") && !was_asked_for(&context(&fell), "burnin.cpu"));
        assert!(!was_asked_for(&context(&[]), "burnin.machine") && was_asked_for(&context(&[]), "os.reachable"));
    }
}
