//! Puts the configured networks on the machine's interfaces: links up, VLANs made, addresses set, DHCP clients running.
//!
//! Everything is repeatable: what is there already is left alone, what an earlier configuration put there and the new
//! one does not want is taken away. Addresses set by others are not touched.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rackbar_model::MacAddr;
use rackbar_net::{DhcpClient, DhcpEvent, Lease, Link, Netlink, Prefix, Purpose};

use super::routes::Routes;
use crate::config::{Address, Config, Interface, Network, Role};

/// How long an interface may take to appear and to get a link: 10GBASE-T takes up to nine seconds.
const LINK_PATIENCE: Duration = Duration::from_secs(12);

/// How long a DHCP server may take before we use the address for networks without one.
const LEASE_PATIENCE: Duration = Duration::from_secs(6);

/// Metric of a default route by DHCP; a person's own routes have lower ones.
const METRIC: u32 = 1_024;

/// A network as it is on the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Placed {
    /// Index of the network in the configuration.
    pub(super) network: usize,
    /// The interface; `None` when it was not found.
    pub(super) link: Option<PlacedLink>,
    /// Our address; `None` while a DHCP server has not given one.
    pub(super) address: Option<(Ipv4Addr, u8)>,
    /// What is wrong, in words.
    pub(super) trouble: Option<String>,
}

/// The interface of a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PlacedLink {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) mac: MacAddr,
}

/// The machine's networks, and the DHCP clients that keep them.
#[derive(Default)]
pub(super) struct Networks {
    /// Addresses that we set, to take them away again.
    ours: BTreeSet<(u32, Ipv4Addr, u8)>,
    clients: Vec<Client>,
    routes: Routes,
}

