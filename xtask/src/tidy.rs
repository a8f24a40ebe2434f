//! Rules of this repository that no other tool checks. Findings print like compiler errors, so editors can jump.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A file longer than this asks what wants to move out; see ARCHITECTURE.md.
const MAX_LINES: usize = 700;

/// Words that must not be in a tracked source file, with the reason. Split so that this file does not find itself.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    (
        "to",
        "do!(",
        "finish it, or leave the feature out and say so in docs/capabilities.md",
    ),
    ("FIX", "ME", "finish it, or open an issue"),
    ("#[ig", "nore", "a test that does not run proves nothing"),
    ("deb.deb", "ian.org", "a mirror is the host's own configuration"),
];

/// Checks every tracked file under `root`.
///
/// # Errors
/// When a rule is broken (each finding is printed) or git cannot list the files.
pub(crate) fn run(root: &Path) -> Result<()> {
    println!("== tidy");
    let mut findings = Vec::new();
    for file in tracked(root)? {
        let path = root.join(&file);
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if file.extension().is_some_and(|e| e == "rs") {
            check_source(&file, &text, &mut findings);
        }
    }
    check_capabilities(root, &mut findings)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    if findings.is_empty() {
        Ok(())
    } else {
        bail!("{} findings", findings.len())
    }
}

fn tracked(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z"])
        .output()
        .context("git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output
        .stdout
        .split(|&b| b == 0)
        .filter(|p| !p.is_empty())
        .map(|p| String::from_utf8_lossy(p).as_ref().into())
        .collect())
}

fn check_source(file: &Path, text: &str, findings: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > MAX_LINES {
        findings.push(format!(
            "{}:1: {lines} lines, more than {MAX_LINES}: what wants to move out?",
            file.display()
        ));
    }
    // A crate root or module says what it is for before anything else.
    if !text.starts_with("//!") && !text.trim().is_empty() {
        findings.push(format!("{}:1: opens without `//!` saying its purpose", file.display()));
    }
    for (number, line) in text.lines().enumerate() {
        for (first, second, reason) in FORBIDDEN {
            if line.contains(&format!("{first}{second}")) {
                findings.push(format!(
                    "{}:{}: `{first}{second}`: {reason}",
                    file.display(),
                    number + 1
                ));
            }
        }
    }
}

/// A row of docs/capabilities.md that says `works` names a test, and a test of that name exists.
fn check_capabilities(root: &Path, findings: &mut Vec<String>) -> Result<()> {
    let path = root.join("docs/capabilities.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut sources = String::new();
    for file in tracked(root)?
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "rs"))
    {
        sources.push_str(&fs::read_to_string(root.join(file)).unwrap_or_default());
    }
    for (number, line) in text.lines().enumerate() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if cells.len() < 5 || cells[2].is_empty() || cells[3] != "works" {
            continue;
        }
        let tests: Vec<_> = cells[4].split('`').skip(1).step_by(2).collect();
        if tests.is_empty() {
            findings.push(format!("docs/capabilities.md:{}: `works` without a test", number + 1));
        }
        for test in tests {
            if !sources.contains(&format!("fn {test}(")) {
                findings.push(format!(
                    "docs/capabilities.md:{}: there is no test `{test}`",
                    number + 1
                ));
            }
        }
    }
    Ok(())
}
