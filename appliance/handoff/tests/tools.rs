//! What Salt, Chef, Kubespray, Packstack and cephadm are given; by the real Salt, Ansible and Packstack where they read it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::process::Command;

use common::{id, node, of_venv, run, sample, text};
use rackbar_handoff::enrol::{self, Kind};
use rackbar_handoff::{ExportError, chef_files, consul, render, salt_files};
use serde_json::{Value, json};

fn salt(name: &str, home: &std::path::Path) -> Command {
    let mut command = Command::new(of_venv(name));
    command
        .arg("--config-dir")
        .arg(home)
        .arg("--out=json")
        .env("HOME", home)
        .env("PYTHONWARNINGS", "ignore");
    command
}

fn salt_home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().display().to_string();
    std::fs::write(
        home.path().join("master"),
        format!("root_dir: {root}\npki_dir: {root}/pki\nlog_file: {root}/log\n"),
    )
    .unwrap();
    std::fs::write(
        home.path().join("minion"),
        format!("root_dir: {root}\nfile_client: local\nid: ctl-1\npillar_roots: {{base: [{root}/pillar]}}\n"),
    )
    .unwrap();
    home
}

#[test]
fn the_real_salt_ssh_reads_our_roster() {
    let sample = sample();
    let home = salt_home();
    let roster = render(&sample.rack(), "salt", "roster", None).unwrap();
    let path = home.path().join("roster");
    std::fs::write(&path, roster).unwrap();
    let output = run(salt("salt-ssh", home.path())
        .arg("--roster-file")
        .arg(&path)
        .args(["--hosts", "*"]));
    let out = text(&output);
    let read: Value = serde_json::from_str(&out[out.find('{').unwrap()..]).unwrap();
    // By the file it read them from. A machine without a system is not in it.
    let wanted =
        json!({ path.display().to_string(): { "ctl-1": "10.0.0.1", "osd-1": "10.0.0.2", "osd-2": "10.0.0.3" } });
    assert_eq!(read, wanted);
}

