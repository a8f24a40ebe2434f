//! Services in the graph: what is planned of them, who needs them, and when a plan that rests on them is out of date.
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{WORKER, all, carried_out, disk, facts, id, ids, installer, node, one, site};
use rackbar_model::{DiskBus, NodeState, Timestamp};
use rackbar_plan::{Action, ActionKind, Facts, Layer, OwnService, Plan, Scope, ServiceSeen, Site, Target, plan, stale};

const SITE: &str = r##"
version = 1
[network.lan]
subnet = "10.10.0.0/24"
dns = "own"
ntp = ["ntp1.example.org", "ntp2.example.org"]
proxy = "own"
[network.fast]
subnet = "10.20.0.0/24"
ntp = ["ntp1.example.org", "ntp2.example.org"]
syslog = "10.20.0.9:514"
[network.other]
subnet = "10.30.0.0/24"
dns = ["10.30.0.2"]
[role.worker]
os = "debian-12"
step = [{ name = "join", script = "#!/bin/sh" }]
[[role.worker.network]]
name = "lan"
network = "lan"
[[role.worker.network]]
name = "fast"
network = "fast"
nics = ["nic1"]
[[rule]]
name = "all"
when = "true"
role = "worker"
"##;

fn own_site(text: &str) -> Site {
    Site::parse_for(text, &OwnService::ALL.into()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// A rack whose appliance is on both networks and has all services.
fn rack(count: u16) -> Facts {
    let nodes = (1..=count).map(|number| node(number, vec![disk("A", 8, DiskBus::Nvme)]));
    let mut facts = facts(nodes.collect());
    facts.services = OwnService::ALL.into();
    facts.appliance = vec![[10, 10, 0, 1].into(), [10, 20, 0, 1].into()];
    facts
}

fn saw(facts: &mut Facts, service: OwnService, at: &[&str], serves: bool, says: &str) {
    let at = at.iter().map(|one| (*one).to_owned()).collect();
    let says = says.to_owned();
    facts.seen.insert((service, at), ServiceSeen { serves, says });
}

fn services(plan: &Plan) -> Vec<&Action> {
    let of_a_service = |action: &&Action| matches!(action.kind, ActionKind::Service(_));
    plan.actions.iter().filter(of_a_service).collect()
}

/// Names of the actions that need this one.
fn who_needs<'p>(plan: &'p Plan, service: &str) -> Vec<&'p str> {
    let needs = |action: &&Action| action.needs.iter().any(|need| need.0 == service);
    plan.actions
        .iter()
        .filter(needs)
        .map(|action| action.id.0.as_str())
        .collect()
}

#[test]
fn a_handful_of_services_comes_first_however_many_machines_need_them() {
    let mut facts = rack(40);
    saw(
        &mut facts,
        OwnService::Dns,
        &["10.10.0.1"],
        false,
        "not serving: port 53 is taken",
    );
    let plan = all(&own_site(SITE), &facts);
    let names: Vec<&str> = services(&plan).iter().map(|action| action.id.0.as_str()).collect();
    // Two networks with the same NTP servers have one action, and a network that nobody is on has none.
    let wanted = [
        "network.fast/ntp",
        "network.fast/syslog",
        "network.lan/dns",
        "network.lan/proxy",
    ];
    assert_eq!(names, wanted);
    assert_eq!(&ids(&plan)[..4], wanted);
    let dns = services(&plan)[2];
    assert_eq!(dns.target, Target::Service("network.lan.dns".into()));
    assert_eq!((dns.layer, dns.node, dns.shared()), (Layer::Clients, None, "services"));
    assert!(dns.destroys.is_none() && !dns.reboots && dns.needs.is_empty());
    assert_eq!(dns.changes[0].wanted, "own at 10.10.0.1");
    assert_eq!(
        dns.changes[0].observed.as_deref(),
        Some("not serving: port 53 is taken")
    );
    assert!(
        dns.reason.contains("network lan") && dns.reason.contains("10.10.0.1"),
        "{}",
        dns.reason
    );
    assert!(dns.limits.tries > 1, "a service that comes late is waited for");
    let ntp = services(&plan)[0];
    assert_eq!(ntp.changes[0].observed, None, "nobody has asked it yet");
    assert!(ntp.reason.contains("networks fast, lan"), "{}", ntp.reason);
    for action in services(&plan) {
        assert!(
            ActionKind::NAMES.contains(&action.kind.name()),
            "no limit can be set for it"
        );
    }
    // What does not depend on them does not wait for them.
    let of_one: Vec<&str> = ["step.join", "verify"].to_vec();
    let dns: Vec<String> = who_needs(&plan, "network.lan/dns")
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(dns.len(), 80);
    assert!(
        of_one.iter().all(|name| dns.contains(&format!("node-001/{name}"))),
        "{dns:?}"
    );
    assert_eq!(who_needs(&plan, "network.fast/ntp").len(), 40, "checks of the time");
    assert_eq!(who_needs(&plan, "network.fast/syslog").len(), 40);
}

