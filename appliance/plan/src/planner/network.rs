//! Who an installed system is: its NICs, addresses, services and keys.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rackbar_model::{ImageEntry, Inventory, Nic, NodeId, OsFile, OsNetwork, OsSetup, SecretText};

use super::memory::Given;
use crate::digest;
use crate::rules::{NicSelector, boot_nic};
use crate::site::{Addresses, Network, Role, RoleNetwork, Service, Site};
use crate::{Facts, NodeFacts, OwnService};

/// Static addresses: who has which, and which is free next.
pub(super) struct Pool {
    taken: BTreeSet<IpAddr>,
    owners: HashMap<IpAddr, NodeId>,
    next: BTreeMap<String, Option<IpAddr>>,
    /// What it answered since [`Pool::answers`] was asked.
    answers: Vec<Given>,
}

impl Pool {
    pub(super) fn new(site: &Site, facts: &Facts) -> Self {
        let mut taken = facts.taken.clone();
        taken.extend(&facts.appliance);
        taken.extend(site.network.values().filter_map(|network| network.gateway));
        for network in site.network.values() {
            for service in OwnService::ALL {
                if let Service::External(list) = super::services::of(network, service) {
                    taken.extend(list.iter().filter_map(|entry| service.host_address(entry)));
                }
            }
        }
        let mut owners = facts.owners();
        // A BMC keeps the static address it has; what a machine says never takes one that is bound to another.
        let mut bmcs: BTreeMap<IpAddr, NodeId> = BTreeMap::new();
        for node in &facts.nodes {
            let bmc = node
                .node
                .inventory
                .as_ref()
                .and_then(|inventory| inventory.bmc.as_ref());
            if let Some(address) = bmc.filter(|bmc| bmc.dhcp == Some(false)).and_then(|bmc| bmc.address) {
                let owner = bmcs.entry(address).or_insert(node.node.id);
                *owner = node.node.id.min(*owner);
            }
        }
        for (address, node) in bmcs {
            owners.entry(address).or_insert(node);
        }
        Self {
            taken,
            owners,
            next: BTreeMap::new(),
            answers: Vec::new(),
        }
    }

    /// What was asked since this was called before, with the addresses that were kept: `None` for one that was given anew.
    pub(super) fn answers(&mut self) -> Vec<Given> {
        std::mem::take(&mut self.answers)
    }

    /// The address of a network that a node has and keeps.
    pub(super) fn keeps(
        &self,
        holder: &str,
        has: Option<IpAddr>,
        network: &Network,
        facts: &NodeFacts,
    ) -> Option<IpAddr> {
        let Addresses::Range(first, last) = network.addresses else {
            return None;
        };
        let may_keep = |kept: &&IpAddr| {
            (first..=last).contains(*kept)
                && self.owners.get(*kept) == Some(&facts.node.id)
                && !self.taken.contains(*kept)
        };
        let kept = facts.addresses.get(holder).into_iter().chain(&has).find(may_keep);
        kept.copied()
    }

    /// The address that `holder`, the node or its BMC, keeps or gets on a network. `has` is one that it has without our
    /// record.
    pub(super) fn give(
        &mut self,
        name: &str,
        holder: &str,
        has: Option<IpAddr>,
        network: &Network,
        facts: &NodeFacts,
    ) -> Result<Option<IpAddr>, String> {
        let Addresses::Range(first, last) = network.addresses else {
            return Ok(None);
        };
        let kept = self.keeps(holder, has, network, facts);
        self.answers.push(Given {
            network: name.to_owned(),
            holder: holder.to_owned(),
            has,
            address: kept,
        });
        if kept.is_some() {
            return Ok(kept);
        }
        let edges = edges(network.subnet);
        let mut candidate = self.next.get(name).copied().unwrap_or(Some(first));
        while let Some(address) = candidate.filter(|address| *address <= last) {
            candidate = successor(address);
            if !self.taken.contains(&address) && !self.owners.contains_key(&address) && !edges.contains(&address) {
                self.next.insert(name.to_owned(), candidate);
                return Ok(Some(address));
            }
        }
        self.next.insert(name.to_owned(), None);
        Err(format!(
            "network {name}: no address of {first}-{last} is free; make the range larger"
        ))
    }
}

