//! The newest frames of each interface, within a budget of bytes for all of them together.
//!
//! Whoever has the most gives up its oldest frame: an interface on which a whole rack boots may use what the others do not
//! need, and a quiet one never loses what fits into its equal share.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::pcapng::{self, Direction, Interface, Packet, Statistics};

/// What a frame costs beside its bytes.
pub const OVERHEAD: usize = 96;

/// Interfaces that are remembered, those that are gone among them.
const LANES: usize = 32;

/// A frame that was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Captured {
    /// When, in nanoseconds since 1970.
    pub at: u64,
    /// Which way it went.
    pub direction: Direction,
    /// Bytes it had on the wire.
    pub length: u32,
    /// Its first bytes, as many as are kept.
    pub bytes: Arc<[u8]>,
}

impl Captured {
    fn cost(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }
}

/// One interface.
#[derive(Debug)]
struct Lane {
    name: String,
    frames: VecDeque<Captured>,
    used: usize,
    /// From when it was listened to, in nanoseconds since 1970.
    since: u64,
    /// Frames that came.
    seen: u64,
    /// Frames that the system had no room for.
    missed: u64,
}

impl Lane {
    fn newest(&self) -> u64 {
        self.frames.back().map_or(self.since, |frame| frame.at)
    }
}

/// The memory.
#[derive(Debug)]
pub struct Ring {
    budget: usize,
    used: usize,
    lanes: Vec<Lane>,
}

impl Ring {
    /// An empty one that never takes more than `budget` bytes.
    pub const fn new(budget: usize) -> Self {
        Self {
            budget,
            used: 0,
            lanes: Vec::new(),
        }
    }

    /// Gives it another budget; what is beyond it goes at once.
    pub fn set_budget(&mut self, budget: usize) {
        self.budget = budget;
        self.fit();
    }

    /// Bytes that it holds now.
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Frames that it holds now.
    pub fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.frames.len()).sum()
    }

    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says that an interface is listened to since `now`. What it held before, also under another index, it keeps.
    pub fn listen(&mut self, name: &str, now: u64) {
        if self.lanes.iter().any(|lane| lane.name == name) {
            return;
        }
        if self.lanes.len() >= LANES
            && let Some((at, _)) = (self.lanes.iter().enumerate()).min_by_key(|(_, lane)| lane.newest())
        {
            let lane = self.lanes.remove(at);
            self.used -= lane.used;
        }
        self.lanes.push(Lane {
            name: name.to_owned(),
            frames: VecDeque::new(),
            used: 0,
            since: now,
            seen: 0,
            missed: 0,
        });
    }

    /// Puts a frame in; of an interface that is not listened to it is passed over.
    pub fn push(&mut self, name: &str, frame: Captured) {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.name == name) else {
            return;
        };
        lane.seen += 1;
        lane.used += frame.cost();
        self.used += frame.cost();
        lane.frames.push_back(frame);
        self.fit();
    }

    /// Counts frames that the system had no room for.
    pub fn miss(&mut self, name: &str, count: u64) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.name == name) {
            lane.missed = lane.missed.saturating_add(count);
        }
    }

    fn fit(&mut self) {
        while self.used > self.budget {
            let fullest = self.lanes.iter_mut().max_by_key(|lane| lane.used);
            let Some((lane, frame)) = fullest.and_then(|lane| {
                let frame = lane.frames.pop_front()?;
                Some((lane, frame))
            }) else {
                return;
            };
            lane.used -= frame.cost();
            self.used -= frame.cost();
        }
    }

    /// A copy of those frames that are wanted, of one interface or of all; the bytes themselves are shared.
    pub fn cut(&self, interface: Option<&str>, wanted: impl Fn(&Captured) -> bool) -> Cut {
        let mut cut = Cut::default();
        let lanes = self
            .lanes
            .iter()
            .filter(|lane| interface.is_none_or(|name| lane.name == name));
        for (number, lane) in (0..).zip(lanes) {
            let before = cut.frames.len();
            let frames = lane.frames.iter().filter(|frame| wanted(frame));
            cut.frames.extend(frames.map(|frame| (number, frame.clone())));
            let statistics = Statistics {
                start: lane.since,
                end: lane.newest(),
                accepted: lane.seen.saturating_add(lane.missed),
                dropped: lane.missed,
                delivered: (cut.frames.len() - before) as u64,
            };
            cut.interfaces.push((lane.name.clone(), statistics));
        }
        cut.frames.sort_by_key(|(_, frame)| frame.at);
        cut
    }
}

/// Frames taken out of a ring, in order of time.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Cut {
    /// Each interface, and how it did.
    pub interfaces: Vec<(String, Statistics)>,
    /// Place of its interface, and the frame.
    pub frames: Vec<(u32, Captured)>,
}

