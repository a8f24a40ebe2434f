//! What an operator asks of a machine's BMC at the command line: the real daemon, and a simulated BMC that it found by
//! its lease.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod hall;

use hall::Hall;
use rackbar_vrack::bmc::Faults;
use rackbar_vrack::seat::{BootDevice, BootOverride, MachinePower as _};

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

#[test]
fn an_image_goes_into_the_virtual_drive_and_is_booted_once() {
    let hall = Hall::open();
    let node = hall.node.as_str();
    let image = "http://10.79.0.1/rescue.iso";
    let table = hall.ask(&["node", "media", "list", node]).well();
    assert!(table.contains("Cd") && table.contains("nothing"), "{table}");
    let list = hall.json(&["node", "media", "insert", node, image]);
    assert_eq!(list["items"][0]["image"], image, "{list}");
    assert_eq!(hall.bmc.media().as_deref(), Some(image));
    // Once more is no change.
    let inserts = || {
        let requests = hall.bmc.requests();
        requests.iter().filter(|line| line.contains("InsertMedia")).count()
    };
    let before = inserts();
    hall.ask(&["node", "media", "insert", node, image]).well();
    assert_eq!(inserts(), before);

    let said = hall.ask(&["node", "boot", node, "cd", "--restart"]).well();
    assert!(said.contains("from cd, once"), "{said}");
    let cd = BootOverride {
        device: BootDevice::Cdrom,
        once: true,
    };
    assert_eq!(hall.machine.starts(), [Some(cd)], "one restart, from the CD");
    assert_eq!(hall.json(&["node", "boot", node])["from"], "default", "it was for once");
    hall.ask(&["node", "media", "eject", node]).well();
    assert_eq!(hall.bmc.media(), None);

    // Refused before the BMC hears of it.
    let sent = hall.bmc.requests().len();
    for bad in ["file:///etc/shadow", "http://user:secret@10.79.0.1/x.iso", "rescue.iso"] {
        let said = hall.ask(&["node", "media", "insert", node, bad]).failed(1);
        assert!(said.contains("such as http://") && !said.contains("secret"), "{said}");
    }
    assert_eq!(hall.bmc.requests().len(), sent);

    let audit = hall.audit();
    for deed in [
        format!("put {image} into the virtual CD drive of {node}"),
        format!("empty the virtual CD drive of {node}"),
        format!("boot {node} from cd once, and restart it"),
    ] {
        assert!(audit.contains(&deed), "{deed}: {audit}");
    }
    assert!(!audit.contains("secret"), "{audit}");
    let trace = hall.ask(&["node", "trace", node]).well();
    assert!(trace.contains(&format!("virtual CD drive: {image} is in")), "{trace}");
}

