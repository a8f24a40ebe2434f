//! The site's zones, made of what is known about the rack.
//!
//! Reverse zones lie on the borders of labels: octets in `in-addr.arpa` (RFC 1035 section 3.5), nibbles in `ip6.arpa`
//! (RFC 3596 section 2.5). A network whose prefix ends inside a label gets one zone for each value of that label which is
//! in it, and no zone that would deny a neighbour's addresses: 4 zones for an IPv4 /22 or an IPv6 /62, 64 (one per
//! address) for an IPv4 /26. An IPv4 /25 to /30 gets the RFC 2317 zone (`64/26.0.10.10.in-addr.arpa`) besides, so that
//! whoever has the octet above can point into it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::name::{Name, ancestors};
use crate::zone::{Data, Zones};

/// Seconds that records of ours may be kept: names follow leases.
const TTL: u32 = 60;
/// Seconds that "no such name" may be kept: a machine that is about to get its name shall be found soon.
const NEGATIVE: u32 = 15;

/// A machine or device with a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// Its first label.
    pub label: String,
    /// The domain that its addresses' networks say; the site's when none does.
    pub domain: Option<Name>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A record that the site's configuration names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SiteRecord {
    /// Its name.
    pub name: Name,
    /// What it says.
    pub data: Data,
}

/// Everything that the zones are made of. Equal values make equal zones, but for the serial number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SiteNames {
    /// The site's domain; every host has a name in it.
    pub domain: Name,
    /// Our own first label in every domain, such as `rackbar`.
    pub server: String,
    /// Our own addresses.
    pub addresses: Vec<IpAddr>,
    /// First labels that are aliases of the server, such as `ntp`.
    pub aliases: Vec<String>,
    /// Networks whose addresses are ours to name: any address in it, and the prefix length.
    pub networks: Vec<(IpAddr, u8)>,
    /// Hosts.
    pub hosts: Vec<Host>,
    /// The site's own records. They go before everything but the server's; the addresses in them lead back to them where
    /// they are nobody else's.
    pub records: Vec<SiteRecord>,
}

impl SiteNames {
    /// The zones, all with `serial`. Whatever cannot be a name is left out.
    pub fn zones(&self, serial: u32) -> Zones {
        let mut zones = Zones::new(serial);
        let Ok(server) = self.domain.child(&self.server) else {
            return zones;
        };
        let person = self.domain.child("hostmaster").unwrap_or_else(|_| self.domain.clone());
        let mut begin = |apex: &Name| zones.begin(apex, &server, &person, NEGATIVE, TTL);
        begin(&self.domain);
        self.domains().for_each(&mut begin);
        for &(address, prefix) in &self.networks {
            reverse_zones(address, prefix).iter().for_each(&mut begin);
            if let IpAddr::V4(address) = address {
                classless(address, prefix).iter().for_each(&mut begin);
            }
        }
        self.server(&mut zones);
        let taken = |record: &&SiteRecord| zones.add(&record.name, &record.data, TTL);
        let taken: Vec<&SiteRecord> = self.records.iter().filter(taken).collect();
        for host in &self.hosts {
            self.host(&mut zones, host);
        }
        // A record is often a second name of a machine, whose own name its address keeps.
        for record in taken {
            if let Data::Address(address) = record.data {
                self.reverse(&mut zones, address, &record.name);
            }
        }
        zones
    }

    fn domains(&self) -> impl Iterator<Item = &Name> {
        self.hosts.iter().filter_map(|host| host.domain.as_ref())
    }

    fn server(&self, zones: &mut Zones) {
        let mut domains: Vec<&Name> = self.domains().chain([&self.domain]).collect();
        domains.sort_unstable();
        domains.dedup();
        for domain in domains {
            let Ok(name) = domain.child(&self.server) else { continue };
            for address in &self.addresses {
                zones.add(&name, &Data::Address(*address), TTL);
            }
            for alias in &self.aliases {
                if let Ok(alias) = domain.child(alias) {
                    zones.add(&alias, &Data::Cname(name.clone()), TTL);
                }
            }
        }
        if let Ok(name) = self.domain.child(&self.server) {
            self.addresses
                .iter()
                .for_each(|address| self.reverse(zones, *address, &name));
        }
    }

    fn host(&self, zones: &mut Zones, host: &Host) {
        // No machine takes the appliance's own name or that of its services.
        if host.label.eq_ignore_ascii_case(&self.server) || self.aliases.contains(&host.label) {
            return;
        }
        let domains = host.domain.iter().chain([&self.domain]);
        let names: Vec<Name> = domains.filter_map(|domain| domain.child(&host.label).ok()).collect();
        for address in &host.addresses {
            for name in &names {
                zones.add(name, &Data::Address(*address), TTL);
            }
            if let Some(name) = names.first() {
                self.reverse(zones, *address, name);
            }
        }
    }

