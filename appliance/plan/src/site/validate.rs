//! Holds a document against the schema: every problem at once, and what is sound of it as JSON.

use serde_json::{Map, Value};

use super::formats;
use super::problem::{Problems, did_you_mean, known};
use super::tree::{Kind, Tree};

/// A walk along document and schema.
pub(super) struct Validator<'a, 'p> {
    pub(super) schema: &'a Value,
    pub(super) problems: &'p mut Problems<'a>,
    /// An element of an array was left out, so that indexes of what is sound are not those of the text.
    pub(super) shifted: bool,
}

/// Where a walk is.
struct At<'t> {
    tree: &'t Tree,
    field: String,
    place: Option<std::ops::Range<usize>>,
}

impl<'a> Validator<'a, '_> {
    /// The sound part of a document.
    pub(super) fn run(&mut self, tree: &Tree) -> Option<Value> {
        let at = At {
            tree,
            field: String::new(),
            place: None,
        };
        self.value(self.schema, &at)
    }

    fn add(&mut self, at: &At<'_>, message: String, suggestion: Option<String>) {
        self.problems.add(at.place.clone(), &at.field, message, suggestion);
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let Some(reference) = schema.get("$ref").and_then(Value::as_str) else {
            return schema;
        };
        self.schema.pointer(reference.trim_start_matches('#')).unwrap_or(schema)
    }

    fn value(&mut self, schema: &'a Value, at: &At<'_>) -> Option<Value> {
        let schema = self.resolve(schema);
        if let Some(choices) = schema
            .get("anyOf")
            .or_else(|| schema.get("oneOf"))
            .and_then(Value::as_array)
        {
            return self.choice(choices, at);
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            return self.word(&words, at);
        }
        let types = types_of(schema);
        if !types.is_empty() && !types.iter().any(|name| fits(name, &at.tree.kind)) {
            let wanted: Vec<&str> = types
                .iter()
                .map(|name| words_for(name))
                .filter(|name| !name.is_empty())
                .collect();
            self.add(
                at,
                format!("must be {}, not {}", wanted.join(" or "), found(&at.tree.kind)),
                None,
            );
            return None;
        }
        match &at.tree.kind {
            Kind::Table(_) => self.table(schema, at),
            Kind::List(list) => self.list(schema, list, at),
            Kind::Leaf(value) => self.leaf(schema, value, at),
        }
    }

    fn choice(&mut self, choices: &'a [Value], at: &At<'_>) -> Option<Value> {
        let words: Vec<&str> = choices
            .iter()
            .flat_map(|choice| {
                let one = choice.get("const").and_then(Value::as_str);
                let many = choice.get("enum").and_then(Value::as_array);
                one.into_iter()
                    .chain(many.into_iter().flatten().filter_map(Value::as_str))
            })
            .collect();
        if !words.is_empty() {
            return self.word(&words, at);
        }
        let resolved = choices.iter().map(|choice| self.resolve(choice));
        let choices: Vec<&'a Value> = resolved.filter(|choice| types_of(choice) != ["null"]).collect();
        let fitting = choices.iter().find(|choice| {
            let types = types_of(choice);
            types.is_empty() || types.iter().any(|name| fits(name, &at.tree.kind))
        });
        match fitting.or(choices.first()) {
            Some(choice) => self.value(choice, at),
            None => None,
        }
    }

    fn word(&mut self, words: &[&str], at: &At<'_>) -> Option<Value> {
        match at.tree.text() {
            Some(text) if words.contains(&text) => Some(Value::from(text)),
            Some(text) => {
                let message = format!("`{text}` is not possible here; {}", known(words.iter().copied()));
                self.add(at, message, did_you_mean(text, words.iter().copied()));
                None
            }
            None => {
                let message = format!(
                    "must be text, not {}; {}",
                    found(&at.tree.kind),
                    known(words.iter().copied())
                );
                self.add(at, message, None);
                None
            }
        }
    }

    fn table(&mut self, schema: &'a Value, at: &At<'_>) -> Option<Value> {
        let Kind::Table(table) = &at.tree.kind else { return None };
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        let mut sound = Map::new();
        for (name, entry) in table {
            let field = if at.field.is_empty() {
                name.clone()
            } else {
                format!("{}.{name}", at.field)
            };
            let own = properties.and_then(|properties| properties.get(name));
            let place = match entry.value.kind {
                Kind::Leaf(_) if own.or(others).is_some() => entry.value.span.clone(),
                _ => entry.key.clone(),
            };
            let inner = At {
                tree: &entry.value,
                field,
                place: place.or_else(|| at.place.clone()),
            };
            match own.or(others) {
                Some(schema) => {
                    if let Some(value) = self.value(schema, &inner) {
                        sound.insert(name.clone(), value);
                    }
                }
                None => {
                    let names = || properties.into_iter().flat_map(Map::keys).map(String::as_str);
                    let suggestion = did_you_mean(name, names()).unwrap_or_else(|| known(names()));
                    self.add(&inner, "is not known here".to_owned(), Some(suggestion));
                }
            }
        }
        let mut whole = true;
        for name in schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !table.contains_key(name) {
                self.add(at, format!("`{name}` is missing"), None);
            }
            whole &= sound.contains_key(name);
        }
        // Without its version the document is still worth a look.
        if at.field.is_empty() && !whole {
            sound.insert("version".to_owned(), Value::from(1));
            whole = true;
        }
        whole.then_some(Value::Object(sound))
    }

    fn list(&mut self, schema: &'a Value, list: &[Tree], at: &At<'_>) -> Option<Value> {
        let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        if (list.len() as u64) < least {
            self.add(at, format!("must have at least {least} element"), None);
        }
        let mut sound = Vec::with_capacity(list.len());
        for (index, tree) in list.iter().enumerate() {
            let field = format!("{}[{index}]", at.field);
            let inner = At {
                tree,
                field,
                place: tree.span.clone().or_else(|| at.place.clone()),
            };
            match schema.get("items") {
                Some(items) => match self.value(items, &inner) {
                    Some(value) => sound.push(value),
                    None => self.shifted = true,
                },
                None => self.shifted = true,
            }
        }
        Some(Value::Array(sound))
    }

    fn leaf(&mut self, schema: &'a Value, value: &Value, at: &At<'_>) -> Option<Value> {
        if let (Some(format), Some(text)) = (schema.get("format").and_then(Value::as_str), value.as_str())
            && let Err(refusal) = formats::check(format, text)
        {
            self.add(at, refusal.message, refusal.suggestion);
            return None;
        }
        if let Some(number) = value.as_i64() {
            let (least, most) = (
                schema.get("minimum").and_then(Value::as_f64),
                schema.get("maximum").and_then(Value::as_f64),
            );
            let most = most.or_else(|| width(schema.get("format").and_then(Value::as_str)));
            if least.is_some_and(|least| (number as f64) < least) || most.is_some_and(|most| number as f64 > most) {
                let range = match (least, most) {
                    (Some(least), Some(most)) => format!("between {least} and {most}"),
                    (Some(least), None) => format!("at least {least}"),
                    (None, most) => format!("at most {}", most.unwrap_or(f64::MAX)),
                };
                self.add(at, format!("must be {range}, not {number}"), None);
                return None;
            }
        }
        Some(value.clone())
    }
}

