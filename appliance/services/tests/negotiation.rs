//! A machine that takes the other server's address and ignores our boot information beside it, on a real Ethernet with
//! dnsmasq: is it moved to a way that works, and does the event say why?

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]

mod common;

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use common::netns::Net;
use common::{DEADLINE, Leases, Sink, wait_until};
use rackbar_dhcp::packet::{Packet, code};
use rackbar_dhcp::{Config, Interface, InterfaceId, Mode, Network, Range, Reservation, ReservedFor};
use rackbar_model::{BootWay, EventKind, LeaseState, MacAddr, Timestamp};
use rackbar_services::dhcp::{Clock, DhcpConfig, DhcpHandle, start_by};
use rackbar_services::{ClientTable, Link};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const RESERVED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 150);
const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x99]);

/// Tries of one firmware are seconds apart; closer ones count as one heard twice.
const BETWEEN: Duration = Duration::from_secs(5);

struct Service {
    /// Seconds of the engine's clock that nobody waited for.
    ahead: Arc<Mutex<Duration>>,
    handle: DhcpHandle,
    sink: Arc<Sink>,
    leases: Arc<Leases>,
    clients: Arc<ClientTable>,
}

fn serve(net: &Net, ways: &[BootWay]) -> Service {
    serve_with(net, ways, Arc::new(Leases::default()))
}

/// The same with what an earlier service left behind.
fn serve_with(net: &Net, ways: &[BootWay], leases: Arc<Leases>) -> Service {
    net.inside("server", || {
        let link = Link::find("test", "rack0").unwrap();
        let interface = Interface {
            id: InterfaceId(link.index),
            mac: link.mac,
        };
        let none = Range {
            first: SERVER,
            last: SERVER,
        };
        let mut network = Network::new("rack", Some(interface), SERVER, 24, none);
        network.mode = Mode::Proxy;
        network.pools.clear();
        network.ways = ways.to_vec();
        network.reservations = vec![Reservation {
            client: ReservedFor::Mac(MAC),
            address: RESERVED,
            hostname: None,
        }];
        let config = DhcpConfig {
            interfaces: vec!["rack0".into()],
            engine: Config {
                networks: vec![network],
                ..Config::default()
            },
        };
        let (sink, common) = Sink::new();
        let clients = Arc::clone(&common.clients);
        let ahead = Arc::new(Mutex::new(Duration::ZERO));
        let (reads, passes) = (Arc::clone(&ahead), Arc::clone(&ahead));
        let begun = Instant::now();
        let clock = Clock {
            wall: Arc::new(move || {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() + *reads.lock().unwrap();
                Timestamp(u64::try_from(since.as_millis()).unwrap())
            }),
            steady: Arc::new(move || begun.elapsed() + *passes.lock().unwrap()),
        };
        let handle = start_by(clock, config, Arc::clone(&leases) as _, common).unwrap();
        Service {
            ahead,
            handle,
            sink,
            leases,
            clients,
        }
    })
}

/// UEFI firmware that knows nothing of ProxyDHCP.
struct Firmware {
    socket: UdpSocket,
}

/// Address offered or acknowledged, and the boot file that came with it.
type Given = (Ipv4Addr, Option<String>);

impl Firmware {
    fn new(net: &Net) -> Self {
        net.exec_ok("client", "ip", &["addr", "add", "10.77.0.90/24", "dev", "c0"]);
        net.exec_ok("client", "ip", &["route", "add", "255.255.255.255/32", "dev", "c0"]);
        net.inside("client", || {
            let socket = UdpSocket::bind("0.0.0.0:68").unwrap();
            socket.set_broadcast(true).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            Self { socket }
        })
    }

    fn send(&self, xid: u8, kind: u8, more: &[u8]) {
        let mut packet = vec![0; 240];
        packet[..4].copy_from_slice(&[1, 1, 6, 0]);
        packet[7] = xid;
        packet[10] = 0x80;
        packet[28..34].copy_from_slice(&MAC.0);
        packet[236..240].copy_from_slice(&[99, 130, 83, 99]);
        packet.extend_from_slice(&[53, 1, kind, 55, 4, 1, 3, 66, 67, 93, 2, 0, 7, 60, 32]);
        packet.extend_from_slice(b"PXEClient:Arch:00007:UNDI:003016");
        packet.extend_from_slice(more);
        packet.push(255);
        packet.resize(300, 0);
        self.socket.send_to(&packet, "255.255.255.255:67").unwrap();
    }

    /// The first answer of `server` with an address; proxy offers have none and are passed over, as this firmware does.
    /// `None` after `patience`.
    fn hear(&self, xid: u8, server: Ipv4Addr, patience: Duration) -> Option<Given> {
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 1_500];
        while Instant::now() < deadline {
            let Ok(length) = self.socket.recv(&mut buffer) else {
                continue;
            };
            let Ok(packet) = Packet::new(&buffer[..length]) else {
                continue;
            };
            let ours = packet.xid() == u32::from(xid) && packet.server_id() == Some(server);
            if ours && !packet.yiaddr().is_unspecified() {
                let file = packet.option(code::BOOT_FILE);
                let file = file.map(|file| String::from_utf8_lossy(&file).trim_end_matches('\0').to_owned());
                return Some((packet.yiaddr(), file));
            }
        }
        None
    }

    /// Asks until that server offers an address, as firmware does: it may not listen yet.
    fn discover(&self, xid: u8, server: Ipv4Addr) -> Option<Given> {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            self.send(xid, 1, &[]);
            if let Some(offer) = self.hear(xid, server, Duration::from_secs(1)) {
                return Some(offer);
            }
        }
        None
    }

    fn request(&self, xid: u8, address: Ipv4Addr, server: Ipv4Addr) -> Given {
        let more = [&[50, 4][..], &address.octets(), &[54, 4], &server.octets()].concat();
        self.send(xid, 3, &more);
        self.hear(xid, server, DEADLINE).expect("an acknowledgement")
    }

    /// One boot: takes dnsmasq's address, finds nothing to boot, begins again after a while. The clock goes on when we
    /// have seen all of it: what is handled later would be a part of the next try.
    fn boot_in_vain(&self, service: &Service, xid: u8) {
        let seen = || (service.sink.count(proxied), service.sink.count(asked));
        let before = seen();
        let (address, file) = self.discover(xid, OTHER).expect("dnsmasq's offer");
        assert_eq!(file, None);
        self.request(xid, address, OTHER);
        wait_until("we have seen this boot", || seen() == (before.0 + 1, before.1 + 1));
        *service.ahead.lock().unwrap() += BETWEEN;
    }
}

