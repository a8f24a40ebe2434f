//! Ansible's dynamic inventory: what a script prints for `--list` and `--host NAME` (Ansible Developer Guide,
//! "Developing dynamic inventory").
//!
//! Groups come from role, state and networks; names are made valid, because Ansible warns of others or changes them by
//! itself. Every variable is in `_meta`, so that Ansible asks once and not once per host. The host key is there too:
//! Ansible need not trust on first use either.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rackbar_model::Node;
use serde_json::{Map, Value, json};

use crate::member::{at_port, host_name};

/// A node and what the site file binds to it.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// The node.
    pub node: &'a Node,
    /// Address that SSH is to use, when it is another than the one the node has now.
    pub address: Option<IpAddr>,
    /// Names of the networks it is on.
    pub networks: &'a [String],
}

/// What `--list` prints: groups, and the variables of all hosts. Nodes without a name are known by their id; of two
/// with the same name the second has its id behind it.
pub fn ansible(hosts: &[Host<'_>]) -> Value {
    let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut variables = Map::new();
    for (name, host) in named(hosts) {
        for group in groups_of(host) {
            groups.entry(group).or_default().insert(name.clone());
        }
        variables.insert(name, host_variables(host));
    }
    let mut list = Map::new();
    list.insert("_meta".into(), json!({ "hostvars": variables }));
    for (group, hosts) in groups {
        list.insert(group, json!({ "hosts": hosts }));
    }
    Value::Object(list)
}

/// What `--host NAME` prints: the variables of one host; an empty object for a name that is not known, as Ansible wants it.
pub fn ansible_host(hosts: &[Host<'_>], name: &str) -> Value {
    let host = named(hosts).into_iter().find(|(known, _)| known == name);
    host.map_or_else(|| json!({}), |(_, host)| host_variables(host))
}

fn named<'a, 'b>(hosts: &'a [Host<'b>]) -> Vec<(String, &'a Host<'b>)> {
    let mut taken = BTreeSet::new();
    let name = |host: &'a Host<'b>| {
        let node = host.node;
        let given = host_name(&node.name);
        let name = match given.is_empty() {
            true => node.id.to_string(),
            false if taken.contains(&given) => format!("{given}-{}", node.id),
            false => given,
        };
        taken.insert(name.clone());
        (name, host)
    };
    hosts.iter().map(name).collect()
}

/// The name of a group: prefix and name, made of letters, digits and `_` alone, as Ansible's check of group names wants.
pub fn group_name(prefix: &str, name: &str) -> String {
    let valid = name.chars().map(|c| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    });
    format!("{prefix}_{}", valid.collect::<String>())
}

fn groups_of(host: &Host<'_>) -> Vec<String> {
    let node = host.node;
    let mut groups = vec!["rackbar".to_owned(), group_name("state", &state_word(node))];
    groups.extend(node.role.iter().map(|role| group_name("role", role)));
    groups.extend(host.networks.iter().map(|network| group_name("network", network)));
    groups
}

/// The state's name as the API writes it: a text, or the one key of an object.
fn state_word(node: &Node) -> String {
    match serde_json::to_value(&node.state) {
        Ok(Value::String(word)) => word,
        Ok(Value::Object(object)) => object.keys().next().cloned().unwrap_or_default(),
        _ => "unknown".into(),
    }
}

fn host_variables(host: &Host<'_>) -> Value {
    let node = host.node;
    let mut variables = Map::new();
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            variables.insert(key.into(), value);
        }
    };
    let address = host.address.or(node.address);
    put("ansible_host", json!(address));
    if let Some(installed) = &node.installed {
        put("rackbar_image", json!(installed.image));
        put("rackbar_image_sha256", json!(installed.sha256));
        put("rackbar_installed_at", json!(installed.at));
    }
    if let Some(adopted) = &node.adopted {
        put("rackbar_adopted_system", json!(adopted.system.name));
        put("rackbar_adopted_at", json!(adopted.at));
    }
    if let Some(system) = node.system() {
        if !system.user.is_empty() {
            put("ansible_user", json!(system.user));
        }
        if system.port != 22 {
            put("ansible_port", json!(system.port));
        }
        if let (Some(address), false) = (address, system.host_key.is_empty()) {
            // Without its comment, which is the third word.
            let key: Vec<_> = system.host_key.split_whitespace().take(2).collect();
            let host = at_port(&address.to_string(), system.port);
            put("rackbar_known_hosts", json!(format!("{host} {}", key.join(" "))));
        }
    }
    put("rackbar_id", json!(node.id));
    put("rackbar_name", json!(node.name));
    put("rackbar_state", json!(state_word(node)));
    put("rackbar_role", json!(node.role));
    put("rackbar_networks", json!(host.networks));
    put("rackbar_macs", json!(node.macs));
    put("rackbar_bmc", json!(node.bmc_address));
    put("rackbar_drift", json!(node.drift));
    if let Some(inventory) = &node.inventory {
        put("rackbar_serial", json!(inventory.system.serial));
        put("rackbar_manufacturer", json!(inventory.system.manufacturer));
        put("rackbar_product", json!(inventory.system.product));
        put("rackbar_cpu_threads", json!(inventory.cpu.threads));
        put("rackbar_memory_bytes", json!(inventory.memory.total_bytes));
    }
    Value::Object(variables)
}
