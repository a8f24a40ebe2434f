//! Clients that say of their addresses that somebody uses them: believed within bounds, and nothing is lost for ever.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test's words may")]

mod rig;

use std::net::Ipv4Addr;

use proptest::prelude::*;
use rackbar_dhcp::packet::{DhcpOption as Opt, MessageType, code};
use rackbar_dhcp::{Input, Mode, Output, Range};
use rackbar_model::{EventKind, Lease, LeaseState, MacAddr, Timestamp};
use rig::*;

const MINUTE: u64 = 60_000;

/// What a client sends, through a switch that adds its port where one is said.
fn via(client: &Client<'_>, port: Option<&[u8]>, kind: MessageType, more: &[Opt<'_>]) -> Vec<u8> {
    let info = port.map(|name| [&[1, name.len() as u8], name].concat());
    let mut all = more.to_vec();
    all.extend(info.as_ref().map(|info| Opt::Other(code::RELAY_INFO, info)));
    let mut message = client.message(kind, &[]);
    message.options.extend(all);
    encoded(&message)
}

/// Discovers, requests what it is offered, and declines it: the address, unless there was no offer.
fn take_and_decline(rig: &mut Rig, client: &Client<'_>, port: Option<&[u8]>) -> Option<Ipv4Addr> {
    rig.hear(&via(client, port, MessageType::Discover, &[]));
    rig.wait(1000);
    let offered = rig.out.iter().rev().find_map(|output| match output {
        Output::Send { bytes, .. } => Some(rackbar_dhcp::packet::Packet::new(bytes).unwrap().yiaddr()),
        _ => None,
    })?;
    let more = [Opt::RequestedAddress(offered), Opt::ServerId(SERVER)];
    rig.hear(&via(client, port, MessageType::Request, &more));
    rig.hear(&via(client, port, MessageType::Decline, &more));
    Some(offered)
}

fn free(rig: &Rig) -> u32 {
    rig.engine.networks().next().unwrap().free
}

fn declines(told: &[EventKind]) -> usize {
    let decline = |kind: &&EventKind| matches!(kind, EventKind::DhcpDecline { .. });
    told.iter().filter(decline).count()
}

fn notes(told: &[EventKind]) -> Vec<&str> {
    fn note(kind: &EventKind) -> Option<&str> {
        match kind {
            EventKind::Note { text, .. } => Some(text),
            _ => None,
        }
    }
    told.iter().filter_map(note).collect()
}

fn probed(said: &[String]) -> Vec<Ipv4Addr> {
    let address = |line: &String| line.strip_prefix("probe ").map(|address| address.parse().unwrap());
    said.iter().filter_map(address).collect()
}

#[test]
fn one_client_that_declines_everything_leaves_the_pool_to_others() {
    let mut rig = Rig::own();
    let mut told = Vec::new();
    for n in 0..100 {
        let broken = Client::dhclient(mac(1)).xid(n);
        assert!(take_and_decline(&mut rig, &broken, None).is_some(), "round {n}");
        assert!(free(&rig) >= 8, "{} free in round {n}", free(&rig));
        told.extend(rig.told());
    }
    assert_eq!(declines(&told), 2, "each within its share");
    let notes = notes(&told);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].starts_with("network rack: 52:54:00:00:00:01 says of one address after the other"),
        "{notes:?}"
    );
    let given: Vec<_> = (10..18).map(|n| rig.lease(&Client::dhclient(mac(n)))).collect();
    assert_eq!(given.len(), 8);
}

#[test]
fn identifiers_make_no_more_of_one_client() {
    let mut rig = Rig::own();
    for n in 0..20u8 {
        let id = [0xff, n];
        take_and_decline(&mut rig, &Client::with_duid(mac(1), &id), None);
    }
    assert!(free(&rig) >= 8, "{}", free(&rig));
}

#[test]
fn made_up_macs_behind_one_port_have_one_share() {
    let mut rig = Rig::own();
    let mut told = Vec::new();
    for n in 0..50 {
        take_and_decline(&mut rig, &Client::dhclient(mac(100 + n)), Some(b"swp7"));
        told.extend(rig.told());
    }
    assert!(free(&rig) >= 5, "{}", free(&rig));
    let notes = notes(&told);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("behind port \"swp7\""), "{notes:?}");
    // Another port has its own.
    take_and_decline(&mut rig, &Client::dhclient(mac(1)), Some(b"swp8"));
    assert_eq!(declines(&rig.told()), 1);
}

