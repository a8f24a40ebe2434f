//! Exercising a machine before it gets work: processors, memory and disks, each for as long as it was asked. Nothing on
//! a disk is written.

mod cpu;
mod disk;
mod memory;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rackbar_messages::JobReport;
use rackbar_model::{BurnIn, CheckResult, CheckStatus, Timestamp};

use crate::control::Control;
use crate::{Machine, Result};

/// Runs the parts one after the other.
pub(crate) fn run(machine: &Machine, wanted: &BurnIn, control: &Control) -> Result<JobReport> {
    let mut results = Vec::new();
    let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
    if wanted.cpu_seconds > 0 {
        results.push(cpu::run(seconds(wanted.cpu_seconds), control)?);
    }
    if wanted.memory_seconds > 0 {
        results.push(memory::run(machine, seconds(wanted.memory_seconds), control)?);
    }
    if wanted.disk_seconds > 0 {
        results.extend(disk::run(machine, seconds(wanted.disk_seconds), control)?);
    }
    Ok(JobReport::BurnedIn(results))
}

/// Time that a part has, told as progress in seconds.
struct Span<'a> {
    begun: Instant,
    length: Duration,
    control: &'a Control,
}

impl<'a> Span<'a> {
    fn begin(what: &str, length: Duration, control: &'a Control) -> Self {
        control.begin(what, length.as_secs());
        Self {
            begun: Instant::now(),
            length,
            control,
        }
    }

    /// True while there is time left and the job is wanted.
    fn goes_on(&self) -> bool {
        let spent = self.begun.elapsed();
        self.control.at(spent.as_secs());
        spent < self.length && !self.control.is_given_up()
    }

    /// The result of the part.
    fn result(&self, id: String, wanted: String, faults: &[String], observed: String, advice: &str) -> CheckResult {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        let failed = !faults.is_empty();
        CheckResult {
            id,
            status: if failed {
                CheckStatus::Failed
            } else {
                CheckStatus::Passed
            },
            wanted,
            observed: if failed {
                format!("{observed}; {}", faults.join("; "))
            } else {
                observed
            },
            advice: if failed { advice.to_owned() } else { String::new() },
            at: Timestamp(now),
            millis: self.begun.elapsed().as_millis() as u64,
        }
    }
}

/// Threads that the machine can run at once.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
