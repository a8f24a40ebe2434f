//! A clock that is set while machines are served: what is under way goes on, and what lasts, lasts as long.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test's words may")]

mod rig;

use proptest::prelude::*;
use rackbar_dhcp::packet::{DhcpOption as Opt, MessageType};
use rackbar_dhcp::{Input, Mode, Output};
use rackbar_model::{BootWay, FirmwareHabit, Lease, LeaseState, Timestamp};
use rig::*;

const HOUR: u64 = 3_600_000;

/// The clock is set, by so many milliseconds.
fn set_clock(rig: &mut Rig, by: i64) {
    rig.now = Timestamp(rig.now.0.saturating_add_signed(by));
    rig.engine.shift(by, &mut rig.out);
}

fn stored(n: u16, last: u8, expires: Timestamp) -> Lease {
    Lease {
        address: ip(last),
        network: "rack".to_owned(),
        mac: mac(n),
        client_id: Vec::new(),
        hostname: None,
        state: LeaseState::Bound,
        expires,
    }
}

#[test]
fn a_step_back_of_hours_in_the_middle_of_a_probe_and_an_offer_holds_up_nobody() {
    let mut rig = Rig::new(config(rack(Mode::Own)));
    let client = Client::dhclient(mac(1));
    rig.hear(&client.discover());
    let probe = rig.said();
    let address = probe[0].strip_prefix("probe ").unwrap().to_owned();
    set_clock(&mut rig, -5 * HOUR as i64);
    rig.wait(300);
    assert_eq!(rig.said(), [format!("offer {address} to raw {}", client.mac)]);
    set_clock(&mut rig, -5 * HOUR as i64);
    // Nobody takes it: it is given again after half a minute, and not after hours.
    rig.wait(31_000);
    assert_eq!(rig.engine.deadline(), None, "nothing waits any more");
}

#[test]
fn a_step_back_while_it_listens_for_other_servers_makes_it_listen_no_longer() {
    let mut rig = Rig::new(config(rack(Mode::Auto)));
    rig.wait(1000);
    set_clock(&mut rig, -3 * HOUR as i64);
    rig.wait(3500);
    rig.out.clear();
    rig.hear(&Client::dhclient(mac(1)).discover());
    assert_eq!(rig.said().len(), 1, "it serves");
}

#[test]
fn the_first_true_time_ends_no_lease_given_a_moment_before_and_all_that_are_long_over() {
    let over = stored(5, 105, Timestamp(START - HOUR));
    let runs = stored(6, 106, Timestamp(START + HOUR));
    let mut config = config(rack(Mode::Own));
    config.limits.probes = 0;
    // No battery: 1970.
    let mut rig = Rig {
        engine: rackbar_dhcp::Engine::new(config, [over, runs.clone()]),
        now: Timestamp(30_000),
        out: Vec::new(),
    };
    rig.tick();
    let client = Client::dhclient(mac(1));
    let address = rig.lease(&client);
    let by = START - rig.now.0;
    rig.out.clear();
    set_clock(&mut rig, by as i64);
    assert_eq!(rig.said(), [format!("commit {address} bound")], "durable anew");
    rig.tick();
    let lease = |rig: &Rig, address| rig.engine.leases().find(|lease| lease.address == address).unwrap();
    let given = lease(&rig, address);
    assert_eq!(given.state, LeaseState::Bound);
    assert!(
        (START + 590_000..=START + 600_000).contains(&given.expires.0),
        "{}",
        given.expires
    );
    assert_eq!(lease(&rig, ip(105)).state, LeaseState::Released);
    assert_eq!(lease(&rig, ip(106)), runs, "the time it says was true");
    // Renewed, it is of this clock.
    rig.out.clear();
    rig.hear(&Client::dhclient(mac(6)).reboot(ip(106)));
    rig.out.clear();
    rig.engine.reconfigure(rig::config(rack(Mode::Own)));
    set_clock(&mut rig, 60_000);
    assert_eq!(lease(&rig, ip(106)).expires, rig.now.plus(600_000));
    assert_eq!(lease(&rig, ip(105)).state, LeaseState::Released);
}

