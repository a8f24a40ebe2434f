//! The one thread that writes: numbers events, commits what has gathered, trims the journal when idle, opens the file
//! again after an error.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rackbar_model::{Event, EventKind, Severity, Timestamp};

use crate::queue::{Batch, Op};
use crate::{Shared, StoreError, tables};

/// Between two looks at what could be trimmed.
const IDLE: Duration = Duration::from_secs(2);

/// Events kept in memory while the disk is broken.
const MAX_BACKLOG: usize = 10_000;

/// Events removed in one commit.
const TRIM: u64 = 4_096;

struct Writer<'a> {
    shared: &'a Shared,
    last_seq: u64,
    count: u64,
    /// Numbered and told, but not safe yet.
    backlog: Vec<Op>,
}

/// Runs until the queue is closed and empty.
pub(crate) fn run(shared: &Shared, last_seq: u64, count: u64) {
    let mut writer = Writer {
        shared,
        last_seq,
        count,
        backlog: Vec::new(),
    };
    loop {
        let batch = shared.queue.take(IDLE);
        let last = batch.last;
        let idle = batch.ops.is_empty() && batch.replies.is_empty();
        if !idle || !writer.backlog.is_empty() {
            writer.write(batch);
        }
        if last {
            break;
        }
        writer.trim(idle);
    }
    // Dropping the database here closes it in good order: the next open needs no repair.
    *shared.db.write().unwrap_or_else(PoisonError::into_inner) = None;
}

impl Writer<'_> {
    fn write(&mut self, batch: Batch) {
        let Batch {
            mut ops,
            replies,
            dropped,
            last: _,
        } = batch;
        if dropped > 0 {
            ops.push(Op::Event(self.dropped_note(&ops, dropped)));
        }
        for op in &mut ops {
            if let Op::Event(event) | Op::Outcome(event) = op {
                self.last_seq += 1;
                event.seq = self.last_seq;
            }
        }
        // Before the commit, not after it: a reader who finds an event in the file must never be told of a lower number
        // as the newest, or it believes that the journal is another one and begins again.
        self.shared.last_seq.store(self.last_seq, Ordering::Release);
        let backlog = std::mem::take(&mut self.backlog);
        let before = backlog.len();
        ops.splice(0..0, backlog);
        let result = self.commit(&ops).or_else(|error| {
            tracing::error!(%error, "the store could not commit; opening it again");
            self.reopen().and_then(|()| self.commit(&ops))
        });
        // Those of the backlog were told when they came.
        let told: Vec<Event> = ops
            .iter()
            .skip(before)
            .filter_map(|op| op.told(result.is_ok()))
            .collect();
        *self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = result.clone().err();
        match &result {
            Ok(()) => {
                self.count += ops
                    .iter()
                    .filter(|op| matches!(op, Op::Event(_) | Op::Outcome(_)))
                    .count() as u64
            }
            Err(_) => self.keep_events(ops),
        }
        for reply in replies {
            let _ = reply.send(result.clone());
        }
        self.tell(told);
    }

    fn dropped_note(&self, ops: &[Op], dropped: u64) -> Event {
        let at = ops.iter().rev().find_map(|op| match op {
            Op::Event(event) => Some(event.at),
            _ => None,
        });
        Event {
            seq: 0,
            at: at.unwrap_or(Timestamp(0)),
            node: None,
            mac: None,
            kind: EventKind::Note {
                text: format!("{dropped} events were not recorded: they came faster than the disk takes them"),
                severity: Severity::Warning,
            },
        }
    }

    /// Only events wait for a better disk: whoever waited for the rest was told that it failed.
    fn keep_events(&mut self, ops: Vec<Op>) {
        self.backlog = ops
            .into_iter()
            .filter(|op| matches!(op, Op::Event(_) | Op::Node { .. }))
            .collect();
        let over = self.backlog.len().saturating_sub(MAX_BACKLOG);
        self.backlog.drain(..over);
    }

    fn tell(&self, events: Vec<Event>) {
        let listener = self
            .shared
            .listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(listener) = listener {
            events.into_iter().for_each(|event| listener(event));
        }
    }

    fn commit(&self, ops: &[Op]) -> Result<(), StoreError> {
        let guard = self.shared.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = guard.as_ref().ok_or(StoreError::Closed)?;
        if ops.is_empty() {
            return Ok(());
        }
        self.is_powered()?;
        tables::write(db, ops, &self.shared.options)
    }

    /// Counts a commit, where [`crate::Store::cut_power_after`] has them counted.
    fn is_powered(&self) -> Result<(), StoreError> {
        let left = &self.shared.commits_left;
        let taken = left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| match left {
            u64::MAX => Some(left),
            left => left.checked_sub(1),
        });
        let cut = |_| StoreError::Failed("its power was cut".into());
        taken.map(drop).map_err(cut)
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut guard = self.shared.db.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(self.shared.home, tables::Home::Memory) {
            // There is no file to open again: a failure in memory is not one that passes.
            return Err(StoreError::Failed("memory is short".into()));
        }
        // The lock on the file goes with the old database; the new one could not be opened beside it.
        *guard = None;
        *guard = Some(self.shared.home.open()?);
        Ok(())
    }

    /// Removes the oldest events over the limit: when idle, or before the file grows a quarter too large.
    fn trim(&mut self, idle: bool) {
        let max = self.shared.options.max_events;
        let slack = if idle { 0 } else { max / 4 };
        if self.count <= max.saturating_add(slack) {
            return;
        }
        let excess = (self.count - max).min(TRIM);
        let guard = self.shared.db.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = guard.as_ref() else { return };
        match tables::trim(db, excess, &self.shared.options) {
            Ok(removed) => self.count -= removed,
            Err(error) => tracing::warn!(%error, "old events could not be removed"),
        }
    }
}
