//! What a service catalogue outside answers to the registrar: a node with its services, or the words of a refusal.

use rackbar_handoff::consul::{OURS, ours, registered, service_ids};
use rackbar_model::NodeId;
use rackbar_registry::{read_node, said};
use serde_json::{Value, json};

/// The machine of the kept inputs, and one that never is whose node it is.
const MACHINE: &str = "00000001-0000-0000-0000-000000000000";
const ANOTHER: &str = "00000002-0000-0000-0000-000000000000";

/// The body of an answer, as one and as a refusal.
pub(super) fn answer(data: &[u8]) {
    let words = said(data);
    assert!(
        words.chars().count() <= 200 && !words.contains(char::is_control),
        "{words:?}"
    );
    let Ok(mut answer) = read_node(data) else { return };
    let [Ok(machine), Ok(another)] = [MACHINE, ANOTHER].map(str::parse::<NodeId>) else {
        return;
    };
    if ours(&answer, machine) && !answer.is_null() {
        assert!(!ours(&answer, another), "two machines' own: {answer}");
    }
    let ids = service_ids(&answer);
    let id = format!("api-{machine}");
    let body = json!({
        "Node": "n1", "Address": "10.10.0.5", "NodeMeta": { OURS: machine },
        "Service": { "ID": id, "Service": "api", "Address": "10.10.0.5", "Port": 6443 },
    });
    if registered(&answer, &body) {
        assert!(ids.contains(&id), "registered, but not there: {answer}");
    }
    put_in(&mut answer, &id, &body);
}

/// What was put in is found, and no more once it is taken out.
fn put_in(answer: &mut Value, id: &str, body: &Value) {
    let there = ["Node", "Services"].map(|key| answer.get(key).is_some_and(Value::is_object));
    if there != [true, true] {
        return;
    }
    answer["Node"]["Address"] = body["Address"].clone();
    answer["Services"][id] = body["Service"].clone();
    assert!(registered(answer, body), "put in, but not registered: {answer}");
    if let Some(services) = answer["Services"].as_object_mut() {
        services.remove(id);
    }
    assert!(!registered(answer, body), "taken out, but registered: {answer}");
}
