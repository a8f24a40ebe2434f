//! The switch and its hosts, without a virtual machine: what a network engineer would check first.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::{Duration, Instant};

use rackbar_model::MacAddr;
use rackbar_vrack::host::{Host, HostConfig, Ipv4, relay};
use rackbar_vrack::switch::{CaptureFile, Fault, Port, PortConfig, Switch, SwitchConfig, Tags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(10);
const BROADCAST: [u8; 6] = [0xff; 6];

fn switch() -> Switch {
    // No LLDP on its own within a test's time: frames seen are frames sent.
    Switch::new(SwitchConfig {
        lldp_interval: Duration::from_secs(3600),
        ..SwitchConfig::default()
    })
}

fn mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, last]
}

fn frame(to: [u8; 6], from: [u8; 6], payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &[0x88, 0xb5], payload].concat()
}

fn tagged(to: [u8; 6], from: [u8; 6], vlan: u16, payload: &[u8]) -> Vec<u8> {
    [
        &to[..],
        &from,
        &[0x81, 0x00],
        &vlan.to_be_bytes(),
        &[0x88, 0xb5],
        payload,
    ]
    .concat()
}

/// The next frame that is not the switch's own LLDP.
async fn next(port: &Port) -> Vec<u8> {
    timeout(DEADLINE, async {
        loop {
            let frame = port.receive().await;
            if frame[12..14] != [0x88, 0xcc] {
                return frame;
            }
        }
    })
    .await
    .expect("no frame arrived")
}

/// Nothing but LLDP has arrived. Forwarding is synchronous, so no waiting is needed to know.
fn silent(port: &Port) -> bool {
    std::iter::from_fn(|| port.try_receive()).all(|frame| frame[12..14] == [0x88, 0xcc])
}

fn host(switch: &Switch, last: u8, vlan: u16) -> Host {
    let port = switch.port(PortConfig::access(format!("Ethernet1/{last}"), "host", vlan));
    Host::new(
        port,
        HostConfig::new(MacAddr(mac(last)), Ipv4::fixed(Ipv4Addr::new(10, 0, 0, last), 24)),
    )
}

async fn echo(host: &Host, port: u16) {
    let mut listener = host.listen(port, 4).unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                return;
            };
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(count) => stream.write_all(&buffer[..count]).await.unwrap(),
                    }
                }
            });
        }
    });
}

#[tokio::test]
async fn vlans_do_not_hear_each_other() {
    let switch = switch();
    let a = switch.port(PortConfig::access("1", "", 10));
    let b = switch.port(PortConfig::access("2", "", 10));
    let other = switch.port(PortConfig::access("3", "", 20));
    let trunk = switch.port(PortConfig::trunk("4", "", Some(99), [10, 20]));
    a.send(&frame(BROADCAST, mac(1), b"hello"));
    assert_eq!(next(&b).await, frame(BROADCAST, mac(1), b"hello"));
    assert_eq!(next(&trunk).await, tagged(BROADCAST, mac(1), 10, b"hello"));
    assert!(silent(&other), "VLAN 20 heard VLAN 10");
    // Back through the trunk, into the VLAN the tag names only.
    trunk.send(&tagged(mac(3), mac(4), 20, b"to 20"));
    assert_eq!(next(&other).await, frame(mac(3), mac(4), b"to 20"));
    assert!(silent(&a) && silent(&b));
    // A tag the trunk does not carry, and a tag on an access port: dropped and counted.
    trunk.send(&tagged(BROADCAST, mac(4), 30, b"x"));
    a.send(&tagged(BROADCAST, mac(1), 20, b"hop"));
    assert!(silent(&other) && silent(&b));
    assert_eq!(
        (switch.counters(trunk.id()).discarded, switch.counters(a.id()).discarded),
        (1, 1)
    );
}

#[tokio::test]
async fn a_learned_address_is_not_flooded_and_moves() {
    let switch = switch();
    let ports = [1, 2, 3].map(|n| switch.port(PortConfig::access(n.to_string(), "", 10)));
    ports[0].send(&frame(BROADCAST, mac(1), b"here"));
    for port in &ports[1..] {
        next(port).await;
    }
    ports[1].send(&frame(mac(1), mac(2), b"private"));
    assert_eq!(next(&ports[0]).await, frame(mac(1), mac(2), b"private"));
    assert!(silent(&ports[2]));
    assert_eq!(switch.locate(10, MacAddr(mac(2))), Some(ports[1].id()));
    // Moving a port to another VLAN forgets what was learned on it.
    switch.reconfigure(ports[1].id(), PortConfig::access("2", "", 20));
    assert_eq!(switch.locate(10, MacAddr(mac(2))), None);
}

