//! `cargo xtask bench`: our services beside Debian's under the same load, as one table of ratios.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::setup::{self, Need};
use crate::step::step;

/// What to measure. Needs root for its network namespaces; takes about three minutes after the build.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Handed to the benchmark: `--json`, `--only dhcp,tftp,http`, `--seconds N`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds the benchmark as it would ship and runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure(Need::Bench)?;
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["run", "--quiet", "--release", "-p", "rackbar-bench", "--"])
        .args(&arguments.rest);
    if arguments.rest.iter().any(|argument| argument == "--json") {
        // Standard output is the document.
        let status = command.status()?;
        anyhow::ensure!(status.success(), "the benchmark failed ({status})");
        return Ok(());
    }
    step("bench", &mut command)
}