#[test]
fn an_address_beyond_the_share_is_probed_before_somebody_else_gets_it() {
    let mut rig = Rig::new(config(rack(Mode::Own)));
    let broken = Client::dhclient(mac(1));
    let declined: Vec<_> = (0..3)
        .map(|n| take_and_decline(&mut rig, &broken.clone().xid(n), None).unwrap())
        .collect();
    let off = rig.lease(&Client::dhclient(mac(2)));
    rig.hear(&Client::dhclient(mac(2)).speaking_from(MessageType::Release, off));
    for n in 10..16 {
        rig.lease(&Client::dhclient(mac(n)));
    }
    rig.out.clear();
    // Nothing is fresh: the spare one is tried before the address of a machine that is merely off is lent.
    rig.hear(&Client::dhclient(mac(20)).discover());
    assert_eq!(probed(&rig.said()), [declined[0]], "and not {off}");
}

#[test]
fn with_none_left_the_oldest_comes_back_after_its_rest_and_is_probed() {
    let mut rig = Rig::new(config(rack(Mode::Own)));
    let first = take_and_decline(&mut rig, &Client::dhclient(mac(1)), None).unwrap();
    rig.wait(5000);
    let second = take_and_decline(&mut rig, &Client::dhclient(mac(2)), None).unwrap();
    for n in 10..18 {
        rig.lease(&Client::dhclient(mac(n)));
    }
    rig.out.clear();
    let late = Client::dhclient(mac(20));
    rig.hear(&late.discover());
    assert_eq!(rig.said(), Vec::<String>::new(), "they rest");
    rig.wait(MINUTE);
    rig.hear(&late.clone().xid(2).discover());
    assert_eq!(probed(&rig.said()), [first]);
    // Somebody really has it: the next one, which nobody has.
    let owner = Some(mac(99));
    let answered = |address| Input::ProbeResult {
        interface: PORT,
        address,
        owner,
    };
    rig.engine.handle(rig.now, answered(first), &mut rig.out);
    assert_eq!(probed(&rig.said()), [second]);
    rig.wait(300);
    assert_eq!(rig.said(), [format!("offer {second} to raw {}", late.mac)]);
}

#[test]
fn stations_that_answer_for_every_address_are_asked_once_a_minute_each() {
    let mut rig = Rig::new(config(rack(Mode::Own)));
    let mut asked = 0;
    for n in 0..60 {
        rig.hear(&Client::dhclient(mac(1)).xid(n).discover());
        while let Some(address) = probed(&rig.said()).first().copied() {
            asked += 1;
            assert!(asked <= 20, "no end of it");
            let owner = Some(mac(99));
            let answered = Input::ProbeResult {
                interface: PORT,
                address,
                owner,
            };
            rig.engine.handle(rig.now, answered, &mut rig.out);
        }
        rig.wait(1000);
    }
    assert_eq!(asked, 10);
}

#[test]
fn an_address_out_of_use_by_another_clock_comes_back_when_none_else_is_left() {
    let lease = |last, until| Lease {
        address: ip(last),
        network: "rack".to_owned(),
        mac: MacAddr::default(),
        client_id: Vec::new(),
        hostname: None,
        state: LeaseState::Abandoned,
        expires: Timestamp(until),
    };
    // One by this clock, a moment ago, and one of an appliance whose clock was years ahead.
    let stored = [lease(100, START + 30 * MINUTE), lease(101, START * 2)];
    let mut rig = Rig::with_leases(config(rack(Mode::Own)), stored);
    for n in 10..18 {
        rig.lease(&Client::dhclient(mac(n)));
    }
    rig.now = Timestamp(START + 10_000);
    rig.out.clear();
    rig.hear(&Client::dhclient(mac(20)).discover());
    assert_eq!(probed(&rig.said()), [ip(101)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// However three clients discover, take, decline and wait, a fourth gets an address, and no more than their shares is
    /// out of use.
    #[test]
    fn decliners_never_use_up_the_pool(
        steps in prop::collection::vec((1u16..4, any::<bool>(), prop_oneof![4 => 0u64..2000, 1 => 0u64..40 * MINUTE]), 1..80),
        probes in any::<bool>(),
        ports in any::<bool>(),
    ) {
        let mut network = rack(Mode::Own);
        network.pools = vec![Range { first: ip(100), last: ip(131) }];
        let mut config = config(network);
        config.limits.probes = if probes { 1024 } else { 0 };
        let mut rig = Rig::new(config);
        for (xid, (who, declines, pause)) in steps.into_iter().enumerate() {
            let client = Client::dhclient(mac(who)).xid(xid as u32);
            if declines {
                let port = [who as u8];
                prop_assert!(take_and_decline(&mut rig, &client, ports.then_some(&port[..])).is_some());
            } else {
                rig.lease(&client);
            }
            rig.wait(pause);
            // Four each are out of use, and one is theirs.
            prop_assert!(free(&rig) >= 32 - 3 * (4 + 1), "{} free", free(&rig));
            let stranger = Client::dhclient(MacAddr([2, 0, 0, 0, 0, 9])).xid(10_000 + xid as u32);
            let address = rig.lease(&stranger);
            rig.hear(&stranger.speaking_from(MessageType::Release, address));
        }
    }
}