#[test]
fn what_was_learnt_of_firmware_keeps_the_time_it_was_recorded_with() {
    let mut rig = Rig::own();
    let seen = Timestamp(START + 20 * HOUR);
    let habit = FirmwareHabit {
        mac: mac(9),
        arch: None,
        way: BootWay::FullDhcp,
        proven: true,
        given_up: Vec::new(),
        reason: None,
        seen,
    };
    rig.engine.recall(rig.now, [habit]);
    rig.hear(&Client::edk2(mac(1)).discover());
    rig.now = rig.now.plus(5000);
    rig.engine
        .handle(rig.now, Input::BootFileFetched { mac: mac(1) }, &mut rig.out);
    set_clock(&mut rig, 20 * HOUR as i64);
    assert_eq!(rig.engine.client(mac(1)).unwrap().learnt, Some(rig.now));
    assert_eq!(rig.engine.client(mac(9)).unwrap().learnt, Some(seen));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Discover(u16),
    Request(u16),
    Release(u16),
    Decline(u16),
    Fetched(u16),
    Answer(u16),
    Other,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0u16..8;
    prop_oneof![
        5 => client.clone().prop_map(Step::Discover),
        5 => client.clone().prop_map(Step::Request),
        1 => client.clone().prop_map(Step::Release),
        1 => client.clone().prop_map(Step::Decline),
        1 => client.clone().prop_map(Step::Fetched),
        1 => client.prop_map(Step::Answer),
        1 => Just(Step::Other),
        4 => prop_oneof![0u64..1000, 1000u64..40_000, 40_000u64..2_000_000].prop_map(Step::Wait),
    ]
}

fn client(n: u16) -> Client<'static> {
    match n % 3 {
        0 => Client::edk2(mac(n)),
        1 => Client::dhclient(mac(n)),
        _ => Client::ipxe(mac(n)),
    }
}

/// What it says to one step, with the ends of leases as what is left of them.
fn play(rig: &mut Rig, n: usize, step: Step) -> Vec<String> {
    let own = |rig: &Rig, n: u16| {
        rig.engine
            .leases()
            .find(|lease| lease.mac == mac(n))
            .map(|lease| lease.address)
    };
    // Some transactions are of several messages, as after a lost answer.
    let xid = n as u32 / 4;
    match step {
        Step::Discover(n) => rig.hear(&client(n).xid(xid).discover()),
        Step::Request(n) => {
            let address = own(rig, n).unwrap_or(ip(100 + n as u8));
            rig.hear(&client(n).xid(xid).request(address, SERVER));
        }
        Step::Release(n) => {
            let address = own(rig, n).unwrap_or(ip(100));
            rig.hear(&client(n).speaking_from(MessageType::Release, address));
        }
        Step::Decline(n) => {
            let address = own(rig, n).unwrap_or(ip(100));
            rig.hear(&encoded(
                &client(n).message(MessageType::Decline, &[Opt::RequestedAddress(address)]),
            ));
        }
        Step::Fetched(n) => rig
            .engine
            .handle(rig.now, Input::BootFileFetched { mac: mac(n) }, &mut rig.out),
        Step::Answer(n) => {
            let result = Input::ProbeResult {
                interface: PORT,
                address: ip(100 + n as u8),
                owner: Some(mac(99)),
            };
            rig.engine.handle(rig.now, result, &mut rig.out);
        }
        Step::Other => rig.packet(68, NOWHERE, &foreign_offer(mac(77), ip(200))),
        Step::Wait(millis) => rig.wait(millis),
    }
    let now = rig.now.0;
    let said = |output: Output| match output {
        Output::Commit(lease) => format!(
            "{} {:?} {}",
            lease.address,
            lease.state,
            lease.expires.0 as i64 - now as i64
        ),
        Output::Send { bytes, .. } => {
            let packet = rackbar_dhcp::packet::Packet::new(&bytes).unwrap();
            format!(
                "{:?} {} {:?}",
                packet.message_type(),
                packet.yiaddr(),
                packet.lease_time()
            )
        }
        Output::Learnt { mac, habit } => format!("{mac} {:?}", habit.map(|habit| (habit.way, now - habit.seen.0))),
        Output::Probe { .. } | Output::Event { .. } => format!("{output:?}"),
    };
    rig.out.drain(..).map(said).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever cannot see our clock cannot tell whether it was set.
    #[test]
    fn nobody_notices_that_the_clock_was_set(
        steps in prop::collection::vec((step(), prop::option::weighted(0.2, -200_000_000_000i64..2_000_000_000_000)), 1..60),
        mode in prop_oneof![Just(Mode::Own), Just(Mode::Auto), Just(Mode::Proxy)],
    ) {
        let (mut still, mut set) = (Rig::new(config(rack(mode))), Rig::new(config(rack(mode))));
        for (n, (step, by)) in steps.into_iter().enumerate() {
            if let Some(by) = by.filter(|by| set.now.0.saturating_add_signed(*by) > START / 2) {
                set_clock(&mut set, by);
                set.out.clear();
            }
            prop_assert_eq!(play(&mut still, n, step), play(&mut set, n, step), "{:?}", step);
        }
    }
}
