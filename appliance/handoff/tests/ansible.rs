//! Our inventory as the real `ansible-inventory` reads it, through a script, as a user would have it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use proptest::prelude::*;
use rackbar_handoff::{Host, ansible, ansible_host, group_name};
use rackbar_model::{Node, NodeState};
use serde_json::{Value, json};

fn node(number: u8, name: &str, role: Option<&str>, state: NodeState) -> Node {
    serde_json::from_value(json!({
        "id": format!("0000000{number}-0000-0000-0000-000000000000"),
        "name": name,
        "state": state,
        "state_since": "2026-11-20T17:24:28.123Z",
        "first_seen": "2026-11-20T17:24:28.123Z",
        "last_seen": "2026-11-20T17:24:28.123Z",
        "agent_connected": false,
        "power": "on",
        "address": format!("10.0.0.{number}"),
        "bmc_address": null,
        "macs": ["02:00:00:00:00:01"],
        "witnesses": [],
        "collisions": [],
        "inventory": null,
        "inventory_at": null,
        "verdict": "",
        "role": role,
        "installed": {
            "image": "debian-12",
            "sha256": "00".repeat(32),
            "target": { "disk": { "serial": "A" } },
            "hostname": name,
            "user": "root",
            "host_key": "ssh-ed25519 AAAAC3Nza db-1",
            "at": "2026-11-20T17:24:28.123Z",
            "run": 1,
        },
    }))
    .unwrap()
}

fn rack() -> Vec<Node> {
    vec![
        node(1, "db-1", Some("data base/1"), NodeState::Ready),
        node(2, "web[1:3]", None, NodeState::HandedOver),
        node(3, "db-1", Some("data base/1"), NodeState::Ready),
        node(4, "", None, NodeState::Discovered),
    ]
}

fn hosts<'a>(nodes: &'a [Node], networks: &'a [String]) -> Vec<Host<'a>> {
    let host = |node| Host {
        node,
        address: None,
        networks,
    };
    nodes.iter().map(host).collect()
}

#[test]
fn groups_and_variables_are_there() {
    let (nodes, networks) = (rack(), ["storage-a".to_owned()]);
    let hosts = hosts(&nodes, &networks);
    let list = ansible(&hosts);
    let second = "db-1-00000003-0000-0000-0000-000000000000";
    assert_eq!(list["role_data_base_1"]["hosts"], json!(["db-1", second]));
    assert_eq!(list["state_handed_over"]["hosts"], json!(["web13"]));
    assert_eq!(list["network_storage_a"]["hosts"].as_array().unwrap().len(), 4);
    let variables = &list["_meta"]["hostvars"]["db-1"];
    assert_eq!(variables["ansible_host"], "10.0.0.1");
    assert_eq!(variables["ansible_user"], "root");
    assert_eq!(variables["rackbar_known_hosts"], "10.0.0.1 ssh-ed25519 AAAAC3Nza");
    assert_eq!(ansible_host(&hosts, "db-1"), *variables);
    assert_eq!(ansible_host(&hosts, "nobody"), json!({}));
}

#[test]
fn a_machine_with_an_adopted_system_is_reached_as_it_was_then() {
    let mut adopted = node(9, "db-9", None, NodeState::Ready);
    adopted.installed = None;
    let system = json!({
        "system": { "name": "Debian GNU/Linux 12", "hostname": "srv17.example.org" }, "user": "admin", "address": "10.0.0.9",
        "port": 2222, "host_key": "ssh-ed25519 AAAAC3Nza", "trusted_on_first_use": false, "own_key": null, "by": "anna",
        "at": "2026-11-20T17:24:28.123Z",
    });
    adopted.adopted = serde_json::from_value(system).unwrap();
    let nodes = [adopted];
    let list = ansible(&hosts(&nodes, &[]));
    let variables = list["_meta"]["hostvars"]
        .as_object()
        .unwrap()
        .values()
        .next()
        .unwrap()
        .clone();
    assert_eq!(variables["ansible_user"], "admin");
    assert_eq!(variables["ansible_port"], 2222);
    assert_eq!(
        variables["rackbar_known_hosts"],
        "[10.0.0.9]:2222 ssh-ed25519 AAAAC3Nza"
    );
    assert_eq!(variables["rackbar_adopted_system"], "Debian GNU/Linux 12");
    assert!(variables["rackbar_image"].is_null());
}

/// Runs the real program on a script that prints what we make.
fn ansible_inventory(list: &Value, arguments: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let (data, script) = (dir.path().join("list.json"), dir.path().join("rackbar.sh"));
    std::fs::write(&data, list.to_string()).unwrap();
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = --list ] && exec cat '{}'\nexit 1\n",
        data.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = Command::new("ansible-inventory")
        .arg("-i")
        .arg(&script)
        .args(arguments)
        .env("HOME", dir.path())
        .env("ANSIBLE_LOCALHOST_WARNING", "false")
        .env("ANSIBLE_INVENTORY_UNPARSED_FAILED", "true")
        .env("LC_ALL", "C.UTF-8")
        .output();
    let output =
        run.expect("ansible-inventory is missing: Debian package ansible-core; `cargo xtask setup test` installs it");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    // It warns of group names it finds invalid.
    assert!(!complaint.contains("WARNING"), "{complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_real_ansible_inventory_takes_it() {
    let (nodes, networks) = (rack(), ["storage-a".to_owned()]);
    let list = ansible(&hosts(&nodes, &networks));
    let read = ansible_inventory(&list, &["--list"]);
    assert_eq!(read["_meta"], list["_meta"]);
    for group in [
        "rackbar",
        "role_data_base_1",
        "state_ready",
        "state_handed_over",
        "network_storage_a",
    ] {
        assert_eq!(read[group]["hosts"], list[group]["hosts"], "{group}");
    }
    let one = ansible_inventory(&list, &["--host", "db-1"]);
    assert_eq!(one, list["_meta"]["hostvars"]["db-1"]);
    // An empty rack is an inventory too.
    ansible_inventory(&ansible(&[]), &["--list"]);
}

proptest! {
    #[test]
    fn every_group_name_is_one_ansible_takes(name in "\\PC{0,30}") {
        let group = group_name("role", &name);
        prop_assert!(group.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
        prop_assert!(!group.starts_with(|c: char| c.is_ascii_digit()));
    }
}
