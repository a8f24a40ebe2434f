//! What the planner may know of the world: nodes as observed, the catalogue, the appliance's own services.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use rackbar_model::{Digest, ImageEntry, Node, NodeId, OsSetup, ProgramEntry, RepositoryLock, RootTarget, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{ServiceSeen, digest};

/// Everything a plan rests on besides the site.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// The nodes.
    pub nodes: Vec<NodeFacts>,
    /// The catalogue, by name.
    pub images: BTreeMap<String, ImageEntry>,
    /// Images of it that no new plan takes, each with the one that takes its place where that was said.
    pub retired: BTreeMap<String, Option<String>>,
    /// Images of it that need the uplink while the appliance asks nobody outside, each with what is missing.
    pub out_of_reach: BTreeMap<String, String>,
    /// The users' programs that steps may name, by name.
    pub programs: BTreeMap<String, ProgramEntry>,
    /// The site's repositories that are locked, by name.
    pub repositories: BTreeMap<String, RepositoryLock>,
    /// Services the appliance offers itself; `"own"` in a site file is refused for any other.
    pub services: BTreeSet<OwnService>,
    /// What was seen of services, by what systems are told of each: [`ServiceSpec::at`](crate::ServiceSpec::at). Those that
    /// nobody has looked at are not in it.
    pub seen: BTreeMap<(OwnService, Vec<String>), ServiceSeen>,
    /// The mirrors of its proxy by name, each with the URLs of its upstreams in the order to ask.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// The appliance's own addresses. Never given to a node; `"own"` services are at the one in the network's subnet.
    pub appliance: Vec<IpAddr>,
    /// Subnets behind DHCP relays, each with the address of the appliance by which its machines reach it.
    pub behind: Vec<(IpNet, IpAddr)>,
    /// Addresses that are in use by anything else: leases, gateways, what answered.
    pub taken: BTreeSet<IpAddr>,
}

impl Facts {
    /// The address at which machines of a subnet find the appliance's own services: ours in it, or the one by which they reach
    /// us where a relay is between.
    pub(crate) fn own_for(&self, subnet: &IpNet) -> Option<IpAddr> {
        let near = self.appliance.iter().find(|address| subnet.contains(*address));
        let far = || {
            let same = self
                .behind
                .iter()
                .find(|(behind, _)| subnet.contains(&behind.network()));
            same.map(|(_, address)| *address)
        };
        near.copied().or_else(far)
    }

    /// Which node has each address: those bound by earlier commits, then those that adopted systems answered at.
    pub(crate) fn owners(&self) -> HashMap<IpAddr, NodeId> {
        let mut owners = HashMap::new();
        for node in &self.nodes {
            for address in node.addresses.values() {
                // Should two records claim one address, the lower identity has it, in whatever order they are listed.
                let owner = owners.entry(*address).or_insert(node.node.id);
                *owner = node.node.id.min(*owner);
            }
        }
        let mut adopted: BTreeMap<IpAddr, NodeId> = BTreeMap::new();
        for node in &self.nodes {
            if let Some(address) = node.adopted_address {
                let owner = adopted.entry(address).or_insert(node.node.id);
                *owner = node.node.id.min(*owner);
            }
        }
        for (address, node) in adopted {
            owners.entry(address).or_insert(node);
        }
        owners
    }

    /// True when this is the URL of the appliance's own proxy, at any of its addresses.
    pub(crate) fn is_own_proxy(&self, url: &str) -> bool {
        self.appliance.iter().any(|own| OwnService::Proxy.at(*own) == url)
    }
}

/// A service the appliance can offer to installed systems.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OwnService {
    /// Names.
    Dns,
    /// Time.
    Ntp,
    /// Package proxy.
    Proxy,
    /// Log collector.
    Syslog,
}

impl OwnService {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Dns, Self::Ntp, Self::Proxy, Self::Syslog];

    /// Its name as site files write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Ntp => "ntp",
            Self::Proxy => "proxy",
            Self::Syslog => "syslog",
        }
    }

    /// How systems are told of the appliance's own at `address`.
    pub fn at(self, address: IpAddr) -> String {
        match self {
            Self::Dns | Self::Ntp => address.to_string(),
            Self::Proxy => format!("http://{}", SocketAddr::new(address, 3128)),
            Self::Syslog => SocketAddr::new(address, 514).to_string(),
        }
    }

    /// The address in what a site file says of an external service, as the checks of the site read it; `None` when it is a
    /// name.
    pub(crate) fn host_address(self, entry: &str) -> Option<IpAddr> {
        let before_port = |text: &str| {
            let (host, _) = text.rsplit_once(':')?;
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            bare.unwrap_or(host).parse().ok()
        };
        match self {
            Self::Dns | Self::Ntp => entry.parse().ok(),
            Self::Proxy => {
                let (_, authority) = entry.split_once("://")?;
                let authority = authority.trim_end_matches('/');
                before_port(authority).or_else(|| authority.parse().ok())
            }
            Self::Syslog => before_port(entry),
        }
    }
}