/// A DHCP client on its own thread.
struct Client {
    network: usize,
    stop: Arc<AtomicBool>,
    lease: Arc<Mutex<Option<Lease>>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Networks {
    /// Puts `config` in place. Blocks for some seconds where a link or a DHCP server must be waited for.
    pub(super) fn apply(&mut self, config: &Config) -> Vec<Placed> {
        // Their addresses go with them; those of networks that stay come back with the new clients.
        self.clients.clear();
        let mut netlink = match Netlink::open() {
            Ok(netlink) => netlink,
            Err(error) => {
                return config
                    .networks
                    .iter()
                    .enumerate()
                    .map(|(n, _)| lost(n, error.to_string()))
                    .collect();
            }
        };
        let mut wanted = BTreeSet::new();
        let mut placed = Vec::new();
        for index in in_order(config) {
            let Some(network) = config.networks.get(index) else {
                continue;
            };
            let one = match find(&mut netlink, config, network, &placed, LINK_PATIENCE) {
                Ok(link) => self.place(&mut netlink, index, network, &link, &mut wanted),
                Err(trouble) => lost(index, trouble),
            };
            placed.push(one);
        }
        for (link, address, length) in self.ours.difference(&wanted) {
            // The interface may be gone with it.
            let _ = netlink.remove_address(
                *link,
                Prefix {
                    address: (*address).into(),
                    length: *length,
                },
            );
        }
        self.ours = wanted;
        remove_vlans(&mut netlink, &placed);
        placed.sort_by_key(|one| one.network);
        self.routes.follow(&mut netlink, config, &mut placed);
        placed
    }

    /// Puts in place what has no interface so far: a cable that was plugged in later, a switch that was slower than we, a NIC that
    /// came back. The other networks stay as they are. True when anything is another now.
    pub(super) fn find_missing(&mut self, config: &Config, placed: &mut [Placed]) -> bool {
        let Ok(mut netlink) = Netlink::open() else { return false };
        let Ok(links) = netlink.links() else { return false };
        let mut changed = false;
        for one in placed.iter_mut() {
            let gone = |at: &PlacedLink| !links.iter().any(|link| link.index == at.index);
            if one.link.as_ref().is_some_and(gone) {
                self.clients.retain(|client| client.network != one.network);
                *one = lost(one.network, "its interface is gone".into());
                changed = true;
            }
        }
        for index in in_order(config) {
            let missing = placed.iter().position(|one| one.network == index && one.link.is_none());
            let (Some(at), Some(network)) = (missing, config.networks.get(index)) else {
                continue;
            };
            let others: Vec<Placed> = placed.iter().filter(|one| one.network != index).cloned().collect();
            let Ok(link) = find(&mut netlink, config, network, &others, Duration::ZERO) else {
                continue;
            };
            let mut ours = std::mem::take(&mut self.ours);
            let found = self.place(&mut netlink, index, network, &link, &mut ours);
            self.ours = ours;
            if let Some(one) = placed.get_mut(at) {
                *one = found;
            }
            changed = true;
        }
        if changed {
            self.routes.follow(&mut netlink, config, placed);
        }
        changed
    }

    /// Sets the routes to networks behind relays again: they go with the address of ours they hang on.
    pub(super) fn route(&mut self, config: &Config, placed: &mut [Placed]) {
        match Netlink::open() {
            Ok(mut netlink) => self.routes.follow(&mut netlink, config, placed),
            Err(error) => tracing::error!(%error, "no route could be set"),
        }
    }

    fn place(
        &mut self,
        netlink: &mut Netlink,
        index: usize,
        network: &Network,
        link: &Link,
        wanted: &mut BTreeSet<(u32, Ipv4Addr, u8)>,
    ) -> Placed {
        let mac = link.mac.unwrap_or_default();
        outlive(&link.name);
        let mut placed = Placed {
            network: index,
            link: Some(PlacedLink {
                name: link.name.clone(),
                index: link.index,
                mac,
            }),
            address: None,
            trouble: None,
        };
        let fixed = match network.address {
            Address::Static(address, length) => Some((address, length)),
            Address::Dhcp => {
                self.ask(index, link, &mut placed);
                None
            }
            Address::DhcpOr(address, length) => {
                self.ask(index, link, &mut placed);
                let leased = self.wait_for_lease(index);
                placed.address = leased;
                // On an uplink nobody knows us by our address: it is asked for on and on.
                if leased.is_none() && network.role != Role::Uplink {
                    self.clients.retain(|client| client.network != index);
                }
                leased.is_none().then_some((address, length))
            }
        };
        if let Some(own) = fixed {
            wanted.insert((link.index, own.0, own.1));
            match set(netlink, link.index, own) {
                Ok(()) => placed.address = Some(own),
                Err(trouble) => placed.trouble = Some(trouble),
            }
        }
        placed
    }

    fn ask(&mut self, network: usize, link: &Link, placed: &mut Placed) {
        match Client::start(network, link) {
            Ok(client) => self.clients.push(client),
            Err(trouble) => placed.trouble = Some(trouble),
        }
    }

    /// Asks for an address again where we took our own because no DHCP server answered in time, and one is heard now: a
    /// switch port that spanning tree held for half a minute looks like a network without a server.
    pub(super) fn ask_again(&mut self, config: &Config, one: &mut Placed) {
        let address = config.networks.get(one.network).map(|network| network.address);
        if !matches!(address, Some(Address::DhcpOr(..))) || self.asks(one.network) {
            return;
        }
        let links = Netlink::open()
            .and_then(|mut netlink| netlink.links())
            .unwrap_or_default();
        let here = |link: &&Link| one.link.as_ref().is_some_and(|at| at.index == link.index);
        if let Some(link) = links.iter().find(here) {
            tracing::info!(
                interface = link.name,
                "another DHCP server is heard: asking it for our address"
            );
            self.ask(one.network, link, one);
        }
    }

    fn asks(&self, network: usize) -> bool {
        self.clients.iter().any(|client| client.network == network)
    }

    /// Follows what DHCP servers gave us and took from us. True when an address of ours is another one now.
    pub(super) fn follow_leases(&mut self, config: &Config, placed: &mut [Placed]) -> bool {
        let leased = self.leased();
        let mut changed = false;
        for one in placed {
            if !self.asks(one.network) {
                continue;
            }
            let found = leased.iter().find(|(network, _)| *network == one.network);
            let found = found.map(|(_, address)| *address);
            let own = one.link.as_ref().zip(one.address);
            let own = own.map(|(link, (address, length))| (link.index, address, length));
            // Our own address for a network without a server stays until the server has given another.
            let stands_in = own.filter(|own| self.ours.contains(own));
            if found.is_some() && found == one.address || found.is_none() && stands_in.is_some() {
                continue;
            }
            if let Some(own) = stands_in {
                self.ours.remove(&own);
                take_away(own);
            }
            let address = found.or_else(|| self.stand_in(config, one));
            changed |= address != one.address;
            one.address = address;
        }
        changed
    }

    /// Gives an uplink that has no lease the address that the file says for that. What fails is tried again with the next
    /// look at the leases, and told once.
    fn stand_in(&mut self, config: &Config, one: &mut Placed) -> Option<(Ipv4Addr, u8)> {
        let network = config.networks.get(one.network)?;
        let (Role::Uplink, Address::DhcpOr(address, length)) = (network.role, network.address) else {
            return None;
        };
        let index = one.link.as_ref()?.index;
        let netlink = Netlink::open().map_err(|error| error.to_string());
        if let Err(trouble) = netlink.and_then(|mut netlink| set(&mut netlink, index, (address, length))) {
            if one.trouble.as_ref() != Some(&trouble) {
                tracing::warn!(network = network.name, trouble, "its own address could not be set");
                one.trouble = Some(trouble);
            }
            return None;
        }
        one.trouble = None;
        self.ours.insert((index, address, length));
        Some((address, length))
    }

    fn wait_for_lease(&self, network: usize) -> Option<(Ipv4Addr, u8)> {
        let deadline = Instant::now() + LEASE_PATIENCE;
        while Instant::now() < deadline {
            if let Some((_, found)) = self.leased().into_iter().find(|(index, _)| *index == network) {
                return Some(found);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }

    /// Resolvers that DHCP servers named to us.
    pub(super) fn resolvers(&self) -> Vec<Ipv4Addr> {
        let of = |client: &Client| {
            let lease = client.lease.lock().unwrap_or_else(PoisonError::into_inner);
            lease.as_ref().map(|lease| lease.dns.clone()).unwrap_or_default()
        };
        let mut found: Vec<Ipv4Addr> = self.clients.iter().flat_map(of).collect();
        let mut seen = BTreeSet::new();
        found.retain(|address| seen.insert(*address));
        found
    }

    /// Addresses that DHCP servers gave us, by network.
    pub(super) fn leased(&self) -> Vec<(usize, (Ipv4Addr, u8))> {
        let of = |client: &Client| {
            let lease = client.lease.lock().unwrap_or_else(PoisonError::into_inner);
            lease
                .as_ref()
                .map(|lease| (client.network, (lease.address, lease.prefix_length)))
        };
        self.clients.iter().filter_map(of).collect()
    }
}

impl Client {
    fn start(network: usize, link: &Link) -> Result<Self, String> {
        let mut dhcp = DhcpClient::open(link, Purpose::Appliance).map_err(|error| error.to_string())?;
        let mut netlink = Netlink::open().map_err(|error| error.to_string())?;
        let stop = Arc::new(AtomicBool::new(false));
        let lease = Arc::new(Mutex::new(None));
        let (stopped, shared, index) = (stop.clone(), lease.clone(), link.index);
        let name = link.name.clone();
        let work = move || {
            let mut held: Option<Lease> = None;
            while !stopped.load(Ordering::Acquire) {
                let event = match dhcp.next_event(Duration::from_millis(250)) {
                    Ok(event) => event,
                    Err(error) => {
                        tracing::warn!(interface = name, %error, "the DHCP client failed");
                        std::thread::sleep(Duration::from_secs(1));
                        continue;
                    }
                };
                let Some(event) = event else { continue };
                let new = match event {
                    DhcpEvent::Bound(new) => Some(new),
                    DhcpEvent::Lost => None,
                };
                replace(&mut netlink, index, held.take(), new.clone());
                held.clone_from(&new);
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = new;
            }
            replace(&mut netlink, index, held, None);
        };
        let thread = std::thread::Builder::new().name("dhcp-client".into()).spawn(work);
        let thread = thread.map_err(|error| format!("the DHCP client's thread could not be started: {error}"))?;
        Ok(Self {
            network,
            stop,
            lease,
            thread: Some(thread),
        })
    }
}

/// Has addresses of one subnet outlive each other. Else the kernel takes away with the first one all that came to it later, such
/// as a lease of the subnet that the address before it was in (kernel documentation, ip-sysctl).
fn outlive(interface: &str) {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/promote_secondaries");
    if let Err(error) = std::fs::write(&path, "1") {
        tracing::warn!(path, %error, "addresses of one subnet cannot be kept apart");
    }
}

/// Sets an address of ours; one that is there already is as good.
fn set(netlink: &mut Netlink, link: u32, (address, length): (Ipv4Addr, u8)) -> Result<(), String> {
    let prefix = Prefix {
        address: address.into(),
        length,
    };
    match netlink.add_address(link, prefix) {
        Err(error) if !error.is_settled() => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn take_away((link, address, length): (u32, Ipv4Addr, u8)) {
    let prefix = Prefix {
        address: address.into(),
        length,
    };
    if let Err(error) = Netlink::open().and_then(|mut netlink| netlink.remove_address(link, prefix))
        && !error.is_settled()
    {
        tracing::warn!(%error, "an address of ours could not be taken away");
    }
}

/// Takes the old lease's address and route away unless the new one has them too.
fn replace(netlink: &mut Netlink, index: u32, old: Option<Lease>, new: Option<Lease>) {
    let same = |a: &Lease, b: &Lease| a.prefix() == b.prefix() && a.router == b.router;
    if let Some(old) = old.filter(|old| new.as_ref().is_none_or(|new| !same(old, new)))
        && let Err(error) = netlink.withdraw(index, &old, METRIC)
    {
        tracing::warn!(%error, "a lost lease's address could not be taken away");
    }
    if let Some(new) = new
        && let Err(error) = netlink.apply(index, &new, METRIC)
        && !error.is_settled()
    {
        tracing::warn!(%error, "a lease's address could not be set");
    }
}

fn lost(network: usize, trouble: String) -> Placed {
    Placed {
        network,
        link: None,
        address: None,
        trouble: Some(trouble),
    }
}

/// Networks that name their interface come first, so that "the first with a link" is one that nobody named.
fn in_order(config: &Config) -> Vec<usize> {
    let (named, auto): (Vec<usize>, Vec<usize>) = (0..config.networks.len()).partition(|index| {
        config
            .networks
            .get(*index)
            .is_some_and(|one| one.interface != Interface::Auto)
    });
    named.into_iter().chain(auto).collect()
}

/// The interface of a network, up, with its VLAN made. Waits for hardware whose driver is still loading.
fn find(
    netlink: &mut Netlink,
    config: &Config,
    network: &Network,
    placed: &[Placed],
    patience: Duration,
) -> Result<Link, String> {
    let deadline = Instant::now() + patience;
    let parent = loop {
        let links = netlink.links().map_err(|error| error.to_string())?;
        for link in links.iter().filter(|link| !link.up && is_port(link)) {
            // Without being up an interface shows no link.
            let _ = netlink.set_up(link.index, true);
        }
        if let Some(found) = choose(&links, config, network, placed) {
            break found.clone();
        }
        if Instant::now() >= deadline {
            return Err(match &network.interface {
                Interface::Auto => "no interface has a link: check the cable and the switch port".into(),
                named => format!("there is no interface {named}; this machine has {}", list(&links)),
            });
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let Some(vlan) = network.vlan else { return Ok(parent) };
    let made = netlink.links().map_err(|error| error.to_string())?;
    let link = match subinterface(&made, &parent, vlan) {
        Some(link) => link.clone(),
        None => netlink
            .create_vlan(parent.index, vlan, &vlan_name(parent.index, vlan))
            .map_err(|error| error.to_string())?,
    };
    netlink.set_up(link.index, true).map_err(|error| error.to_string())?;
    Ok(link)
}

/// The subinterface of `parent` for a VLAN.
fn subinterface<'a>(links: &'a [Link], parent: &Link, vlan: u16) -> Option<&'a Link> {
    let of = |link: &&Link| link.parent == Some(parent.index) && link.vlan == Some(vlan);
    links.iter().find(of)
}

/// Takes away the VLAN interfaces of ours that no network uses any more: left up, they would go on taking in the
/// frames of a VLAN the site took from us. Interfaces with other names were made by others.
fn remove_vlans(netlink: &mut Netlink, placed: &[Placed]) {
    for link in netlink.links().unwrap_or_default() {
        let (Some(parent), Some(vlan)) = (link.parent, link.vlan) else {
            continue;
        };
        let used = |one: &Placed| one.link.as_ref().is_some_and(|at| at.index == link.index);
        if link.name == vlan_name(parent, vlan) && !placed.iter().any(used) {
            // It may be gone with its parent.
            let _ = netlink.delete_link(link.index);
        }
    }
}

/// What we call a VLAN interface. Names end at 15 characters; the parent's number is shorter than its name.
fn vlan_name(parent: u32, vlan: u16) -> String {
    format!("rb{parent}.{vlan}")
}

/// A port of the machine, as opposed to loopback and what was made on top.
fn is_port(link: &Link) -> bool {
    !link.loopback && link.vlan.is_none() && link.mac.is_some_and(|mac| mac.is_unicast())
}

fn choose<'a>(links: &'a [Link], config: &Config, network: &Network, placed: &[Placed]) -> Option<&'a Link> {
    let mut ports = links.iter().filter(|link| is_port(link));
    match &network.interface {
        Interface::Name(name) => links.iter().find(|link| link.name == *name),
        Interface::Mac(mac) => ports.find(|link| link.mac == Some(*mac)),
        Interface::Auto => {
            let named = |link: &Link| {
                config.networks.iter().any(|other| match &other.interface {
                    Interface::Mac(mac) => link.mac == Some(*mac),
                    Interface::Name(name) => link.name == *name,
                    Interface::Auto => false,
                })
            };
            let taken = |link: &Link| {
                let on = |one: &Placed| one.link.as_ref().is_some_and(|at| at.index == link.index);
                // A VLAN beside an untagged network on one port is what trunks are for.
                network.vlan.is_none() && placed.iter().any(on)
            };
            ports.find(|link| link.carrier && !taken(link) && (!named(link) || network.vlan.is_some()))
        }
    }
}

fn list(links: &[Link]) -> String {
    let ports = links.iter().filter(|link| is_port(link));
    let names: Vec<String> = ports
        .map(|link| format!("{} ({})", link.name, link.mac.unwrap_or_default()))
        .collect();
    if names.is_empty() {
        "no network interface at all".into()
    } else {
        names.join(", ")
    }
}

fn on_vlan<'a>(links: &'a [Link], port: Option<&'a Link>, vlan: Option<u16>) -> Option<&'a Link> {
    match vlan {
        Some(vlan) => subinterface(links, port?, vlan),
        None => port,
    }
}

/// What the networks look like when somebody else sets them up: addresses as configured, interfaces by name.
pub(super) fn as_configured(config: &Config) -> Vec<Placed> {
    let links = Netlink::open()
        .and_then(|mut netlink| netlink.links())
        .unwrap_or_default();
    let of = |(index, network): (usize, &Network)| Placed {
        network: index,
        // Serving a VLAN's clients on its parent would serve those of another network.
        link: on_vlan(&links, choose(&links, config, network, &[]), network.vlan).map(|link| PlacedLink {
            name: link.name.clone(),
            index: link.index,
            mac: link.mac.unwrap_or_default(),
        }),
        address: match network.address {
            Address::Static(address, length) | Address::DhcpOr(address, length) => Some((address, length)),
            Address::Dhcp => None,
        },
        trouble: None,
    };
    config.networks.iter().enumerate().map(of).collect()
}
