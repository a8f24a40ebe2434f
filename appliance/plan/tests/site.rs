//! Site files: every problem with its line and field, overlays, differences, examples, schema and reference.
#![allow(missing_docs, reason = "a test")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::{KEY, site};
use rackbar_plan::site::{Addresses, diff, profiles, reference};
use rackbar_plan::{OwnService, Site, SiteProblem};

fn problems(text: &str) -> Vec<SiteProblem> {
    Site::parse(text).expect_err("problems")
}

/// `line field: part of the message`.
fn holds(problems: &[SiteProblem], line: usize, field: &str, part: &str) {
    let found = problems
        .iter()
        .any(|p| p.line == line && p.field == field && p.to_string().contains(part));
    let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(found, "no `{part}` at line {line}, {field}, in:\n{}", all.join("\n"));
}

#[test]
fn all_problems_of_a_file_come_at_once_with_line_field_and_remedy() {
    let text = r##"version = 1
colour = "blue"

[network.mgmt]
subnet = "10.0.0.5/24"
vlann = 7
mtu = 100

[role.worker]
os = "debian-12"
erase = "discrad"
root = { pick = "smalest", min_gib = "8" }
ssh_keys = ["ssh-ed25519 AAAA"]
timezone = "../../etc/passwd"

[[role.worker.file]]
path = "/etc/../shadow"
content = "x"
"##;
    let found = problems(text);
    holds(&found, 2, "colour", "is not known here");
    holds(&found, 5, "network.mgmt.subnet", "write `10.0.0.0/24`");
    holds(&found, 6, "network.mgmt.vlann", "did you mean `vlan`?");
    holds(&found, 7, "network.mgmt.mtu", "between 576 and 9216");
    holds(&found, 11, "role.worker.erase", "did you mean `discard`?");
    holds(&found, 12, "role.worker.root.pick", "did you mean `smallest`?");
    holds(&found, 12, "role.worker.root.min_gib", "whole number, not text");
    holds(&found, 13, "role.worker.ssh_keys[0]", "cut or damaged");
    holds(&found, 14, "role.worker.timezone", "time zone");
    holds(&found, 17, "role.worker.file[0].path", "holds `.` or `..`");
    assert_eq!(found.len(), 10, "{found:#?}");
    let pick = found.iter().find(|p| p.field == "role.worker.root.pick").unwrap();
    assert_eq!(pick.column, 17);
}

#[test]
fn references_and_contradictions_are_found() {
    let text = r##"version = 1
[network.a]
subnet = "10.0.0.0/24"
gateway = "10.1.0.1"
addresses = "10.0.0.0-10.0.0.20"
dns = "own"
[network.b]
subnet = "10.0.0.128/25"
gateway = "10.0.0.129"
addresses = "10.0.0.129-10.0.0.140"
ntp = "of f"
[role.one]
os = "debian-12"
memory = "agent"
[role.two]
after = ["three"]
os = "debian-12"
root = { mirror = true, serial = "X" }
[[role.two.network]]
name = "lan"
network = "aa"
nics = ["nic0", "nic1"]
[[role.two.step]]
name = "first"
script = "#!/bin/sh"
needs = ["second"]
[[role.two.step]]
name = "second"
script = "echo"
[role.three]
memory = "rescue"
after = ["two"]
[[rule]]
name = "r"
when = "disk | length > 2"
role = "tow"
[[rule]]
name = "r"
when = "memory_gib >"
role = "one"
[[machine]]
name = "m_1"
"##;
    let found = problems(text);
    holds(&found, 29, "role.two.step[1].script", "must name the program");
    holds(&found, 35, "rule[0].when", "did you mean `disks`?");
    holds(&found, 39, "rule[1].when", "not sound");
    holds(&found, 42, "machine[0].name", "host name");
    let text = text.replace("\"echo\"", "\"#!/bin/sh\"").replace("disk |", "disks |");
    let text = text.replace("memory_gib >", "memory_gib > 1").replace("m_1", "m-1");
    let found = problems(&text);
    holds(&found, 4, "network.a.gateway", "not in 10.0.0.0/24");
    holds(&found, 5, "network.a.addresses", "10.0.0.0 is no host's address");
    holds(&found, 8, "network.b.subnet", "overlaps 10.0.0.0/24 of network a");
    holds(&found, 10, "network.b.addresses", "holds the gateway");
    holds(&found, 11, "network.b.ntp", "is not a host name");
    holds(&found, 12, "role.one", "exclude each other");
    holds(&found, 32, "role.three.after", "wait for each other: three, two");
    holds(&found, 18, "role.two.root", "a mirror needs two disks");
    holds(&found, 21, "role.two.network[0].network", "there is no network `aa`");
    holds(&found, 22, "role.two.network[0].nics", "without `bond`");
    holds(&found, 26, "role.two.step[0].needs", "move it up");
    holds(&found, 36, "rule[0].role", "did you mean `two`?");
    holds(&found, 38, "rule[1].name", "another rule");
    holds(&found, 41, "machine[0]", "could be any machine");
}

