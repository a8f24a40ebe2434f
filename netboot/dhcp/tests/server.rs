//! Stories of the DHCPv4 server: one exchange after the other, as a capture would show them.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test's words may")]

mod rig;

use std::net::{Ipv4Addr, SocketAddrV4};

use rackbar_dhcp::packet::{DhcpOption as Opt, Message, MessageType, code};
use rackbar_dhcp::{Destination, Input, Mode, Network, Range, Reservation, ReservedFor};
use rackbar_model::{EventKind, Lease, LeaseState, Severity, Timestamp};
use rig::*;

fn renew(client: &Client<'_>, address: Ipv4Addr) -> Vec<u8> {
    client.speaking_from(MessageType::Request, address)
}

#[test]
fn a_new_client_is_probed_for_offered_and_committed_before_its_ack() {
    let mut rig = Rig::new(config(rack(Mode::Own)));
    let client = Client::dhclient(mac(1));
    rig.hear(&client.discover());
    let probe = rig.said();
    let address = probe[0].strip_prefix("probe ").unwrap().to_owned();
    assert_eq!(probe.len(), 1);
    rig.wait(299);
    assert_eq!(rig.said(), Vec::<String>::new());
    rig.wait(1);
    assert_eq!(rig.said(), [format!("offer {address} to raw 52:54:00:00:00:01")]);
    rig.hear(&client.request(address.parse().unwrap(), SERVER));
    assert_eq!(
        rig.said(),
        [
            format!("commit {address} bound"),
            format!("ack {address} to raw 52:54:00:00:00:01")
        ]
    );
    // It boots again: known, no probe.
    rig.hear(&client.clone().xid(2).discover());
    assert_eq!(rig.said(), [format!("offer {address} to raw 52:54:00:00:00:01")]);
}

#[test]
fn an_address_somebody_answers_for_is_abandoned_for_half_an_hour() {
    let mut rig = Rig::new(config(rack(Mode::Own)));
    rig.hear(&Client::dhclient(mac(1)).discover());
    let taken: Ipv4Addr = rig.said()[0].strip_prefix("probe ").unwrap().parse().unwrap();
    let result = Input::ProbeResult {
        interface: PORT,
        address: taken,
        owner: Some(mac(99)),
    };
    rig.engine.handle(rig.now, result, &mut rig.out);
    let events: Vec<_> = rig
        .out
        .iter()
        .filter(|o| format!("{o:?}").contains("AddressConflict"))
        .collect();
    assert_eq!(events.len(), 1);
    let said = rig.said();
    assert_eq!(said[0], format!("commit {taken} abandoned"));
    assert!(
        said[1].starts_with("probe ") && !said[1].contains(&taken.to_string()),
        "{said:?}"
    );
    let state = |rig: &Rig| rig.engine.leases().find(|l| l.address == taken).map(|l| l.state);
    assert_eq!(state(&rig), Some(LeaseState::Abandoned));
    rig.wait(30 * 60_000 + 1);
    assert_eq!(state(&rig), None);
}

#[test]
fn the_client_itself_answering_the_probe_is_no_conflict() {
    let mut rig = Rig::new(config(rack(Mode::Own)));
    rig.hear(&Client::dhclient(mac(1)).discover());
    let address: Ipv4Addr = rig.said()[0].strip_prefix("probe ").unwrap().parse().unwrap();
    rig.engine.handle(
        rig.now,
        Input::ProbeResult {
            interface: PORT,
            address,
            owner: Some(mac(1)),
        },
        &mut rig.out,
    );
    assert_eq!(rig.said(), [format!("offer {address} to raw 52:54:00:00:00:01")]);
}

#[test]
fn replies_find_clients_as_rfc_2131_says() {
    let mut rig = Rig::own();
    let client = Client {
        broadcast: true,
        ..Client::dhclient(mac(1))
    };
    rig.hear(&client.discover());
    let offer = rig.sent();
    assert_eq!(offer.destination, Destination::Broadcast);
    assert_eq!(offer.source, SocketAddrV4::new(SERVER, 67));
    let address = offer.packet().yiaddr();
    rig.hear(&client.request(address, SERVER));
    rig.out.clear();
    rig.packet(67, SocketAddrV4::new(address, 68), &renew(&client, address));
    assert_eq!(
        rig.said(),
        [
            format!("commit {address} bound"),
            format!("ack {address} to {address}:68")
        ]
    );
}

