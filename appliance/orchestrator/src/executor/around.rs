//! What an installed node has around it: the neighbours its checks try to reach, and the names that our DNS serves it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use rackbar_model::{MacAddr, NodeId, OsNetwork};
use rackbar_plan::{ActionKind, Stand, is_of_system};
use rackbar_verify::{Peer, WantedName};

use super::driver::Live;
use super::memory::NodeWork;
use super::{Book, Executor};
use crate::rack::locked;

/// Neighbours that a node's checks try to reach on one network: all of a rack's, so that every pair is tried, and some of a
/// hall's.
const PEERS: usize = 64;

/// The same on all of its networks together. A node on more networks than that still tries one on each.
const PEERS_IN_ALL: usize = 128;

/// Neighbours whose names are looked up: one that is found shows what a hundred do.
const NAMED: usize = 4;

/// Which of our networks, and which address on it, the newest lease of a MAC address is of.
pub(crate) type Leased = HashMap<MacAddr, (String, IpAddr)>;

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
    /// Those of them whose names lead to these addresses: leases come and go.
    pub(super) fixed: Vec<Peer>,
    /// How many there are.
    pub(super) known: usize,
}

/// The installed nodes that follow this one on each of its networks, in the order of their ids and round the end: so
/// each node is tried by those before it, however many there are. Only those whose address is known, and only of nodes that
/// are [at work](is_at_work); a node that is switched `off` answers nobody, and says nothing of who tries it.
pub(super) fn peers(book: &Book, node: NodeId, work: &NodeWork, leased: &Leased, off: &dyn Fn(NodeId) -> bool) -> Near {
    let mut near = Near::default();
    let mine = places(work, leased);
    let each = (PEERS_IN_ALL / mine.len().max(1)).clamp(1, PEERS);
    let others = book.work.iter();
    let others = others.filter(|(other, theirs)| **other != node && is_at_work(book, **other, theirs) && !off(**other));
    let others: Vec<(NodeId, &NodeWork)> = others.map(|(other, theirs)| (*other, theirs)).collect();
    for place in mine {
        let there = others.iter();
        let mut there: Vec<(NodeId, Peer)> = there
            .filter_map(|(other, theirs)| Some((*other, peer(theirs, &place.network, leased)?)))
            .collect();
        there.sort_by_key(|(other, _)| *other);
        let behind = there.partition_point(|(other, _)| *other < node);
        there.rotate_left(behind);
        near.known = near.known.saturating_add(there.len());
        let tried = there.into_iter().take(each).map(|(_, peer)| peer);
        let before = near.peers.len();
        near.peers.extend(tried);
        if place.fixed {
            near.fixed.extend(near.peers.iter().skip(before).cloned());
        }
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

/// Where a system is on a network.
struct Place<'a> {
    /// What all that are on it call it: the site's name of a network with static addresses, our own of one whose leases we give.
    network: Cow<'a, str>,
    address: IpAddr,
    fixed: bool,
    mtu: Option<u16>,
}

/// Where the system on a node is: at its static addresses, and on networks of ours at those of its leases.
fn places<'a>(work: &'a NodeWork, leased: &'a Leased) -> Vec<Place<'a>> {
    let interfaces = || work.setup.iter().flat_map(|setup| &setup.networks);
    let of_system = work.addresses.iter().filter(|(holder, _)| is_of_system(holder));
    let fixed = of_system.map(|(network, address)| {
        let text = address.to_string();
        let holds = |one: &&OsNetwork| {
            let mut addresses = one.addresses.iter();
            addresses.any(|one| one.split('/').next() == Some(text.as_str()))
        };
        Place {
            network: Cow::Borrowed(network),
            address: *address,
            fixed: true,
            mtu: interfaces().find(holds).and_then(|one| one.mtu),
        }
    });
    // A tagged network asks from the same MAC address as the untagged one beside it, and a bond as its port does alone before the
    // system runs: their lease may be one that firmware or our agent had.
    let alone = |one: &&OsNetwork| one.addresses.is_empty() && one.vlan.is_none() && one.bond.is_none();
    let given = interfaces().filter(alone).filter_map(|one| {
        let (network, address) = one.nics.iter().find_map(|mac| leased.get(mac))?;
        Some(Place {
            // No network of a site has such a name.
            network: Cow::Owned(format!("dhcp/{network}")),
            address: *address,
            fixed: false,
            mtu: one.mtu,
        })
    });
    fixed.chain(given).collect()
}

/// A node as a neighbour on a network, when what is installed on it answered.
fn peer(work: &NodeWork, network: &str, leased: &Leased) -> Option<Peer> {
    let shown = work.shown.as_ref().filter(|shown| shown.proved)?;
    let place = places(work, leased)
        .into_iter()
        .find(|place| place.network == network)?;
    Some(Peer {
        name: shown.hostname.clone(),
        address: place.address,
        mtu: place.mtu,
    })
}

/// What a node that asks our DNS must be able to look up: our own name, which no file on it says; its own; and those of
/// some neighbours that its checks try.
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
    let mut named: Vec<&str> = Vec::new();
    for peer in peers {
        if named.len() < NAMED && !named.contains(&peer.name.as_str()) {
            named.push(&peer.name);
        }
        // One neighbour may be met on several networks.
        if named.contains(&peer.name.as_str()) {
            add(&peer.name, &[peer.address]);
        }
    }
    let names = names.into_iter();
    names.map(|(name, addresses)| WantedName { name, addresses }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
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
    fn every_node_is_tried_by_as_many_as_it_tries_on_every_network_of_a_hall() {
        for (count, networks, each) in [
            (40, 1, 39),
            (65, 2, 64),
            (90, 1, 64),
            (90, 3, 42),
            (7, 200, 1),
            (3, 2, 2),
            (2, 1, 1),
        ] {
            let book = book(1..=count, networks);
            let mut tried: BTreeMap<IpAddr, usize> = BTreeMap::new();
            for (node, work) in &book.work {
                let near = peers(&book, *node, work, &Leased::new(), &|_| false);
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
    fn in_a_rack_every_pair_is_tried_both_ways() {
        let book = book(1..=65, 2);
        for (node, work) in &book.work {
            let near = peers(&book, *node, work, &Leased::new(), &|_| false);
            let tried: BTreeSet<IpAddr> = near.peers.iter().map(|peer| peer.address).collect();
            assert_eq!((tried.len(), near.known), (2 * 64, 2 * 64));
        }
    }

    /// A node's MAC address on the network of leases.
    fn mac(number: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, number])
    }

    #[test]
    fn on_a_network_of_leases_those_are_tried_that_have_one_of_it() {
        let mut book = book([1, 2, 3, 4], 1);
        for number in 1..=4 {
            let setup = book.work.get_mut(&id(number)).unwrap().setup.as_mut().unwrap();
            setup.networks.push(OsNetwork {
                name: "lan".into(),
                nics: vec![mac(number)],
                bond: None,
                vlan: None,
                mtu: Some(9000),
                addresses: Vec::new(),
                gateway: None,
            });
        }
        let lease = |number: u8, network: &str| (mac(number), (network.to_owned(), address(7, number)));
        let leased = Leased::from([lease(1, "rack"), lease(2, "rack"), lease(3, "other")]);
        let near = peers(&book, id(1), &book.work[&id(1)], &leased, &|_| false);
        let tried: Vec<_> = near
            .peers
            .iter()
            .map(|peer| (peer.name.as_str(), peer.address, peer.mtu))
            .collect();
        let fixed = |number| {
            (
                ["", "", "n2", "n3", "n4"][usize::from(number)],
                address(0, number),
                None,
            )
        };
        assert_eq!(tried, [fixed(2), fixed(3), fixed(4), ("n2", address(7, 2), Some(9000))]);
        assert_eq!((near.known, near.fixed.len()), (4, 3));
    }

    #[test]
    fn the_lease_that_firmware_had_is_not_where_a_tagged_network_or_a_bond_is() {
        let mut book = book([1, 2, 3, 4], 0);
        for number in 1..=4 {
            let setup = book.work.get_mut(&id(number)).unwrap().setup.as_mut().unwrap();
            setup.networks.push(OsNetwork {
                name: "lan".into(),
                nics: vec![mac(number)],
                bond: (number == 2).then_some(rackbar_model::BondMode::ActiveBackup),
                vlan: (number == 3).then_some(20),
                mtu: None,
                addresses: Vec::new(),
                gateway: None,
            });
        }
        let leased: Leased = (1..=4)
            .map(|number| (mac(number), ("rack".to_owned(), address(7, number))))
            .collect();
        let near = peers(&book, id(1), &book.work[&id(1)], &leased, &|_| false);
        let names: Vec<_> = near.peers.iter().map(|peer| peer.name.as_str()).collect();
        assert_eq!((names, near.known), (vec!["n4"], 1));
    }

    #[test]
    fn who_is_switched_off_is_nobodys_neighbour() {
        let book = book([1, 2, 3], 1);
        let off = |node| node == id(2);
        let near = peers(&book, id(1), &book.work[&id(1)], &Leased::new(), &off);
        let names: Vec<_> = near.peers.iter().map(|peer| peer.name.as_str()).collect();
        assert_eq!((names, near.known), (vec!["n3"], 1));
    }

    #[test]
    fn who_has_not_answered_yet_is_nobodys_neighbour() {
        let mut book = book([1, 2, 3], 1);
        book.work.get_mut(&id(2)).unwrap().shown.as_mut().unwrap().proved = false;
        let near = peers(&book, id(1), &book.work[&id(1)], &Leased::new(), &|_| false);
        let names: Vec<_> = near.peers.iter().map(|peer| peer.name.as_str()).collect();
        assert_eq!((names, near.known), (vec!["n3"], 1));
    }

    /// The names of those that the first of three tries.
    fn tried(book: &Book) -> Vec<String> {
        let near = peers(book, id(1), &book.work[&id(1)], &Leased::new(), &|_| false);
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
            names(book, work, &peers(book, id(1), work, &Leased::new(), &|_| false).fixed)
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
