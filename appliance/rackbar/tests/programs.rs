//! The users' programs at a running appliance: put in over HTTPS, listed, refused in words that the sender hears, replaced and
//! taken out. The real daemon and the real command line.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod apart;

use std::path::Path;
use std::process::Command;

use apart::{Appliance, OURS};
use serde_json::{Value, json};

fn config() -> String {
    format!(
        "version = 1\nname = \"home\"\n[[network]]\nname = \"rack\"\nrole = \"rack\"\ninterface = \"rack0\"\n\
         address = \"{OURS}/24\"\ndhcp = \"off\"\n"
    )
}

/// What the compiler makes of a program that ends with this status.
fn built(folder: &Path, status: u8, flags: &[&str]) -> Vec<u8> {
    let (source, made) = (folder.join("own.c"), folder.join("own"));
    std::fs::write(&source, format!("int main(void) {{ return {status}; }}\n")).unwrap();
    let ran = Command::new("cc")
        .args(flags)
        .arg("-o")
        .arg(&made)
        .arg(&source)
        .output();
    let ran = ran.expect("cc; `cargo xtask setup` installs it");
    assert!(ran.status.success(), "{ran:?}");
    std::fs::read(made).unwrap()
}

fn listed(appliance: &Appliance) -> Value {
    serde_json::from_str(&appliance.well(&["program", "list", "--json"])).unwrap()
}

/// `PUT` by another client than ours: the status, and what the problem says.
fn put(appliance: &Appliance, name: &str, file: &str, more: &[&str]) -> (u16, Value) {
    let token = std::fs::read_to_string(appliance.path("run/admin-token")).unwrap();
    let body = appliance.path("body");
    let mut curl = Command::new("curl");
    curl.args(["-sSk", "--max-time", "60", "--noproxy", "*", "-w", "%{http_code}", "-o"])
        .arg(&body)
        .args(["-H", &format!("Authorization: Bearer {}", token.trim())])
        .args(["-H", "Expect:", "-T", file])
        .args(more)
        .arg(format!("https://{OURS}/api/v1/programs/{name}"));
    let output = curl
        .output()
        .expect("curl is missing; `cargo xtask setup test` installs it");
    assert!(output.status.success(), "{name} from {file}: {output:?}");
    let status = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    (status, serde_json::from_slice(&std::fs::read(body).unwrap()).unwrap())
}

#[test]
fn programs_are_put_in_listed_replaced_and_taken_out() {
    let folder = tempfile::tempdir().unwrap();
    let home = Appliance::start(&config(), "");
    assert_eq!(listed(&home), json!([]));
    let first = home.file("node-setup", built(folder.path(), 1, &["-static"]));
    let said = home.well(&["program", "add", &first]);
    assert!(said.contains("program node-setup is here, SHA-256 "), "{said}");
    let was = listed(&home);
    assert_eq!(was[0]["name"], "node-setup", "{was}");
    assert_eq!(was[0]["bytes"], std::fs::metadata(&first).unwrap().len(), "{was}");
    let table = home.well(&["program", "list"]);
    assert!(table.contains("node-setup") && table.contains("SHA-256"), "{table}");

    // The same again changes nothing, another takes its place, and a name can be given.
    assert_eq!(put(&home, "node-setup", &first, &[]).0, 200);
    assert_eq!(listed(&home), was);
    let second = home.file("other", built(folder.path(), 2, &["-static-pie"]));
    home.well(&["program", "add", &second, "--name", "node-setup"]);
    assert_ne!(listed(&home)[0]["sha256"], was[0]["sha256"]);
    assert_eq!(put(&home, "spare", &second, &[]).0, 201);
    assert_eq!(listed(&home).as_array().unwrap().len(), 2);
    // One content of two names, and none of what was replaced.
    let kept = || {
        let files = std::fs::read_dir(home.path("data/programs")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".program")).count()
    };
    assert_eq!(kept(), 1);
    home.well(&["program", "remove", "spare"]);
    assert_eq!(kept(), 1);
    home.well(&["program", "remove", "node-setup"]);
    assert_eq!((listed(&home), kept()), (json!([]), 0));
    let unknown = home.refused(&["program", "remove", "node-setup"]);
    assert!(unknown.contains("rackbar program list"), "{unknown}");
    let audit = home.well(&["audit"]);
    for words in [
        "put in program node-setup",
        "in place of SHA-256",
        "take out program spare",
    ] {
        assert!(audit.contains(words), "no {words:?} in\n{audit}");
    }
}

#[test]
fn what_is_no_static_program_is_refused_in_words_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let home = Appliance::start(&config(), "");
    let linked = home.file("linked", built(folder.path(), 0, &[]));
    let said = home.refused(&["program", "add", &linked]);
    assert!(
        said.contains("linked dynamically") && said.contains("CGO_ENABLED=0"),
        "{said}"
    );
    let script = home.file("script", "#!/bin/sh\n");
    let said = home.refused(&["program", "add", &script]);
    assert!(said.contains("`script` of a step"), "{said}");
    let good = home.file("good", built(folder.path(), 0, &["-static"]));
    let said = home.refused(&["program", "add", &good, "--name", "Not-This"]);
    assert!(said.contains("lower-case"), "{said}");
    let wrong = format!("Content-Digest: sha-256=:{}=:", "A".repeat(43));
    let (status, problem) = put(&home, "good", &good, &["-H", &wrong]);
    assert_eq!(status, 400, "{problem}");
    assert!(
        problem["detail"].as_str().unwrap().contains("send it again"),
        "{problem}"
    );

    // The sender of one that is too large hears why, though the appliance took no more of it.
    let large = home.path("large");
    let file = std::fs::File::create(&large).unwrap();
    file.set_len((64 << 20) + (20 << 20)).unwrap();
    let said = home.refused(&["program", "add", &large.display().to_string()]);
    assert!(said.contains("more than 64 MiB") && said.contains("strip"), "{said}");
    let (status, problem) = put(&home, "large", &large.display().to_string(), &[]);
    assert_eq!(status, 400, "{problem}");
    assert!(
        problem["detail"].as_str().unwrap().contains("more than 64 MiB"),
        "{problem}"
    );
    // Refused before a byte was taken: the words come all the same.
    let (status, problem) = put(&home, "Large", &large.display().to_string(), &[]);
    assert_eq!(status, 400, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("lower-case"), "{problem}");

    assert_eq!(listed(&home), json!([]));
    let left: Vec<_> = std::fs::read_dir(home.path("data/programs"))
        .unwrap()
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
