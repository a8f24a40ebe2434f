//! The client against servers that are right, wrong or gone, told as exchanges with times.

use super::*;
use crate::source::PATIENCE;
use crate::{Asker, Limits, Mode, Packet, Server};

const START: u64 = 1_790_000_000_000_000_000;

/// A world: servers whose clocks are off by so much, one way delays, and our clock, which is wrong by `error`.
struct World {
    client: Client,
    servers: Vec<(SocketAddr, i64, Server)>,
    now: u64,
    error: i64,
    steps: Vec<i64>,
    slews: Vec<i64>,
    /// When it was said that the clock is kept no more.
    lost: Vec<u64>,
    nonce: u64,
    /// The true time at the beginning.
    start: u64,
    /// Milliseconds that an answer takes.
    back: u64,
    /// What the servers say of leap seconds, and what was done to the clock for it.
    leap: Leap,
    leaps: Vec<Leap>,
}

fn world(error: i64, clocks: &[i64]) -> World {
    let at = |n: usize| SocketAddr::from(([192, 0, 2, n as u8 + 1], 123));
    let servers: Vec<_> = clocks
        .iter()
        .enumerate()
        .map(|(n, clock)| (at(n), *clock, Server::new(Limits::default())))
        .collect();
    let config = ClientConfig {
        servers: servers.iter().map(|one| one.0).collect(),
        local_stratum: None,
    };
    World {
        client: Client::new(config, 0),
        servers,
        now: 0,
        error,
        steps: Vec::new(),
        slews: Vec::new(),
        lost: Vec::new(),
        nonce: 0,
        start: START,
        back: 2,
        leap: Leap::None,
        leaps: Vec::new(),
    }
}

impl World {
    fn truth(&self, millis: u64) -> u64 {
        self.start + millis * 1_000_000
    }

    fn ours(&self, millis: u64) -> u64 {
        self.truth(millis).saturating_add_signed(self.error)
    }

    fn run(&mut self, until: u64) {
        while let Some(due) = self.client.deadline().filter(|due| *due <= until) {
            self.now = due.max(self.now);
            let (unix, mut out) = (self.ours(self.now), Vec::new());
            let mut nonce = self.nonce;
            self.client.tick(
                self.now,
                || unix,
                || {
                    nonce += 1;
                    nonce
                },
                &mut out,
            );
            self.nonce = nonce;
            for one in out {
                match one {
                    Output::Send { to, packet } => self.exchange(to, &packet),
                    Output::Lost => self.lost.push(self.now),
                    Output::Adjust { .. } => panic!("nothing was heard"),
                }
            }
        }
        self.now = until;
    }

    fn exchange(&mut self, to: SocketAddr, packet: &[u8]) {
        let there = self.truth(self.now) + 1_000_000;
        let state = SystemState {
            leap: self.leap,
            stratum: 2,
            root_dispersion: 1_000_000,
            updated: there,
            ..SystemState::local(2, there)
        };
        let Some(server) = self.servers.iter_mut().find(|one| one.0 == to) else {
            return;
        };
        let at = there.saturating_add_signed(server.1);
        let from = Asker {
            client: [10, 0, 0, 1].into(),
            served: true,
            received: at,
            monotonic: self.now,
        };
        let Some(reply) = server.2.answer(packet, from, &state, || at) else {
            return;
        };
        let mut out = Vec::new();
        let heard = self.now + self.back;
        let _ = self.client.hear(to, &reply, self.ours(heard), heard, &mut out);
        for one in out {
            if let Output::Adjust { how, leap, .. } = one {
                self.leaps.push(leap);
                match how {
                    Adjust::Step(by) => self.steps.push(by),
                    Adjust::Slew(by) => self.slews.push(by),
                }
                let (Adjust::Step(by) | Adjust::Slew(by)) = how;
                self.error += by;
            }
        }
    }
}

