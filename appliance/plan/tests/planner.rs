//! What plans look like, node by node.
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{STATIC, WORKER, all, carried_out, change, disk, facts, id, ids, image, node, one, refusal, setup, site};
use rackbar_model::{DiskBus, DiskIntent, NodeState, Timestamp};
use rackbar_plan::ActionKind;
use rackbar_plan::planner::{INSTALL_ROLE, install};
use rackbar_plan::{Facts, Layer, Scope, Site, plan, stale};

#[test]
fn a_discovered_node_goes_the_whole_way() {
    let text = r##"
version = 1
[role.worker]
os = "debian-12"
rotate_bmc_password = true
burn_in = { cpu_seconds = 60 }
[role.worker.bios]
ProcVirtualization = "Enabled"
Threads = 2
[[role.worker.step]]
name = "a"
script = "#!/bin/sh"
[[role.worker.step]]
name = "b"
script = "#!/bin/sh"
needs = []
[[rule]]
name = "all"
when = "true"
role = "worker"
hostname = "worker-{{ number }}"
"##;
    let plan = all(&site(text), &one(1));
    let names = [
        "bmc.password",
        "bios.settings",
        "agent.restart",
        "bios.verify",
        "burn-in",
        "disk.erase",
        "os.write",
        "os.setup",
        "boot.order",
        "restart",
        "os.reachable",
        "step.a",
        "step.b",
        "verify",
    ];
    assert_eq!(ids(&plan), names.map(|name| format!("worker-1/{name}")));
    let unnamed = plan.actions.iter().map(|action| action.kind.name());
    let unnamed: Vec<_> = unnamed.filter(|name| !ActionKind::NAMES.contains(name)).collect();
    assert!(unnamed.is_empty(), "no limit can be set for {unnamed:?}");
    let action = |name: &str| {
        plan.actions
            .iter()
            .find(|a| a.id.0 == format!("worker-1/{name}"))
            .unwrap()
    };
    assert_eq!(action("step.a").needs, action("step.b").needs);
    assert_eq!(action("verify").needs.len(), 2);
    let destroys = action("disk.erase").destroys.as_deref().unwrap();
    for part in ["nvme", "MODEL 8G", "serial A", "8.0 GiB"] {
        assert!(destroys.contains(part), "{destroys}");
    }
    assert_eq!(action("bios.settings").changes[1].wanted, "2");
    assert_eq!(action("bios.settings").layer, Layer::Firmware);
    assert_eq!(setup(&plan, "worker-1").user, "debian");
    assert_eq!(setup(&plan, "worker-1").machine_id.len(), 32);
    assert_eq!(plan.destructive().len(), 1);
    assert!(plan.critical_seconds() > 60);
}

#[test]
fn a_machine_that_boots_the_network_first_is_put_right_and_keeps_its_system() {
    let site = site(WORKER);
    let mut facts = one(1);
    let first = all(&site, &facts);
    carried_out(&mut facts, &first);
    let order = "Boot0002 \"UEFI PXEv4\", the network";
    facts.nodes[0].wrong_boot_order = Some(order.into());
    change(&mut facts.nodes[0], |node| node.state = NodeState::Discovered);
    let plan = all(&site, &facts);
    let wanted = ["agent", "boot.order", "restart", "os.reachable", "verify"];
    assert_eq!(ids(&plan), wanted.map(|name| format!("node-001/{name}")));
    assert!(plan.destructive().is_empty());
    let change = &plan.actions[1].changes[0];
    assert_eq!(change.observed.as_deref(), Some(order));
    // Nobody can bring the agent: that is said, not left out.
    facts.nodes[0].bmc = false;
    assert!(refusal(&all(&site, &facts)).contains("no BMC to restart it"));
}

