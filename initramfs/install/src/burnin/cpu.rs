//! Processors: every one computes the same thing, whose result is known, again and again. SHA-256 drives the vector
//! and integer units, a chain of floating-point operations the other ones; a core that counts wrong is caught by its
//! own result.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rackbar_model::CheckResult;
use rackbar_trust::Sha256;

use super::{Span, threads};
use crate::Result;
use crate::control::Control;

/// Faults that are listed; more say nothing more.
const LISTED: usize = 8;

/// One round: about ten milliseconds.
fn round() -> ([u8; 32], u64) {
    let mut hash = Sha256::new();
    let mut block = [0x5au8; 4096];
    for turn in 0..512u32 {
        block[..4].copy_from_slice(&turn.to_le_bytes());
        hash.update(&block);
    }
    // The logistic map: each step depends on every bit of the one before.
    let mut value = 0.4f64;
    for _ in 0..1_000_000 {
        value = std::hint::black_box(3.999 * value * (1.0 - value));
    }
    (hash.finish(), value.to_bits())
}

/// Exercises all processors.
pub(super) fn run(length: Duration, control: &Control) -> Result<CheckResult> {
    let span = Span::begin("exercising the processors", length, control);
    // The answer is what two rounds agree on; a core that is wrong now is caught by all others.
    let answer = round();
    let (rounds, faults) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let count = threads();
    std::thread::scope(|scope| {
        for number in 0..count {
            let (span, rounds, faults, answer) = (&span, &rounds, &faults, &answer);
            scope.spawn(move || {
                pin(number);
                while span.goes_on() {
                    if round() != *answer {
                        let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
                        if faults.len() < LISTED {
                            faults.push(format!("processor {number} computed a wrong result"));
                        }
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    control.check()?;
    let faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner);
    let rounds = rounds.into_inner();
    let rate = rounds as f64 / span.begun.elapsed().as_secs_f64().max(0.001);
    Ok(span.result(
        "burnin.cpu".to_owned(),
        format!("right results on {count} processors for {} s", length.as_secs()),
        &faults,
        format!("{rounds} rounds on {count} processors, {rate:.1} a second"),
        "replace the processor, or look at its cooling and voltage",
    ))
}

/// Keeps the thread on one processor, so that each is tested and can be named.
fn pin(number: usize) {
    let mut set = nix::sched::CpuSet::new();
    if set.set(number).is_ok() {
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackbar_model::CheckStatus;

    #[test]
    fn this_machine_counts_right() {
        let result = run(Duration::from_millis(300), &Control::default()).unwrap();
        assert_eq!(result.status, CheckStatus::Passed, "{result:?}");
        assert!(result.observed.contains("rounds"));
    }
}