#[test]
fn the_real_salt_reads_our_pillar() {
    let sample = sample();
    let home = salt_home();
    let pillar = home.path().join("pillar");
    std::fs::create_dir(&pillar).unwrap();
    std::fs::write(pillar.join("top.sls"), "base: {'*': [rackbar]}\n").unwrap();
    let items = |minion: &str| {
        std::fs::write(
            pillar.join("rackbar.sls"),
            render(&sample.rack(), "salt", "pillar", Some(minion)).unwrap(),
        )
        .unwrap();
        // `salt-call` prints no values of pillar; its own client gives them.
        let script = "import json, sys, salt.config, salt.pillar\n\
                      o = salt.config.minion_config(sys.argv[1] + '/minion')\n\
                      print(json.dumps(salt.pillar.Pillar(o, {}, sys.argv[2], 'base').compile_pillar()))\n";
        let output = run(Command::new(of_venv("python"))
            .args(["-W", "ignore", "-c", script])
            .arg(home.path())
            .arg(minion));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let read = items("ctl-1");
    assert_eq!(read["rackbar"]["role"], "controller");
    assert_eq!(read["region"], "eu: north");
    assert_eq!(read["note"], "a 'quoted' \"text\"\nin two lines, no");
    assert_eq!(
        items("stranger"),
        json!({}),
        "a minion we do not know has an empty pillar, and Salt goes on"
    );
}

#[test]
fn the_real_salt_takes_the_minion_keys_that_we_make() {
    let sample = sample();
    let home = salt_home();
    let Kind::Pair {
        private: Some(private),
        public,
    } = enrol::pair().unwrap()
    else {
        panic!("no pair");
    };
    let master = sample.site.handoff.salt.clone().unwrap();
    let files = salt_files(&master, "ctl-1.rack.example", &private.0, &public);
    assert_eq!(
        (files[0].path.as_str(), files[0].mode),
        ("/etc/salt/pki/minion/minion.pem", 0o600)
    );
    let accepted = home.path().join("pki/minions");
    std::fs::create_dir_all(&accepted).unwrap();
    std::fs::write(accepted.join("ctl-1.rack.example"), &public).unwrap();
    let listed = text(&run(salt("salt-key", home.path()).args(["--list", "accepted"])));
    let listed: Value = serde_json::from_str(&listed[listed.find('{').unwrap()..]).unwrap();
    assert_eq!(listed["minions"], json!(["ctl-1.rack.example"]));
    // Salt's own code signs with the private key and verifies with the public one.
    std::fs::write(home.path().join("minion.pem"), &files[0].content).unwrap();
    std::fs::write(home.path().join("minion.pub"), &files[1].content).unwrap();
    let script = "import sys, salt.crypt as c\nk=c.PrivateKey.from_file(sys.argv[1]+'/minion.pem')\n\
                  p=c.PublicKey.from_file(sys.argv[1]+'/minion.pub')\nassert p.verify(b'x', k.sign(b'x'))\nprint('good')\n";
    let output = run(Command::new(of_venv("python")).args(["-c", script]).arg(home.path()));
    assert_eq!(text(&output).trim(), "good");
}

#[test]
fn chef_gets_a_node_with_its_policy_and_a_key_without_validator() {
    let sample = sample();
    let read = |what: &str, node: &str| -> Value {
        serde_json::from_str(&render(&sample.rack(), "chef", what, Some(node)).unwrap()).unwrap()
    };
    let osd = read("node", "osd-1");
    assert_eq!(
        (&osd["policy_name"], &osd["policy_group"]),
        (&json!("ceph-osd"), &json!("rack-a"))
    );
    assert_eq!(osd["json_class"], "Chef::Node");
    assert!(osd.get("chef_environment").is_none());
    assert_eq!(osd["automatic"]["dmi"]["system"]["serial_number"], "SN2");
    assert_eq!(osd["automatic"]["memory"]["total"], "67108864kB");
    let first = read("first-boot", "ctl-1");
    assert_eq!(first["policy_name"], "controller");
    assert_eq!(first["rackbar"]["id"], id(1));
    assert_eq!(read("first-boot", "stranger"), json!({}));
    assert_eq!(read("node", "stranger")["run_list"], json!([]));
    let server = sample.site.handoff.chef.clone().unwrap();
    let files = chef_files(&server, "o'brien", "KEY", &first);
    assert_eq!(
        files[1].content,
        "chef_server_url 'https://chef.example/organizations/rack'\nnode_name 'o\\'brien'\nclient_key '/etc/chef/client.pem'\n\
         ssl_verify_mode :verify_peer\n"
    );
    assert_eq!((files[0].path.as_str(), files[0].mode), ("/etc/chef/client.pem", 0o600));
}

/// Every attribute of ours that the real Ohai also has of this machine is of the same kind.
#[test]
fn our_attributes_have_the_shape_of_ohais_own() {
    let sample = sample();
    let ours: Value =
        serde_json::from_str(&render(&sample.rack(), "ohai", "attributes", Some("ctl-1")).unwrap()).unwrap();
    let own: Value = serde_json::from_str(&text(&run(&mut Command::new("ohai")))).unwrap();
    let mut compared = 0;
    for pointer in [
        "/hostname",
        "/cpu/total",
        "/cpu/real",
        "/cpu/cores",
        "/cpu/0/model_name",
        "/cpu/0/flags",
        "/memory/total",
        "/network/interfaces",
        "/block_device",
    ] {
        let found = ours.pointer(pointer);
        assert!(found.is_some(), "{pointer} is missing from ours");
        if let (Some(ours), Some(own)) = (found, own.pointer(pointer)) {
            assert_eq!(
                std::mem::discriminant(ours),
                std::mem::discriminant(own),
                "{pointer}: {ours} and {own}"
            );
            compared += 1;
        }
    }
    assert!(compared >= 5, "only {compared} attributes could be compared");
}

#[test]
fn a_machine_whose_ssh_listens_elsewhere_is_reached_there() {
    let mut sample = sample();
    let mut moved = node(2, "osd-1", "storage");
    moved["installed"] = Value::Null;
    moved["adopted"] = json!({
        "system": { "name": "Debian GNU/Linux 12", "hostname": "osd-1" }, "user": "admin", "address": "10.0.0.2",
        "port": 2222, "host_key": "ssh-ed25519 AAAAC3Nza", "trusted_on_first_use": false, "own_key": null, "by": "anna",
        "at": "2026-11-20T17:24:28.123Z",
    });
    sample.nodes[1] = std::sync::Arc::new(serde_json::from_value(moved).unwrap());
    for (kind, what, field) in [("salt", "roster", "port"), ("kubespray", "inventory", "ansible_port")] {
        let text = render(&sample.rack(), kind, what, None).unwrap();
        let told: Vec<&str> = text.lines().filter(|line| line.contains("port")).collect();
        assert_eq!(
            told.iter().map(|line| line.trim()).collect::<Vec<_>>(),
            [format!("\"{field}\": 2222")],
            "{text}"
        );
    }
}

#[test]
fn the_real_ansible_reads_the_kubespray_inventory() {
    let mut sample = sample();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts.yaml");
    std::fs::write(&path, render(&sample.rack(), "kubespray", "inventory", None).unwrap()).unwrap();
    let output = run(Command::new("ansible-inventory")
        .arg("-i")
        .arg(&path)
        .arg("--list")
        .env("HOME", folder.path())
        .env("ANSIBLE_INVENTORY_UNPARSED_FAILED", "true"));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(read["kube_control_plane"]["hosts"], json!(["ctl-1"]));
    assert_eq!(read["kube_node"]["hosts"], json!(["osd-1", "osd-2"]));
    assert_eq!(read["etcd"]["hosts"], json!(["ctl-1"]));
    assert_eq!(
        read["k8s_cluster"]["children"],
        json!(["kube_control_plane", "kube_node"])
    );
    assert_eq!(read["_meta"]["hostvars"]["osd-1"]["access_ip"], "10.0.0.2");
    // Two members of etcd would have no majority without both.
    let second = serde_json::from_value(node(4, "ctl-2", "controller")).unwrap();
    sample.nodes.push(std::sync::Arc::new(second));
    let refused = render(&sample.rack(), "kubespray", "inventory", None).unwrap_err();
    assert!(refused.to_string().contains("odd"), "{refused}");
}

#[test]
fn packstack_gets_one_controller_or_a_refusal() {
    let mut sample = sample();
    let answers = render(&sample.rack(), "packstack", "answers", None).unwrap();
    let wanted = "[general]\nCONFIG_CONTROLLER_HOST=10.0.0.1\nCONFIG_COMPUTE_HOSTS=10.0.0.2,10.0.0.3\n\
                  CONFIG_NETWORK_HOSTS=10.0.0.1\nCONFIG_STORAGE_HOST=10.0.0.1\nCONFIG_AMQP_HOST=10.0.0.1\n\
                  CONFIG_MARIADB_HOST=10.0.0.1\n";
    assert_eq!(answers, wanted);
    sample.nodes.remove(0);
    assert!(matches!(
        render(&sample.rack(), "packstack", "answers", None),
        Err(ExportError::Missing(_))
    ));
}

/// A network in which the rack's machines seem to be: each lets itself be reached at port 22, and hangs up.
/// Packstack keeps its log and its manifests below `/var/tmp`, wherever it is told to work.
const A_NETWORK_FOR_PACKSTACK: &str = r#"
set -e
mount -t tmpfs none /var/tmp
ip link set lo up
ip link add machines type veth peer name wire
ip link set machines up; ip link set wire up
for host in 1 2 3; do ip address add 10.0.0.$host/24 dev machines; done
ip route add default via 10.0.0.254
exec "$0" -c '
import socket, subprocess, sys, threading
door = socket.create_server(("0.0.0.0", 22))
def hang_up():
    while True:
        door.accept()[0].close()
threading.Thread(target=hang_up, daemon=True).start()
sys.exit(subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL).returncode)
' "$@"
"#;