#[test]
fn passwords_are_changed_again_when_that_is_asked_for() {
    let site = site(WORKER);
    let mut facts = one(1);
    let first = all(&site, &facts);
    carried_out(&mut facts, &first);
    facts.nodes[0].password_rotated = true;
    let scope = Scope {
        rotate_passwords: true,
        ..Scope::default()
    };
    let again = plan(&site, &facts, &scope, Timestamp(1));
    let wanted = ["bmc.password", "os.reachable", "verify"];
    assert_eq!(ids(&again), wanted.map(|name| format!("node-001/{name}")));
    assert_eq!(again.actions[0].changes[0].wanted, "a new one");
    assert!(again.destructive().is_empty());
    assert!(all(&site, &facts).is_empty(), "nobody asked");
    facts.nodes[0].bmc = false;
    let refused = plan(&site, &facts, &scope, Timestamp(1));
    assert!(refusal(&refused).contains("its BMC does not answer"));
}

#[test]
fn an_installed_node_that_is_as_wanted_is_left_alone_and_only_what_changes_is_planned() {
    let text = WORKER.replace(
        "[[rule]]",
        "[[role.worker.step]]\nname = \"a\"\nscript = \"#!/bin/sh\"\n[[rule]]",
    );
    let mut facts = one(1);
    let first = all(&site(&text), &facts);
    carried_out(&mut facts, &first);
    let again = all(&site(&text), &facts);
    assert!(again.is_empty(), "{:?}", ids(&again));
    assert_eq!(again.unchanged, [id(1)]);

    // One more step: only that, and the checks.
    let more = text.replace(
        "[[rule]]",
        "[[role.worker.step]]\nname = \"b\"\nscript = \"#!/bin/sh\"\n[[rule]]",
    );
    let plan_more = all(&site(&more), &facts);
    assert_eq!(
        ids(&plan_more),
        ["node-001/os.reachable", "node-001/step.b", "node-001/verify"]
    );
    // Other firmware settings: a restart, nothing destroyed.
    let bios = text.replace("os = \"debian-12\"", "os = \"debian-12\"\nbios = { A = \"1\" }");
    let plan_bios = all(&site(&bios), &facts);
    assert_eq!(plan_bios.actions.len(), 7, "{:?}", ids(&plan_bios));
    assert!(plan_bios.destructive().is_empty());
    // Another identity: not changed behind one's back.
    let keys = text.replace("version = 1", &format!("version = 1\nssh_keys = [\"{}\"]", common::KEY));
    assert!(refusal(&all(&site(&keys), &facts)).contains("account and SSH keys"));
    let scope = Scope {
        reinstall: true,
        ..Scope::default()
    };
    let anew = plan(&site(&keys), &facts, &scope, Timestamp(1));
    assert_eq!(anew.destructive().len(), 1);
    assert_ne!(
        setup(&anew, "node-001").machine_id,
        setup(&first, "node-001").machine_id
    );
    // A new version of the image.
    facts.images.insert("debian-12".into(), image("debian-12", 2));
    let upgraded = all(&site(&text), &facts);
    assert!(
        upgraded
            .actions
            .iter()
            .any(|a| a.reason.contains("another version of the debian-12")),
        "{upgraded:?}"
    );
    // It failed its checks: they are run again, the system stays.
    facts.images.insert("debian-12".into(), image("debian-12", 1));
    change(&mut facts.nodes[0], |node| node.state = NodeState::Discovered);
    assert_eq!(
        ids(&all(&site(&text), &facts)),
        ["node-001/os.reachable", "node-001/verify"]
    );
    // It was brought back into our agent: it goes back to its disk.
    change(&mut facts.nodes[0], |node| node.agent_connected = true);
    let back = all(&site(&text), &facts);
    assert_eq!(
        ids(&back),
        ["boot.order", "restart", "os.reachable", "verify"].map(|n| format!("node-001/{n}"))
    );
    assert!(back.destructive().is_empty());
}

#[test]
fn nodes_without_a_role_and_hands_off_nodes_are_left_out_with_the_reason() {
    let text = WORKER.replace("\"true\"", "\"number == 1\"");
    let mut facts = facts((1..=4).map(|n| node(n, vec![disk("A", 8, DiskBus::Nvme)])).collect());
    change(&mut facts.nodes[2], |node| node.state = NodeState::Maintenance);
    change(&mut facts.nodes[3], |node| node.state = NodeState::HandedOver);
    let plan = all(&site(&text), &facts);
    assert_eq!(plan.by_node().len(), 1);
    let reasons: Vec<&str> = plan.left_out.iter().map(|left| left.reason.as_str()).collect();
    assert_eq!(reasons.len(), 3);
    assert!(reasons[0].contains("no role is bound"));
    assert!(reasons[1].contains("maintenance"));
    assert!(reasons[2].contains("another owner"));
    assert!(plan.refused.is_empty());
    facts.nodes[1].role = Some("worker".into());
    assert_eq!(all(&site(&text), &facts).by_node().len(), 2);
    facts.nodes[1].role = Some("wroker".into());
    assert!(
        all(&site(&text), &facts).refused[0]
            .reason
            .contains("did you mean `worker`?")
    );
}