#[test]
fn packages_are_names_and_of_installed_systems_alone() {
    let text = r##"
version = 1
[role.one]
os = "debian-12"
packages = ["nginx", "libc6:amd64", "jq=1.6-2.1", "@core", "a; reboot"]
[[role.one.step]]
name = "packages"
script = "#!/bin/sh"
[role.two]
memory = "agent"
packages = ["jq"]
"##;
    let found = problems(text);
    holds(&found, 5, "role.one.packages[4]", "is not a package");
    assert_eq!(found.len(), 1, "{found:?}");
    let found = problems(&text.replace("a; reboot", "a"));
    holds(&found, 7, "role.one.step[0].name", "rename this one");
    holds(&found, 11, "role.two.packages", "runs in memory");
}

#[test]
fn syntax_errors_have_their_place() {
    let found = problems("version = 1\n[role.worker\nos = \"x\"\n");
    assert_eq!(found.first().map(|p| p.line), Some(2), "{found:?}");
    assert!(Site::parse("").is_err());
    assert!(Site::parse("version = 2").is_err());
}

#[test]
fn a_table_with_a_fault_of_its_own_still_exists_for_references() {
    let found = problems(
        "version = 1\n[role.a]\nos = \"x\"\nwrong = 1\n[[rule]]\nname = \"r\"\nwhen = \"true\"\nrole = \"a\"\n",
    );
    assert_eq!(found.len(), 1, "{found:?}");
    let found = problems(
        "version = 1\n[network.n]\nvlan = 5\n[role.a]\nos = \"x\"\nnetwork = [{ name = \"l\", network = \"n\" }]\n",
    );
    holds(&found, 2, "network.n", "`subnet` is missing");
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn own_services_are_possible_where_the_appliance_has_them() {
    let text = "version = 1\n[network.a]\nsubnet = \"10.0.0.0/24\"\ndns = \"own\"\n";
    assert!(Site::parse(text).is_ok());
    assert!(Site::parse_for(text, &BTreeSet::from([OwnService::Dns])).is_ok());
    let found = Site::parse_for(text, &BTreeSet::from([OwnService::Ntp])).unwrap_err();
    holds(&found, 4, "network.a.dns", "no dns service yet");
}

#[test]
fn default_routes_of_two_networks_exclude_each_other() {
    let text = r##"version = 1
[network]
a = { subnet = "10.0.0.0/24", gateway = "10.0.0.1", addresses = "10.0.0.10-10.0.0.20" }
b = { subnet = "10.0.1.0/24", gateway = "10.0.1.1", addresses = "10.0.1.10-10.0.1.20" }
[role.r]
os = "x"
network = [{ name = "a", network = "a" }, { name = "b", network = "b", nics = ["nic1"] }]
"##;
    holds(&problems(text), 7, "role.r.network[1]", "default route");
    let text = text.replace("nics = [\"nic1\"]", "nics = [\"nic1\"], default_route = false");
    assert!(matches!(site(&text).network["a"].addresses, Addresses::Range(..)));
}

#[test]
fn gateways_and_routes_of_dhcp_networks_are_their_servers() {
    let text = r##"version = 1
[network]
a = { subnet = "10.0.0.0/24", gateway = "10.0.0.1" }
b = { subnet = "10.0.1.0/24", addresses = "dhcp" }
[role.r]
os = "x"
network = [{ name = "a", network = "a" }, { name = "b", network = "b", nics = ["nic1"], default_route = false }]
"##;
    let found = problems(text);
    holds(
        &found,
        3,
        "network.a.gateway",
        "addresses are from DHCP, and so is the gateway",
    );
    holds(&found, 3, "network.a.gateway", "range of static `addresses`");
    let field = "role.r.network[1].default_route";
    holds(&found, 7, field, "addresses of network b are from DHCP");
    holds(&found, 7, field, "let the DHCP server give no router there");
    assert_eq!(found.len(), 2, "{found:#?}");
    // Either way out is one.
    let range = |net: u8| format!("addresses = \"10.0.{net}.10-10.0.{net}.20\"");
    let given = text.replace(
        "gateway = \"10.0.0.1\"",
        &format!("gateway = \"10.0.0.1\", {}", range(0)),
    );
    let fixed = given.replace("addresses = \"dhcp\"", &range(1));
    assert!(!site(&fixed).role["r"].network[1].default_route);
    let left_out = text.replace(", default_route = false", "");
    let left_out = left_out.replace(", gateway = \"10.0.0.1\"", "");
    assert!(site(&left_out).role["r"].network[1].default_route);
}

#[test]
fn machines_whose_names_differ_by_case_alone_are_one_to_dns() {
    let text =
        "version = 1\n[[machine]]\nname = \"Web-1\"\nserial = \"A\"\n[[machine]]\nname = \"web-1\"\nserial = \"B\"\n";
    holds(&problems(text), 6, "machine[1].name", "another machine too");
}

#[test]
fn keys_are_checked_and_private_ones_refused() {
    let with = |key: &str| format!("version = 1\nssh_keys = [\"\"\"{key}\"\"\"]\n");
    assert_eq!(site(&with(KEY)).ssh_keys, [KEY]);
    for (bad, part) in [
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "is a private key"),
        ("ssh-dss AAAAB3NzaC1kc3MAAACB", "not an OpenSSH public key"),
        (&KEY.replace("AAAAC3Nza", "AAAAC3Nzb"), "does not begin with its type"),
        (&KEY[..40], "cut or damaged"),
    ] {
        holds(&problems(&with(bad)), 2, "ssh_keys[0]", part);
    }
}

