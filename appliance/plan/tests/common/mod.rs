//! A few words to build racks with.
#![allow(dead_code, missing_docs, reason = "each test uses its part")]

use std::sync::Arc;

use rackbar_model::{
    Digest, Disk, DiskBus, ImageEntry, ImageFormat, Installer, InstallerFile, InstallerSystem, Inventory, MacAddr, Nic,
    Node, NodeId, NodeState, OsSetup, PowerState, Timestamp,
};
use rackbar_plan::{
    ActionKind, BmcNetwork, Facts, Installed, NodeFacts, Plan, Scope, SetupDigest, Site, bmc_holder, plan,
};

pub const GIB: u64 = 1 << 30;
pub const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f t@example.org";

pub fn site(text: &str) -> Site {
    Site::parse(text).unwrap_or_else(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"))
    })
}

pub fn disk(serial: &str, gib: u64, bus: DiskBus) -> Disk {
    Disk {
        name: format!("d-{serial}"),
        size_bytes: gib * GIB,
        model: Some(format!("MODEL {gib}G")),
        serial: Some(serial.to_owned()),
        bus,
        sector_bytes: 512,
        ..Disk::default()
    }
}

pub fn mac(node: u16, nic: u8) -> MacAddr {
    let [high, low] = node.to_be_bytes();
    MacAddr([0x52, 0x54, 0, high, low, nic])
}

pub fn nic(node: u16, index: u8, speed: u32) -> Nic {
    Nic {
        name: format!("eth{index}"),
        mac: mac(node, index),
        driver: Some("virtio_net".into()),
        pci: Some(format!("0000:0{index}:00.0")),
        speed_mbps: Some(speed),
        link: true,
        boot: index == 0,
        ..Nic::default()
    }
}

pub fn id(number: u16) -> NodeId {
    let mut bytes = [7; 16];
    bytes[14..].copy_from_slice(&number.to_be_bytes());
    NodeId(bytes)
}

/// A discovered node with its agent connected and a BMC.
pub fn node(number: u16, disks: Vec<Disk>) -> NodeFacts {
    let nics = vec![nic(number, 0, 1000), nic(number, 1, 25_000), nic(number, 2, 25_000)];
    let mut inventory = Inventory {
        disks,
        ..Inventory::default()
    };
    inventory.system.serial = Some(format!("SN{number:05}"));
    inventory.system.product = Some("Virtual".into());
    inventory.cpu.arch = Some("x86_64".into());
    inventory.cpu.cores = 8;
    inventory.memory.total_bytes = 16 * GIB;
    inventory.boot.mac = Some(mac(number, 0));
    let node = Node {
        id: id(number),
        name: format!("node-{number:03}"),
        state: NodeState::Discovered,
        state_since: Timestamp(0),
        first_seen: Timestamp(0),
        last_seen: Timestamp(0),
        agent_connected: true,
        power: PowerState::On,
        address: None,
        bmc_address: None,
        macs: nics.iter().map(|nic| nic.mac).collect(),
        witnesses: Vec::new(),
        collisions: Vec::new(),
        inventory: Some(Inventory { nics, ..inventory }),
        inventory_at: Some(Timestamp(0)),
        verdict: String::new(),
        ..template()
    };
    NodeFacts {
        bmc: true,
        ..NodeFacts::new(Arc::new(node))
    }
}

/// The fields of a node that tests here do not care for.
fn template() -> Node {
    serde_json::from_value(serde_json::json!({
        "id": "07070707-0707-0707-0707-070707070707", "name": "", "state": "discovered", "state_since": Timestamp(0),
        "first_seen": Timestamp(0), "last_seen": Timestamp(0), "agent_connected": false, "power": "unknown",
        "address": null, "bmc_address": null, "macs": [], "witnesses": [], "collisions": [], "inventory": null,
        "inventory_at": null, "verdict": "",
    }))
    .expect("a node")
}

pub fn change(facts: &mut NodeFacts, with: impl FnOnce(&mut Node)) {
    with(Arc::make_mut(&mut facts.node));
}

pub fn image(name: &str, version: u8) -> ImageEntry {
    ImageEntry {
        name: name.into(),
        format: ImageFormat::Zstd,
        sha256: Digest([version; 32]),
        bytes: 300 << 20,
        disk_bytes: Some(2 * GIB),
        arch: "x86_64".into(),
        source: "test".into(),
        licence: "test".into(),
        user: "debian".into(),
        added: Timestamp(0),
        installer: None,
    }
}

/// Debian's installer in the catalogue.
pub fn installer(name: &str) -> ImageEntry {
    let part = |digest| InstallerFile {
        sha256: Digest([digest; 32]),
        offset: 512,
        bytes: 1000,
    };
    ImageEntry {
        format: ImageFormat::Raw,
        disk_bytes: None,
        user: "root".into(),
        installer: Some(Installer {
            system: InstallerSystem::Debian,
            release: "bookworm".into(),
            kernel: part(0x11),
            initrd: part(0x12),
            disc: None,
        }),
        ..image(name, 0x10)
    }
}

pub fn facts(nodes: Vec<NodeFacts>) -> Facts {
    Facts {
        nodes,
        images: [("debian-12".to_owned(), image("debian-12", 1))].into(),
        ..Facts::default()
    }
}

pub fn all(site: &Site, facts: &Facts) -> Plan {
    let plan = plan(site, facts, &Scope::default(), Timestamp(1));
    assert_eq!(plan.check(), Ok(()));
    plan
}

