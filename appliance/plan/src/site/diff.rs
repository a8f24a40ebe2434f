//! What differs between two sites.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::Site;

/// One field that differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Difference {
    /// The field, such as `role.worker.root.pick`.
    pub path: String,
    /// Its value in the first, as JSON; `None` when it is not there.
    pub left: Option<String>,
    /// Its value in the second.
    pub right: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, "{}: {} -> {}", self.path, shown(&self.left), shown(&self.right))
    }
}

/// What differs, field by field. Defaults count as if they were written; rules, machines, steps and the like are matched
/// by their names, so that one more at the top does not change all below it. Their order is compared too.
pub fn diff(left: &Site, right: &Site) -> Vec<Difference> {
    let mut out = Vec::new();
    // Sites are plain data with text keys: they always have a JSON form.
    let json = |site: &Site| serde_json::to_value(site).unwrap_or_default();
    compare("", &json(left), &json(right), &mut out);
    out
}

fn compare(path: &str, left: &Value, right: &Value, out: &mut Vec<Difference>) {
    if left == right {
        return;
    }
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let others = right.keys().filter(|name| !left.contains_key(*name));
            for name in left.keys().chain(others) {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                let null = &Value::Null;
                compare(
                    &path,
                    left.get(name).unwrap_or(null),
                    right.get(name).unwrap_or(null),
                    out,
                );
            }
        }
        (Value::Array(left), Value::Array(right)) if let (Some(l), Some(r)) = (names(left), names(right)) => {
            let null = &Value::Null;
            for (name, value) in &l {
                let other = r
                    .iter()
                    .find(|(other, _)| other == name)
                    .map_or(null, |(_, value)| value);
                compare(&format!("{path}[{name}]"), value, other, out);
            }
            for (name, value) in r.iter().filter(|(name, _)| !l.iter().any(|(other, _)| other == name)) {
                compare(&format!("{path}[{name}]"), null, value, out);
            }
            let order = |list: &[(&str, &Value)], other: &[(&str, &Value)]| -> Vec<String> {
                let both = list.iter().filter(|(name, _)| other.iter().any(|(o, _)| o == name));
                both.map(|(name, _)| (*name).to_owned()).collect()
            };
            let (left, right) = (order(&l, &r), order(&r, &l));
            if left != right {
                let path = format!("{path} (order)");
                out.push(Difference {
                    path,
                    left: Some(left.join(", ")),
                    right: Some(right.join(", ")),
                });
            }
        }
        (left, right) => {
            let shown = |value: &Value| (!value.is_null()).then(|| value.to_string());
            out.push(Difference {
                path: path.to_owned(),
                left: shown(left),
                right: shown(right),
            });
        }
    }
}

/// The elements of a list by name, when each has one of its own.
fn names(list: &[Value]) -> Option<Vec<(&str, &Value)>> {
    let named: Vec<(&str, &Value)> = list
        .iter()
        .map(|value| Some((value.get("name")?.as_str()?, value)))
        .collect::<Option<_>>()?;
    let mut seen: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
    seen.sort_unstable();
    seen.windows(2).all(|pair| pair.first() != pair.last()).then_some(named)
}
