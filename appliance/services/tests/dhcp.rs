//! The DHCP service against Debian's clients and server, in network namespaces.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]

mod common;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::netns::Net;
use common::storm::{Storm, mutate, resident_kib};
use common::{Leases, Sink, wait_until};
use rackbar_dhcp::{Config, Interface, InterfaceId, Mode, Network, Range, Role};
use rackbar_model::{EventKind, LeaseState, Severity, Timestamp};
use rackbar_services::dhcp::{Clock, DhcpConfig, DhcpHandle, start, start_by};
use rackbar_services::{Common, Link};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

struct Service {
    handle: DhcpHandle,
    sink: Arc<Sink>,
    common: Common,
    leases: Arc<Leases>,
}

/// The configuration of `rack0` with a pool; called inside the server's namespace.
fn config(mode: Mode, first: [u8; 4], last: [u8; 4]) -> DhcpConfig {
    let link = Link::find("test", "rack0").unwrap();
    let interface = Interface {
        id: InterfaceId(link.index),
        mac: link.mac,
    };
    let pool = Range {
        first: first.into(),
        last: last.into(),
    };
    let network = Network {
        mode,
        ..Network::new("rack", Some(interface), SERVER, 24, pool)
    };
    DhcpConfig {
        interfaces: vec!["rack0".into()],
        engine: Config {
            networks: vec![network],
            ..Config::default()
        },
    }
}

fn serve(net: &Net, mode: Mode, first: [u8; 4], last: [u8; 4]) -> Service {
    serve_with(net, || config(mode, first, last))
}

fn serve_with(net: &Net, config: impl FnOnce() -> DhcpConfig + Send) -> Service {
    net.inside("server", || {
        let (sink, common) = Sink::new();
        let leases = Arc::new(Leases::default());
        let handle = start(config(), Arc::clone(&leases) as _, common.clone()).unwrap();
        Service {
            handle,
            sink,
            common,
            leases,
        }
    })
}

const HUNDRED: [u8; 4] = [10, 77, 0, 100];
const HUNDRED_NINE: [u8; 4] = [10, 77, 0, 109];

/// Writes the address a client was given to the file `address`, and gives it to the interface.
fn client_script(net: &Net) -> String {
    let file = net.path("address");
    net.script(
        "client-script",
        &format!(
            "#!/bin/sh\n\
             case \"$reason$1\" in BOUND*|RENEW*|REBOOT*|bound|renew)\n\
             address=${{new_ip_address:-$ip}}\n\
             ip addr replace $address/24 dev $interface\n\
             echo $address > {file}.new; mv {file}.new {file};;\n\
             esac\n"
        ),
    )
}

