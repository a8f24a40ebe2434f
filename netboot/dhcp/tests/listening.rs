//! Stories of listening before speaking.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test's words may")]

mod rig;

use std::net::{Ipv4Addr, SocketAddrV4};

use rackbar_dhcp::packet::MessageType;
use rackbar_dhcp::{Destination, Engine, Input, Mode, Output, Role};
use rackbar_model::{EventKind, LeaseState, Severity, Timestamp};
use rig::*;

fn role(rig: &Rig) -> Role {
    rig.engine.networks().next().unwrap().role
}

fn auto() -> Rig {
    let mut config = config(rack(Mode::Auto));
    config.limits.probes = 0;
    Rig::new(config)
}

#[test]
fn an_engine_wants_to_be_called_at_once_and_asks_for_other_servers() {
    let mut engine = Engine::new(config(rack(Mode::Auto)), []);
    assert_eq!(engine.deadline(), Some(Timestamp(0)));
    let mut out = Vec::new();
    engine.handle(Timestamp(START), Input::Tick, &mut out);
    let sends: Vec<_> = out.iter().filter(|o| matches!(o, Output::Send { .. })).collect();
    let [
        Output::Send {
            source,
            destination: Destination::Broadcast,
            bytes,
            interface: PORT,
        },
    ] = sends[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!(*source, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68));
    let probe = rackbar_dhcp::packet::Packet::new(bytes).unwrap();
    assert_eq!(
        (probe.message_type(), probe.mac()),
        (Some(MessageType::Discover), Some(OWN_MAC))
    );
    assert!(probe.broadcast());
    // Looped back to us it is not a client.
    let bytes = bytes.clone();
    out.clear();
    engine.handle(
        Timestamp(START + 1),
        Input::Packet {
            interface: PORT,
            source: NOWHERE,
            local_port: 67,
            bytes: &bytes,
        },
        &mut out,
    );
    assert_eq!(out, []);
    assert_eq!(engine.clients().count(), 0);
}

#[test]
fn silence_makes_us_the_server_and_not_before_dnsmasq_could_answer() {
    let mut rig = auto();
    rig.wait(4400);
    rig.hear(&Client::edk2(mac(1)).discover());
    assert!(rig.said().iter().all(|line| line.starts_with("discover")));
    assert_eq!(role(&rig), Role::Listening);
    rig.wait(100);
    assert_eq!(role(&rig), Role::Own);
    let told = rig.told();
    assert!(
        matches!(&told[..], [EventKind::Service { state, .. }] if state.contains("as the DHCP server")),
        "{told:?}"
    );
    rig.hear(&Client::edk2(mac(1)).discover());
    assert!(!rig.sent().packet().yiaddr().is_unspecified());
}

#[test]
fn an_answer_makes_us_a_proxy_at_once() {
    let mut rig = auto();
    rig.wait(700);
    rig.out.clear();
    rig.packet(68, SocketAddrV4::new(FOREIGN, 67), &foreign_offer(OWN_MAC, ip(33)));
    assert_eq!(role(&rig), Role::Proxy);
    let told = rig.told();
    assert!(
        matches!(&told[0], EventKind::ForeignDhcpServer { server: FOREIGN, .. }),
        "{told:?}"
    );
    rig.wait(60_000);
    assert_eq!(role(&rig), Role::Proxy);
    rig.out.clear();
    rig.hear(&Client::edk2(mac(1)).discover());
    assert!(rig.sent().packet().yiaddr().is_unspecified());
}

#[test]
fn our_own_answers_overheard_are_no_foreign_server() {
    let mut rig = auto();
    rig.wait(5000);
    rig.out.clear();
    rig.hear(&Client::edk2(mac(1)).discover());
    let own = rig.sent();
    rig.packet(68, SocketAddrV4::new(SERVER, 67), &own.bytes);
    assert_eq!((role(&rig), rig.out.len()), (Role::Own, 0));
}

#[test]
fn a_server_that_turns_up_later_makes_us_step_back_with_a_warning_and_keep_our_leases() {
    let mut rig = auto();
    rig.wait(5000);
    let client = Client::dhclient(mac(1));
    let address = rig.lease(&client);
    rig.out.clear();
    // A client that names it shows it as well as its own voice would.
    rig.hear(&Client::edk2(mac(2)).request(ip(77), FOREIGN));
    assert_eq!(role(&rig), Role::Proxy);
    let warned = |k: &EventKind| {
        matches!(
            k,
            EventKind::Service {
                severity: Severity::Warning,
                ..
            }
        )
    };
    assert_eq!(rig.told().iter().filter(|k| warned(k)).count(), 1);
    rig.packet(
        67,
        SocketAddrV4::new(address, 68),
        &client.speaking_from(MessageType::Request, address),
    );
    assert_eq!(
        rig.said(),
        [
            format!("commit {address} bound"),
            format!("ack {address} to {address}:68")
        ]
    );
    rig.hear(&Client::dhclient(mac(3)).discover());
    assert_eq!(rig.said(), Vec::<String>::new());
}

#[test]
fn told_to_be_the_server_we_stay_it_and_warn_once_an_hour() {
    let mut rig = Rig::own();
    for _ in 0..5 {
        rig.packet(68, SocketAddrV4::new(FOREIGN, 67), &foreign_offer(mac(9), ip(33)));
        rig.wait(10 * 60_000);
    }
    assert_eq!(role(&rig), Role::Own);
    assert_eq!(rig.told().len(), 1);
    rig.wait(60 * 60_000);
    rig.packet(68, SocketAddrV4::new(FOREIGN, 67), &foreign_offer(mac(9), ip(33)));
    assert_eq!(rig.told().len(), 1);
}

#[test]
fn questions_go_on_and_a_silent_partner_is_reported_not_replaced() {
    let mut rig = auto();
    rig.packet(68, SocketAddrV4::new(FOREIGN, 67), &foreign_offer(OWN_MAC, ip(33)));
    rig.out.clear();
    rig.wait(40 * 60_000);
    let questions = rig.out.iter().filter(|o| matches!(o, Output::Send { .. })).count();
    assert!((8..=12).contains(&questions), "{questions}");
    let told = rig.told();
    assert!(
        matches!(&told[..], [EventKind::Service { severity: Severity::Warning, state, .. }] if state.contains("has not answered")),
        "{told:?}"
    );
    assert_eq!(role(&rig), Role::Proxy);
}

#[test]
fn while_listening_known_leases_are_renewed() {
    let lease = rackbar_model::Lease {
        address: ip(105),
        network: "rack".to_owned(),
        mac: mac(1),
        client_id: Vec::new(),
        hostname: None,
        state: LeaseState::Bound,
        expires: Timestamp(START + 300_000),
    };
    let mut rig = Rig::with_leases(config(rack(Mode::Auto)), [lease]);
    rig.hear(&Client::dhclient(mac(1)).reboot(ip(105)));
    assert_eq!(
        rig.said(),
        ["commit 10.0.0.105 bound", "ack 10.0.0.105 to raw 52:54:00:00:00:01"]
    );
    rig.hear(&Client::dhclient(mac(2)).reboot(ip(105)));
    assert_eq!(rig.said(), Vec::<String>::new());
}

#[test]
fn off_is_off() {
    let mut rig = Rig::new(config(rack(Mode::Off)));
    rig.hear(&Client::edk2(mac(1)).discover());
    rig.hear(&Client::dhclient(mac(1)).reboot(ip(105)));
    assert_eq!((rig.said(), rig.engine.deadline()), (vec![], None));
}
