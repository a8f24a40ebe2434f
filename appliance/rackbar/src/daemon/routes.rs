//! Routes to the networks behind relays: our answers leave by the router that the configuration names.

use rackbar_net::{Netlink, Prefix, Route};

use super::network::Placed;
use crate::config::{Config, Remote};

/// Metric of these routes; a person's own have lower ones.
const METRIC: u32 = 1_024;

/// The routes that we set, to take them away again.
#[derive(Default)]
pub(super) struct Routes(Vec<Route>);

impl Routes {
    /// Sets what `config` wants and takes away what it wants no more. What fails becomes the trouble of the network the
    /// route leaves by. Can be repeated.
    pub(super) fn follow(&mut self, netlink: &mut Netlink, config: &Config, placed: &mut [Placed]) {
        let mut wanted = Vec::new();
        for remote in &config.remotes {
            let Some(gate) = placed.iter_mut().find(|one| one.network == remote.through) else {
                continue;
            };
            let Some(route) = route(remote, gate) else { continue };
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
