//! The site's configuration: `rackbar.toml`, or kernel arguments, or the safe default.
//!
//! [`check`](fn@check) is pure: text in, a whole [`Config`] or every mistake it could find out, each with line, field and what to
//! write instead. Files it names come through a door. Nothing half-right is ever put in force.

mod capture;
mod check;
mod files;
mod kernel;
mod packs;
mod parent;
mod parts;
mod proxy;
mod raw;
mod remote;
mod rest;
mod services;
#[cfg(test)]
mod tests;
mod webhook;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use rackbar_boot::SiteScript;
use rackbar_devices::Fingerprint;
use rackbar_dns::{Name, SiteRecord};
use rackbar_model::{BootWay, Digest, MacAddr};
use rackbar_ntp::ServerName;
use rackbar_webhooks::Hook;
use serde::Deserialize;

pub(crate) use capture::Capture;
pub(crate) use check::{check, no_files};
pub(crate) use files::{BootFile, Files, MAX_BOOT_FILE, OUR_PROGRAMS, Place};
pub(crate) use kernel::from_kernel_arguments;
pub(crate) use proxy::Proxy;

/// A configuration that is right in itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Config {
    /// The site's name.
    pub(crate) name: String,
    /// At least one of role `rack`.
    pub(crate) networks: Vec<Network>,
    /// Networks behind DHCP relays.
    pub(crate) remotes: Vec<Remote>,
    pub(crate) clients: Clients,
    pub(crate) boot: Boot,
    pub(crate) bmc: Bmc,
    pub(crate) names: Names,
    pub(crate) time: Time,
    pub(crate) log: Log,
    pub(crate) capture: Capture,
    pub(crate) proxy: Proxy,
    /// Keys whose data packs and signed hardware profiles are taken besides our own.
    pub(crate) packs: Vec<rackbar_packs::Key>,
    /// Hardware profiles of the site that nobody trusted has signed are not in force.
    pub(crate) signed_profiles_only: bool,
    pub(crate) webhooks: Vec<Hook>,
    /// SHA-256 of the admin token's text.
    pub(crate) admin_token: Option<Digest>,
}

impl Config {
    /// Networks on our interfaces, then those behind relays.
    pub(crate) fn all_networks(&self) -> impl Iterator<Item = &Network> {
        self.networks
            .iter()
            .chain(self.remotes.iter().map(|remote| &remote.network))
    }
}

/// One network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Network {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) interface: Interface,
    /// 802.1Q VLAN ID of a tagged subinterface.
    pub(crate) vlan: Option<u16>,
    pub(crate) address: Address,
    pub(crate) dhcp: Dhcp,
    /// First and last address of each pool.
    pub(crate) pools: Vec<(Ipv4Addr, Ipv4Addr)>,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) dns: Service,
    pub(crate) ntp: Service,
    pub(crate) syslog: Service,
    pub(crate) proxy: Service,
    pub(crate) domain: Option<String>,
    pub(crate) lease_seconds: u32,
    pub(crate) reservations: Vec<Reservation>,
}

/// A network on none of our interfaces: DHCP relays pass its machines' requests on to us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Remote {
    /// What is served there. Its interface, VLAN and address of ours say nothing: we have none there.
    pub(crate) network: Network,
    /// The subnet's own address and its prefix length.
    pub(crate) subnet: (Ipv4Addr, u8),
    /// Index in [`Config::networks`] of the one by whose address its machines reach us.
    pub(crate) through: usize,
    /// Router in that network behind which the subnet is; `None` leaves it to the default route.
    pub(crate) next_hop: Option<Ipv4Addr>,
}

/// What a network is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    Rack,
    Bmc,
    Uplink,
}

/// Which interface a network is on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Interface {
    /// The first with a link that no other network names.
    Auto,
    /// By MAC address: stable whatever the kernel calls it.
    Mac(MacAddr),
    /// By the kernel's name.
    Name(String),
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("the first interface with a link"),
            Self::Mac(mac) => write!(f, "the interface with MAC address {mac}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Our own address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    /// Address and prefix length.
    Static(Ipv4Addr, u8),
    /// From a DHCP server; none until one answers.
    Dhcp,
    /// From a DHCP server, or this when none answers.
    DhcpOr(Ipv4Addr, u8),
}

