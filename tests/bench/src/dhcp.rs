//! DHCP: relayed DISCOVER-OFFER-REQUEST-ACK, each exchange from a new client, a fixed number in flight.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::net::Net;
use crate::process::Server;
use crate::report::{OURS, Row};

const IN_FLIGHT: usize = 64;
const RESEND: Duration = Duration::from_secs(1);

pub(crate) fn measure(net: &Net, seconds: u64) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    rows.extend(one(net, seconds, OURS, || {
        let mut command = net.server_command(&std::env::current_exe()?.to_string_lossy());
        command.args(["--serve", "dhcp"]).arg(net.folder());
        Ok(command)
    })?);
    if crate::tftp::installed("dnsmasq") {
        rows.extend(one(net, seconds, "dnsmasq", || {
            let mut command = net.server_command("dnsmasq");
            command.args([
                "--no-daemon",
                "--port=0",
                "--conf-file=/dev/null",
                "--no-ping",
                "--dhcp-authoritative",
            ]);
            command.args([
                "--user=root",
                "--dhcp-range=10.88.16.0,10.88.255.254,255.255.0.0,1h",
                "--quiet-dhcp",
            ]);
            command.arg("--dhcp-lease-max=100000");
            command.arg(format!("--dhcp-leasefile={}", net.path("dnsmasq.leases").display()));
            Ok(command)
        })?);
    }
    Ok(rows)
}

fn one(net: &Net, seconds: u64, name: &str, command: impl Fn() -> Result<std::process::Command>) -> Result<Vec<Row>> {
    let answers = || {
        net.load(|| Ok(run(1, Some(1), Duration::from_millis(300), 0xff)?.done == 1))
            .unwrap_or(false)
    };
    let server = Server::start(command()?, answers)?;
    let idle = server.memory_kib();
    let before = server.cpu();
    let rate = net.load(|| run(IN_FLIGHT, None, Duration::from_secs(seconds), 1))?;
    let cpu = server.cpu().saturating_sub(before);
    let memory = server.memory_kib();
    drop(server);
    let server = Server::start(command()?, answers)?;
    let burst = net.load(|| run(1000, Some(1000), Duration::from_secs(30), 2))?;
    drop(server);
    let each = |total: f64| total / (rate.done.max(1) as f64);
    Ok(vec![
        Row::more(
            "DHCP four-way exchanges, 64 in flight",
            name,
            rate.done as f64 / rate.time.as_secs_f64(),
            "1/s",
        ),
        Row::less(
            "DHCP processor time per exchange",
            name,
            each(cpu.as_secs_f64() * 1e6),
            "us",
        ),
        Row::less(
            "DHCP 1000 clients at once, all served",
            name,
            burst.time.as_secs_f64() * 1e3,
            "ms",
        ),
        Row::less(
            "DHCP 1000 clients at once, packets sent again",
            name,
            burst.resent as f64,
            "",
        ),
        Row::less("DHCP memory idle", name, idle as f64 / 1024.0, "MiB"),
        Row::less("DHCP memory after the load", name, memory as f64 / 1024.0, "MiB"),
    ])
}

struct Outcome {
    done: u64,
    resent: u64,
    time: Duration,
}

struct Client {
    sent: Instant,
    packet: Vec<u8>,
}

/// Keeps `in_flight` clients busy until `total` are done or `limit` is over. `round` makes the hardware addresses
/// differ between runs.
fn run(in_flight: usize, total: Option<u64>, limit: Duration, round: u8) -> Result<Outcome> {
    let socket = UdpSocket::bind("10.88.0.2:67").context("the relay's port")?;
    socket.connect("10.88.0.1:67")?;
    let size = 16 << 20;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &size)?;
    let began = Instant::now();
    let mut clients: HashMap<u32, Client> = HashMap::new();
    let (mut next, mut done, mut resent) = (0u32, 0u64, 0u64);
    let mut buffer = [0; 2048];
    let mut checked = began;
    let more = |next: u32| total.is_none_or(|total| u64::from(next) < total);
    loop {
        while clients.len() < in_flight && more(next) {
            let packet = request(next, round, None);
            // A refused send (port not open yet) is sent again like a lost one.
            let _ = socket.send(&packet);
            clients.insert(
                next,
                Client {
                    sent: Instant::now(),
                    packet,
                },
            );
            next += 1;
        }
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        match socket.recv(&mut buffer) {
            Ok(count) => {
                if let Some((id, kind, address, server)) = reply(buffer.get(..count).unwrap_or_default())
                    && let Some(client) = clients.get_mut(&id)
                {
                    if kind == 2 && client.packet.get(242) == Some(&1) {
                        client.packet = request(id, round, Some((address, server)));
                        client.sent = Instant::now();
                        let _ = socket.send(&client.packet);
                    } else if kind == 5 {
                        clients.remove(&id);
                        done += 1;
                    }
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => {}
            Err(error) => return Err(error.into()),
        }
        let now = Instant::now();
        if now - began >= limit || total.is_some_and(|total| done >= total) {
            return Ok(Outcome {
                done,
                resent,
                time: now - began,
            });
        }
        if now - checked > Duration::from_millis(50) {
            checked = now;
            for client in clients.values_mut().filter(|client| now - client.sent > RESEND) {
                let _ = socket.send(&client.packet);
                client.sent = now;
                resent += 1;
            }
        }
    }
}

/// A relayed DISCOVER, or the REQUEST for `chosen` (address and server), as PXE firmware asks.
pub(crate) fn request(id: u32, round: u8, chosen: Option<([u8; 4], [u8; 4])>) -> Vec<u8> {
    let mut packet = vec![0; 240];
    packet[..4].copy_from_slice(&[1, 1, 6, 1]);
    packet[4..8].copy_from_slice(&id.to_be_bytes());
    packet[24..28].copy_from_slice(&[10, 88, 0, 2]);
    packet[28..30].copy_from_slice(&[0x52, round]);
    packet[30..34].copy_from_slice(&id.to_be_bytes());
    packet[236..240].copy_from_slice(&[99, 130, 83, 99]);
    packet.extend_from_slice(&[53, 1, if chosen.is_some() { 3 } else { 1 }]);
    if let Some((address, server)) = chosen {
        packet.extend_from_slice(&[50, 4]);
        packet.extend_from_slice(&address);
        packet.extend_from_slice(&[54, 4]);
        packet.extend_from_slice(&server);
    }
    packet.extend_from_slice(&[55, 7, 1, 3, 6, 51, 54, 66, 67, 93, 2, 0, 7, 57, 2, 5, 192]);
    packet.extend_from_slice(b"\x3c\x20PXEClient:Arch:00007:UNDI:003016\xff");
    packet
}

/// Transaction, message type, address given and server of a reply.
pub(crate) fn reply(packet: &[u8]) -> Option<(u32, u8, [u8; 4], [u8; 4])> {
    let id = u32::from_be_bytes(packet.get(4..8)?.try_into().ok()?);
    let address = packet.get(16..20)?.try_into().ok()?;
    let (mut kind, mut server) = (0, [0; 4]);
    let mut rest = packet.get(240..)?;
    while let [code, tail @ ..] = rest {
        match code {
            0 => rest = tail,
            255 => break,
            _ => {
                let (&length, tail) = tail.split_first()?;
                let value = tail.get(..usize::from(length))?;
                match code {
                    53 => kind = *value.first()?,
                    54 => server = value.try_into().ok()?,
                    _ => {}
                }
                rest = tail.get(usize::from(length)..)?;
            }
        }
    }
    Some((id, kind, address, server))
}
