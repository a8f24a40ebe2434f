//! BMCs that are set up from inside: what the planner wants of them, and why.
#![allow(missing_docs, reason = "a test")]

mod common;

use common::*;
use rackbar_model::{BmcInfo, DiskBus};
use rackbar_plan::{Action, ActionKind, Facts, Layer, NodeFacts, Scope, Site, Target, stale};

/// A role in memory whose BMC is to have a static address in a VLAN and an account of ours.
const SITE: &str = r##"
version = 1
[network.bmc]
subnet = "10.9.0.0/24"
gateway = "10.9.0.1"
vlan = 300
addresses = "10.9.0.20-10.9.0.21"
[role.tested]
memory = "agent"
bmc = { network = "bmc", account = "rackbar" }
[[rule]]
name = "all"
when = "true"
role = "tested"
"##;

/// A machine whose BMC is as it left the factory: an address by DHCP, and nobody knows its password.
fn new(number: u16) -> NodeFacts {
    let mut facts = node(number, vec![disk("A", 8, DiskBus::Nvme)]);
    facts.bmc = false;
    has(&mut facts, |bmc| {
        bmc.address = Some([10, 9, 0, 99].into());
        bmc.prefix = Some(24);
        bmc.dhcp = Some(true);
    });
    facts
}

fn has(facts: &mut NodeFacts, with: impl FnOnce(&mut BmcInfo)) {
    change(facts, |node| {
        let inventory = node.inventory.as_mut().expect("an inventory");
        with(inventory.bmc.get_or_insert_default());
    });
}

fn set_up(site: &Site, facts: &Facts) -> Option<Action> {
    let is = |action: &&Action| matches!(action.kind, ActionKind::BmcSetUp { .. });
    all(site, facts).actions.iter().find(is).cloned()
}

/// Each change as one line.
fn lines(action: &Action) -> Vec<String> {
    let line = |change: &rackbar_plan::Change| {
        let observed = change.observed.as_deref().unwrap_or("-");
        format!("{}: {observed} -> {}", change.what, change.wanted)
    };
    action.changes.iter().map(line).collect()
}

#[test]
fn a_bmc_as_it_left_the_factory_is_set_up_from_inside_and_then_left_alone() {
    let (site, mut facts) = (site(SITE), facts(vec![new(1)]));
    let plan = all(&site, &facts);
    assert_eq!(
        ids(&plan),
        [
            "node-001/agent",
            "node-001/bmc.setup",
            "node-001/memory",
            "node-001/verify"
        ]
    );
    let action = set_up(&site, &facts).expect("it is planned");
    assert_eq!((action.layer, &action.target), (Layer::Firmware, &Target::Bmc(id(1))));
    assert_eq!(
        lines(&action),
        [
            "BMC address: 10.9.0.99/24 by DHCP -> 10.9.0.20/24, gateway 10.9.0.1",
            "BMC VLAN: untagged -> 300",
            "BMC account: none of ours -> rackbar, with a password of this machine's own",
        ]
    );
    assert!(
        action
            .reason
            .starts_with("role tested: BMC address is to be 10.9.0.20/24, gateway 10.9.0.1 and is")
    );
    assert!(action.destroys.is_none() && !action.reboots);
    carried_out(&mut facts, &plan);
    assert!(all(&site, &facts).actions.is_empty());
    assert!(
        !stale(&plan, &site, &facts).is_empty(),
        "what it was planned for is done"
    );
}

#[test]
fn only_what_differs_is_a_reason() {
    let site = site(SITE);
    let mut ours = new(1);
    (ours.bmc, ours.bmc_account) = (true, Some("rackbar".into()));
    has(&mut ours, |bmc| {
        (bmc.address, bmc.gateway) = (Some([10, 9, 0, 21].into()), Some([10, 9, 0, 1].into()));
        (bmc.dhcp, bmc.vlan) = (Some(false), None);
    });
    // It keeps the static address that it has, although a lower one is free.
    let action = set_up(&site, &facts(vec![ours.clone()])).expect("its VLAN differs");
    assert_eq!(lines(&action), ["BMC VLAN: untagged -> 300"]);
    has(&mut ours, |bmc| bmc.vlan = Some(300));
    assert!(set_up(&site, &facts(vec![ours.clone()])).is_none());
    // A BMC that was reset takes our account no more; where our agent runs it is made anew.
    ours.bmc = false;
    let action = set_up(&site, &facts(vec![ours.clone()])).expect("nothing opens it");
    assert_eq!(lines(&action).len(), 1);
    change(&mut ours, |node| node.agent_connected = false);
    assert!(
        set_up(&site, &facts(vec![ours])).is_none(),
        "silence alone restarts no machine"
    );
}

