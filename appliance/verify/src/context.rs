//! What the checks compare: what is wanted, and what was seen out of band.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rackbar_model::{CheckResult, Inventory, OsSetup, RootTarget};

/// Everything the checks of one node need to know.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// What is wanted.
    pub wanted: Wanted,
    /// What was seen without the installed system.
    pub seen: Seen,
}

/// What is wanted of a node. What is `None` or empty is not wanted, and its check is skipped.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Where the system lies.
    pub target: Option<RootTarget>,
    /// Who it is.
    pub setup: OsSetup,
    /// Public line of the host key it was given.
    pub host_key: Option<String>,
    /// Firmware attributes.
    pub attributes: BTreeMap<String, String>,
    /// Names it must be able to resolve, besides those of its NTP servers and proxy.
    pub names: Vec<WantedName>,
    /// Other nodes it must reach.
    pub peers: Vec<Peer>,
    /// How many other nodes there are on its networks, of which `peers` are some.
    pub peers_known: usize,
}

/// A name that a node must be able to resolve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedName {
    /// The whole name, without the dot of the root.
    pub name: String,
    /// Addresses of which the answer must have one; empty when any will do.
    pub addresses: Vec<IpAddr>,
}

impl From<&str> for WantedName {
    fn from(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            addresses: Vec::new(),
        }
    }
}

/// Another node on a network that both are on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its address there.
    pub address: IpAddr,
    /// MTU of that network in bytes; `None` for the standard 1500.
    pub mtu: Option<u16>,
}

/// What was seen out of band and before the install.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Firmware attributes as the BMC tells them; `None` when it could not be asked.
    pub attributes: Option<BTreeMap<String, String>>,
    /// What the BMC says is booted first; `None` when it does not say.
    pub boot_first: Option<BootFirst>,
    /// What the agent found.
    pub inventory: Option<Inventory>,
    /// What came of the last time the agent exercised it, part by part; empty when it never did.
    pub burned_in: Vec<CheckResult>,
}

/// What a machine boots first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BootFirst {
    /// A disk.
    Disk(String),
    /// The network.
    Network(String),
    /// Something else, in the BMC's words.
    Other(String),
}