/// Ceph: disks come after the monitors, which come up one by one so that there is always a quorum.
#[test]
fn osd_nodes_wait_until_every_monitor_is_ready() {
    let text = r##"
version = 1
[role.monitor]
os = "debian-12"
batch = 1
[role.osd]
os = "debian-12"
after = ["monitor"]
[[rule]]
name = "monitors"
when = "number <= 3"
role = "monitor"
[[rule]]
name = "disks"
when = "true"
role = "osd"
[handoff.role.monitor]
ceph = ["mon", "mgr"]
[handoff.role.osd]
ceph = ["osd"]
"##;
    let facts = facts((1..=5).map(|n| node(n, vec![disk("A", 8, DiskBus::Nvme)])).collect());
    let plan = all(&site(text), &facts);
    let needs = |name: &str| -> Vec<&str> {
        let action = plan
            .actions
            .iter()
            .find(|action| action.id.0.starts_with(name))
            .unwrap();
        action.needs.iter().map(|id| id.0.as_str()).collect()
    };
    let monitors = ["node-001/verify", "node-002/verify", "node-003/verify"];
    assert_eq!(needs("role.osd/barrier"), monitors);
    for osd in ["node-004/", "node-005/"] {
        assert!(needs(osd).contains(&"role.osd/barrier"), "{osd}: {:?}", needs(osd));
    }
    assert_eq!(needs("node-002/"), ["node-001/verify"]);
    assert_eq!(needs("node-003/"), ["node-002/verify"]);
}

#[test]
fn batches_roll_and_roles_wait_behind_a_barrier() {
    let text = r##"
version = 1
[role.db]
os = "debian-12"
batch = 2
[role.app]
os = "debian-12"
after = ["db"]
[[rule]]
name = "db"
when = "number <= 5"
role = "db"
[[rule]]
name = "app"
when = "true"
role = "app"
"##;
    let site = site(text);
    let mut facts = facts((1..=7).map(|n| node(n, vec![disk("A", 8, DiskBus::Nvme)])).collect());
    let plan = all(&site, &facts);
    let first = |name: &str| &plan.actions.iter().find(|a| a.id.0.starts_with(name)).unwrap().needs;
    assert!(first("node-001/").is_empty());
    assert_eq!(first("node-003/")[0].0, "node-001/verify");
    assert_eq!(first("node-005/")[0].0, "node-003/verify");
    assert_eq!(first("node-006/")[0].0, "role.app/barrier");
    assert_eq!(first("role.app/barrier").len(), 5);
    // What cannot be reached is not waited for.
    change(&mut facts.nodes[4], |node| {
        node.inventory.as_mut().unwrap().disks.clear()
    });
    let plan = all(&site, &facts);
    assert_eq!(plan.refused.len(), 3);
    assert!(
        plan.refused[1]
            .reason
            .contains("comes after role db, and there node-005 is refused")
    );
}

