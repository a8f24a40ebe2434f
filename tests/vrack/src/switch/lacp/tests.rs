//! A bundle against a written peer: a host that aggregates, one that does not speak, one cabled wrong.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const HOST: [u8; 6] = [2, 0, 0, 0, 0, 0x11];

/// The other end of one link: passive, takes what it hears for its partner, as iPXE does.
#[derive(Clone, Copy)]
struct Peer {
    end: End,
    heard: End,
}

impl Peer {
    fn new(system: [u8; 6], port: u16) -> Self {
        let end = End {
            system_priority: 0xffff,
            system,
            key: 9,
            port_priority: 0xff,
            port,
            state: state::AGGREGATION | state::TIMEOUT | state::SYNCHRONIZATION,
        };
        Self {
            end,
            heard: End::default(),
        }
    }

    fn answer(&mut self, frame: &[u8]) -> Vec<u8> {
        let pdu = Pdu::parse(frame).expect("an LACPDU");
        self.heard = pdu.actor;
        let both = state::COLLECTING | state::DISTRIBUTING;
        self.end.set(both, pdu.actor.has(state::SYNCHRONIZATION));
        let pdu = Pdu {
            actor: self.end,
            partner: self.heard,
        };
        pdu.frame(self.end.system, 0)
    }
}

struct Story {
    bundle: Aggregator,
    peers: Vec<Option<Peer>>,
    start: Instant,
    sent: Vec<(u64, usize)>,
}

impl Story {
    fn new(config: LagConfig, peers: Vec<Option<Peer>>) -> Self {
        let start = Instant::now();
        let ports: Vec<_> = (4..).take(peers.len()).collect();
        let mut bundle = Aggregator::new(&ports, 1, config);
        for member in 0..peers.len() {
            bundle.link(member, true, start);
        }
        Self {
            bundle,
            peers,
            start,
            sent: Vec::new(),
        }
    }

    /// Goes on to a second after the start, each peer answering at once.
    fn until(&mut self, second: u64) -> Vec<usize> {
        let end = self.start + SECOND * u32::try_from(second).unwrap();
        let mut now = self.start;
        loop {
            let mut out = Vec::new();
            self.bundle.poll(now, &mut out);
            for (member, frame) in &out {
                self.sent.push(((now - self.start).as_secs(), *member));
                if let Some(peer) = &mut self.peers[*member] {
                    let answer = peer.answer(frame);
                    self.bundle.receive(*member, &answer, now);
                }
            }
            match self.bundle.deadline() {
                Some(due) if due <= end => now = now.max(due),
                _ => return self.bundle.active(),
            }
        }
    }
}

fn pair() -> Vec<Option<Peer>> {
    vec![Some(Peer::new(HOST, 1)), Some(Peer::new(HOST, 2))]
}

#[test]
fn two_links_to_one_host_forward_when_both_ends_agree() {
    let mut story = Story::new(LagConfig::default(), pair());
    assert_eq!(story.until(1), [0; 0], "the bundle waits for members that are late");
    assert_eq!(story.until(3), [0, 1]);
    for peer in story.peers.iter().flatten() {
        let both = state::COLLECTING | state::DISTRIBUTING | state::SYNCHRONIZATION;
        assert_eq!(peer.heard.state & both, both);
    }
}

#[test]
fn a_host_that_does_not_speak_is_left_out_and_the_switch_goes_on_asking() {
    let mut story = Story::new(LagConfig::default(), vec![None, None]);
    assert_eq!(story.until(100), [0; 0]);
    // Every second while it hopes, at the slow rate once it has given up.
    let first: Vec<_> = story
        .sent
        .iter()
        .filter(|(_, at)| *at == 0)
        .map(|(at, _)| *at)
        .collect();
    assert_eq!(first, [0, 1, 2, 3, 33, 63, 93]);
}

#[test]
fn fallback_lets_the_first_member_forward_alone_until_somebody_speaks() {
    let config = LagConfig {
        fallback: true,
        ..LagConfig::default()
    };
    let mut story = Story::new(config, vec![None, None]);
    assert_eq!(story.until(2), [0; 0], "three seconds pass first");
    assert_eq!(story.until(4), [0]);
    // The first one's cable is pulled: the other one takes over.
    let now = story.start + SECOND * 5;
    story.bundle.link(0, false, now);
    assert_eq!(story.until(6), [1]);
    story.bundle.link(0, true, now);
    // An installed system with its bond speaks, and both carry traffic.
    story.peers = pair();
    assert_eq!(story.until(45), [0, 1]);
}

#[test]
fn a_partner_that_falls_silent_is_out_after_the_timeout_it_was_asked_for() {
    for (fast, out) in [(true, 3), (false, 90)] {
        let config = LagConfig { fast, fallback: false };
        let mut story = Story::new(config, pair());
        assert_eq!(story.until(10), [0, 1]);
        let last = story
            .sent
            .iter()
            .filter(|(_, at)| *at == 1)
            .map(|(at, _)| *at)
            .max()
            .unwrap();
        story.peers[1] = None;
        assert_eq!(story.until(last + out - 1), [0, 1], "fast {fast}");
        assert_eq!(story.until(last + out + 1), [0], "fast {fast}");
    }
}

#[test]
fn a_cable_to_another_host_stays_out_of_the_bundle() {
    let other = Peer::new([2, 0, 0, 0, 0, 0x22], 1);
    let mut story = Story::new(LagConfig::default(), vec![Some(Peer::new(HOST, 1)), Some(other)]);
    assert_eq!(story.until(20), [0]);
}

#[test]
fn a_partner_that_means_another_port_is_not_in_sync() {
    let mut story = Story::new(LagConfig::default(), vec![Some(Peer::new(HOST, 1))]);
    let pdu = Pdu {
        actor: Peer::new(HOST, 1).end,
        partner: End {
            port: 99,
            ..End::default()
        },
    };
    story.peers[0] = None;
    story.bundle.receive(0, &pdu.frame(HOST, 0), story.start);
    assert_eq!(story.until(60), [0; 0]);
}

#[test]
fn a_loop_to_the_switch_itself_is_no_partner() {
    let mut story = Story::new(LagConfig::default(), vec![None]);
    let mut out = Vec::new();
    story.bundle.poll(story.start, &mut out);
    story.bundle.receive(0, &out[0].1, story.start);
    assert_eq!(story.until(60), [0; 0]);
}

#[test]
fn a_partner_that_changes_its_mind_all_the_time_gets_three_answers_a_second() {
    let mut story = Story::new(LagConfig::default(), vec![None]);
    for tenth in 0..10 {
        let now = story.start + SECOND * tenth / 10;
        let mut peer = Peer::new(HOST, 1);
        peer.end.key = u16::try_from(tenth).unwrap();
        let pdu = Pdu {
            actor: peer.end,
            partner: End::default(),
        };
        story.bundle.receive(0, &pdu.frame(HOST, 0), now);
        let mut out = Vec::new();
        story.bundle.poll(now, &mut out);
        story.sent.extend(out.iter().map(|(at, _)| (0, *at)));
    }
    assert_eq!(story.sent.len(), 3);
}