fn address(net: &Net) -> Ipv4Addr {
    std::fs::read_to_string(net.path("address"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn udhcpc(net: &Net, script: &str) -> std::process::Output {
    net.exec(
        "client",
        "busybox",
        &[
            "udhcpc", "-i", "c0", "-n", "-q", "-f", "-t", "3", "-T", "1", "-s", script,
        ],
    )
}

#[test]
fn dhclient_gets_a_durable_lease_and_gives_it_back() {
    let net = Net::new();
    let service = serve(&net, Mode::Own, HUNDRED, HUNDRED_NINE);
    let script = client_script(&net);
    let (leases, pid) = (net.path("leases"), net.path("pid"));
    let args = [
        "-4",
        "-1",
        "-sf",
        &script,
        "-lf",
        &leases,
        "-pf",
        &pid,
        "-cf",
        "/dev/null",
    ];
    net.exec_ok("client", "dhclient", &[&args[..], &["c0"]].concat());
    let given = address(&net);
    assert!((100..=109).contains(&given.octets()[3]), "{given}");
    let committed = service.leases.committed.lock().unwrap().last().cloned().unwrap();
    assert_eq!(
        (committed.address, committed.mac, committed.state),
        (given, net.client_mac(), LeaseState::Bound)
    );
    assert_eq!(service.common.clients.mac_of(given.into()), Some(net.client_mac()));
    let acked = service.sink.wait_for("the acknowledgement", |mac, kind| match kind {
        EventKind::DhcpAck { address, .. } => Some((mac, *address)),
        _ => None,
    });
    assert_eq!(acked, (Some(net.client_mac()), Some(given)));

    net.exec_ok("client", "dhclient", &[&["-r"], &args[2..], &["c0"]].concat());
    service.sink.wait_for("the release", |_, kind| {
        matches!(kind, EventKind::DhcpRelease { address } if *address == given).then_some(())
    });
    wait_until("the release is recorded", || {
        service
            .leases
            .committed
            .lock()
            .unwrap()
            .last()
            .is_some_and(|lease| lease.state == LeaseState::Released)
    });
    assert!(
        service
            .handle
            .status()
            .state
            .contains("serving rack as the DHCP server"),
        "{:?}",
        service.handle.status()
    );
    service.handle.stop();
}

#[test]
fn leases_survive_a_restart() {
    let net = Net::new();
    let script = client_script(&net);
    let service = serve(&net, Mode::Own, HUNDRED, HUNDRED_NINE);
    assert!(udhcpc(&net, &script).status.success());
    let (first, leases) = (address(&net), Arc::clone(&service.leases));
    service.handle.stop();
    let again = net.inside("server", || {
        let (_, common) = Sink::new();
        let handle = start(config(Mode::Own, HUNDRED, HUNDRED_NINE), leases as _, common.clone()).unwrap();
        assert_eq!(common.clients.mac_of(first.into()), Some(net.client_mac()));
        handle
    });
    std::fs::remove_file(net.path("address")).unwrap();
    assert!(udhcpc(&net, &script).status.success());
    assert_eq!(address(&net), first);
    drop(again);
}

#[test]
fn an_address_somebody_uses_is_not_offered() {
    let net = Net::new();
    let script = client_script(&net);
    let pool_end = [10, 77, 0, 103];
    // A server without memory gives one machine the same address again. So learn which, put somebody on it, forget all.
    let first = {
        let service = serve(&net, Mode::Own, HUNDRED, pool_end);
        assert!(udhcpc(&net, &script).status.success());
        service.handle.stop();
        address(&net)
    };
    net.exec_ok("hub", "ip", &["addr", "add", &format!("{first}/24"), "dev", "br0"]);
    std::fs::remove_file(net.path("address")).unwrap();
    let service = serve(&net, Mode::Own, HUNDRED, pool_end);
    assert!(udhcpc(&net, &script).status.success());
    assert_ne!(address(&net), first);
    assert!(service.common.metrics.dhcp_arp_probes.get() > 0);
    let conflict = |kind: &EventKind| matches!(kind, EventKind::AddressConflict { owner: Some(_), .. });
    assert!(service.sink.count(conflict) > 0);
}

#[test]
fn no_acknowledgement_leaves_without_its_lease() {
    let net = Net::new();
    let service = serve(&net, Mode::Own, HUNDRED, HUNDRED_NINE);
    service.leases.broken.store(true, Ordering::SeqCst);
    let script = client_script(&net);
    assert!(!udhcpc(&net, &script).status.success());
    wait_until("the status says so", || {
        service.handle.status().severity == Severity::Error
    });
    assert!(
        service.handle.status().state.contains("the disk is full"),
        "{:?}",
        service.handle.status()
    );
    assert_eq!(service.sink.count(|kind| matches!(kind, EventKind::DhcpAck { .. })), 0);
    service.leases.broken.store(false, Ordering::SeqCst);
    assert!(udhcpc(&net, &script).status.success());
    wait_until("it serves again", || service.handle.status().severity == Severity::Info);
}

#[test]
fn beside_dnsmasq_it_only_adds_boot_information() {
    let net = Net::new();
    let _dnsmasq = net.dnsmasq();
    let service = serve(&net, Mode::Auto, HUNDRED, HUNDRED_NINE);
    let foreign = service.sink.wait_for("the other server", |_, kind| match kind {
        EventKind::ForeignDhcpServer { server, network } => Some((*server, network.clone())),
        _ => None,
    });
    assert_eq!(foreign, (Ipv4Addr::new(10, 77, 0, 2), "rack".to_owned()));
    wait_until("it became a proxy", || {
        service.handle.networks().iter().all(|n| n.role == Role::Proxy)
    });
    wait_until("its state says so", || {
        let status = service.handle.status().state;
        status.contains("adding boot information on rack beside the DHCP server 10.77.0.2")
    });

    let script = client_script(&net);
    let config = net.path("dhclient.conf");
    std::fs::write(
        &config,
        "option arch code 93 = unsigned integer 16;\nsend arch 7;\n\
         send vendor-class-identifier \"PXEClient:Arch:00007:UNDI:003016\";\n",
    )
    .unwrap();
    let (lease_file, pid) = (net.path("leases"), net.path("pid"));
    net.exec_ok(
        "client",
        "dhclient",
        &[
            "-4",
            "-1",
            "-sf",
            &script,
            "-lf",
            &lease_file,
            "-pf",
            &pid,
            "-cf",
            &config,
            "c0",
        ],
    );
    assert!(
        (50..=60).contains(&address(&net).octets()[3]),
        "the address is dnsmasq's"
    );
    let file = service.sink.wait_for("our proxy offer", |_, kind| match kind {
        EventKind::DhcpOffer {
            address: None,
            boot_file,
            ..
        } => Some(boot_file.clone()),
        _ => None,
    });
    assert_eq!(file.as_deref(), Some("loader.efi"));
    boot_server_dialogue(&net);
    assert!(service.leases.committed.lock().unwrap().is_empty());
    net.exec(
        "client",
        "dhclient",
        &["-x", "-pf", &pid, "-lf", &lease_file, "-sf", "/bin/true", "c0"],
    );
}

/// A firmware that has its address from the other server asks us on port 4011 for the boot server that it chose out of
/// our offer (PXE specification 2.1, section 2.2.4), and is answered from there.
fn boot_server_dialogue(net: &Net) {
    let (own, mac) = (address(net), net.client_mac());
    let mut request = vec![0; 236];
    request[..3].copy_from_slice(&[1, 1, 6]);
    request[4..8].copy_from_slice(b"4011");
    request[12..16].copy_from_slice(&own.octets());
    request[28..34].copy_from_slice(&mac.0);
    let class = b"PXEClient:Arch:00007:UNDI:003016";
    request.extend([
        99,
        130,
        83,
        99,
        53,
        1,
        3,
        93,
        2,
        0,
        7,
        94,
        3,
        1,
        3,
        16,
        60,
        class.len() as u8,
    ]);
    request.extend(class);
    // PXE_BOOT_ITEM: the first server of type 0.
    request.extend([43, 7, 71, 4, 0, 0, 0, 0, 255, 255]);
    let (from, answer) = net.inside("client", move || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:4011").unwrap();
        socket.set_read_timeout(Some(common::DEADLINE)).unwrap();
        socket.send_to(&request, "10.77.0.1:4011").unwrap();
        let mut answer = [0; 1500];
        let (length, from) = socket.recv_from(&mut answer).unwrap();
        (from, answer[..length].to_vec())
    });
    assert_eq!(from.to_string(), "10.77.0.1:4011");
    let packet = rackbar_dhcp::packet::Packet::new(&answer).unwrap();
    assert_eq!(packet.message_type(), Some(rackbar_dhcp::packet::MessageType::Ack));
    let option = |code| packet.first(code);
    assert_eq!(option(67), Some(&b"loader.efi"[..]));
    assert_eq!(option(60), Some(&b"PXEClient"[..]));
    assert_eq!(
        option(43),
        Some(&[71, 4, 0, 0, 0, 0, 6, 1, 8, 255][..]),
        "the item it chose"
    );
}

#[test]
fn becomes_the_server_when_nobody_answers_and_takes_orders_while_running() {
    let net = Net::new();
    let service = serve(&net, Mode::Auto, HUNDRED, HUNDRED_NINE);
    wait_until("it became the server", || {
        service.handle.networks().iter().all(|n| n.role == Role::Own)
    });
    let narrow = net.inside("server", || config(Mode::Own, [10, 77, 0, 200], [10, 77, 0, 200]));
    net.inside("server", || service.handle.reconfigure(narrow).unwrap());
    let script = client_script(&net);
    assert!(udhcpc(&net, &script).status.success());
    assert_eq!(address(&net), Ipv4Addr::new(10, 77, 0, 200));
    service.handle.reconfigure(DhcpConfig::default()).unwrap();
    assert!(!udhcpc(&net, &script).status.success());
    let missing = DhcpConfig {
        interfaces: vec!["nosuch0".into()],
        ..DhcpConfig::default()
    };
    let error = service.handle.reconfigure(missing).unwrap_err().to_string();
    assert!(
        error.contains("DHCP: cannot use interface nosuch0") && error.contains("check its name"),
        "{error}"
    );
}

/// Changes random octets of a real DISCOVER, or cuts it, with a bias to the options, where the structure is.
#[test]
fn a_clock_set_back_by_hours_while_it_listens_holds_up_nobody() {
    let net = Net::new();
    let set_back = Arc::new(AtomicU64::new(0));
    let reads = Arc::clone(&set_back);
    let (sink, common) = Sink::new();
    let leases = Arc::new(Leases::default());
    let handle = net.inside("server", || {
        let system = Clock::default();
        let now = Arc::clone(&system.wall);
        let wall = move || Timestamp(now().0 - reads.load(Ordering::Relaxed));
        let clock = Clock {
            wall: Arc::new(wall),
            ..system
        };
        let config = config(Mode::Auto, HUNDRED, HUNDRED_NINE);
        start_by(clock, config, Arc::clone(&leases) as _, common).unwrap()
    });
    let role = |wanted| handle.networks().iter().all(|n| n.role == wanted);
    wait_until("it listens", || role(Role::Listening));
    set_back.store(5 * 3_600_000, Ordering::Relaxed);
    wait_until("it became the server", || role(Role::Own));
    let script = client_script(&net);
    assert!(udhcpc(&net, &script).status.success());
    // Half an hour more: the lease it renews ends by the new time.
    let last = || leases.committed.lock().unwrap().last().unwrap().expires;
    let before = last();
    set_back.fetch_add(1_800_000, Ordering::Relaxed);
    assert!(udhcpc(&net, &script).status.success());
    assert!(last() < before, "{} and {before}", last());
    assert!(sink.count(|kind| matches!(kind, EventKind::DhcpAck { .. })) >= 2);
}

fn bad_discover(seed: &mut u64, discover: &[u8]) -> Vec<u8> {
    let (head, options) = discover.split_at(236);
    let mut packet = mutate(seed, head, 20, 0);
    if packet.len() == head.len() {
        packet.extend(mutate(seed, options, 6, 0));
    }
    packet
}

#[test]
fn machines_are_served_in_a_storm_of_malformed_packets_and_after_a_flood_which_cost_little_memory() {
    const PACKETS: u64 = 100_000;
    /// Packets of the storm that wait at the service's door; none is dropped there for so few.
    const WAITING: u64 = 256;
    let net = Net::new();
    // What a NIC filters: else all answers to made-up machines are the good client's to read, and its own gets lost in them.
    net.exec_ok("hub", "bridge", &["link", "set", "dev", "p2", "flood", "off"]);
    // A pool that the storm's made-up clients cannot use up.
    let service = serve_with(&net, || {
        let mut config = config(Mode::Own, [10, 77, 16, 0], [10, 77, 255, 254]);
        config.engine.networks[0].prefix_len = 16;
        config
    });
    let mut discover = vec![0; 300];
    discover[..4].copy_from_slice(&[1, 1, 6, 0]);
    discover[28..34].copy_from_slice(&[0x52, 0x54, 0, 1, 2, 3]);
    discover[236..240].copy_from_slice(&[99, 130, 83, 99]);
    let options = b"\x35\x01\x01\x37\x04\x01\x03\x06\x43\x3c\x09PXEClient\x5d\x02\x00\x07\x39\x02\x05\xdc\xff";
    discover[240..240 + options.len()].copy_from_slice(options);
    // The memory that counts is the service's, however long the storm blows.
    service.sink.forgets.store(true, Ordering::Relaxed);
    let before = resident_kib();
    let (sent, flood) = (AtomicU64::new(0), AtomicBool::new(false));
    let metrics = &service.common.metrics;
    let arrived = || metrics.dhcp_received.get() + metrics.dhcp_kernel_drops.get();
    let script = client_script(&net);
    let served = || wait_until("a good client is served", || udhcpc(&net, &script).status.success());
    std::thread::scope(|scope| {
        let storm = Storm::default();
        let (blows, sent, flood, arrived, net, discover) = (storm.blows(), &sent, &flood, &arrived, &net, &discover);
        scope.spawn(move || {
            net.inside("hub", || {
                let socket = UdpSocket::bind("10.77.0.2:68").unwrap();
                let mut seed = 0x5eed_1234_5678_9abc;
                let mut number = 0;
                while blows.go_on() {
                    if !flood.load(Ordering::Relaxed) && number > arrived() + WAITING {
                        std::thread::yield_now();
                        continue;
                    }
                    let port = if number % 8 == 0 { 4011 } else { 67 };
                    // A full queue on the way is part of a flood.
                    let _ = socket.send_to(&bad_discover(&mut seed, discover), SocketAddrV4::new(SERVER, port));
                    number += 1;
                    sent.store(number, Ordering::Relaxed);
                }
            });
        });
        wait_until("the storm blows", || sent.load(Ordering::Relaxed) > 1000);
        // As much as the service takes. Answers to addresses that were made up fill the neighbour queue for a moment; the
        // good client may ask again.
        for _ in 0..3 {
            served();
        }
        // More than it takes: nobody can be promised an answer then, because the kernel drops without a look at whose it is.
        flood.store(true, Ordering::Relaxed);
        let dropped = metrics.dhcp_kernel_drops.get();
        wait_until("there was a flood", || {
            let blown = sent.load(Ordering::Relaxed) >= PACKETS && arrived() > PACKETS * 9 / 10;
            blown && metrics.dhcp_kernel_drops.get() > dropped
        });
    });
    served();
    assert!(metrics.dhcp_malformed.get() > 0);
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more after the storm");
}
