//! What waits to leave a port: frames ready now, and frames a delay fault holds back.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::locked;

/// Bytes one port may have waiting. Beyond it frames are dropped, as a switch with a shared buffer does; the value is
/// several times a TCP window, so only a stuck guest gets there.
const LIMIT: usize = 8 << 20;

/// One Ethernet frame on its way out. The bytes are shared by all ports a frame was flooded to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// 802.1Q VLAN identifier to insert, on a trunk.
    pub tag: Option<u16>,
    /// The frame without a tag, from destination address to payload.
    pub data: Arc<[u8]>,
}

impl Frame {
    /// Length on the wire in bytes, with the tag, without FCS.
    pub fn wire_len(&self) -> usize {
        self.data.len() + if self.tag.is_some() { 4 } else { 0 }
    }

    /// Appends the frame as it is on the wire.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        match (self.tag, self.data.split_at_checked(12)) {
            (Some(vlan), Some((addresses, rest))) => {
                out.extend_from_slice(addresses);
                out.extend_from_slice(&[0x81, 0x00]);
                out.extend_from_slice(&vlan.to_be_bytes());
                out.extend_from_slice(rest);
            }
            _ => out.extend_from_slice(&self.data),
        }
    }

    /// The frame as it is on the wire.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.wire_len());
        self.append_to(&mut out);
        out
    }
}

/// The egress queue of a port: many writers, one reader.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    ready: VecDeque<Frame>,
    /// Ordered by due time, then by arrival so that equal delays keep their order.
    held: BinaryHeap<Reverse<Held>>,
    bytes: usize,
    arrivals: u64,
}

struct Held {
    due: Instant,
    arrival: u64,
    frame: Frame,
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.arrival) == (other.due, other.arrival)
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.arrival).cmp(&(other.due, other.arrival))
    }
}

impl Waiting {
    /// Moves what is due to the ready frames; returns when the next one will be.
    fn release(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse(held)) = self.held.peek() {
            if held.due > now {
                return Some(held.due);
            }
            if let Some(Reverse(held)) = self.held.pop() {
                self.ready.push_back(held.frame);
            }
        }
        None
    }
}

impl Queue {
    /// Adds a frame, to leave at `due` or at once. False: no room, dropped.
    pub(super) fn push(&self, frame: Frame, due: Option<Instant>) -> bool {
        let mut waiting = locked(&self.waiting);
        if waiting.bytes + frame.data.len() > LIMIT {
            return false;
        }
        waiting.bytes += frame.data.len();
        waiting.arrivals += 1;
        match due {
            Some(due) => {
                let arrival = waiting.arrivals;
                waiting.held.push(Reverse(Held { due, arrival, frame }));
            }
            None => waiting.ready.push_back(frame),
        }
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    /// Forgets everything, when the link went down.
    pub(super) fn clear(&self) {
        *locked(&self.waiting) = Waiting::default();
    }

    /// Waits until frames are ready and appends all of them.
    pub(super) async fn take(&self, out: &mut Vec<Frame>) {
        self.wait(|waiting| {
            waiting.bytes -= waiting.ready.iter().map(|frame| frame.data.len()).sum::<usize>();
            out.extend(waiting.ready.drain(..));
        })
        .await;
    }

    /// Waits for one frame.
    pub(super) async fn take_one(&self) -> Frame {
        self.wait(|waiting| {
            let frame = waiting.ready.pop_front().unwrap_or(Frame {
                tag: None,
                data: Arc::from([]),
            });
            waiting.bytes -= frame.data.len();
            frame
        })
        .await
    }

    /// A frame that is ready now.
    pub(super) fn try_take_one(&self) -> Option<Frame> {
        let mut waiting = locked(&self.waiting);
        waiting.release(Instant::now());
        let frame = waiting.ready.pop_front()?;
        waiting.bytes -= frame.data.len();
        Some(frame)
    }

    /// Waits until something is ready, then calls `take` once with at least one ready frame.
    async fn wait<T>(&self, mut take: impl FnMut(&mut Waiting) -> T) -> T {
        loop {
            let next = {
                let mut waiting = locked(&self.waiting);
                let next = waiting.release(Instant::now());
                if !waiting.ready.is_empty() {
                    return take(&mut waiting);
                }
                next
            };
            match next {
                Some(due) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due) => {}
                        () = self.arrived.notified() => {}
                    }
                }
                None => self.arrived.notified().await,
            }
        }
    }
}
