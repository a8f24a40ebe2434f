//! Services of ready machines in a Consul-compatible catalogue (HTTP API version 1), as wanted state: from what is wanted,
//! and what we registered before, come the requests to make.
//!
//! The catalogue is written to directly (`/v1/catalog/register`), as for any machine that runs no agent of its own:
//! `external-node` in the node's metadata says so, and `rackbar-node` says that it is ours to change and to take away.

use std::collections::BTreeMap;

use rackbar_model::NodeId;
use serde_json::{Value, json};

use crate::member::Rack;

/// Metadata by which a registration is known as ours.
pub const OURS: &str = "rackbar-node";

/// What is registered for one machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registration {
    /// Its name in the catalogue.
    pub node: String,
    /// One request body per service (`PUT /v1/catalog/register`), by the service's id.
    pub services: BTreeMap<String, Value>,
}

/// What is wanted: every ready machine whose role has services. Others, also those in maintenance, are not to be found.
pub fn wanted(rack: &Rack<'_>) -> BTreeMap<NodeId, Registration> {
    let datacenter = rack
        .handoff()
        .and_then(|handoff| handoff.consul.as_ref()?.datacenter.clone());
    let mut wanted = BTreeMap::new();
    for member in rack.members() {
        let (Some(role), Some(address)) = (member.role, member.address) else {
            continue;
        };
        if !member.ready() || role.services.is_empty() {
            continue;
        }
        let id = member.node.id;
        let one = |(service, port): (&String, &u16)| {
            let service_id = format!("{service}-{id}");
            let mut body = json!({
                "Node": member.name, "Address": address, "ID": id,
                "NodeMeta": { "external-node": "true", "external-probe": "false", OURS: id, "rackbar-site": rack.name },
                "Service": {
                    "ID": service_id, "Service": service, "Address": address, "Port": port,
                    "Tags": ["rackbar"], "Meta": { "rackbar-role": member.node.role },
                },
            });
            if let Some(datacenter) = &datacenter {
                body["Datacenter"] = json!(datacenter);
            }
            (service_id, body)
        };
        let services = role.services.iter().map(one).collect();
        wanted.insert(
            id,
            Registration {
                node: member.name.clone(),
                services,
            },
        );
    }
    wanted
}

/// Whether a node of the catalogue, as `GET /v1/catalog/node/NAME` gives it, may be written to for this machine: it is
/// not there, or it is this machine's. Anything else is somebody else's.
pub fn ours(answer: &Value, id: NodeId) -> bool {
    answer.is_null() || answer.pointer("/Node/Meta").and_then(|meta| meta.get(OURS)) == Some(&json!(id))
}

/// Ids of the services that the catalogue has for a node, from `GET /v1/catalog/node/NAME`.
pub fn service_ids(answer: &Value) -> Vec<String> {
    let services = answer.get("Services").and_then(Value::as_object);
    services.into_iter().flatten().map(|(id, _)| id.clone()).collect()
}

/// True when the catalogue has this service as it is wanted.
pub fn registered(answer: &Value, body: &Value) -> bool {
    let Some(wanted) = body.get("Service") else {
        return false;
    };
    let id = wanted.get("ID").and_then(Value::as_str).unwrap_or_default();
    let found = answer.get("Services").and_then(|services| services.get(id));
    let same = |key: &str| found.and_then(|found| found.get(key)) == wanted.get(key);
    let address = answer.pointer("/Node/Address") == body.get("Address");
    address && ["Service", "Address", "Port"].into_iter().all(same)
}
