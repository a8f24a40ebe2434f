//! Programs that Debian does not carry, from PyPI, in an environment of their own under the target folder.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Need;
use crate::project::Project;

/// Packages, the program each must bring, and why.
const PACKAGES: &[(&str, &str, &str)] = &[(
    "salt==3008.4",
    "salt-ssh",
    "independent reader of rosters, pillar and minion keys",
)];

/// Makes the environment and installs what is missing there.
pub(super) fn packages(need: Need) -> Result<()> {
    if need != Need::Test {
        return Ok(());
    }
    let folder = Project::find()?.target.join("venv");
    for (package, program, why) in PACKAGES {
        if folder.join("bin").join(program).exists() {
            continue;
        }
        println!("setup: Python package {package} is missing: {why}");
        // Debian's own: another Python in the path may lack the module.
        let made = Command::new("/usr/bin/python3")
            .args(["-m", "venv"])
            .arg(&folder)
            .status();
        ensure!(
            made.context("running python3 -m venv")?.success(),
            "python3 -m venv {} failed; its own words are above",
            folder.display()
        );
        let pip = Command::new(folder.join("bin/pip"))
            .args(["install", "--quiet", package])
            .status();
        ensure!(
            pip.context("running pip")?.success(),
            "pip install {package} failed; its own words are above"
        );
    }
    Ok(())
}
