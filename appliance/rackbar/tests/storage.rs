//! `rackbar storage` where the state has a place already: on a machine that is no appliance it only tells.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod common;

use common::Appliance;

#[test]
fn disks_are_listed_and_a_state_that_is_kept_already_is_not_moved() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let json = appliance.ask(&["storage", "list", "--json"]).well();
    let state: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(state["volatile"], false);
    let place = folder.path().join("data").display().to_string();
    assert!(state["words"].as_str().unwrap().contains(&place), "{json}");
    // The disk that this test runs on can never be given away.
    for disk in state["disks"].as_array().unwrap() {
        let used = !disk["users"].as_array().unwrap().is_empty();
        // One that a sandbox keeps from being read is refused for that reason.
        assert!(!used || disk["refusal"].is_string(), "{disk}");
    }
    let refused = appliance
        .ask(&["storage", "use", "sda", "--yes-destroy", "sda"])
        .failed(6);
    assert!(refused.contains("is kept already"), "{refused}");
    // Whoever may only look sees the disks and moves nothing.
    let token = appliance.ask(&["token", "create", "eve", "--role", "operator"]).well();
    let file = appliance.file("eve", token.trim());
    let by_eve = |arguments: &[&str]| appliance.by(file.as_ref(), arguments, "");
    by_eve(&["storage", "list"]).well();
    assert!(by_eve(&["storage", "use", "sda"]).failed(4).contains("admin"));
    appliance.stop();
}

#[test]
fn a_folder_that_is_no_memory_of_init_stays_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("run")).unwrap();
    std::fs::write(
        folder.path().join("run/volatile"),
        "no disk has a partition rackbar-data\n",
    )
    .unwrap();
    let appliance = Appliance::start(folder.path());
    let listed = appliance.ask(&["storage", "list"]);
    assert!(listed.err.contains("lost with the power: no disk has"), "{listed:?}");
    let refused = appliance.ask(&["storage", "use", "sda"]).failed(6);
    assert!(
        refused.contains("not the memory that an appliance's init mounts"),
        "{refused}"
    );
    appliance.stop();
}
