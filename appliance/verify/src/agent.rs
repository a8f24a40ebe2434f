//! Checks of a machine that runs our agent in memory and no system of its own: what the agent tells takes the place of the
//! probes' scripts, for those checks that can be answered without a system.

use std::time::Duration;

use rackbar_model::Timestamp;
use regex_lite::RegexBuilder;

use crate::checks;
use crate::reach::{Asked, Reach};

/// What our agent told of its machine: lines of `name=value`, and when it was asked and answered.
pub struct ThroughAgent<'a> {
    /// What it told.
    pub told: &'a str,
    /// When it was asked, and when the answer was there.
    pub between: (Timestamp, Timestamp),
    /// The appliance's clock.
    pub clock: &'a (dyn Fn() -> Timestamp + Send + Sync),
}

/// Checks whose probes our agent answers.
const ANSWERED: [&str; 5] = [
    "disk.errors",
    "memory.total",
    "cpu.threads",
    "time.sync",
    "kernel.taint",
];

impl ThroughAgent<'_> {
    /// What it told, with the kernel's log cut down to what the check looks for.
    fn of(&self, id: &str) -> String {
        let wanted = checks::log_patterns(id).and_then(|(pattern, except)| {
            let of = |text: &str| RegexBuilder::new(text).case_insensitive(true).build().ok();
            Some((of(pattern)?, of(except)?))
        });
        let keep = |line: &&str| match (line.strip_prefix("log="), &wanted) {
            (Some(line), Some((pattern, except))) => pattern.is_match(line) && !except.is_match(line),
            (Some(_), None) => false,
            (None, _) => true,
        };
        self.told.lines().filter(keep).collect::<Vec<_>>().join("\n")
    }
}

impl Reach for ThroughAgent<'_> {
    fn ask<'a>(&'a self, id: &'a str, _: &'a str, _: Duration) -> Asked<'a> {
        Box::pin(std::future::ready(Ok(self.of(id))))
    }

    fn applies(&self, id: &str) -> Result<(), String> {
        if ANSWERED.contains(&id) {
            return Ok(());
        }
        Err("the machine runs our agent in memory: there is no installed system to look at".to_owned())
    }

    fn between(&self) -> Option<(Timestamp, Timestamp)> {
        Some(self.between)
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

#[cfg(test)]
mod tests {
    use rackbar_model::{CheckStatus, Inventory};

    use super::*;
    use crate::{Context, run};

    const TOLD: &str = "memory=8388608 kB\nonline=0-3\ntainted=4096\nlines=700\n\
                        log=blk_update_request: I/O error, dev sda, sector 8\nlog=I/O error, dev fd0\n\
                        log=mce: [Hardware Error]: Machine check\nlog=usb 1-1: device not accepting address\nclock=1000.5";

    fn reach(told: &str) -> ThroughAgent<'_> {
        ThroughAgent {
            told,
            between: (Timestamp(1_000_000), Timestamp(1_001_000)),
            clock: &|| Timestamp(1_009_000),
        }
    }

    fn context() -> Context {
        let mut context = Context::default();
        let mut inventory = Inventory::default();
        (inventory.memory.total_bytes, inventory.cpu.threads) = (8 << 30, 4);
        context.seen.inventory = Some(inventory);
        context
    }

    /// Runs all checks on what an agent told; drives them by hand, as nothing here waits.
    fn checked(told: &str) -> Vec<rackbar_model::CheckResult> {
        let (context, reach) = (context(), reach(told));
        let mut running = std::pin::pin!(run(&context, &[], &reach));
        let mut nothing = std::task::Context::from_waker(std::task::Waker::noop());
        match running.as_mut().poll(&mut nothing) {
            std::task::Poll::Ready(results) => results,
            std::task::Poll::Pending => panic!("it waits"),
        }
    }

    fn status(results: &[rackbar_model::CheckResult], id: &str) -> (CheckStatus, String) {
        let one = results.iter().find(|one| one.id == id).expect("it is in the list");
        (one.status, format!("{} {}", one.observed, one.advice))
    }

    #[test]
    fn a_machine_in_memory_is_checked_by_what_its_agent_tells() {
        let results = checked(TOLD);
        for id in ["memory.total", "cpu.threads", "time.sync"] {
            assert_eq!(
                status(&results, id).0,
                CheckStatus::Passed,
                "{id}: {}",
                status(&results, id).1
            );
        }
        let (failed, words) = status(&results, "disk.errors");
        assert!(
            failed == CheckStatus::Failed && words.contains("sda") && !words.contains("fd0"),
            "{words}"
        );
        let (failed, words) = status(&results, "kernel.taint");
        assert!(
            failed == CheckStatus::Failed && words.contains("Hardware Error") && !words.contains("usb"),
            "{words}"
        );
        for one in results.iter().filter(|one| one.status == CheckStatus::Skipped) {
            assert!(!one.advice.is_empty(), "{}: no reason", one.id);
        }
        let (skipped, why) = status(&results, "services.failed");
        assert!(
            skipped == CheckStatus::Skipped && why.contains("no installed system"),
            "{why}"
        );
    }

    #[test]
    fn a_clock_that_is_off_and_memory_that_is_gone_are_found() {
        let results = checked("memory=4194304 kB\nonline=0-3\ntainted=0\nlines=700\nclock=1700");
        assert_eq!(status(&results, "memory.total").0, CheckStatus::Failed);
        assert_eq!(status(&results, "time.sync").0, CheckStatus::Failed);
        assert_eq!(status(&results, "disk.errors").0, CheckStatus::Passed);
        assert_eq!(status(&results, "kernel.taint").0, CheckStatus::Passed);
    }
}