/// What we do as a DHCP server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Dhcp {
    Own,
    Proxy,
    Auto,
    Off,
}

/// Who does a service on a network.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Service {
    /// Not said: we do where the site file says `"own"`, and clients are told of nobody.
    #[default]
    Unsaid,
    /// Nobody.
    Off,
    /// We.
    Own,
    /// These.
    External(Vec<Ipv4Addr>),
}

/// The site's names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Names {
    /// Domain of the names we give.
    pub(crate) domain: Option<Name>,
    /// Resolvers for all other names; empty asks those that the uplink's DHCP server named.
    pub(crate) upstreams: Vec<SocketAddr>,
    pub(crate) records: Vec<SiteRecord>,
}

/// Whom our clock follows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Time {
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) names: Vec<ServerName>,
    pub(crate) local_stratum: Option<u8>,
}

/// Bounds of the log collector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Log {
    pub(crate) bytes: u64,
    /// Messages a second of one sender.
    pub(crate) per_second: u32,
}

/// An address kept for a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reservation {
    pub(crate) mac: MacAddr,
    pub(crate) address: Ipv4Addr,
    pub(crate) name: Option<String>,
}

/// Who is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Clients {
    pub(crate) unknown: Unknown,
    pub(crate) listed: Vec<MacAddr>,
}

/// What happens to machines nobody listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unknown {
    #[default]
    Enrol,
    Listed,
    Ignore,
}

/// How machines boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Boot {
    pub(crate) kernel_arguments: String,
    pub(crate) uefi: Uefi,
    pub(crate) negotiate: Vec<BootWay>,
    /// The site's own iPXE scripts, read from their files.
    pub(crate) scripts: Vec<SiteScript>,
    /// The site's own boot files, in place of ours or where we have none.
    pub(crate) files: Vec<BootFile>,
    /// Connections to boot HTTP at one time; the usual number when left out.
    pub(crate) http_connections: Option<usize>,
    /// TFTP transfers at one time; the usual number when left out.
    pub(crate) tftp_transfers: Option<usize>,
}

/// What x86-64 UEFI firmware is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Uefi {
    /// Our own loader.
    #[default]
    Loader,
    /// iPXE over the firmware's network driver.
    #[serde(alias = "snponly.efi")]
    Snponly,
}

/// How BMCs are spoken to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bmc {
    pub(crate) credentials: Vec<Credential>,
    pub(crate) power_on_discovered: bool,
    pub(crate) replace_initial_passwords: bool,
    pub(crate) set_clocks: bool,
    pub(crate) record_consoles: bool,
    /// Certificates that are taken although they are not those seen first.
    pub(crate) accept_certificates: Vec<Fingerprint>,
}

/// An account on BMCs.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) username: String,
    pub(crate) password: Password,
}

/// A password, or where it is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Password {
    Here(String),
    File(PathBuf),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({}, ..)", self.username)
    }
}

/// A mistake in a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ConfigError {
    /// Line in the file, from 1.
    pub(crate) line: Option<usize>,
    /// The field, such as `network.pool`.
    pub(crate) field: String,
    /// What is wrong.
    pub(crate) problem: String,
    /// What to write instead.
    pub(crate) suggestion: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}, ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.problem)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

/// All mistakes on one line each.
pub(crate) fn in_words(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What an appliance does that was told nothing: take an address where a DHCP server gives one and add boot
/// information beside it; only where nobody answers become the server itself.
pub(crate) const DEFAULT: &str = r#"version = 1
name = "rackbar"

[[network]]
name = "rack"
role = "rack"
address = "dhcp, else 10.10.0.1/24"
dhcp = "auto"
pool = ["10.10.0.100-10.10.0.199"]
"#;

/// The line of [`DEFAULT`] by which it may give addresses.
pub(crate) const DEFAULT_DHCP: &str = "dhcp = \"auto\"";
