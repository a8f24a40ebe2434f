//! Salt: a roster for salt-ssh, pillar, and what a minion is given.

use rackbar_plan::site::SaltMaster;
use serde_json::{Map, Value, json};

use crate::member::Rack;
use crate::yaml;

/// A flat roster (Salt documentation, "Salt Rosters"): every machine that has an address, by its name.
pub fn roster(rack: &Rack<'_>) -> String {
    let mut roster = Map::new();
    for member in rack.members() {
        let Some(address) = member.address else {
            continue;
        };
        let grains = json!({ "rackbar": member.facts() });
        let root = member.user() == "root";
        let mut host = json!({ "host": address, "user": member.user(), "minion_opts": { "grains": grains } });
        if !root {
            host["sudo"] = json!(true);
        }
        if let Some(port) = member.port() {
            host["port"] = json!(port);
        }
        roster.insert(member.name.clone(), host);
    }
    yaml::document(&Value::Object(roster))
}

/// The pillar of a minion, as `cmd_yaml` or a file of the pillar tree takes it. Empty for one that we do not know: Salt
/// then goes on with what other pillars say.
pub fn pillar(rack: &Rack<'_>, minion: &str) -> String {
    let Some(member) = rack.find(minion) else {
        return yaml::document(&json!({}));
    };
    let mut pillar = member.parameters();
    pillar.insert("rackbar".into(), Value::Object(member.facts()));
    yaml::document(&Value::Object(pillar))
}

/// The minion's configuration, for a file in `minion.d`.
pub fn minion_configuration(master: &SaltMaster, id: &str) -> String {
    let mut configuration = json!({ "master": master.master, "id": id });
    if let Some(fingerprint) = &master.fingerprint {
        configuration["master_finger"] = json!(fingerprint);
    }
    yaml::document(&configuration)
}
