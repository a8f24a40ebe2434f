//! What the planner chooses for a node: its disk, its NICs, its addresses; and the refusals where it must not choose.
#![allow(missing_docs, reason = "a test")]

mod common;

use std::net::IpAddr;

use common::{GIB, STATIC, WORKER, all, carried_out, disk, facts, image, node, one, refusal, setup, site};
use rackbar_model::{DiskBus, RootTarget};
use rackbar_plan::{ActionKind, stale};

#[test]
fn the_root_disk_is_the_one_that_fits_or_none() {
    let (nvme, sata) = (disk("N", 8, DiskBus::Nvme), disk("S", 16, DiskBus::Sata));
    let usb = disk("U", 4, DiskBus::Usb);
    let mut hdd = disk("H", 16, DiskBus::Sata);
    hdd.rotational = true;
    let mut removable = disk("R", 8, DiskBus::Sata);
    removable.removable = true;
    let mut nameless = disk("", 8, DiskBus::Virtio);
    nameless.serial = None;
    let mut four_k = disk("K", 8, DiskBus::Nvme);
    four_k.sector_bytes = 4096;
    // What a controller's ports are told by; the second has nothing else, and so has its double.
    let (first, second) = ("pci-0000:00:1f.2-ata-1", "pci-0000:00:1f.2-ata-2");
    let (mut port, mut bare) = (disk("P", 8, DiskBus::Sata), disk("", 8, DiskBus::Sata));
    (port.by_path, bare.by_path, bare.serial) = (Some(first.into()), Some(second.into()), None);
    let mut double = bare.clone();
    (double.name, double.size_bytes) = ("double".into(), 16 << 30);
    let mut fork = disk("Q", 16, DiskBus::Sata);
    fork.by_path = Some(first.into());
    let mut twin = disk("N", 8, DiskBus::Nvme);
    twin.name = "twin".into();
    // Two volumes of a RAID controller: its serial, and WWNs of their own.
    let volume = |number: u64, gib| {
        let mut volume = disk("RAID", gib, DiskBus::Sas);
        (volume.name, volume.wwn) = (format!("volume{number}"), Some(format!("naa.600508b1001c00{number}")));
        volume
    };
    let (boot, data) = (volume(1, 8), volume(2, 16));
    let mut path = boot.clone();
    path.name = "path".into();
    // Intent, disks, and either the serials chosen or parts of the refusal.
    type Case<'a> = (
        &'a str,
        Vec<&'a rackbar_model::Disk>,
        Result<Vec<&'a str>, Vec<&'a str>>,
    );
    let cases: Vec<Case<'_>> = vec![
        ("{}", vec![&nvme], Ok(vec!["N"])),
        (
            "{}",
            vec![&nvme, &sata],
            Err(vec!["2 fit", "serial N, 8.0 GiB (fits)", "serial S, 16.0 GiB (fits)"]),
        ),
        ("{ pick = 'smallest' }", vec![&nvme, &sata], Ok(vec!["N"])),
        ("{ pick = 'largest' }", vec![&nvme, &sata], Ok(vec!["S"])),
        (
            "{ pick = 'largest' }",
            vec![&nvme, &sata, &hdd],
            Err(vec!["2 fit", "not the size"]),
        ),
        ("{ media = 'ssd' }", vec![&hdd, &sata], Ok(vec!["S"])),
        ("{ media = 'hdd' }", vec![&hdd, &sata], Ok(vec!["H"])),
        (
            "{ bus = 'nvme' }",
            vec![&sata],
            Err(vec!["none fits", "not on the bus nvme"]),
        ),
        (
            "{ by_path = 'pci-0000:00:1f.2-ata-1' }",
            vec![&port, &bare, &sata],
            Ok(vec!["P"]),
        ),
        (
            "{ by_path = 'pci-0000:00:1f.2-ata-3' }",
            vec![&port, &bare, &sata],
            Err(vec![
                "none fits",
                "path is pci-0000:00:1f.2-ata-1, not pci-0000:00:1f.2-ata-3",
                "path is unknown",
            ]),
        ),
        (
            "{ by_path = 'pci-0000:00:1f.2-ata-1' }",
            vec![&port, &fork],
            Err(vec!["2 fit"]),
        ),
        (
            "{ by_path = 'pci-0000:00:1f.2-ata-1', pick = 'smallest' }",
            vec![&port, &fork],
            Ok(vec!["P"]),
        ),
        (
            "{ by_path = 'pci-0000:00:1f.2-ata-1', max_gib = 4 }",
            vec![&port],
            Err(vec!["none fits", "larger than 4 GiB"]),
        ),
        // Chosen by its size, and then found by nothing but its path.
        ("{ pick = 'smallest' }", vec![&bare, &sata], Ok(vec![])),
        (
            "{ pick = 'smallest' }",
            vec![&bare, &double],
            Err(vec!["none fits", "no serial and no WWN, and the path of double"]),
        ),
        ("{ serial = 'X' }", vec![&sata], Err(vec!["serial is S, not X"])),
        ("{ model = 'model 16' }", vec![&nvme, &sata], Ok(vec!["S"])),
        ("{ min_gib = 9 }", vec![&nvme, &sata], Ok(vec!["S"])),
        ("{ max_gib = 9 }", vec![&nvme, &sata], Ok(vec!["N"])),
        ("{}", vec![&usb], Err(vec!["only when named by serial"])),
        ("{ pick = 'smallest' }", vec![&usb, &nvme], Ok(vec!["N"])),
        ("{ serial = 'U' }", vec![&usb, &nvme], Ok(vec!["U"])),
        ("{}", vec![&removable], Err(vec!["only when named"])),
        ("{}", vec![&nameless], Err(vec!["could not be told from another"])),
        ("{}", vec![&four_k], Err(vec!["4096"])),
        ("{}", vec![&nvme, &twin], Err(vec!["two paths to one disk"])),
        ("{ max_gib = 9 }", vec![&boot, &data], Ok(vec!["RAID"])),
        ("{ wwn = 'naa.600508b1001c002' }", vec![&boot, &data], Ok(vec!["RAID"])),
        ("{}", vec![&boot, &path], Err(vec!["two paths to one disk"])),
        ("{}", vec![], Err(vec!["no disk that the agent can see"])),
        ("{ mirror = true }", vec![&nvme, &sata], Ok(vec!["N", "S"])),
        (
            "{ mirror = true }",
            vec![&nvme],
            Err(vec!["only one fits", "exactly two"]),
        ),
        ("{ mirror = true }", vec![&nvme, &sata, &hdd], Err(vec!["3 fit"])),
        (
            "{ mirror = true, pick = 'largest' }",
            vec![&nvme, &sata, &hdd],
            Ok(vec!["S", "H"]),
        ),
    ];
    for (intent, disks, wanted) in cases {
        let site = site(&WORKER.replace("os = \"debian-12\"", &format!("os = \"debian-12\"\nroot = {intent}")));
        let facts = facts(vec![node(1, disks.into_iter().cloned().collect())]);
        let plan = all(&site, &facts);
        match wanted {
            Ok(serials) => {
                let write = plan.actions.iter().find_map(|action| match &action.kind {
                    ActionKind::WriteImage { target, .. } => Some(target),
                    _ => None,
                });
                let target = write.unwrap_or_else(|| panic!("{intent}: {:?}", plan.refused));
                let found: Vec<&str> = target
                    .disks()
                    .iter()
                    .filter_map(|disk| disk.serial.as_deref())
                    .collect();
                assert_eq!(found, serials, "{intent}");
                assert_eq!(matches!(target, RootTarget::Mirror(_)), intent.contains("mirror"));
            }
            Err(parts) => {
                let reason = refusal(&plan);
                assert!(parts.iter().all(|part| reason.contains(part)), "{intent}: {reason}");
            }
        }
    }
}

