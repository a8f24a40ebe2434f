//! A node: one machine of the rack, its identity, its state.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Adopted, Installed, Inventory, MacAddr, Timestamp};

/// Our own 128-bit identity of a node, given at first sight and never derived from what firmware claims.
/// Written as a hyphenated UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not a hyphenated UUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseNodeIdError;

impl fmt::Display for ParseNodeIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a node id such as 018f3b1c-2d4e-7a5b-8c6d-9e0f1a2b3c4d")
    }
}

impl core::error::Error for ParseNodeIdError {}

impl FromStr for NodeId {
    type Err = ParseNodeIdError;

    fn from_str(text: &str) -> Result<Self, ParseNodeIdError> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 || [8, 13, 18, 23].iter().any(|&i| bytes[i] != b'-') {
            return Err(ParseNodeIdError);
        }
        let mut digits = bytes.iter().filter(|&&b| b != b'-').map(|&b| (b as char).to_digit(16));
        let mut out = [0u8; 16];
        for byte in &mut out {
            let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else {
                return Err(ParseNodeIdError);
            };
            *byte = (high << 4 | low) as u8;
        }
        if digits.next().is_some() {
            Err(ParseNodeIdError)
        } else {
            Ok(Self(out))
        }
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = alloc::borrow::Cow::<'de, str>::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 16]>::deserialize(deserializer).map(Self)
        }
    }
}

/// Where a node stands. One failed state that says where, not one per step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Something showed that the machine exists: a DHCP packet, its BMC. No inventory yet.
    Enrolled,
    /// It boots our agent or the agent is looking at it.
    Inspecting,
    /// The agent proved itself and its inventory is here.
    Discovered,
    /// Ready to be given a role.
    Available,
    /// Controllers and firmware are being configured.
    Configuring,
    /// An operating system is being installed.
    Provisioning,
    /// Installed, checked, reported.
    Ready,
    /// Given to another owner; we do not touch it.
    HandedOver,
    /// Being erased.
    Cleaning,
    /// Hands off by an operator's word.
    Maintenance,
    /// Something failed.
    Failed(FailedIn),
}

/// What failed, where, and what happens next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct FailedIn {
    /// The state it happened in, by name.
    pub during: String,
    /// What and why, in words.
    pub reason: String,
    /// When the next automatic try is due; `None` when a person must act.
    pub retry: Option<Timestamp>,
}

impl NodeState {
    /// The state's name as the API and the CLI write it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Inspecting => "inspecting",
            Self::Discovered => "discovered",
            Self::Available => "available",
            Self::Configuring => "configuring",
            Self::Provisioning => "provisioning",
            Self::Ready => "ready",
            Self::HandedOver => "handed_over",
            Self::Cleaning => "cleaning",
            Self::Maintenance => "maintenance",
            Self::Failed(_) => "failed",
        }
    }
}

/// Power as the BMC reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PowerState {
    /// Nobody could tell us.
    #[default]
    Unknown,
    /// On.
    On,
    /// Off.
    Off,
}

/// What a node's identity rests on: a value some device or table showed us.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Witness {
    /// The kind decides the weight.
    pub kind: WitnessKind,
    /// The value, normalised (lower case, trimmed).
    pub value: String,
}

/// Kinds of witness, strongest first. The SMBIOS UUID is there for the record: duplicated in the field, it never
/// decides alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WitnessKind {
    /// Digest of a TPM endorsement key.
    TpmEndorsementKey,
    /// MAC address of the BMC's LAN channel.
    BmcMac,
    /// MAC address of a NIC.
    NicMac,
    /// System serial number (SMBIOS type 1).
    SystemSerial,
    /// Baseboard serial number (SMBIOS type 2).
    BoardSerial,
    /// Switch chassis and port at the other end of the boot NIC.
    SwitchPort,
    /// SMBIOS system UUID.
    SystemUuid,
}

/// Two nodes that show the same value for a witness which should be unique.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Collision {
    /// The shared value.
    pub witness: Witness,
    /// The other node.
    pub other: NodeId,
}

/// One machine of the rack, as the API shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Node {
    /// Our identity of it.
    pub id: NodeId,
    /// Its name: given by the operator, else `node-001` and so on by order of first sight.
    pub name: String,
    /// Its state.
    pub state: NodeState,
    /// When it entered that state.
    pub state_since: Timestamp,
    /// First sight.
    pub first_seen: Timestamp,
    /// Last sign of life.
    pub last_seen: Timestamp,
    /// True while its agent's connection stands.
    pub agent_connected: bool,
    /// Power as last observed.
    pub power: PowerState,
    /// Address of its agent.
    #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
    pub address: Option<IpAddr>,
    /// Address of its BMC.
    #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
    pub bmc_address: Option<IpAddr>,
    /// MAC addresses known to be its own, the boot interface first.
    pub macs: Vec<MacAddr>,
    /// What its identity rests on.
    pub witnesses: Vec<Witness>,
    /// Other nodes that claim the same.
    pub collisions: Vec<Collision>,
    /// The newest inventory.
    pub inventory: Option<Inventory>,
    /// When that inventory was taken.
    pub inventory_at: Option<Timestamp>,
    /// The verdict on its last boot, in words.
    pub verdict: String,
    /// The role it has, by rule or by an operator's word.
    #[serde(default)]
    pub role: Option<String>,
    /// The number of the run that works on it, or of the last that did.
    #[serde(default)]
    pub run: Option<u64>,
    /// What is being done to it now, in words; `None` when nothing is.
    #[serde(default)]
    pub doing: Option<String>,
    /// How far that is, 0 to 100, where it can be counted.
    #[serde(default)]
    pub percent: Option<u8>,
    /// What differs from the state it was proved to be in, a sentence each. Empty when nothing does.
    #[serde(default)]
    pub drift: Vec<String>,
    /// What we installed on it.
    #[serde(default)]
    pub installed: Option<Installed>,
    /// The system on it that somebody else installed, and that was taken in as it is.
    #[serde(default)]
    pub adopted: Option<Adopted>,
}

/// How the system on a node is known and reached, whoever installed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeSystem<'a> {
    /// Its host name, without domain; empty until it was given one.
    pub hostname: &'a str,
    /// Account that logs in over SSH; empty for root.
    pub user: &'a str,
    /// Its public host key, as OpenSSH writes it; empty until it was given one.
    pub host_key: &'a str,
    /// TCP port of its SSH server.
    pub port: u16,
}

impl Node {
    /// The system on it: the one that we installed, else the one that was adopted.
    pub fn system(&self) -> Option<NodeSystem<'_>> {
        let installed = self.installed.as_ref().map(|installed| NodeSystem {
            hostname: &installed.hostname,
            user: &installed.user,
            host_key: &installed.host_key,
            port: 22,
        });
        installed.or_else(|| {
            let adopted = self.adopted.as_ref()?;
            Some(NodeSystem {
                hostname: adopted.system.hostname.split('.').next().unwrap_or_default(),
                user: &adopted.user,
                host_key: &adopted.host_key,
                port: adopted.port,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn node_id_text_round_trips() {
        let id = NodeId(core::array::from_fn(|i| i as u8 * 16 + 1));
        assert_eq!(id.to_string().len(), 36);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "0111213141516171-8191-a1b1-c1d1-e1f1",
            "01112131-4151-6171-8191-a1b1c1d1e1fx",
        ] {
            assert_eq!(bad.parse::<NodeId>(), Err(ParseNodeIdError), "{bad}");
        }
    }
}