#[tokio::test]
async fn lldp_comes_at_once_and_says_where_the_cable_goes() {
    let switch = switch();
    let port = switch.port(PortConfig::access("Ethernet1/7", "node n7 eth0", 10));
    let other = switch.port(PortConfig::access("Ethernet1/8", "", 10));
    let frame = timeout(DEADLINE, port.receive()).await.expect("no LLDP");
    assert_eq!(frame[..6], [0x01, 0x80, 0xc2, 0, 0, 0x0e]);
    let text = String::from_utf8_lossy(&frame).into_owned();
    for part in ["Ethernet1/7", "node n7 eth0", "rack-switch"] {
        assert!(text.contains(part), "{part} is missing");
    }
    // PVID TLV: organisation 00-80-C2, subtype 1, VLAN 10.
    assert!(frame.windows(6).any(|bytes| bytes == [0x00, 0x80, 0xc2, 0x01, 0, 10]));
    // A neighbour that speaks is answered at once, and its frame goes no further.
    while other.try_receive().is_some() {}
    let mut speech = frame.clone();
    speech[6..12].copy_from_slice(&mac(7));
    port.send(&speech);
    assert_eq!(
        timeout(DEADLINE, port.receive()).await.expect("no answer")[..6],
        frame[..6]
    );
    let leaked = std::iter::from_fn(|| other.try_receive()).any(|got| got[6..12] == mac(7));
    assert!(!leaked, "a bridge must not forward LLDP");
}

#[tokio::test]
async fn faults_hold_lose_and_cut() {
    let switch = switch();
    let a = switch.port(PortConfig::access("1", "", 10));
    let b = switch.port(PortConfig::access("2", "", 10));
    switch.set_fault(b.id(), Fault::delay(Duration::from_millis(50)));
    let start = Instant::now();
    a.send(&frame(BROADCAST, mac(1), b"late"));
    next(&b).await;
    assert!(start.elapsed() >= Duration::from_millis(50));
    switch.set_fault(b.id(), Fault::loss(0.5, 1));
    for _ in 0..1000 {
        a.send(&frame(BROADCAST, mac(1), b"maybe"));
    }
    let arrived = std::iter::from_fn(|| b.try_receive()).count();
    assert!((400..600).contains(&arrived), "{arrived} of 1000");
    switch.set_fault(b.id(), Fault::cut());
    assert!(!switch.is_up(b.id()));
    a.send(&frame(BROADCAST, mac(1), b"never"));
    assert!(silent(&b));
    switch.set_fault(b.id(), Fault::default());
    a.send(&frame(BROADCAST, mac(1), b"again"));
    assert_eq!(next(&b).await, frame(BROADCAST, mac(1), b"again"));
}

/// What a host gets of a text that another gives on this port.
async fn fetched(server: &Host, client: &Host, port: u16, text: &'static [u8]) -> Vec<u8> {
    let mut listener = server.listen(port, 4).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(text).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let mut stream = client
        .connect(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), port))
        .await
        .unwrap();
    let mut got = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut got)).await.unwrap().unwrap();
    got
}

#[tokio::test]
async fn one_bit_from_a_web_server_is_another_and_tcp_does_not_notice() {
    let text = vec![0x55; 100_000].leak();
    let switch = switch();
    let (server, client) = (host(&switch, 1, 10), host(&switch, 2, 10));
    switch.set_fault(client.port(), Fault::flips_after(50_000));
    assert_eq!(fetched(&server, &client, 8080, text).await, text, "another port's");
    let got = fetched(&server, &client, 80, text).await;
    let other: Vec<usize> = (0..text.len()).filter(|at| got.get(*at) != text.get(*at)).collect();
    assert_eq!((got.len(), other), (text.len(), vec![50_000]));
    assert_eq!(got[50_000], 0x54);
    let counters = switch.counters(client.port());
    assert_eq!(
        (counters.garbled, counters.lost),
        (1, 0),
        "once, and nothing was sent again"
    );
}

