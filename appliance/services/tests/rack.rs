//! A whole rack is switched on: 500 simulated machines within one second, each with an address of its own and every packet a
//! real one, against DHCP, TFTP and boot HTTP in one process. All get a lease, the loader, and what they boot, whole.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]
#![allow(dead_code, reason = "the other tests' words are here too")]

mod common;

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::netns::Net;
use common::{Desk, Leases, Sink, wait_until};
use rackbar_artifacts::Artifacts;
use rackbar_dhcp::{Config, Mode, Network, Range};
use rackbar_services::dhcp::{self, DhcpConfig};
use rackbar_services::http::{self, HttpConfig, HttpLimits};
use rackbar_services::tftp::{self, TftpConfig, TftpLimits};
use socket2::{Domain, Socket, Type};

const NODES: u32 = 500;
/// From power-on, for every machine. An idle one needs well under a second; a busy machine that tests beside others is slow.
const DEADLINE: Duration = Duration::from_secs(40);
/// A firmware's first wait for an answer, of which each further one is twice as long, and how often it asks.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const TRIES: u32 = 6;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The relay that all are behind.
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 90);
const LOADER: usize = 60_007;
const KERNEL: usize = 200_003;

fn pattern(length: usize) -> Vec<u8> {
    let byte = |i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8;
    (0..length as u32).map(byte).collect()
}

/// How a machine fared, from its power-on.
#[derive(Clone, Copy)]
struct Booted {
    own: Ipv4Addr,
    address: Duration,
    loader: Duration,
    all: Duration,
    /// Packets sent again for want of an answer.
    again: u32,
}

/// Switches the rack on; true to the machines, who never lie about what they got, the test fails when one lacks anything.
fn switch_on(http: HttpLimits, tftp: TftpLimits) {
    let net = Net::new();
    net.exec_ok("client", "ip", &["addr", "add", "10.77.0.90/24", "dev", "c0"]);
    net.exec_ok("client", "ip", &["route", "add", "local", "10.77.16.0/20", "dev", "lo"]);
    net.exec_ok("server", "ip", &["route", "add", "10.77.16.0/20", "via", "10.77.0.90"]);
    let artifacts = Arc::new(Artifacts::new());
    artifacts.add_bytes("loader.efi", pattern(LOADER)).unwrap();
    let kernel = artifacts.add_bytes("vmlinuz", pattern(KERNEL)).unwrap();
    let path = format!("/boot/v1/files/{}/vmlinuz", kernel.digest());
    let (_, common) = Sink::new();
    let leases = Arc::new(Leases::default());
    let services = net.inside("server", || {
        let tftp = TftpConfig {
            listen: vec!["0.0.0.0:69".parse().unwrap()],
            artifacts: artifacts.clone(),
            names: vec!["loader.efi".into()],
            limits: tftp,
        };
        let http = HttpConfig {
            listen: vec!["0.0.0.0:80".parse().unwrap()],
            artifacts: artifacts.clone(),
            desk: Arc::new(Desk::default()),
            limits: http,
        };
        (
            dhcp::start(dhcp_config(), leases.clone(), common.clone()).unwrap(),
            tftp::start(tftp, common.clone()).unwrap(),
            http::start(http, common.clone()).unwrap(),
        )
    });
    let nodes = net.inside("client", || power_on(&path));
    tell(&nodes);
    let own: BTreeSet<Ipv4Addr> = nodes.iter().map(|node| node.own).collect();
    assert_eq!(own.len(), NODES as usize, "two machines were given one address");
    assert_eq!(leases.committed.lock().unwrap().len(), NODES as usize);
    // Every place is free again.
    wait_until("no place is taken", || {
        let metrics = &common.metrics;
        metrics.tftp_transfers.get() == 0 && metrics.http_connections.get() == 0 && metrics.tftp_waiting.get() == 0
    });
    println!(
        "TFTP was full {} times, boot HTTP {} times",
        common.metrics.tftp_refused.get(),
        common.metrics.http_full.get()
    );
    drop(services);
}

fn tell(nodes: &[Booted]) {
    let share = |what: &str, part: fn(&Booted) -> Duration| {
        let mut all: Vec<Duration> = nodes.iter().map(part).collect();
        all.sort_unstable();
        let [median, late, last] = [50, 99, 100].map(|part| all[(all.len() * part / 100).min(all.len() - 1)]);
        println!("{what}: median {median:.1?}, 99 % {late:.1?}, last {last:.1?}");
        last
    };
    println!("{} machines switched on within a second", nodes.len());
    share("an address", |node| node.address);
    share("the loader", |node| node.loader);
    let last = share("all it boots", |node| node.all);
    println!(
        "{} packets sent again",
        nodes.iter().map(|node| node.again).sum::<u32>()
    );
    assert!(last < DEADLINE, "the last machine took {last:?}");
}

