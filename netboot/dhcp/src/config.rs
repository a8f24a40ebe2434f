//! What the engine is told to do: networks, boot policy, who is served.

use std::net::Ipv4Addr;

use rackbar_model::{BootWay, ClientArch, MacAddr};

use crate::InterfaceId;

/// The engine's whole configuration. Replaced as one value by `Engine::reconfigure`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Config {
    /// Networks we answer on.
    pub networks: Vec<Network>,
    /// Boot files and URLs.
    pub boot: BootPolicy,
    /// Who is served.
    pub unknown: UnknownClients,
    /// MAC addresses that count as known besides those with a reservation.
    pub listed: Vec<MacAddr>,
    /// Bounds on memory.
    pub limits: Limits,
}

/// One IPv4 subnet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// Its name in events and leases.
    pub name: String,
    /// The interface it is attached to; `None` when it is only reached through relays.
    pub interface: Option<Interface>,
    /// Our address as this network's clients see it: server identifier, next server, host of the URLs.
    pub server: Ipv4Addr,
    /// Any address of the subnet.
    pub address: Ipv4Addr,
    /// Length of the subnet's prefix, 0 to 32.
    pub prefix_len: u8,
    /// What we do there.
    pub mode: Mode,
    /// Addresses we may hand out. In proxy mode: those set aside for clients that need full DHCP; may be empty.
    pub pools: Vec<Range>,
    /// Addresses kept for certain clients, inside or outside the pools.
    pub reservations: Vec<Reservation>,
    /// Default gateways (option 3).
    pub gateways: Vec<Ipv4Addr>,
    /// Name servers (option 6).
    pub dns: Vec<Ipv4Addr>,
    /// Time servers (option 42).
    pub ntp: Vec<Ipv4Addr>,
    /// Log servers (option 7).
    pub log: Vec<Ipv4Addr>,
    /// Domain name (option 15).
    pub domain: Option<String>,
    /// Lease time in seconds (option 51); a client that asks for less gets less, at least 60.
    pub lease_seconds: u32,
    /// Renewal time T1 in seconds (option 58); `None` leaves it to the client (half the lease).
    pub renew_seconds: Option<u32>,
    /// Rebinding time T2 in seconds (option 59); `None` leaves it to the client (7/8 of the lease).
    pub rebind_seconds: Option<u32>,
    /// Ways this site allows for its machines, best first. Empty allows all that DHCP alone can do.
    pub ways: Vec<BootWay>,
}

impl Network {
    /// A network in mode [`Mode::Auto`] with one pool, one-hour leases and everything else left out.
    pub fn new(name: &str, interface: Option<Interface>, server: Ipv4Addr, prefix_len: u8, pool: Range) -> Self {
        Self {
            name: name.to_owned(),
            interface,
            server,
            address: server,
            prefix_len,
            mode: Mode::Auto,
            pools: vec![pool],
            reservations: Vec::new(),
            gateways: Vec::new(),
            dns: Vec::new(),
            ntp: Vec::new(),
            log: Vec::new(),
            domain: None,
            lease_seconds: 3600,
            renew_seconds: None,
            rebind_seconds: None,
            ways: Vec::new(),
        }
    }

    /// The subnet mask.
    pub fn mask(&self) -> Ipv4Addr {
        let shift = 32 - u32::from(self.prefix_len.min(32));
        Ipv4Addr::from_bits(u32::MAX.checked_shl(shift).unwrap_or(0))
    }

    /// The subnet's broadcast address.
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !self.mask().to_bits())
    }

    /// True when the address belongs to the subnet.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = self.mask().to_bits();
        address.to_bits() & mask == self.address.to_bits() & mask
    }

    /// True when a client could hold the address: in the subnet, not its network or broadcast address, not ours.
    pub fn assignable(&self, address: Ipv4Addr) -> bool {
        let host_bits = !self.mask().to_bits();
        let host = address.to_bits() & host_bits;
        let edge = self.prefix_len < 31 && (host == 0 || host == host_bits);
        self.contains(address) && !edge && address != self.server
    }

    /// True when the site lets us use this way here.
    pub fn allows(&self, way: BootWay) -> bool {
        if self.ways.is_empty() {
            matches!(way, BootWay::Proxy | BootWay::FullDhcp | BootWay::UefiHttp)
        } else {
            self.ways.contains(&way)
        }
    }
}

/// An interface a network is attached to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its index.
    pub id: InterfaceId,
    /// Its hardware address: sender of our probe DISCOVER (snooping switches drop one whose `chaddr` is not the frame's
    /// source), and never a client of ours.
    pub mac: MacAddr,
}

/// What we do on a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// We are the DHCP server, whoever else is there.
    Own,
    /// Another server gives addresses, we add boot information.
    Proxy,
    /// Nothing.
    Off,
    /// Listen before speaking: ask for other servers first; proxy when one answers, the DHCP server when none does.
    #[default]
    Auto,
}