#[test]
fn a_wrong_clock_is_stepped_once_and_slewed_from_then_on() {
    let mut world = world(-7_200_000_000_000, &[0, 300_000, -200_000]);
    assert_eq!(world.client.system(START).leap, Leap::Unsynchronised);
    world.run(20_000);
    assert_eq!(world.steps.len(), 1, "{:?}", world.steps);
    assert!(world.error.abs() < 1_000_000, "{}", world.error);
    let state = world.client.system(world.ours(20_000));
    assert_eq!((state.leap, state.stratum), (Leap::None, 3));
    world.error += 40_000_000;
    world.run(600_000);
    assert!(
        world.error.abs() < 1_000_000 && world.steps.len() == 1,
        "{}",
        world.error
    );
}

#[test]
fn a_lying_server_is_outvoted() {
    let mut world = world(3_000_000_000, &[0, 900_000_000_000, 100_000]);
    world.run(30_000);
    assert!(world.error.abs() < 1_000_000, "{}", world.error);
    let sights = world.client.sights(30_000);
    assert_eq!(sights[1].state, "disagrees with the others");
    assert!(sights.iter().any(|sight| sight.state == "followed"));
}

#[test]
fn a_server_that_falls_silent_at_the_start_holds_up_nobody() {
    for answered in [1, 3_000] {
        let mut world = world(3_000_000_000, &[0, 300_000, -200_000]);
        world.run(answered);
        assert!(world.steps.is_empty(), "two servers are not enough to judge by yet");
        world.servers.remove(0);
        world.run(200_000);
        assert!(
            world.steps.len() == 1 && world.error.abs() < 1_000_000,
            "{:?}",
            world.steps
        );
    }
}

#[test]
fn two_servers_that_disagree_move_nothing() {
    let mut world = world(0, &[0, 900_000_000_000]);
    world.run(60_000);
    assert!(world.steps.is_empty() && world.slews.is_empty());
    assert_eq!(world.client.system(START).stratum, 0);
}

#[test]
fn a_jump_of_the_servers_is_followed_only_when_it_lasts() {
    let mut world = world(0, &[0]);
    world.run(30_000);
    world.servers[0].1 = 5_000_000_000;
    world.run(200_000);
    assert!(world.steps.is_empty());
    world.servers[0].1 = 0;
    world.run(2_000_000);
    assert!(world.steps.is_empty(), "{:?}", world.steps);
    world.servers[0].1 = 5_000_000_000;
    world.run(20_000_000);
    assert_eq!(world.steps.len(), 1, "{:?}", world.steps);
}

#[test]
fn a_clock_that_nobody_corrects_is_said_to_be_lost_once_and_kept_again_afterwards() {
    const DAY: u64 = 86_400_000;
    let mut world = world(0, &[0]);
    world.run(30_000);
    let gone = world.servers.pop().unwrap();
    world.run(2 * DAY);
    // A second less the millisecond of the server, at 15 ppm: 18.5 hours, and the next try within 17 minutes.
    let lost = world.lost.clone();
    assert!(
        lost.len() == 1 && (66_000_000..67_700_000).contains(&lost[0]),
        "{lost:?}"
    );
    let slews = world.slews.len();
    world.servers.push(gone);
    world.run(3 * DAY);
    assert!(world.slews.len() > slews);
    world.servers.clear();
    world.run(5 * DAY);
    assert_eq!(world.lost.len(), 2, "{:?}", world.lost);
    assert!(world.steps.is_empty());
}

#[test]
fn a_denied_client_is_silent_and_a_lost_one_says_so() {
    let mut world = world(0, &[0]);
    world.run(30_000);
    assert_eq!(world.client.system(world.ours(30_000)).stratum, 3);
    // A day without a server: 15 ppm are more than a second.
    assert_eq!(world.client.system(world.ours(86_400_000)).leap, Leap::Unsynchronised);
    let config = ClientConfig {
        local_stratum: Some(10),
        servers: Vec::new(),
    };
    world.client.configure(config, 30_000);
    let state = world.client.system(world.ours(86_400_000));
    assert_eq!(
        (state.leap, state.stratum, &state.reference_id),
        (Leap::None, 10, b"LOCL")
    );
    assert_eq!(world.client.deadline(), None);
}

/// 2026-12-30, 23:00 UTC.
const BEFORE_THE_LAST_DAY: u64 = 1_798_671_600_000_000_000;
const HOUR: u64 = 3_600_000;

