//! Boot control for a rack: 500 machines switched on within one second, each with an address of its own, against DHCP, TFTP
//! and boot HTTP in one process, with the limits that the appliance has. Every packet is a real one: DHCP through a relay,
//! the loader by TFTP with firmware's window of 4, then manifest, kernel and initial RAM file system by HTTP.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, Socket, Type};

use crate::client::{download, small};
use crate::dhcp::{reply, request};
use crate::net::Net;
use crate::peers::Start;
use crate::process::Server;
use crate::report::{OURS, Row};

/// Machines of the rack.
const NODES: u32 = 500;

/// What a machine boots, of the sizes that the image has: name and octets.
pub(crate) const FILES: [(&str, usize); 3] = [
    ("loader.efi", 205_312),
    ("vmlinuz", 8_247_232),
    ("base.cpio.zst", 12_868_494),
];

/// A firmware's first wait for an answer; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Tries of a firmware before it gives up.
const TRIES: u32 = 6;

/// How one machine fared, from its power-on.
struct Booted {
    address: Duration,
    loader: Duration,
    all: Duration,
    /// Packets sent again for want of an answer.
    again: u32,
}

pub(crate) fn measure(net: &Net) -> Result<Vec<Row>> {
    write_files(net)?;
    routes(net)?;
    let start = Start::ours(net, "boot", "10.88.0.1:80")?;
    let server = Server::start(start.command, || net.load(|| Ok(TcpStream::connect(start.at)?)).is_ok())?;
    let (idle, before, began) = (server.memory_mib(), server.cpu(), Instant::now());
    let paths = paths(net)?;
    let nodes = net.load(|| power_on(&paths))?;
    let time = began.elapsed().as_secs_f64();
    let cpu = server.cpu().saturating_sub(before).as_secs_f64();
    let good: Vec<&Booted> = nodes.iter().filter_map(|node| node.as_ref().ok()).collect();
    if let Some(error) = nodes.iter().find_map(|node| node.as_ref().err()) {
        eprintln!("bench: a machine did not get through: {error:#}");
    }
    let share = |part: fn(&Booted) -> Duration, hundredths: usize| {
        let mut all: Vec<f64> = good.iter().map(|node| part(node).as_secs_f64()).collect();
        all.sort_by(f64::total_cmp);
        let at = all.len().saturating_sub(1) * hundredths / 100;
        all.get(at).copied().unwrap_or(f64::NAN)
    };
    let what = |what: &str| format!("{NODES} machines in a second: {what}");
    let total: usize = FILES.iter().map(|(_, size)| size).sum();
    let gib = total as f64 * good.len() as f64 / f64::from(1 << 30);
    let again: u32 = good.iter().map(|node| node.again).sum();
    Ok(vec![
        Row::more(what("got through"), OURS, good.len() as f64, ""),
        Row::less(what("last has all it boots"), OURS, time, "s"),
        Row::less(
            what("address, median"),
            OURS,
            share(|node| node.address, 50) * 1e3,
            "ms",
        ),
        Row::less(what("address, 99 %"), OURS, share(|node| node.address, 99) * 1e3, "ms"),
        Row::less(what("loader, 99 %"), OURS, share(|node| node.loader, 99) * 1e3, "ms"),
        Row::less(what("all it boots, median"), OURS, share(|node| node.all, 50), "s"),
        Row::less(what("packets sent again"), OURS, f64::from(again), ""),
        Row::more(what("rate"), OURS, gib / time, "GiB/s"),
        Row::less(
            what("processor time per machine"),
            OURS,
            cpu * 1e3 / f64::from(NODES),
            "ms",
        ),
        Row::less(what("memory idle"), OURS, idle, "MiB"),
        Row::less(what("memory after the load"), OURS, server.memory_mib(), "MiB"),
    ])
}

fn write_files(net: &Net) -> Result<()> {
    let folder = net.path("files");
    std::fs::create_dir_all(&folder)?;
    for (name, size) in FILES {
        let content: Vec<u8> = (0..u32::try_from(size)?)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        std::fs::write(folder.join(name), content)?;
    }
    Ok(())
}

/// Every address of the pool is the clients' own.
fn routes(net: &Net) -> Result<()> {
    let pool = ["10.88.16.0/20", "10.88.32.0/19", "10.88.64.0/18", "10.88.128.0/17"];
    let run = |mut command: Command, words: &str| {
        let output = command.args(words.split(' ')).output().context("running ip")?;
        ensure!(
            output.status.success(),
            "ip {words}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    };
    run(net.client_command("ip"), "link set lo up")?;
    pool.iter().try_for_each(|part| {
        run(net.client_command("ip"), &format!("route add local {part} dev lo"))?;
        run(net.server_command("ip"), &format!("route add {part} via 10.88.0.2"))
    })
}

/// Where kernel and initial RAM file system are, with their sizes.
fn paths(net: &Net) -> Result<Vec<(String, u64)>> {
    let artifacts = rackbar_artifacts::Artifacts::new();
    let large = FILES.iter().skip(1);
    large
        .map(|(name, size)| {
            let file = artifacts.add_file(name, &net.path("files").join(name))?;
            Ok((format!("/boot/v1/files/{}/{name}", file.digest()), *size as u64))
        })
        .collect()
}

fn power_on(paths: &[(String, u64)]) -> Result<Vec<Result<Booted>>> {
    let relay = Relay::start()?;
    let began = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..NODES)
            .map(|number| {
                let relay = &relay;
                let one = move || {
                    let on = began + Duration::from_secs(1) * number / NODES;
                    std::thread::sleep(on.saturating_duration_since(Instant::now()));
                    boot(relay, number, paths).with_context(|| format!("machine {number}"))
                };
                std::thread::Builder::new().stack_size(1 << 20).spawn_scoped(scope, one)
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread?.join().map_err(|_| anyhow::anyhow!("a machine panicked")))
            .collect()
    })
}

