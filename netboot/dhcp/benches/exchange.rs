//! Four-way exchanges in memory: DISCOVER, OFFER, REQUEST, ACK, with the codec on both sides of the engine's.
//!
//! `cargo bench -p rackbar-dhcp` shows the time of one exchange.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::net::{Ipv4Addr, SocketAddrV4};

use divan::Bencher;
use rackbar_dhcp::packet::{DhcpOption as Opt, MAX_MESSAGE, Message, MessageType, Packet, code};
use rackbar_dhcp::{Config, Engine, Input, Interface, InterfaceId, Mode, Network, Output, Range};
use rackbar_model::{MacAddr, Timestamp};

const PORT: InterfaceId = InterfaceId(1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const UUID: [u8; 17] = [7; 17];

fn main() {
    divan::main();
}

fn engine() -> Engine {
    let interface = Interface {
        id: PORT,
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
    };
    let pool = Range {
        first: Ipv4Addr::new(10, 1, 0, 0),
        last: Ipv4Addr::new(10, 15, 255, 255),
    };
    let mut network = Network::new("bench", Some(interface), SERVER, 8, pool);
    network.mode = Mode::Own;
    network.lease_seconds = 86_400;
    let mut config = Config {
        networks: vec![network],
        ..Config::default()
    };
    config.limits.probes = 0;
    Engine::new(config, [])
}

fn client(mac: MacAddr, pxe: bool) -> Message<'static> {
    let mut message = Message::request(u32::from_be_bytes([mac.0[2], mac.0[3], mac.0[4], mac.0[5]]), mac);
    message.options = vec![
        Opt::MessageType(MessageType::Discover),
        Opt::MaxSize(1472),
        Opt::Other(code::PARAMETERS, &[1, 3, 6, 12, 15, 28, 42, 43, 51, 54, 60, 66, 67, 97]),
    ];
    if pxe {
        message.options.extend([
            Opt::Other(code::MACHINE_ID, &UUID),
            Opt::Arch(7),
            Opt::VendorClass("PXEClient:Arch:00007:UNDI:003000"),
        ]);
    }
    message
}

struct World {
    engine: Engine,
    out: Vec<Output>,
    bytes: Vec<u8>,
    next: u32,
}

impl World {
    fn new() -> Self {
        Self {
            engine: engine(),
            out: Vec::new(),
            bytes: Vec::new(),
            next: 0,
        }
    }

    fn say(&mut self, message: &Message<'_>) -> Ipv4Addr {
        message.encode(MAX_MESSAGE, &mut self.bytes);
        let source = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
        let input = Input::Packet {
            interface: PORT,
            source,
            local_port: 67,
            bytes: &self.bytes,
        };
        self.engine.handle(Timestamp(1_795_000_000_000), input, &mut self.out);
        let mut given = Ipv4Addr::UNSPECIFIED;
        for output in self.out.drain(..) {
            if let Output::Send { bytes, .. } = output {
                given = Packet::new(&bytes).unwrap().yiaddr();
                self.engine.recycle(bytes);
            }
        }
        assert!(!given.is_unspecified());
        given
    }

    fn exchange(&mut self, mac: MacAddr, pxe: bool) {
        let mut message = client(mac, pxe);
        let offered = self.say(&message);
        message.options[0] = Opt::MessageType(MessageType::Request);
        message
            .options
            .extend([Opt::RequestedAddress(offered), Opt::ServerId(SERVER)]);
        assert_eq!(self.say(&message), offered);
    }

    fn new_mac(&mut self) -> MacAddr {
        self.next += 1;
        let [a, b, c, d] = self.next.to_be_bytes();
        MacAddr([2, 1, a, b, c, d])
    }
}

/// Each exchange from a machine never seen before.
#[divan::bench(args = [false, true], sample_size = 100)]
fn new_clients(bencher: Bencher<'_, '_>, pxe: bool) {
    let mut world = World::new();
    bencher.bench_local(move || {
        let mac = world.new_mac();
        world.exchange(mac, pxe);
    });
}

/// The same thousand machines again and again.
#[divan::bench(args = [false, true], sample_size = 100)]
fn known_clients(bencher: Bencher<'_, '_>, pxe: bool) {
    let mut world = World::new();
    bencher.bench_local(move || {
        world.next %= 1000;
        let mac = world.new_mac();
        world.exchange(mac, pxe);
    });
}

/// New machines while a hundred thousand leases stand.
#[divan::bench(sample_size = 100)]
fn beside_100_000_leases(bencher: Bencher<'_, '_>) {
    let mut world = World::new();
    for _ in 0..100_000 {
        let mac = world.new_mac();
        world.exchange(mac, false);
    }
    bencher.bench_local(move || {
        let mac = world.new_mac();
        world.exchange(mac, false);
    });
}

/// Reading alone.
#[divan::bench]
fn read_every_option(bencher: Bencher<'_, '_>) {
    let mut bytes = Vec::new();
    client(MacAddr([2, 0, 0, 0, 0, 9]), true).encode(MAX_MESSAGE, &mut bytes);
    bencher.bench_local(|| {
        Packet::new(&bytes)
            .unwrap()
            .options()
            .map(|(code, value)| code as usize + value.len())
            .sum::<usize>()
    });
}
