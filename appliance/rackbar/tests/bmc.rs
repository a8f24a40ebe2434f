//! What an operator asks of a machine's BMC at the command line: the real daemon, and a simulated BMC that it found by
//! its lease.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod hall;

use hall::Hall;
use rackbar_vrack::bmc::Faults;

#[test]
fn sensors_and_hardware_log_are_shown_over_redfish_and_ipmi() {
    let hall = Hall::open();
    let node = hall.node.as_str();
    hall.bmc.set_reading("CPU1 Temp", 95);
    hall.bmc.add_entry("Fan 2 stands still");

    let table = hall.ask(&["node", "sensors", node]).well();
    let line = table.lines().find(|line| line.contains("CPU1 Temp")).unwrap();
    assert!(line.contains("95 °C") && line.contains("critical"), "{table}");
    let list = hall.json(&["node", "sensors", node]);
    assert_eq!(
        (&list["way"], &list["state"]),
        (&"Redfish".into(), &"critical".into()),
        "{list}"
    );
    assert_eq!(list["items"].as_array().unwrap().len(), 6, "{list}");

    let log = hall.json(&["node", "log", node, "--limit", "2"]);
    let items = log["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{log}");
    assert_eq!(items[0]["message"], "Fan 2 stands still", "the newest first: {log}");
    assert!(hall.ask(&["node", "log", node]).well().contains("Fan 2 stands still"));

    // Its Redfish is gone: the same over IPMI, with the reason.
    hall.bmc.set_faults(Faults {
        no_redfish: true,
        ..Faults::NONE
    });
    let by_ipmi = hall.json(&["node", "sensors", node]);
    assert_eq!(by_ipmi["way"], "IPMI", "{by_ipmi}");
    assert!(by_ipmi["why"].as_str().unwrap().contains("404"), "{by_ipmi}");
    let reading = |list: &serde_json::Value, name: &str| {
        let found = list["items"].as_array().unwrap().iter().find(|one| one["name"] == name);
        found.unwrap()["reading"].as_f64()
    };
    for name in ["CPU1 Temp", "12V", "FAN1"] {
        assert_eq!(reading(&list, name), reading(&by_ipmi, name), "{name}");
    }
    let log = hall.json(&["node", "log", node]);
    assert_eq!(log["way"], "IPMI", "{log}");
    let time = log["items"][0]["time"].as_str().unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
}

#[test]
fn a_bmc_in_trouble_is_told_with_machine_request_reason_and_what_to_do() {
    let hall = Hall::open();
    let node = hall.node.as_str();
    hall.bmc.set_faults(Faults {
        status: Some((503, u32::MAX)),
        ..Faults::NONE
    });
    let said = hall.ask(&["node", "sensors", node]).failed(1);
    for word in [node, "its sensors", "503", "event log"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    hall.bmc.set_faults(Faults::NONE);
    hall.ask(&["node", "sensors", "nobody"]).failed(3);
    hall.ask(&["node", "log", node, "--limit", "0"]).failed(2);
    // A viewer may look.
    let token = hall.ask(&["token", "create", "anna", "--role", "viewer"]).well();
    std::fs::write(hall.folder.path().join("anna"), token).unwrap();
    let said: hall::Said = hall.command_by("anna", &["node", "log", node]).output().unwrap().into();
    said.well();
}