#[test]
fn it_comes_before_what_needs_a_bmc_that_answers() {
    let text = SITE.replace(
        "memory = \"agent\"",
        "memory = \"agent\"\nrotate_bmc_password = true\nbios = { X = \"1\" }",
    );
    let plan = all(&site(&text), &facts(vec![new(1)]));
    assert_eq!(
        ids(&plan)[..5],
        ["agent", "bmc.setup", "bios.settings", "agent.restart", "bios.verify"].map(|name| format!("node-001/{name}")),
        "an account of ours has a password of its own from the start"
    );
    let without = text.replace(", account = \"rackbar\"", "");
    assert!(refusal(&all(&site(&without), &facts(vec![new(1)]))).contains("its BMC does not answer"));
}

#[test]
fn what_cannot_be_set_up_is_refused_in_words() {
    let site = site(SITE);
    let mut none = new(1);
    change(&mut none, |node| node.inventory.as_mut().expect("one").bmc = None);
    assert!(refusal(&all(&site, &facts(vec![none]))).contains("shows no BMC"));
    // Two addresses for three machines, and the appliance's own is not given away.
    let plan = all(&site, &facts((1..=3).map(new).collect()));
    assert!(
        plan.refused.len() == 1
            && plan.refused[0]
                .reason
                .contains("no address of 10.9.0.20-10.9.0.21 is free")
    );
    let mut scarce = facts(vec![new(1)]);
    scarce.appliance = vec![[10, 9, 0, 20].into()];
    let scope = Scope::default();
    let plan = rackbar_plan::plan(&site, &scarce, &scope, rackbar_model::Timestamp(1));
    scarce.taken.insert([10, 9, 0, 21].into());
    let why = stale(&plan, &site, &scarce);
    assert!(
        why.iter()
            .any(|why| why.contains("10.9.0.21, meant for the BMC of node-001, is taken")),
        "{why:?}"
    );
}

#[test]
fn an_installed_machine_is_fetched_into_our_agent_for_it_and_sent_back() {
    let (site, mut facts) = (site(WORKER), one(1));
    has(&mut facts.nodes[0], |bmc| bmc.dhcp = Some(true));
    let plan = all(&site, &facts);
    carried_out(&mut facts, &plan);
    let text = WORKER.replace("os = ", "bmc = { account = \"rackbar\" }\nos = ");
    let plan = all(&common::site(&text), &facts);
    let wanted = ["agent", "bmc.setup", "boot.order", "restart", "os.reachable", "verify"];
    assert_eq!(ids(&plan), wanted.map(|name| format!("node-001/{name}")));
}

#[test]
fn a_site_file_says_only_what_a_bmc_can_be() {
    let problems = |text: &str| {
        let problems = Site::parse(text).expect_err("a problem");
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let wrong = problems(&SITE.replace("network = \"bmc\"", "network = \"bmcs\""));
    assert!(wrong.contains("there is no network `bmcs`"), "{wrong}");
    let wrong = problems(&SITE.replace("\"rackbar\"", "\"a-name-of-17-char\""));
    assert!(wrong.contains("more than 16"), "{wrong}");
    let wrong = problems(
        &SITE
            .replace("10.9.0.0/24", "fd00::/64")
            .replace("10.9.0.20-10.9.0.21", "dhcp")
            .replace("gateway = \"10.9.0.1\"", ""),
    );
    assert!(wrong.contains("IPv4 only"), "{wrong}");
}
