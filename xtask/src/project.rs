//! Where the checkout and its build folder are. Asked of cargo, so that `CARGO_TARGET_DIR` and
//! `build.target-dir` count, and never baked into the binary: two checkouts may share one target folder.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The folders of the checkout this command runs in.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Project {
    /// The workspace root: where `Cargo.lock` is.
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    /// Cargo's target folder; `image/` and `cache/` live in it.
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
}

impl Project {
    /// Asks cargo about the checkout that holds the current folder.
    pub(crate) fn find() -> Result<Self> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()
            .context("running cargo metadata")?;
        ensure!(
            output.status.success(),
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        serde_json::from_slice(&output.stdout).context("reading cargo metadata")
    }

    /// Downloads and intermediate results that are costly to make again.
    pub(crate) fn cache(&self) -> PathBuf {
        self.target.join("cache")
    }
}

/// The cargo that runs us, with the environment it was started in. What it adds for us, the name, version and folder of this
/// very package, ring's build script asks cargo to watch: with it there, ring and all that uses it would be compiled anew each
/// time a person's own cargo and ours take turns.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}
