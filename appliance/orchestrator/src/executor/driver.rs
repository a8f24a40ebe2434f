//! Walking runs: inputs go into engines, what they say is written down in one commit, and only then carried out.
//!
//! A thread of its own, because it waits for the disk. It ends when the last handle on the executor is gone; the
//! attempts under way are dropped with it, as in a power cut.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rackbar_messages::JobId;
use rackbar_model::{EventKind, NodeId, PowerState, Severity, Timestamp};
use rackbar_plan::engine::{self, Engine, Input, Output};
use rackbar_plan::planner::INSTALL_ROLE;
use rackbar_plan::{Action, ActionId, ActionKind, Attempt, Progress, Run, RunId, Stand};
use tokio::sync::watch;

use super::memory::{self, Entry};
use super::{Book, Inner, PlanRequest, adopted};
use crate::hands::{Done, Task};
use crate::rack::{locked, now};

/// Between two looks at nodes, bindings and drift.
const LOOK: Duration = Duration::from_secs(1);

/// A clock that differs by so many milliseconds from the time that passed was set: less is its ordinary unrest.
const CLOCK_SET: u64 = 2_000;

/// Inputs taken in one go: one commit for all of them.
const BATCH: usize = 256;

/// What the driver is told.
pub(super) enum Message {
    /// An attempt ended.
    Ended {
        run: RunId,
        action: ActionId,
        job: String,
        done: Done,
    },
    /// How far an attempt is.
    Progress {
        run: RunId,
        action: ActionId,
        job: String,
        progress: Progress,
    },
    /// Look: something was ordered.
    Wake,
}

/// An attempt under way. Dropped, it ends.
struct Attempting {
    job: String,
    give_up: watch::Sender<bool>,
    handle: tokio::task::AbortHandle,
}

impl Drop for Attempting {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// A run under way.
pub(super) struct Live {
    pub(super) engine: Engine,
    attempts: HashMap<ActionId, Attempting>,
    /// Not on the disk yet; nothing of `to_do` is done before it is.
    pub(super) unwritten: Vec<Entry>,
    pub(super) to_do: Vec<Output>,
    /// The run as it was last shown, unless it has changed since.
    pub(super) shown: Option<Arc<Run>>,
    /// Attempts that were under way when this program started.
    taken_up: HashSet<String>,
    /// What a run that waits was planned for.
    pub(super) request: Option<PlanRequest>,
    /// Since when it is free to begin, and does not for another reason.
    pub(super) free_since: Option<std::time::Instant>,
    /// The clock at the last look, and the time that nobody sets.
    clock: Option<(Timestamp, std::time::Instant)>,
    positions: HashMap<ActionId, usize>,
    /// Positions of the actions of each node.
    of_node: HashMap<NodeId, Vec<usize>>,
}

impl Live {
    pub(super) fn new(engine: Engine, request: Option<PlanRequest>) -> Self {
        let mut positions = HashMap::new();
        let mut of_node: HashMap<NodeId, Vec<usize>> = HashMap::new();
        for (position, action) in engine.run().plan.actions.iter().enumerate() {
            positions.insert(action.id.clone(), position);
            if let Some(node) = action.node {
                of_node.entry(node).or_default().push(position);
            }
        }
        Self {
            request,
            free_since: None,
            clock: None,
            positions,
            of_node,
            engine,
            attempts: HashMap::new(),
            unwritten: Vec::new(),
            to_do: Vec::new(),
            shown: None,
            taken_up: HashSet::new(),
        }
    }

    /// Where an action is in the plan.
    pub(super) fn position(&self, action: &ActionId) -> Option<usize> {
        self.positions.get(action).copied()
    }

    /// The actions of a node and how each stands.
    pub(super) fn of_node(&self, node: NodeId) -> impl Iterator<Item = (&Action, &Stand)> {
        let run = self.engine.run();
        let positions = self.of_node.get(&node).into_iter().flatten();
        let actions = positions.filter_map(|position| run.plan.actions.get(*position));
        actions.filter_map(|action| Some((action, run.actions.get(&action.id)?)))
    }

    /// All nodes it has actions for.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.of_node.keys().copied()
    }

    /// True when an action of the node may still change.
    pub(super) fn open(&self, node: NodeId) -> bool {
        self.of_node(node).any(|(_, stand)| !stand.settled())
    }

