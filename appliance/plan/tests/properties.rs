//! What holds of every plan and every site text.
#![allow(missing_docs, reason = "a test")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{carried_out, change, disk, facts, node};
use proptest::prelude::*;
use rackbar_model::{BmcInfo, Disk, DiskBus, NodeState, Timestamp};
use rackbar_plan::{ActionKind, Facts, Memory, Scope, Site, plan, replan};

const SITE: &str = r##"
version = 1
[network.lan]
subnet = "10.10.0.0/28"
addresses = "10.10.0.4-10.10.0.9"
[network.bmcs]
subnet = "10.20.0.0/28"
addresses = "10.20.0.4-10.20.0.9"
[role.a]
os = "debian-12"
root = ROOT
batch = 2
erase_disks = "all"
network = [{ name = "lan", network = "lan" }]
[role.b]
os = "other"
after = ["a"]
bios = { X = "1" }
step = [{ name = "s", script = "#!/bin/sh" }]
[role.c]
memory = "agent"
rotate_bmc_password = true
[role.d]
memory = "agent"
bmc = { network = "bmcs", account = "rackbar" }
[[rule]]
name = "d"
when = "number % 8 == 3"
role = "d"
[[rule]]
name = "a"
when = "number % 4 == 0"
role = "a"
[[rule]]
name = "b"
when = "number % 4 == 1"
role = "b"
hostname = "b-{{ number // 8 }}"
[[rule]]
name = "c"
when = "number % 4 == 2"
role = "c"
"##;

fn a_disk() -> impl Strategy<Value = Disk> {
    let bus = prop_oneof![
        Just(DiskBus::Nvme),
        Just(DiskBus::Sata),
        Just(DiskBus::Usb),
        Just(DiskBus::Unknown)
    ];
    (0u8..4, 0u64..20, bus, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(serial, gib, bus, rotational, removable, named)| {
            let mut disk = disk(&format!("S{serial}"), gib, bus);
            (disk.rotational, disk.removable) = (rotational, removable);
            disk.serial = disk.serial.filter(|_| named);
            disk
        },
    )
}

fn a_rack() -> impl Strategy<Value = Facts> {
    let state = prop_oneof![
        4 => Just(NodeState::Discovered),
        1 => Just(NodeState::Ready),
        1 => Just(NodeState::Maintenance),
        1 => Just(NodeState::HandedOver),
        1 => Just(NodeState::Cleaning),
        1 => Just(NodeState::Enrolled),
    ];
    let one = (prop::collection::vec(a_disk(), 0..4), state, any::<[bool; 4]>(), 0u8..8);
    prop::collection::vec(one, 0..12).prop_map(|nodes| {
        let nodes = nodes
            .into_iter()
            .enumerate()
            .map(|(index, (disks, state, flags, last))| {
                let mut facts = node(u16::try_from(index).expect("few nodes"), disks);
                (facts.bmc, facts.password_rotated) = (flags[0], flags[1]);
                if flags[2] && last < 6 {
                    facts
                        .addresses
                        .insert("lan".into(), std::net::Ipv4Addr::new(10, 10, 0, 4 + last).into());
                }
                change(&mut facts, |node| {
                    let bmc = BmcInfo {
                        address: Some(std::net::Ipv4Addr::new(10, 20, 0, 4 + last).into()),
                        prefix: Some(28),
                        dhcp: Some(flags[2]),
                        ..BmcInfo::default()
                    };
                    if let Some(inventory) = &mut node.inventory {
                        inventory.bmc = (last != 7).then_some(bmc);
                    }
                    node.state = state.clone();
                    node.agent_connected = flags[3];
                    if state == NodeState::Enrolled {
                        node.inventory = None;
                    }
                });
                facts
            });
        let mut facts = facts(nodes.collect());
        facts.images.insert("other".into(), common::image("other", 3));
        facts
    })
}