#[test]
fn a_site_lies_over_a_profile_and_differs_from_it_where_it_says() {
    let base = site(profiles()[0].text);
    let over = site(
        "version = 1\nextends = \"debian-servers\"\n[role.server]\nerase = \"crypto\"\n[role.extra]\nmemory = \"agent\"\n",
    );
    let differences: Vec<String> = diff(&base, &over).iter().map(ToString::to_string).collect();
    assert_eq!(differences.len(), 3, "{differences:#?}");
    assert!(differences.contains(&"extends: nothing -> \"debian-servers\"".to_owned()));
    assert!(differences.contains(&"role.server.erase: \"signatures\" -> \"crypto\"".to_owned()));
    assert!(
        differences
            .iter()
            .any(|line| line.starts_with("role.extra: nothing -> {"))
    );
    assert_eq!(over.role["server"].root, base.role["server"].root);
    assert!(diff(&over, &over).is_empty());
    holds(
        &problems("version = 1\nextends = \"debian-server\"\n"),
        2,
        "extends",
        "did you mean `debian-servers`?",
    );
}

#[test]
fn one_more_rule_at_the_top_is_one_difference() {
    let rule = |name: &str| format!("[[rule]]\nname = \"{name}\"\nwhen = \"true\"\nrole = \"a\"\n");
    let head = "version = 1\n[role.a]\nmemory = \"agent\"\n";
    let left = site(&format!("{head}{}{}", rule("x"), rule("y")));
    let right = site(&format!("{head}{}{}{}", rule("new"), rule("x"), rule("y")));
    let differences = diff(&left, &right);
    assert_eq!(differences.len(), 1);
    assert_eq!(differences[0].path, "rule[new]");
    let swapped = site(&format!("{head}{}{}", rule("y"), rule("x")));
    assert_eq!(diff(&left, &swapped)[0].path, "rule (order)");
}

