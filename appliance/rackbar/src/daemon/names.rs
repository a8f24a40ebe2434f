//! What the rack's machines are called: from nodes, leases and the configuration to the names that DNS serves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use rackbar_dns::{Host, Name, SiteNames};
use rackbar_model::{Lease, LeaseState, MacAddr, Node, NodeId, Timestamp};
use rackbar_plan::Site;
use rackbar_plan::site::Addresses;

use super::network::Placed;
use crate::config::{Config, Network};

/// Our own name, and the aliases of it that clients are set up with.
const SERVER: &str = "rackbar";
const ALIASES: [&str; 4] = ["dns", "ntp", "syslog", "proxy"];

/// The domain of a site that names none; `.internal` is set aside for private use.
const DOMAIN: &str = "rack.internal";

/// What names are made of.
pub(super) struct Known<'a> {
    pub(super) config: &'a Config,
    pub(super) placed: &'a [Placed],
    /// The site file, which says a domain, and which IPv6 networks there are.
    pub(super) site: Option<&'a Site>,
    pub(super) nodes: &'a [std::sync::Arc<Node>],
    pub(super) leases: &'a [Lease],
    /// Static addresses of installed systems.
    pub(super) given: &'a [(NodeId, Vec<IpAddr>)],
}

/// The site's domain: what the configuration says, else the site file, else the first network's.
pub(super) fn domain(config: &Config, site: Option<&str>) -> Name {
    let parse = |text: &str| Name::parse(text).ok();
    let network = config
        .all_networks()
        .find_map(|network| parse(network.domain.as_deref()?));
    let named = config.names.domain.clone().or_else(|| site.and_then(parse));
    named.or(network).or_else(|| parse(DOMAIN)).unwrap_or_else(Name::root)
}

/// All names.
pub(super) fn names(known: &Known<'_>) -> SiteNames {
    let config = known.config;
    let served = |one: &&Placed| {
        let network = config.networks.get(one.network);
        network.is_some_and(|network| network.role != crate::config::Role::Uplink)
    };
    let placed = known.placed.iter().filter(served);
    let own: Vec<(Ipv4Addr, u8)> = placed.filter_map(|one| one.address).collect();
    // Networks behind a relay have reverse names too. We have no address there.
    let remotes = config.remotes.iter().map(|remote| remote.subnet);
    let four = own.iter().copied().chain(remotes);
    let networks = four.map(|(address, prefix)| (address.into(), prefix));
    let networks = networks.chain(known.site.into_iter().flat_map(six)).collect();
    let mut hosts = Hosts::default();
    let mut claimed = BTreeSet::new();
    let given: HashMap<NodeId, &Vec<IpAddr>> = known.given.iter().map(|(node, list)| (*node, list)).collect();
    let bound: HashMap<MacAddr, Vec<&Lease>> = by_mac(known.leases);
    let holders = holders(known.nodes);
    for node in known.nodes {
        let addresses = addresses(node, given.get(&node.id).copied(), &bound);
        claimed.extend(addresses.iter().copied());
        let label = match label_of(node) {
            Some(label) if holders.get(label).is_none_or(|(_, holder)| *holder == node.id) => label,
            _ => node.name.as_str(),
        };
        // Its own name may be what another was installed as.
        if holders.get(label).is_some_and(|(_, holder)| *holder != node.id) {
            continue;
        }
        for address in addresses {
            hosts.add(label, address, &network_of(known, address));
        }
        if let Some(address) = node.bmc_address {
            claimed.insert(address);
            hosts.add(&format!("{label}-bmc"), address, &network_of(known, address));
        }
    }
    // A client's own word for itself is not taken: names of machines that are no nodes come from the configuration.
    for reservation in config.all_networks().flat_map(|network| &network.reservations) {
        if let Some(name) = reservation
            .name
            .as_deref()
            .filter(|_| !claimed.contains(&reservation.address.into()))
        {
            hosts.add(
                name,
                reservation.address.into(),
                &network_of(known, reservation.address.into()),
            );
        }
    }
    SiteNames {
        domain: domain(config, known.site.and_then(|site| site.domain.as_deref())),
        server: SERVER.into(),
        addresses: own.iter().map(|(address, _)| (*address).into()).collect(),
        aliases: ALIASES.map(String::from).into(),
        networks,
        hosts: hosts
            .0
            .into_iter()
            .map(|((label, domain), addresses)| Host {
                label,
                domain,
                addresses,
            })
            .collect(),
        records: config.names.records.clone(),
    }
}