#[test]
fn the_next_boot_fetches_a_url_or_comes_from_elsewhere_once() {
    let hall = Hall::open();
    let node = hall.node.as_str();
    let url = "http://10.79.0.1/boot/v1/loader.efi";
    let state = hall.json(&["node", "boot", node, "http", "--url", url]);
    assert_eq!(
        (&state["from"], &state["url"], &state["once"]),
        (&"http".into(), &url.into(), &true.into())
    );
    assert!(hall.machine.starts().is_empty(), "nobody asked for a restart");
    let said = hall.ask(&["node", "boot", node]).well();
    assert!(said.contains(url) && said.contains("once"), "{said}");
    assert_eq!(hall.json(&["node", "boot", node, "default"])["from"], "default");
    assert_eq!(hall.machine.boot_override(), None);
    let said = hall.ask(&["node", "boot", node, "cd", "--url", url]).failed(1);
    assert!(said.contains("not with `cd`"), "{said}");
    hall.ask(&["node", "boot", node, "--restart"]).failed(2);

    // Over IPMI a device works, a URL does not, and both are told.
    hall.bmc.set_faults(Faults {
        no_redfish: true,
        ..Faults::NONE
    });
    let said = hall.ask(&["node", "boot", node, "http", "--url", url]).failed(1);
    for word in [node, "a boot from HTTP", "404", "event log"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(hall.machine.boot_override(), None);
    assert_eq!(hall.json(&["node", "boot", node, "disk"])["from"], "disk");
    let disk = BootOverride {
        device: BootDevice::Disk,
        once: true,
    };
    assert_eq!(hall.machine.boot_override(), Some(disk));
    let said = hall.ask(&["node", "media", "list", node]).failed(1);
    assert!(said.contains("its virtual media"), "{said}");

    // A viewer looks and changes nothing.
    let token = hall.ask(&["token", "create", "anna", "--role", "viewer"]).well();
    std::fs::write(hall.folder.path().join("anna"), token).unwrap();
    let by_anna = |arguments: &[&str]| hall::Said::from(hall.command_by("anna", arguments).output().unwrap());
    by_anna(&["node", "boot", node]).well();
    by_anna(&["node", "boot", node, "network"]).failed(4);
    by_anna(&["node", "media", "eject", node]).failed(4);
    assert_eq!(hall.machine.boot_override(), Some(disk));
}

/// Sessions that were given back: what the site's profile asks for and no shipped one does for this maker.
fn given_back(hall: &Hall) -> bool {
    hall.ask(&["node", "sensors", &hall.node]).well();
    let requests = hall.bmc.requests();
    requests
        .iter()
        .any(|line| line.starts_with("DELETE /redfish/v1/SessionService/Sessions/"))
}

#[test]
fn profiles_of_a_site_rule_its_bmcs_and_one_that_cannot_be_read_is_told() {
    let hall = Hall::prepared(|folder| {
        let profiles = folder.join("hw-profiles");
        std::fs::create_dir(&profiles).unwrap();
        let ours = "name = \"ours\"\nsource = \"seen in our hall\"\n[match]\nmanufacturer = \"virtual*\"\n\
                    [quirks]\nsession_given_back = true\n";
        std::fs::write(profiles.join("ours.toml"), ours).unwrap();
        let wrong = "name = \"wrong\"\nsource = \"nowhere\"\n[match]\nmaker = \"x\"\n";
        std::fs::write(profiles.join("wrong.toml"), wrong).unwrap();
    });
    assert!(given_back(&hall), "{:?}", hall.bmc.requests());
    let events = hall.ask(&["events", "--json"]).well();
    for part in ["wrong.toml", "maker", "not in force"] {
        assert!(events.contains(part), "no {part}: {events}");
    }
    assert!(!given_back(&Hall::open()), "without the profile too");
}

#[test]
fn a_signed_profile_counts_only_as_it_was_signed_and_by_whom_is_shown() {
    let ours = "name = \"ours\"\nsource = \"seen in our hall\"\n[match]\nmanufacturer = \"virtual*\"\n\
                [quirks]\nsession_given_back = true\n";
    // Somebody else's appliance signs it.
    let maker = Hall::open();
    let file = maker.folder.path().join("ours.toml");
    std::fs::write(&file, ours).unwrap();
    maker.ask(&["profile", "sign", &file.display().to_string()]).well();
    let signature = std::fs::read_to_string(maker.folder.path().join("ours.toml.sig")).unwrap();
    let key = signature.split(' ').nth(1).unwrap().to_owned();
    assert!(
        maker.ask(&["pack", "list"]).well().contains(&key),
        "the key that it shows"
    );
    assert!(
        maker.audit().contains("sign hardware profile ours"),
        "{}",
        maker.audit()
    );
    let none = maker.ask(&["profile", "sign", "/nonexistent"]).failed(1);
    assert!(none.contains("/nonexistent"), "{none}");

    let here = |text: &str, trust: &str| {
        let (text, signature) = (text.to_owned(), signature.clone());
        let trust = format!("\n[packs]\ntrust = [{trust}]\n[profiles]\nsigned_only = true\n");
        Hall::prepared_with(&trust, move |folder| {
            let profiles = folder.join("hw-profiles");
            std::fs::create_dir(&profiles).unwrap();
            std::fs::write(profiles.join("ours.toml"), text).unwrap();
            std::fs::write(profiles.join("ours.toml.sig"), signature).unwrap();
        })
    };
    let listed = |hall: &Hall| {
        let list = hall.json(&["profile", "list"]);
        let list = list.as_array().unwrap().clone();
        assert!(
            list.iter()
                .filter(|one| one["place"] == "shipped")
                .all(|one| one["in_use"] == true)
        );
        list.into_iter().find(|one| one["name"] == "ours").unwrap()
    };
    let trusted = here(ours, &format!("\"{key}\""));
    let shown = listed(&trusted);
    assert_eq!(
        (&shown["in_use"], shown["key"].as_str()),
        (&true.into(), Some(key.as_str())),
        "{shown}"
    );
    assert_eq!(shown["signer"], "named in rackbar.toml");
    assert!(given_back(&trusted), "{:?}", trusted.bmc.requests());
    let table = trusted.ask(&["profile", "list"]).well();
    assert!(table.contains("in force") && table.contains(&key[..16]), "{table}");

    let changed = here(&ours.replace("our hall", "our hell"), &format!("\"{key}\""));
    let shown = listed(&changed);
    assert_eq!(shown["in_use"], false, "{shown}");
    assert!(
        shown["why_not"].as_str().unwrap().contains("changed or damaged after"),
        "{shown}"
    );
    assert!(!given_back(&changed));
    let events = changed.ask(&["events", "--json"]).well();
    assert!(
        events.contains("ours.toml") && events.contains("the others are"),
        "{events}"
    );

    let stranger = here(ours, "");
    let shown = listed(&stranger);
    assert!(shown["why_not"].as_str().unwrap().contains("does not trust"), "{shown}");
    assert!(!given_back(&stranger));
}
