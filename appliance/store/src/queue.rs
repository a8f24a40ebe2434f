//! The writer's inbox. Events wait a moment for company; whoever waits for the disk is served at once.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rackbar_model::{Event, NodeId, Timestamp};

use crate::{StoreError, Table};

/// Events that may wait for the disk. A storm beyond that is counted, not kept.
pub(crate) const MAX_QUEUED_EVENTS: usize = 16_384;

/// How long events wait for company before they are committed: short for a person watching, long enough that a busy
/// network does not sync the disk for every packet.
const GATHER: Duration = Duration::from_millis(15);

/// One change.
pub(crate) enum Op {
    Event(Event),
    /// An event of what else is in the commit: told when that is safe, and not at all when it was refused.
    Outcome(Event),
    Lease {
        address: [u8; 4],
        value: Vec<u8>,
    },
    Node {
        node: NodeId,
        json: Option<Vec<u8>>,
    },
    Inventory {
        node: NodeId,
        at: Timestamp,
        json: Vec<u8>,
    },
    Value {
        table: Table,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    /// The lock of the secrets.
    Lock(Vec<u8>),
}

impl Op {
    /// The event to be told, of a commit that was taken or refused.
    pub(crate) fn told(&self, taken: bool) -> Option<Event> {
        match self {
            Self::Event(event) => Some(event.clone()),
            Self::Outcome(event) if taken => Some(event.clone()),
            _ => None,
        }
    }
}

pub(crate) type Reply = SyncSender<Result<(), StoreError>>;

/// Something that is being written.
#[derive(Debug)]
#[must_use = "it is not durable before it was waited for"]
pub struct Written(Receiver<Result<(), StoreError>>);

impl Written {
    /// Waits until it is durable.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn wait(self) -> Result<(), StoreError> {
        self.0.recv().unwrap_or(Err(StoreError::Closed))
    }
}

/// Everything that had gathered.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) ops: Vec<Op>,
    pub(crate) replies: Vec<Reply>,
    /// Events that found the queue full.
    pub(crate) dropped: u64,
    /// The queue is closed and this is the last batch.
    pub(crate) last: bool,
}

#[derive(Default)]
struct State {
    ops: VecDeque<Op>,
    replies: Vec<Reply>,
    events: usize,
    dropped: u64,
    first_at: Option<Instant>,
    closed: bool,
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push_event(&self, event: Event) -> bool {
        let mut state = self.lock();
        if state.closed || state.events >= MAX_QUEUED_EVENTS {
            state.dropped += 1;
            return false;
        }
        state.events += 1;
        self.add(state, [Op::Event(event)]);
        true
    }

    /// Queues changes and what is told of them, all into one commit. Events that find no room are counted.
    pub(crate) fn push_all(&self, mut ops: Vec<Op>) {
        let mut state = self.lock();
        ops.retain(|op| {
            let is_event = matches!(op, Op::Event(_));
            let dropped = is_event && state.events >= MAX_QUEUED_EVENTS;
            state.dropped += u64::from(dropped);
            state.events += usize::from(is_event && !dropped);
            !dropped
        });
        if !(state.closed || ops.is_empty()) {
            self.add(state, ops);
        }
    }

    pub(crate) fn push(&self, op: Op) {
        let state = self.lock();
        if !state.closed {
            self.add(state, [op]);
        }
    }

    pub(crate) fn push_and_wait(&self, ops: Vec<Op>) -> Result<(), StoreError> {
        self.push_for(ops)?.wait()
    }

    /// Queues without waiting: whoever holds a lock lets go of it first, and many then share one commit.
    pub(crate) fn push_for(&self, ops: Vec<Op>) -> Result<Written, StoreError> {
        let (reply, answer) = sync_channel(1);
        let mut state = self.lock();
        if state.closed {
            return Err(StoreError::Closed);
        }
        state.replies.push(reply);
        self.add(state, ops);
        Ok(Written(answer))
    }

    fn add(&self, mut state: MutexGuard<'_, State>, ops: impl IntoIterator<Item = Op>) {
        state.ops.extend(ops);
        state.first_at.get_or_insert_with(Instant::now);
        drop(state);
        self.wake.notify_one();
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Waits for work and takes all of it; an empty batch after `idle` without any.
    pub(crate) fn take(&self, idle: Duration) -> Batch {
        let started = Instant::now();
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let due = state.first_at.map(|at| at + GATHER);
            let ready = state.closed || !state.replies.is_empty() || due.is_some_and(|due| due <= now);
            if ready || (due.is_none() && now >= started + idle) {
                state.first_at = None;
                state.events = 0;
                return Batch {
                    ops: std::mem::take(&mut state.ops).into(),
                    replies: std::mem::take(&mut state.replies),
                    dropped: std::mem::take(&mut state.dropped),
                    last: state.closed,
                };
            }
            let until = due.unwrap_or(started + idle);
            let wait = until.saturating_duration_since(now);
            (state, _) = self
                .wake
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
