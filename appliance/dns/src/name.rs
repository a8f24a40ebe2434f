//! Names in wire format: length-prefixed labels and the root's zero, lower case.

use std::borrow::Borrow;
use std::fmt;
use std::net::IpAddr;

/// Longest name in wire format (RFC 1035 section 2.3.4).
const LONGEST: usize = 255;

/// A domain name, absolute.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

/// Why a text is no name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NameError {
    /// A label is empty or longer than 63 bytes; this one.
    Label(String),
    /// The name is longer than 255 bytes.
    Long,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "label {label:?} is not of 1 to 63 printable characters"),
            Self::Long => f.write_str("a name has at most 255 bytes"),
        }
    }
}

impl std::error::Error for NameError {}

impl Name {
    /// The root.
    pub fn root() -> Self {
        Self(Box::new([0]))
    }

    /// Reads a name as people write it, with or without the dot at its end.
    ///
    /// # Errors
    /// When a label is empty, too long or not printable, or the whole is too long.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Ok(Self::root());
        }
        Self::from_labels(text.split('.'))
    }

    /// Joins labels, the one of the host first.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a str>) -> Result<Self, NameError> {
        let mut wire = Vec::with_capacity(32);
        for label in labels {
            let sound = label.bytes().all(|b| b.is_ascii_graphic() && b != b'.');
            let length = u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n) && sound);
            wire.push(length.ok_or_else(|| NameError::Label(label.to_owned()))?);
            wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
        }
        wire.push(0);
        if wire.len() > LONGEST {
            return Err(NameError::Long);
        }
        Ok(Self(wire.into()))
    }

    /// A label put in front of this name.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn child(&self, label: &str) -> Result<Self, NameError> {
        let mut first = Self::from_labels([label])?.0.into_vec();
        first.pop();
        first.extend_from_slice(&self.0);
        if first.len() > LONGEST {
            return Err(NameError::Long);
        }
        Ok(Self(first.into()))
    }

    /// The name whose PTR record tells the name of an address (RFC 1035 section 3.5, RFC 3596 section 2.5).
    pub fn of_address(address: IpAddr) -> Self {
        let mut wire = Vec::with_capacity(74);
        let mut label = |text: &str| {
            wire.push(u8::try_from(text.len()).unwrap_or(0));
            wire.extend_from_slice(text.as_bytes());
        };
        match address {
            IpAddr::V4(v4) => {
                v4.octets().iter().rev().for_each(|octet| label(&octet.to_string()));
                label("in-addr");
            }
            IpAddr::V6(v6) => {
                for octet in v6.octets().iter().rev() {
                    label(&format!("{:x}", octet & 15));
                    label(&format!("{:x}", octet >> 4));
                }
                label("ip6");
            }
        }
        label("arpa");
        wire.push(0);
        Self(wire.into())
    }

    /// The uncompressed name at the beginning of `bytes`, lower case, and how long it is there. Compressed names are
    /// refused: the first name of a message has nothing to point at.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let length = wire_length(bytes)?;
        let wire = bytes.get(..length)?;
        // Lengths are at most 63, which no upper case letter is.
        Some(Self(wire.iter().map(u8::to_ascii_lowercase).collect()))
    }

    /// The wire format.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The name without its first label; none for the root.
    pub fn parent(&self) -> Option<Self> {
        ancestors(&self.0).nth(1).map(|wire| Self(wire.into()))
    }

    /// Whether this is `zone` or below it.
    pub fn is_within(&self, zone: &Self) -> bool {
        ancestors(&self.0).any(|wire| wire == zone.wire())
    }
}

/// Length of an uncompressed name at the beginning of `bytes`, its end included.
pub(crate) fn wire_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0usize;
    loop {
        let length = usize::from(*bytes.get(at)?);
        if length > 63 {
            return None;
        }
        at += length + 1;
        if at > LONGEST {
            return None;
        }
        if length == 0 {
            return (at <= bytes.len()).then_some(at);
        }
    }
}

/// The name itself and every name above it, the root last.
pub(crate) fn ancestors(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(wire), |rest| match rest.first() {
        None | Some(0) => None,
        Some(&length) => rest.get(usize::from(length) + 1..),
    })
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut any = false;
        for rest in ancestors(&self.0) {
            let length = usize::from(rest.first().copied().unwrap_or(0));
            for &byte in rest.get(1..=length).unwrap_or_default() {
                match byte {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                    byte if byte.is_ascii_graphic() => write!(f, "{}", char::from(byte))?,
                    byte => write!(f, "\\{byte:03}")?,
                }
            }
            if length > 0 {
                any = true;
                f.write_str(".")?;
            }
        }
        if any { Ok(()) } else { f.write_str(".") }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_written_and_compared() {
        let name = Name::parse("Node-001.Rack.Example").unwrap();
        assert_eq!(name.to_string(), "node-001.rack.example.");
        let zone = Name::parse("rack.example.").unwrap();
        assert!(name.is_within(&zone) && zone.is_within(&zone) && !zone.is_within(&name));
        assert_eq!(name.parent(), Some(zone.clone()));
        assert_eq!(zone.child("node-001"), Ok(name.clone()));
        assert_eq!(Name::read(b"\x08NODE-001\x04rack\x07exampLE\0rest"), Some(name));
        assert_eq!(Name::root().to_string(), ".");
        let long = "a".repeat(64);
        for bad in ["a..b", long.as_str(), "with blank", "ü"] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Name::parse(&["abcdefg"; 32].join(".")), Err(NameError::Long));
    }

    #[test]
    fn a_compressed_or_cut_name_is_no_first_name() {
        for bad in [&b"\xc0\x0c"[..], b"\x03ab", b"", b"\x40aaaa", b"\x01a"] {
            assert_eq!(Name::read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn addresses_have_names() {
        let four = Name::of_address([10, 0, 2, 7].into());
        assert_eq!(four.to_string(), "7.2.0.10.in-addr.arpa.");
        let six = Name::of_address("2001:db8::1".parse().unwrap());
        assert!(six.to_string().starts_with("1.0.0.0.") && six.to_string().ends_with("8.b.d.0.1.0.0.2.ip6.arpa."));
    }
}