    /// One PTR record for an address: the first name wins.
    fn reverse(&self, zones: &mut Zones, address: IpAddr, name: &Name) {
        let ptr = Data::Ptr(name.clone());
        let place = Name::of_address(address);
        if matches!(
            zones.find(place.wire(), crate::rtype::PTR),
            crate::zone::Found::Records(_)
        ) {
            return;
        }
        zones.add(&place, &ptr, TTL);
        let IpAddr::V4(address) = address else { return };
        for &(network, prefix) in &self.networks {
            if let IpAddr::V4(network) = network
                && let Some(apex) = classless(network, prefix)
                && address.to_bits() & mask(prefix) == network.to_bits() & mask(prefix)
                && let Ok(place) = apex.child(&address.octets()[3].to_string())
            {
                zones.add(&place, &ptr, TTL);
            }
        }
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

/// The zones on borders of labels that make up a network: at most 128 of IPv4, 8 of IPv6. A prefix that is shorter than
/// one label is taken as one label long: the root of the tree is nobody's network.
fn reverse_zones(address: IpAddr, prefix: u8) -> Vec<Name> {
    let (bits, all, label) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32, 8),
        IpAddr::V6(address) => (address.to_bits(), 128, 4),
    };
    let prefix = prefix.clamp(label, all);
    let border = prefix.next_multiple_of(label);
    let network = bits & u128::MAX << (all - prefix);
    let of = |n: u128| {
        let first = network | n << (all - border);
        let first = match address {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::from_bits(first as u32)),
            IpAddr::V6(_) => Ipv6Addr::from_bits(first).into(),
        };
        let name = Name::of_address(first);
        // The zone's name is that of its first address without the labels behind the border.
        let apex = ancestors(name.wire()).nth(usize::from((all - border) / label))?;
        Name::read(apex)
    };
    (0..1 << (border - prefix)).filter_map(of).collect()
}

/// The zone of a network that is smaller than an octet, as RFC 2317 section 4 names it.
fn classless(address: Ipv4Addr, prefix: u8) -> Option<Name> {
    if !(25..=30).contains(&prefix) {
        return None;
    }
    let [a, b, c, d] = (address.to_bits() & mask(prefix)).to_be_bytes();
    Name::parse(&format!("{d}/{prefix}.{c}.{b}.{a}.in-addr.arpa")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(address: impl Into<IpAddr>, prefix: u8) -> Vec<String> {
        reverse_zones(address.into(), prefix)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn reverse_zones_cover_a_network_and_nothing_else() {
        assert_eq!(names([10, 10, 3, 9], 24), ["3.10.10.in-addr.arpa."]);
        assert_eq!(
            names([10, 10, 6, 1], 23),
            ["6.10.10.in-addr.arpa.", "7.10.10.in-addr.arpa."]
        );
        assert_eq!(names([172, 16, 5, 1], 12).len(), 16);
        assert_eq!(names([172, 16, 5, 1], 12)[15], "31.172.in-addr.arpa.");
        let small = names([10, 0, 0, 70], 30);
        assert_eq!(small.first().unwrap(), "68.0.0.10.in-addr.arpa.");
        assert_eq!(small.len(), 4);
        assert_eq!(names([10, 1, 2, 3], 8), ["10.in-addr.arpa."]);
        assert_eq!(
            classless([10, 0, 0, 70].into(), 26).unwrap().to_string(),
            "64/26.0.0.10.in-addr.arpa."
        );
        assert_eq!(classless([10, 0, 0, 70].into(), 24), None);
    }

    fn six(address: &str) -> IpAddr {
        IpAddr::V6(address.parse().unwrap())
    }

    #[test]
    fn ipv6_networks_have_zones_on_nibble_borders() {
        assert_eq!(
            names(six("2001:db8:100:f::9"), 64),
            ["f.0.0.0.0.0.1.0.8.b.d.0.1.0.0.2.ip6.arpa."]
        );
        assert_eq!(
            names(six("fd00:0:0:6::9"), 62),
            [4, 5, 6, 7].map(|n| format!("{n}.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa."))
        );
        assert_eq!(names(six("fd00::1"), 7), ["c.f.ip6.arpa.", "d.f.ip6.arpa."]);
        let one = six("2001:db8::1");
        assert_eq!(names(one, 128), [Name::of_address(one).to_string()]);
        assert_eq!(names(one, 126).len(), 4);
        assert_eq!(names(one, 0), ["2.ip6.arpa."]);
    }

    #[test]
    fn of_every_prefix_length_all_addresses_and_no_neighbours_are_ours() {
        let address: Ipv6Addr = "2001:db8:1234:5678:9abc:def0:a5a5:5a5a".parse().unwrap();
        for prefix in 4..=128 {
            let zones = reverse_zones(address.into(), prefix);
            let holders = |address: u128| {
                let name = Name::of_address(Ipv6Addr::from_bits(address).into());
                zones.iter().filter(|zone| name.is_within(zone)).count()
            };
            for bit in 0..128 {
                let other = address.to_bits() ^ 1 << (127 - bit);
                assert_eq!(holders(other), usize::from(bit >= prefix), "/{prefix}, bit {bit}");
            }
            assert_eq!(holders(address.to_bits()), 1, "/{prefix}");
        }
    }
}