#[test]
fn a_leap_second_is_passed_on_when_announced_and_told_to_the_clock_on_its_day_alone() {
    for leap in [Leap::Insert, Leap::Delete] {
        let mut world = world(0, &[0, 100_000, -100_000]);
        (world.start, world.leap) = (BEFORE_THE_LAST_DAY, leap);
        world.run(HOUR - 10_000);
        assert!(world.leaps.len() > 10 && world.leaps.iter().all(|one| *one == Leap::None));
        assert_eq!(world.client.system(world.ours(HOUR)).leap, leap, "clients hear of it");
        world.leaps.clear();
        world.run(25 * HOUR - 10_000);
        assert!(world.leaps.len() > 10 && world.leaps.iter().all(|one| *one == leap));
        world.leaps.clear();
        world.run(30 * HOUR);
        assert!(world.leaps.len() > 10 && world.leaps.iter().all(|one| *one == Leap::None));
    }
}

#[test]
fn a_clock_that_is_stepped_into_the_day_of_a_leap_second_is_told_of_it_at_once() {
    let back = -172_800_000_000_000;
    for (error, start, told) in [
        (back, BEFORE_THE_LAST_DAY + 2 * HOUR * 1_000_000, Leap::Insert),
        (-back, BEFORE_THE_LAST_DAY - 24 * HOUR * 1_000_000, Leap::None),
    ] {
        let mut world = world(error, &[0]);
        (world.start, world.leap) = (start, Leap::Insert);
        world.run(20_000);
        assert_eq!((world.steps.len(), world.leaps[0]), (1, told));
    }
}

#[test]
fn what_a_server_said_last_of_leap_seconds_counts_and_not_what_came_by_the_shortest_way() {
    let mut world = world(0, &[0]);
    world.run(30_000);
    let leap = |world: &World| world.client.system(world.ours(world.now)).leap;
    assert_eq!(leap(&world), Leap::None);
    // From now on answers take so long that the old sample stays the best for half an hour.
    (world.leap, world.back) = (Leap::Insert, 52);
    world.run(200_000);
    assert_eq!(leap(&world), Leap::Insert);
    world.leap = Leap::None;
    world.run(400_000);
    assert_eq!(leap(&world), Leap::None);
}

/// A refusal of a request, as RFC 5905 section 7.4 has it.
fn kiss(request: &[u8], code: [u8; 4]) -> [u8; PACKET] {
    let asked = Packet::read(request).unwrap();
    let refusal = Packet {
        mode: Mode::Server,
        leap: Leap::Unsynchronised,
        stratum: 0,
        reference_id: code,
        origin: asked.transmit,
        ..asked
    };
    refusal.write()
}

#[test]
fn a_server_that_said_we_ask_too_often_is_asked_less_for_good() {
    const REST: u64 = 1_024_000;
    let at = SocketAddr::from(([192, 0, 2, 1], 123));
    let mut source = Source::new(at, 0);
    let first = source.ask(1, START, 0);
    let refused = source.hear(&kiss(&first, *b"RATE"), START, 2);
    assert_eq!((refused, source.denied), (Err(Refused::Kiss(*b"RATE")), false));
    let mut now = source.deadline();
    assert_eq!(now, 2 + REST);
    // Nobody answers, and our clock is set in between: neither brings the short interval back.
    for nonce in 2..20 {
        source.ask(nonce, START, now);
        source.expire(now + PATIENCE);
        if nonce == 10 {
            source.forget();
        }
        assert_eq!(source.deadline(), now + REST, "request {nonce}");
        now = source.deadline();
    }
    // Nor does an answer after all.
    let asked = source.ask(20, START, now);
    let mut server = Server::new(Limits::default());
    let from = Asker {
        client: [10, 0, 0, 1].into(),
        served: true,
        received: START,
        monotonic: now,
    };
    let reply = server.answer(&asked, from, &SystemState::local(2, START), || START);
    source.hear(&reply.unwrap(), START, now + 2).unwrap();
    assert_eq!((source.reach & 1, source.deadline()), (1, now + REST));
    source.forget();
    now = source.deadline();
    source.ask(21, START, now);
    source.expire(now + PATIENCE);
    assert_eq!(source.deadline(), now + REST);
}
