//! A machine that somebody else installed is taken in over a real SSH server: the machine that the tests run on, as it is.
//! Where it has no network card of its own, as in a container, it must be refused for that.

#![allow(clippy::unwrap_used, reason = "a test: a panic is the failure")]

mod common;
#[path = "../../ssh/tests/sshd/mod.rs"]
mod sshd;

use std::path::Path;
use std::process::Command;

use common::Appliance;
use rackbar_ssh::{HostKeyPair, fingerprint};
use serde_json::Value;
use sshd::Sshd;

const SITE: &str = r#"
version = 1
[role.worker]
os = "debian-12"
[[rule]]
name = "all"
when = "true"
role = "worker"
hostname = "worker-{{ number }}"
"#;

/// Builds the program that is brought to machines, where it was not built yet.
fn build_agent() {
    let rackbar = Path::new(env!("CARGO_BIN_EXE_rackbar"));
    let folder = rackbar.parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--offline", "-p", "rackbar-agent", "--target-dir"]);
    build.arg(folder.parent().unwrap());
    if folder.ends_with("release") {
        build.arg("--release");
    }
    // What cargo adds for this test ring's build script asks it to watch: with that there, ring and all that uses it would be
    // compiled anew here, and once more by whoever builds next.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&name);
        }
    }
    assert!(build.status().unwrap().success());
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// An appliance, a machine with an SSH server, and a key that it lets in.
struct Hall {
    appliance: Appliance,
    sshd: Sshd,
    ssh: String,
    print: String,
    key: String,
    _folder: tempfile::TempDir,
}

impl Hall {
    fn new(settings: &str) -> Self {
        build_agent();
        let folder = tempfile::tempdir().unwrap();
        let appliance = Appliance::start(folder.path());
        let sshd = Sshd::with(settings);
        Self {
            ssh: format!("{}@{}", sshd.user, sshd.addr),
            print: fingerprint(&sshd.host.public).unwrap(),
            key: appliance.file("id_ed25519", sshd.key.to_openssh().unwrap().0),
            appliance,
            sshd,
            _folder: folder,
        }
    }

    fn adopt(&self, more: &[&str]) -> common::Said {
        let mut all = vec!["adopt", "--ssh", &self.ssh, "--key-file", &self.key];
        all.extend(more);
        self.appliance.ask(&all)
    }

    fn nodes(&self) -> Vec<Value> {
        let list = self.appliance.ask(&["node", "list", "--json"]).well();
        json(&list).as_array().unwrap().clone()
    }

    fn refused(&self, said: common::Said, code: i32, words: &str) {
        let err = said.failed(code);
        assert!(err.contains(words), "{words:?} is not in {err}");
        assert_eq!(self.nodes(), Vec::<Value>::new(), "something was recorded");
    }
}

fn has_a_card() -> bool {
    let cards = std::fs::read_dir("/sys/class/net").unwrap().flatten();
    cards.into_iter().any(|card| card.path().join("device").exists())
}

#[test]
fn what_is_not_the_machine_that_was_meant_is_refused_and_nothing_recorded() {
    let hall = Hall::new("");
    hall.refused(hall.adopt(&[]), 1, "--trust-first-use");
    hall.refused(hall.adopt(&["--host-key", "MD5:00"]), 1, "no fingerprint of a host key");
    let other = HostKeyPair::generate("other").unwrap();
    let print = fingerprint(&other.public).unwrap();
    hall.refused(hall.adopt(&["--host-key", &print]), 1, "shows another SSH host key");
    // The machine does not know the appliance's own key.
    let own = ["adopt", "--ssh", &hall.ssh, "--host-key", &hall.print];
    hall.refused(hall.appliance.ask(&own), 1, "rackbar adopt --show-key");
    hall.refused(
        hall.adopt(&["db-9", "--host-key", &hall.print]),
        3,
        "there is no node `db-9`",
    );
    let name = ["--name", "No_Name", "--host-key", &hall.print];
    hall.refused(hall.adopt(&name), 1, "is no host name");
    let gone = ["adopt", "--ssh", "127.0.0.1:1", "--trust-first-use"];
    hall.refused(hall.appliance.ask(&gone), 1, "refuses SSH");
    let shown = hall.appliance.ask(&["adopt", "--show-key"]).well();
    assert!(
        shown.starts_with("ssh-ed25519 ") && shown.trim().ends_with("rackbar-appliance"),
        "{shown}"
    );
}

#[test]
fn a_system_that_is_no_linux_is_refused_in_words() {
    let hall = Hall::new("ForceCommand echo OpenBSD amd64");
    let said = hall.adopt(&["--host-key", &hall.print]);
    hall.refused(said, 1, "does not run Linux");
}