/// The addresses of an IPv4 subnet that no host may have (RFC 1122 section 3.2.1.3; /31 and /32 have none, RFC 3021).
pub(crate) fn edges(subnet: IpNet) -> Vec<IpAddr> {
    match subnet {
        IpNet::V4(net) if net.prefix_len() < 31 => vec![net.network().into(), net.broadcast().into()],
        // The subnet-router anycast address (RFC 4291 section 2.6.1).
        IpNet::V6(net) if net.prefix_len() < 127 => vec![net.network().into()],
        _ => Vec::new(),
    }
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address).checked_add(1)?).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address).checked_add(1)?).into(),
    })
}

/// A role's network selectors, compiled once for all nodes.
pub(super) type Selectors = Vec<Vec<NicSelector>>;

/// Compiles the selectors of a role.
pub(super) fn selectors(role: &Role) -> Selectors {
    role.network
        .iter()
        .map(|network| network.nics.iter().map(|text| NicSelector::new(text)).collect())
        .collect()
}

/// What a setup is made of, for one node.
pub(super) struct Wanted<'a> {
    pub(super) site: &'a Site,
    pub(super) facts: &'a Facts,
    pub(super) role: &'a Role,
    pub(super) selectors: &'a Selectors,
    pub(super) image: &'a ImageEntry,
    pub(super) hostname: &'a str,
}

impl Wanted<'_> {
    /// The identity of a node.
    pub(super) fn setup(&self, node: &NodeFacts, inventory: &Inventory, pool: &mut Pool) -> Result<OsSetup, String> {
        let (site, role) = (self.site, self.role);
        let mut setup = OsSetup {
            hostname: self.hostname.to_owned(),
            domain: site.domain.clone(),
            machine_id: machine_id(node, self.image),
            user: account(role, self.image),
            ssh_keys: keys(site, role),
            ssh_host_key: SecretText::default(),
            timezone: role.timezone.clone(),
            files: files(role),
            ..OsSetup::default()
        };
        let mut nics: Vec<&Nic> = inventory.nics.iter().collect();
        nics.sort_by(|a, b| (a.pci.is_none(), &a.pci, a.mac).cmp(&(b.pci.is_none(), &b.pci, b.mac)));
        for (wanted, selectors) in role.network.iter().zip(self.selectors) {
            let Some(network) = site.network.get(&wanted.network) else {
                return Err(format!(
                    "interface {}: the site has no network {}",
                    wanted.name, wanted.network
                ));
            };
            let macs = select(wanted, selectors, &nics, boot_nic(inventory))?;
            let address = pool.give(&wanted.network, &wanted.network, None, network, node)?;
            setup.networks.push(OsNetwork {
                name: wanted.name.clone(),
                nics: macs,
                bond: wanted.bond,
                vlan: network.vlan,
                mtu: network.mtu.filter(|mtu| *mtu != 1500),
                addresses: address
                    .iter()
                    .map(|ip| format!("{ip}/{}", network.subnet.prefix_len()))
                    .collect(),
                gateway: network.gateway.filter(|_| wanted.default_route && address.is_some()),
            });
            self.services(&wanted.network, network, &mut setup)?;
        }
        // A machine on no network could not be reached, by us neither.
        if role.network.is_empty() {
            setup.networks.extend(boot_nic(inventory).map(lan));
        }
        no_clash(&setup.networks)?;
        frames_fit(&setup.networks)?;
        Ok(setup)
    }

    fn services(&self, name: &str, network: &Network, setup: &mut OsSetup) -> Result<(), String> {
        for host in self.hosts(name, network, OwnService::Dns, &network.dns)? {
            let address = host
                .parse()
                .map_err(|_| format!("network {name}: dns: {host} is not an address"))?;
            if !setup.dns.contains(&address) {
                setup.dns.push(address);
            }
        }
        for host in self.hosts(name, network, OwnService::Ntp, &network.ntp)? {
            if !setup.ntp.contains(&host) {
                setup.ntp.push(host);
            }
        }
        let proxy = self
            .hosts(name, network, OwnService::Proxy, &network.proxy)?
            .into_iter()
            .next();
        setup.proxy = setup.proxy.take().or(proxy);
        let syslog = self
            .hosts(name, network, OwnService::Syslog, &network.syslog)?
            .into_iter()
            .next();
        setup.syslog = setup.syslog.take().or(syslog);
        Ok(())
    }

    fn hosts(&self, name: &str, network: &Network, own: OwnService, wanted: &Service) -> Result<Vec<String>, String> {
        match wanted {
            Service::Off => Ok(Vec::new()),
            Service::External(list) => Ok(list.clone()),
            Service::Own if !self.facts.services.contains(&own) => Err(format!(
                "network {name}: the appliance has no {} service of its own",
                own.name()
            )),
            Service::Own => {
                let address = self.facts.own_for(&network.subnet);
                let missing = || {
                    let service = own.name();
                    format!(
                        "network {name}: {service} = \"own\", but the appliance has no address in {}, and rackbar.toml names no \
                         relay to it",
                        network.subnet
                    )
                };
                Ok(vec![own.at(address.ok_or_else(missing)?)])
            }
        }
    }
}