#[test]
fn images_must_be_there_fit_the_disk_and_the_machine() {
    let site = site(WORKER);
    let mut small = one(1);
    small.images.get_mut("debian-12").unwrap().disk_bytes = Some(9 * GIB);
    assert!(refusal(&all(&site, &small)).contains("smaller than the image debian-12, which needs 9.0 GiB"));
    let mut none = one(1);
    let entry = none.images.remove("debian-12").unwrap();
    assert!(refusal(&all(&site, &none)).contains("the catalogue is empty"));
    none.images.insert("debian-13".into(), entry.clone());
    assert!(refusal(&all(&site, &none)).contains("did you mean `debian-13`?"));
    let mut arm = one(1);
    arm.images.get_mut("debian-12").unwrap().arch = "aarch64".into();
    assert!(refusal(&all(&site, &arm)).contains("aarch64"));
}

#[test]
fn a_retired_image_is_installed_by_no_new_plan_and_kept_where_it_is() {
    let site = site(WORKER);
    let mut facts = one(1);
    let made = all(&site, &facts);
    assert!(stale(&made, &site, &facts).is_empty());
    facts.images.insert("debian-13".into(), image("debian-13", 2));
    facts.images.insert("debian-14".into(), image("debian-14", 3));
    facts.retired = [("debian-12".to_owned(), Some("debian-13".to_owned()))].into();
    let plan = all(&site, &facts);
    let reason = refusal(&plan);
    assert!(
        reason.contains("role.worker.os") && reason.contains("os = \"debian-13\""),
        "{reason}"
    );
    assert!(reason.contains("rackbar os retire debian-12 --undo"), "{reason}");
    // Neither does a plan that was made before.
    assert_eq!(stale(&made, &site, &facts), ["the image debian-12 was retired"]);
    facts.retired.insert("debian-12".into(), None);
    facts.retired.insert("debian-14".into(), None);
    let plan = all(&site, &facts);
    let reason = refusal(&plan);
    assert!(
        reason.contains("debian-13") && !reason.contains("debian-14"),
        "{reason}"
    );
    // A machine that has it is as it should be.
    carried_out(&mut facts, &made);
    assert!(all(&site, &facts).refused.is_empty());
}

