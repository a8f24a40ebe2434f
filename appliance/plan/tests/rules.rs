//! Binding nodes to roles, and saying why.
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{disk, node, site};
use rackbar_model::{DiskBus, LldpNeighbour};
use rackbar_plan::bind;

const SITE: &str = r#"
version = 1
[role.big]
memory = "agent"
[role.small]
memory = "agent"
[[rule]]
name = "broken"
when = "tpm.version.major > 1"
role = "big"
[[rule]]
name = "much-memory"
when = "memory_gib >= 64 and product == 'Virtual'"
role = "big"
[[rule]]
name = "two-nvme"
when = "disks | selectattr('bus', 'eq', 'nvme') | list | length >= 2 and memory.total_bytes > gib(1)"
role = "big"
[[rule]]
name = "in-rack-7"
when = "lldp and lldp.system_name is startingwith('leaf7') and '52:54:00:00:01:00' in macs"
role = "small"
hostname = "small-{{ lldp.port_id | replace('/', '-') }}"
"#;

#[test]
fn the_trace_says_of_each_rule_why_it_matched_or_not() {
    let site = site(SITE);
    let mut facts = node(1, vec![disk("A", 8, DiskBus::Nvme)]);
    let trace = bind(&site, &facts);
    assert_eq!(trace.role, None);
    assert!(trace.rules.iter().all(|rule| !rule.matched));
    assert!(trace.rules[0].why.starts_with("error: "), "{}", trace.rules[0].why);
    assert_eq!(trace.rules[1].why, "memory_gib = 16, product = 'Virtual'");
    assert!(
        trace.rules[2].why.contains("disks = 1 entries"),
        "{}",
        trace.rules[2].why
    );
    assert_eq!(trace.decided, "nothing binds it to a role");

    common::change(&mut facts, |node| {
        let neighbour = LldpNeighbour {
            system_name: Some("leaf7a".into()),
            port_id: "eth1/7".into(),
            ..LldpNeighbour::default()
        };
        node.inventory.as_mut().unwrap().nics[0].lldp = Some(neighbour);
    });
    let trace = bind(&site, &facts);
    assert_eq!(trace.role.as_deref(), Some("small"), "{trace:#?}");
    assert_eq!(trace.hostname.as_deref(), Some("small-eth1-7"));
    assert_eq!(trace.decided, "rule in-rack-7");
    // The first that matches decides.
    common::change(&mut facts, |node| {
        node.inventory.as_mut().unwrap().memory.total_bytes = 64 << 30
    });
    assert_eq!(bind(&site, &facts).decided, "rule much-memory");
}

#[test]
fn hand_goes_before_machine_and_machine_before_rule() {
    let machine = |serial: &str| format!("[[machine]]\nname = \"lead\"\nserial = \"{serial}\"\nrole = \"big\"\n");
    let rule = "[[rule]]\nname = \"all\"\nwhen = \"true\"\nrole = \"small\"\n";
    let site = site(&format!("{SITE}{rule}{}", machine("SN00001")));
    let mut facts = node(1, vec![]);
    let trace = bind(&site, &facts);
    assert_eq!(
        (trace.role.as_deref(), trace.hostname.as_deref()),
        (Some("big"), Some("lead"))
    );
    assert_eq!(trace.machine.as_deref(), Some("lead"));
    assert_eq!(bind(&site, &node(2, vec![])).decided, "rule all");
    facts.role = Some("small".into());
    assert_eq!(bind(&site, &facts).decided, "bound by hand");
    assert_eq!(bind(&site, &facts).hostname.as_deref(), Some("lead"));
}

#[test]
fn a_node_that_fits_two_expected_machines_is_neither() {
    let text =
        "[[machine]]\nname = \"a\"\nserial = \"SN00001\"\n[[machine]]\nname = \"b\"\nmac = \"52:54:00:00:01:01\"\n";
    let trace = bind(&site(&format!("{SITE}{text}")), &node(1, vec![]));
    assert!(trace.problem.unwrap().contains("several expected machines: a, b"));
}

#[test]
fn work_without_end_is_an_error_and_no_match() {
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}x";
    let rules = format!(
        "[[rule]]\nname = \"large\"\nwhen = \"range(100000000) | length > 0\"\nrole = \"big\"\n\
         [[rule]]\nname = \"all\"\nwhen = \"true\"\nrole = \"big\"\nhostname = \"{endless}\"\n"
    );
    let trace = bind(&site(&format!("{SITE}{rules}")), &node(1, vec![]));
    let large = &trace.rules[4];
    assert!(!large.matched && large.why.starts_with("error: "), "{}", large.why);
    assert_eq!(trace.decided, "rule all");
    assert_eq!(trace.hostname, None);
    assert!(trace.problem.as_deref().unwrap().contains("fuel"), "{trace:?}");
}

#[test]
fn every_name_of_the_reference_has_a_value() {
    let page = rackbar_plan::site::reference();
    let (_, names) = page.split_once("### Names in expressions").unwrap();
    let names: Vec<&str> = names
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert!(names.len() > 20);
    let rule = |name: &&str| format!("[[rule]]\nname = \"{name}\"\nwhen = \"{name} is defined\"\nrole = \"big\"\n");
    let rules: String = names.iter().map(rule).collect();
    let fields = "disks[0].size_gib == 8 and not disks[0].usb and disks[0] | items | length == 15";
    let last = format!("[[rule]]\nname = \"fields\"\nwhen = \"{fields}\"\nrole = \"big\"\n");
    let trace = bind(
        &site(&format!("{SITE}{rules}{last}")),
        &node(1, vec![disk("A", 8, DiskBus::Nvme)]),
    );
    for rule in &trace.rules[4..] {
        assert!(rule.matched, "{rule:?}");
    }
}
