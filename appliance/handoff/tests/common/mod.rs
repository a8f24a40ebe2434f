//! A rack of three installed machines and one that is not, and the site file that hands it over.
#![allow(clippy::unwrap_used, dead_code, reason = "a helper of tests: a panic is the failure")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rackbar_handoff::Rack;
use rackbar_model::Node;
use rackbar_plan::Site;
use serde_json::{Value, json};

pub(crate) const SITE: &str = r#"
version = 1
domain = "rack.example"
[network.mgmt]
subnet = "10.0.0.0/24"
[network.storage]
subnet = "10.1.0.0/24"
[role.controller]
os = "debian-12"
[[role.controller.network]]
name = "mgmt"
network = "mgmt"
[role.storage]
os = "debian-12"
after = ["controller"]
[[rule]]
name = "all"
when = "true"
role = "storage"
[handoff.puppet]
server = "puppet.example"
environment = "production"
[handoff.salt]
master = "salt.example"
[handoff.chef]
url = "https://chef.example/organizations/rack"
policy_group = "rack-a"
[handoff.consul]
url = "http://127.0.0.1:8500"
[handoff.ceph]
public_network = "mgmt"
cluster_network = "storage"
[handoff.role.controller]
enrol = ["puppet", "salt", "chef"]
puppet_classes = ["ntp", "profile::controller"]
parameters = { region = "eu: north", size = 3, note = "a 'quoted' \"text\"\nin two lines, no" }
kubernetes = ["kube_control_plane", "etcd"]
ceph = ["mon", "mgr"]
packstack = ["controller", "network"]
services = { api = 6443 }
[handoff.role.storage]
enrol = ["puppet"]
kubernetes = ["kube_node"]
ceph = ["osd"]
packstack = ["compute"]
chef_policy = "ceph-osd"
puppet_environment = "testing"
"#;

pub(crate) fn id(number: u8) -> String {
    format!("0000000{number}-0000-0000-0000-000000000000")
}

pub(crate) fn node(number: u8, name: &str, role: &str) -> Value {
    json!({
        "id": id(number), "name": name, "state": "ready",
        "state_since": "2026-11-20T17:24:28.123Z", "first_seen": "2026-11-20T17:24:28.123Z",
        "last_seen": "2026-11-20T17:24:28.123Z", "agent_connected": false, "power": "on",
        "address": format!("10.0.0.{number}"), "bmc_address": null, "macs": [format!("02:00:00:00:00:0{number}")],
        "witnesses": [], "collisions": [], "inventory": inventory(number), "inventory_at": null, "verdict": "",
        "role": role,
        "installed": {
            "image": "debian-12", "sha256": "00".repeat(32),
            "target": { "disk": { "serial": "ROOT", "size_bytes": 256_000_000_000u64 } },
            "hostname": name, "user": "root", "host_key": "ssh-ed25519 AAAAC3Nza host", "proved": true,
            "at": "2026-11-20T17:24:28.123Z", "run": 1,
        },
    })
}

fn inventory(number: u8) -> Value {
    json!({
        "firmware": { "vendor": "SeaBIOS", "version": "1.16", "date": "04/01/2014", "mode": "bios" },
        "system": { "manufacturer": "Maker", "product": "Model: 1", "serial": format!("SN{number}"), "uuid": "4c4c4544-0000" },
        "board": { "manufacturer": "Maker", "product": "Board", "serial": "B1" },
        "cpu": { "model": "CPU 9000", "arch": "x86_64", "sockets": 2, "cores": 8, "threads": 16, "flags": ["aes"] },
        "memory": { "total_bytes": 68_719_476_736u64, "modules": [] },
        "nics": [{
            "name": "eth0", "mac": format!("02:00:00:00:00:0{number}"), "link": true, "boot": true, "speed_mbps": 25000,
            "addresses": [format!("10.0.0.{number}")],
        }],
        "disks": [
            { "name": "sda", "size_bytes": 256_000_000_000u64, "serial": "ROOT", "wwn": "5000c5000000000a", "bus": "sata" },
            { "name": "sdb", "size_bytes": 8_000_000_000_000u64, "serial": "H1", "wwn": "0x5000c500000000b1", "bus": "sas", "rotational": true },
            { "name": "sdc", "size_bytes": 8_000_000_000_000u64, "serial": "H2", "wwn": "5000c500000000b2", "bus": "sas", "rotational": true },
            { "name": "sdd", "size_bytes": 960_000_000_000u64, "serial": "S1", "bus": "sata", "by_path": "pci-0000:00:1f.2-ata-4" },
            { "name": "nvme0n1", "size_bytes": 1_600_000_000_000u64, "serial": "N1", "wwn": "eui.0025385b71b00a11", "bus": "nvme" },
            { "name": "sde", "size_bytes": 16_000_000_000u64, "serial": "U1", "wwn": "1", "bus": "usb", "removable": true },
        ],
    })
}

pub(crate) struct Sample {
    pub(crate) site: Site,
    pub(crate) nodes: Vec<Arc<Node>>,
}

pub(crate) fn sample() -> Sample {
    let mut fresh = node(9, "fresh", "storage");
    fresh["installed"] = Value::Null;
    let nodes = [
        node(1, "ctl-1", "controller"),
        node(2, "osd-1", "storage"),
        node(3, "osd-2", "storage"),
        fresh,
    ];
    Sample {
        site: Site::parse(SITE).unwrap(),
        nodes: nodes.map(|one| Arc::new(serde_json::from_value(one).unwrap())).into(),
    }
}

impl Sample {
    pub(crate) fn rack(&self) -> Rack<'_> {
        Rack {
            name: "test",
            site: Some(&self.site),
            nodes: &self.nodes,
        }
    }
}

/// Runs a program that `cargo xtask setup test` installs; fails when it is not there or ends with an error.
pub(crate) fn run(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.env("LC_ALL", "C.UTF-8").output();
    let output = output.unwrap_or_else(|error| panic!("{name}: {error}; `cargo xtask setup test` installs it"));
    assert!(
        output.status.success(),
        "{name} ended with {}:\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A program of the Python environment that `cargo xtask setup test` makes.
pub(crate) fn of_venv(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/venv/bin")
        .join(name)
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}
