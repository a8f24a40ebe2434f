//! From text to a configuration that makes sense.

use std::net::Ipv4Addr;
use std::ops::Range;

use rackbar_model::{Digest, MacAddr};
use toml::Spanned;

use super::parts::{fixed, hosts, in_prefix, is_domain, is_host, is_label, line_of, mask, syntax};
use super::raw::{Raw, RawNetwork};
use super::remote::is_remote;
use super::{Address, Config, ConfigError, Dhcp, Files, Interface, Network, Reservation, Role};

/// The version of the file's format that this program reads.
const VERSION: u32 = 1;

/// For configurations that name no file.
pub(crate) fn no_files(_: &str) -> Result<String, String> {
    Err("files can only be named in rackbar.toml".into())
}

/// Reads and checks a configuration, with the files it names.
///
/// # Errors
/// All mistakes that could be found, in the order of the file.
pub(crate) fn check(text: &str, files: &dyn Files) -> Result<Config, Vec<ConfigError>> {
    let raw: Raw = toml::from_str(text).map_err(|error| vec![syntax(text, &error)])?;
    let mut checker = Checker {
        text,
        files,
        errors: Vec::new(),
    };
    let config = checker.config(&raw);
    checker.errors.sort_by_key(|error| error.line);
    if checker.errors.is_empty() {
        Ok(config)
    } else {
        Err(checker.errors)
    }
}

pub(super) struct Checker<'a> {
    text: &'a str,
    pub(super) files: &'a dyn Files,
    errors: Vec<ConfigError>,
}