/// The greatest number of an integer format.
fn width(format: Option<&str>) -> Option<f64> {
    match format? {
        "uint16" => Some(f64::from(u16::MAX)),
        "uint32" => Some(f64::from(u32::MAX)),
        "int32" => Some(f64::from(i32::MAX)),
        _ => None,
    }
}

fn types_of(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn fits(name: &str, kind: &Kind) -> bool {
    match kind {
        Kind::Table(_) => name == "object",
        Kind::List(_) => name == "array",
        Kind::Leaf(Value::String(_)) => name == "string",
        Kind::Leaf(Value::Bool(_)) => name == "boolean",
        Kind::Leaf(Value::Number(number)) => name == "integer" && number.is_i64() || name == "number",
        Kind::Leaf(_) => false,
    }
}

fn words_for(name: &str) -> &'static str {
    match name {
        "object" => "a table",
        "array" => "an array",
        "string" => "text in quotes",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        _ => "",
    }
}

const fn found(kind: &Kind) -> &'static str {
    match kind {
        Kind::Table(_) => "a table",
        Kind::List(_) => "an array",
        Kind::Leaf(Value::String(_)) => "text",
        Kind::Leaf(Value::Bool(_)) => "true or false",
        Kind::Leaf(Value::Number(_)) => "a number",
        Kind::Leaf(_) => "a number that is too large",
    }
}