/// An interface has the greatest MTU of all that it carries, because a VLAN's frames pass through it. What it carries untagged
/// has that MTU then too: it would send frames into its network that nobody there takes.
fn frames_fit(networks: &[OsNetwork]) -> Result<(), String> {
    let mtu = |network: &OsNetwork| network.mtu.unwrap_or(1500);
    for untagged in networks.iter().filter(|network| network.vlan.is_none()) {
        let shares =
            |other: &&OsNetwork| other.vlan.is_some() && other.nics.iter().any(|mac| untagged.nics.contains(mac));
        let larger = networks.iter().filter(shares).find(|other| mtu(other) > mtu(untagged));
        if let Some(tagged) = larger {
            return Err(format!(
                "interfaces {0} and {1}: VLAN {2} of {1} has an MTU of {3}, so the NIC below both needs it, and {0}, which is untagged \
                 there, would have it too in place of {4}: give the network of {0} `mtu = {3}` if all of it takes such frames, or a \
                 VLAN of its own, or other NICs",
                untagged.name,
                tagged.name,
                tagged.vlan.unwrap_or_default(),
                mtu(tagged),
                mtu(untagged)
            ));
        }
    }
    Ok(())
}

/// What a machine that is simply installed gets where no network is named: an address from DHCP on the NIC that it booted
/// from. Without this an image whose own set-up is for unnamed machines alone would never be on any network.
fn lan(nic: &Nic) -> OsNetwork {
    OsNetwork {
        name: "lan".to_owned(),
        nics: vec![nic.mac],
        bond: None,
        vlan: None,
        mtu: None,
        addresses: Vec::new(),
        gateway: None,
    }
}

/// The account a role's keys are for.
pub(super) fn account(role: &Role, image: &ImageEntry) -> String {
    let user = role.user.clone().unwrap_or_else(|| image.user.clone());
    if user.is_empty() { "root".to_owned() } else { user }
}

fn keys(site: &Site, role: &Role) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for key in site.ssh_keys.iter().chain(&role.ssh_keys) {
        if !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    keys
}

fn files(role: &Role) -> Vec<OsFile> {
    let file = |file: &crate::site::File| OsFile {
        path: file.path.clone(),
        content: file.content.clone(),
        mode: file.mode,
    };
    role.file.iter().map(file).collect()
}

/// Of the node and the install it follows: the same plan twice gives the same, the next install another.
fn machine_id(node: &NodeFacts, image: &ImageEntry) -> String {
    let before = node.installed.as_ref().map(|installed| installed.at);
    let mut text = digest::of(&("machine-id", node.node.id, image.sha256, before)).to_string();
    text.truncate(32);
    text
}

