//! The real git by itself: no settings of whoever runs the tests, and commits of one time.
#![allow(clippy::unwrap_used, reason = "a helper of tests: a panic is the failure")]
#![allow(dead_code, reason = "each test program uses a part")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs it in a folder.
pub fn git(folder: &Path, args: &[&str]) -> Output {
    with(folder, args, b"")
}

/// What it says when it does it.
pub fn well(folder: &Path, args: &[&str]) -> String {
    let said = fed(folder, args, b"");
    String::from_utf8(said).unwrap().trim_end().to_owned()
}

/// What it says when it does it with this on its standard input, as it says it.
pub fn fed(folder: &Path, args: &[&str], input: &[u8]) -> Vec<u8> {
    let output = with(folder, args, input);
    assert!(output.status.success(), "git {args:?}: {output:?}");
    output.stdout
}

fn with(folder: &Path, args: &[&str], input: &[u8]) -> Output {
    let settings = ["user.name=x", "user.email=x@example.org", "init.defaultBranch=main"];
    let mut child = Command::new("git")
        .args(settings.iter().flat_map(|setting| ["-c", *setting]))
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_COMMITTER_DATE", "1700000000 +0100")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}