/// The IPv6 networks whose addresses are ours to name. `rackbar.toml` has none, as no service of ours gives out IPv6
/// addresses; the site file has those that a plan gives systems addresses from. Where it says that addresses come from a
/// DHCP server, that one's operator knows who has them, and we would deny them all.
fn six(site: &Site) -> impl Iterator<Item = (IpAddr, u8)> {
    let given = |network: &&rackbar_plan::site::Network| matches!(network.addresses, Addresses::Range(..));
    let nets = site.network.values().filter(given).map(|network| network.subnet);
    let six = nets.filter(|net| net.addr().is_ipv6());
    six.map(|net| (net.addr(), net.prefix_len()))
}

/// What the system on a node calls itself.
fn label_of(node: &Node) -> Option<&str> {
    let label = node.installed.as_ref()?.hostname.split('.').next();
    label.filter(|label| !label.is_empty())
}

/// Who has each name of an installed system: where a machine was replaced by another, the one installed last.
fn holders(nodes: &[std::sync::Arc<Node>]) -> HashMap<&str, (Timestamp, NodeId)> {
    let mut holders: HashMap<&str, (Timestamp, NodeId)> = HashMap::new();
    for node in nodes {
        let Some((label, installed)) = label_of(node).zip(node.installed.as_ref()) else {
            continue;
        };
        let mine = (installed.at, node.id);
        let holder = holders.entry(label).or_insert(mine);
        *holder = (*holder).max(mine);
    }
    holders
}

#[derive(Default)]
struct Hosts(BTreeMap<(String, Option<Name>), Vec<IpAddr>>);

