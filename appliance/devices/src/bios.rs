//! Firmware settings ("BIOS attributes"): what a machine has, what its registry allows, and the check of what is wanted.
//!
//! Pure: how they are fetched and sent is the business of `redfish`. Registries follow DMTF's DSP8010 schema
//! `AttributeRegistry`; a machine without one is taken at the types of its present values.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// All settings of a machine.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct BiosAttributes {
    /// Name of the attribute registry, when the firmware has one.
    pub registry: Option<String>,
    /// Settings by name.
    pub attributes: BTreeMap<String, BiosAttribute>,
    /// What the firmware said when it last took settings over (`@Redfish.Settings/Messages`).
    pub messages: Vec<String>,
}

impl BiosAttributes {
    /// The value in force, as text.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(|attribute| attribute.value.as_str())
    }
}

/// One setting.
#[derive(Clone, PartialEq, Debug)]
pub struct BiosAttribute {
    /// The value in force, as text; empty when the firmware does not tell it (passwords).
    pub value: String,
    /// What the registry says of it, when there is one.
    pub rule: Option<BiosRule>,
    kind: Plain,
}

/// What the registry says of a setting.
#[derive(Clone, PartialEq, Debug)]
pub struct BiosRule {
    /// Type and allowed values.
    pub kind: BiosKind,
    /// Cannot be changed.
    pub read_only: bool,
    /// Its name on the set-up screen.
    pub label: Option<String>,
}

/// Type and allowed values of a setting.
#[derive(Clone, PartialEq, Debug)]
pub enum BiosKind {
    /// One of these.
    Choice(Vec<String>),
    /// Text.
    Text {
        /// Fewest characters.
        least: Option<u64>,
        /// Most characters.
        most: Option<u64>,
    },
    /// A whole number.
    Number {
        /// Smallest.
        least: Option<i64>,
        /// Largest.
        most: Option<i64>,
        /// Only multiples of this above the smallest.
        step: Option<i64>,
    },
    /// `true` or `false`.
    Switch,
    /// A password: never shown, not set here.
    Password,
}

/// JSON type of a present value: what a change is sent as where no registry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plain {
    Text,
    Number,
    Switch,
}

/// When a change comes into force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applies {
    /// Already so: nothing was sent.
    Already,
    /// With the next reset of the machine.
    OnReset,
    /// At once.
    Immediately,
}

/// Settings that were sent and wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staged {
    /// What was sent: name and value, only those that differed.
    pub sent: BTreeMap<String, String>,
    /// When they come into force.
    pub applies: Applies,
    /// The task the BMC made of it, when it says one.
    pub task: Option<String>,
}

/// A registry by setting name.
pub(crate) type Rules = BTreeMap<String, BiosRule>;

/// Reads an attribute registry. What it does not understand it leaves out.
pub(crate) fn rules(registry: &Value) -> Rules {
    let entries = registry
        .pointer("/RegistryEntries/Attributes")
        .and_then(Value::as_array);
    let entries = entries.into_iter().flatten();
    entries
        .filter_map(|entry| Some((entry.get("AttributeName")?.as_str()?.to_owned(), rule(entry)?)))
        .collect()
}

fn rule(entry: &Value) -> Option<BiosRule> {
    let whole = |key: &str| entry.get(key).and_then(Value::as_i64);
    let count = |key: &str| entry.get(key).and_then(Value::as_u64);
    let flag = |key: &str| entry.get(key).and_then(Value::as_bool) == Some(true);
    let kind = match entry.get("Type")?.as_str()?.to_ascii_lowercase().as_str() {
        "enumeration" => {
            let values = entry.get("Value").and_then(Value::as_array).into_iter().flatten();
            BiosKind::Choice(values.filter_map(|value| value.get("ValueName").map(text)).collect())
        }
        "string" => BiosKind::Text {
            least: count("MinLength"),
            most: count("MaxLength"),
        },
        "integer" => BiosKind::Number {
            least: whole("LowerBound"),
            most: whole("UpperBound"),
            step: whole("ScalarIncrement").filter(|step| *step > 1),
        },
        "boolean" => BiosKind::Switch,
        "password" => BiosKind::Password,
        _ => return None,
    };
    Some(BiosRule {
        kind,
        read_only: flag("ReadOnly") || flag("Immutable"),
        label: entry.get("DisplayName").and_then(Value::as_str).map(str::to_owned),
    })
}

/// The settings in a `Bios` resource. Firmware from before the schema has them at its top level, not in `Attributes`.
pub(crate) fn attributes(bios: &Value, rules: &Rules) -> BTreeMap<String, BiosAttribute> {
    let one = |(name, value): (&String, &Value)| {
        let kind = match value {
            Value::String(_) | Value::Null => Plain::Text,
            Value::Number(_) => Plain::Number,
            Value::Bool(_) => Plain::Switch,
            Value::Array(_) | Value::Object(_) => return None,
        };
        let attribute = BiosAttribute {
            value: text(value),
            rule: rules.get(name).cloned(),
            kind,
        };
        Some((name.clone(), attribute))
    };
    table(bios)
        .into_iter()
        .flatten()
        .filter(not_annotation)
        .filter_map(one)
        .collect()
}