#[test]
fn the_first_action_of_a_machine_does_not_wait_for_services() {
    let text = SITE.replace("os = \"debian-12\"", "os = \"debian-12\"\nbatch = 1");
    let plan = all(&own_site(&text), &rack(2));
    let action = |name: &str| plan.actions.iter().find(|action| action.id.0 == name).unwrap();
    assert!(action("node-001/agent").needs.is_empty());
    let second = &action("node-002/agent").needs;
    assert_eq!(
        second.iter().map(|need| need.0.as_str()).collect::<Vec<_>>(),
        ["node-001/verify"]
    );
}

#[test]
fn an_installer_needs_the_mirror_and_checks_only_what_they_check() {
    let text = SITE
        .replace("os = \"debian-12\"", "os = \"deb\"\nchecks = [\"os.identity\"]")
        .replace("step = [{ name = \"join\", script = \"#!/bin/sh\" }]\n", "")
        .replace("syslog = \"10.20.0.9:514\"\n", "");
    let mut facts = rack(1);
    facts.images.insert("deb".into(), installer("deb"));
    facts
        .mirrors
        .insert("debian".into(), vec!["http://deb.example.org/debian".into()]);
    let plan = all(&own_site(&text), &facts);
    assert_eq!(who_needs(&plan, "network.lan/proxy"), ["node-001/os.install"]);
    assert_eq!(services(&plan).len(), 1, "{:?}", ids(&plan));
    // Our own address written down is our own service too.
    let written = text.replace("proxy = \"own\"", "proxy = \"http://10.10.0.1:3128\"");
    let plan = all(&own_site(&written), &facts);
    let ActionKind::Service(spec) = &services(&plan)[0].kind else {
        panic!()
    };
    assert_eq!(spec.own, Some([10, 10, 0, 1].into()));
}

#[test]
fn an_installer_behind_a_proxy_of_others_needs_an_archive_that_it_can_ask() {
    let text = SITE
        .replace("os = \"debian-12\"", "os = \"deb\"")
        .replace("proxy = \"own\"", "proxy = \"http://10.10.0.250:3128\"");
    let mut facts = rack(1);
    facts.images.insert("deb".into(), installer("deb"));
    let refused = |text: &str, facts: &Facts| {
        let plan = all(&own_site(text), facts);
        plan.refused.first().map(|one| one.reason.clone()).unwrap_or_default()
    };
    let none = refused(&text, &facts);
    assert!(
        none.contains("behind http://10.10.0.250:3128: name its URL in rackbar.toml"),
        "{none}"
    );
    let places = |all: &[&str]| all.iter().map(|url| (*url).to_owned()).collect::<Vec<String>>();
    facts
        .mirrors
        .insert("debian".into(), places(&["https://deb.example.org/debian"]));
    let secure = refused(&text, &facts);
    assert!(
        secure.contains("called debian in rackbar.toml begins with http://"),
        "{secure}"
    );
    let both = ["https://deb.example.org/debian", "http://ftp.example.org/debian"];
    facts.mirrors.insert("debian".into(), places(&both));
    let other = refused(&text.replace("http://10.10.0.250", "https://10.10.0.250"), &facts);
    assert!(other.contains("asks a proxy over http alone"), "{other}");
    let plan = all(&own_site(&text), &facts);
    assert!(ids(&plan).contains(&"node-001/os.install"), "{:?}", ids(&plan));
    let without = refused(&text.replace("proxy = \"http://10.10.0.250:3128\"\n", ""), &facts);
    assert!(without.contains("no network of the role has a proxy"), "{without}");
}