#[test]
fn options_are_those_asked_for() {
    let mut rig = Rig::own();
    rig.hear(&Client::dhclient(mac(1)).discover());
    let offer = rig.sent();
    let packet = offer.packet();
    assert_eq!(packet.server_id(), Some(SERVER));
    assert_eq!(packet.lease_time(), Some(600));
    assert_eq!(packet.first(code::SUBNET_MASK), Some(&[255, 255, 255, 0][..]));
    assert_eq!(packet.first(code::ROUTER), Some(&[10, 0, 0, 254][..]));
    assert_eq!(packet.first(code::DNS), Some(&[10, 0, 0, 1][..]));
    assert_eq!(packet.first(code::BROADCAST_ADDRESS), Some(&[10, 0, 0, 255][..]));
    for absent in [
        code::NTP,
        code::BOOT_FILE,
        code::VENDOR_CLASS,
        code::VENDOR_SPECIFIC,
        code::IPXE,
    ] {
        assert!(!offer.has(absent), "option {absent}");
    }
    assert!(packet.siaddr().is_unspecified() && packet.file().is_empty());
}

#[test]
fn init_reboot_is_confirmed_refused_or_met_with_silence() {
    let mut rig = Rig::own();
    let client = Client::dhclient(mac(1));
    let address = rig.lease(&client);
    rig.hear(&client.clone().xid(3).reboot(address));
    assert_eq!(rig.said().len(), 2);
    rig.hear(&client.clone().xid(4).reboot(Ipv4Addr::new(192, 168, 1, 5)));
    assert_eq!(rig.said(), ["nak 0.0.0.0 to all"]);
    rig.hear(&Client::dhclient(mac(2)).reboot(address));
    assert_eq!(rig.said(), ["nak 0.0.0.0 to all"]);
    // Beside another server the wrong net may be that server's.
    rig.hear(&Client::dhclient(mac(3)).request(ip(50), FOREIGN));
    rig.hear(&client.clone().xid(5).reboot(Ipv4Addr::new(192, 168, 1, 5)));
    assert_eq!(rig.said(), Vec::<String>::new());
}

#[test]
fn a_lease_runs_out_and_its_client_gets_it_again() {
    let mut rig = Rig::own();
    let client = Client::dhclient(mac(1));
    let address = rig.lease(&client);
    rig.wait(599_000);
    assert_eq!(rig.said(), Vec::<String>::new());
    rig.wait(1_001);
    assert_eq!(rig.said(), [format!("commit {address} released")]);
    assert_eq!(rig.lease(&client), address);
}

#[test]
fn a_client_whose_server_fell_silent_rebinds_with_whoever_knows_its_lease() {
    // REBINDING is a broadcast from the client's own address without a server identifier (RFC 2131 section 4.3.2).
    let rebinds = |rig: &mut Rig, client: &Client<'_>, address| {
        rig.packet(67, SocketAddrV4::new(address, 68), &renew(client, address));
        rig.said()
    };
    let mut rig = Rig::own();
    let client = Client::dhclient(mac(1));
    let address = rig.lease(&client);
    rig.wait(550_000);
    assert_eq!(
        rebinds(&mut rig, &client, address),
        [
            format!("commit {address} bound"),
            format!("ack {address} to {address}:68")
        ]
    );
    // Its time runs from then on.
    rig.wait(599_000);
    assert_eq!(rig.said(), Vec::<String>::new());
    // An address that is somebody else's is refused, and one of another server's that is no business of ours is not.
    assert_eq!(
        rebinds(&mut rig, &Client::dhclient(mac(2)), address)
            .last()
            .map(|line| line.starts_with("nak")),
        Some(true)
    );
    let mut proxy = Rig::new(config(rack(Mode::Proxy)));
    assert_eq!(
        rebinds(&mut proxy, &Client::dhclient(mac(3)), ip(9)),
        Vec::<String>::new()
    );
}

#[test]
fn release_gives_back_and_decline_takes_out_of_use() {
    let mut rig = Rig::own();
    let client = Client::dhclient(mac(1));
    let address = rig.lease(&client);
    rig.hear(&Client::dhclient(mac(2)).speaking_from(MessageType::Release, address));
    assert_eq!(rig.said(), Vec::<String>::new(), "a stranger releases nothing");
    rig.hear(&client.speaking_from(MessageType::Release, address));
    assert_eq!(rig.said(), [format!("commit {address} released")]);
    let address = rig.lease(&client);
    let decline = encoded(&client.message(MessageType::Decline, &[Opt::RequestedAddress(address)]));
    rig.hear(&decline);
    assert_eq!(rig.said(), [format!("commit {address} abandoned")]);
    assert_ne!(rig.lease(&client), address);
}

