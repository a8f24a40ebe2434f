//! Puppet: the external node classifier's answer, external facts, and the certificate request's attributes.
//!
//! An ENC that ends with an error fails the catalogue of the node, so a node that we do not know gets an empty
//! classification: Puppet then does what its own site manifest says.

use serde_json::{Map, Value, json};

use crate::member::Rack;
use crate::yaml;

/// What an external node classifier prints for a node (Puppet documentation, "Writing external node classifiers").
pub fn enc(rack: &Rack<'_>, certname: &str) -> String {
    let Some(member) = rack.find(certname) else {
        return yaml::document(&json!({ "classes": {}, "parameters": {} }));
    };
    let mut parameters = member.parameters();
    // Puppet reads these as top-scope variables: `$rackbar_role`.
    let facts = member.facts();
    parameters.extend(facts.into_iter().map(|(key, value)| (format!("rackbar_{key}"), value)));
    let classes = member
        .role
        .map(|role| role.puppet_classes.as_slice())
        .unwrap_or_default();
    let classes: Map<String, Value> = classes.iter().map(|class| (class.clone(), json!({}))).collect();
    let mut answer = json!({ "classes": classes, "parameters": parameters });
    let of_site = rack.handoff().and_then(|handoff| handoff.puppet.as_ref());
    let environment = member.role.and_then(|role| role.puppet_environment.as_ref());
    if let Some(environment) = environment.or(of_site.and_then(|puppet| puppet.environment.as_ref())) {
        answer["environment"] = json!(environment);
    }
    yaml::document(&answer)
}

/// External facts of a node, for a file in `facts.d`. All under one name: an external fact takes the place of a core fact
/// of the same name.
pub fn external_facts(rack: &Rack<'_>, name: &str) -> Value {
    match rack.find(name) {
        Some(member) => json!({ "rackbar": member.facts() }),
        None => json!({}),
    }
}

/// The content of `csr_attributes.yaml`: the token, and our id of the machine as `pp_uuid`, which becomes a trusted fact.
pub fn csr_attributes(token: &str, node: &str) -> String {
    yaml::document(&json!({
        "custom_attributes": { "1.2.840.113549.1.9.7": token },
        "extension_requests": { "pp_uuid": node },
    }))
}