#[tokio::test]
async fn hosts_talk_tcp_and_udp_and_the_relay_reaches_them() -> io::Result<()> {
    let switch = switch();
    let (server, client, stranger) = (host(&switch, 1, 10), host(&switch, 2, 10), host(&switch, 3, 20));
    echo(&server, 7).await;
    let target = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 7);
    let mut stream = client.connect(target).await?;
    stream.write_all(b"ping").await?;
    let mut answer = [0; 4];
    timeout(DEADLINE, stream.read_exact(&mut answer)).await??;
    assert_eq!(&answer, b"ping");
    stream.shutdown().await?;
    assert_eq!(
        timeout(DEADLINE, stream.read(&mut answer)).await??,
        0,
        "the echo server says goodbye too"
    );
    // A closed port refuses, another VLAN never answers.
    let closed = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 8);
    assert_eq!(
        client.connect(closed).await.err().map(|e| e.kind()),
        Some(io::ErrorKind::ConnectionRefused)
    );
    assert!(
        timeout(Duration::from_millis(300), stranger.connect(target))
            .await
            .is_err()
    );
    // From this machine, through the relay.
    let relay = relay(client.clone(), target, 0).await?;
    let mut outside = tokio::net::TcpStream::connect(relay.address()).await?;
    outside.write_all(b"hail").await?;
    timeout(DEADLINE, outside.read_exact(&mut answer)).await??;
    assert_eq!(&answer, b"hail");
    // UDP, by broadcast one way and unicast back.
    let (bell, ear) = (client.udp(5000)?, server.udp(6000)?);
    bell.send_to(b"who", SocketAddrV4::new(Ipv4Addr::BROADCAST, 6000))
        .await?;
    let mut buffer = [0; 64];
    let (count, from) = timeout(DEADLINE, ear.recv_from(&mut buffer)).await??;
    assert_eq!(
        (&buffer[..count], from.to_string().as_str()),
        (&b"who"[..], "10.0.0.2:5000")
    );
    assert_eq!(client.udp(5000).err().map(|e| e.kind()), Some(io::ErrorKind::AddrInUse));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_survives_a_lossy_link() -> io::Result<()> {
    const SIZE: usize = 1 << 20;
    let switch = switch();
    let (server, client) = (host(&switch, 1, 10), host(&switch, 2, 10));
    switch.set_fault(client.port(), Fault::loss(0.01, 42));
    let mut listener = server.listen(80, 1)?;
    let body: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    let sent = body.clone();
    let sender = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&sent).await.unwrap();
        stream.flush().await.unwrap();
    });
    let mut stream = client
        .connect(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 80))
        .await?;
    let mut got = Vec::new();
    timeout(Duration::from_secs(60), stream.read_to_end(&mut got))
        .await
        .expect("stalled")?;
    assert!(got == body, "{} of {SIZE} bytes, or others", got.len());
    sender.await?;
    assert!(switch.counters(client.port()).lost > 0, "the fault lost nothing");
    Ok(())
}

#[tokio::test]
async fn tcpdump_reads_a_capture_with_its_tags() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("all.pcapng");
    {
        let switch = switch();
        let file = CaptureFile::create(&path, Tags::Always).unwrap();
        switch.capture_all(&file);
        let a = switch.port(PortConfig::access("Ethernet1/1", "", 10));
        let b = switch.port(PortConfig::access("Ethernet1/2", "", 10));
        a.send(&frame(BROADCAST, mac(1), &[0; 46]));
        next(&b).await;
        switch.stop_capture(&file);
        drop(file);
    }
    let deadline = Instant::now() + DEADLINE;
    // The writer's thread closes the file after the last handle is gone.
    let text = loop {
        let read = Command::new("tcpdump").args(["-e", "-n", "-r"]).arg(&path).output();
        let read = read.expect("tcpdump: `cargo xtask setup test` installs it");
        let text = String::from_utf8_lossy(&read.stdout).into_owned();
        if text.matches("vlan 10").count() >= 2 {
            break text;
        }
        assert!(
            Instant::now() < deadline,
            "{text}{}",
            String::from_utf8_lossy(&read.stderr)
        );
        std::thread::yield_now();
    };
    assert!(text.contains("02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff"), "{text}");
}