#[test]
fn names_are_unique_or_refused() {
    let text = WORKER.to_owned() + "hostname = \"same\"\n";
    let two = facts((1..=2).map(|n| node(n, vec![disk("A", 8, DiskBus::Nvme)])).collect());
    let plan = all(&site(&text), &two);
    assert!(plan.actions.is_empty());
    assert_eq!(plan.refused.len(), 2);
    // Nor is a name taken that a node outside of the scope has.
    let text = WORKER.to_owned() + "hostname = \"node-002\"\n";
    let scope = Scope {
        nodes: Some(vec![id(1)]),
        reinstall: false,
        ..Scope::default()
    };
    let scoped = rackbar_plan::plan(&site(&text), &two, &scope, Timestamp(1));
    assert!(scoped.refused[0].reason.contains("make the host name template"));
    // DNS does not tell `Node-002` and `node-002` apart, nor does anybody who looks for one of them there.
    let mut named = two.clone();
    change(&mut named.nodes[1], |node| node.name = "Node-002".into());
    let scoped = rackbar_plan::plan(&site(&text), &named, &scope, Timestamp(1));
    assert!(scoped.refused[0].reason.contains("make the host name template"));
    let text =
        WORKER.to_owned() + "hostname = \"web-1\"\n[[machine]]\nname = \"Web-1\"\nmac = \"MAC\"\nrole = \"worker\"\n";
    let mac = two.nodes[0].node.inventory.as_ref().unwrap().nics[0].mac;
    let plan = all(&site(&text.replace("MAC", &mac.to_string())), &two);
    assert!(plan.actions.is_empty(), "{:?}", ids(&plan));
    for refused in &plan.refused {
        assert!(refused.reason.contains("1 other nodes"), "{}", refused.reason);
    }
    let none = WORKER.to_owned() + "hostname = \"srv-{{ tpm }}\"\n";
    assert!(
        all(&site(&none), &one(1)).refused[0]
            .reason
            .contains("does not have the value")
    );
}

#[test]
fn memory_roles_touch_no_disk() {
    let text = WORKER.replace("os = \"debian-12\"", "memory = \"rescue\"");
    let mut facts = one(1);
    let plan = all(&site(&text), &facts);
    assert_eq!(ids(&plan), ["node-001/agent", "node-001/memory", "node-001/verify"]);
    assert!(plan.destructive().is_empty());
    carried_out(&mut facts, &plan);
    assert_eq!(all(&site(&text), &facts).unchanged, [id(1)]);
}

/// An installed machine as people see it, which is where the account of its system stands.
fn shown(user: &str) -> rackbar_model::Installed {
    rackbar_model::Installed {
        image: "debian-12".into(),
        sha256: rackbar_model::Digest([1; 32]),
        target: rackbar_model::RootTarget::Disk(rackbar_model::DiskRef::default()),
        hostname: "node-001".into(),
        user: user.into(),
        host_key: "ssh-ed25519 AAAA".into(),
        proved: true,
        at: Timestamp(100),
        run: 1,
    }
}

#[test]
fn keys_client_settings_time_zone_and_files_are_changed_in_place_and_nothing_else_is() {
    let with = |more: &str| {
        format!(
            "{}{more}",
            WORKER.replace("os = \"debian-12\"", "os = \"debian-12\"\nrepositories = []")
        )
    };
    let file = |path: &str| format!("[[role.worker.file]]\npath = \"{path}\"\ncontent = \"x\"\n");
    let before = with(&file("/etc/old"));
    let mut facts = one(1);
    let first = all(&site(&before), &facts);
    carried_out(&mut facts, &first);
    change(&mut facts.nodes[0], |node| node.installed = Some(shown("debian")));
    let after = with(&file("/etc/new")).replace(
        "repositories = []",
        &format!("timezone = \"Europe/Berlin\"\nssh_keys = [\"{}\"]", common::KEY),
    );
    let plan = all(&site(&after), &facts);
    assert_eq!(
        ids(&plan),
        ["agent", "os.setup", "boot.order", "restart", "os.reachable", "verify"].map(|name| format!("node-001/{name}"))
    );
    assert!(plan.destructive().is_empty());
    let action = &plan.actions[1];
    let ActionKind::Setup {
        setup,
        enrol,
        again: Some(again),
        ..
    } = &action.kind
    else {
        panic!("{action:?}")
    };
    assert_eq!(again.gone, ["/etc/old"]);
    assert!(
        setup.machine_id.is_empty() && enrol.is_empty(),
        "host key, machine ID and enrolments stay"
    );
    let changed: Vec<&str> = action.changes.iter().map(|change| change.what.as_str()).collect();
    assert_eq!(changed, ["account and SSH keys", "files", "time zone", "/etc/old"]);
    carried_out(&mut facts, &plan);
    assert!(all(&site(&after), &facts).is_empty());
    // A machine that runs its system is fetched into the agent.
    let mut away = facts.clone();
    change(&mut away.nodes[0], |node| node.agent_connected = false);
    let plan = all(&site(&after.replace("Europe/Berlin", "Europe/Rome")), &away);
    assert_eq!(ids(&plan)[0], "node-001/agent", "{:?}", ids(&plan));
    away.nodes[0].bmc = false;
    let refused = refusal(&all(&site(&after.replace("Europe/Berlin", "Europe/Rome")), &away)).to_owned();
    assert!(refused.contains("no BMC to restart it"), "{refused}");
    // Another account keeps what it has, and another name is another machine to everybody else.
    for other in [
        after.replace("timezone =", "user = \"anna\"\ntimezone ="),
        after.replace("role = \"worker\"", "role = \"worker\"\nhostname = \"other\""),
    ] {
        let refused = refusal(&all(&site(&other), &facts)).to_owned();
        assert!(refused.contains("--reinstall"), "{refused}");
    }
}