/// Addresses from `first` to `last`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// Lowest.
    pub first: Ipv4Addr,
    /// Highest.
    pub last: Ipv4Addr,
}

impl Range {
    /// True when the address is in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }
}

/// An address kept for a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reservation {
    /// For whom.
    pub client: ReservedFor,
    /// The address.
    pub address: Ipv4Addr,
    /// Host name to give (option 12).
    pub hostname: Option<String>,
}

/// How a reservation knows its client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReservedFor {
    /// By hardware address.
    Mac(MacAddr),
    /// By client identifier (option 61), the whole payload with its type octet.
    ClientId(Vec<u8>),
}

/// Who is served: neither a reservation nor an entry in `Config::listed` makes a client known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UnknownClients {
    /// Everyone gets an address and is led to our boot files.
    #[default]
    Enrol,
    /// Unknown clients get an address but no boot information.
    LeaseOnly,
    /// Unknown clients get nothing.
    Ignore,
}

/// Boot files and URLs. `{server}` stands for the network's server address, `{mac}` for the client's MAC address in
/// lower case with hyphens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootPolicy {
    /// Lead netbooting clients anywhere at all; off, everybody gets an address only.
    pub enabled: bool,
    /// TFTP server when it is not the network's server address.
    pub tftp_server: Option<Ipv4Addr>,
    /// Boot file by architecture: a TFTP name, or a URL for the HTTP architectures.
    pub files: Vec<(ClientArch, String)>,
    /// Scheme, host and port under which what lies below `http://{server}` is served over TLS, for machines led by
    /// [`BootWay::UefiHttps`]; `None` when there is no such server.
    pub tls_origin: Option<String>,
    /// URL of the iPXE script.
    pub script_url: String,
    /// Where our own loader finds us (its option 67).
    pub loader_url: String,
}

impl Default for BootPolicy {
    fn default() -> Self {
        let file = |arch, name: &str| (arch, name.to_owned());
        Self {
            enabled: true,
            tftp_server: None,
            files: vec![
                file(ClientArch::X86Bios, "undionly.kpxe"),
                file(ClientArch::X64Uefi, "loader.efi"),
                file(ClientArch::X64UefiHttp, "http://{server}/boot/v1/loader.efi"),
            ],
            tls_origin: None,
            script_url: "http://{server}/boot/v1/script.ipxe?mac={mac}".to_owned(),
            loader_url: "http://{server}".to_owned(),
        }
    }
}

impl BootPolicy {
    /// The same policy with `snponly.efi` (iPXE over the firmware's network driver) for x86-64 UEFI, by TFTP and by HTTP
    /// Boot, instead of our own loader: the site's fallback for firmware our loader does not run on.
    #[must_use]
    pub fn with_snponly(mut self) -> Self {
        self.set_file(ClientArch::X64Uefi, "snponly.efi");
        self.set_file(ClientArch::X64UefiHttp, "http://{server}/boot/v1/snponly.efi");
        self
    }

    /// Sets the boot file of an architecture.
    pub fn set_file(&mut self, arch: ClientArch, file: &str) {
        self.files.retain(|(a, _)| *a != arch);
        self.files.push((arch, file.to_owned()));
    }

    /// The boot file of an architecture, template as configured.
    pub fn file(&self, arch: ClientArch) -> Option<&str> {
        self.files
            .iter()
            .find(|(a, _)| *a == arch)
            .map(|(_, file)| file.as_str())
    }

    /// Where a boot file's `url` is to be had over TLS; `None` when it is not.
    pub(crate) fn over_tls(&self, url: &str) -> Option<String> {
        if url.starts_with("https://") {
            return Some(url.to_owned());
        }
        let (origin, ours) = (self.tls_origin.as_deref()?, url.strip_prefix("http://{server}")?);
        // Another port than 80 is that of the server without TLS.
        Some(format!("{origin}{}", ours.get(ours.find('/')?..)?))
    }
}

/// Bounds on memory: MAC addresses on a wire are whatever somebody sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Clients remembered; the one silent for longest is forgotten first.
    pub clients: usize,
    /// Offers that wait for an ARP probe at one time; beyond that addresses are offered unprobed.
    pub probes: usize,
    /// Addresses in all pools of one network; the rest of a larger range is not used.
    pub pool_addresses: usize,
    /// Milliseconds after which what was learnt of a firmware, and nothing confirmed since, is no longer believed.
    pub habit_millis: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 8192,
            probes: 1024,
            pool_addresses: 1 << 20,
            // 90 days: firmware is updated about once a quarter, and learning anew costs two boots.
            habit_millis: 90 * 24 * 3_600_000,
        }
    }
}