fn asked(kind: &EventKind) -> bool {
    matches!(kind, EventKind::DhcpRequest { .. })
}

fn proxied(kind: &EventKind) -> bool {
    matches!(kind, EventKind::DhcpOffer { address: None, .. })
}

#[test]
fn firmware_deaf_to_proxy_offers_is_led_by_a_reserved_address_beside_dnsmasq() {
    let net = Net::new();
    let _dnsmasq = net.dnsmasq();
    let service = serve(&net, &[BootWay::Proxy, BootWay::FullDhcp]);
    let firmware = Firmware::new(&net);
    firmware.boot_in_vain(&service, 1);
    firmware.boot_in_vain(&service, 2);
    assert_eq!(service.sink.count(proxied), 2, "both tries had our boot information");

    firmware.send(3, 1, &[]);
    let offer = firmware.hear(3, SERVER, DEADLINE).expect("our own offer");
    assert_eq!(offer, (RESERVED, Some("loader.efi".to_owned())));
    let ack = firmware.request(3, RESERVED, SERVER);
    assert_eq!(ack, offer);
    let lease = service.leases.committed.lock().unwrap().last().cloned().unwrap();
    assert_eq!(
        (lease.address, lease.mac, lease.state),
        (RESERVED, MAC, LeaseState::Bound)
    );
    let told = service.sink.wait_for("why it was moved", |mac, kind| match kind {
        EventKind::WayChanged { .. } => Some((mac, kind.to_string())),
        _ => None,
    });
    assert_eq!(told.0, Some(MAC));
    assert!(
        told.1
            .starts_with("2 requests after our proxy offers and no boot file fetched")
            && told.1.contains("switching from"),
        "{}",
        told.1
    );
    service.handle.stop();
}

#[test]
fn what_was_learnt_of_a_firmware_survives_a_restart_until_it_is_forgotten() {
    let net = Net::new();
    let _dnsmasq = net.dnsmasq();
    let ways = [BootWay::Proxy, BootWay::FullDhcp];
    let service = serve(&net, &ways);
    let firmware = Firmware::new(&net);
    firmware.boot_in_vain(&service, 1);
    firmware.boot_in_vain(&service, 2);
    firmware.send(3, 1, &[]);
    firmware.hear(3, SERVER, DEADLINE).expect("our own offer");
    firmware.request(3, RESERVED, SERVER);
    let leases = Arc::clone(&service.leases);
    wait_until("it is written down", || leases.habits.lock().unwrap().len() == 1);
    service.handle.stop();
    let habit = leases.habits.lock().unwrap()[&MAC].clone();
    assert_eq!((habit.way, habit.proven), (BootWay::FullDhcp, false));
    assert_eq!(habit.given_up, [BootWay::Proxy]);
    assert!(
        habit
            .reason
            .as_deref()
            .is_some_and(|why| why.contains("no boot file fetched"))
    );

    // Its first packet after the restart is answered with an address of ours: it does not fail twice again.
    let service = serve_with(&net, &ways, Arc::clone(&leases));
    firmware.send(4, 1, &[]);
    assert!(firmware.hear(4, SERVER, DEADLINE).is_some());
    assert!(service.clients.forget_firmware(MAC));
    wait_until("the record is gone", || leases.habits.lock().unwrap().is_empty());
    service.handle.stop();
    let service = serve_with(&net, &ways, leases);
    firmware.send(5, 1, &[]);
    firmware.hear(5, OTHER, DEADLINE).expect("dnsmasq's offer");
    wait_until("our proxy offer", || service.sink.count(proxied) == 1);
    service.handle.stop();
}

#[test]
fn it_stays_a_proxy_client_where_the_site_allows_no_other_way() {
    let net = Net::new();
    let _dnsmasq = net.dnsmasq();
    let service = serve(&net, &[BootWay::Proxy]);
    let firmware = Firmware::new(&net);
    for xid in 1..=3 {
        firmware.boot_in_vain(&service, xid);
    }
    firmware.send(4, 1, &[]);
    firmware.hear(4, OTHER, DEADLINE).expect("dnsmasq's offer");
    wait_until("our fourth proxy offer", || service.sink.count(proxied) == 4);
    assert_eq!(firmware.hear(4, SERVER, Duration::from_secs(1)), None);
    assert_eq!(
        service.sink.count(|kind| matches!(kind, EventKind::WayChanged { .. })),
        0
    );
    assert!(service.leases.committed.lock().unwrap().is_empty());
    service.handle.stop();
}
