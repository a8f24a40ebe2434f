//! `cargo xtask test`: sets up what the tests need, builds the boot media, runs everything.

use anyhow::{Result, ensure};

use crate::image;
use crate::project::cargo;
use crate::setup::{self, Need};
use crate::step::step;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave out the scenarios in QEMU: unit, property and service tests only
    #[arg(long)]
    quick: bool,
    /// Run only the scenarios whose name contains TEXT
    #[arg(long, value_name = "TEXT")]
    scenario: Option<String>,
}

/// Runs the tests, the quick ones first.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        !(arguments.quick && arguments.scenario.is_some()),
        "--quick leaves the scenarios out: give one of --quick and --scenario"
    );
    setup::ensure(Need::Test)?;
    if arguments.scenario.is_none() {
        let quick = ["test", "--workspace", "--exclude", "rackbar-scenarios"];
        step("unit, property and service tests", cargo().args(quick))?;
    }
    if arguments.quick {
        return Ok(());
    }
    let media = image::ensure()?;
    let system = crate::os_image::ensure_built(
        &crate::project::Project::find()?,
        &crate::os_image::Arguments::default(),
    )?;
    // One scenario at a time: each starts its own machines, and under emulation they already fill the cores.
    let mut scenarios = cargo();
    scenarios
        .args(["test", "-p", "rackbar-scenarios", "--", "--test-threads=1"])
        .args(&arguments.scenario);
    scenarios
        .env("RACKBAR_MEDIA", media)
        .env("RACKBAR_OS", system.path.with_extension("").with_extension("json"));
    step("scenarios in QEMU", &mut scenarios)
}
