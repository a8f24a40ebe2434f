//! What an earlier plan found to be as wanted, so that a plan after a change costs that change and a look at the rest.
//!
//! A decision on a node is a pure function of the site, of the facts that all nodes share, of the node itself, and of the
//! addresses that it was answered. Of a node that was as wanted these are kept; when all are the same again, so is the decision.
//! What has something to do is decided anew: sooner or later it is done, and a rack is as wanted for years.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use rackbar_model::{Node, NodeId};

use super::network::Pool;
use crate::site::Site;
use crate::{Facts, NodeFacts, Scope};

/// What earlier plans found to be as wanted. Give the same one to each [`replan`](super::replan) of a rack; which site and
/// facts it is of it knows itself.
#[derive(Debug, Default)]
pub struct Memory {
    basis: Option<Box<Basis>>,
    nodes: HashMap<NodeId, Kept>,
    decided: usize,
}

/// What decisions on all nodes rest on.
#[derive(PartialEq, Eq, Debug)]
struct Basis {
    site: Site,
    /// Without nodes; without taken addresses, which count by what [`Pool`] answers; without what was seen of services,
    /// which decides on no node.
    facts: Facts,
    reinstall: bool,
    rotate_passwords: bool,
}

/// One node that was as wanted.
#[derive(Debug)]
struct Kept {
    facts: NodeFacts,
    role: String,
    hostname: String,
    given: Vec<Given>,
}

/// What [`Pool`] was asked for a node and answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Given {
    pub(super) network: String,
    pub(super) holder: String,
    pub(super) has: Option<IpAddr>,
    pub(super) address: Option<IpAddr>,
}

impl Memory {
    /// How many nodes the last plan made with it was decided on; all others were as wanted, and are the same.
    pub const fn decided(&self) -> usize {
        self.decided
    }

    /// Forgets everything when it is of another site or of other facts than these.
    pub(super) fn be_of(&mut self, site: &Site, facts: &Facts, scope: &Scope) {
        self.decided = 0;
        let same = self.basis.as_ref().is_some_and(|basis| basis.is(site, facts, scope));
        if !same {
            self.nodes.clear();
            self.basis = Some(Box::new(Basis::of(site, facts, scope)));
        }
    }

    /// Role and host name of a node that was as wanted and is the same still.
    pub(super) fn names(&self, node: &NodeFacts) -> Option<(&str, &str)> {
        let kept = self.nodes.get(&node.node.id)?;
        kept.is(node).then_some((kept.role.as_str(), kept.hostname.as_str()))
    }

    /// True when a node that [has its names](Self::names) from here still holds the addresses that it had, and so is as wanted.
    pub(super) fn holds(&self, node: &NodeFacts, site: &Site, pool: &Pool) -> bool {
        let holds = |given: &Given| {
            let network = site.network.get(&given.network);
            network.is_some_and(|network| pool.keeps(&given.holder, given.has, network, node) == given.address)
        };
        let kept = self.nodes.get(&node.node.id);
        kept.is_some_and(|kept| kept.given.iter().all(holds))
    }

    /// Keeps a node that is as wanted, unless that rests on an address which it was given now: the next one to ask may be
    /// another.
    pub(super) fn keep(&mut self, node: &NodeFacts, role: &str, hostname: &str, given: Vec<Given>) {
        self.forget(node.node.id);
        if given.iter().any(|given| given.address.is_none()) {
            return;
        }
        let kept = Kept {
            facts: node.clone(),
            role: role.to_owned(),
            hostname: hostname.to_owned(),
            given,
        };
        self.nodes.insert(node.node.id, kept);
    }

    /// Forgets a node that was decided on.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.decided = self.decided.saturating_add(1);
        self.nodes.remove(&node);
    }

    /// Forgets nodes that are not there any more.
    pub(super) fn only(&mut self, facts: &Facts) {
        if self.nodes.len() > facts.nodes.len() {
            let there: BTreeSet<NodeId> = facts.nodes.iter().map(|node| node.node.id).collect();
            self.nodes.retain(|node, _| there.contains(node));
        }
    }
}

