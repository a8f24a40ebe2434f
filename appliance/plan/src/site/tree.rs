//! A parsed TOML document that remembers where each value stands, and lies over a profile.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value, and where it stands in the site's text; `None` for what comes from a profile.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) span: Option<Range<usize>>,
    pub(super) kind: Kind,
}

/// The value itself.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Text, number or truth value.
    Leaf(Value),
    /// An array.
    List(Vec<Tree>),
    /// A table.
    Table(BTreeMap<String, Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Option<Range<usize>>,
    pub(super) value: Tree,
}

impl Tree {
    /// Reads a document, with all its syntax errors.
    pub(super) fn parse(text: &str) -> (Self, Vec<toml::de::Error>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        (
            Self {
                span: None,
                kind: Self::table(table.get_ref()),
            },
            errors,
        )
    }

    fn new(value: &Spanned<DeValue<'_>>) -> Self {
        let kind = match value.get_ref() {
            DeValue::String(text) => Kind::Leaf(Value::from(text.as_ref())),
            DeValue::Boolean(flag) => Kind::Leaf(Value::from(*flag)),
            DeValue::Integer(number) => {
                Kind::Leaf(i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Null, Value::from))
            }
            DeValue::Float(number) => Kind::Leaf(number.as_str().parse::<f64>().map_or(Value::Null, Value::from)),
            DeValue::Datetime(time) => Kind::Leaf(Value::from(time.to_string())),
            DeValue::Array(list) => Kind::List(list.iter().map(Self::new).collect()),
            DeValue::Table(table) => Self::table(table),
        };
        Self {
            span: Some(value.span()),
            kind,
        }
    }

    fn table(table: &DeTable<'_>) -> Kind {
        let entry = |value| Entry {
            key: None,
            value: Self::new(value),
        };
        Kind::Table(
            table
                .iter()
                .map(|(key, value)| {
                    (
                        key.get_ref().to_string(),
                        Entry {
                            key: Some(key.span()),
                            ..entry(value)
                        },
                    )
                })
                .collect(),
        )
    }

    /// Lays this tree over a profile: tables are merged, everything else is replaced.
    pub(super) fn over(self, profile: Self) -> Self {
        match (self.kind, profile.kind) {
            (Kind::Table(mut upper), Kind::Table(lower)) => {
                for (name, mut entry) in lower {
                    entry.key = None;
                    let merged = match upper.remove(&name) {
                        Some(own) => Entry {
                            key: own.key,
                            value: own.value.over(entry.value),
                        },
                        None => Entry {
                            key: None,
                            value: entry.value.unplaced(),
                        },
                    };
                    upper.insert(name, merged);
                }
                Self {
                    span: self.span,
                    kind: Kind::Table(upper),
                }
            }
            (kind, _) => Self { span: self.span, kind },
        }
    }

    fn unplaced(self) -> Self {
        let kind = match self.kind {
            Kind::Leaf(value) => Kind::Leaf(value),
            Kind::List(list) => Kind::List(list.into_iter().map(Self::unplaced).collect()),
            Kind::Table(table) => Kind::Table(
                table
                    .into_iter()
                    .map(|(name, entry)| {
                        (
                            name,
                            Entry {
                                key: None,
                                value: entry.value.unplaced(),
                            },
                        )
                    })
                    .collect(),
            ),
        };
        Self { span: None, kind }
    }

    /// A table's value.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Table(table) => table.get(name).map(|entry| &entry.value),
            Kind::List(list) => list.get(name.parse::<usize>().ok()?),
            Kind::Leaf(_) => None,
        }
    }

    /// Text of a leaf.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Leaf(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Where the value at a path stands, or the nearest of its ancestors that stands anywhere.
    pub(super) fn place(&self, path: &[&str]) -> Option<Range<usize>> {
        let mut found = self.span.clone();
        let mut tree = self;
        for name in path {
            let key = match &tree.kind {
                Kind::Table(table) => table.get(*name).and_then(|entry| entry.key.clone()),
                _ => None,
            };
            let Some(next) = tree.get(name) else { break };
            tree = next;
            // A table written as `[a.b]` spans its header; a value its own text.
            found = match tree.kind {
                Kind::Leaf(_) => tree.span.clone().or(key),
                _ => key.or_else(|| tree.span.clone()),
            }
            .or(found);
        }
        found
    }
}
