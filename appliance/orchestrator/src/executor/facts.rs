//! What the planner is told of the world.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use rackbar_model::{CheckStatus, LeaseState, Node};
use rackbar_plan::{Facts, NodeFacts, OwnService, ServiceSeen};
use rackbar_verify::NodeReport;

use super::{Book, Inner};
use crate::rack::locked;
use crate::settings::{Network, Role};

/// What the checks found before the disk in the boot order.
fn wrong_boot_order(report: &NodeReport) -> Option<String> {
    let mut checks = report.checks.iter();
    let order = checks.find(|check| check.id == "boot.order" && check.status == CheckStatus::Failed)?;
    Some(order.observed.clone())
}

/// A subnet behind a DHCP relay, with our address for it.
fn behind(network: &Network) -> Option<(IpNet, IpAddr)> {
    let subnet = Ipv4Net::new(network.subnet?, network.prefix).ok()?;
    Some((IpNet::V4(subnet.trunc()), network.address?.into()))
}

impl Inner {
    /// One node, as far as planning needs it.
    pub(super) fn node_facts(&self, book: &Book, node: Arc<Node>) -> NodeFacts {
        let answers = self
            .rack
            .look(|mind| mind.records.get(&node.id).is_some_and(|record| record.bmc_asked));
        let mut facts = NodeFacts::new(node);
        facts.bmc = facts.node.bmc_address.is_some() && answers;
        let Some(work) = book.work.get(&facts.node.id) else {
            return facts;
        };
        facts.maintenance = work.maintenance.is_some();
        facts.role.clone_from(&work.role);
        facts.bios.clone_from(&work.bios);
        facts.installed.clone_from(&work.installed);
        facts.adopted = work.adopted.is_some();
        facts.adopted_address = work.adopted.as_ref().map(|adopted| adopted.address);
        facts.wrong_boot_order = work.report.as_ref().and_then(wrong_boot_order);
        facts.password_rotated = work.password_rotated;
        facts.bmc_account.clone_from(&work.bmc_account);
        facts.addresses.clone_from(&work.addresses);
        facts
    }

    /// What is seen of services: of our own what they say now, of others what they said last.
    fn seen(&self, book: &Book, appliance: &[IpAddr]) -> BTreeMap<(OwnService, Vec<String>), ServiceSeen> {
        let mut seen = book.seen.clone();
        for address in appliance {
            let own = self.services.iter();
            seen.extend(own.map(|service| {
                (
                    (*service, vec![service.at(*address)]),
                    self.rack.serving(*service, *address),
                )
            }));
        }
        seen
    }

    pub(super) fn facts(&self, book: &Book) -> Facts {
        let nodes = self
            .rack
            .nodes()
            .into_iter()
            .map(|node| self.node_facts(book, node))
            .collect();
        let images = self.images.iter().flat_map(|images| images.list());
        let images: BTreeMap<_, _> = images.map(|image| (image.name.clone(), (*image).clone())).collect();
        let retired = self.images.iter().flat_map(|images| images.retired());
        let retired = retired.map(|(name, retired)| (name, retired.instead)).collect();
        let programs = self.programs.iter().flat_map(|programs| programs.list());
        let programs = programs
            .map(|program| (program.name.clone(), (*program).clone()))
            .collect();
        let (appliance, uplinks): (Vec<_>, Vec<_>) = self.rack.look(|mind| {
            let networks = mind.settings.networks.iter();
            let ours = networks.filter_map(|network| Some((network.role, IpAddr::from(network.address?))));
            ours.partition(|(role, _)| *role != Role::Uplink)
        });
        let appliance: Vec<IpAddr> = appliance.into_iter().map(|(_, address)| address).collect();
        let held = |state| matches!(state, LeaseState::Bound);
        let leases = self.rack.leases();
        let leases = leases
            .iter()
            .filter(|lease| held(lease.state) && lease.expires > crate::rack::now());
        let mut taken: BTreeSet<IpAddr> = leases.map(|lease| lease.address.into()).collect();
        // We serve nothing there, and have the address all the same.
        taken.extend(uplinks.into_iter().map(|(_, address)| address));
        Facts {
            nodes,
            images,
            retired,
            programs,
            out_of_reach: locked(&self.out_of_reach).clone(),
            repositories: (*locked(&self.repositories)).as_ref().clone(),
            services: self.services.clone(),
            seen: self.seen(book, &appliance),
            appliance,
            behind: self
                .rack
                .look(|mind| mind.settings.networks.iter().filter_map(behind).collect()),
            mirrors: self.rack.look(|mind| mind.settings.mirrors.clone()),
            taken,
        }
    }
}