fn select(
    wanted: &RoleNetwork,
    selectors: &[NicSelector],
    nics: &[&Nic],
    boot: Option<&Nic>,
) -> Result<Vec<rackbar_model::MacAddr>, String> {
    let mut macs = Vec::new();
    let has = || {
        let list: Vec<String> = nics
            .iter()
            .enumerate()
            .map(|(index, nic)| nic_words(index, nic))
            .collect();
        if list.is_empty() {
            "the machine shows no NIC".to_owned()
        } else {
            format!("NICs: {}", list.join("; "))
        }
    };
    for (selector, text) in selectors.iter().zip(&wanted.nics) {
        let found = selector
            .select(nics, boot)
            .map_err(|e| format!("interface {}: `{text}`: {e}", wanted.name))?;
        if found.is_empty() {
            return Err(format!("interface {}: no NIC fits `{text}`. {}", wanted.name, has()));
        }
        macs.extend(
            found
                .iter()
                .map(|nic| nic.mac)
                .filter(|mac| !macs.contains(mac))
                .collect::<Vec<_>>(),
        );
    }
    match (wanted.bond, macs.len()) {
        (None, 0 | 1) if macs.len() == 1 => Ok(macs),
        (None, count) => Err(format!(
            "interface {}: {count} NICs fit and it is no bond. {}",
            wanted.name,
            has()
        )),
        (Some(_), 0 | 1) => Err(format!(
            "interface {}: a bond needs two NICs at least, one fits. {}",
            wanted.name,
            has()
        )),
        (Some(_), _) => Ok(macs),
    }
}

fn nic_words(index: usize, nic: &Nic) -> String {
    let driver = nic.driver.as_deref().unwrap_or("no driver");
    let speed = nic
        .speed_mbps
        .map_or_else(|| "no link".to_owned(), |speed| format!("{speed} Mbit/s"));
    format!(
        "nic{index} {} ({driver}, {speed}{})",
        nic.mac,
        if nic.boot { ", boot" } else { "" }
    )
}

/// One NIC carries one untagged network at most, and any VLAN once; the members of a bond carry nothing else.
fn no_clash(networks: &[OsNetwork]) -> Result<(), String> {
    for (index, one) in networks.iter().enumerate() {
        for other in networks.iter().skip(index + 1) {
            let Some(shared) = one.nics.iter().find(|mac| other.nics.contains(mac)) else {
                continue;
            };
            let same_port = one.bond == other.bond && one.nics == other.nics;
            if !same_port || one.vlan == other.vlan {
                let way = one
                    .vlan
                    .map_or_else(|| "untagged".to_owned(), |vlan| format!("in VLAN {vlan}"));
                return Err(format!(
                    "interfaces {} and {} both use NIC {shared} {way}",
                    one.name, other.name
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str, vlan: Option<u16>, mtu: Option<u16>, nic: u8) -> OsNetwork {
        OsNetwork {
            vlan,
            mtu,
            nics: vec![rackbar_model::MacAddr([2, 0, 0, 0, 0, nic])],
            name: name.into(),
            ..lan(&Nic::default())
        }
    }

    #[test]
    fn an_untagged_network_has_no_smaller_frames_than_what_passes_through_its_nic() {
        let jumbo = network("storage", Some(20), Some(9000), 1);
        let refused = frames_fit(&[network("mgmt", None, None, 1), jumbo.clone()]).unwrap_err();
        for word in ["mgmt", "storage", "VLAN 20", "9000", "1500"] {
            assert!(refused.contains(word), "{refused}");
        }
        for beside in [
            network("mgmt", None, None, 2),
            network("mgmt", None, Some(9000), 1),
            network("mgmt", Some(10), None, 1),
        ] {
            frames_fit(&[jumbo.clone(), beside]).unwrap();
        }
    }
}