impl Hosts {
    fn add(&mut self, label: &str, address: IpAddr, domain: &Option<Name>) {
        let addresses = self.0.entry((label.to_owned(), domain.clone())).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
}

fn by_mac(leases: &[Lease]) -> HashMap<MacAddr, Vec<&Lease>> {
    let mut out: HashMap<MacAddr, Vec<&Lease>> = HashMap::new();
    for lease in leases.iter().filter(|lease| lease.state == LeaseState::Bound) {
        out.entry(lease.mac).or_default().push(lease);
    }
    out
}

/// An installed system's own addresses; before that, what it leased and where its agent is.
fn addresses(node: &Node, given: Option<&Vec<IpAddr>>, bound: &HashMap<MacAddr, Vec<&Lease>>) -> Vec<IpAddr> {
    if let Some(given) = given.filter(|given| node.installed.is_some() && !given.is_empty()) {
        return given.clone();
    }
    let leased = node.macs.iter().filter_map(|mac| bound.get(mac)).flatten();
    let mut addresses: Vec<IpAddr> = leased.map(|lease| lease.address.into()).collect();
    // Of somebody else's DHCP server we know only what the agent showed.
    if let Some(address) = node
        .address
        .filter(|address| addresses.is_empty() && !address.is_loopback())
    {
        addresses.push(address);
    }
    addresses
}

fn network_of(known: &Known<'_>, address: IpAddr) -> Option<Name> {
    let near: Option<&Network> = known
        .placed
        .iter()
        .find(|one| one.address.is_some_and(|(near, prefix)| is_near(near, prefix, address)))
        .and_then(|one| known.config.networks.get(one.network));
    let far = || {
        let mut remotes = known.config.remotes.iter();
        remotes
            .find(|one| is_near(one.subnet.0, one.subnet.1, address))
            .map(|one| &one.network)
    };
    let network = near.or_else(far)?;
    Name::parse(network.domain.as_deref()?).ok()
}

/// Whether `address` is in the network of `near`.
pub(super) fn is_near(near: Ipv4Addr, prefix: u8, address: IpAddr) -> bool {
    let IpAddr::V4(address) = address else { return false };
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    near.to_bits() & mask == address.to_bits() & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names where the first network is served and nobody is known.
    fn of(config: &Config) -> SiteNames {
        let placed = [Placed {
            network: 0,
            link: None,
            address: Some(([10, 10, 0, 1].into(), 24)),
            trouble: None,
        }];
        names(&Known {
            config,
            placed: &placed,
            site: None,
            nodes: &[],
            leases: &[],
            given: &[],
        })
    }

    #[test]
    fn the_domain_is_the_most_particular_one_that_is_said() {
        let text = crate::config::DEFAULT;
        let config = |text: &str| crate::config::check(text, &crate::config::no_files).unwrap();
        assert_eq!(domain(&config(text), None).to_string(), "rack.internal.");
        assert_eq!(domain(&config(text), Some("site.example")).to_string(), "site.example.");
        let network = format!("{text}domain = \"net.example\"\n");
        assert_eq!(domain(&config(&network), None).to_string(), "net.example.");
        let said = format!("{network}[dns]\ndomain = \"own.example\"\n");
        assert_eq!(domain(&config(&said), Some("site.example")).to_string(), "own.example.");
    }

    #[test]
    fn reservations_have_names_both_ways_and_other_leases_none() {
        let text = format!(
            "{}[[network.reservation]]\nmac = \"52:54:00:00:00:09\"\naddress = \"10.10.0.20\"\nname = \"web-1\"\n",
            crate::config::DEFAULT
        );
        let config = crate::config::check(&text, &crate::config::no_files).unwrap();
        let names = of(&config);
        assert_eq!(names.hosts.len(), 1);
        assert_eq!(
            (names.hosts[0].label.as_str(), &names.hosts[0].addresses),
            ("web-1", &vec![[10, 10, 0, 20].into()])
        );
        assert_eq!(names.networks, [([10, 10, 0, 1].into(), 24)]);
    }

    #[test]
    fn a_network_behind_a_relay_has_reverse_names_and_is_no_address_of_ours() {
        let text = format!(
            "{}[[network]]\nname = \"rack-b\"\nrole = \"rack\"\nsubnet = \"10.30.0.0/24\"\nthrough = \"rack\"\n\
             next_hop = \"10.10.0.254\"\ngateway = \"10.30.0.254\"\npool = [\"10.30.0.100-10.30.0.199\"]\n",
            crate::config::DEFAULT
        );
        let config = crate::config::check(&text, &crate::config::no_files).unwrap();
        let names = of(&config);
        assert_eq!(names.addresses, [std::net::IpAddr::from([10, 10, 0, 1])]);
        assert_eq!(
            names.networks,
            [([10, 10, 0, 1].into(), 24), ([10, 30, 0, 0].into(), 24)]
        );
    }

    #[test]
    fn ipv6_networks_have_reverse_names_where_the_site_file_gives_addresses_of_them() {
        let config = crate::config::check(crate::config::DEFAULT, &crate::config::no_files).unwrap();
        let text = "version = 1\n[network.six]\nsubnet = \"2001:db8:0:4::/62\"\n\
                    addresses = \"2001:db8:0:6::50-2001:db8:0:6::99\"\n\
                    [network.auto]\nsubnet = \"2001:db8:1::/64\"\n\
                    [network.four]\nsubnet = \"10.99.0.0/24\"\naddresses = \"10.99.0.5-10.99.0.9\"\n";
        let site = Site::parse_for(text, &BTreeSet::new()).unwrap();
        let node = installed(1, 1_000);
        let address: IpAddr = "2001:db8:0:6::50".parse().unwrap();
        let names = names(&Known {
            config: &config,
            placed: &[],
            site: Some(&site),
            leases: &[],
            given: &[(node.id, vec![address])],
            nodes: &[node],
        });
        assert_eq!(names.networks, [("2001:db8:0:4::".parse().unwrap(), 62)]);
        assert_eq!(names.hosts[0].addresses, [address]);
    }

    /// A node that was installed as `web-1` at this time and has this address.
    fn installed(number: u8, at: u64) -> std::sync::Arc<Node> {
        let at = Timestamp(at);
        let id = format!("00000000-0000-4000-8000-0000000000{number:02}");
        let node = serde_json::json!({
            "id": id, "name": format!("node-00{number}"), "state": "ready", "state_since": at, "first_seen": at,
            "last_seen": at, "agent_connected": false, "power": "unknown", "address": format!("10.10.0.{number}"),
            "bmc_address": null, "macs": [], "witnesses": [], "collisions": [], "inventory": null, "inventory_at": null,
            "verdict": "",
            "installed": { "image": "debian-12", "sha256": "00".repeat(32), "hostname": "web-1", "at": at, "run": 1,
                "target": { "disk": rackbar_model::DiskRef::default() } },
        });
        std::sync::Arc::new(serde_json::from_value(node).unwrap())
    }

    #[test]
    fn a_name_leads_to_the_machine_that_was_installed_with_it_last() {
        let config = crate::config::check(crate::config::DEFAULT, &crate::config::no_files).unwrap();
        for order in [[1, 2], [2, 1]] {
            let nodes = order.map(|number| installed(number, u64::from(number) * 1_000));
            let known = Known {
                config: &config,
                placed: &[],
                site: None,
                nodes: &nodes,
                leases: &[],
                given: &[],
            };
            let names = names(&known);
            let hosts: Vec<_> = names
                .hosts
                .iter()
                .map(|host| (host.label.as_str(), &host.addresses))
                .collect();
            let address = |last: u8| vec![IpAddr::from([10, 10, 0, last])];
            assert_eq!(hosts, [("node-001", &address(1)), ("web-1", &address(2))]);
        }
    }
}
