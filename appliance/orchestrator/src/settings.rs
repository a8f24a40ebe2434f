//! What the orchestrator is told by the configuration. May be replaced while it runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use rackbar_boot::SiteScript;
use rackbar_model::{BootWay, MacAddr};

/// What a network is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Machines boot there.
    Rack,
    /// Their BMCs live there: who asks for an address there is a BMC, not a machine.
    Bmc,
    /// The way out: nobody boots there.
    Uplink,
}

/// A network by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// Its name in events and leases.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Our address there, or the one by which its machines reach us.
    pub address: Option<Ipv4Addr>,
    /// Length of its prefix.
    pub prefix: u8,
    /// An address of its subnet where ours is not in it: machines are behind a router and a DHCP relay.
    pub subnet: Option<Ipv4Addr>,
}

impl Network {
    /// True when `address` belongs to this network.
    pub fn holds(&self, address: IpAddr) -> bool {
        let (Some(near), IpAddr::V4(other)) = (self.subnet.or(self.address), address) else {
            return false;
        };
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
        u32::from(near) & mask == u32::from(other) & mask
    }
}

/// Which unknown machines become nodes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Unknown {
    /// All that boot from the network.
    #[default]
    Enrol,
    /// Those listed.
    Listed(Vec<MacAddr>),
    /// None.
    Ignore,
}

/// The orchestrator's part of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// All networks.
    pub networks: Vec<Network>,
    /// Which unknown machines become nodes.
    pub unknown: Unknown,
    /// Kernel arguments for nodes, before ours.
    pub kernel_arguments: String,
    /// The site's own iPXE scripts, in place of ours.
    pub scripts: Vec<SiteScript>,
    /// Ways by which machines may be led to us. What was learnt of a machine before yields to it.
    pub ways: Vec<BootWay>,
    /// URL of what firmware boots by HTTP where that is not our loader; `{server}` stands for our address.
    pub uefi_url: Option<String>,
    /// Switch a machine on when its BMC is found and it is off.
    pub power_on_discovered: bool,
    /// Give a BMC that wants another password before anything else one of its own.
    pub replace_initial_passwords: bool,
    /// Leave the clocks of BMCs alone, also those that are off.
    pub leave_bmc_clocks: bool,
    /// Keep the serial console of every machine open through its BMC, and record it.
    pub record_consoles: bool,
    /// The proxy's mirrors by name, each with the URLs of its upstreams in the order to ask.
    pub mirrors: BTreeMap<String, Vec<String>>,
}

impl Settings {
    pub(crate) fn role(&self, network: &str) -> Option<Role> {
        self.networks.iter().find(|one| one.name == network).map(|one| one.role)
    }

    /// Our address on the network the machine `client` is in; else the first rack network's, as on an uplink no machine is
    /// served.
    pub(crate) fn own_address(&self, client: IpAddr) -> Option<Ipv4Addr> {
        self.near_or_rack(|network| network.role != Role::Uplink && network.holds(client))
    }

    /// The same for a BMC, which may be on an uplink: it fetches the loader's disc there.
    pub(crate) fn own_address_for_bmc(&self, bmc: IpAddr) -> Option<Ipv4Addr> {
        self.near_or_rack(|network| network.holds(bmc))
    }

    fn near_or_rack(&self, is_near: impl Fn(&Network) -> bool) -> Option<Ipv4Addr> {
        let near = self.networks.iter().find(|network| is_near(network));
        near.or_else(|| self.networks.iter().find(|network| network.role == Role::Rack))
            .and_then(|one| one.address)
    }

    pub(crate) fn admits(&self, mac: MacAddr) -> bool {
        match &self.unknown {
            Unknown::Enrol => true,
            Unknown::Listed(macs) => macs.contains(&mac),
            Unknown::Ignore => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_on_an_uplink_is_told_of_the_rack_and_a_bmc_there_of_the_uplink() {
        let network = |role, address: [u8; 4]| Network {
            name: String::new(),
            role,
            address: Some(address.into()),
            prefix: 24,
            subnet: None,
        };
        let settings = Settings {
            networks: vec![
                network(Role::Uplink, [192, 0, 2, 1]),
                network(Role::Rack, [10, 10, 0, 1]),
                network(Role::Bmc, [10, 20, 0, 1]),
            ],
            ..Settings::default()
        };
        let machine = |client: [u8; 4]| settings.own_address(client.into()).unwrap().octets();
        assert_eq!(machine([192, 0, 2, 9]), [10, 10, 0, 1]);
        assert_eq!(machine([10, 20, 0, 9]), [10, 20, 0, 1]);
        let bmc = |client: [u8; 4]| settings.own_address_for_bmc(client.into()).unwrap().octets();
        assert_eq!(bmc([192, 0, 2, 9]), [192, 0, 2, 1]);
        assert_eq!(bmc([203, 0, 113, 9]), [10, 10, 0, 1]);
    }
}
