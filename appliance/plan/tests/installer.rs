//! A role whose system is installed by an installer of the catalogue.
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{all, carried_out, disk, facts, ids, installer, node, one, refusal, site};
use rackbar_model::{DiskBus, InstallerDisc, InstallerSystem, NodeState};
use rackbar_plan::{ActionKind, Facts};

const SITE: &str = r#"
version = 1
[network.rack]
subnet = "10.10.0.0/24"
proxy = "http://10.10.0.9:3128"
[role.worker]
os = "debian-12-installer"
[[role.worker.network]]
name = "mgmt"
network = "rack"
nics = ["boot"]
[[rule]]
name = "all"
when = "true"
role = "worker"
hostname = "worker-{{ number }}"
"#;

fn known(mut facts: Facts) -> Facts {
    let entry = installer("debian-12-installer");
    facts.images.insert(entry.name.clone(), entry);
    facts.appliance.push([10, 10, 0, 9].into());
    facts
        .mirrors
        .insert("debian".into(), vec!["http://deb.example.org/debian".into()]);
    facts
}

#[test]
fn an_installer_takes_the_place_of_image_and_identity_and_the_machine_leaves_it_by_itself() {
    let mut facts = known(one(1));
    let plan = all(&site(SITE), &facts);
    let names = ["agent", "disk.erase", "os.install", "os.reachable", "verify"];
    let (first, own) = ids(&plan)
        .split_first()
        .map(|(first, own)| (*first, own.to_vec()))
        .unwrap();
    assert_eq!(
        first, "network.rack/proxy",
        "the mirror it fetches from is proved first"
    );
    assert_eq!(own, names.map(|name| format!("worker-1/{name}")));
    plan.check().unwrap();
    let install = plan
        .actions
        .iter()
        .find(|action| action.kind.name() == "os.install")
        .unwrap();
    assert!(install.reboots && install.destroys.is_some());
    let ActionKind::Installer { image, setup, .. } = &install.kind else {
        panic!("{install:?}")
    };
    assert_eq!(
        (image.as_str(), setup.hostname.as_str()),
        ("debian-12-installer", "worker-1")
    );
    assert_eq!(plan.inputs.images.len(), 1, "a changed entry makes the plan stale");
    // Carried out, there is nothing left to do; with another installer it is installed anew.
    carried_out(&mut facts, &plan);
    for node in &mut facts.nodes {
        common::change(node, |node| node.state = NodeState::Ready);
        common::change(node, |node| node.agent_connected = false);
    }
    assert!(all(&site(SITE), &facts).actions.is_empty());
    let entry = facts.images.get_mut("debian-12-installer").unwrap();
    entry.sha256 = rackbar_model::Digest([0x77; 32]);
    facts.nodes[0].bmc = true;
    assert!(
        all(&site(SITE), &facts)
            .actions
            .iter()
            .any(|action| action.kind.name() == "os.install")
    );
}

#[test]
fn a_disc_with_its_packages_needs_neither_proxy_nor_mirror_and_one_without_needs_both() {
    let without = SITE.replace("proxy = \"http://10.10.0.9:3128\"\n", "");
    let disc = |repositories: &[&str], gib| {
        let mut known = known(facts(vec![node(1, vec![disk("SN1", gib, DiskBus::Sata)])]));
        known.mirrors.clear();
        let entry = known.images.get_mut("debian-12-installer").unwrap();
        let installer = entry.installer.as_mut().unwrap();
        (installer.system, installer.release) = (InstallerSystem::Rocky, "9.4".into());
        let repositories = repositories.iter().map(|name| (*name).to_owned()).collect();
        installer.disc = Some(InstallerDisc { repositories });
        known
    };
    let plan = all(&site(&without), &disc(&["AppStream", "BaseOS"], 20));
    assert!(plan.refused.is_empty(), "{:?}", plan.refused);
    assert!(plan.actions.iter().any(|action| action.kind.name() == "os.install"));
    let refused = refusal(&all(&site(&without), &disc(&[], 20))).to_owned();
    assert!(refused.contains("proxy = \"own\""), "{refused}");
    let refused = refusal(&all(&site(SITE), &disc(&[], 20))).to_owned();
    assert!(refused.contains("[[proxy.mirror]] called rocky"), "{refused}");
    // Anaconda's partitions need more than Debian's.
    let refused = refusal(&all(&site(&without), &disc(&["BaseOS"], 9))).to_owned();
    assert!(refused.contains("smaller"), "{refused}");
}

#[test]
fn an_installer_without_a_way_to_its_archive_or_on_a_small_disk_is_refused_in_words() {
    let without = SITE.replace("proxy = \"http://10.10.0.9:3128\"\n", "");
    let refused = refusal(&all(&site(&without), &known(one(1)))).to_owned();
    assert!(refused.contains("proxy = \"own\""), "{refused}");
    let elsewhere = SITE.replace("10.10.0.9:3128", "10.10.0.8:3128");
    let plan = all(&site(&elsewhere), &known(one(1)));
    assert!(plan.refused.is_empty(), "a proxy of others leads to the archive itself");
    let mut bare = known(one(1));
    bare.mirrors.clear();
    let refused = refusal(&all(&site(SITE), &bare)).to_owned();
    assert!(refused.contains("[[proxy.mirror]] called debian"), "{refused}");
    let mut offline = known(one(1));
    let installer = offline.images.values().find(|image| image.installer.is_some()).unwrap();
    let missing = "its index is not here".to_owned();
    offline.out_of_reach.insert(installer.name.clone(), missing);
    let refused = refusal(&all(&site(SITE), &offline)).to_owned();
    assert!(refused.contains("proxy is offline: its index is not here"), "{refused}");
    let small = node(1, vec![disk("SN1", 2, DiskBus::Sata)]);
    let refused = refusal(&all(&site(SITE), &known(facts(vec![small])))).to_owned();
    assert!(refused.contains("smaller"), "{refused}");
}

#[test]
fn an_address_that_an_installer_gives_is_nobody_elses() {
    let text = SITE.replace("proxy =", "addresses = \"10.10.0.50-10.10.0.60\"\nproxy =");
    let facts = known(one(1));
    let plan = all(&site(&text), &facts);
    let mut leased = facts;
    leased.taken.insert([10, 10, 0, 50].into());
    let changed = rackbar_plan::stale(&plan, &site(&text), &leased);
    let taken = "address 10.10.0.50, meant for worker-1, is taken by now";
    assert!(changed.iter().any(|words| words.contains(taken)), "{changed:?}");
}
