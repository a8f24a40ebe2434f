//! Chef Infra: a node object, the attributes of its first run, and its client's configuration. There is no validator: the
//! client's key is made here, its public half goes to the server before the machine has the private one.

use rackbar_plan::site::ChefServer;
use serde_json::{Value, json};

use crate::facts;
use crate::member::{Member, Rack};

/// A node object as `knife node from file` takes it. Without a policy for a machine that we do not know: the server then
/// keeps what others decide.
pub fn node(rack: &Rack<'_>, name: &str) -> Value {
    let Some(member) = rack.find(name) else {
        return json!({ "name": name, "chef_type": "node", "json_class": "Chef::Node", "normal": {}, "run_list": [] });
    };
    let mut object = json!({
        "name": member.name, "chef_type": "node", "json_class": "Chef::Node",
        "chef_environment": "_default", "run_list": [],
        "normal": attributes(&member), "automatic": facts::ohai(member.node, &member.fqdn),
    });
    if let Some((policy, group)) = policy(rack, &member) {
        object["policy_name"] = json!(policy);
        object["policy_group"] = json!(group);
        if let Some(object) = object.as_object_mut() {
            // A node has a policy or an environment, and never both.
            object.remove("chef_environment");
        }
    }
    object
}

/// Attributes for `chef-client -j` at the first run. Empty for a machine that we do not know, which chef-client takes.
pub fn first_boot(rack: &Rack<'_>, name: &str) -> Value {
    let Some(member) = rack.find(name) else {
        return json!({});
    };
    let mut first = attributes(&member);
    if let Some((policy, group)) = policy(rack, &member) {
        first["policy_name"] = json!(policy);
        first["policy_group"] = json!(group);
    }
    first
}

fn attributes(member: &Member<'_>) -> Value {
    let mut attributes = member.parameters();
    attributes.insert("rackbar".into(), Value::Object(member.facts()));
    Value::Object(attributes)
}

fn policy<'a>(rack: &Rack<'a>, member: &Member<'a>) -> Option<(&'a str, &'a str)> {
    let role = member.role?;
    let of_site = rack.handoff()?.chef.as_ref()?.policy_group.as_deref();
    let group = role.chef_policy_group.as_deref().or(of_site)?;
    let policy = role.chef_policy.as_deref().or(member.node.role.as_deref())?;
    Some((policy, group))
}

/// The client's `client.rb`.
pub fn client_rb(server: &ChefServer, name: &str) -> String {
    let text = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    format!(
        "chef_server_url {}\nnode_name {}\nclient_key '/etc/chef/client.pem'\nssl_verify_mode :verify_peer\n",
        text(&server.url),
        text(name)
    )
}
