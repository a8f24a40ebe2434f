//! What must hold for any sequence of messages: no panic, bounded memory, one holder per address, a lease on record
//! before its acknowledgement.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test's words may")]

mod rig;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use proptest::prelude::*;
use rackbar_dhcp::packet::{DhcpOption as Opt, MessageType, Packet};
use rackbar_dhcp::{Config, Input, Mode, Output};
use rackbar_model::{LeaseState, MacAddr, Timestamp};
use rig::*;

#[derive(Clone, Debug)]
enum Step {
    Discover {
        client: usize,
    },
    /// Requests the address last offered, or any.
    Request {
        client: usize,
        any: Option<u8>,
    },
    Reboot {
        client: usize,
        last: u8,
    },
    Renew {
        client: usize,
    },
    Release {
        client: usize,
    },
    Decline {
        client: usize,
    },
    Probe {
        last: u8,
        owner: Option<u16>,
    },
    Wait {
        millis: u64,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0usize..14;
    prop_oneof![
        5 => client.clone().prop_map(|client| Step::Discover { client }),
        5 => (client.clone(), prop::option::weighted(0.2, 95u8..115)).prop_map(|(client, any)| Step::Request { client, any }),
        1 => (client.clone(), 95u8..115).prop_map(|(client, last)| Step::Reboot { client, last }),
        2 => client.clone().prop_map(|client| Step::Renew { client }),
        1 => client.clone().prop_map(|client| Step::Release { client }),
        1 => client.prop_map(|client| Step::Decline { client }),
        1 => (95u8..115, prop::option::of(0u16..20)).prop_map(|(last, owner)| Step::Probe { last, owner }),
        3 => prop_oneof![0u64..1000, 1000u64..700_000].prop_map(|millis| Step::Wait { millis }),
        1 => Just(Step::Restart),
    ]
}

const DUID: [u8; 8] = [0xff, 1, 2, 3, 4, 5, 6, 7];

/// Fourteen client programs on seven machines, for ten addresses.
fn program(n: usize) -> Client<'static> {
    let m = mac((n / 2) as u16);
    match n {
        0 | 2 | 4 => Client::edk2(m),
        1 | 6 | 8 => Client::dhclient(m),
        3 | 7 => Client::with_duid(m, &DUID),
        5 | 9 => Client::ipxe(m),
        10 => Client::edk2_http(m),
        _ => Client::rackbar(m, b"rackbar-agent"),
    }
}

/// Who believes to hold what until when, from the ACKs alone.
#[derive(Default)]
struct World {
    held: HashMap<Ipv4Addr, (MacAddr, u64)>,
    offered: HashMap<usize, Ipv4Addr>,
    recorded: HashMap<Ipv4Addr, (MacAddr, LeaseState, u64)>,
}

impl World {
    fn watch(&mut self, now: Timestamp, client: Option<usize>, out: &[Output]) {
        for output in out {
            match output {
                Output::Commit(lease) => {
                    // A machine that took another address gives its old one back in the same breath.
                    if lease.state == LeaseState::Released && acked(out) == Some(lease.mac) {
                        self.held.remove(&lease.address);
                    }
                    self.recorded
                        .insert(lease.address, (lease.mac, lease.state, lease.expires.0));
                }
                Output::Send { bytes, .. } => self.sent(now, client, &Packet::new(bytes).unwrap()),
                Output::Probe { .. } | Output::Event { .. } | Output::Learnt { .. } => {}
            }
        }
    }

    fn sent(&mut self, now: Timestamp, client: Option<usize>, packet: &Packet<'_>) {
        let (address, mac) = (packet.yiaddr(), packet.mac().unwrap());
        match packet.message_type() {
            Some(MessageType::Offer) => {
                let holder = self.held.get(&address).filter(|(m, until)| *m != mac && *until > now.0);
                assert_eq!(holder, None, "{address} offered to {mac} while held");
                client.map(|client| self.offered.insert(client, address));
            }
            Some(MessageType::Ack) if !address.is_unspecified() => {
                let until = now.0 + u64::from(packet.lease_time().unwrap()) * 1000;
                let holder = self.held.get(&address).filter(|(m, end)| *m != mac && *end > now.0);
                assert_eq!(holder, None, "{address} given to {mac} while held");
                assert_eq!(
                    self.recorded.get(&address),
                    Some(&(mac, LeaseState::Bound, until)),
                    "ACK before commit"
                );
                self.held.insert(address, (mac, until));
            }
            _ => {}
        }
    }
}

/// The machine an ACK went to.
fn acked(out: &[Output]) -> Option<MacAddr> {
    out.iter().find_map(|output| {
        let Output::Send { bytes, .. } = output else {
            return None;
        };
        let packet = Packet::new(bytes).unwrap();
        packet.mac().filter(|_| packet.message_type() == Some(MessageType::Ack))
    })
}

