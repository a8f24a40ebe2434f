//! Networks behind DHCP relays: `subnet` and `through` in place of an interface and an address.

use std::net::Ipv4Addr;
use std::ops::Range;

use toml::Spanned;

use super::check::Checker;
use super::parts::{fixed, hosts, in_prefix, is_host, mask};
use super::raw::RawNetwork;
use super::{Address, Dhcp, Network, Remote, Role};

/// True for a network that is on none of our interfaces.
pub(super) const fn is_remote(raw: &RawNetwork) -> bool {
    raw.subnet.is_some() || raw.through.is_some() || raw.next_hop.is_some()
}

impl Checker<'_> {
    /// The networks behind relays; `near` are those on our interfaces.
    pub(super) fn remotes(&mut self, raw: &[&RawNetwork], near: &[Network]) -> Vec<Remote> {
        let mut found: Vec<Remote> = Vec::new();
        for one in raw {
            let Some(remote) = self.remote(one, near) else { continue };
            self.apart(one, &remote, near, &found);
            found.push(remote);
        }
        found
    }

    fn remote(&mut self, raw: &RawNetwork, near: &[Network]) -> Option<Remote> {
        let name = self.network_name(raw);
        self.senseless(raw);
        self.numbers(raw);
        let subnet = self.subnet(raw);
        let through = self.through(raw, near);
        let (subnet, through) = (subnet?, through?);
        let place = Address::Static(subnet.0, subnet.1);
        let network = self.told(raw, name, place, Dhcp::Own);
        self.router(raw, &network, subnet);
        let next_hop = self.next_hop(raw, near.get(through)?);
        Some(Remote {
            network,
            subnet,
            through,
            next_hop,
        })
    }

    /// Fields that only a network on an interface of ours can have.
    fn senseless(&mut self, raw: &RawNetwork) {
        let here: [(&str, Option<Range<usize>>); 3] = [
            ("network.interface", raw.interface.as_ref().map(Spanned::span)),
            ("network.vlan", raw.vlan.as_ref().map(Spanned::span)),
            ("network.address", raw.address.as_ref().map(Spanned::span)),
        ];
        for (field, span) in here {
            if span.is_some() {
                let problem = "a network with subnet and through is behind a relay: we have nothing of our own there";
                self.wrong(
                    span,
                    field,
                    problem,
                    "leave it out, or leave out subnet, through and next_hop",
                );
            }
        }
        if *raw.role.get_ref() == Role::Uplink {
            let problem = "an uplink is not behind a relay: we serve nothing there";
            self.wrong(
                Some(raw.role.span()),
                "network.role",
                problem,
                "write \"rack\" or \"bmc\"",
            );
        }
        if let Some(dhcp) = raw.dhcp.as_ref().filter(|dhcp| *dhcp.get_ref() != Dhcp::Own) {
            let problem = "behind a relay we are the DHCP server or nothing: we cannot hear who else answers there";
            let instead = "write \"own\" or leave it out; take the whole network away to serve nothing there";
            self.wrong(Some(dhcp.span()), "network.dhcp", problem, instead);
        }
    }

    fn subnet(&mut self, raw: &RawNetwork) -> Option<(Ipv4Addr, u8)> {
        let example = "write one such as \"10.20.0.0/24\"";
        let Some(text) = &raw.subnet else {
            let problem = format!("network {:?} is behind a relay and has no subnet", raw.name.get_ref());
            self.wrong(Some(raw.name.span()), "network.subnet", problem, example);
            return None;
        };
        let parsed = text.get_ref().trim().split_once('/');
        let parsed = parsed.and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)));
        let Some((address, prefix)): Option<(Ipv4Addr, u8)> = parsed.filter(|(_, prefix)| (8..=30).contains(prefix))
        else {
            let problem = format!("{:?} is no subnet of /8 to /30", text.get_ref());
            self.wrong(Some(text.span()), "network.subnet", problem, example);
            return None;
        };
        let first = Ipv4Addr::from_bits(address.to_bits() & mask(prefix));
        if first != address || address.is_multicast() || address.is_loopback() || address.is_unspecified() {
            let problem = format!("{address}/{prefix} is no subnet of machines");
            self.wrong(
                Some(text.span()),
                "network.subnet",
                problem,
                &format!("did you mean \"{first}/{prefix}\"?"),
            );
            return None;
        }
        Some((address, prefix))
    }

    fn through(&mut self, raw: &RawNetwork, near: &[Network]) -> Option<usize> {
        let usable = near.iter().filter(|one| one.role != Role::Uplink);
        let names: Vec<String> = usable.map(|one| format!("{:?}", one.name)).collect();
        let instead = match names.as_slice() {
            [] => "add the network on which relays reach us, with an interface and an address".to_owned(),
            names => format!(
                "write the network by whose address its machines reach us: {}",
                names.join(" or ")
            ),
        };
        let Some(text) = &raw.through else {
            let problem = format!("it is not said how network {:?} reaches us", raw.name.get_ref());
            self.wrong(Some(raw.name.span()), "network.through", problem, &instead);
            return None;
        };
        let at = near.iter().position(|one| one.name == *text.get_ref());
        let fits = at.filter(|at| near.get(*at).is_some_and(|one| one.role != Role::Uplink));
        if fits.is_none() {
            let problem = format!(
                "{:?} is no network on an interface of ours that serves machines",
                text.get_ref()
            );
            self.wrong(Some(text.span()), "network.through", problem, &instead);
        }
        fits
    }

    /// Machines behind a relay reach us through their router alone, and it must not be given to one of them.
    fn router(&mut self, raw: &RawNetwork, network: &Network, (subnet, prefix): (Ipv4Addr, u8)) {
        if network.pools.is_empty() && network.reservations.is_empty() {
            let problem = "there is no address to give out";
            self.wrong(
                Some(raw.name.span()),
                "network.pool",
                problem,
                "add pool = [\"FIRST-LAST\"]",
            );
        }
        let Some(gateway) = &raw.gateway else {
            let problem = format!("without a router the machines of {:?} could not reach us", network.name);
            let instead = format!("write the router's address there; hosts are {}", hosts(subnet, prefix));
            self.wrong(Some(raw.name.span()), "network.gateway", problem, &instead);
            return;
        };
        let router = *gateway.get_ref();
        if !is_host(subnet, prefix, router) {
            let problem = format!("{router} is no host of {subnet}/{prefix}");
            let instead = format!("hosts there are {}", hosts(subnet, prefix));
            self.wrong(Some(gateway.span()), "network.gateway", problem, &instead);
        }
        self.router_is_given_to_nobody(raw, network);
    }

    /// While a router restarts nobody answers for its address, and a machine that was given it then keeps it.
    pub(super) fn router_is_given_to_nobody(&mut self, raw: &RawNetwork, network: &Network) {
        let Some(gateway) = &raw.gateway else { return };
        let router = *gateway.get_ref();
        let pooled = |(first, last): &(Ipv4Addr, Ipv4Addr)| (*first..=*last).contains(&router);
        let (who, instead) = if network.pools.iter().any(pooled) {
            ("the pool holds", "let the pool leave it out")
        } else if network.reservations.iter().any(|one| one.address == router) {
            ("a reservation is", "reserve another one")
        } else {
            return;
        };
        let problem = format!("{who} the router's address {router}");
        self.wrong(Some(gateway.span()), "network.gateway", problem, instead);
    }

    /// Where our answers go: the router named, else the one of the network they leave by.
    fn next_hop(&mut self, raw: &RawNetwork, through: &Network) -> Option<Ipv4Addr> {
        let said = raw.next_hop.as_ref().map(|hop| *hop.get_ref());
        let hop = said.or(through.gateway);
        match (hop, fixed(through.address)) {
            (None, Some((own, prefix))) => {
                let problem = format!("it is not said which router of {own}/{prefix} leads to this network");
                let instead = format!("add next_hop = \"A.B.C.D\", or a gateway to network {:?}", through.name);
                self.wrong(Some(raw.name.span()), "network.next_hop", problem, &instead);
            }
            (Some(hop), Some((own, prefix))) if said.is_some() && (!is_host(own, prefix, hop) || hop == own) => {
                let problem = format!("{hop} is no router in {own}/{prefix} of {:?}", through.name);
                let span = raw.next_hop.as_ref().map(Spanned::span);
                self.wrong(
                    span,
                    "network.next_hop",
                    problem,
                    &format!("hosts there are {}", hosts(own, prefix)),
                );
            }
            _ => {}
        }
        hop
    }

    /// What it must not have in common with others.
    fn apart(&mut self, raw: &RawNetwork, remote: &Remote, near: &[Network], far: &[Remote]) {
        let (subnet, prefix) = remote.subnet;
        for other in near.iter().chain(far.iter().map(|one| &one.network)) {
            if other.name == remote.network.name {
                let problem = format!("two networks are called {:?}", other.name);
                self.wrong(Some(raw.name.span()), "network.name", problem, "");
            }
            if let Some((address, length)) = fixed(other.address)
                && in_prefix(subnet, prefix.min(length), address)
            {
                let problem = format!("{subnet}/{prefix} overlaps {address}/{length} of {:?}", other.name);
                let span = raw.subnet.as_ref().map(Spanned::span);
                self.wrong(
                    span,
                    "network.subnet",
                    problem,
                    "give each network addresses of its own",
                );
            }
        }
    }
}
