//! What a catalogue may answer: anything at all, by bytes and by shape, and nothing of it is a panic, a line of more than a
//! line's length, or somebody else's entry taken for ours.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

use proptest::collection::vec;
use proptest::prelude::*;
use rackbar_handoff::consul::{OURS, ours, registered, service_ids};
use rackbar_model::NodeId;
use rackbar_registry::{read_node, said};
use serde_json::{Map, Value, json};

const ID: NodeId = NodeId([7; 16]);
const OTHER: NodeId = NodeId([8; 16]);

/// What we want registered.
fn body() -> Value {
    let id = format!("api-{ID}");
    json!({
        "Node": "n1", "Address": "10.10.0.5",
        "Service": { "ID": id, "Service": "api", "Address": "10.10.0.5", "Port": 6443 },
    })
}

/// Keys that are looked for, and others.
fn key() -> impl Strategy<Value = String> {
    let words = [
        "Node", "Meta", "Services", "Address", "Service", "ID", "Port", OURS, "", "/", "~1",
    ];
    let words = words.map(str::to_owned).to_vec();
    prop_oneof![
        proptest::sample::select(words),
        Just(format!("api-{ID}")),
        any::<String>()
    ]
}

/// Any value, with keys and texts that matter in places where they do not belong, too.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        Just(json!(6443)),
        Just(json!("10.10.0.5")),
        Just(json!(ID)),
        any::<String>().prop_map(Value::String),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            vec((key(), inner), 0..6).prop_map(|all| Value::Object(Map::from_iter(all))),
        ]
    })
}

/// A node as a catalogue has it, with any parts.
fn node() -> impl Strategy<Value = Value> {
    let part = || prop_oneof![value(), Just(json!({ OURS: ID })), Just(json!({ OURS: OTHER }))];
    (part(), value(), vec((key(), value()), 0..4)).prop_map(|(meta, address, services)| {
        json!({ "Node": { "Meta": meta, "Address": address }, "Services": Map::from_iter(services) })
    })
}

/// Everything that the registrar does with an answer, and what must hold.
fn walk(answer: &Value) {
    let body = body();
    let (mine, others) = (ours(answer, ID), ours(answer, OTHER));
    assert!(answer.is_null() || !(mine && others), "{answer}");
    assert_eq!(mine, answer.is_null() || answer["Node"]["Meta"][OURS] == json!(ID));
    let ids = service_ids(answer);
    let there = answer["Services"].as_object().map_or(0, Map::len);
    assert_eq!(ids.len(), there);
    assert!(
        !registered(answer, &body) || ids.contains(&format!("api-{ID}")),
        "{answer}"
    );
    // A body of ours always has a service; one without is registered nowhere.
    assert!(!registered(answer, answer) || answer.get("Service").is_some());
}

proptest! {
    #[test]
    fn whatever_bytes_a_catalogue_answers_nothing_panics(bytes in vec(any::<u8>(), 0..600)) {
        let words = said(&bytes);
        prop_assert!(words.chars().count() <= 200 && !words.contains(char::is_control));
        if let Ok(answer) = read_node(&bytes) {
            walk(&answer);
        }
    }

    #[test]
    fn whatever_shape_an_answer_has_only_our_own_entry_is_ours(answer in prop_oneof![value(), node()]) {
        let read = read_node(answer.to_string().as_bytes()).unwrap();
        walk(&read);
        prop_assert_eq!(read, answer);
    }

    #[test]
    fn what_was_put_in_is_registered_until_anything_of_it_is_changed(answer in node(), changed in 0..4_usize) {
        let (mut answer, body) = (answer, body());
        let id = format!("api-{ID}");
        answer["Node"]["Address"] = body["Address"].clone();
        answer["Services"][&id] = body["Service"].clone();
        prop_assert!(registered(&answer, &body));
        match ["Service", "Address", "Port"].get(changed) {
            Some(field) => answer["Services"][&id][*field] = Value::Null,
            None => answer["Node"]["Address"] = json!("10.10.0.6"),
        }
        prop_assert!(!registered(&answer, &body));
    }
}

#[test]
fn an_answer_that_is_nested_without_end_is_refused_in_words() {
    for open in ["[", "{\"Services\":"] {
        let refused = read_node(open.repeat(100_000).as_bytes()).unwrap_err();
        assert!(
            refused.contains("no JSON") && refused.contains("recursion"),
            "{refused}"
        );
    }
}
