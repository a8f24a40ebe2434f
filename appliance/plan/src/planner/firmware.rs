//! Layer 2 of one node: its BMC and its firmware settings, what is to be done about them and in which order.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use rackbar_model::{BmcInfo, Inventory};

use super::chain::{Because, Chain};
use super::network::Pool;
use super::node::Case;
use crate::facts::bmc_holder;
use crate::{ActionKind, BmcAddress, BmcNetwork, Change};

/// What a node's BMC and firmware need; nothing when they are as wanted.
pub(super) struct Firmware {
    set_up: Option<SetUp>,
    rotate: bool,
    bios: BTreeMap<String, String>,
}

/// A BMC that is to be set up from inside.
struct SetUp {
    network: Option<BmcNetwork>,
    account: Option<String>,
    changes: Vec<Change>,
}

impl Firmware {
    /// True when nothing is to be done.
    pub(super) fn is_as_wanted(&self) -> bool {
        !self.needs_agent() && !self.rotate
    }

    /// True when our agent must run on the machine for it.
    pub(super) fn needs_agent(&self) -> bool {
        self.set_up.is_some() || !self.bios.is_empty()
    }

    /// Adds its actions. `agent` is why our agent is needed in any case; `None` where it is not.
    pub(super) fn push(self, case: &Case<'_>, chain: &mut Chain<'_>, agent: Option<&str>) {
        let role = case.role_name;
        let mut connected = false;
        if let Some(SetUp {
            network,
            account,
            changes,
        }) = self.set_up
        {
            let reason = "its BMC is set up from inside the machine";
            chain.push(ActionKind::Agent { fresh: false }, Because::reason(reason));
            connected = true;
            let because = Because {
                reason: because(role, &changes),
                changes,
                destroys: None,
            };
            chain.push(ActionKind::BmcSetUp { network, account }, because);
        }
        if self.rotate {
            let changes = vec![Change {
                what: "BMC password".to_owned(),
                observed: case.node.password_rotated.then(|| "of this machine's own".to_owned()),
                wanted: match case.node.password_rotated {
                    true => "a new one".to_owned(),
                    false => "of this machine's own".to_owned(),
                },
            }];
            let because = Because {
                reason: match case.rotate_passwords {
                    true => "a new BMC password was asked for".to_owned(),
                    false => format!("role {role} wants a BMC password of this machine's own"),
                },
                changes,
                destroys: None,
            };
            chain.push(ActionKind::RotatePassword, because);
        }
        if !self.bios.is_empty() {
            settings(case, chain, self.bios);
        } else if let Some(reason) = agent.filter(|_| !connected) {
            chain.push(ActionKind::Agent { fresh: false }, Because::reason(reason));
        }
    }
}

/// Wanted against observed, in a sentence.
fn because(role: &str, changes: &[Change]) -> String {
    let each: Vec<String> = changes
        .iter()
        .map(|change| {
            let observed = change.observed.as_deref().unwrap_or("not known");
            format!("{} is to be {} and is {observed}", change.what, change.wanted)
        })
        .collect();
    format!("role {role}: {}", each.join("; "))
}

fn settings(case: &Case<'_>, chain: &mut Chain<'_>, attributes: BTreeMap<String, String>) {
    let observed = |name: &String| case.node.bios.as_ref().and_then(|all| all.get(name)).cloned();
    let changes = attributes
        .iter()
        .map(|(name, wanted)| Change {
            what: format!("BIOS {name}"),
            observed: observed(name),
            wanted: wanted.clone(),
        })
        .collect();
    let because = Because {
        reason: format!("role {} wants other firmware settings", case.role_name),
        changes,
        destroys: None,
    };
    let verify = ActionKind::BiosVerify {
        attributes: attributes.clone(),
    };
    chain.push(ActionKind::BiosSettings { attributes }, because);
    let reason = "staged firmware settings take effect at a restart";
    chain.push(ActionKind::Agent { fresh: true }, Because::reason(reason));
    chain.push(verify, Because::reason("firmware may refuse or change what was staged"));
}