impl Basis {
    fn of(site: &Site, facts: &Facts, scope: &Scope) -> Self {
        let shared = Facts {
            nodes: Vec::new(),
            taken: BTreeSet::new(),
            seen: BTreeMap::new(),
            images: facts.images.clone(),
            retired: facts.retired.clone(),
            out_of_reach: facts.out_of_reach.clone(),
            programs: facts.programs.clone(),
            repositories: facts.repositories.clone(),
            services: facts.services.clone(),
            mirrors: facts.mirrors.clone(),
            appliance: facts.appliance.clone(),
            behind: facts.behind.clone(),
        };
        Self {
            site: site.clone(),
            facts: shared,
            reinstall: scope.reinstall,
            rotate_passwords: scope.rotate_passwords,
        }
    }

    fn is(&self, site: &Site, facts: &Facts, scope: &Scope) -> bool {
        // By name, so that a field that is added must be thought of here.
        let Facts {
            nodes: _,
            taken: _,
            seen: _,
            images,
            retired,
            out_of_reach,
            programs,
            repositories,
            services,
            mirrors,
            appliance,
            behind,
        } = facts;
        let own = &self.facts;
        (self.reinstall, self.rotate_passwords) == (scope.reinstall, scope.rotate_passwords)
            && own.images == *images
            && own.retired == *retired
            && own.out_of_reach == *out_of_reach
            && own.programs == *programs
            && own.repositories == *repositories
            && own.services == *services
            && own.mirrors == *mirrors
            && own.appliance == *appliance
            && own.behind == *behind
            && self.site == *site
    }
}

impl Kept {
    fn is(&self, now: &NodeFacts) -> bool {
        let NodeFacts {
            node,
            role,
            maintenance,
            bios,
            bmc,
            installed,
            adopted,
            adopted_address,
            wrong_boot_order,
            password_rotated,
            bmc_account,
            addresses,
        } = now;
        let was = &self.facts;
        was.role == *role
            && was.maintenance == *maintenance
            && was.bmc == *bmc
            && was.adopted == *adopted
            && was.adopted_address == *adopted_address
            && was.wrong_boot_order == *wrong_boot_order
            && was.password_rotated == *password_rotated
            && was.bmc_account == *bmc_account
            && was.addresses == *addresses
            && was.bios == *bios
            && was.installed == *installed
            && (std::sync::Arc::ptr_eq(&was.node, node) || alike(&was.node, node))
    }
}

/// True when a node differs in nothing but when it was last seen, which moves by itself and which no rule can read.
fn alike(was: &Node, now: &Node) -> bool {
    // By name, so that a field that is added must be thought of here.
    let Node {
        id,
        name,
        state,
        state_since,
        first_seen,
        last_seen: _,
        agent_connected,
        power,
        address,
        bmc_address,
        macs,
        witnesses,
        collisions,
        inventory,
        inventory_at,
        verdict,
        role,
        run,
        doing,
        percent,
        drift,
        installed,
        adopted,
    } = now;
    let moments = (&was.state_since, &was.first_seen, &was.inventory_at) == (state_since, first_seen, inventory_at);
    let power = (was.agent_connected, &was.power) == (*agent_connected, power);
    let work = (&was.run, &was.doing, &was.percent) == (run, doing, percent);
    let network = (&was.address, &was.bmc_address, &was.macs) == (address, bmc_address, macs);
    let words = (&was.name, &was.verdict, &was.role, &was.drift) == (name, verdict, role, drift);
    moments
        && power
        && work
        && network
        && words
        && (&was.id, &was.state) == (id, state)
        && (&was.witnesses, &was.collisions) == (witnesses, collisions)
        && (&was.installed, &was.adopted) == (installed, adopted)
        && was.inventory == *inventory
}