#[test]
fn addresses_are_given_out_in_order_kept_and_never_twice() {
    let site = site(STATIC);
    let nodes = |numbers: &[u16]| {
        facts(
            numbers
                .iter()
                .map(|n| node(*n, vec![disk("A", 8, DiskBus::Nvme)]))
                .collect(),
        )
    };
    let plan = all(&site, &nodes(&[2, 1]));
    // .51 is the DNS server.
    assert_eq!(setup(&plan, "node-001").networks[0].addresses, ["10.10.0.50/24"]);
    assert_eq!(setup(&plan, "node-002").networks[0].addresses, ["10.10.0.52/24"]);
    let fast = &setup(&plan, "node-001").networks[1];
    assert_eq!(
        (fast.nics.len(), fast.vlan, fast.mtu, fast.addresses.len()),
        (2, Some(20), Some(9000), 0)
    );
    let full = all(&site, &nodes(&[1, 2, 3]));
    assert_eq!(full.refused.len(), 1);
    assert!(
        full.refused[0]
            .reason
            .contains("no address of 10.10.0.50-10.10.0.52 is free")
    );
    // Bound addresses stay when others come and go; what the appliance or a lease has is not given out.
    let mut bound = nodes(&[1, 2]);
    bound.nodes[1]
        .addresses
        .insert("lan".into(), "10.10.0.50".parse().unwrap());
    let plan = all(&site, &bound);
    assert_eq!(setup(&plan, "node-002").networks[0].addresses, ["10.10.0.50/24"]);
    assert_eq!(setup(&plan, "node-001").networks[0].addresses, ["10.10.0.52/24"]);
    let mut taken = nodes(&[1]);
    taken.taken.insert("10.10.0.50".parse::<IpAddr>().unwrap());
    taken.appliance.push("10.10.0.52".parse().unwrap());
    assert!(refusal(&all(&site, &taken)).contains("free"));
    // A second node that claims a bound address does not get it.
    let mut double = nodes(&[1, 2]);
    for node in &mut double.nodes {
        node.addresses.insert("lan".into(), "10.10.0.50".parse().unwrap());
    }
    let plan = all(&site, &double);
    assert_ne!(
        setup(&plan, "node-001").networks[0].addresses,
        setup(&plan, "node-002").networks[0].addresses
    );
}

#[test]
fn addresses_of_external_services_are_given_to_nobody() {
    let first = |services: &str| {
        let text = STATIC.replace("dns = [\"10.10.0.51\"]", services);
        let plan = all(&site(&text), &common::one(1));
        setup(&plan, "node-001").networks[0].addresses[0].clone()
    };
    for (services, wanted) in [
        ("", "10.10.0.50/24"),
        ("dns = [\"10.10.0.50\"]", "10.10.0.51/24"),
        ("ntp = [\"10.10.0.50\", \"ntp.example.org\"]", "10.10.0.51/24"),
        ("syslog = \"10.10.0.50:514\"", "10.10.0.51/24"),
        ("syslog = \"[10.10.0.50]:514\"", "10.10.0.51/24"),
        ("syslog = \"logs.example.org:514\"", "10.10.0.50/24"),
        ("proxy = \"http://10.10.0.50:3128\"", "10.10.0.51/24"),
        ("proxy = \"http://10.10.0.50:3128/\"", "10.10.0.51/24"),
        ("proxy = \"https://10.10.0.50\"", "10.10.0.51/24"),
        ("proxy = \"http://proxy.example.org:3128\"", "10.10.0.50/24"),
        (
            "syslog = \"10.10.0.50:514\"\nproxy = \"http://10.10.0.51:3128\"",
            "10.10.0.52/24",
        ),
    ] {
        assert_eq!(first(services), wanted, "{services}");
    }
    let six = |services: &str| {
        let text = STATIC
            .replace("10.10.0.0/24", "2001:db8::/64")
            .replace("gateway = \"10.10.0.1\"", "")
            .replace("10.10.0.50-10.10.0.52", "2001:db8::50-2001:db8::52")
            .replace("dns = [\"10.10.0.51\"]", services);
        let plan = all(&site(&text), &common::one(1));
        setup(&plan, "node-001").networks[0].addresses[0].clone()
    };
    assert_eq!(six(""), "2001:db8::50/64");
    assert_eq!(six("syslog = \"[2001:db8::50]:514\""), "2001:db8::51/64");
    assert_eq!(six("proxy = \"http://[2001:db8::50]:3128\""), "2001:db8::51/64");
}