#[test]
fn where_nothing_is_left_to_do_only_a_service_that_is_gone_is_in_a_plan_of_the_whole_site() {
    let text = own_site(SITE);
    let mut facts = rack(1);
    let first = all(&text, &facts);
    carried_out(&mut facts, &first);
    saw(&mut facts, OwnService::Dns, &["10.10.0.1"], true, "serves");
    saw(
        &mut facts,
        OwnService::Syslog,
        &["10.20.0.9:514"],
        true,
        "answered when it was last asked",
    );
    assert!(all(&text, &facts).is_empty(), "{:?}", ids(&all(&text, &facts)));

    saw(&mut facts, OwnService::Dns, &["10.10.0.1"], false, "not running");
    let gone = all(&text, &facts);
    assert_eq!(ids(&gone), ["network.lan/dns"]);
    assert_eq!(gone.unchanged, [id(1)]);
    assert!(gone.actions[0].reason.contains("seen not to serve"));
    // Who asks for one machine asks for nothing else.
    let scope = Scope {
        nodes: Some(vec![id(1)]),
        ..Scope::default()
    };
    assert!(plan(&text, &facts, &scope, Timestamp(1)).is_empty());
}

#[test]
fn a_plan_whose_services_are_wanted_otherwise_since_is_stale_and_says_which() {
    let text = own_site(SITE);
    let mut facts = rack(1);
    let made = all(&text, &facts);
    assert_eq!(made.inputs.services["network.lan.dns"], "own at 10.10.0.1");
    assert_eq!(made.inputs.services["network.fast.proxy"], "off");
    assert!(
        !made.inputs.services.contains_key("network.other.dns"),
        "nobody planned is on it"
    );
    assert!(stale(&made, &text, &facts).is_empty());
    // That one came or went is no other intent: the run finds it as it then is.
    saw(&mut facts, OwnService::Dns, &["10.10.0.1"], false, "not running");
    assert!(stale(&made, &text, &facts).is_empty());
    assert_ne!(all(&text, &facts).id, made.id, "another plan for who looks at it");

    let said = |text: &str, facts: &Facts| stale(&made, &own_site(text), facts).join("\n");
    let external = said(&SITE.replace("dns = \"own\"", "dns = [\"10.10.0.7\"]"), &facts);
    let wanted = "network.lan.dns was own at 10.10.0.1 when the plan was made, and is external at 10.10.0.7 now";
    assert!(external.contains(wanted), "{external}");
    let off = said(&SITE.replace("proxy = \"own\"\n", ""), &facts);
    assert!(
        off.contains("network.lan.proxy was own at http://10.10.0.1:3128") && off.contains("is off now"),
        "{off}"
    );
    let more = said(
        &SITE.replace("dns = \"own\"", "dns = \"own\"\nsyslog = \"own\""),
        &facts,
    );
    assert!(more.contains("network.lan.syslog was off"), "{more}");
    // The site is the same, and our address is another.
    facts.appliance = vec![[10, 10, 0, 2].into(), [10, 20, 0, 1].into()];
    let moved = said(SITE, &facts);
    assert!(moved.contains("is own at 10.10.0.2 now"), "{moved}");
    facts.appliance.remove(0);
    let away = said(SITE, &facts);
    assert!(
        away.contains("is own, but the appliance has no address in 10.10.0.0/24 now"),
        "{away}"
    );
}