#[test]
fn inform_gets_parameters_and_no_lease() {
    let mut rig = Rig::own();
    rig.packet(
        67,
        SocketAddrV4::new(ip(7), 68),
        &Client::dhclient(mac(1)).speaking_from(MessageType::Inform, ip(7)),
    );
    let ack = rig.sent();
    assert_eq!(ack.destination, Destination::Unicast(SocketAddrV4::new(ip(7), 68)));
    assert!(ack.packet().yiaddr().is_unspecified() && ack.packet().lease_time().is_none());
    assert!(ack.has(code::SUBNET_MASK));
}

#[test]
fn one_machine_keeps_one_address_through_its_whole_boot() {
    let mut rig = Rig::own();
    let (m, spelled) = (mac(1), [1, 0x52, 0x54, 0, 0, 0, 1]);
    let duid = [0xff, 0, 0, 0, 1, 0, 2, 0, 0, 0xab, 0x11, 1, 2, 3, 4];
    let first = rig.lease(&Client::edk2(m));
    for client in [
        Client::ipxe(m),
        Client::rackbar(m, b"rackbar-loader"),
        Client::rackbar(m, b"\x0drackbar-agent"),
        Client::udhcpc(m, &spelled),
        Client::dhclient(m),
        Client::with_duid(m, &duid),
    ] {
        assert_eq!(rig.lease(&client), first);
    }
    assert_eq!(rig.engine.leases().filter(|l| l.state == LeaseState::Bound).count(), 1);
    // A second identifier beside the first (two containers on one MAC) is another client.
    let other = rig.lease(&Client::with_duid(m, &[0xff, 9, 9, 9, 9]));
    assert_ne!(other, first);
    // The machine restarts and netboots: its old operating system is gone, a new one inherits again.
    assert_eq!(rig.lease(&Client::edk2(m).xid(77)), first);
    assert_eq!(rig.lease(&Client::with_duid(m, &[0xff, 7, 7, 7, 7])), first);
}

#[test]
fn cloned_machines_with_one_identifier_get_two_addresses() {
    let mut rig = Rig::own();
    let duid = [0xff, 1, 2, 3, 4, 5, 6, 7];
    let (a, b) = (
        rig.lease(&Client::with_duid(mac(1), &duid)),
        rig.lease(&Client::with_duid(mac(2), &duid)),
    );
    assert_ne!(a, b);
}

#[test]
fn reservations_hold_by_mac_and_by_identifier_and_against_others() {
    let mut network = rack(Mode::Own);
    let reserve = |client, last| Reservation {
        client,
        address: ip(last),
        hostname: Some(format!("node{last}")),
    };
    network.pools = vec![Range {
        first: ip(100),
        last: ip(101),
    }];
    network.reservations = vec![
        reserve(ReservedFor::Mac(mac(1)), 100),
        reserve(ReservedFor::ClientId(vec![0, 9, 9]), 50),
    ];
    let mut rig = Rig::new(config(network));
    assert_eq!(
        rig.lease(&Client::dhclient(mac(2))),
        ip(101),
        "the other of the pool's two is reserved"
    );
    assert_eq!(rig.lease(&Client::edk2(mac(1))), ip(100));
    assert_eq!(rig.lease(&Client::with_duid(mac(3), &[0, 9, 9])), ip(50));
    rig.hear(&Client::edk2(mac(1)).xid(9).discover());
    assert_eq!(rig.sent().text(code::HOST_NAME), "node100");
    rig.hear(&Client::dhclient(mac(4)).reboot(ip(100)));
    assert_eq!(rig.said(), ["nak 0.0.0.0 to all"]);
}

#[test]
fn an_exhausted_pool_is_told_once_and_reuses_the_longest_idle() {
    let mut rig = Rig::own();
    let addresses: Vec<_> = (0..10).map(|n| rig.lease(&Client::dhclient(mac(n)))).collect();
    rig.out.clear();
    for n in 20..40 {
        rig.hear(&Client::dhclient(mac(n)).discover());
    }
    let notes = rig.told().into_iter().filter(|k| {
        matches!(
            k,
            EventKind::Note {
                severity: Severity::Error,
                ..
            }
        )
    });
    assert_eq!(notes.count(), 1);
    for n in [4u16, 2] {
        let address = addresses[usize::from(n)];
        rig.hear(&Client::dhclient(mac(n)).speaking_from(MessageType::Release, address));
        rig.wait(1000);
    }
    assert_eq!(rig.lease(&Client::dhclient(mac(50))), addresses[4]);
    assert_eq!(rig.lease(&Client::dhclient(mac(51))), addresses[2]);
}