#[test]
fn packages_of_a_role_come_before_its_steps_and_again_when_their_list_changes() {
    let text = WORKER
        .replace(
            "os = \"debian-12\"",
            "os = \"debian-12\"\npackages = [\"nginx\", \"chrony\"]",
        )
        .replace(
            "[[rule]]",
            "[[role.worker.step]]\nname = \"a\"\nscript = \"#!/bin/sh\"\n[[role.worker.step]]\nname = \"b\"\n\
         script = \"#!/bin/sh\"\nneeds = []\n[[rule]]",
        );
    let mut facts = one(1);
    let first = all(&site(&text), &facts);
    let action = |name: &str| {
        first
            .actions
            .iter()
            .find(|one| one.id.0 == format!("node-001/{name}"))
            .unwrap()
    };
    let packages = action("step.packages");
    let ActionKind::Step(step) = &packages.kind else {
        panic!("{packages:?}")
    };
    assert!(
        step.script.contains("\nset -- nginx chrony\n") && step.user == "debian",
        "{step:?}"
    );
    assert_eq!((packages.limits.seconds, packages.limits.tries), (1800, 3));
    assert!(
        packages.reason.contains("packages of the role: nginx, chrony"),
        "{}",
        packages.reason
    );
    for step in ["step.a", "step.b"] {
        assert!(action(step).needs.contains(&packages.id), "{step}");
    }
    carried_out(&mut facts, &first);
    assert!(all(&site(&text), &facts).is_empty());
    let more = all(&site(&text.replace("\"chrony\"", "\"chrony\", \"jq\"")), &facts);
    assert_eq!(
        ids(&more),
        ["node-001/os.reachable", "node-001/step.packages", "node-001/verify"]
    );
    // Without packages a step of that name is the user's own.
    let own = text
        .replace("packages = [\"nginx\", \"chrony\"]", "")
        .replace("name = \"a\"", "name = \"packages\"");
    let plan = all(&site(&own), &one(1));
    let of = |name: &str| {
        plan.actions
            .iter()
            .find(|one| one.id.0 == format!("node-001/{name}"))
            .unwrap()
    };
    assert!(
        !of("step.b").needs.contains(&of("step.packages").id),
        "it needs nothing"
    );
}

