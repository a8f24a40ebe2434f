//! What an installed node has around it: the neighbours its checks try to reach, and the names that our DNS serves it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rackbar_model::{NodeId, OsNetwork};
use rackbar_plan::{ActionKind, Stand, is_of_system};
use rackbar_verify::{Peer, WantedName};

use super::driver::Live;
use super::memory::NodeWork;
use super::{Book, Executor};
use crate::rack::locked;

/// Neighbours that a node's checks try to reach on one network: some, not all of a large rack.
const PEERS: usize = 4;

/// The same on all of its networks together. A node on more networks than that still tries one on each.
const PEERS_IN_ALL: usize = 8;

/// What our DNS serves to installed systems.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServedNames {
    /// Addresses it is to be asked at; none when it is not ours to serve.
    pub servers: Vec<IpAddr>,
    /// The domain in which every installed system has its name, without the dot of the root.
    pub domain: String,
    /// First label of our own name in it.
    pub server: String,
    /// What our own name leads to.
    pub addresses: Vec<IpAddr>,
}

impl Executor {
    /// Says what our DNS serves from now on: the checks look that up on the nodes that were told to ask it.
    pub fn serves_names(&self, served: ServedNames) {
        locked(&self.inner.book).served = served;
    }
}

/// Neighbours of a node.
#[derive(Default)]
pub(super) struct Near {
    /// Those to be tried.
    pub(super) peers: Vec<Peer>,
    /// How many there are.
    pub(super) known: usize,
}

/// The installed nodes that follow this one on each of its networks, in the order of their ids and round the end: so
/// each node is tried by those before it, however many there are. Only static addresses are known well enough, and only
/// of nodes that are [at work](is_at_work).
pub(super) fn peers(book: &Book, node: NodeId, work: &NodeWork) -> Near {
    let mut near = Near::default();
    let mine: Vec<&str> = networks(work).map(|(network, _)| network).collect();
    let each = (PEERS_IN_ALL / mine.len().max(1)).clamp(1, PEERS);
    for network in mine {
        let mut others: Vec<(NodeId, Peer)> = book
            .work
            .iter()
            .filter(|(other, theirs)| **other != node && is_at_work(book, **other, theirs))
            .filter_map(|(other, theirs)| Some((*other, peer(theirs, network)?)))
            .collect();
        others.sort_by_key(|(other, _)| *other);
        let behind = others.partition_point(|(other, _)| *other < node);
        others.rotate_left(behind);
        near.known = near.known.saturating_add(others.len());
        near.peers.extend(others.into_iter().take(each).map(|(_, peer)| peer));
    }
    near
}

/// True when a node can be expected to answer by the system on it; else those that try it would be blamed for one that people
/// work on, that is in our agent, or that a run restarts. What may restart it is over, in a run of both, when they are
/// checked or given their steps: they try each other then.
fn is_at_work(book: &Book, node: NodeId, work: &NodeWork) -> bool {
    work.boots_disk && work.maintenance.is_none() && !book.live.values().any(|live| is_taken_away(live, node))
}

/// True when a run takes a node from its work, is about to, or has not brought it back.
fn is_taken_away(live: &Live, node: NodeId) -> bool {
    // In a run that people took it out of, what did not end well leads nowhere any more.
    let excluded = live.engine.run().excluded.contains_key(&node);
    let over = |stand: &Stand| match stand {
        Stand::Done { .. } => true,
        Stand::Failed { .. } | Stand::Skipped { .. } => excluded,
        Stand::Waiting | Stand::Running(_) | Stand::Again { .. } => false,
    };
    live.of_node(node)
        .any(|(action, stand)| takes_away(&action.kind) && !over(stand))
}

/// True of actions before whose end a node's installed system does not run, or may be ended at any moment.
const fn takes_away(kind: &ActionKind) -> bool {
    match kind {
        ActionKind::BiosSettings { .. }
        | ActionKind::Agent { .. }
        | ActionKind::BiosVerify { .. }
        | ActionKind::BurnIn(_)
        | ActionKind::Erase { .. }
        | ActionKind::WriteImage { .. }
        | ActionKind::Setup { .. }
        | ActionKind::BootOrder { .. }
        | ActionKind::Restart { .. }
        | ActionKind::Reachable { .. }
        | ActionKind::StayInMemory { .. }
        | ActionKind::Rescue { .. }
        | ActionKind::BmcSetUp { .. }
        | ActionKind::Installer { .. } => true,
        ActionKind::RotatePassword
        | ActionKind::Step(_)
        | ActionKind::Verify { .. }
        | ActionKind::Barrier { .. }
        | ActionKind::Service(_) => false,
    }
}

/// Networks of the site on which the system on a node has a static address.
fn networks(work: &NodeWork) -> impl Iterator<Item = (&str, IpAddr)> {
    let all = work.addresses.iter();
    let of_system = all.filter(|(holder, _)| is_of_system(holder));
    of_system.map(|(network, address)| (network.as_str(), *address))
}