    /// Notices a clock that was set since the last look, as by the first answer of a time server to an appliance whose own
    /// clock stood: every attempt would be over its time at once, or every pause as long as the clock was set back.
    fn follow(&mut self, now: Timestamp) {
        let here = std::time::Instant::now();
        if let Some((at, then)) = self.clock.replace((now, here)) {
            let passed = i64::try_from(here.duration_since(then).as_millis()).unwrap_or(i64::MAX);
            let shown = i64::try_from(i128::from(now.0) - i128::from(at.0)).unwrap_or(i64::MAX);
            let set = shown.saturating_sub(passed);
            if set.unsigned_abs() >= CLOCK_SET {
                self.engine.shift(set);
            }
        }
    }

    /// Takes up what an earlier life had under way.
    pub(super) fn take_up(&mut self, now: Timestamp) {
        self.follow(now);
        let mut out = Vec::new();
        self.engine.take_up(now, &mut out);
        self.taken_up.extend(out.iter().filter_map(|one| match one {
            Output::Start(_, attempt) => Some(attempt.job.clone()),
            _ => None,
        }));
        self.take(out);
    }

    /// Takes an input. What may begin then begins when all runs are [settled](Inner::settle).
    pub(super) fn note(&mut self, now: Timestamp, input: Input) {
        self.follow(now);
        let mut out = Vec::new();
        self.engine.note(now, input, &mut out);
        self.take(out);
    }

    fn take(&mut self, out: Vec<Output>) {
        let run = self.engine.run();
        for one in &out {
            match one {
                Output::Journal(action, stand) => self.unwritten.push(memory::stand_entry(run.id, action, stand)),
                Output::JournalRun => self.unwritten.push(memory::head_entry(run, self.request.as_ref())),
                Output::Start(..) | Output::GiveUp(..) | Output::RunEnded => {}
            }
        }
        self.shown = None;
        self.to_do.extend(out);
    }
}

/// A job number nobody had before.
fn new_job() -> String {
    static COUNTER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    // Without randomness, time and counter still keep them apart.
    let random: [u8; 8] = rackbar_trust::random().unwrap_or_else(|_| now().0.to_be_bytes());
    format!(
        "{:016x}{:016x}",
        u64::from_be_bytes(random),
        count ^ now().0.rotate_left(20)
    )
}

/// The number as agents know it.
fn job_id(job: &str) -> JobId {
    JobId(u128::from_str_radix(job, 16).unwrap_or_default().to_be_bytes())
}

/// The driver's thread.
pub(super) fn run(inner: &Weak<Inner>, messages: &Receiver<Message>) {
    let mut looked = std::time::Instant::now();
    let mut wait = Duration::ZERO;
    loop {
        let first = match messages.recv_timeout(wait) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(inner) = inner.upgrade() else { return };
        let more = messages.try_iter().take(BATCH);
        let batch: Vec<Message> = first.into_iter().chain(more).collect();
        inner.turn(batch, now());
        if looked.elapsed() >= LOOK {
            looked = std::time::Instant::now();
            inner.look();
            inner.look_at_settings();
        }
        wait = inner.next_wait(now());
    }
}

impl Book {
    /// Lets runs begin what may begin, where there is room.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.live.values_mut().for_each(|live| live.follow(now));
        let engines = self.live.values_mut().map(|live| &mut live.engine);
        let mut begun: BTreeMap<RunId, Vec<Output>> = BTreeMap::new();
        engine::begin(engines, now, &mut new_job, &mut |run, one| {
            begun.entry(run).or_default().push(one);
        });
        for (run, out) in begun {
            if let Some(live) = self.live.get_mut(&run) {
                live.take(out);
            }
        }
    }

    /// What must be true of nodes before attempts that are to begin, or to be taken up, touch their machines: it goes into
    /// the commit before them. Done twice it is as done once. Of a node that people took out of its run, what is taken up
    /// only to be given up asks for nothing any more.
    pub(super) fn prepare(&mut self) {
        let mut begin = Vec::new();
        for (run, live) in &self.live {
            for output in &live.to_do {
                if let Output::Start(action, _) = output {
                    let at = live.position(action);
                    let action = at.and_then(|at| live.engine.run().plan.actions.get(at));
                    let of_node = action.and_then(|action| Some((action.node?, action.kind.clone())));
                    begin.extend(of_node.filter(|(node, _)| !self.taken_out(*run, *node)));
                }
            }
        }
        for (node, kind) in begin {
            let empties = matches!(
                kind,
                ActionKind::Erase { .. } | ActionKind::WriteImage { .. } | ActionKind::Installer { .. }
            );
            if empties {
                let print = self.work.get(&node).and_then(adopted::key_of).cloned();
                self.unneeded_keys.extend(print);
            }
            self.work(node, |work| super::nodes::before(work, &kind));
        }
    }
}