fn boot(relay: &Relay, number: u32, paths: &[(String, u64)]) -> Result<Booted> {
    let began = Instant::now();
    let mut again = 0;
    let heard = relay.listen(number);
    let (_, offered, server) = relay.ask(&request(number, 4, None), &heard, 2, &mut again)?;
    let chosen = request(number, 4, Some((offered, server)));
    let (_, given, _) = relay.ask(&chosen, &heard, 5, &mut again)?;
    let (own, address) = (Ipv4Addr::from(given), began.elapsed());
    let size = fetch_loader(own, &mut again).context("TFTP")?;
    let (_, expected) = FILES[0];
    ensure!(size == expected, "a loader of {size} octets instead of {expected}");
    let loader = began.elapsed();
    let mut stream = connect(own)?;
    let nonce = "00".repeat(16);
    let manifest = format!("/boot/v1/manifest?mac=52-04-00-00-00-01&nonce={nonce}");
    small(&mut stream, &manifest).context("the manifest")?;
    for (path, size) in paths {
        download(&mut stream, path, *size).context("HTTP")?;
    }
    Ok(Booted {
        address,
        loader,
        all: began.elapsed(),
        again,
    })
}

fn connect(own: Ipv4Addr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((own, 0)).into())?;
    socket.connect(&SocketAddr::from(([10, 88, 0, 1], 80)).into())?;
    Ok(socket.into())
}

/// Message type, address given and server.
type Answer = (u8, [u8; 4], [u8; 4]);

/// The relay that all are behind.
struct Relay {
    socket: UdpSocket,
    waiting: Arc<Mutex<HashMap<u32, Sender<Answer>>>>,
}

impl Relay {
    fn start() -> Result<Self> {
        let socket = UdpSocket::bind("10.88.0.2:67").context("the relay's port")?;
        socket.connect("10.88.0.1:67")?;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(16 << 20))?;
        let waiting: Arc<Mutex<HashMap<u32, Sender<Answer>>>> = Arc::default();
        let (hears, to) = (socket.try_clone()?, waiting.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok(count) = hears.recv(&mut buffer) {
                let Some((id, kind, address, server)) = reply(buffer.get(..count).unwrap_or_default()) else {
                    continue;
                };
                let to = to.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = to.get(&id).map(|to| to.send((kind, address, server)));
            }
        });
        Ok(Self { socket, waiting })
    }

    fn listen(&self, id: u32) -> Receiver<Answer> {
        let (send, receive) = channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(id, send);
        receive
    }

    fn ask(&self, packet: &[u8], heard: &Receiver<Answer>, wanted: u8, again: &mut u32) -> Result<Answer> {
        for attempt in 0..TRIES {
            *again += u32::from(attempt > 0);
            // What is lost is sent again.
            let _ = self.socket.send(packet);
            let until = Instant::now() + FIRST_WAIT * (1 << attempt);
            while let Ok(answer) = heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
                if answer.0 == wanted {
                    return Ok(answer);
                }
            }
        }
        bail!("no answer of type {wanted} to {TRIES} DHCP packets")
    }
}

/// The loader by TFTP, as UEFI firmware asks for it; gives its size.
fn fetch_loader(own: Ipv4Addr, again: &mut u32) -> Result<usize> {
    let socket = UdpSocket::bind(SocketAddrV4::new(own, 0))?;
    let ask = b"\0\x01loader.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0";
    let port = SocketAddrV4::new(Ipv4Addr::new(10, 88, 0, 1), 69);
    let (mut buffer, mut attempt) = ([0; 2048], 0);
    let (mut peer, mut say) = (SocketAddr::from(port), ask.to_vec());
    let (mut block, mut size) = (0_u16, 0);
    socket.send_to(&say, peer)?;
    loop {
        socket.set_read_timeout(Some(FIRST_WAIT * (1 << attempt)))?;
        let Ok((count, from)) = socket.recv_from(&mut buffer) else {
            attempt += 1;
            *again += 1;
            ensure!(attempt < TRIES, "no answer after block {block}");
            socket.send_to(&say, peer)?;
            continue;
        };
        let packet = buffer.get(..count).unwrap_or_default();
        attempt = 0;
        let (acknowledged, last) = match *packet {
            // The options that were agreed on.
            [0, 6, ..] => (0, false),
            [0, 3, high, low, ref data @ ..] if u16::from_be_bytes([high, low]) == block.wrapping_add(1) => {
                block = block.wrapping_add(1);
                size += data.len();
                (block, data.len() < 1468)
            }
            // Of an older window.
            [0, 3, ..] => continue,
            _ => bail!("{:?} in place of data", packet.get(..count.min(40))),
        };
        if acknowledged % 4 == 0 || last {
            peer = from;
            let [high, low] = acknowledged.to_be_bytes();
            say = vec![0, 4, high, low];
            socket.send_to(&say, peer)?;
        }
        if last {
            return Ok(size);
        }
    }
}