fn dhcp_config() -> DhcpConfig {
    let pool = Range {
        first: [10, 77, 16, 0].into(),
        last: [10, 77, 31, 254].into(),
    };
    let network = Network {
        mode: Mode::Own,
        ..Network::new("rack", None, SERVER, 16, pool)
    };
    DhcpConfig {
        interfaces: vec!["rack0".into()],
        engine: Config {
            networks: vec![network],
            ..Config::default()
        },
    }
}

fn power_on(path: &str) -> Vec<Booted> {
    let relay = Relay::start();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let start = |number: u32| {
            let relay = &relay;
            let one = move || {
                // The rack's power sequence: evenly over one second.
                let on = began + Duration::from_secs(1) * number / NODES;
                std::thread::sleep(on.saturating_duration_since(Instant::now()));
                boot(relay, number, path)
            };
            let thread = std::thread::Builder::new().stack_size(256 << 10);
            thread.spawn_scoped(scope, one).unwrap()
        };
        let threads: Vec<_> = (0..NODES).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn boot(relay: &Relay, number: u32, path: &str) -> Booted {
    let began = Instant::now();
    let mut again = 0;
    let heard = relay.listen(number);
    let (_, offered, server) = relay.ask(&request(number, None), &heard, 2, &mut again);
    let (_, given, _) = relay.ask(&request(number, Some((offered, server))), &heard, 5, &mut again);
    assert_eq!(given, offered, "machine {number} was acknowledged another address");
    let (own, address) = (Ipv4Addr::from(given), began.elapsed());
    assert!(
        fetch_loader(own, &mut again) == pattern(LOADER),
        "machine {number} has another loader"
    );
    let loader = began.elapsed();
    let mut stream = connect(own);
    let mut get = |target: &str| {
        get(&mut stream, target).unwrap_or_else(|_| {
            // A kept place was given to one who waited; what was asked meanwhile is asked anew (RFC 9112 section 9.3.1).
            stream = connect(own);
            get(&mut stream, target).unwrap()
        })
    };
    let mac = format!("52-00-{:02x}-{:02x}-{:02x}-{:02x}", 0, 0, number >> 8, number & 0xff);
    let script = get(&format!("/boot/v1/script.ipxe?mac={mac}"));
    let script = String::from_utf8(script).unwrap();
    assert!(script.contains(&own.to_string()), "machine {number} at {own}: {script}");
    assert!(get(path) == pattern(KERNEL), "machine {number} has another kernel");
    Booted {
        own,
        address,
        loader,
        all: began.elapsed(),
        again,
    }
}

/// A relayed DISCOVER, or the REQUEST for `chosen` (address and server), as PXE firmware asks (RFC 2131, RFC 4578).
fn request(id: u32, chosen: Option<([u8; 4], [u8; 4])>) -> Vec<u8> {
    let mut packet = vec![0; 240];
    packet[..4].copy_from_slice(&[1, 1, 6, 1]);
    packet[4..8].copy_from_slice(&id.to_be_bytes());
    packet[24..28].copy_from_slice(&RELAY.octets());
    packet[28] = 0x52;
    packet[30..34].copy_from_slice(&id.to_be_bytes());
    packet[236..240].copy_from_slice(&[99, 130, 83, 99]);
    packet.extend_from_slice(&[53, 1, if chosen.is_some() { 3 } else { 1 }]);
    if let Some((address, server)) = chosen {
        packet.extend([&[50, 4][..], &address, &[54, 4], &server].concat());
    }
    packet.extend_from_slice(&[55, 7, 1, 3, 6, 51, 54, 66, 67, 93, 2, 0, 7, 57, 2, 5, 192]);
    packet.extend_from_slice(b"\x3c\x20PXEClient:Arch:00007:UNDI:003016\xff");
    packet
}

/// Message type, address given and server.
type Answer = (u8, [u8; 4], [u8; 4]);

/// Transaction and answer of a reply.
fn reply(packet: &[u8]) -> Option<(u32, Answer)> {
    let id = u32::from_be_bytes(packet.get(4..8)?.try_into().ok()?);
    let address = packet.get(16..20)?.try_into().ok()?;
    let (mut kind, mut server) = (0, [0; 4]);
    let mut rest = packet.get(240..)?;
    while let [code, length, tail @ ..] = rest {
        let value = tail.get(..usize::from(*length))?;
        match code {
            53 => kind = *value.first()?,
            54 => server = value.try_into().ok()?,
            _ => {}
        }
        rest = tail.get(usize::from(*length)..)?;
    }
    Some((id, (kind, address, server)))
}

struct Relay {
    socket: UdpSocket,
    waiting: Arc<Mutex<HashMap<u32, Sender<Answer>>>>,
}

impl Relay {
    fn start() -> Self {
        let socket = UdpSocket::bind((RELAY, 67)).unwrap();
        socket.connect((SERVER, 67)).unwrap();
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(16 << 20)).unwrap();
        let waiting: Arc<Mutex<HashMap<u32, Sender<Answer>>>> = Arc::default();
        let (hears, to) = (socket.try_clone().unwrap(), waiting.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok(count) = hears.recv(&mut buffer) {
                if let Some((id, answer)) = reply(&buffer[..count]) {
                    let to = to.lock().unwrap();
                    // Who has what it wanted hears no more.
                    let _ = to.get(&id).map(|to| to.send(answer));
                }
            }
        });
        Self { socket, waiting }
    }

    fn listen(&self, id: u32) -> Receiver<Answer> {
        let (send, receive) = channel();
        self.waiting.lock().unwrap().insert(id, send);
        receive
    }

    fn ask(&self, packet: &[u8], heard: &Receiver<Answer>, wanted: u8, again: &mut u32) -> Answer {
        for attempt in 0..TRIES {
            *again += u32::from(attempt > 0);
            // What is lost is sent again.
            let _ = self.socket.send(packet);
            let until = Instant::now() + FIRST_WAIT * (1 << attempt);
            while let Ok(answer) = heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
                if answer.0 == wanted {
                    return answer;
                }
            }
        }
        panic!("no answer of type {wanted} to {TRIES} DHCP packets");
    }
}

