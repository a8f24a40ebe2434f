//! Parts of the check that know nothing of the whole: where an error is, and what addresses and names are.

use std::net::Ipv4Addr;

use super::{Address, ConfigError};

/// An error of the TOML reader, with the nearest known word when one was misspelt.
pub(super) fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let message = error.message();
    let line = error.span().map(|span| line_of(text, span.start));
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let (field, suggestion) = match quoted.split_first() {
        Some((wrong, known)) if message.starts_with("unknown") => {
            let near = known
                .iter()
                .min_by_key(|one| distance(wrong, one))
                .filter(|one| distance(wrong, one) <= 3);
            let field = if message.starts_with("unknown field") {
                (*wrong).to_owned()
            } else {
                String::new()
            };
            (field, near.map(|near| format!("did you mean {near:?}?")))
        }
        Some((missing, _)) if message.starts_with("missing field") => ((*missing).to_owned(), None),
        _ => (String::new(), None),
    };
    ConfigError {
        line,
        field,
        problem: message.trim().replace('\n', " "),
        suggestion,
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