#[test]
fn a_flood_of_offers_does_not_push_out_machines_that_are_switched_off() {
    let mut rig = Rig::own();
    let address = rig.lease(&Client::dhclient(mac(1)));
    rig.hear(&Client::dhclient(mac(1)).speaking_from(MessageType::Release, address));
    for round in 0..5 {
        for n in 0..9 {
            rig.hear(&Client::dhclient(mac(1000 + round * 100 + n)).discover());
        }
        rig.wait(31_000);
    }
    assert_eq!(rig.lease(&Client::dhclient(mac(1)).xid(5)), address);
}

#[test]
fn a_flood_of_discovers_holds_up_nobody_who_means_it() {
    let mut rig = Rig::own();
    let held = rig.lease(&Client::dhclient(mac(1)));
    let (early, late) = (Client::dhclient(mac(2)), Client::dhclient(mac(3)));
    rig.hear(&early.discover());
    let offered = rig.sent().packet().yiaddr();
    let mut second = None;
    for n in 1000..2000 {
        rig.hear(&Client::dhclient(mac(n)).discover());
        let other = rig.sent().packet().yiaddr();
        assert_ne!(other, held, "a lease is kept");
        if other == offered {
            second.get_or_insert(n);
        }
        rig.wait(1);
    }
    let second = second.expect("the flood goes through the whole pool");
    rig.hear(&early.request(offered, SERVER));
    assert_eq!(
        rig.said(),
        [
            format!("commit {offered} bound"),
            format!("ack {offered} to raw {}", early.mac)
        ]
    );
    assert_ne!(rig.lease(&late), offered);
    rig.hear(&Client::dhclient(mac(second)).request(offered, SERVER));
    assert_eq!(rig.said(), ["nak 0.0.0.0 to all"], "who comes second asks for another");
    rig.hear(&Client::dhclient(mac(1)).request(held, SERVER));
    assert_eq!(
        rig.said(),
        [format!("commit {held} bound"), format!("ack {held} to raw {}", mac(1))]
    );
}

#[test]
fn a_flood_of_discovers_is_told_once() {
    let mut rig = Rig::own();
    for n in 0..200 {
        rig.hear(&Client::dhclient(mac(1000 + n)).discover());
        // One that has its own offer shows no end of it.
        rig.hear(&Client::dhclient(mac(1000 + n)).discover());
    }
    let is_error = |kind: &EventKind| {
        matches!(
            kind,
            EventKind::Note {
                severity: Severity::Error,
                ..
            }
        )
    };
    assert_eq!(rig.told().iter().filter(|kind| is_error(kind)).count(), 1);
}

