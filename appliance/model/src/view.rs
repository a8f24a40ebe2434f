//! What services tell about themselves: leases, their own health, the appliance as a whole.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{MacAddr, Severity, Timestamp};

/// A DHCPv4 binding (RFC 2131 section 1.5), as the store keeps it and the API shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Lease {
    /// The address.
    #[cfg_attr(feature = "utoipa", schema(value_type = String))]
    pub address: Ipv4Addr,
    /// Name of the network it belongs to.
    pub network: String,
    /// Hardware address of the client (`chaddr`).
    pub mac: MacAddr,
    /// Client identifier (option 61), when it sent one; else empty and `mac` is the key.
    pub client_id: Vec<u8>,
    /// Host name the client gave (option 12).
    pub hostname: Option<String>,
    /// What the binding is.
    pub state: LeaseState,
    /// When it ends. An abandoned address is tried again after this.
    pub expires: Timestamp,
}

/// What a binding is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// Acknowledged to a client.
    Bound,
    /// Given back or run out; kept so that the same client gets the same address again.
    Released,
    /// Somebody else uses the address: declined, or a probe was answered.
    Abandoned,
}

/// How one of our services is doing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct ServiceStatus {
    /// Its name: `dhcp`, `tftp`, `http`, `agents`, `api`, `store`, ...
    pub name: String,
    /// What it does now, in words: `serving rack as the DHCP server`.
    pub state: String,
    /// How bad that is.
    pub severity: Severity,
    /// Since when.
    pub since: Timestamp,
}

/// What can be asked of a machine's power.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// Switch on; nothing when it is on.
    On,
    /// Switch off at once; nothing when it is off.
    Off,
    /// Ask the operating system to shut down.
    Shutdown,
    /// Off, then on.
    Cycle,
    /// Hard reset.
    Reset,
    /// Boot from the network once, by cycling power with a one-time boot override.
    Netboot,
}
