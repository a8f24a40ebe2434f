//! Parts of the check that know nothing of the whole: where an error is, and what addresses and names are.

use std::net::Ipv4Addr;

use super::{Address, ConfigError};

/// An error of the TOML reader, with the nearest known word when one was misspelt.
pub(super) fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let message = error.message();
    let line = error.span().map(|span| line_of(text, span.start));
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let offset = error.span().map_or(0, |span| span.start);
    let (field, suggestion) = match quoted.split_first() {
        Some((wrong, known)) if message.starts_with("unknown") => {
            let near = known
                .iter()
                .min_by_key(|one| distance(wrong, one))
                .filter(|one| distance(wrong, one) <= 3);
            let field = if message.starts_with("unknown field") {
                within(&table_at(text, offset), wrong)
            } else {
                field_at(text, offset)
            };
            (field, near.map(|near| format!("did you mean {near:?}?")))
        }
        // The place is the table that lacks it, whose header the reader counts in.
        Some((missing, _)) if message.starts_with("missing field") => {
            let end = text.get(offset..).and_then(|rest| rest.find('\n'));
            (within(&table_at(text, offset + end.unwrap_or(0)), missing), None)
        }
        _ if message.starts_with("invalid") => (field_at(text, offset), None),
        _ => (String::new(), None),
    };
    ConfigError {
        line,
        field,
        problem: message.trim().replace('\n', " "),
        suggestion,
    }
}

/// The field whose value is at `offset`, such as `network.role`.
fn field_at(text: &str, offset: usize) -> String {
    let key = lines_to(text, offset)
        .filter_map(|line| bare(line.split_once('=')?.0))
        .last();
    within(&table_at(text, offset), key.unwrap_or_default())
}

/// The table that `offset` is in, such as `network.reservation`; empty at the top.
fn table_at(text: &str, offset: usize) -> String {
    let header = |line: &str| {
        let inner = line.trim().strip_prefix('[')?.trim_start_matches('[');
        bare(inner.split_once(']')?.0).map(str::to_owned)
    };
    lines_to(text, offset).filter_map(header).last().unwrap_or_default()
}

fn lines_to(text: &str, offset: usize) -> impl Iterator<Item = &str> {
    text.lines().take(line_of(text, offset))
}

/// A key as people write it, not the beginning of a text or a list.
fn bare(key: &str) -> Option<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    Some(key.trim()).filter(|key| !key.is_empty() && key.chars().all(plain))
}

fn within(table: &str, key: &str) -> String {
    match (table, key) {
        ("", key) => key.to_owned(),
        (table, "") => table.to_owned(),
        (table, key) => format!("{table}.{key}"),
    }
}

pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

/// Levenshtein's distance.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// The address that is known beforehand.
pub(super) const fn fixed(address: Address) -> Option<(Ipv4Addr, u8)> {
    match address {
        Address::Static(address, prefix) | Address::DhcpOr(address, prefix) => Some((address, prefix)),
        Address::Dhcp => None,
    }
}

pub(super) fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

pub(super) fn in_prefix(own: Ipv4Addr, prefix: u8, other: Ipv4Addr) -> bool {
    own.to_bits() & mask(prefix) == other.to_bits() & mask(prefix)
}

pub(super) fn is_host(own: Ipv4Addr, prefix: u8, other: Ipv4Addr) -> bool {
    let host = other.to_bits() & !mask(prefix);
    in_prefix(own, prefix, other) && host != 0 && host != !mask(prefix)
}

pub(super) fn hosts(own: Ipv4Addr, prefix: u8) -> String {
    let network = own.to_bits() & mask(prefix);
    let last = network | !mask(prefix);
    format!(
        "{} to {}",
        Ipv4Addr::from_bits(network + 1),
        Ipv4Addr::from_bits(last - 1)
    )
}

/// RFC 1123 section 2.1.
pub(super) fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.chars().all(|c| inner(c) || c == '-')
        && text.starts_with(inner)
        && text.ends_with(inner)
}

pub(super) fn is_domain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}
