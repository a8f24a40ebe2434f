//! What was learnt of a firmware: across a restart, and when it is forgotten.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test's words may")]

mod rig;

use rackbar_dhcp::{Config, Input, Mode, Output, Reservation, ReservedFor};
use rackbar_model::{BootWay, FirmwareHabit, Timestamp};
use rig::*;

fn fetch(rig: &mut Rig, n: u16) {
    rig.engine
        .handle(rig.now, Input::BootFileFetched { mac: mac(n) }, &mut rig.out);
}

/// What the engine wanted recorded since the last look, newest last.
fn learnt(rig: &mut Rig) -> Vec<Option<FirmwareHabit>> {
    let habit = |output| match output {
        Output::Learnt { habit, .. } => Some(habit),
        _ => None,
    };
    rig.out.drain(..).filter_map(habit).collect()
}

/// A network beside another server with one address for machine 1.
fn beside() -> Config {
    let mut network = rack(Mode::Proxy);
    network.pools.clear();
    network.reservations = vec![Reservation {
        client: ReservedFor::Mac(mac(1)),
        address: ip(50),
        hostname: None,
    }];
    let mut config = config(network);
    config.limits.probes = 0;
    config
}

/// Machine 1 has shown that it is deaf to proxy offers; what was recorded of it.
fn deaf_and_led_by_address(rig: &mut Rig) -> FirmwareHabit {
    for xid in 1..=3 {
        rig.hear(&Client::edk2(mac(1)).xid(xid).discover());
        rig.wait(4000);
    }
    learnt(rig).pop().flatten().unwrap()
}

#[test]
fn what_was_learnt_of_a_firmware_survives_a_restart() {
    let mut rig = Rig::new(beside());
    let habit = deaf_and_led_by_address(&mut rig);
    assert_eq!((habit.way, habit.proven), (BootWay::FullDhcp, false));
    assert_eq!(habit.given_up, [BootWay::Proxy]);
    assert!(habit.reason.as_deref().unwrap().contains("proxy offers"));
    let mut after = Rig::new(beside());
    assert_eq!(after.engine.recall(after.now, [habit]), []);
    after.hear(&Client::edk2(mac(1)).xid(9).discover());
    let offer = after.sent();
    assert_eq!(
        offer.packet().yiaddr(),
        ip(50),
        "its first offer is of an address already"
    );
    fetch(&mut after, 1);
    let proven = learnt(&mut after).pop().flatten().unwrap();
    assert!(proven.proven && proven.given_up.is_empty());
    // The next boot within a day confirms it without another record, one a day later is recorded.
    fetch(&mut after, 1);
    assert_eq!(learnt(&mut after), []);
    after.wait(25 * 3_600_000);
    fetch(&mut after, 1);
    assert_eq!(learnt(&mut after).len(), 1);
}

#[test]
fn what_was_learnt_is_forgotten_when_told_when_old_and_when_another_firmware_speaks() {
    let mut rig = Rig::new(beside());
    let habit = deaf_and_led_by_address(&mut rig);
    let is_proxy = |rig: &mut Rig, client: Client<'_>| {
        rig.hear(&client.xid(77).discover());
        let first = rig.out.iter().position(|output| matches!(output, Output::Send { .. }));
        let first = rig.out.get(first.unwrap()).cloned().unwrap();
        rig.out.retain(|output| matches!(output, Output::Learnt { .. }));
        let Output::Send { bytes, .. } = first else {
            unreachable!()
        };
        rackbar_dhcp::packet::Packet::new(&bytes)
            .unwrap()
            .yiaddr()
            .is_unspecified()
    };
    // By a person.
    rig.engine
        .handle(rig.now, Input::ForgetFirmware { mac: mac(1) }, &mut rig.out);
    assert_eq!(learnt(&mut rig), [None]);
    assert!(is_proxy(&mut rig, Client::edk2(mac(1))));
    // Before a restart that comes too late.
    let mut late = Rig::new(beside());
    late.now = habit.seen.plus(90 * 24 * 3_600_000);
    assert_eq!(late.engine.recall(late.now, [habit.clone()]), [mac(1)]);
    // While it runs.
    let mut long = Rig::new(beside());
    assert_eq!(long.engine.recall(long.now, [habit.clone()]), []);
    long.wait(91 * 24 * 3_600_000);
    long.out.clear();
    assert!(is_proxy(&mut long, Client::edk2(mac(1))));
    assert_eq!(learnt(&mut long), [None]);
    // Another firmware of the same machine.
    let mut other = Rig::new(beside());
    assert_eq!(other.engine.recall(other.now, [habit.clone()]), []);
    assert!(is_proxy(&mut other, Client::old_rom(mac(1))));
    assert_eq!(learnt(&mut other), [None]);
    // Where the site has no address for it any more, the proxy way is all that is left.
    let mut config = beside();
    config.networks[0].reservations.clear();
    let mut without = Rig::new(config);
    assert_eq!(without.engine.recall(without.now, [habit]), []);
    assert!(is_proxy(&mut without, Client::edk2(mac(1))));
}

#[test]
fn more_habits_than_there_is_room_for_are_dropped_oldest_first() {
    let mut config = beside();
    config.limits.clients = 2;
    let mut rig = Rig::new(config);
    let habit = |n: u16| FirmwareHabit {
        mac: mac(n),
        arch: None,
        way: BootWay::FullDhcp,
        proven: true,
        given_up: Vec::new(),
        reason: None,
        seen: Timestamp(START - u64::from(n)),
    };
    assert_eq!(rig.engine.recall(rig.now, [habit(3), habit(1), habit(2)]), [mac(3)]);
}