/// Machines behind a DHCP relay reach our own services at the address that the relay asks.
#[test]
fn own_services_of_a_network_behind_a_relay_are_at_the_address_it_reaches_us_by() {
    let mut facts = rack(1);
    facts.appliance = vec![[10, 78, 0, 1].into()];
    let refused = common::refusal(&all(&own_site(SITE), &facts)).to_owned();
    assert!(refused.contains("rackbar.toml names no relay to it"), "{refused}");
    facts.behind = vec![
        ("10.11.0.0/24".parse().unwrap(), [10, 78, 0, 9].into()),
        ("10.10.0.0/24".parse().unwrap(), [10, 78, 0, 1].into()),
    ];
    let plan = all(&own_site(SITE), &facts);
    assert!(plan.refused.is_empty(), "{:#?}", plan.refused);
    let setup = plan.actions.iter().find_map(|action| action.kind.setup()).unwrap();
    assert_eq!(setup.dns, [std::net::IpAddr::from([10, 78, 0, 1])]);
    assert_eq!(setup.proxy.as_deref(), Some("http://10.78.0.1:3128"));
    assert!(rackbar_plan::stale(&plan, &own_site(SITE), &facts).is_empty());
}

#[test]
fn a_site_without_services_and_a_role_in_memory_plan_none() {
    assert!(services(&all(&site(WORKER), &one(1))).is_empty());
    let memory = SITE.replace("step = [{ name = \"join\", script = \"#!/bin/sh\" }]\n", "");
    let mut memory = memory.replace("os = \"debian-12\"", "memory = \"agent\"");
    let from = memory.find("[[role.worker.network]]").unwrap();
    let to = memory.find("[[rule]]").unwrap();
    memory.replace_range(from..to, "");
    let mut facts = rack(1);
    common::change(&mut facts.nodes[0], |node| node.state = NodeState::Discovered);
    let plan = all(&own_site(&memory), &facts);
    assert!(!plan.is_empty() && services(&plan).is_empty(), "{:?}", ids(&plan));
    assert!(plan.inputs.services.is_empty());
}

#[test]
fn what_the_site_says_is_unasked_is_planned_so_unless_another_network_lets_it_be_asked() {
    let text = SITE.replace("proxy = \"own\"", "proxy = \"own\"\nunasked = [\"ntp\"]");
    let facts = rack(1);
    let spec = |site: &Site| {
        let plan = all(site, &facts);
        let ntp = services(&plan)
            .into_iter()
            .find(|action| action.id.0.ends_with("/ntp"))
            .cloned();
        let action = ntp.expect("the checks need it");
        let ActionKind::Service(spec) = action.kind else {
            unreachable!()
        };
        (spec.unasked, spec.wanted(), action.reason)
    };
    let (unasked, wanted, _) = spec(&own_site(&text));
    assert!(
        !unasked && !wanted.contains("not asked"),
        "network fast may be asked: {wanted}"
    );
    let both = text.replace("syslog = ", "unasked = [\"ntp\", \"syslog\"]\nsyslog = ");
    let (unasked, wanted, reason) = spec(&own_site(&both));
    assert!(unasked && wanted.ends_with("not asked from here"), "{wanted}");
    assert!(reason.contains("cannot ask it"), "{reason}");
    // That it was missed once, before the site said so, keeps no plan busy.
    let mut seen = rack(0);
    saw(&mut seen, OwnService::Syslog, &["10.20.0.9:514"], false, "no answer");
    assert!(services(&all(&own_site(&both), &seen)).is_empty());
    assert_eq!(services(&all(&own_site(&text), &seen)).len(), 1);
    for (wrong, words) in [("dns", "the appliance's own"), ("syslog", "is off")] {
        let text = SITE.replace("proxy = \"own\"", &format!("proxy = \"own\"\nunasked = [\"{wrong}\"]"));
        let problems = Site::parse_for(&text, &OwnService::ALL.into()).unwrap_err();
        let told = problems.iter().any(|problem| problem.to_string().contains(words));
        assert!(told, "{problems:?}");
    }
}
