//! Programs that Debian does not carry, from PyPI, in an environment of their own under the target folder.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::Need;
use crate::project::Project;

/// What a package brings, by which it is known to be there.
enum Brings {
    Program(&'static str),
    Module(&'static str),
}

/// Packages, what each must bring, and why.
const PACKAGES: &[(&str, Brings, &str)] = &[
    (
        "salt==3008.4",
        Brings::Program("salt-ssh"),
        "independent reader of rosters, pillar and minion keys",
    ),
    (
        "pykickstart==3.78",
        Brings::Program("ksvalidator"),
        "independent reader of kickstart files",
    ),
    (
        "packstack==26.0.0",
        Brings::Program("packstack"),
        "reads the answer files made for it",
    ),
    (
        "cloudevents==2.2.0",
        Brings::Module("cloudevents.core"),
        "independent reader of webhooks' messages",
    ),
    (
        "sushy==5.14.0",
        Brings::Module("sushy"),
        "OpenStack's Redfish client, against our simulated BMC",
    ),
    (
        "standardwebhooks==1.1.0",
        Brings::Module("standardwebhooks"),
        "independent check of webhooks' signatures",
    ),
];

impl Brings {
    fn is_in(&self, folder: &Path) -> bool {
        match self {
            Self::Program(name) => folder.join("bin").join(name).exists(),
            Self::Module(name) => Command::new(folder.join("bin/python"))
                .args(["-c", &format!("import {name}")])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success()),
        }
    }
}

/// Makes the environment and installs what is missing there.
pub(super) fn packages(need: Need) -> Result<()> {
    if need != Need::Test {
        return Ok(());
    }
    let folder = Project::find()?.target.join("venv");
    for (package, brings, why) in PACKAGES {
        if brings.is_in(&folder) {
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