fn play(rig: &mut Rig, world: &mut World, config: &Config, step: Step) {
    let held = |world: &World, n: usize| {
        let mine = world
            .held
            .iter()
            .find(|(_, (m, until))| *m == program(n).mac && *until > START);
        mine.map(|(address, _)| *address)
    };
    let mut actor = None;
    match step {
        Step::Discover { client } => {
            actor = Some(client);
            rig.hear(&program(client).discover());
        }
        Step::Request { client, any } => {
            if let Some(address) = any.map(ip).or(world.offered.get(&client).copied()) {
                rig.hear(&program(client).request(address, SERVER));
            }
        }
        Step::Reboot { client, last } => rig.hear(&program(client).reboot(ip(last))),
        Step::Renew { client } => {
            if let Some(address) = held(world, client) {
                let bytes = program(client).speaking_from(MessageType::Request, address);
                rig.packet(67, SocketAddrV4::new(address, 68), &bytes);
            }
        }
        Step::Release { client } => {
            if let Some(address) = held(world, client) {
                rig.hear(&program(client).speaking_from(MessageType::Release, address));
                let gone = rig
                    .out
                    .iter()
                    .any(|o| matches!(o, Output::Commit(l) if l.address == address));
                if gone {
                    world.held.remove(&address);
                }
            }
        }
        Step::Decline { client } => {
            if let Some(address) = held(world, client).or(world.offered.get(&client).copied()) {
                let more = [Opt::RequestedAddress(address)];
                rig.hear(&encoded(&program(client).message(MessageType::Decline, &more)));
                let gone = |o: &Output| matches!(o, Output::Commit(l) if l.address == address);
                if rig.out.iter().any(gone) {
                    world.held.remove(&address);
                }
            }
        }
        Step::Probe { last, owner } => {
            let input = Input::ProbeResult {
                interface: PORT,
                address: ip(last),
                owner: owner.map(mac),
            };
            rig.engine.handle(rig.now, input, &mut rig.out);
        }
        Step::Wait { millis } => {
            rig.now = rig.now.plus(millis);
            rig.tick();
        }
        Step::Restart => {
            let leases: Vec<_> = rig.engine.leases().collect();
            let now = rig.now;
            *rig = Rig::with_leases(config.clone(), leases);
            rig.now = now;
            rig.tick();
        }
    }
    let out = std::mem::take(&mut rig.out);
    world.watch(rig.now, actor, &out);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_machines_never_hold_one_address(steps in prop::collection::vec(step(), 1..120), probes in any::<bool>()) {
        let mut config = config(rack(Mode::Own));
        config.limits.probes = if probes { 1024 } else { 0 };
        let (mut rig, mut world) = (Rig::new(config.clone()), World::default());
        for step in steps {
            play(&mut rig, &mut world, &config, step);
        }
        // What the engine says it leases is what it recorded.
        for lease in rig.engine.leases().filter(|l| l.state == LeaseState::Bound) {
            prop_assert_eq!(world.recorded.get(&lease.address).map(|r| r.0), Some(lease.mac));
        }
    }

    #[test]
    fn mutated_packets_never_panic_and_memory_stays_bounded(
        mutations in prop::collection::vec((0usize..14, prop::collection::vec((0usize..400, any::<u8>()), 0..12), 0usize..400, 0u16..3), 1..80),
        mode in prop_oneof![Just(Mode::Own), Just(Mode::Proxy), Just(Mode::Auto)],
    ) {
        let mut config = config(rack(mode));
        config.limits.clients = 16;
        config.limits.probes = 4;
        let mut rig = Rig::new(config);
        for (client, changes, cut, port) in mutations {
            let mut bytes = program(client).discover();
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(bytes.len().max(cut) - cut.min(60));
            rig.packet([67, 68, 4011][usize::from(port)], NOWHERE, &bytes);
            rig.wait(100);
            prop_assert!(rig.engine.clients().count() <= 16);
            prop_assert!(rig.engine.leases().count() <= 10);
            rig.out.clear();
        }
    }

    #[test]
    fn arbitrary_packets_never_panic(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 1..20)) {
        let mut rig = Rig::own();
        for bytes in packets {
            rig.hear(&bytes);
        }
    }
}

#[test]
fn a_flood_of_made_up_macs_stays_within_its_bounds_and_is_told_once() {
    let mut config = config(rack(Mode::Own));
    config.limits.clients = 1000;
    let mut rig = Rig::new(config);
    for n in 0..20_000u16 {
        rig.hear(&Client::edk2(mac(n)).discover());
    }
    assert_eq!(rig.engine.clients().count(), 1000);
    let events = rig.told();
    assert!(events.len() < 5000, "{}", events.len());
    assert!(rig.engine.counters().untold > 15_000);
    let floods = events
        .iter()
        .filter(|k| format!("{k:?}").contains("more new DHCP clients"));
    assert_eq!(floods.count(), 1);
}
