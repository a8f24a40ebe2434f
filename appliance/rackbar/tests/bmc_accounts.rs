//! The accounts on a machine's BMC at the command line: the real daemon, and a simulated BMC that it found by its lease.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod hall;

use std::io::Write as _;
use std::process::Stdio;

use hall::{Hall, Said};
use rackbar_vrack::bmc::Faults;

const GIVEN: &str = "Given-pass.77";

/// Runs a command with something at its standard input.
fn typed(hall: &Hall, arguments: &[&str], input: &str) -> Said {
    let mut command = hall.command(arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

fn names(list: &serde_json::Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    items.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

/// An account comes, is disabled and enabled, and goes; no password is where it should not be.
fn comes_and_goes(hall: &Hall, way: &str) {
    let node = hall.node.as_str();
    let list = hall.json(&["node", "account", "list", node]);
    assert_eq!(
        (&list["way"], names(&list)),
        (&way.into(), vec!["admin".to_owned()]),
        "{list}"
    );
    assert_eq!(list["items"][0]["ours"], true, "{list}");
    assert_eq!(list["items"][0]["role"], "administrator", "{list}");

    let made = hall
        .ask(&["node", "account", "add", node, "anna", "--role", "operator"])
        .well();
    let password = made.trim();
    assert_eq!(
        (made.lines().count(), password.len()),
        (1, 16),
        "the password alone: {made}"
    );
    let slot = hall.json(&["node", "account", "list", node])["items"][1]["id"].clone();
    let slot: u8 = slot.as_str().unwrap().parse().unwrap();
    assert!(hall.bmc.account(slot).unwrap().password.matches(password.as_bytes()));

    let table = typed(
        hall,
        &[
            "node",
            "account",
            "add",
            node,
            "eve",
            "--role",
            "read-only",
            "--password-file",
            "-",
        ],
        &format!("{GIVEN}\n"),
    )
    .well();
    let line = table.lines().find(|line| line.contains("eve")).unwrap();
    assert!(line.contains("read_only") && line.contains("enabled"), "{table}");

    let table = hall.ask(&["node", "account", "disable", node, "anna"]).well();
    let line = table.lines().find(|line| line.contains("anna")).unwrap();
    assert!(line.contains("disabled"), "{table}");
    assert!(!hall.bmc.account(slot).unwrap().enabled);
    let list = hall.json(&["node", "account", "enable", node, "anna"]);
    assert_eq!(list["items"][1]["enabled"], true, "{list}");

    // What cannot be is refused here, as something that does not fit how things are.
    let again = ["node", "account", "add", node, "eve", "--role", "operator"];
    let said = hall.ask(&again).failed(6);
    assert!(
        said.contains("was not asked for account eve") && said.contains("already"),
        "{said}"
    );
    // Ours stays, and the BMC does not hear of it.
    for action in ["disable", "remove"] {
        let said = hall.ask(&["node", "account", action, node, "admin"]).failed(6);
        assert!(said.contains("Rackbar logs in with it"), "{said}");
    }
    assert!(hall.bmc.account(2).is_some_and(|admin| admin.enabled));
    let list = hall.json(&["node", "account", "remove", node, "anna"]);
    assert_eq!(names(&list), ["admin", "eve"], "{list}");
    hall.ask(&["node", "account", "remove", node, "eve"]).well();

    let audit = hall.audit();
    for deed in [
        format!("make the account anna (operator) on the BMC of {node}"),
        format!("make the account eve (read_only) on the BMC of {node}"),
        format!("disable the account anna on the BMC of {node}"),
        format!("enable the account anna on the BMC of {node}"),
        format!("remove the account anna from the BMC of {node}"),
    ] {
        assert!(audit.contains(&deed), "{deed}: {audit}");
    }
    let trace = hall.ask(&["node", "trace", node]).well();
    assert!(trace.contains("account anna on its BMC: made, as Operator"), "{trace}");
    let events = hall.ask(&["events", "--json"]).well();
    for secret in [password, GIVEN] {
        for place in [&audit, &trace, &events] {
            assert!(!place.contains(secret), "a password is told: {place}");
        }
    }
}

#[test]
fn an_account_comes_and_goes_at_the_command_line_over_redfish_and_ipmi() {
    let hall = Hall::open();
    comes_and_goes(&hall, "Redfish");
    hall.bmc.set_faults(Faults {
        fixed_slots: true,
        ..Faults::NONE
    });
    comes_and_goes(&hall, "Redfish");
    hall.bmc.set_faults(Faults {
        no_redfish: true,
        ..Faults::NONE
    });
    comes_and_goes(&hall, "IPMI");
}

#[test]
fn an_account_is_an_admins_to_make_and_one_that_proves_nothing_is_no_success() {
    let hall = Hall::open();
    let node = hall.node.as_str();
    for role in ["viewer", "operator"] {
        let token = hall.ask(&["token", "create", role, "--role", role]).well();
        std::fs::write(hall.folder.path().join(role), token).unwrap();
        let by = |arguments: &[&str]| Said::from(hall.command_by(role, arguments).output().unwrap());
        by(&["node", "account", "list", node]).well();
        by(&["node", "account", "add", node, "anna", "--role", "operator"]).failed(4);
        by(&["node", "account", "remove", node, "admin"]).failed(4);
    }
    // Its power is looked at from time to time.
    let asked = || {
        hall.bmc
            .requests()
            .iter()
            .filter(|line| line.contains("AccountService"))
            .count()
    };
    let sent = asked();
    for (name, words) in [
        ("an na", "1 to 16"),
        ("a-name-that-is-too-long", "1 to 16"),
        ("9", "begins with"),
    ] {
        let said = hall
            .ask(&["node", "account", "add", node, name, "--role", "operator"])
            .failed(1);
        assert!(said.contains(words), "{said}");
    }
    let short = [
        "node",
        "account",
        "add",
        node,
        "anna",
        "--role",
        "operator",
        "--password-file",
        "-",
    ];
    assert_eq!(asked(), sent, "nothing is asked of the BMC");
    let said = typed(&hall, &short, "tiny\n").failed(6);
    assert!(said.contains("6 to 20 characters") && !said.contains("tiny"), "{said}");

    hall.bmc.set_faults(Faults {
        spoils_passwords: true,
        ..Faults::NONE
    });
    let said = typed(&hall, &short, &format!("{GIVEN}\n")).failed(1);
    for word in [
        node,
        "account anna to be made",
        "did not prove itself",
        "taken away again",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!said.contains(GIVEN), "{said}");
    assert_eq!(names(&hall.json(&["node", "account", "list", node])), ["admin"]);
    assert!(!hall.audit().contains(GIVEN));
}