/// The loader by TFTP, as UEFI firmware asks for it.
fn fetch_loader(own: Ipv4Addr, again: &mut u32) -> Vec<u8> {
    let socket = UdpSocket::bind(SocketAddrV4::new(own, 0)).unwrap();
    let mut say = b"\0\x01loader.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0".to_vec();
    let (mut buffer, mut attempt) = ([0; 2048], 0);
    let mut peer = SocketAddr::from((SERVER, 69));
    let (mut block, mut file) = (0_u16, Vec::new());
    socket.send_to(&say, peer).unwrap();
    loop {
        socket.set_read_timeout(Some(FIRST_WAIT * (1 << attempt))).unwrap();
        let Ok((count, from)) = socket.recv_from(&mut buffer) else {
            attempt += 1;
            *again += 1;
            assert!(attempt < TRIES, "no answer after block {block}");
            socket.send_to(&say, peer).unwrap();
            continue;
        };
        attempt = 0;
        let last = match buffer[..count] {
            // The options that were agreed on.
            [0, 6, ..] => false,
            [0, 3, high, low, ref data @ ..] if u16::from_be_bytes([high, low]) == block + 1 => {
                block += 1;
                file.extend_from_slice(data);
                data.len() < 1468
            }
            // Of an older window.
            [0, 3, ..] => continue,
            ref other => panic!("{other:?} in place of data"),
        };
        if block.is_multiple_of(4) || last {
            peer = from;
            let [high, low] = block.to_be_bytes();
            say = vec![0, 4, high, low];
            socket.send_to(&say, peer).unwrap();
        }
        if last {
            return file;
        }
    }
}

fn connect(own: Ipv4Addr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((own, 0)).into()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.connect(&SocketAddr::from((SERVER, 80)).into()).unwrap();
    socket.into()
}

/// The body of an answer; the connection stays. An error is that it was closed before any of the answer came.
fn get(stream: &mut TcpStream, target: &str) -> std::io::Result<Vec<u8>> {
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {SERVER}\r\n\r\n")?;
    let (mut got, mut buffer) = (Vec::new(), [0; 16 << 10]);
    let count = stream.read(&mut buffer)?;
    if count == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    got.extend_from_slice(&buffer[..count]);
    let mut take = |got: &mut Vec<u8>| {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the server closed the connection in its answer");
        got.extend_from_slice(&buffer[..count]);
    };
    let end = loop {
        if let Some(end) = got.windows(4).position(|part| part == b"\r\n\r\n") {
            break end + 4;
        }
        take(&mut got);
    };
    let head = String::from_utf8_lossy(&got[..end]).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{target}: {head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.unwrap().trim().parse().unwrap();
    while got.len() < end + length {
        take(&mut got);
    }
    Ok(got.split_off(end))
}

#[test]
fn five_hundred_machines_switched_on_in_a_second_all_get_through() {
    switch_on(HttpLimits::default(), TftpLimits::default());
}

#[test]
fn five_hundred_machines_all_get_through_where_few_may_fetch_at_a_time() {
    let http = HttpLimits {
        connections: 24,
        ..HttpLimits::default()
    };
    let tftp = TftpLimits {
        transfers: 24,
        ..TftpLimits::default()
    };
    switch_on(http, tftp);
}