/// The settings as a `Bios` or settings resource holds them.
pub(crate) fn table(bios: &Value) -> Option<&Map<String, Value>> {
    match bios.get("Attributes") {
        Some(attributes) => attributes.as_object(),
        None if is_flat(bios) => bios.as_object(),
        None => None,
    }
}

/// True for the older shape without `Attributes`: told from an empty new one by having more than the schema's own words.
pub(crate) fn is_flat(bios: &Value) -> bool {
    bios.get("Attributes").is_none()
        && bios
            .as_object()
            .is_some_and(|map| map.iter().filter(not_annotation).any(|(_, value)| !value.is_object()))
}

fn not_annotation((name, _): &(&String, &Value)) -> bool {
    let schema = [
        "Id",
        "Name",
        "Description",
        "Type",
        "Modified",
        "SettingsResult",
        "AttributeRegistry",
        "Actions",
        "Links",
        "links",
        "Oem",
        "Status",
    ];
    !name.contains('@') && !name.starts_with('#') && !schema.contains(&name.as_str())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Checks what is wanted against what the machine has, and gives the values as JSON of the right type. All objections
/// come at once, one sentence each.
pub(crate) fn check(
    present: &BTreeMap<String, BiosAttribute>,
    rules: &Rules,
    wanted: &BTreeMap<String, String>,
) -> Result<Map<String, Value>, String> {
    let mut typed = Map::new();
    let mut objections = Vec::new();
    for (name, value) in wanted {
        match one(present, rules, name, value) {
            Ok(json) => {
                typed.insert(name.clone(), json);
            }
            Err(words) => objections.push(words),
        }
    }
    if objections.is_empty() {
        Ok(typed)
    } else {
        Err(objections.join("; "))
    }
}

fn one(present: &BTreeMap<String, BiosAttribute>, rules: &Rules, name: &str, value: &str) -> Result<Value, String> {
    let Some(attribute) = present.get(name) else {
        return Err(if rules.contains_key(name) {
            format!("the registry knows {name}, but this machine does not have it")
        } else {
            format!("there is no setting {name}{}", meant(present.keys(), name))
        });
    };
    let Some(rule) = &attribute.rule else {
        return plain(attribute.kind, name, value);
    };
    // What is so already is not refused: machines hold values that their own registry does not allow.
    if attribute.value == value {
        return plain(attribute.kind, name, value);
    }
    if rule.read_only {
        return Err(format!("{name} is read-only and is {:?}", attribute.value));
    }
    match &rule.kind {
        BiosKind::Choice(values) if values.iter().any(|known| known == value) => Ok(Value::from(value)),
        BiosKind::Choice(values) => Err(format!("{name} is one of {}, not {value:?}", values.join(", "))),
        BiosKind::Text { least, most } => {
            let length = value.chars().count() as u64;
            if least.is_some_and(|least| length < least) || most.is_some_and(|most| length > most) {
                let bound = |bound: &Option<u64>| bound.map_or("any".to_owned(), |bound| bound.to_string());
                return Err(format!(
                    "{name} has {} to {} characters, not {length}",
                    bound(least),
                    bound(most)
                ));
            }
            Ok(Value::from(value))
        }
        BiosKind::Number { least, most, step } => number(name, value, *least, *most, *step),
        BiosKind::Switch => plain(Plain::Switch, name, value),
        BiosKind::Password => Err(format!("{name} is a password; those are not set from a site file")),
    }
}

fn number(name: &str, value: &str, least: Option<i64>, most: Option<i64>, step: Option<i64>) -> Result<Value, String> {
    let Ok(whole) = value.parse::<i64>() else {
        return Err(format!("{name} is a whole number, not {value:?}"));
    };
    if least.is_some_and(|least| whole < least) || most.is_some_and(|most| whole > most) {
        let bound = |bound: Option<i64>| bound.map_or("any".to_owned(), |bound| bound.to_string());
        return Err(format!("{name} is {} to {}, not {whole}", bound(least), bound(most)));
    }
    if let Some(step) = step
        && whole
            .checked_sub(least.unwrap_or(0))
            .and_then(|above| above.checked_rem(step))
            != Some(0)
    {
        return Err(format!(
            "{name} goes up in steps of {step} from {}, so not {whole}",
            least.unwrap_or(0)
        ));
    }
    Ok(Value::from(whole))
}

fn plain(kind: Plain, name: &str, value: &str) -> Result<Value, String> {
    match (kind, value.to_ascii_lowercase().as_str()) {
        (Plain::Text, _) => Ok(Value::from(value)),
        (Plain::Number, _) => number(name, value, None, None, None),
        (Plain::Switch, "true") => Ok(Value::Bool(true)),
        (Plain::Switch, "false") => Ok(Value::Bool(false)),
        (Plain::Switch, _) => Err(format!("{name} is true or false, not {value:?}")),
    }
}

/// A suggestion for a name that does not exist: the closest one, when it is close.
fn meant<'a>(known: impl Iterator<Item = &'a String>, name: &str) -> String {
    let wanted = name.to_lowercase();
    known
        .map(|known| (distance(&known.to_lowercase(), &wanted), known))
        .min()
        .filter(|(far, _)| *far <= 2.max(name.len() / 4))
        .map_or(String::new(), |(_, known)| format!("; did you mean {known}?"))
}

