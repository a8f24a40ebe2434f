//! Services of a ready machine through the daemon: registered by the site file, taken out again by it, with a token.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

#[path = "../../registry/tests/catalogue/mod.rs"]
mod catalogue;
mod common;

use std::time::{Duration, Instant};

use catalogue::Catalogue;
use common::{Appliance, CONFIG, ready};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const ID: &str = "00000001-0000-0000-0000-000000000000";

fn site(url: Option<&str>) -> String {
    let registry = url.map_or_else(String::new, |url| {
        format!("[handoff.consul]\nurl = \"{url}\"\n[handoff.role.web]\nservices = {{ http = 80 }}\n")
    });
    format!(
        "version = 1\n[role.web]\nos = \"debian-12\"\nroot = {{ pick = \"smallest\" }}\n[[rule]]\nname = \"all\"\nwhen = \"true\"\nrole = \"web\"\n{registry}"
    )
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn listed(appliance: &Appliance) -> Value {
    serde_json::from_str(&appliance.ask(&["registration", "list", "--json"]).well()).unwrap()
}

#[test]
fn services_of_a_ready_machine_are_registered_by_the_site_and_taken_out_by_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rackbar.toml"), CONFIG).unwrap();
    common::keep(folder.path(), &[ready(1)]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let catalogue = runtime.block_on(Catalogue::start());
    catalogue.memory.lock().unwrap().token = Some("3f0e-secret");

    let appliance = Appliance::start(folder.path());
    let none = appliance.ask(&["registration", "list"]);
    assert!(none.err.contains("[handoff.consul]"), "{none:?}");
    let token = appliance.file("token", "3f0e-secret\n");
    let early = appliance.ask(&["registration", "token", "--file", &token]);
    assert!(early.failed(6).contains("[handoff.consul]"));

    let file = appliance.file("site.toml", site(Some(&catalogue.url)));
    appliance.ask(&["site", "set", &file]).well();
    let trouble = |state: &Value| state["trouble"].as_str().unwrap_or_default().to_owned();
    until("the registry's refusal is told", || {
        trouble(&listed(&appliance)).contains("rackbar registration token")
    });
    appliance.ask(&["registration", "token", "--file", &token]).well();
    let service = format!("http-{ID}");
    let there = vec![("web-1".to_owned(), vec![service.clone()])];
    until("the machine's service is there", || catalogue.has() == there);
    until("it is told", || trouble(&listed(&appliance)).is_empty());
    let state = listed(&appliance);
    assert_eq!(
        (&state["token"], &state["items"][0]["services"][0]),
        (&json!(true), &json!(service))
    );
    assert!(!state.to_string().contains("3f0e"), "the token is shown to nobody");
    let address = catalogue.memory.lock().unwrap().nodes["web-1"]["Node"]["Address"].clone();
    assert_eq!(address, "127.0.0.9");

    // The next life goes on with what this one registered.
    let folder = appliance.stop();
    let appliance = Appliance::start(&folder);
    let file = appliance.file("none.toml", site(None));
    appliance.ask(&["site", "set", &file]).well();
    until("nothing of ours is left", || catalogue.has().is_empty());
    until("nor in the list", || {
        listed(&appliance)["items"].as_array().unwrap().is_empty()
    });
    let file = appliance.file("site.toml", site(Some(&catalogue.url)));
    appliance.ask(&["site", "set", &file]).well();
    until("it is back, by the token that was kept", || catalogue.has() == there);

    // Hands off: it is not to be found.
    appliance.ask(&["node", "maintenance", "web-1", "on"]).well();
    until("it is taken out", || catalogue.has().is_empty());

    // And not to be brought back under somebody's hands, unless that is said.
    let refused = appliance.ask(&["node", "recover", "web-1"]).failed(6);
    assert!(refused.contains("--end-maintenance"), "{refused}");
    appliance.ask(&["node", "recover", "web-1", "--end-maintenance"]).well();
    let shown = appliance.ask(&["--json", "node", "show", "web-1"]).well();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_ne!(shown["state"], "maintenance");
}