impl Inner {
    /// One round: takes what came, lets time pass, writes, and carries out.
    pub(super) fn turn(&self, batch: Vec<Message>, now: Timestamp) {
        let mut book = locked(&self.book);
        // Before anybody is asked what is due.
        book.live.values_mut().for_each(|live| live.follow(now));
        let mut ended: Vec<(NodeId, JobId)> = Vec::new();
        for message in batch {
            match message {
                Message::Ended { run, action, job, done } => {
                    let Some(action) = book.action(run, &action) else {
                        continue;
                    };
                    self.learn(&mut book, run, &action, &job, &done, now);
                    if let Some(live) = book.live.get_mut(&run) {
                        ended.extend(action.node.map(|node| (node, job_id(&job))));
                        let (action, result) = (action.id, done.result);
                        live.note(now, Input::Ended { action, job, result });
                    }
                }
                Message::Progress {
                    run,
                    action,
                    job,
                    progress,
                } => {
                    self.show_progress(&book, run, &action, &progress);
                    if let Some(live) = book.live.get_mut(&run) {
                        live.note(now, Input::Progress { action, job, progress });
                    }
                }
                Message::Wake => {}
            }
        }
        for live in book.live.values_mut() {
            if live.engine.deadline().is_some_and(|at| at <= now) {
                live.note(now, Input::Tick);
            }
        }
        let mut written = self.settle(&mut book, now);
        if written && self.begin_waiting(&mut book, now) {
            written = self.settle(&mut book, now);
        }
        if written {
            drop(book);
            for (node, job) in ended {
                self.hands.noted(node, job);
            }
        }
    }

    /// Begins what may begin, writes what is to be written, then does what is to be done. False when the disk refused:
    /// nothing is done then, and it is tried again.
    pub(super) fn settle(&self, book: &mut Book, now: Timestamp) -> bool {
        book.begin(now);
        loop {
            book.prepare();
            let mut entries = std::mem::take(&mut book.unwritten);
            entries.extend(
                book.live
                    .values_mut()
                    .flat_map(|live| std::mem::take(&mut live.unwritten)),
            );
            let told = self.to_be_told(book);
            if !(entries.is_empty() && told.is_empty())
                && let Err(error) = memory::write_and_tell(&self.rack, &entries, told)
            {
                book.unwritten = entries;
                if !std::mem::replace(&mut book.complained, true) {
                    let text = format!("no action is begun: what is done next cannot be written down: {error}");
                    let severity = Severity::Error;
                    self.rack.tell(None, EventKind::Note { text, severity });
                }
                return false;
            }
            book.complained = false;
            adopted::forget_keys(book, &self.store);
            let runs: Vec<RunId> = book.live.keys().copied().collect();
            for run in runs {
                let to_do = book.live.get_mut(&run).map(|live| std::mem::take(&mut live.to_do));
                for output in to_do.unwrap_or_default() {
                    self.carry_out(book, run, output);
                }
            }
            // Carrying out may have taught us something about nodes, which is to be written in turn.
            if book.unwritten.is_empty() {
                return true;
            }
        }
    }

    fn carry_out(&self, book: &mut Book, run: RunId, output: Output) {
        match output {
            Output::Journal(action, stand) => {
                if !matches!(stand, Stand::Running(_))
                    && let Some(live) = book.live.get_mut(&run)
                {
                    live.attempts.remove(&action);
                }
                self.told(book, run, &action, &stand);
            }
            // All there is to it was told with its record.
            Output::JournalRun => {}
            Output::Start(action, attempt) => self.begin(book, run, &action, &attempt),
            Output::GiveUp(action, _) => {
                let live = book.live.get(&run);
                if let Some(attempting) = live.and_then(|live| live.attempts.get(&action)) {
                    let _ = attempting.give_up.send(true);
                }
            }
            Output::RunEnded => {
                if let Some(live) = book.live.remove(&run) {
                    self.run_ended(book, &live);
                    book.ended.insert(run, Arc::new(live.engine.run().clone()));
                    book.forget_old_runs();
                }
            }
        }
    }

