//! `cargo xtask check`: what must hold before a change lands, short of running the tests.

use anyhow::{Context, Result, bail};

use crate::project::{Project, cargo};
use crate::setup::{self, Need};
use crate::step::step;
use crate::tidy;

/// Formatting, lints, documentation, dependency policy, and the repository's own rules.
pub(crate) fn run() -> Result<()> {
    setup::ensure(Need::Check)?;
    step("fmt", cargo().args(["fmt", "--all", "--", "--check"]))?;
    tidy::run(&Project::find()?.root)?;
    step("deny", cargo().args(["deny", "check", "bans", "licenses", "sources"]))?;
    advisories()?;
    let all = [
        "clippy",
        "--workspace",
        "--all-targets",
        // No target of "all": its manifest keeps it out of tests by default.
        "--test",
        "scenarios",
        "--features",
        "rackbar-fuzz/libfuzzer",
    ];
    let mut clippy = cargo();
    clippy.args(all).args(["--", "-D", "warnings"]);
    // Nothing is linked, so that the fuzzer itself, which is C++, need not be built.
    clippy.env("CUSTOM_LIBFUZZER_PATH", "not-linked/libfuzzer.a");
    step("clippy", &mut clippy)?;
    let loader = [
        "clippy",
        "-p",
        "rackbar-loader",
        "--target",
        "x86_64-unknown-uefi",
        "--",
        "-D",
        "warnings",
    ];
    step("clippy (UEFI loader)", cargo().args(loader))?;
    let doc = ["doc", "--workspace", "--no-deps", "--document-private-items"];
    step("doc", cargo().args(doc).env("RUSTDOCFLAGS", "-D warnings"))
}

/// The advisory database lives on the internet. A machine without it still gets every other check, and is told.
fn advisories() -> Result<()> {
    let output = cargo()
        .args(["deny", "check", "advisories"])
        .output()
        .context("starting cargo deny")?;
    if output.status.success() {
        println!("== advisories: none");
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("failed to fetch advisory database") || text.contains("failed to load advisory database") {
        println!(
            "== advisories: NOT CHECKED, the database could not be fetched; run `cargo deny check advisories` online"
        );
        return Ok(());
    }
    bail!("cargo deny check advisories:\n{text}")
}
