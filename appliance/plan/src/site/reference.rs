//! The reference part of `docs/site.md`, from the schema.

use std::fmt::Write as _;

use serde_json::Value;

use super::schema;
use crate::rules;

/// One section of the reference: its heading, and where its schema is.
const SECTIONS: &[(&str, &str)] = &[
    ("The top of the file", "#"),
    ("`[os.NAME]`", "#/$defs/WantedSystem"),
    ("`[limits]`", "#/$defs/RunLimits"),
    ("`[repository.NAME]`", "#/$defs/Repository"),
    ("`[network.NAME]`", "#/$defs/Network"),
    ("`[role.NAME]`", "#/$defs/Role"),
    ("`root = { .. }`", "#/$defs/Root"),
    ("`burn_in = { .. }`", "#/$defs/BurnIn"),
    ("`[role.NAME.bmc]`", "#/$defs/Bmc"),
    ("`[[role.NAME.network]]`", "#/$defs/RoleNetwork"),
    ("`[[role.NAME.file]]`", "#/$defs/File"),
    ("`[[role.NAME.step]]`", "#/$defs/Step"),
    ("`[[rule]]`", "#/$defs/Rule"),
    ("`[[machine]]`", "#/$defs/Machine"),
    ("`expect = { .. }`", "#/$defs/Materials"),
    ("`[handoff]`", "#/$defs/Handoff"),
    ("`[handoff.puppet]`", "#/$defs/PuppetServer"),
    ("`[handoff.salt]`", "#/$defs/SaltMaster"),
    ("`[handoff.chef]`", "#/$defs/ChefServer"),
    ("`[handoff.consul]`", "#/$defs/Consul"),
    ("`[handoff.ceph]`", "#/$defs/Ceph"),
    ("`[handoff.role.NAME]`", "#/$defs/HandoffRole"),
];

/// The reference as Markdown.
pub fn reference() -> String {
    let schema = schema();
    let mut out = String::new();
    for (heading, pointer) in SECTIONS {
        let Some(section) = schema.pointer(pointer.trim_start_matches('#')) else {
            continue;
        };
        let _ = write!(out, "### {heading}\n\n");
        if let Some(text) = section.get("description").and_then(Value::as_str) {
            let _ = write!(out, "{}\n\n", joined(text));
        }
        out.push_str("| field | value | default | meaning |\n| --- | --- | --- | --- |\n");
        let required: Vec<&str> = section
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (name, field) in section
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let default = if required.contains(&name.as_str()) {
                "required".to_owned()
            } else {
                default(field)
            };
            let meaning = field
                .get("description")
                .and_then(Value::as_str)
                .map(joined)
                .unwrap_or_default();
            let _ = writeln!(
                out,
                "| `{name}` | {} | {default} | {} |",
                kind(field),
                escaped(&meaning)
            );
        }
        out.push('\n');
    }
    out.push_str("### Names in expressions\n\nBesides these, `gib(N)` and `tib(N)` are so many bytes.\n\n");
    out.push_str("| name | meaning |\n| --- | --- |\n");
    for (name, meaning) in rules::names() {
        let _ = writeln!(out, "| `{name}` | {} |", escaped(meaning));
    }
    out
}

fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}

fn default(field: &Value) -> String {
    match field.get("default") {
        None | Some(Value::Null) => String::new(),
        Some(Value::Array(list)) if list.is_empty() => String::new(),
        Some(Value::Object(_)) => String::new(),
        Some(value) => format!("`{value}`"),
    }
}

/// What a field takes, in words.
fn kind(field: &Value) -> String {
    let resolved = match field.get("$ref").and_then(Value::as_str) {
        Some(reference) => schema().pointer(reference.trim_start_matches('#')).unwrap_or(field),
        None => field,
    };
    for choices in ["oneOf", "anyOf"] {
        if let Some(list) = resolved.get(choices).and_then(Value::as_array) {
            let words: Vec<String> = list
                .iter()
                .filter(|choice| choice.get("type") != Some(&"null".into()))
                .map(kind)
                .collect();
            return words.join(" or ");
        }
    }
    if let Some(word) = resolved.get("const") {
        return format!("`{word}`");
    }
    if let Some(words) = resolved.get("enum").and_then(Value::as_array) {
        return words
            .iter()
            .filter(|word| !word.is_null())
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(" or ");
    }
    let name = match resolved.get("type") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(names)) => names
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| *name != "null")
            .collect::<Vec<_>>()
            .join(" or "),
        _ => String::new(),
    };
    let name = match name.as_str() {
        "array" => format!("list of {}", resolved.get("items").map(kind).unwrap_or_default()),
        "object" => "table".to_owned(),
        "string" => "text".to_owned(),
        "integer" => "number".to_owned(),
        "boolean" => "true or false".to_owned(),
        other => other
            .replace("string", "text")
            .replace("integer", "number")
            .replace("boolean", "true, false"),
    };
    match (resolved.get("minimum"), resolved.get("maximum")) {
        (Some(least), Some(most)) if least != &Value::from(0) => format!("{name} {least} to {most}"),
        _ => name,
    }
}