#[test]
fn a_running_machine_is_adopted_as_it_is_checked_handed_over_and_forgotten() {
    let mut hall = Hall::new("");
    let appliance = &hall.appliance;
    let known = ["--name", "db-1", "--host-key", &hall.print];
    if !has_a_card() {
        return hall.refused(hall.adopt(&known), 1, "could not be told from another machine");
    }
    let dry: Vec<&str> = known.iter().copied().chain(["--dry-run"]).collect();
    let said = hall.adopt(&dry).well();
    assert!(said.contains("would be adopted; it is not known yet"), "{said}");
    assert_eq!(hall.nodes(), Vec::<Value>::new());

    let adoption = hall.adopt(&[&known[..], &["--json"]].concat()).well();
    assert_eq!(json(&adoption)["recorded"], true);
    let nodes = hall.nodes();
    let node = &nodes[0];
    assert_eq!(
        (node["name"].as_str(), node["state"].as_str()),
        (Some("db-1"), Some("ready"))
    );
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(node["adopted"]["system"]["kernel"], kernel.trim());
    assert_eq!(node["adopted"]["trusted_on_first_use"], false);
    assert!(node["installed"].is_null() && !node["macs"].as_array().unwrap().is_empty());

    // The same machine is the same node, and has one name.
    let adoption_again = hall.adopt(&["db-1", "--trust-first-use", "--json"]).well();
    let err = hall.adopt(&["--name", "web-1", "--host-key", &hall.print]).failed(1);
    assert!(err.contains("known as db-1"), "{err}");
    assert_eq!(hall.nodes().len(), 1);

    // No plan touches it.
    let site = appliance.file("site.toml", SITE);
    appliance.ask(&["site", "set", &site]).well();
    for more in [&[][..], &["--reinstall"], &["db-1"]] {
        let plan = json(&appliance.ask(&[&["plan", "--json"], more].concat()).well());
        assert_eq!(plan["actions"], Value::Array(Vec::new()), "{plan}");
        let reason = plan["left_out"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("adopted and stays as it is"), "{plan}");
    }

    checked(&hall);
    handed_over(&hall);
    let audit = appliance.ask(&["audit"]).well();
    assert!(audit.contains("adopt db-1, as"), "{audit}");

    // It boots its own disk, also after it was recovered, and is what it was after a restart of the appliance.
    appliance.ask(&["node", "recover", "db-1"]).well();
    assert_eq!(hall.nodes()[0]["state"], "ready");
    let folder = hall.appliance.stop();
    hall.appliance = Appliance::start(&folder);
    assert_eq!(hall.nodes()[0]["adopted"], json(&adoption_again)["adopted"]);
    checked(&hall);
    hall.appliance.ask(&["node", "forget", "db-1"]).well();
    assert_eq!(hall.nodes(), Vec::<Value>::new());
}

/// Its checks run over SSH, with the key that was kept; what does not apply says so.
fn checked(hall: &Hall) {
    // On some machines a check fails; what is asked here is that they are run.
    let said = hall.appliance.ask(&["verify", "db-1"]);
    assert!(said.code == 0 || said.code == 1, "{said:?}");
    let report = hall.appliance.ask(&["report", "show", "db-1", "--json"]).well();
    let report = json(&report);
    let payload = report["payload"].as_str().map_or(report.clone(), json);
    let checks = payload["nodes"][0]["checks"].as_array().unwrap().clone();
    let status = |id: &str| {
        let check = checks.iter().find(|check| check["id"] == id);
        check.unwrap_or_else(|| panic!("{id} is not in {payload}"))["status"].clone()
    };
    assert_eq!(status("os.identity"), "passed", "{payload}");
    assert_eq!(status("disk.layout"), "skipped");
    assert_eq!(status("cpu.threads"), "passed");
    assert_eq!(hall.nodes()[0]["state"], "ready");
}

fn handed_over(hall: &Hall) {
    let list = hall.appliance.ask(&["handoff", "ansible", "--list"]).well();
    let hosts = json(&list)["_meta"]["hostvars"].clone();
    let host = hosts.as_object().unwrap().values().next().cloned().unwrap_or_default();
    assert_eq!(host["ansible_port"], hall.sshd.addr.port(), "{hosts}");
    assert_eq!(host["rackbar_state"], "ready", "{hosts}");
    let pinned = host["rackbar_known_hosts"].as_str().unwrap();
    assert!(
        pinned.starts_with(&format!("[127.0.0.1]:{} ssh-ed25519 ", hall.sshd.addr.port())),
        "{pinned}"
    );
}
