//! Routes by routers that the configuration names: to the networks behind relays, and out of the rack by the gateway of an
//! uplink whose address is fixed. An uplink's whose address is a DHCP server's comes with the lease.

use rackbar_net::{Netlink, Prefix, Route};

use super::network::Placed;
use crate::config::{Address, Config, Network, Remote, Role};

/// Metric of routes behind relays; a person's own have lower ones.
const METRIC: u32 = 1_024;

/// Metric of the first uplink's default route; those of the next ones follow. Each has its own, as one of the same metric
/// would take its place. All are below a lease's: what the file says counts more than what a server says.
const OUTWARD: u32 = 512;

/// The routes that we set, to take them away again.
#[derive(Default)]
pub(super) struct Routes(Vec<Route>);

impl Routes {
    /// Sets what `config` wants and takes away what it wants no more. What fails becomes the trouble of the network the
    /// route leaves by. Can be repeated.
    pub(super) fn follow(&mut self, netlink: &mut Netlink, config: &Config, placed: &mut [Placed]) {
        let mut wanted = outward(netlink, config, placed);
        for remote in &config.remotes {
            let Some(gate) = placed.iter_mut().find(|one| one.network == remote.through) else {
                continue;
            };
            let Some(route) = route(remote, gate) else {
                continue;
            };
            if let Err(error) = netlink.add_route(&route)
                && !error.is_settled()
            {
                let name = &remote.network.name;
                gate.trouble = Some(format!(
                    "the way to network {name:?} behind it could not be set: {error}"
                ));
            }
            wanted.push(route);
        }
        for old in self.0.iter().filter(|old| !wanted.contains(old)) {
            // It may be gone with its interface or our address there.
            let _ = netlink.remove_route(old);
        }
        self.0 = wanted;
    }
}

/// Sets the default routes of uplinks, and gives all that are wanted.
fn outward(netlink: &mut Netlink, config: &Config, placed: &mut [Placed]) -> Vec<Route> {
    let mut wanted = Vec::new();
    let uplinks = config.networks.iter().enumerate();
    let uplinks = uplinks.filter(|(_, network)| network.role == Role::Uplink);
    for (metric, (index, network)) in (OUTWARD..METRIC).zip(uplinks) {
        let Some(gate) = placed.iter_mut().find(|one| one.network == index) else {
            continue;
        };
        let Some(route) = way_out(network, gate, metric) else {
            continue;
        };
        if let Err(error) = netlink.add_route(&route)
            && !error.is_settled()
        {
            let gateway = network.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
            gate.trouble = Some(format!(
                "the way out by its gateway {gateway} could not be set: {error}"
            ));
        }
        wanted.push(route);
    }
    wanted
}

/// The default route by an uplink's gateway. `None` while its own fixed address is not in force: a DHCP server that gives
/// another one names the router of its network, too.
fn way_out(network: &Network, gate: &Placed, metric: u32) -> Option<Route> {
    let (Address::Static(address, length) | Address::DhcpOr(address, length)) = network.address else {
        return None;
    };
    (gate.address == Some((address, length))).then_some(())?;
    Some(Route {
        to: None,
        via: Some(network.gateway?.into()),
        index: gate.link.as_ref()?.index,
        metric,
    })
}

/// `None` while there is no address to send from, or where the default route leads there.
fn route(remote: &Remote, gate: &Placed) -> Option<Route> {
    gate.address?;
    let (subnet, length) = remote.subnet;
    Some(Route {
        to: Some(Prefix {
            address: subnet.into(),
            length,
        }),
        via: Some(remote.next_hop?.into()),
        index: gate.link.as_ref()?.index,
        metric: METRIC,
    })
}