#[test]
fn nics_that_do_not_fit_are_refused_with_the_list() {
    for (nics, part) in [
        (
            "nics = ['nic.speed_mbps >= 25000']",
            "2 NICs fit and it is no bond. NICs: nic0 52:54:00:00:01:00",
        ),
        ("nics = ['nic7']", "no NIC fits `nic7`"),
        ("nics = ['boot']\nbond = '802.3ad'", "a bond needs two NICs"),
        ("nics = ['nic.speed_mbps > 999999']", "no NIC fits"),
    ] {
        let text = STATIC.replace("network = \"lan\"", &format!("network = \"lan\"\n{nics}"));
        let reason = all(&site(&text), &one(1))
            .refused
            .first()
            .map(|refusal| refusal.reason.clone());
        let reason = reason.unwrap_or_default();
        assert!(reason.contains(part), "{nics}: {reason}");
    }
    let clash = STATIC
        .replace("nics = [\"nic.speed_mbps >= 25000\"]\nbond = \"802.3ad\"", "")
        .replace("vlan = 20\n", "");
    assert!(refusal(&all(&site(&clash), &one(1))).contains("both use NIC"));
}

#[test]
fn only_the_file_that_the_site_names_is_installed_under_its_name() {
    let facts = one(1);
    let there = facts.images["debian-12"].sha256.to_string();
    let listed = |sha256: &str| {
        let os =
            format!("\n[os.debian-12]\nsha256 = \"{sha256}\"\nsource = \"https://images.example.org/debian-12\"\n");
        site(&format!("{WORKER}{os}"))
    };
    assert!(all(&listed(&there), &facts).refused.is_empty());
    let other = "ab".repeat(32);
    let made = all(&listed(&other), &facts);
    let words = refusal(&made);
    for part in [
        there.as_str(),
        other.as_str(),
        "https://images.example.org/debian-12",
        "rackbar os add",
    ] {
        assert!(words.contains(part), "no {part} in {words}");
    }
    let mut none = one(1);
    none.images.clear();
    let made = all(&listed(&there), &none);
    let words = refusal(&made);
    assert!(
        words.contains("no image debian-12") && words.contains("from https://"),
        "{words}"
    );
}

#[test]
fn a_system_that_moves_to_another_disk_leaves_none_behind_that_could_boot() {
    let mut facts = facts(vec![node(
        1,
        vec![disk("N", 8, DiskBus::Nvme), disk("S", 16, DiskBus::Sata)],
    )]);
    let on =
        |pick: &str| site(&WORKER.replace("[role.worker]", &format!("[role.worker]\nroot = {{ pick = '{pick}' }}")));
    let first = all(&on("smallest"), &facts);
    carried_out(&mut facts, &first);
    let erased = |plan: &rackbar_plan::Plan| -> (Vec<String>, String, String) {
        let action = plan
            .actions
            .iter()
            .find(|action| matches!(action.kind, ActionKind::Erase { .. }))
            .unwrap();
        let ActionKind::Erase { disks, .. } = &action.kind else {
            unreachable!()
        };
        let serials = disks.iter().filter_map(|disk| disk.serial.clone()).collect();
        let changes = action
            .changes
            .iter()
            .map(|change| format!("{}: {}", change.what, change.observed.as_deref().unwrap_or("")));
        (
            serials,
            changes.collect::<Vec<_>>().join("; "),
            action.destroys.clone().unwrap(),
        )
    };
    assert_eq!(erased(&first).0, ["N"]);
    let moved = all(&on("largest"), &facts);
    let (serials, changes, destroys) = erased(&moved);
    assert_eq!(serials, ["S", "N"]);
    assert!(
        destroys.contains("serial S") && destroys.contains("serial N"),
        "{destroys}"
    );
    assert!(
        changes.contains("the system that is on it now: on") && changes.contains("serial N"),
        "{changes}"
    );
    // One that was taken out cannot be emptied, and boots nothing here.
    common::change(&mut facts.nodes[0], |node| {
        let inventory = node.inventory.as_mut().unwrap();
        inventory.disks.retain(|disk| disk.serial.as_deref() != Some("N"));
    });
    assert_eq!(erased(&all(&on("largest"), &facts)).0, ["S"]);
}
