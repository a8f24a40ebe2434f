//! The services that systems are told to use, as actions that the systems' own actions need.
//!
//! One for each place where a service is to be found, however many machines are told of it: a site has a handful. It is
//! in a plan when a planned action depends on it, which proves it before that begins, and in a plan of the whole site also
//! when it was seen not to serve. What is `off`, or serves and is needed by nothing, is not.

use std::collections::{BTreeMap, BTreeSet};

use super::chain::{estimate, layer, limits};
use crate::site::{Network, Role, Service, Site};
use crate::{Action, ActionId, ActionKind, Change, Facts, OwnService, Scope, ServiceSpec, Target};

/// One place where a service is to be found.
struct Place {
    id: ActionId,
    /// Its field of the site file.
    field: String,
    spec: ServiceSpec,
}

/// All of them.
pub(super) struct Services<'a> {
    site: &'a Site,
    facts: &'a Facts,
    places: Vec<Place>,
    /// Which of them each network's systems are told of.
    of_network: BTreeMap<(&'a str, OwnService), usize>,
    /// Those that a planned action needs.
    needed: BTreeSet<usize>,
    /// Networks that planned systems are on.
    networks: BTreeSet<&'a str>,
}

/// What the systems of a role need of the services, by kind of action.
#[derive(Default)]
pub(super) struct Needs {
    installer: Vec<usize>,
    step: Vec<usize>,
    verify: Vec<usize>,
}

pub(super) const fn of(network: &Network, service: OwnService) -> &Service {
    match service {
        OwnService::Dns => &network.dns,
        OwnService::Ntp => &network.ntp,
        OwnService::Proxy => &network.proxy,
        OwnService::Syslog => &network.syslog,
    }
}

/// The service of a network as systems are told of it; `None` where it is off, or is to be our own where we have no address.
fn spec(name: &str, network: &Network, service: OwnService, facts: &Facts) -> Option<ServiceSpec> {
    let (own, at) = match of(network, service) {
        Service::Off => return None,
        Service::Own => {
            let address = facts.own_for(&network.subnet)?;
            (Some(address), vec![service.at(address)])
        }
        // Who writes our address down means us.
        Service::External(list) => {
            let ours = |address: &&std::net::IpAddr| *list == [service.at(**address)];
            (facts.appliance.iter().find(ours).copied(), list.clone())
        }
    };
    Some(ServiceSpec {
        service,
        // What is ours needs no asking over the network.
        unasked: own.is_none() && network.unasked.contains(&service),
        own,
        at,
        networks: vec![name.to_owned()],
    })
}

/// What is wanted of a service of a network, in words; `None` when there is no such network.
pub(super) fn wanted(site: &Site, facts: &Facts, name: &str, service: OwnService) -> Option<String> {
    let network = site.network.get(name)?;
    Some(match (of(network, service), spec(name, network, service, facts)) {
        (_, Some(spec)) => spec.wanted(),
        (Service::Own, None) => format!("own, but the appliance has no address in {}", network.subnet),
        (Service::Off | Service::External(_), None) => "off".to_owned(),
    })
}

/// A service's field of the site file.
fn field(network: &str, service: OwnService) -> String {
    format!("network.{network}.{}", service.name())
}

impl<'a> Services<'a> {
    pub(super) fn new(site: &'a Site, facts: &'a Facts) -> Self {
        let mut places: Vec<Place> = Vec::new();
        let mut of_network = BTreeMap::new();
        for (name, network) in &site.network {
            for service in OwnService::ALL {
                let Some(spec) = spec(name, network, service, facts) else {
                    continue;
                };
                let same = |place: &Place| place.spec.service == service && place.spec.at == spec.at;
                match places.iter_mut().enumerate().find(|(_, place)| same(place)) {
                    Some((at, place)) => {
                        place.spec.networks.push(name.clone());
                        // One network that does not mind is enough to ask.
                        place.spec.unasked &= spec.unasked;
                        of_network.insert((name.as_str(), service), at);
                    }
                    None => {
                        of_network.insert((name.as_str(), service), places.len());
                        places.push(Place {
                            id: ActionId(format!("network.{name}/{}", service.name())),
                            field: field(name, service),
                            spec,
                        });
                    }
                }
            }
        }
        Self {
            site,
            facts,
            places,
            of_network,
            needed: BTreeSet::new(),
            networks: BTreeSet::new(),
        }
    }