    fn begin(&self, book: &mut Book, run: RunId, action: &ActionId, attempt: &Attempt) {
        let Some(live) = book.live.get_mut(&run) else { return };
        let plan = live.engine.run().plan.clone();
        let Some(position) = live.position(action) else { return };
        let node = plan.actions.get(position).and_then(|action| action.node);
        let taken_up = live.taken_up.contains(&attempt.job);
        if taken_up {
            self.taken_up(book, run, action, attempt);
        }
        let role = match plan.scope.replace_adopted {
            // Installed by name: what its rules bind it to has no say.
            true => Some(INSTALL_ROLE.to_owned()),
            false => node.and_then(|node| self.rack.node_by_id(node)?.role.clone()),
        };
        // Who is around a node counts for its checks alone, and to look is work.
        let checks = |action: &&Action| matches!(action.kind, ActionKind::Verify { .. });
        let leased = plan.actions.get(position).filter(checks).map(|_| self.rack.leased());
        let off = |node| {
            self.rack
                .node_by_id(node)
                .is_some_and(|node| node.power == PowerState::Off)
        };
        let around = leased.as_ref().map(|leased| (leased, &off as &dyn Fn(NodeId) -> bool));
        let system = node.map(|node| super::nodes::system(book, node, role.as_deref(), around));
        let system = system.unwrap_or_default();
        let (give_up, told) = watch::channel(false);
        let progress = self.reporter(run, action, &attempt.job);
        let task = Task {
            run,
            position,
            node: node.and_then(|node| self.rack.node_by_id(node)),
            system,
            job: job_id(&attempt.job),
            attempt: attempt.number,
            taken_up,
            progress,
            give_up: told,
            plan,
        };
        let (hands, messages) = (self.hands.clone(), self.messages.clone());
        let (name, job) = (action.clone(), attempt.job.clone());
        let work = async move {
            let done = hands.carry_out(task).await;
            // Fails when the executor is gone, and then nobody waits.
            let _ = messages.send(Message::Ended {
                run,
                action: name,
                job,
                done,
            });
        };
        let handle = self.runtime.spawn(work).abort_handle();
        let attempting = Attempting {
            job: attempt.job.clone(),
            give_up,
            handle,
        };
        if let Some(live) = book.live.get_mut(&run) {
            live.attempts.insert(action.clone(), attempting);
        }
    }

    fn reporter(&self, run: RunId, action: &ActionId, job: &str) -> Arc<dyn Fn(Progress) + Send + Sync> {
        let messages: Sender<Message> = self.messages.clone();
        let (action, job) = (action.clone(), job.to_owned());
        Arc::new(move |progress| {
            let (action, job) = (action.clone(), job.clone());
            let _ = messages.send(Message::Progress {
                run,
                action,
                job,
                progress,
            });
        })
    }

    /// How long the driver may sleep.
    pub(super) fn next_wait(&self, now: Timestamp) -> Duration {
        let book = locked(&self.book);
        let deadline = book.live.values().filter_map(|live| live.engine.deadline()).min();
        let until = deadline.map(|at| Duration::from_millis(at.0.saturating_sub(now.0)));
        until.map_or(LOOK, |until| until.min(LOOK))
    }

    /// True when an attempt has this job number.
    pub(super) fn is_under_way(book: &Book, run: RunId, action: &ActionId, job: &str) -> bool {
        let live = book.live.get(&run);
        live.and_then(|live| live.attempts.get(action))
            .is_some_and(|one| one.job == job)
    }
}

#[cfg(test)]
mod tests {
    use rackbar_plan::{Limits, Target};

    use super::*;

    #[test]
    fn an_attempt_is_not_over_its_time_because_the_clock_was_set() {
        let mut plan = super::super::left::unknown_plan(RunId(1));
        plan.actions[0].kind = ActionKind::Agent { fresh: false };
        plan.actions[0].target = Target::Node(NodeId([1; 16]));
        plan.actions[0].limits = Limits { seconds: 600, tries: 1 };
        for (first, then) in [(0, 1_900_000_000_000), (1_900_000_000_000, 0)] {
            let run = Run::new(RunId(1), Arc::new(plan.clone()), "anna", Timestamp(first));
            let engine = Engine::new(run, rackbar_plan::engine::Bounds::default()).unwrap();
            let mut book = Book::default();
            book.live.insert(RunId(1), Live::new(engine, None));
            book.begin(Timestamp(first));
            let live = book.live.get_mut(&RunId(1)).unwrap();
            assert!(live.to_do.iter().any(|one| matches!(one, Output::Start(..))));
            live.to_do.clear();
            live.note(Timestamp(then), Input::Tick);
            assert!(live.to_do.is_empty(), "{:?}", live.to_do);
            // The time it may take is still before it, and no more.
            let left = live.engine.deadline().unwrap().0 - then;
            assert!((590_000..=600_000).contains(&left), "{left}");
        }
    }
}
