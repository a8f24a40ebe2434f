//! `rackbar os answers` put to the real daemon: who asks for nothing sensible is told so, and no folder is made.

#![allow(clippy::unwrap_used, reason = "a test: a panic is the failure")]

mod common;

use common::Appliance;

#[test]
fn answers_that_are_refused_leave_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let out = folder.path().join("answers");
    let out = out.to_str().unwrap();
    let begin = ["os", "answers", "nobody", "--as", "debian-13", "--out", out];
    let place = [
        "--answers-url",
        "http://10.0.0.5/x/",
        "--mirror",
        "http://10.0.0.5/debian",
    ];
    let said = appliance.ask(&[&begin[..], &place].concat()).failed(3);
    assert!(said.contains("there is no node \"nobody\""), "{said}");
    let said = appliance.ask(&begin).failed(2);
    assert!(said.contains("--answers-url <URL>"), "{said}");
    let alone = [&begin[..], &place, &["--talos-cluster", "rack"]].concat();
    let said = appliance.ask(&alone).failed(2);
    assert!(said.contains("--talos-secrets <FILE>"), "{said}");
    let hash = [&begin[..], &place, &["--root-password-hash-file", "/nonexistent"]].concat();
    let said = appliance.ask(&hash).failed(1);
    assert!(said.contains("reading /nonexistent"), "{said}");
    assert!(!std::path::Path::new(out).exists());
    let audit = appliance.ask(&["audit", "--json"]).well();
    assert!(!audit.contains("render the answers"), "{audit}");
}