impl Checker<'_> {
    pub(super) fn wrong(&mut self, span: Option<Range<usize>>, field: &str, problem: impl Into<String>, instead: &str) {
        self.errors.push(ConfigError {
            line: span.map(|span| line_of(self.text, span.start)),
            field: field.into(),
            problem: problem.into(),
            suggestion: (!instead.is_empty()).then(|| instead.into()),
        });
    }

    fn config(&mut self, raw: &Raw) -> Config {
        if *raw.version.get_ref() != VERSION {
            let problem = format!(
                "this program reads version {VERSION}, the file says {}",
                raw.version.get_ref()
            );
            self.wrong(Some(raw.version.span()), "version", problem, "write version = 1");
        }
        let name = raw
            .name
            .as_ref()
            .map_or_else(|| "rackbar".to_owned(), |name| name.get_ref().trim().to_owned());
        if name.is_empty() || name.len() > 60 || name.chars().any(char::is_control) {
            self.wrong(
                raw.name.as_ref().map(Spanned::span),
                "name",
                "a site's name has 1 to 60 characters",
                "",
            );
        }
        let (far, near): (Vec<&RawNetwork>, Vec<&RawNetwork>) = raw.network.iter().partition(|one| is_remote(one));
        let networks: Vec<Network> = near.iter().map(|one| self.network(one)).collect();
        self.together(&near, &networks);
        let remotes = self.remotes(&far, &networks);
        if !networks.iter().any(|one| one.role == Role::Rack) {
            self.wrong(
                None,
                "network",
                "no network has the role \"rack\", so no machine could boot",
                "add a [[network]] with role = \"rack\" and an address such as \"10.10.0.1/24\"",
            );
        }
        let admin_token = raw.api.admin_token_sha256.as_ref().and_then(|text| {
            let digest = text.get_ref().parse::<Digest>();
            if digest.is_err() {
                self.wrong(
                    Some(text.span()),
                    "api.admin_token_sha256",
                    "this is no SHA-256 digest of 64 hexadecimal digits",
                    "make one with: printf %s TOKEN | sha256sum",
                );
            }
            digest.ok()
        });
        let proxy = self.proxy(&raw.proxy, &(&networks, &remotes));
        Config {
            name,
            networks,
            remotes,
            clients: self.clients(&raw.clients),
            boot: self.boot(&raw.boot),
            bmc: self.bmc(&raw.bmc),
            names: self.names(&raw.dns),
            time: self.time(&raw.ntp),
            log: self.log(&raw.syslog),
            capture: self.capture(&raw.capture),
            proxy,
            packs: self.packs(&raw.packs),
            signed_profiles_only: raw.profiles.signed_only,
            webhooks: self.webhooks(&raw.webhook),
            admin_token,
        }
    }

    fn network(&mut self, raw: &RawNetwork) -> Network {
        let name = self.network_name(raw);
        let role = *raw.role.get_ref();
        let address = self.address(raw);
        let dhcp = raw
            .dhcp
            .as_ref()
            .map_or(if role == Role::Uplink { Dhcp::Off } else { Dhcp::Auto }, |dhcp| {
                *dhcp.get_ref()
            });
        self.numbers(raw);
        let network = Network {
            interface: self.interface(raw),
            vlan: raw.vlan.as_ref().map(|vlan| *vlan.get_ref()),
            ..self.told(raw, name, address, dhcp)
        };
        self.serving(raw, &network);
        network
    }

    /// What is said alike of a network on an interface of ours and of one behind a relay.
    pub(super) fn told(&mut self, raw: &RawNetwork, name: String, address: Address, dhcp: Dhcp) -> Network {
        let role = *raw.role.get_ref();
        Network {
            name,
            role,
            interface: Interface::Auto,
            vlan: None,
            address,
            dhcp,
            pools: self.pools(raw, address),
            gateway: raw.gateway.as_ref().map(|gateway| *gateway.get_ref()),
            dns: self.service("network.dns", raw.dns.as_ref(), role),
            ntp: self.service("network.ntp", raw.ntp.as_ref(), role),
            syslog: self.service("network.syslog", raw.syslog.as_ref(), role),
            proxy: self.proxy_of(raw.proxy.as_ref(), role),
            domain: raw.domain.as_ref().map(|domain| domain.get_ref().clone()),
            lease_seconds: raw.lease_seconds.as_ref().map_or(3600, |seconds| *seconds.get_ref()),
            reservations: self.reservations(raw, address),
        }
    }

    pub(super) fn network_name(&mut self, raw: &RawNetwork) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let name = raw.name.get_ref().clone();
        if name.is_empty() || name.len() > 32 || !name.chars().all(plain) {
            self.wrong(
                Some(raw.name.span()),
                "network.name",
                format!("{name:?} is no name for a network"),
                "use up to 32 letters, digits, '-', '_' and '.'",
            );
        }
        name
    }

    /// Fields that are right or wrong by themselves.
    pub(super) fn numbers(&mut self, raw: &RawNetwork) {
        if let Some(vlan) = raw.vlan.as_ref().filter(|vlan| !(1..=4094).contains(vlan.get_ref())) {
            self.wrong(
                Some(vlan.span()),
                "network.vlan",
                format!("{} is no VLAN ID", vlan.get_ref()),
                "use 1 to 4094, or leave it out for untagged",
            );
        }
        if let Some(seconds) = raw
            .lease_seconds
            .as_ref()
            .filter(|one| !(60..=31_536_000).contains(one.get_ref()))
        {
            self.wrong(
                Some(seconds.span()),
                "network.lease_seconds",
                "a lease lasts 60 seconds to one year",
                "3600 is usual",
            );
        }
        if let Some(domain) = raw.domain.as_ref().filter(|one| !is_domain(one.get_ref())) {
            self.wrong(
                Some(domain.span()),
                "network.domain",
                format!("{:?} is no domain name", domain.get_ref()),
                "",
            );
        }
    }

    /// What we do there must fit what we are there.
    fn serving(&mut self, raw: &RawNetwork, network: &Network) {
        let at = raw.dhcp.as_ref().map_or_else(|| raw.role.span(), Spanned::span);
        if network.role == Role::Uplink && network.dhcp != Dhcp::Off {
            self.wrong(
                Some(at),
                "network.dhcp",
                "we serve nothing on an uplink",
                "leave it out, or make this a network of role \"rack\"",
            );
        } else if network.dhcp == Dhcp::Own && network.address == Address::Dhcp {
            self.wrong(
                Some(at),
                "network.dhcp",
                "a DHCP server cannot get its own address by DHCP",
                "give the network an address such as \"10.10.0.1/24\"",
            );
        } else if network.dhcp == Dhcp::Own && network.pools.is_empty() && network.reservations.is_empty() {
            self.wrong(
                Some(at),
                "network.dhcp",
                "there is no address to give out",
                "add pool = [\"FIRST-LAST\"]",
            );
        }
        if let (Some(gateway), Some((own, prefix))) = (&raw.gateway, fixed(network.address))
            && !in_prefix(own, prefix, *gateway.get_ref())
        {
            self.wrong(
                Some(gateway.span()),
                "network.gateway",
                format!("{} is not in {own}/{prefix}", gateway.get_ref()),
                "",
            );
        }
        self.router_is_given_to_nobody(raw, network);
    }

    fn interface(&mut self, raw: &RawNetwork) -> Interface {
        let Some(text) = &raw.interface else {
            return Interface::Auto;
        };
        let value = text.get_ref().trim();
        if let Ok(mac) = value.parse::<MacAddr>() {
            return Interface::Mac(mac);
        }
        // IFNAMSIZ is 16 with its end; the kernel refuses '/' and white space.
        if value.is_empty() || value.len() > 15 || value.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
            self.wrong(Some(text.span()), "network.interface", format!("{value:?} is neither a MAC address nor a name the kernel gives"),
                "write a MAC address such as \"52:54:00:12:34:56\", or leave it out for the first interface with a link");
        }
        Interface::Name(value.into())
    }

    fn address(&mut self, raw: &RawNetwork) -> Address {
        let Some(text) = &raw.address else {
            if *raw.role.get_ref() != Role::Uplink {
                self.wrong(
                    Some(raw.name.span()),
                    "network.address",
                    format!("network {:?} has no address", raw.name.get_ref()),
                    "add one such as \"10.10.0.1/24\", or \"dhcp\"",
                );
            }
            return Address::Dhcp;
        };
        let value = text.get_ref().trim();
        if value == "dhcp" {
            return Address::Dhcp;
        }
        let (value, fallback) = match value.strip_prefix("dhcp, else ") {
            Some(rest) => (rest, true),
            None => (value, false),
        };
        let parsed = value
            .split_once('/')
            .and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)));
        let Some((address, prefix)) = parsed else {
            self.wrong(
                Some(text.span()),
                "network.address",
                format!("{value:?} is no address with a prefix length"),
                "write one such as \"10.10.0.1/24\", or \"dhcp\"",
            );
            return Address::Dhcp;
        };
        if !(8..=30).contains(&prefix) {
            self.wrong(
                Some(text.span()),
                "network.address",
                format!("a prefix length of {prefix} leaves no sensible network"),
                "use /8 to /30, /24 is usual",
            );
            return Address::Dhcp;
        }
        if !is_host(address, prefix, address) || address.is_multicast() || address.is_loopback() {
            self.wrong(
                Some(text.span()),
                "network.address",
                format!("{address}/{prefix} is no address of a host: it is the network's own or its broadcast address"),
                &format!(
                    "{} would be one",
                    Ipv4Addr::from_bits((address.to_bits() & mask(prefix)) + 1)
                ),
            );
        }
        if fallback {
            Address::DhcpOr(address, prefix)
        } else {
            Address::Static(address, prefix)
        }
    }

    pub(super) fn pools(&mut self, raw: &RawNetwork, address: Address) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        let mut pools: Vec<(Ipv4Addr, Ipv4Addr)> = Vec::new();
        for text in &raw.pool {
            let at = || Some(text.span());
            let parsed = text
                .get_ref()
                .split_once('-')
                .and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
            let Some((first, last)): Option<(Ipv4Addr, Ipv4Addr)> = parsed else {
                self.wrong(
                    at(),
                    "network.pool",
                    format!("{:?} is no range of addresses", text.get_ref()),
                    "write one such as \"10.10.0.100-10.10.0.199\"",
                );
                continue;
            };
            if first > last {
                self.wrong(
                    at(),
                    "network.pool",
                    format!("{first} is after {last}"),
                    &format!("did you mean \"{last}-{first}\"?"),
                );
                continue;
            }
            if *raw.role.get_ref() == Role::Uplink {
                self.wrong(
                    at(),
                    "network.pool",
                    "an uplink has no pool: we serve nothing there",
                    "",
                );
            }
            self.pool_fits(text, address, first, last);
            if let Some((a, b)) = pools.iter().find(|(a, b)| first <= *b && *a <= last) {
                self.wrong(at(), "network.pool", format!("{first}-{last} overlaps {a}-{b}"), "");
            }
            pools.push((first, last));
        }
        pools
    }

    /// A pool must lie among the hosts of our network, beside our own address.
    fn pool_fits(&mut self, text: &Spanned<String>, address: Address, first: Ipv4Addr, last: Ipv4Addr) {
        if let Some((own, prefix)) = fixed(address) {
            if !is_host(own, prefix, first) || !is_host(own, prefix, last) {
                self.wrong(
                    Some(text.span()),
                    "network.pool",
                    format!("{first}-{last} is not within the hosts of {own}/{prefix}"),
                    &format!("hosts there are {}", hosts(own, prefix)),
                );
            } else if (first..=last).contains(&own) {
                self.wrong(
                    Some(text.span()),
                    "network.pool",
                    format!("the pool holds our own address {own}"),
                    "let it begin after that",
                );
            }
        } else if address == Address::Dhcp {
            self.wrong(
                Some(text.span()),
                "network.pool",
                "a pool needs a fixed address of our own in the same network",
                "write address = \"A.B.C.D/LENGTH\"",
            );
        }
    }

    pub(super) fn reservations(&mut self, raw: &RawNetwork, address: Address) -> Vec<Reservation> {
        let mut found: Vec<Reservation> = Vec::new();
        for one in &raw.reservation {
            let at = *one.address.get_ref();
            let mac = self.mac(&one.mac, "network.reservation.mac");
            if let Some((own, prefix)) = fixed(address)
                && (!is_host(own, prefix, at) || at == own)
            {
                self.wrong(
                    Some(one.address.span()),
                    "network.reservation.address",
                    format!("{at} cannot be given to a machine in {own}/{prefix}"),
                    &format!("hosts there are {}", hosts(own, prefix)),
                );
            }
            if found.iter().any(|other| other.address == at) {
                self.wrong(
                    Some(one.address.span()),
                    "network.reservation.address",
                    format!("{at} is reserved twice"),
                    "",
                );
            }
            if found.iter().any(|other| Some(other.mac) == mac) {
                self.wrong(
                    Some(one.mac.span()),
                    "network.reservation.mac",
                    "this machine has a reservation already",
                    "",
                );
            }
            if let Some(name) = one.name.as_ref().filter(|name| !is_label(name.get_ref())) {
                self.wrong(
                    Some(name.span()),
                    "network.reservation.name",
                    format!("{:?} is no host name", name.get_ref()),
                    "use lower-case letters, digits and '-'",
                );
            }
            let name = one.name.as_ref().map(|name| name.get_ref().clone());
            found.extend(mac.map(|mac| Reservation { mac, address: at, name }));
        }
        found
    }

    pub(super) fn mac(&mut self, text: &Spanned<String>, field: &str) -> Option<MacAddr> {
        let mac = text.get_ref().parse::<MacAddr>().ok().filter(MacAddr::is_unicast);
        if mac.is_none() {
            self.wrong(
                Some(text.span()),
                field,
                format!("{:?} is no MAC address of a machine", text.get_ref()),
                "write one such as \"52:54:00:12:34:56\"",
            );
        }
        mac
    }

    /// What networks must not have in common.
    fn together(&mut self, raw: &[&RawNetwork], networks: &[Network]) {
        for (index, one) in networks.iter().enumerate() {
            for (other_raw, other) in raw.iter().zip(networks).take(index) {
                let at = |part: &dyn Fn(&RawNetwork) -> Option<Range<usize>>| {
                    part(raw[index]).or(Some(raw[index].name.span()))
                };
                if one.name == other.name {
                    self.wrong(
                        Some(raw[index].name.span()),
                        "network.name",
                        format!("two networks are called {:?}", one.name),
                        "",
                    );
                }
                if one.interface == other.interface && one.vlan == other.vlan {
                    let place = at(&|raw| raw.interface.as_ref().map(Spanned::span));
                    let line = line_of(self.text, other_raw.name.span().start);
                    self.wrong(
                        place,
                        "network.interface",
                        format!(
                            "{:?} and {:?} (line {line}) are both untagged on {}",
                            other.name, one.name, one.interface
                        ),
                        "name different interfaces, or give one of them a vlan",
                    );
                }
                if let (Some((a, x)), Some((b, y))) = (fixed(one.address), fixed(other.address))
                    && in_prefix(a, x.min(y), b)
                {
                    let place = at(&|raw| raw.address.as_ref().map(Spanned::span));
                    self.wrong(
                        place,
                        "network.address",
                        format!("{a}/{x} overlaps {b}/{y} of {:?}", other.name),
                        "give each network addresses of its own",
                    );
                }
            }
        }
    }
}