fn root() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("{}"),
        Just("{ pick = 'smallest' }"),
        Just("{ media = 'ssd', mirror = true }"),
        Just("{ serial = 'S1' }"),
        Just("{ bus = 'nvme', pick = 'largest' }"),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_are_sound_the_same_each_time_and_touch_only_bound_nodes(facts in a_rack(), root in root(), reinstall: bool) {
        let site = common::site(&SITE.replace("ROOT", root));
        let scope = Scope {
            reinstall,
            ..Scope::default()
        };
        let made = plan(&site, &facts, &scope, Timestamp(1));
        prop_assert_eq!(made.check(), Ok(()));
        let mut shuffled = facts.clone();
        shuffled.nodes.reverse();
        let again = plan(&site, &shuffled, &scope, Timestamp(2));
        prop_assert!(again.id == made.id && again.actions == made.actions, "the order in which nodes are listed decides");
        prop_assert!(rackbar_plan::stale(&made, &site, &facts).is_empty());

        // Every node is somewhere, and in one place only.
        let mut places: BTreeMap<_, u32> = BTreeMap::new();
        let planned: BTreeSet<_> = made.actions.iter().filter_map(|action| action.node).collect();
        let told = made.refused.iter().chain(&made.left_out).map(|refusal| refusal.node);
        for node in planned.iter().copied().chain(told).chain(made.unchanged.iter().copied()) {
            *places.entry(node).or_default() += 1;
        }
        prop_assert!(places.values().all(|count| *count == 1));
        prop_assert_eq!(places.len(), facts.nodes.len());

        let mut given = BTreeSet::new();
        for action in &made.actions {
            let Some(node) = facts.nodes.iter().find(|node| Some(node.node.id) == action.node) else { continue };
            prop_assert!(!matches!(node.node.state, NodeState::Maintenance | NodeState::HandedOver | NodeState::Cleaning));
            prop_assert!(rackbar_plan::bind(&site, node).role.is_some());
            match &action.kind {
                ActionKind::Erase { disks, .. } => {
                    let inventory = node.node.inventory.as_ref().unwrap();
                    for wanted in disks {
                        let fits = |disk: &&Disk| disk.serial == wanted.serial && Some(disk.size_bytes) == wanted.size_bytes;
                        let disk = inventory.disks.iter().find(fits).unwrap();
                        let named = root.contains("serial");
                        prop_assert!(named || !disk.removable && disk.bus != DiskBus::Usb);
                    }
                }
                ActionKind::Setup { setup, .. } => {
                    for address in setup.networks.iter().flat_map(|network| &network.addresses) {
                        prop_assert!(given.insert(address.clone()), "{} twice", address);
                    }
                }
                ActionKind::BmcSetUp { network, .. } => {
                    let fixed = network.as_ref().and_then(|network| network.address).unwrap();
                    prop_assert!(given.insert(fixed.address.to_string()), "{} twice", fixed.address);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing_to_do(facts in a_rack(), root in root()) {
        let site = common::site(&SITE.replace("ROOT", root));
        let mut facts = facts;
        let made = plan(&site, &facts, &Scope::default(), Timestamp(1));
        carried_out(&mut facts, &made);
        let again = plan(&site, &facts, &Scope::default(), Timestamp(2));
        let planned: BTreeSet<_> = made.actions.iter().filter_map(|action| action.node).collect();
        for action in &again.actions {
            prop_assert!(!action.node.is_some_and(|node| planned.contains(&node)), "{} again", action.id);
        }
    }

    #[test]
    fn a_plan_with_memory_is_the_plan_without(
        facts in a_rack(),
        root in root(),
        changes in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 0..12),
    ) {
        let mut site = common::site(&SITE.replace("ROOT", root));
        let mut facts = facts;
        let made = plan(&site, &facts, &Scope::default(), Timestamp(0));
        carried_out(&mut facts, &made);
        let mut memory = Memory::default();
        let mut scope = Scope::default();
        for (what, which, how) in [(255, 0, 0)].into_iter().chain(changes) {
            happen(what, which, how, &mut site, &mut facts, &mut scope);
            let anew = plan(&site, &facts, &scope, Timestamp(1));
            prop_assert_eq!(replan(&mut memory, &site, &facts, &scope, Timestamp(1)), anew, "{} {} {}", what, which, how);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ -~\\n]{0,200}", at in 0usize..SITE.len(), piece in "[\\PC\\n]{0,8}") {
        let _ = Site::parse(&text);
        let mut cut = SITE.replace("ROOT", "{}");
        let at = at.min(cut.len());
        cut.insert_str(at, &piece);
        if let Err(problems) = Site::parse(&cut) {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.iter().all(|problem| problem.line >= 1 && problem.column >= 1));
        }
    }
}

/// One thing that changes in a rack, in its site, or in what is asked for.
fn happen(what: u8, which: u8, how: u8, site: &mut Site, facts: &mut Facts, scope: &mut Scope) {
    let count = facts.nodes.len().max(1);
    let lan = std::net::Ipv4Addr::new(10, 10, 0, 4 + how % 6);
    let other = facts.nodes.get(usize::from(how) % count).cloned();
    match what % 16 {
        0 => scope.reinstall = how.is_multiple_of(2),
        1 => scope.rotate_passwords = how.is_multiple_of(2),
        2 => *site = common::site(&SITE.replace("ROOT", ["{}", "{ pick = 'smallest' }"][usize::from(how) % 2])),
        3 => _ = facts.taken.insert(lan.into()),
        4 => facts
            .images
            .insert("other".into(), common::image("other", how % 3))
            .map_or((), drop),
        5 => _ = facts.retired.insert("debian-12".into(), None),
        6 => facts.taken.clear(),
        _ => {}
    }
    let Some(node) = facts.nodes.get_mut(usize::from(which) % count) else {
        return;
    };
    match what % 16 {
        7 => node.role = [None, Some("a".to_owned()), Some("c".to_owned())][usize::from(how) % 3].clone(),
        8 => change(node, |node| node.last_seen = Timestamp(u64::from(how))),
        9 => change(node, |node| {
            node.state = [NodeState::Ready, NodeState::Discovered][usize::from(how) % 2].clone()
        }),
        10 => node.addresses = other.map(|other| other.addresses).unwrap_or_default(),
        11 => node.installed = other.and_then(|other| other.installed),
        12 => node.bios = Some(BTreeMap::from([("X".to_owned(), (how % 2).to_string())])),
        13 => change(node, |node| node.agent_connected = how.is_multiple_of(2)),
        14 => change(node, |node| node.name = format!("b-{}", how % 4)),
        15 if what != 255 => _ = facts.nodes.remove(usize::from(which) % count),
        _ => {}
    }
}

/// Disks of one controller: some with a path, some of them with the same.
fn ports() -> impl Strategy<Value = Vec<Disk>> {
    let one = (prop::option::of(0u8..3), 8u64..20, any::<bool>());
    prop::collection::vec(one, 0..5).prop_map(|ports| {
        let disks = ports.into_iter().enumerate().map(|(index, (port, gib, named))| {
            let mut disk = disk(&format!("S{index}"), gib, DiskBus::Sata);
            disk.by_path = port.map(|port| format!("pci-0000:00:1f.2-ata-{port}"));
            disk.serial = disk.serial.filter(|_| named);
            disk
        });
        disks.collect()
    })
}

proptest! {
    #[test]
    fn a_root_disk_by_path_is_the_one_at_that_path_or_none(disks in ports(), mirror: bool) {
        let root = format!("{{ by_path = 'pci-0000:00:1f.2-ata-1', mirror = {mirror} }}");
        // Only the chosen disk is emptied: others need no name then.
        let text = SITE.replace("ROOT", &root).replace("erase_disks = \"all\"", "erase_disks = \"root\"");
        let parsed = Site::parse(&text);
        // A mirror of two is never of one path: the site file itself is wrong.
        prop_assert_eq!(parsed.is_err(), mirror);
        if mirror {
            return Ok(());
        }
        let site = parsed.expect("it is right");
        let wanted = Some("pci-0000:00:1f.2-ata-1".to_owned());
        let there: Vec<Disk> = disks.iter().filter(|disk| disk.by_path == wanted).cloned().collect();
        let made = plan(&site, &facts(vec![node(0, disks.clone())]), &Scope::default(), Timestamp(1));
        let targets = made.actions.iter().find_map(|action| match &action.kind {
            ActionKind::WriteImage { target, .. } => Some(target.disks().to_vec()),
            _ => None,
        });
        match &there[..] {
            [one] => {
                let targets = targets.unwrap_or_else(|| panic!("{:?} of {disks:?}", made.refused));
                prop_assert_eq!(targets.len(), 1);
                prop_assert_eq!((&targets[0].by_path, &targets[0].serial), (&one.by_path, &one.serial));
            }
            _ => {
                prop_assert!(targets.is_none(), "{targets:?} of {disks:?}");
                let reasons = format!("{:?}", made.refused);
                let sizes = disks.iter().all(|disk| reasons.contains(&format!("{}.0 GiB", disk.size_bytes >> 30)));
                prop_assert!(sizes, "every candidate is listed: {reasons}");
            }
        }
    }
}