/// One node, as far as planning needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeFacts {
    /// The node.
    pub node: Arc<Node>,
    /// Role bound by hand; goes before rules and expected machines.
    pub role: Option<String>,
    /// Hands off, by our own record: the state that the node shows may be on its way there.
    pub maintenance: bool,
    /// Firmware attributes as last read through the BMC; `None` when they were not.
    pub bios: Option<BTreeMap<String, String>>,
    /// Its BMC answers and we can log in.
    pub bmc: bool,
    /// What is on it, by our own record and confirmed by observation.
    pub installed: Option<Installed>,
    /// It runs a system that somebody else installed and that was taken in as it is.
    pub adopted: bool,
    /// Where that system answered. Nobody else is given the address.
    pub adopted_address: Option<IpAddr>,
    /// What was booted before its disk when its checks were last run, in words; `None` when the disk is first or nobody
    /// looked.
    pub wrong_boot_order: Option<String>,
    /// The BMC account already has a password of this machine's own.
    pub password_rotated: bool,
    /// The account of ours on its BMC with which we logged in, when we gave it one.
    pub bmc_account: Option<String>,
    /// Static addresses bound to it by earlier commits, by name of the site's network; its BMC's by [`bmc_holder`].
    pub addresses: BTreeMap<String, IpAddr>,
}

impl NodeFacts {
    /// A node of which only discovery is known.
    pub fn new(node: Arc<Node>) -> Self {
        Self {
            node,
            role: None,
            maintenance: false,
            bios: None,
            bmc: false,
            installed: None,
            adopted: false,
            adopted_address: None,
            wrong_boot_order: None,
            password_rotated: false,
            bmc_account: None,
            addresses: BTreeMap::new(),
        }
    }
}

/// Under which the address of a node's BMC on a network is kept among the node's: no network has a `/` in its name.
pub fn bmc_holder(network: &str) -> String {
    format!("bmc/{network}")
}

/// True when an address that is kept under this name is the installed system's, not the BMC's.
pub fn is_of_system(holder: &str) -> bool {
    !holder.contains('/')
}

/// An installed system.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Installed {
    /// Name the image had in the catalogue.
    pub image: String,
    /// Digest of the image file that was written.
    pub sha256: Digest,
    /// Where it lies.
    pub target: RootTarget,
    /// The identity it was given.
    pub setup: SetupDigest,
    /// Paths of the files that it was given with it.
    #[serde(default)]
    pub files: Vec<String>,
    /// When it was installed.
    pub at: Timestamp,
    /// The user's steps that ended well since, by name, with their [`crate::planner::step_digest`].
    #[serde(default)]
    pub steps: BTreeMap<String, Digest>,
    /// The list of checks that passed last, as the action `verify` carried it; `None` when none did.
    #[serde(default)]
    pub checked: Option<Vec<String>>,
}

/// Digests of the parts of an [`OsSetup`], so that a later plan can name what differs without keeping the content.
/// The host key and the machine id are left out: both are made anew at each install.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SetupDigest(pub BTreeMap<String, Digest>);

/// The parts that are changed in a system that is there, without emptying its disk.
const IN_PLACE: [&str; 4] = [KEYS, "DNS, NTP, proxy, syslog", "time zone", "files"];

/// The part that is about who logs in.
const KEYS: &str = "account and SSH keys";

impl SetupDigest {
    /// Whether these parts can be changed in a system that is there; `same_account`: it is keys alone that differ, and not whose
    /// they are.
    pub fn in_place(differs: &[String], same_account: bool) -> bool {
        let mut parts = differs.iter();
        parts.all(|part| IN_PLACE.contains(&part.as_str()) && (same_account || part != KEYS))
    }

    /// Of a setup.
    pub fn of(setup: &OsSetup) -> Self {
        let parts = [
            ("host name", digest::of(&(&setup.hostname, &setup.domain))),
            (KEYS, digest::of(&(&setup.user, &setup.ssh_keys))),
            ("networks", digest::of(&setup.networks)),
            (
                "DNS, NTP, proxy, syslog",
                digest::of(&(&setup.dns, &setup.ntp, &setup.proxy, &setup.syslog)),
            ),
            ("time zone", digest::of(&setup.timezone)),
            ("files", digest::of(&setup.files)),
        ];
        Self(
            parts
                .into_iter()
                .map(|(name, digest)| (name.to_owned(), digest))
                .collect(),
        )
    }

    /// Names of the parts that differ.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        names
            .into_iter()
            .filter(|name| self.0.get(*name) != other.0.get(*name))
            .cloned()
            .collect()
    }
}