#[test]
fn rescue_steps_run_in_the_installed_system_and_once_as_they_are_written() {
    let mut facts = one(1);
    let step = "[[role.worker.step]]\nname = \"mend\"\nscript = \"#!/bin/sh\\nexit 0\"\ntimeout = 77\n[[rule]]";
    let text = WORKER
        .replace("os = \"debian-12\"", "memory = \"rescue\"")
        .replace("[[rule]]", step);
    assert!(refusal(&all(&site(&text), &facts)).contains("none is known on this node"));
    let plan = all(&site(WORKER), &facts);
    carried_out(&mut facts, &plan);
    let target = facts.nodes[0].installed.as_ref().unwrap().target.clone();
    let plan = all(&site(&text), &facts);
    assert_eq!(
        ids(&plan),
        [
            "node-001/agent",
            "node-001/memory",
            "node-001/rescue.mend",
            "node-001/verify"
        ]
    );
    assert!(plan.destructive().is_empty());
    let mend = plan.actions.iter().find(|action| action.id.0.ends_with("rescue.mend"));
    let mend = mend.unwrap();
    assert!(matches!(&mend.kind, ActionKind::Rescue { target: at, .. } if *at == target));
    assert_eq!((mend.limits.seconds, mend.limits.tries), (77, 1));
    carried_out(&mut facts, &plan);
    change(&mut facts.nodes[0], |node| node.agent_connected = true);
    assert_eq!(all(&site(&text), &facts).unchanged, [id(1)]);
    let changed = all(&site(&text.replace("exit 0", "exit 1")), &facts);
    assert!(ids(&changed).contains(&"node-001/rescue.mend"), "{:?}", ids(&changed));
    // The system it was mended in is as it was: going back is no install.
    let back = all(&site(WORKER), &facts);
    assert!(
        back.destructive().is_empty() && ids(&back).contains(&"node-001/restart"),
        "{:?}",
        ids(&back)
    );
}

#[test]
fn what_is_needed_to_act_must_be_there() {
    let bios = WORKER.replace("os = \"debian-12\"", "os = \"debian-12\"\nbios = { A = \"1\" }");
    let mut facts = one(1);
    facts.nodes[0].bmc = false;
    assert!(refusal(&all(&site(&bios), &facts)).contains("BMC does not answer"));
    assert!(!all(&site(WORKER), &facts).is_empty());
    change(&mut facts.nodes[0], |node| node.agent_connected = false);
    assert!(refusal(&all(&site(WORKER), &facts)).contains("no BMC to restart it"));
    change(&mut facts.nodes[0], |node| node.inventory = None);
    assert!(refusal(&all(&site(WORKER), &facts)).contains("not been inspected"));
    let machine =
        "[[machine]]\nname = \"m\"\nserial = \"SN00001\"\nrole = \"worker\"\nexpect = { memory_gib = 64, disks = 2 }\n";
    let plan = all(&site(&format!("{WORKER}{machine}")), &one(1));
    assert!(refusal(&plan).contains("64 GiB of memory expected, 16 found; 2 disks expected, 1 found"));
}

#[test]
fn a_stale_plan_says_what_changed() {
    let (site, mut facts) = (site(STATIC), one(1));
    facts.nodes[0].bmc = true;
    let plan = all(&site, &facts);
    assert!(stale(&plan, &site, &facts).is_empty());
    // The agent's connection, temperatures and link speeds come and go.
    change(&mut facts.nodes[0], |node| node.agent_connected = false);
    change(&mut facts.nodes[0], |node| {
        node.inventory.as_mut().unwrap().nics[0].speed_mbps = None
    });
    assert!(stale(&plan, &site, &facts).is_empty());
    let says = |site: &Site, facts: &Facts, part: &str| {
        let words = stale(&plan, site, facts);
        assert!(words.iter().any(|line| line.contains(part)), "{part}: {words:?}");
    };
    says(&common::site(WORKER), &facts, "the site file in force is another");
    let mut other = facts.clone();
    other.images.insert("debian-12".into(), image("debian-12", 2));
    says(&site, &other, "the image debian-12 is another now");
    other.images.clear();
    says(&site, &other, "no longer in the catalogue");
    let mut swapped = facts.clone();
    change(&mut swapped.nodes[0], |node| {
        node.inventory.as_mut().unwrap().disks = vec![disk("B", 8, DiskBus::Sata)]
    });
    says(
        &site,
        &swapped,
        "disk.erase would do something else now: sata disk MODEL 8G, serial B",
    );
    let mut away = facts.clone();
    change(&mut away.nodes[0], |node| node.state = NodeState::Maintenance);
    says(&site, &away, "in maintenance");
    let mut gone = facts.clone();
    gone.nodes.clear();
    says(&site, &gone, "node node-001 is no longer known");
    let mut leased = facts.clone();
    leased.taken.insert("10.10.0.50".parse().unwrap());
    says(
        &site,
        &leased,
        "address 10.10.0.50, meant for node-001, is taken by now",
    );
    let mut done = facts.clone();
    carried_out(&mut done, &plan);
    says(&site, &done, "as wanted by now");
}