impl Case<'_> {
    /// What its BMC and firmware need.
    pub(super) fn firmware(&self, inventory: &Inventory, pool: &mut Pool) -> Result<Firmware, String> {
        let set_up = self.set_up(inventory, pool)?;
        // One that gets an account of ours answers afterwards.
        let answers = self.node.bmc || set_up.as_ref().is_some_and(|set_up| set_up.account.is_some());
        let bios = self.bios_changes();
        if !bios.is_empty() && !answers {
            return Err(format!(
                "role {} sets BIOS attributes, but its BMC does not answer",
                self.role_name
            ));
        }
        // An account of ours has a password of this machine's own from the start.
        let first = self.role.rotate_bmc_password && !self.node.password_rotated && self.role.bmc.account.is_none();
        // One that is made now is new.
        let makes = set_up.as_ref().is_some_and(|set_up| set_up.account.is_some());
        let again = self.rotate_passwords && !makes;
        let rotate = first || again;
        if rotate && !self.node.bmc {
            let who = match again {
                true => "it was asked for a new BMC password".to_owned(),
                false => format!("role {} rotates the BMC's password", self.role_name),
            };
            return Err(format!("{who}, but its BMC does not answer"));
        }
        Ok(Firmware { set_up, rotate, bios })
    }

    /// Firmware attributes that are not as wanted.
    fn bios_changes(&self) -> BTreeMap<String, String> {
        let observed = self.node.bios.as_ref();
        let differs = |name: &String, wanted: &String| observed.and_then(|all| all.get(name)) != Some(wanted);
        let wanted = self.role.bios.iter().map(|(name, value)| (name, &value.0));
        wanted
            .filter(|(name, value)| differs(name, value))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    fn set_up(&self, inventory: &Inventory, pool: &mut Pool) -> Result<Option<SetUp>, String> {
        let wanted = &self.role.bmc;
        if wanted.network.is_none() && wanted.account.is_none() {
            return Ok(None);
        }
        let Some(bmc) = &inventory.bmc else {
            return Err(format!(
                "role {} sets the BMC up from inside, but the machine shows no BMC: it has none, or its KCS interface has \
                 no driver in the image (see `missing_drivers` in its inventory)",
                self.role_name
            ));
        };
        let network = wanted.network.as_deref().map(|name| self.bmc_network(name, bmc, pool));
        let network = network.transpose()?;
        let mut changes = network
            .as_ref()
            .map_or_else(Vec::new, |network| differences(network, bmc));
        if let Some(account) = &wanted.account {
            let ours = self.node.bmc_account.as_ref();
            // Where our agent runs anyway, an account that opens nothing is made anew: a BMC was reset, perhaps.
            let opens = self.node.bmc || !self.node.node.agent_connected;
            if ours != Some(account) || !opens {
                let observed = match ours {
                    Some(ours) if ours == account => format!("{ours}, which does not open it"),
                    Some(ours) => ours.clone(),
                    None => "none of ours".to_owned(),
                };
                changes.push(Change {
                    what: "BMC account".to_owned(),
                    observed: Some(observed),
                    wanted: format!("{account}, with a password of this machine's own"),
                });
            }
        }
        Ok((!changes.is_empty()).then(|| SetUp {
            network,
            account: wanted.account.clone(),
            changes,
        }))
    }

    fn bmc_network(&self, name: &str, bmc: &BmcInfo, pool: &mut Pool) -> Result<BmcNetwork, String> {
        let Some(network) = self.site.network.get(name) else {
            return Err(format!(
                "role {}: its BMC is to be on network {name}, which the site has not",
                self.role_name
            ));
        };
        let kept = bmc.address.filter(|_| bmc.dhcp == Some(false));
        let given = pool.give(name, &bmc_holder(name), kept, network, self.node)?;
        let v4 = |address: IpAddr| match address {
            IpAddr::V4(address) => Ok(address),
            IpAddr::V6(_) => Err(format!(
                "network {name}: a BMC is set up in-band with IPv4 addresses only"
            )),
        };
        let address = given.map(v4).transpose()?.map(|address| {
            let gateway = network.gateway.and_then(|gateway| v4(gateway).ok());
            BmcAddress {
                address,
                prefix: network.subnet.prefix_len(),
                gateway,
            }
        });
        Ok(BmcNetwork {
            name: name.to_owned(),
            address,
            vlan: network.vlan,
        })
    }
}

/// What of a BMC's network is not as wanted.
fn differences(wanted: &BmcNetwork, bmc: &BmcInfo) -> Vec<Change> {
    let mut changes = Vec::new();
    let same = match wanted.address {
        None => bmc.dhcp == Some(true),
        Some(fixed) => {
            let gateway = fixed.gateway.is_none() || bmc.gateway == fixed.gateway.map(IpAddr::from);
            bmc.dhcp == Some(false)
                && bmc.address == Some(fixed.address.into())
                && bmc.prefix == Some(fixed.prefix)
                && gateway
        }
    };
    if !same {
        changes.push(Change {
            what: "BMC address".to_owned(),
            observed: observed(bmc),
            wanted: wanted
                .address
                .map_or_else(|| "by DHCP".to_owned(), |fixed| words(&fixed)),
        });
    }
    if bmc.vlan != wanted.vlan {
        let tag = |vlan: Option<u16>| vlan.map_or_else(|| "untagged".to_owned(), |vlan| vlan.to_string());
        changes.push(Change {
            what: "BMC VLAN".to_owned(),
            observed: Some(tag(bmc.vlan)),
            wanted: tag(wanted.vlan),
        });
    }
    changes
}

fn words(fixed: &BmcAddress) -> String {
    let gateway = |gateway: Ipv4Addr| format!(", gateway {gateway}");
    let gateway = fixed.gateway.map_or_else(String::new, gateway);
    format!("{}/{}{gateway}", fixed.address, fixed.prefix)
}

fn observed(bmc: &BmcInfo) -> Option<String> {
    let way = match bmc.dhcp? {
        true => " by DHCP",
        false => "",
    };
    let Some(address) = bmc.address else {
        return Some(format!("none{way}"));
    };
    let prefix = bmc.prefix.map_or_else(String::new, |prefix| format!("/{prefix}"));
    let gateway = bmc
        .gateway
        .map_or_else(String::new, |gateway| format!(", gateway {gateway}"));
    Some(format!("{address}{prefix}{way}{gateway}"))
}
