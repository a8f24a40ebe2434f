//! Where clients may be led. A proxy is a way around every firewall it stands behind: a node that asks for
//! `http://127.0.0.1/` or for the address of a BMC must get a refusal, also by a name that resolves to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Ports of plain origins.
const HTTP_PORTS: [u16; 5] = [80, 443, 8000, 8080, 8443];

/// The rule for destinations that clients name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Destinations {
    /// Names that may be asked for: exact, or `*.example.org`; empty for any.
    pub hosts: Vec<String>,
    /// Ports of `CONNECT`.
    pub connect_ports: Vec<u16>,
    /// Further ports of GET and its kin.
    pub ports: Vec<u16>,
    /// Addresses of the appliance itself, and networks nobody is led into: those of BMCs.
    pub forbidden: Vec<IpNet>,
    /// Networks that are allowed although another rule forbids them.
    pub allowed: Vec<IpNet>,
}

impl Default for Destinations {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            connect_ports: vec![443],
            ports: Vec::new(),
            forbidden: Vec::new(),
            allowed: Vec::new(),
        }
    }
}

/// Why a destination is refused; a sentence each.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The name is not on the list.
    #[error("{0} is not among the hosts this proxy leads to; see allow_hosts in the [proxy] section of rackbar.toml")]
    Host(String),
    /// The port is not on the list.
    #[error(
        "port {0} is not among those this proxy leads to; see connect_ports and ports in the [proxy] section of rackbar.toml"
    )]
    Port(u16),
    /// The address is one nobody is led to.
    #[error("{0} is an address this proxy leads nobody to: {1}")]
    Address(IpAddr, &'static str),
}

impl Destinations {
    /// Whether the name may be asked for.
    ///
    /// # Errors
    /// Why not.
    pub fn name(&self, host: &str) -> Result<(), Refusal> {
        let fits = |pattern: &String| match pattern.strip_prefix("*.") {
            Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
            None => pattern == host,
        };
        if self.hosts.is_empty() || self.hosts.iter().any(fits) {
            Ok(())
        } else {
            Err(Refusal::Host(host.to_owned()))
        }
    }

    /// Whether the port may be asked for.
    ///
    /// # Errors
    /// Why not.
    pub fn port(&self, port: u16, connect: bool) -> Result<(), Refusal> {
        let fits = if connect {
            self.connect_ports.contains(&port)
        } else {
            HTTP_PORTS.contains(&port) || self.ports.contains(&port)
        };
        if fits { Ok(()) } else { Err(Refusal::Port(port)) }
    }

    /// Whether a connection may be opened to the address. Asked with the very address that is then connected to, so that
    /// a name cannot resolve to another one in between.
    ///
    /// # Errors
    /// Why not.
    pub fn address(&self, address: IpAddr) -> Result<(), Refusal> {
        let real = inner(address);
        if self.allowed.iter().any(|net| net.contains(&real)) {
            return Ok(());
        }
        let special = match real {
            IpAddr::V4(v4) => special_v4(v4),
            IpAddr::V6(v6) => special_v6(v6),
        };
        let forbidden = self.forbidden.iter().any(|net| net.contains(&real));
        match special.or(forbidden.then_some("it belongs to the appliance or to a network of BMCs")) {
            Some(why) => Err(Refusal::Address(address, why)),
            None => Ok(()),
        }
    }
}

/// The IPv4 address inside an IPv6 one, by which the same host is reached.
fn inner(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let low = Ipv4Addr::from_bits(u32::from(g) << 16 | u32::from(h));
    match (a, b) {
        (0, 0) if (c, d, e) == (0, 0, 0) && (f == 0xffff || (f == 0 && (g, h) > (0, 1))) => low.into(),
        (0x64, 0xff9b) => low.into(),
        (0x2002, _) => Ipv4Addr::from_bits(u32::from(b) << 16 | u32::from(c)).into(),
        _ => address,
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [127, ..] => Some("it is a loopback address"),
        [169, 254, ..] => Some("it is a link-local address"),
        [0, ..] => Some("it is no address of a host"),
        [224..=239, ..] => Some("it is a multicast address"),
        [240..=255, ..] => Some("it is a reserved address"),
        _ => None,
    }
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let first = address.segments()[0];
    match first {
        _ if address.is_loopback() => Some("it is a loopback address"),
        _ if address.is_unspecified() => Some("it is no address of a host"),
        0xfe80..=0xfebf => Some("it is a link-local address"),
        0xff00..=0xffff => Some("it is a multicast address"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_to_ourselves_to_neighbours_or_to_bmcs() {
        let rule = Destinations {
            forbidden: vec!["10.9.0.0/24".parse().unwrap(), "192.0.2.1/32".parse().unwrap()],
            ..Destinations::default()
        };
        for bad in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "10.9.0.77",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.9.0.77",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
        ] {
            assert!(rule.address(bad.parse().unwrap()).is_err(), "{bad}");
        }
        for good in ["192.0.2.2", "10.8.0.1", "2001:db8::1", "::ffff:192.0.2.2"] {
            assert_eq!(rule.address(good.parse().unwrap()), Ok(()), "{good}");
        }
        let opened = Destinations {
            allowed: vec!["10.9.0.77/32".parse().unwrap()],
            ..rule
        };
        assert_eq!(opened.address("10.9.0.77".parse().unwrap()), Ok(()));
        assert!(opened.address("10.9.0.78".parse().unwrap()).is_err());
    }

    #[test]
    fn names_and_ports_are_taken_from_their_lists() {
        let rule = Destinations {
            hosts: vec!["deb.example.org".into(), "*.example.org".into()],
            ..Destinations::default()
        };
        for good in ["deb.example.org", "a.example.org", "a.b.example.org"] {
            assert_eq!(rule.name(good), Ok(()), "{good}");
        }
        for bad in ["example.org", "evilexample.org", "deb.example.org.evil.net"] {
            assert!(rule.name(bad).is_err(), "{bad}");
        }
        assert!(rule.port(443, true).is_ok() && rule.port(22, true).is_err() && rule.port(80, true).is_err());
        assert!(rule.port(80, false).is_ok() && rule.port(25, false).is_err());
    }
}