pub fn ids(plan: &Plan) -> Vec<&str> {
    plan.actions.iter().map(|action| action.id.0.as_str()).collect()
}

pub fn setup<'p>(plan: &'p Plan, name: &str) -> &'p OsSetup {
    let action = plan
        .actions
        .iter()
        .find(|action| action.id.0 == format!("{name}/os.setup"));
    match &action.expect("a setup").kind {
        ActionKind::Setup { setup, .. } => setup,
        other => panic!("{other:?}"),
    }
}

/// What the orchestrator records when a plan was carried out well.
pub fn carried_out(facts: &mut Facts, plan: &Plan) {
    for node in &mut facts.nodes {
        let id = node.node.id;
        for action in plan.actions.iter().filter(|action| action.node == Some(id)) {
            match (&action.kind, &mut node.installed) {
                (
                    ActionKind::WriteImage {
                        target, image, sha256, ..
                    },
                    installed,
                ) => {
                    *installed = Some(Installed {
                        image: image.clone(),
                        sha256: *sha256,
                        target: target.clone(),
                        setup: SetupDigest::default(),
                        files: Vec::new(),
                        at: Timestamp(100),
                        steps: Default::default(),
                        checked: None,
                    });
                }
                (
                    ActionKind::Installer {
                        target,
                        image,
                        sha256,
                        setup,
                        ..
                    },
                    installed,
                ) => {
                    *installed = Some(Installed {
                        image: image.clone(),
                        sha256: *sha256,
                        target: target.clone(),
                        setup: SetupDigest::of(setup),
                        files: Vec::new(),
                        at: Timestamp(100),
                        steps: Default::default(),
                        checked: None,
                    });
                }
                (ActionKind::Setup { setup, .. }, Some(installed)) => {
                    installed.setup = SetupDigest::of(setup);
                    installed.files = setup.files.iter().map(|file| file.path.clone()).collect();
                    // Sites here call interfaces as their networks.
                    for network in &setup.networks {
                        let address = network.addresses.first().and_then(|address| address.split('/').next());
                        let address = address.map(|address| (network.name.clone(), address.parse().expect("one")));
                        node.addresses.extend(address);
                    }
                }
                (ActionKind::Step(step) | ActionKind::Rescue { step, .. }, Some(installed)) => {
                    installed
                        .steps
                        .insert(step.name.clone(), rackbar_plan::planner::step_digest(step));
                }
                (ActionKind::Verify { checks }, Some(installed)) => installed.checked = Some(checks.clone()),
                (ActionKind::BiosSettings { attributes }, _) => {
                    node.bios.get_or_insert_default().extend(attributes.clone());
                }
                (ActionKind::RotatePassword, _) => node.password_rotated = true,
                (ActionKind::BmcSetUp { network, account }, _) => {
                    let (network, account) = (network.clone(), account.clone());
                    set_up_bmc(node, network, account);
                }
                _ => {}
            }
        }
        if plan.actions.iter().any(|action| action.node == Some(node.node.id)) {
            let installed = node.installed.is_some();
            change(node, |node| {
                node.state = NodeState::Ready;
                node.agent_connected = !installed;
            });
        }
    }
}

/// A BMC that was set up as wanted, and answers.
fn set_up_bmc(node: &mut NodeFacts, network: Option<BmcNetwork>, account: Option<String>) {
    node.bmc |= account.is_some();
    node.bmc_account = account.or(node.bmc_account.take());
    let Some(network) = network else { return };
    let fixed = network.address;
    if let Some(fixed) = fixed {
        node.addresses.insert(bmc_holder(&network.name), fixed.address.into());
    }
    change(node, |node| {
        let bmc = node.inventory.as_mut().and_then(|inventory| inventory.bmc.as_mut());
        let bmc = bmc.expect("a BMC that is set up is there");
        (bmc.dhcp, bmc.vlan) = (Some(fixed.is_none()), network.vlan);
        if let Some(fixed) = fixed {
            (bmc.address, bmc.prefix) = (Some(fixed.address.into()), Some(fixed.prefix));
            bmc.gateway = fixed.gateway.map(Into::into);
        }
    });
}

pub const WORKER: &str = r##"
version = 1
[role.worker]
os = "debian-12"
[[rule]]
name = "all"
when = "true"
role = "worker"
"##;

pub const STATIC: &str = r##"
version = 1
[network.lan]
subnet = "10.10.0.0/24"
gateway = "10.10.0.1"
addresses = "10.10.0.50-10.10.0.52"
dns = ["10.10.0.51"]
[network.fast]
subnet = "10.20.0.0/24"
vlan = 20
mtu = 9000
[role.worker]
os = "debian-12"
[[role.worker.network]]
name = "lan"
network = "lan"
[[role.worker.network]]
name = "fast"
network = "fast"
nics = ["nic.speed_mbps >= 25000"]
bond = "802.3ad"
[[rule]]
name = "all"
when = "true"
role = "worker"
"##;

/// A rack of one node with one disk.
pub fn one(number: u16) -> Facts {
    facts(vec![node(number, vec![disk("A", 8, DiskBus::Nvme)])])
}

pub fn refusal(plan: &Plan) -> &str {
    assert!(plan.actions.is_empty(), "{:?}", ids(plan));
    &plan.refused.first().expect("a refusal").reason
}
