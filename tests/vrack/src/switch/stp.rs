//! Spanning tree as a host's cable sees it (IEEE 802.1D-2004): what state a port is in, and the BPDUs it sends.
//!
//! The switch is the root of its tree and has no neighbours, so every port is a Designated Port, and the whole protocol
//! comes down to the delay before a port forwards:
//!
//! ```text
//!            link up                forward delay            forward delay
//! Disabled ───────────▶ Listening ───────────────▶ Learning ───────────────▶ Forwarding
//!     ▲  │                  ▲  own BPDU from another port                        │
//!     │  └── edge: at once ─┼────────────────────────────────────────────────────┤
//!     └── link down ────────┴─────────────── Blocking (until max age) ◀──────────┘
//! ```
//!
//! In rapid spanning tree (802.1D-2004 clause 17) Blocking and Listening are both called Discarding, and a host that never
//! agrees to a proposal waits for the same two forward delays. What is not here: a better root than this switch (its BPDUs
//! count and change nothing), topology changes, and the agreement by which two rapid bridges skip the delays.

use std::time::Duration;

use tokio::time::Instant;

use super::lldp;

/// The bridge group address (802.1D-2004, table 7-10).
const DESTINATION: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x00];
/// DSAP, SSAP and control of bridge protocols (802.2 LLC, unnumbered information).
const LLC: [u8; 3] = [0x42, 0x42, 0x03];
/// Default priorities of a bridge and of a port (802.1D-2004, tables 17-2 and 17-3).
const BRIDGE_PRIORITY: u16 = 0x8000;
const PORT_PRIORITY: u16 = 0x8000;

/// What spanning tree does on a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpanningTree {
    /// It does not run there: forwards at once and sends no BPDUs.
    #[default]
    Off,
    /// An edge port, which makers call PortFast: forwards at once, sends BPDUs, and is an ordinary port once it hears one.
    Edge,
    /// An ordinary port: two forward delays from link-up until it forwards.
    Stp,
}

/// Which BPDUs the switch sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Version {
    /// Configuration BPDUs.
    #[default]
    Stp,
    /// Rapid spanning tree BPDUs, which say the port's state.
    Rstp,
}

/// Timers of the bridge (802.1D-2004, table 17-1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StpTimers {
    /// Which BPDUs are sent.
    pub version: Version,
    /// Time between BPDUs.
    pub hello: Duration,
    /// Time in Listening, and again in Learning.
    pub forward_delay: Duration,
    /// For so long a BPDU that was heard counts.
    pub max_age: Duration,
}

impl Default for StpTimers {
    fn default() -> Self {
        Self {
            version: Version::Stp,
            hello: Duration::from_secs(2),
            forward_delay: Duration::from_secs(15),
            max_age: Duration::from_secs(20),
        }
    }
}

/// Where a port is on its way to forwarding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StpState {
    /// Its link is down.
    Disabled,
    /// Another port of this switch is on the same wire.
    Blocking,
    /// Neither learns nor forwards.
    Listening,
    /// Learns addresses, does not forward.
    Learning,
    /// Does its work.
    Forwarding,
}

/// Spanning tree on one port: takes link changes and BPDUs with the time, gives BPDUs and the port's state.
#[derive(Debug)]
pub(super) struct StpPort {
    /// Counted from 1, as in Port Identifiers.
    number: u16,
    timers: StpTimers,
    mode: SpanningTree,
    state: StpState,
    /// `operEdge` (802.1D-2004, 17.19.17).
    edge: bool,
    /// When the state ends by itself.
    until: Option<Instant>,
    hello: Option<Instant>,
}

impl StpPort {
    pub(super) fn new(number: u16, mode: SpanningTree, timers: StpTimers) -> Self {
        Self {
            number,
            timers,
            mode,
            state: StpState::Disabled,
            edge: false,
            until: None,
            hello: None,
        }
    }