#[test]
fn simple_mode_needs_no_site_file_and_touches_only_what_is_named() {
    let mut facts = facts((1..=2).map(|n| node(n, vec![disk("A", 8, DiskBus::Nvme)])).collect());
    facts.nodes[0].role = Some(INSTALL_ROLE.into());
    let simple = install(None, "debian-12", DiskIntent::default(), vec![common::KEY.into()]);
    let plan = all(&simple, &facts);
    assert_eq!(plan.by_node().len(), 1);
    assert_eq!(plan.left_out.len(), 1);
    assert_eq!(setup(&plan, "node-001").ssh_keys, [common::KEY]);
    // Without a network of the site it asks for an address where it booted from.
    let networks = &setup(&plan, "node-001").networks;
    assert_eq!(networks.len(), 1, "{networks:?}");
    assert!(
        networks[0].addresses.is_empty() && networks[0].nics.len() == 1,
        "{networks:?}"
    );
    // The networks of the site in force are kept, its rules are not.
    let base = site(
        STATIC
            .replace("[network.fast]\nsubnet = \"10.20.0.0/24\"\nvlan = 20\nmtu = 9000\n", "")
            .split("[role.worker]")
            .next()
            .unwrap(),
    );
    let plan = all(
        &install(Some(&base), "debian-12", DiskIntent::default(), Vec::new()),
        &facts,
    );
    assert_eq!(setup(&plan, "node-001").networks[0].addresses, ["10.10.0.50/24"]);
}

#[test]
fn a_role_that_names_no_network_asks_for_an_address_where_its_machine_booted() {
    let site = site(
        "version = 1\n[role.worker]\nos = \"debian-12\"\n[[rule]]\nname = \"all\"\nwhen = \"true\"\nrole = \"worker\"\n",
    );
    let mut facts = facts(vec![node(1, vec![disk("A", 8, DiskBus::Nvme)])]);
    facts.nodes[0].role = Some("worker".into());
    let plan = all(&site, &facts);
    let networks = &setup(&plan, "node-001").networks;
    assert_eq!(networks.len(), 1, "{networks:?}");
    let boot = facts.nodes[0].node.inventory.as_ref().unwrap().boot.mac.unwrap();
    assert_eq!((networks[0].addresses.len(), &networks[0].nics), (0, &vec![boot]));
}

/// The rack of `tests/racks/demo.toml` with its site.
#[test]
fn the_demo_rack_is_planned_by_its_site() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/racks/sites/demo.toml");
    let site = site(&std::fs::read_to_string(path).unwrap());
    let facts = facts(vec![
        node(1, vec![disk("n1-0", 8, DiskBus::Nvme), disk("n1-1", 16, DiskBus::Sata)]),
        node(2, vec![disk("n2-0", 8, DiskBus::Virtio)]),
        node(3, vec![]),
        node(4, vec![disk("n4-0", 8, DiskBus::Sata)]),
    ]);
    let plan = all(&site, &facts);
    assert!(plan.refused.is_empty(), "{:?}", plan.refused);
    assert_eq!(plan.by_node().len(), 4);
    assert_eq!(plan.destructive().len(), 3);
    assert!(plan.destructive()[0].destroys[0].contains("n1-0"));
}

#[test]
fn a_machine_that_stays_in_memory_is_as_wanted_whatever_lies_on_its_disk() {
    let on_disk = site(WORKER);
    let mut facts = one(1);
    let plan = all(&on_disk, &facts);
    carried_out(&mut facts, &plan);
    let memory = site(
        "version = 1\n[role.worker]\nmemory = \"agent\"\n[[rule]]\nname = \"all\"\nrole = \"worker\"\nwhen = \"true\"\n",
    );
    // It runs what is on its disk, and is brought into our agent.
    change(&mut facts.nodes[0], |node| {
        (node.state, node.agent_connected) = (NodeState::Ready, false);
    });
    assert!(!all(&memory, &facts).is_empty());
    change(&mut facts.nodes[0], |node| node.agent_connected = true);
    assert!(facts.nodes[0].installed.is_some());
    let again = all(&memory, &facts);
    assert!(again.is_empty(), "{:?}", ids(&again));
}