/// Packstack itself, as far as the first machine: it reads the answers, tries whether each host is there, writes the file anew
/// with all that it takes as given, and turns to the hosts.
#[test]
fn the_real_packstack_takes_the_answers_and_goes_to_their_hosts() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".ssh")).unwrap();
    let path = home.path().join("answers.txt");
    let started = |answers: &str| {
        std::fs::write(&path, answers).unwrap();
        let output = Command::new("unshare")
            .args([
                "--map-root-user",
                "--net",
                "--mount",
                "sh",
                "-c",
                A_NETWORK_FOR_PACKSTACK,
            ])
            .arg(of_venv("python"))
            .arg(of_venv("packstack"))
            .arg(format!("--answer-file={}", path.display()))
            .arg("--dry-run")
            .env("HOME", home.path())
            .output()
            .unwrap();
        text(&output)
    };
    let ours = render(&sample().rack(), "packstack", "answers", None).unwrap();
    let told = started(&ours);
    assert!(told.contains("Setting up ssh keys"), "{told}");
    let at = |host| told.contains(&format!(" by 10.0.0.{host} port 22"));
    assert!((1..=3).any(at), "{told}");
    let taken = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
    let taken: Vec<&str> = taken.lines().collect();
    assert!(taken.len() > 500, "written anew with every setting: {}", taken.len());
    for line in ours.lines() {
        assert!(taken.contains(&line), "{line}");
    }
    // It does look: a host that is not there is refused before anything is done.
    let told = started(&ours.replace("10.0.0.3", "10.0.0.300"));
    assert!(told.contains("CONFIG_COMPUTE_HOSTS failed validation"), "{told}");
    assert!(!told.contains("Setting up ssh keys"), "{told}");
}

