//! The support bundle: what is needed is in it, and no secret that was put into the appliance in any way.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Appliance, CONFIG};

/// Texts that must not come out, each put in another way.
const BMC_PASSWORD: &str = "Ht7.bmc-pass";
const BMC_FILE_PASSWORD: &str = "in-a-file-9Qx";
const HOOK_PATH: &str = "T0AAAAAAA/B0BBBBBBB";
const HOOK_SECRET: &str = "receiver's \"own\" secret";
const SCRIPT_SECRET: &str = "ipxe-user:ipxe-pass";
const KERNEL_SECRET: &str = "luks-opensesame";
const FILE_SECRET: &str = "AKIAIOSFODNN7EXAMPLE";
const STEP_SECRET: &str = "curl-token-4711";
const BMC_OWN_PASSWORD: &str = "calvin";
const PARAMETER_SECRET: &str = "puppet-db-password";

fn config() -> String {
    format!(
        r##"{CONFIG}
[boot]
kernel_arguments = "console=ttyS0 luks.key={KERNEL_SECRET}"
[[boot.script]]
text = """#!ipxe
chain http://{SCRIPT_SECRET}@10.9.9.9/menu
"""
[[bmc.credential]]
username = "operator-account"
password = "{BMC_PASSWORD}"
[[bmc.credential]]
username = "admin"
password_file = "bmc-password"
[[webhook]]
name = "chat"
url = "http://127.0.0.1:9/services/{HOOK_PATH}"
"##
    )
}

fn site() -> String {
    format!(
        r##"version = 1
[role.web]
os = "debian-12"
[[role.web.file]]
path = "/etc/aws"
content = "key = {FILE_SECRET}\n"
[[role.web.step]]
name = "register"
script = "#!/bin/sh\ncurl -H 'X: {STEP_SECRET}' http://10.9.9.9/\n"
[handoff.role.web]
parameters = {{ db = "{PARAMETER_SECRET}" }}
"##
    )
}

/// Everything that is in a folder, one after the other, names included.
fn all(folder: &Path) -> String {
    let mut out = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        out.push_str(&format!("== {}\n", path.display()));
        match path.is_dir() {
            true => out.push_str(&all(&path)),
            false => out.push_str(&String::from_utf8_lossy(&std::fs::read(&path).unwrap())),
        }
    }
    out
}

#[test]
fn a_support_bundle_has_what_is_needed_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rackbar.toml"), config()).unwrap();
    std::fs::write(folder.path().join("bmc-password"), format!("{BMC_FILE_PASSWORD}\n")).unwrap();
    // A BMC's own account, as the appliance keeps it.
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let store = rackbar_store::Store::open(data.join("rackbar.redb")).unwrap();
    let login = rackbar_store::BmcLogin::told("root", &rackbar_model::SecretText(BMC_OWN_PASSWORD.into()));
    let key = b"bmc-login/00000000-0000-4000-8000-000000000001";
    store
        .put(rackbar_store::Table::Secrets, key, &serde_json::to_vec(&login).unwrap())
        .unwrap();
    store.close();
    drop(store);
    let appliance = Appliance::start(folder.path());
    let site = appliance.file("site.toml", site());
    appliance.ask(&["site", "set", &site]).well();
    let hook_secret = appliance.file("hook-secret", HOOK_SECRET);
    appliance
        .ask(&["webhook", "secret", "chat", "--secret-file", &hook_secret])
        .well();
    let token = appliance.ask(&["token", "create", "anna", "--role", "operator"]).well();
    let token_file = appliance.file("anna", token.trim());
    let admin = std::fs::read_to_string(appliance.run_folder().join("admin-token")).unwrap();
    // It is said aloud where it does not belong: the second line of defence finds it.
    let log = folder.path().join("log");
    let mut said = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    std::io::Write::write_all(
        &mut said,
        format!(
            "a driver said {BMC_PASSWORD} and {} and {BMC_OWN_PASSWORD}\n",
            admin.trim()
        )
        .as_bytes(),
    )
    .unwrap();

    let file = folder.path().join("bundle.tar.zst");
    let path = file.display().to_string();
    let refused = appliance.by(token_file.as_ref(), &["support-bundle", &path], "");
    assert!(refused.failed(4).contains("admin"));
    appliance.ask(&["support-bundle", &path]).well();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    // Opened with the tools that whoever gets it has.
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let unpacked = Command::new("tar")
        .args(["--zstd", "-xf"])
        .arg(&file)
        .arg("-C")
        .arg(&out)
        .status();
    assert!(
        unpacked
            .expect("tar and zstd, which `cargo xtask setup` installs")
            .success()
    );
    let root = out.join("rackbar-support");
    for name in [
        "README.txt",
        "about.json",
        "config/rackbar.json",
        "config/site.json",
        "services.json",
        "events.jsonl",
        "nodes.json",
        "logs/log",
    ] {
        assert!(root.join(name).is_file(), "{name} is missing");
    }
    let content = all(&root);
    for kept in [
        env!("CARGO_PKG_VERSION"),
        "operator-account",
        "make token anna",
        "/etc/aws",
        "http://127.0.0.1:9/",
        "10.255.255.1/30",
        "a driver said [redacted] and [redacted] and [redacted]",
    ] {
        assert!(content.contains(kept), "{kept} is not in it");
    }
    let secrets = [
        BMC_PASSWORD,
        BMC_FILE_PASSWORD,
        BMC_OWN_PASSWORD,
        HOOK_PATH,
        HOOK_SECRET,
        &HOOK_SECRET.replace('"', "\\\""),
        SCRIPT_SECRET,
        KERNEL_SECRET,
        FILE_SECRET,
        STEP_SECRET,
        PARAMETER_SECRET,
        token.trim(),
        admin.trim(),
        "PRIVATE KEY",
    ];
    for secret in secrets {
        assert!(!content.contains(secret), "{secret} is in it");
    }
    // Nor any of the keys that were made here, in the forms that bytes are written in.
    let folder_of = appliance.stop();
    let store = rackbar_store::Store::open(folder_of.join("data/rackbar.redb")).unwrap();
    let stored = store.list(rackbar_store::Table::Secrets).unwrap();
    assert!(stored.len() >= 3, "the site's keys are among them");
    for (name, value) in stored {
        let name = String::from_utf8_lossy(&name).into_owned();
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = String::from_utf8_lossy(&value).into_owned();
        for form in [hex, text] {
            assert!(!content.contains(&form), "{name} is in it");
        }
    }
}
