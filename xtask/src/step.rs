//! A named command whose failure fails the verb.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// Runs `command` with our own output streams, saying its name before and its time after.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub(crate) fn step(name: &str, command: &mut Command) -> Result<()> {
    println!("== {name}");
    let start = Instant::now();
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{name} failed ({status})");
    println!("== {name}: ok, {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