/// A node as a neighbour on a network, when what is installed on it answered.
fn peer(work: &NodeWork, network: &str) -> Option<Peer> {
    let shown = work.shown.as_ref().filter(|shown| shown.proved)?;
    let (_, address) = networks(work).find(|(name, _)| *name == network)?;
    let text = address.to_string();
    let holds = |network: &&OsNetwork| {
        let mut addresses = network.addresses.iter();
        addresses.any(|one| one.split('/').next() == Some(text.as_str()))
    };
    let mut interfaces = work.setup.iter().flat_map(|setup| &setup.networks);
    Some(Peer {
        name: shown.hostname.clone(),
        address,
        mtu: interfaces.find(holds).and_then(|network| network.mtu),
    })
}

/// What a node that asks our DNS must be able to look up: our own name, which no file on it says; its own; and those of
/// the neighbours that its checks try.
pub(super) fn names(book: &Book, work: &NodeWork, peers: &[Peer]) -> Vec<WantedName> {
    let served = &book.served;
    let asks = |address: &IpAddr| served.servers.contains(address);
    let Some(setup) = work.setup.as_ref().filter(|setup| setup.dns.iter().any(asks)) else {
        return Vec::new();
    };
    let mut names: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    let mut add = |label: &str, addresses: &[IpAddr]| {
        let label = label.split('.').next().filter(|label| !label.is_empty());
        if let Some(label) = label.filter(|_| !served.domain.is_empty()) {
            let name = format!("{label}.{}", served.domain);
            names.entry(name).or_default().extend(addresses);
        }
    };
    if !served.addresses.is_empty() {
        add(&served.server, &served.addresses);
    }
    // A system may answer for its own name itself, with a loopback address.
    add(&setup.hostname, &[]);
    for peer in peers {
        add(&peer.name, &[peer.address]);
    }
    let names = names.into_iter();
    names.map(|(name, addresses)| WantedName { name, addresses }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rackbar_model::{Installed, OsSetup, Timestamp};
    use rackbar_plan::engine::{Bounds, Engine};
    use rackbar_plan::{Action, ActionId, Outcome, Run, RunId};

    use super::*;
    use crate::executor::left::unknown_plan;

    fn id(number: u8) -> NodeId {
        NodeId([number; 16])
    }

    fn address(network: u8, number: u8) -> IpAddr {
        [10, 0, network, number].into()
    }

    /// Installed nodes with these numbers on each of some networks.
    fn book(numbers: impl IntoIterator<Item = u8>, networks: u8) -> Book {
        let mut book = Book::default();
        for number in numbers {
            let hostname = format!("n{number}");
            let shown = serde_json::json!({ "image": "debian-12", "sha256": "00".repeat(32), "hostname": hostname,
                "at": rackbar_model::Timestamp(0), "run": 1, "target": { "disk": rackbar_model::DiskRef::default() }, "proved": true });
            let work = NodeWork {
                shown: Some(serde_json::from_value::<Installed>(shown).unwrap()),
                setup: Some(OsSetup {
                    hostname,
                    dns: vec![address(0, 1)],
                    ..OsSetup::default()
                }),
                addresses: (0..networks)
                    .map(|network| (format!("net{network}"), address(network, number)))
                    .collect(),
                boots_disk: true,
                ..NodeWork::default()
            };
            book.work.insert(id(number), work);
        }
        book
    }

    #[test]
    fn every_node_is_tried_by_others_on_every_network_of_a_large_rack() {
        for (count, networks, each) in [(40, 1, 4), (40, 3, 2), (7, 12, 1), (3, 2, 2), (2, 1, 1)] {
            let book = book(1..=count, networks);
            let mut tried: BTreeMap<IpAddr, usize> = BTreeMap::new();
            for (node, work) in &book.work {
                let near = peers(&book, *node, work);
                assert_eq!(near.known, usize::from(networks) * usize::from(count - 1));
                assert_eq!(near.peers.len(), usize::from(networks) * each, "{count} on {networks}");
                for peer in near.peers {
                    assert!(!work.addresses.values().any(|own| *own == peer.address), "itself");
                    *tried.entry(peer.address).or_default() += 1;
                }
            }
            assert_eq!(tried.len(), usize::from(networks) * usize::from(count));
            assert!(tried.values().all(|times| *times == each), "{tried:?}");
        }
    }

    #[test]
    fn who_has_not_answered_yet_is_nobodys_neighbour() {
        let mut book = book([1, 2, 3], 1);
        book.work.get_mut(&id(2)).unwrap().shown.as_mut().unwrap().proved = false;
        let near = peers(&book, id(1), &book.work[&id(1)]);
        let names: Vec<_> = near.peers.iter().map(|peer| peer.name.as_str()).collect();
        assert_eq!((names, near.known), (vec!["n3"], 1));
    }

    /// The names of those that the first of three tries.
    fn tried(book: &Book) -> Vec<String> {
        let near = peers(book, id(1), &book.work[&id(1)]);
        assert_eq!(near.known, near.peers.len());
        near.peers.into_iter().map(|peer| peer.name).collect()
    }

    #[test]
    fn who_is_in_maintenance_or_in_our_agent_is_nobodys_neighbour() {
        let mut book = book([1, 2, 3], 1);
        assert_eq!(tried(&book), ["n2", "n3"]);
        book.work.get_mut(&id(2)).unwrap().maintenance = Some("by anna: another DIMM".into());
        assert_eq!(tried(&book), ["n3"]);
        book.work.get_mut(&id(3)).unwrap().boots_disk = false;
        assert!(tried(&book).is_empty());
    }

    /// A run under way with actions of the second node that stand so.
    fn run(book: &mut Book, number: u64, actions: &[(ActionKind, Stand)], excluded: bool) {
        let mut plan = unknown_plan(RunId(number));
        let one = plan.actions.remove(0);
        let action = |at: usize, kind: &ActionKind| Action {
            id: ActionId(at.to_string()),
            node: Some(id(2)),
            kind: kind.clone(),
            ..one.clone()
        };
        plan.actions = actions
            .iter()
            .enumerate()
            .map(|(at, (kind, _))| action(at, kind))
            .collect();
        let stands = plan.actions.iter().zip(actions);
        let stands = stands
            .map(|(action, (_, stand))| (action.id.clone(), stand.clone()))
            .collect();
        let mut run = Run::new(RunId(number), Arc::new(plan), "anna", Timestamp(0));
        run.actions = stands;
        run.excluded.extend(excluded.then(|| (id(2), "hands off".to_owned())));
        let engine = Engine::new(run, Bounds::default()).unwrap();
        book.live.insert(RunId(number), Live::new(engine, None));
    }

    #[test]
    fn who_may_be_restarted_by_a_run_is_nobodys_neighbour_until_it_answered_again() {
        let at = Timestamp(0);
        let done = || Stand::Done {
            outcome: Outcome::default(),
            tries: 1,
            at,
        };
        let failed = || Stand::Failed {
            reason: String::new(),
            advice: String::new(),
            tries: 1,
            at,
        };
        let skipped = || Stand::Skipped { reason: String::new() };
        let waiting = || Stand::Waiting;
        let settings = ActionKind::BiosSettings {
            attributes: BTreeMap::new(),
        };
        let agent = ActionKind::Agent { fresh: true };
        let answers = ActionKind::Reachable { user: "root".into() };
        let checks = ActionKind::Verify { checks: Vec::new() };
        // How its actions stand, in their order, whether people took it out of the run, and whether it is tried.
        let cases = [
            ([waiting(), waiting(), waiting(), waiting()], false, false),
            ([done(), waiting(), waiting(), waiting()], false, false),
            ([done(), done(), waiting(), waiting()], false, false),
            ([done(), done(), failed(), skipped()], false, false),
            ([done(), failed(), skipped(), skipped()], false, false),
            ([skipped(), skipped(), skipped(), skipped()], true, true),
            ([done(), done(), waiting(), skipped()], true, false),
            ([done(), done(), done(), waiting()], false, true),
            ([done(), done(), done(), failed()], false, true),
        ];
        let kinds = [&settings, &agent, &answers, &checks];
        for (stands, excluded, neighbour) in cases {
            let mut book = book([1, 2, 3], 1);
            let actions: Vec<_> = kinds.into_iter().cloned().zip(stands).collect();
            run(&mut book, 1, &actions, excluded);
            let wanted: &[&str] = if neighbour { &["n2", "n3"] } else { &["n3"] };
            assert_eq!(tried(&book), wanted, "{actions:?}");
            // Another one of its own is going to exercise its hardware.
            run(&mut book, 2, &[(agent.clone(), waiting())], false);
            assert_eq!(tried(&book), ["n3"]);
        }
    }

    #[test]
    fn names_are_looked_up_where_our_dns_is_asked() {
        let mut book = book([1, 2, 3], 2);
        let listed = |book: &Book| {
            let work = &book.work[&id(1)];
            names(book, work, &peers(book, id(1), work).peers)
        };
        assert!(listed(&book).is_empty(), "nothing is known of a DNS of ours");
        book.served = ServedNames {
            servers: vec![address(0, 1)],
            domain: "site.test".into(),
            server: "rackbar".into(),
            addresses: vec![address(0, 1), address(9, 1)],
        };
        let told: BTreeMap<String, Vec<IpAddr>> =
            listed(&book).into_iter().map(|one| (one.name, one.addresses)).collect();
        let wanted = [
            ("rackbar.site.test", vec![address(0, 1), address(9, 1)]),
            ("n1.site.test", Vec::new()),
            ("n2.site.test", vec![address(0, 2), address(1, 2)]),
            ("n3.site.test", vec![address(0, 3), address(1, 3)]),
        ];
        assert_eq!(
            told,
            wanted.map(|(name, addresses)| (name.to_owned(), addresses)).into()
        );
        book.served.servers = vec![address(9, 9)];
        assert!(listed(&book).is_empty(), "the node asks others");
    }
}