impl Cut {
    /// The frames as a pcapng file; `filter` says which were looked for.
    pub fn file(&self, by: &str, snap: u32, filter: &str) -> Vec<u8> {
        let mut file = Vec::new();
        // Writing to memory fails only beyond 4 GiB, which no ring holds.
        let _ = self.write(&mut file, by, snap, filter);
        file
    }

    fn write(&self, file: &mut Vec<u8>, by: &str, snap: u32, filter: &str) -> std::io::Result<()> {
        pcapng::section_header(file, by)?;
        for (name, _) in &self.interfaces {
            pcapng::interface_description(file, &Interface { name, snap, filter })?;
        }
        for (interface, frame) in &self.frames {
            let packet = Packet {
                interface: *interface,
                at: frame.at,
                direction: frame.direction,
                length: frame.length,
                bytes: &frame.bytes,
            };
            pcapng::enhanced_packet(file, &packet)?;
        }
        for (number, (_, statistics)) in (0..).zip(&self.interfaces) {
            pcapng::interface_statistics(file, number, statistics)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcapng::tests::blocks;
    use proptest::prelude::*;

    fn frame(at: u64, length: usize) -> Captured {
        Captured {
            at,
            direction: Direction::In,
            length: u32::try_from(length).unwrap(),
            bytes: vec![0; length].into(),
        }
    }

    fn times(cut: &Cut) -> Vec<u64> {
        cut.frames.iter().map(|(_, frame)| frame.at).collect()
    }

    #[test]
    fn a_flood_on_one_interface_leaves_the_other_what_it_has() {
        let mut ring = Ring::new(20 * (OVERHEAD + 100));
        ring.listen("quiet", 0);
        ring.listen("busy", 0);
        for at in 0..5 {
            ring.push("quiet", frame(at, 100));
        }
        for at in 10..10_000 {
            ring.push("busy", frame(at, 100));
        }
        assert_eq!(times(&ring.cut(Some("quiet"), |_| true)), [0, 1, 2, 3, 4]);
        // What the quiet one does not use, the busy one does, with its newest.
        assert_eq!(
            times(&ring.cut(Some("busy"), |_| true)),
            (9_985..10_000).collect::<Vec<_>>()
        );
        ring.miss("busy", 7);
        let busy = ring.cut(Some("busy"), |_| true).interfaces.remove(0).1;
        assert_eq!((busy.accepted, busy.dropped, busy.delivered), (9_997, 7, 15));
    }

    #[test]
    fn a_cut_is_in_order_of_time_and_a_whole_file() {
        let mut ring = Ring::new(1 << 20);
        ring.listen("a", 0);
        ring.listen("b", 0);
        ring.push("elsewhere", frame(1, 60));
        for (name, at) in [("a", 1), ("b", 2), ("a", 3), ("b", 4)] {
            ring.push(name, frame(at, 60));
        }
        let cut = ring.cut(None, |frame| frame.at != 3);
        assert_eq!(times(&cut), [1, 2, 4]);
        let file = cut.file("test", 128, "all");
        let kinds: Vec<u32> = blocks(&file).iter().map(|block| block.0).collect();
        assert_eq!(kinds, [0x0a0d_0d0a, 1, 1, 6, 6, 6, 5, 5]);
        ring.set_budget(0);
        assert!(ring.is_empty() && ring.used() == 0);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_budget_and_gives_up_the_oldest(
            budget in 0usize..20_000, pushes in proptest::collection::vec((0usize..4, 0usize..1_500), 0..300),
        ) {
            let names = ["a", "b", "c", "d"];
            let mut ring = Ring::new(budget);
            names.iter().for_each(|name| ring.listen(name, 0));
            let mut pushed = vec![Vec::new(); 4];
            for (at, (lane, length)) in (0u64..).zip(&pushes) {
                ring.push(names[*lane], frame(at, *length));
                pushed[*lane].push((at, length + OVERHEAD));
                prop_assert!(ring.used() <= budget);
            }
            let mut held = 0;
            for (name, pushed) in names.iter().zip(&pushed) {
                let kept = times(&ring.cut(Some(name), |_| true));
                let newest: Vec<u64> = pushed.iter().skip(pushed.len() - kept.len()).map(|one| one.0).collect();
                prop_assert_eq!(&kept, &newest, "not its newest");
                held += pushed.iter().skip(pushed.len() - kept.len()).map(|one| one.1).sum::<usize>();
                // What all of them together could have kept of an equal share each is there.
                let all: usize = pushed.iter().map(|one| one.1).sum();
                prop_assert!(all > budget / 4 || kept.len() == pushed.len(), "{} lost some within its share", name);
            }
            prop_assert_eq!(held, ring.used());
        }
    }
}