    /// The link came up or went down.
    pub(super) fn link(&mut self, up: bool, now: Instant) {
        match (up, self.state) {
            (false, _) => {
                (self.state, self.until, self.hello) = (StpState::Disabled, None, None);
            }
            (true, StpState::Disabled) => self.begin(now),
            // It was up.
            (true, StpState::Blocking | StpState::Listening | StpState::Learning | StpState::Forwarding) => {}
        }
    }

    /// Another mode; a port that stays in its mode is not disturbed.
    pub(super) fn set_mode(&mut self, mode: SpanningTree, now: Instant) {
        if self.mode != mode {
            self.mode = mode;
            if self.state != StpState::Disabled {
                self.begin(now);
            }
        }
    }

    fn begin(&mut self, now: Instant) {
        self.edge = self.mode == SpanningTree::Edge;
        self.hello = (self.mode != SpanningTree::Off).then_some(now);
        if self.mode == SpanningTree::Stp {
            self.listen(now);
        } else {
            (self.state, self.until) = (StpState::Forwarding, None);
        }
    }

    fn listen(&mut self, now: Instant) {
        self.state = StpState::Listening;
        self.until = Some(now + self.timers.forward_delay);
    }

    /// A frame to the bridge group address; anything but a BPDU is ignored.
    pub(super) fn receive(&mut self, frame: &[u8], now: Instant) {
        if self.mode == SpanningTree::Off || self.state == StpState::Disabled {
            return;
        }
        let Some(heard) = Heard::parse(frame) else { return };
        if std::mem::take(&mut self.edge) {
            self.listen(now);
        }
        // Our own, from a port that comes first: this one is the Backup Port of that wire.
        if heard.bridge == Some(bridge_id()) && heard.port < Some(port_id(self.number)) {
            self.state = StpState::Blocking;
            self.until = Some(now + self.timers.max_age);
        }
    }

    /// Does what is due; gives the BPDU to send, if one is.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        while let Some(until) = self.until.filter(|until| *until <= now) {
            (self.state, self.until) = match self.state {
                StpState::Blocking => (StpState::Listening, Some(until + self.timers.forward_delay)),
                StpState::Listening => (StpState::Learning, Some(until + self.timers.forward_delay)),
                StpState::Learning | StpState::Forwarding => (StpState::Forwarding, None),
                StpState::Disabled => (StpState::Disabled, None),
            };
        }
        self.hello.filter(|due| *due <= now)?;
        self.hello = Some(now + self.timers.hello);
        // A Backup Port hears; it does not speak.
        (self.state != StpState::Blocking).then(|| self.bpdu())
    }

    /// When [`StpPort::poll`] next has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until.into_iter().chain(self.hello).min()
    }

    pub(super) fn state(&self) -> StpState {
        self.state
    }

    /// A BPDU of this port with its Ethernet and LLC headers (802.1D-2004, 9.3.1 and 9.3.3).
    fn bpdu(&self) -> Vec<u8> {
        let rapid = self.timers.version == Version::Rstp;
        let mut body = LLC.to_vec();
        // Protocol Identifier, Protocol Version Identifier, BPDU Type, Flags.
        body.extend_from_slice(&if rapid { [0, 0, 2, 2] } else { [0; 4] });
        body.push(if rapid { self.flags() } else { 0 });
        body.extend_from_slice(&bridge_id());
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(&bridge_id());
        body.extend_from_slice(&port_id(self.number).to_be_bytes());
        let StpTimers {
            max_age,
            hello,
            forward_delay,
            ..
        } = self.timers;
        for time in [Duration::ZERO, max_age, hello, forward_delay] {
            body.extend_from_slice(&in_256ths(time).to_be_bytes());
        }
        if rapid {
            // Version 1 Length.
            body.push(0);
        }
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let mut frame = DESTINATION.to_vec();
        frame.extend_from_slice(&lldp::port_address(u32::from(self.number) - 1));
        frame.extend_from_slice(&length.to_be_bytes());
        frame.append(&mut body);
        frame.resize(60, 0);
        frame
    }

    /// Flags of a rapid BPDU (802.1D-2004, 9.3.3): always a Designated Port, which proposes until it forwards.
    fn flags(&self) -> u8 {
        const PROPOSAL: u8 = 1 << 1;
        const DESIGNATED: u8 = 3 << 2;
        const LEARNING: u8 = 1 << 4;
        const FORWARDING: u8 = 1 << 5;
        DESIGNATED
            | match self.state {
                StpState::Disabled | StpState::Blocking | StpState::Listening => PROPOSAL,
                StpState::Learning => PROPOSAL | LEARNING,
                StpState::Forwarding => LEARNING | FORWARDING,
            }
    }
}