#[test]
fn a_relay_of_an_unknown_subnet_is_told_once_with_what_to_configure() {
    let mut rig = Rig::new(config(rack(Mode::Own)));
    let ask = |rig: &mut Rig, client: u16, relay: Ipv4Addr| {
        let mut message = Client::edk2(mac(client)).message(MessageType::Discover, &[]);
        message.giaddr = relay;
        rig.packet(67, SocketAddrV4::new(relay, 67), &encoded(&message));
        format!("{:?}", std::mem::take(&mut rig.out))
    };
    let told = ask(&mut rig, 1, Ipv4Addr::new(10, 9, 0, 1));
    let words = [
        "relay 10.9.0.1 passes on",
        "subnet = the network of 10.9.0.1",
        "gateway = ",
    ];
    for word in words {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert!(told.contains("through = ") && told.contains("rack"), "{told}");
    let mut again = 0;
    for client in 2..200 {
        again += ask(&mut rig, client, Ipv4Addr::new(10, 9, 0, 1))
            .matches("passes on")
            .count();
    }
    assert_eq!(again, 0, "once per relay");
    // Whoever makes up relays fills neither memory nor journal.
    let made_up = (0..=255).map(|last| ask(&mut rig, 1, Ipv4Addr::new(10, 8, 0, last)));
    assert_eq!(made_up.map(|told| told.matches("passes on").count()).sum::<usize>(), 31);
    rig.wait(6 * 3_600_000);
    let told = ask(&mut rig, 1, Ipv4Addr::new(10, 9, 0, 1));
    assert!(told.contains("passes on"), "after hours it is told again");
}

#[test]
fn a_relayed_client_gets_its_own_subnet_and_option_82_back() {
    let mut far = Network::new(
        "far",
        None,
        SERVER,
        24,
        Range {
            first: [10, 9, 0, 10].into(),
            last: [10, 9, 0, 20].into(),
        },
    );
    far.address = Ipv4Addr::new(10, 9, 0, 0);
    far.mode = Mode::Own;
    let mut config = config(rack(Mode::Own));
    config.networks.push(far);
    let mut rig = Rig::new(config);
    let relay = Ipv4Addr::new(10, 9, 0, 1);
    let info = [1, 4, b'e', b't', b'h', b'7', 2, 2, 0xaa, 0xbb];
    let client = Client::edk2(mac(1));
    let via = |kind, more: &[Opt<'static>]| {
        let mut message: Message<'_> = client.message(kind, more);
        message.giaddr = relay;
        message.options.push(Opt::Other(code::RELAY_INFO, &info));
        encoded(&message)
    };
    rig.packet(67, SocketAddrV4::new(relay, 67), &via(MessageType::Discover, &[]));
    let told = format!("{:?}", rig.out);
    assert!(
        told.contains("circuit_id: Some(\"eth7\"), remote_id: Some(\"aa:bb\")") && told.contains("network: \"far\""),
        "{told}"
    );
    let offer = rig.sent();
    assert_eq!(offer.destination, Destination::Unicast(SocketAddrV4::new(relay, 67)));
    assert_eq!(offer.packet().option(code::RELAY_INFO).as_deref(), Some(&info[..]));
    assert_eq!(offer.packet().giaddr(), relay);
    let address = offer.packet().yiaddr();
    assert_eq!(address.octets()[..3], [10, 9, 0]);
    let more = [Opt::RequestedAddress(address), Opt::ServerId(SERVER)];
    rig.packet(67, SocketAddrV4::new(relay, 67), &via(MessageType::Request, &more));
    assert_eq!(
        rig.said(),
        [
            format!("commit {address} bound"),
            format!("ack {address} to {relay}:67")
        ]
    );
    // It renews past the relay, straight to us.
    rig.packet(67, SocketAddrV4::new(address, 68), &renew(&client, address));
    assert_eq!(
        rig.said(),
        [
            format!("commit {address} bound"),
            format!("ack {address} to {address}:68")
        ]
    );
}

#[test]
fn leases_survive_a_restart_and_a_new_configuration() {
    let lease = Lease {
        address: ip(105),
        network: "rack".to_owned(),
        mac: mac(1),
        client_id: Vec::new(),
        hostname: Some("n1".to_owned()),
        state: LeaseState::Bound,
        expires: Timestamp(START + 300_000),
    };
    let mut rig = Rig::with_leases(config(rack(Mode::Own)), [lease.clone()]);
    assert_eq!(rig.engine.leases().collect::<Vec<_>>(), [lease]);
    rig.packet(
        67,
        SocketAddrV4::new(ip(105), 68),
        &renew(&Client::dhclient(mac(1)), ip(105)),
    );
    assert_eq!(
        rig.said(),
        ["commit 10.0.0.105 bound", "ack 10.0.0.105 to 10.0.0.105:68"]
    );
    let mut smaller = rack(Mode::Own);
    smaller.pools = vec![Range {
        first: ip(100),
        last: ip(102),
    }];
    smaller.name = "renamed".to_owned();
    rig.engine.reconfigure(config(smaller));
    assert_eq!(rig.engine.address_of(mac(1)), Some((ip(105), "renamed")));
    rig.packet(
        67,
        SocketAddrV4::new(ip(105), 68),
        &renew(&Client::dhclient(mac(1)).xid(3), ip(105)),
    );
    assert_eq!(rig.said(), ["nak 0.0.0.0 to all"]);
}

#[test]
fn a_shorter_lease_is_granted_and_a_longer_one_is_not() {
    let mut rig = Rig::own();
    for (asked, given) in [(120, 120), (5, 60), (86_400, 600)] {
        let mut client = Client::dhclient(mac(1)).xid(asked);
        client.options.push(Opt::LeaseTime(asked));
        rig.hear(&client.discover());
        assert_eq!(rig.sent().packet().lease_time(), Some(given));
    }
}

#[test]
fn a_router_with_proxy_arp_is_named_before_it_empties_the_pool() {
    let mut rig = Rig::new(config(rack(Mode::Own)));
    rig.hear(&Client::dhclient(mac(1)).discover());
    for round in 1..=5 {
        let probed = |o: &rackbar_dhcp::Output| match o {
            rackbar_dhcp::Output::Probe { address, .. } => Some(*address),
            _ => None,
        };
        let address = rig.out.iter().find_map(probed).unwrap();
        rig.out.clear();
        rig.engine.handle(
            rig.now,
            Input::ProbeResult {
                interface: PORT,
                address,
                owner: Some(mac(99)),
            },
            &mut rig.out,
        );
        let named = format!("{:?}", rig.out).contains("proxy ARP");
        assert_eq!(named, round == 4, "round {round}");
    }
}