#[test]
fn every_shipped_profile_and_example_site_is_sound() {
    for profile in profiles() {
        assert!(Site::parse(profile.text).is_ok(), "{}", profile.name);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/racks/sites");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if let Err(problems) = Site::parse(&std::fs::read_to_string(&path).unwrap()) {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("{}:\n{}", path.display(), lines.join("\n"));
        }
        count += 1;
    }
    assert!(count >= 2);
}

/// The site of the introduction in `docs/site.md` is sound, and its reference is that of the schema.
#[test]
fn the_documentation_is_that_of_the_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/site.md");
    let page = std::fs::read_to_string(&path).unwrap();
    for block in page
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
    {
        if block.contains("version = 1") {
            site(block);
        }
    }
    // The web page shows it where no site file was set yet.
    let first = include_str!("../../control/templates/first-site.toml");
    assert!(
        page.contains(first),
        "the page's example is not that of the introduction"
    );
    let mark = "<!-- generated from the schema: RACKBAR_BLESS=1 cargo test -p rackbar-plan --test site -->\n";
    let (written, old) = page.split_once(mark).expect("the mark of the generated part");
    let new = format!("\n{}", reference());
    if std::env::var_os("RACKBAR_BLESS").is_some() {
        std::fs::write(&path, format!("{written}{mark}{new}")).unwrap();
        return;
    }
    assert!(
        old == new,
        "the site file changed: look at the difference, then run this test with RACKBAR_BLESS=1"
    );
}

#[test]
fn the_schema_is_one_and_refuses_unknown_keys() {
    let schema = Site::schema();
    assert_eq!(schema["title"], "Rackbar site file");
    for name in [
        "Network",
        "Role",
        "Root",
        "Rule",
        "Machine",
        "Step",
        "File",
        "RoleNetwork",
    ] {
        assert_eq!(schema["$defs"][name]["additionalProperties"], false, "{name}");
    }
}

#[test]
fn roles_name_only_systems_that_the_site_lists_where_it_lists_any() {
    let text =
        "version = 1\n\n[os.debian-12]\nsha256 = \"ABC\"\n\n[os.debian-13]\n\n[role.worker]\nos = \"debian-14\"\n";
    let found = problems(text);
    holds(&found, 4, "os.debian-12.sha256", "64 lower-case hexadecimal digits");
    holds(&found, 9, "role.worker.os", "there is no os `debian-14`");
    assert_eq!(found.len(), 2, "{found:#?}");
    // Without a list any name goes: the catalogue is the appliance's.
    site("version = 1\n[role.worker]\nos = \"debian-14\"\n");
}

#[test]
fn limits_name_kinds_of_actions_and_leave_room_for_one() {
    let text = "version = 1\n[limits]\nat_once = 0\n[limits.kinds]\n\"os.wrote\" = 4\n\"disk.erase\" = 0\n";
    let found = problems(text);
    holds(&found, 3, "limits.at_once", "between 1 and 10000");
    holds(&found, 5, "limits.kinds.os.wrote", "did you mean `os.write`?");
    holds(&found, 6, "limits.kinds.disk.erase", "no run would ever end");
    assert_eq!(found.len(), 3, "{found:#?}");
    let limits = site("version = 1\n[limits]\nat_once = 40\nkinds = { \"os.write\" = 4 }\n").limits;
    assert_eq!((limits.at_once, limits.kinds["os.write"]), (Some(40), 4));
    assert_eq!(limits.words().as_deref(), Some("at most 40 actions, 4 of os.write"));
    let words = |limits: &str| site(&format!("version = 1\n[limits]\n{limits}\n")).limits.words();
    assert_eq!(words("at_once = 1").as_deref(), Some("at most 1 action"));
    assert_eq!(words("kinds = { agent = 2 }").as_deref(), Some("at most 2 of agent"));
    assert_eq!(words(""), None);
}