/// Levenshtein's distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (line, from) in a.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let change = diagonal + usize::from(from != *to);
            diagonal = *cell;
            *cell = change.min(diagonal + 1).min(left + 1);
            left = *cell;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn machine() -> (BTreeMap<String, BiosAttribute>, Rules) {
        let registry = json!({"RegistryEntries": {"Attributes": [
            {"AttributeName": "BootMode", "Type": "Enumeration", "Value": [{"ValueName": "Uefi"}, {"ValueName": "Bios"}]},
            {"AttributeName": "Cores", "Type": "Integer", "LowerBound": 0, "UpperBound": 64, "ScalarIncrement": 2},
            {"AttributeName": "Banner", "Type": "String", "MaxLength": 4, "MinLength": 0},
            {"AttributeName": "Smt", "Type": "Boolean"},
            {"AttributeName": "Model", "Type": "String", "ReadOnly": true},
            {"AttributeName": "SysPassword", "Type": "Password"},
            {"AttributeName": "OnlyElsewhere", "Type": "Boolean"}, {"Type": "Boolean"}, {"AttributeName": "Odd", "Type": 3}]}});
        let rules = rules(&registry);
        let bios = json!({"Attributes": {"BootMode": "Uefi", "Cores": 8, "Banner": "hi", "Smt": true, "Model": "R1",
            "SysPassword": null, "Unlisted": 3}});
        (attributes(&bios, &rules), rules)
    }

    fn ask(name: &str, value: &str) -> Result<Value, String> {
        let (present, rules) = machine();
        let wanted = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        check(&present, &rules, &wanted).map(|typed| typed[name].clone())
    }

    #[test]
    fn values_get_the_registrys_type() {
        assert_eq!(ask("BootMode", "Bios"), Ok(json!("Bios")));
        assert_eq!(ask("Cores", "16"), Ok(json!(16)));
        assert_eq!(ask("Smt", "false"), Ok(json!(false)));
        assert_eq!(ask("Unlisted", "4"), Ok(json!(4)), "by its present type");
        assert_eq!(ask("Model", "R1"), Ok(json!("R1")), "read-only, and it is so");
    }

    #[test]
    fn what_the_registry_forbids_is_refused_in_words() {
        for (name, value, words) in [
            ("Bootmode", "Bios", "did you mean BootMode?"),
            ("BootMode", "Legacy", "one of Uefi, Bios"),
            ("Cores", "128", "0 to 64"),
            ("Cores", "7", "steps of 2"),
            ("Cores", "many", "whole number"),
            ("Banner", "hello", "0 to 4 characters"),
            ("Smt", "on", "true or false"),
            ("Model", "R2", "read-only"),
            ("SysPassword", "x", "password"),
            ("OnlyElsewhere", "true", "this machine does not have it"),
        ] {
            let refused = ask(name, value).unwrap_err();
            assert!(refused.contains(words), "{name}={value}: {refused}");
        }
        assert!(!ask("Zebra", "1").unwrap_err().contains("did you mean"));
    }

    #[test]
    fn the_older_flat_shape_is_read() {
        let flat = json!({"@odata.id": "/x", "Id": "Bios", "BootMode": "Uefi", "Links": {}, "AdminName": ""});
        assert!(is_flat(&flat));
        let names: Vec<_> = attributes(&flat, &Rules::new()).into_keys().collect();
        assert_eq!(names, ["AdminName", "BootMode"]);
        assert!(!is_flat(&json!({"Attributes": {}})) && !is_flat(&json!({"Id": "Bios"})));
    }

    proptest! {
        #[test]
        fn the_distance_is_a_distance(a in "[a-c]{0,6}", b in "[a-c]{0,6}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            prop_assert!(distance(&a, &b) <= a.len().max(b.len()));
        }

        #[test]
        fn any_number_is_survived(value: i64, least: Option<i64>, most: Option<i64>, step in proptest::option::of(2i64..)) {
            let _ = number("n", &value.to_string(), least, most, step);
        }
    }
}