/// The specification as Ceph's own code of the release in Debian reads it.
#[test]
fn the_real_cephs_own_code_reads_the_specification() {
    let sample = sample();
    let spec = render(&sample.rack(), "cephadm", "spec", None).unwrap();
    let said: Vec<&str> = spec.lines().take_while(|line| line.starts_with('#')).collect();
    assert!(
        said.len() == 2
            && said[0].ends_with("ceph config set global public_network 10.0.0.0/24")
            && said[1].ends_with("ceph config set global cluster_network 10.1.0.0/24"),
        "{said:?}"
    );
    let script = r#"
import json, sys, yaml
from ceph.deployment.service_spec import ServiceSpec
from ceph.deployment.hostspec import HostSpec
from ceph.deployment.drive_group import DriveGroupSpec
out = []
for one in yaml.safe_load_all(sys.argv[1]):
    if one['service_type'] == 'host':
        host = HostSpec.from_json(one)
        out.append(['host', host.hostname, host.addr, sorted(host.labels)])
        continue
    spec = ServiceSpec.from_json(one)
    spec.validate()
    if spec.service_type == 'mon':
        assert spec.networks == ['10.0.0.0/24'], spec.networks
    disks = [d.path for d in spec.data_devices.paths] if isinstance(spec, DriveGroupSpec) else []
    out.append([spec.service_type, spec.service_id, spec.placement.label or spec.placement.hosts[0].hostname, disks])
print(json.dumps(out))
"#;
    let read = run(Command::new("/usr/bin/python3").args(["-c", script, &spec]));
    let read: Value = serde_json::from_slice(&read.stdout).unwrap();
    let wanted = json!([
        ["host", "ctl-1", "10.0.0.1", ["mgr", "mon"]],
        ["host", "osd-1", "10.0.0.2", ["osd"]],
        ["host", "osd-2", "10.0.0.3", ["osd"]],
        ["mon", null, "mon", []],
        ["mgr", null, "mgr", []],
        [
            "osd",
            "osd-1-hdd",
            "osd-1",
            [
                "/dev/disk/by-id/wwn-0x5000c500000000b1",
                "/dev/disk/by-id/wwn-0x5000c500000000b2"
            ]
        ],
        [
            "osd",
            "osd-1-nvme",
            "osd-1",
            ["/dev/disk/by-id/nvme-eui.0025385b71b00a11"]
        ],
        [
            "osd",
            "osd-1-ssd",
            "osd-1",
            ["/dev/disk/by-path/pci-0000:00:1f.2-ata-4"]
        ],
    ]);
    assert_eq!(
        &read.as_array().unwrap()[..8],
        wanted.as_array().unwrap().as_slice(),
        "{read}"
    );
    assert!(
        !spec.contains("5000c5000000000a"),
        "the system's own disk is not given away"
    );
}

#[test]
fn disks_that_cannot_be_told_from_the_systems_own_are_not_given_to_ceph() {
    let mut sample = sample();
    let mut twin = node(2, "osd-1", "storage");
    twin["inventory"]["disks"][1]["serial"] = json!("ROOT");
    twin["inventory"]["disks"][1]["size_bytes"] = twin["inventory"]["disks"][0]["size_bytes"].clone();
    sample.nodes[1] = std::sync::Arc::new(serde_json::from_value(twin).unwrap());
    let refused = render(&sample.rack(), "cephadm", "spec", None).unwrap_err();
    assert!(
        refused.to_string().contains("osd-1") && refused.to_string().contains("fits 2 disks"),
        "{refused}"
    );
}

#[test]
fn only_ready_machines_are_registered_and_only_ours_is_touched() {
    let mut sample = sample();
    let wanted = consul::wanted(&sample.rack());
    let (id_1, registration) = wanted.first_key_value().unwrap();
    assert_eq!((wanted.len(), registration.node.as_str()), (1, "ctl-1"));
    let (service, body) = registration.services.first_key_value().unwrap();
    assert_eq!(*service, format!("api-{}", id(1)));
    assert_eq!(body["Service"]["Port"], 6443);
    let answer = json!({ "Node": { "Address": "10.0.0.1", "Meta": { "rackbar-node": id(1) } }, "Services": { service: body["Service"] } });
    assert!(consul::ours(&answer, *id_1) && consul::registered(&answer, body));
    assert!(consul::ours(&Value::Null, *id_1));
    assert!(
        !consul::ours(&json!({ "Node": { "Meta": {} }, "Services": {} }), *id_1),
        "somebody else's"
    );
    let mut broken = node(1, "ctl-1", "controller");
    broken["state"] = json!("maintenance");
    sample.nodes[0] = std::sync::Arc::new(serde_json::from_value(broken).unwrap());
    assert!(consul::wanted(&sample.rack()).is_empty());
}