fn bridge_id() -> [u8; 8] {
    let [a, b] = BRIDGE_PRIORITY.to_be_bytes();
    let [c, d, e, f, g, h] = lldp::CHASSIS;
    [a, b, c, d, e, f, g, h]
}

fn port_id(number: u16) -> u16 {
    PORT_PRIORITY | (number & 0x0fff)
}

/// BPDUs count time in 1/256 s.
fn in_256ths(time: Duration) -> u16 {
    u16::try_from(time.as_millis() * 256 / 1000).unwrap_or(u16::MAX)
}

/// What matters of a BPDU that was heard.
struct Heard {
    /// The transmitting bridge and port; a topology change notification names none.
    bridge: Option<[u8; 8]>,
    port: Option<u16>,
}

impl Heard {
    /// Validates as 802.1D-2004, 9.3.4: what is too short or of another protocol is no BPDU.
    fn parse(frame: &[u8]) -> Option<Self> {
        let length = usize::from(u16::from_be_bytes(*frame.get(12..)?.first_chunk()?));
        let body = frame.get(14..)?.get(..length)?.strip_prefix(&LLC)?;
        let [0, 0, version, kind, ..] = *body else { return None };
        match (version, kind, body.len()) {
            (_, 0x80, _) => Some(Self {
                bridge: None,
                port: None,
            }),
            (_, 0, 35..) | (2.., 2, 36..) => Some(Self {
                bridge: body.get(17..)?.first_chunk().copied(),
                port: body.get(25..)?.first_chunk().copied().map(u16::from_be_bytes),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn up(mode: SpanningTree) -> (StpPort, Instant) {
        let start = Instant::now();
        let mut port = StpPort::new(3, mode, StpTimers::default());
        port.link(true, start);
        (port, start)
    }

    /// Runs a port up to a time by its own deadlines; gives the BPDUs with the second they left in.
    fn run(port: &mut StpPort, from: Instant, seconds: u64) -> Vec<(u64, Vec<u8>)> {
        let mut sent = Vec::new();
        while let Some(due) = port.deadline().filter(|due| *due <= from + SECOND * seconds as u32) {
            sent.extend(port.poll(due).map(|frame| ((due - from).as_secs(), frame)));
        }
        sent
    }

    #[test]
    fn an_ordinary_port_forwards_after_two_forward_delays_and_says_hello_all_along() {
        let (mut port, start) = up(SpanningTree::Stp);
        let mut seen = Vec::new();
        for second in 0..=31 {
            run(&mut port, start, second);
            if seen.last().map(|(_, state)| *state) != Some(port.state()) {
                seen.push((second, port.state()));
            }
        }
        let expected = [
            (0, StpState::Listening),
            (15, StpState::Learning),
            (30, StpState::Forwarding),
        ];
        assert_eq!(seen, expected);
        let (mut port, start) = up(SpanningTree::Stp);
        let times: Vec<_> = run(&mut port, start, 9).into_iter().map(|(at, _)| at).collect();
        assert_eq!(times, [0, 2, 4, 6, 8]);
    }

    #[test]
    fn a_link_that_flaps_begins_again_and_one_that_is_down_says_nothing() {
        let (mut port, start) = up(SpanningTree::Stp);
        run(&mut port, start, 29);
        assert_eq!(port.state(), StpState::Learning);
        port.link(false, start + SECOND * 29);
        assert_eq!((port.state(), port.deadline()), (StpState::Disabled, None));
        port.link(true, start + SECOND * 29);
        run(&mut port, start, 58);
        assert_eq!(port.state(), StpState::Learning);
        run(&mut port, start, 59);
        assert_eq!(port.state(), StpState::Forwarding);
        // Told again what it knows, it is not disturbed.
        port.link(true, start + SECOND * 60);
        assert_eq!(port.state(), StpState::Forwarding);
    }

    #[test]
    fn an_edge_port_forwards_at_once_until_it_hears_a_bridge() {
        let (mut port, start) = up(SpanningTree::Edge);
        assert_eq!(port.state(), StpState::Forwarding);
        assert_eq!(run(&mut port, start, 4).len(), 3, "edge ports send BPDUs too");
        let mut foreign = StpPort::new(1, SpanningTree::Stp, StpTimers::default()).bpdu();
        foreign[34] ^= 1;
        port.receive(&foreign, start + SECOND * 5);
        assert_eq!(port.state(), StpState::Listening);
        run(&mut port, start, 35);
        assert_eq!(port.state(), StpState::Forwarding);
        // It is no edge port any more, and being heard again changes nothing.
        port.receive(&foreign, start + SECOND * 36);
        assert_eq!(port.state(), StpState::Forwarding);
    }

    #[test]
    fn a_port_without_spanning_tree_is_silent_and_deaf() {
        let (mut port, start) = up(SpanningTree::Off);
        let bpdu = StpPort::new(1, SpanningTree::Stp, StpTimers::default()).bpdu();
        port.receive(&bpdu, start);
        assert_eq!((port.state(), port.deadline()), (StpState::Forwarding, None));
    }

    #[test]
    fn of_two_ports_on_one_wire_the_second_blocks_until_the_loop_is_gone() {
        let (mut third, start) = up(SpanningTree::Stp);
        let first = StpPort::new(1, SpanningTree::Stp, StpTimers::default()).bpdu();
        let fifth = StpPort::new(5, SpanningTree::Stp, StpTimers::default()).bpdu();
        third.receive(&fifth, start);
        assert_eq!(third.state(), StpState::Listening, "the lower number stays designated");
        third.receive(&first, start);
        assert_eq!(third.state(), StpState::Blocking);
        assert!(run(&mut third, start, 19).is_empty(), "a backup port does not speak");
        run(&mut third, start, 49);
        assert_eq!(third.state(), StpState::Learning);
    }

    #[test]
    fn bpdus_are_what_the_standard_draws() {
        let frame = StpPort::new(3, SpanningTree::Stp, StpTimers::default()).bpdu();
        let mut expected = vec![0x01, 0x80, 0xc2, 0, 0, 0, 0x02, 0x52, 0x42, 0x53, 0x57, 0x03];
        expected.extend_from_slice(&[0, 38, 0x42, 0x42, 0x03, 0, 0, 0, 0, 0]);
        let bridge = [0x80, 0x00, 0x02, 0x52, 0x42, 0x53, 0x57, 0x00];
        expected.extend_from_slice(&bridge);
        expected.extend_from_slice(&[0; 4]);
        expected.extend_from_slice(&bridge);
        expected.extend_from_slice(&[0x80, 0x03, 0, 0, 20, 0, 2, 0, 15, 0]);
        expected.resize(60, 0);
        assert_eq!(frame, expected);
        let rapid = StpTimers {
            version: Version::Rstp,
            ..StpTimers::default()
        };
        let mut port = StpPort::new(3, SpanningTree::Stp, rapid);
        assert_eq!(port.bpdu()[12..22], [0, 39, 0x42, 0x42, 0x03, 0, 0, 2, 2, 0x0e]);
        port.state = StpState::Learning;
        assert_eq!(port.bpdu()[21], 0x1e);
        port.state = StpState::Forwarding;
        assert_eq!(port.bpdu()[21], 0x3c);
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_panic(frame in prop::collection::vec(any::<u8>(), 0..80), llc: bool) {
            let (mut port, start) = up(SpanningTree::Edge);
            let mut frame = frame;
            if llc && frame.len() > 20 {
                frame[12..17].copy_from_slice(&[0, 38, 0x42, 0x42, 0x03]);
                frame[17..19].fill(0);
            }
            port.receive(&frame, start);
            let _ = port.poll(start);
        }
    }
}