    /// What the systems of a role depend on. Of proxies and log collectors a system is told of one, as
    /// [`Wanted`](super::network::Wanted) has it.
    pub(super) fn of_role(&self, role: &Role) -> Needs {
        let told = |service| {
            let networks = role.network.iter();
            let places = networks.filter_map(move |one| self.of_network.get(&(one.network.as_str(), service)));
            places.copied()
        };
        let checked = |check: &str| {
            let checks = role.checks.as_deref().unwrap_or_default();
            checks.is_empty() || checks.iter().any(|one| one == check)
        };
        let (dns, ntp): (Vec<usize>, Vec<usize>) = (told(OwnService::Dns).collect(), told(OwnService::Ntp).collect());
        let (proxy, syslog) = (told(OwnService::Proxy).next(), told(OwnService::Syslog).next());
        let mut needs = Needs {
            installer: proxy.into_iter().collect(),
            // A step looks names up and fetches packages; nothing says that it does not.
            step: dns.iter().copied().chain(proxy).collect(),
            // No check asks the log collector, so this is what shows that it is there.
            verify: syslog.into_iter().collect(),
        };
        needs.verify.extend(dns.into_iter().filter(|_| checked("dns.resolve")));
        needs.verify.extend(ntp.into_iter().filter(|_| checked("time.sync")));
        needs.verify.extend(proxy.filter(|_| checked("proxy.packages")));
        needs
    }

    /// Has a node's actions need what they depend on.
    pub(super) fn tie(&mut self, role: &'a Role, needs: &Needs, actions: &mut [Action]) {
        let installed = role.memory.is_none();
        if !installed {
            return;
        }
        self.networks
            .extend(role.network.iter().map(|one| one.network.as_str()));
        for action in actions {
            let places = match action.kind {
                ActionKind::Installer { .. } => &needs.installer,
                ActionKind::Step(_) => &needs.step,
                ActionKind::Verify { .. } => &needs.verify,
                _ => continue,
            };
            for at in places {
                let Some(place) = self.places.get(*at) else { continue };
                if !action.needs.contains(&place.id) {
                    action.needs.push(place.id.clone());
                }
                self.needed.insert(*at);
            }
        }
    }

    /// The actions that see to them, and what the plan rests on, by field.
    pub(super) fn finish(self, scope: &Scope) -> (Vec<Action>, BTreeMap<String, String>) {
        let whole = scope.nodes.is_none();
        let mut actions = Vec::new();
        for (at, place) in self.places.iter().enumerate() {
            let seen = self.facts.seen.get(&(place.spec.service, place.spec.at.clone()));
            // What was seen before the site said so says nothing any more.
            let seen = seen.filter(|_| !place.spec.unasked);
            let gone = whole && seen.is_some_and(|seen| !seen.serves);
            if self.needed.contains(&at) || gone {
                let observed = seen.map(|seen| seen.says.clone());
                actions.push(action(place, observed, self.needed.contains(&at)));
            }
        }
        let mut inputs = BTreeMap::new();
        for name in &self.networks {
            for service in OwnService::ALL {
                let wanted = wanted(self.site, self.facts, name, service);
                inputs.extend(wanted.map(|words| (field(name, service), words)));
            }
        }
        (actions, inputs)
    }
}

fn action(place: &Place, observed: Option<String>, needed: bool) -> Action {
    let kind = ActionKind::Service(place.spec.clone());
    let used = place.spec.used();
    let reason = if needed && place.spec.unasked {
        format!("{used}: the site says that the appliance cannot ask it, so the checks on the systems show it")
    } else if needed {
        format!("{used}: it is proved before what needs it begins")
    } else {
        format!("{used}, and it was seen not to serve")
    };
    Action {
        id: place.id.clone(),
        node: None,
        target: Target::Service(place.field.clone()),
        layer: layer(&kind),
        changes: vec![Change {
            what: format!("{} service", place.spec.service.name()),
            observed,
            wanted: place.spec.wanted(),
        }],
        needs: Vec::new(),
        destroys: None,
        reboots: false,
        estimate_seconds: estimate(&kind),
        reason,
        limits: limits(&kind),
        kind,
    }
}
