//! Values of a site file that are written in one of several ways.

use std::fmt;
use std::net::IpAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Where the addresses of a network come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Addresses {
    /// From a DHCP server on the network.
    #[default]
    Dhcp,
    /// Given out by the plan: first and last.
    Range(IpAddr, IpAddr),
}

impl std::str::FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "dhcp" {
            return Ok(Self::Dhcp);
        }
        let wrong = || format!("`{text}` is neither \"dhcp\" nor a range such as \"10.10.0.50-10.10.0.99\"");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let (first, last) = (first.trim().parse::<IpAddr>(), last.trim().parse::<IpAddr>());
        match (first.map_err(|_| wrong())?, last.map_err(|_| wrong())?) {
            (first, last) if first.is_ipv4() != last.is_ipv4() => Err(wrong()),
            (first, last) if first > last => Err(format!("the range {first}-{last} ends before it begins")),
            (first, last) => Ok(Self::Range(first, last)),
        }
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dhcp => f.write_str("dhcp"),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl Serialize for Addresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Addresses {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Addresses".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "addresses", "default": "dhcp" })
    }
}

/// A service that installed systems use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Service {
    /// None is set up.
    #[default]
    Off,
    /// The appliance's own.
    Own,
    /// Others.
    External(Vec<String>),
}

impl Serialize for Service {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::Own => serializer.serialize_str("own"),
            Self::External(list) => list.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Service {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            One(String),
            Many(Vec<String>),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::One(word) if word == "off" => Self::Off,
            Written::One(word) if word == "own" => Self::Own,
            Written::One(word) => Self::External(vec![word]),
            Written::Many(list) => Self::External(list),
        })
    }
}

impl JsonSchema for Service {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Service".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }],
            "default": "off",
        })
    }
}

/// A firmware attribute's value; kept as text, whatever way it is written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(transparent)]
pub struct Attribute(pub String);

impl<'de> Deserialize<'de> for Attribute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Number(i64),
            Flag(bool),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Text(text) => text,
            Written::Number(number) => number.to_string(),
            Written::Flag(flag) => flag.to_string(),
        }))
    }
}

impl JsonSchema for Attribute {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Attribute".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer", "boolean"] })
    }
}
