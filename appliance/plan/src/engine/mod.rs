//! The engine that walks a committed plan. Sans-IO: it takes the time and an input, changes the [`Run`], and pushes
//! outputs, which are carried out in order.
//!
//! ```text
//!   Waiting ──needs done, room──▶ Running ──well──▶ Done
//!      │                           │   ▲
//!      │                      badly│   │due
//!      │                           ▼   │
//!      │                          Again┘
//!      │                           └──no try left, or no use──▶ Failed ──▶ whoever needs it: Skipped
//!      └──cancelled, node taken out, a need failed──▶ Skipped
//! ```
//!
//! What must stay true:
//! - [`Output::Journal`] comes before the [`Output::Start`] it speaks of, and is durable before that is carried out. An
//!   attempt that the journal calls running may thus have begun or not; after a kill it is taken up again under the same
//!   job number, and whoever does the work answers for one number once.
//! - Two actions on one target never run together, at most [`Bounds::at_once`] run in all, and at most
//!   [`Bounds::kinds`] of one kind: counted over all runs that share a [`Room`].
//! - Room that is free goes to the run with the least under way of those that can use it, so none waits for another to be
//!   nearly over ([`begin`]).
//! - A failure takes down what needs it and nothing else. When nothing can go on, the run ends.
//! - One node belongs to one run: a later run that takes it over waits until the earlier one has let go ([`may_begin`]).
//! - An attempt over its time is told to give up. It keeps its target until it says it has, or until
//!   [`Bounds::grace`] is over: then whatever it was is lost.

mod graph;
mod room;
mod settle;
mod share;
#[cfg(test)]
mod shared;
#[cfg(test)]
mod simulation;
mod takeover;
#[cfg(test)]
mod takeovers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rackbar_model::{NodeId, Timestamp};

use crate::site::RunLimits;
use crate::{Action, ActionId, ActionKind, Attempt, Outcome, Progress, Run, RunId, RunState, Stand, Target};
use graph::Graph;

pub use graph::BadPlan;
pub use room::Room;
pub use share::begin;
pub use takeover::may_begin;

/// How much runs at once, and how long to wait between tries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Actions in the whole rack.
    pub at_once: usize,
    /// Actions of one kind, by [`ActionKind::name`]; kinds that are not named are bounded by `at_once` alone.
    pub kinds: BTreeMap<&'static str, usize>,
    /// Milliseconds before the second try, doubled with each further one.
    pub first_pause: u64,
    /// The longest such pause in milliseconds.
    pub longest_pause: u64,
    /// Milliseconds an attempt that was told to give up may take to do so.
    pub grace: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            at_once: 512,
            // Sixteen writers fill a 10 Gbit/s uplink with images for ordinary SSDs; more only makes each slower.
            kinds: BTreeMap::from([("os.write", 16), ("agent", 64), ("agent.restart", 64)]),
            first_pause: 5_000,
            longest_pause: 5 * 60_000,
            grace: 60_000,
        }
    }
}

impl Bounds {
    /// These, and where a plan says otherwise what it says.
    fn under(mut self, limits: &RunLimits) -> Self {
        if let Some(most) = limits.at_once {
            // A site that was checked has none; with no place a run would stand for ever.
            self.at_once = usize::from(most).max(1);
        }
        for kind in ActionKind::NAMES {
            if let Some(most) = limits.kinds.get(kind) {
                self.kinds.insert(kind, usize::from(*most).max(1));
            }
        }
        self
    }
}

/// Why an attempt failed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Failure {
    /// What failed, where, why.
    pub reason: String,
    /// What to do; may be empty.
    pub advice: String,
    /// Trying again may help.
    pub again: bool,
}

/// What happens to a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    /// An attempt ended.
    Ended {
        /// The action.
        action: ActionId,
        /// The attempt's job number; an end that comes too late has another one and is passed over.
        job: String,
        /// What came of it.
        result: Result<Outcome, Failure>,
    },
    /// How far an attempt is.
    Progress {
        /// The action.
        action: ActionId,
        /// The attempt's job number.
        job: String,
        /// How far.
        progress: Progress,
    },
    /// Begin nothing new.
    Pause,
    /// Go on.
    Resume,
    /// Give the run up.
    Cancel {
        /// Who wants that.
        by: String,
    },
    /// Take a node out of the run.
    Exclude {
        /// The node.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// A later run takes nodes over: as [`Input::Exclude`], and no failure of this run.
    Supersede {
        /// The nodes.
        nodes: BTreeSet<NodeId>,
        /// The later run.
        by: RunId,
    },
    /// The earlier runs have let go: a run in [`RunState::Waiting`] goes, or is paused where that was ordered meanwhile.
    Begin,
    /// A run in [`RunState::Waiting`] cannot begin any more.
    Drop {
        /// Why.
        reason: String,
    },
}

/// What is to be done, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Write down how an action stands.
    Journal(ActionId, Stand),
    /// Write down the run itself: its state, who cancelled it, who was taken out.
    JournalRun,
    /// Carry out an attempt.
    Start(ActionId, Attempt),
    /// Tell an attempt to end at the next safe point.
    GiveUp(ActionId, Attempt),
    /// Nothing runs any more.
    RunEnded,
}

/// An attempt that runs.
#[derive(Clone, Debug)]
struct UnderWay {
    attempt: Attempt,
    /// When it is told to give up, or once that was done, when it is lost.
    until: Timestamp,
    /// Why it was told to give up.
    giving_up: Option<String>,
}

/// A run under way.
#[derive(Debug)]
pub struct Engine {
    run: Run,
    bounds: Bounds,
    room: Room,
    graph: Graph,
    /// Needs that are not met, by position.
    unmet: Vec<usize>,
    /// May begin when there is room.
    ready: BTreeSet<usize>,
    /// Barriers that are met.
    met: BTreeSet<usize>,
    /// May begin, and their kind had no room at the last look: not looked at again before one of it ends.
    crowded: BTreeMap<&'static str, BTreeSet<usize>>,
    /// Tried before, and when the next try is due.
    due: BTreeSet<(Timestamp, usize)>,
    under_way: BTreeMap<usize, UnderWay>,
    ends: BTreeSet<(Timestamp, usize)>,
    targets: HashSet<Target>,
    /// Actions that are not settled.
    open: usize,
    /// Positions of the services: a handful.
    services: Vec<usize>,
    /// When it last began something, counted over all runs that share the room.
    began: u64,
}

impl Engine {
    /// An engine for a new run or one of the journal, alone in its rack. Attempts that were under way are started again by
    /// the next [`Self::step`], under their own job numbers, with their whole time before them.
    ///
    /// # Errors
    /// When the plan is no graph.
    pub fn new(run: Run, bounds: Bounds) -> Result<Self, BadPlan> {
        Self::within(run, bounds, Room::default())
    }

    /// The same in a rack where other runs may be under way: what these bounds allow is shared with all that have the same
    /// `room`. Whoever drives them [notes](Self::note) inputs, and then has all of them together [`begin`].
    ///
    /// # Errors
    /// When the plan is no graph.
    pub fn within(run: Run, bounds: Bounds, room: Room) -> Result<Self, BadPlan> {
        let graph = Graph::new(&run.plan)?;
        let bounds = bounds.under(&run.plan.limits);
        let mut engine = Self {
            unmet: vec![0; run.plan.actions.len()],
            run,
            bounds,
            room,
            graph,
            ready: BTreeSet::new(),
            met: BTreeSet::new(),
            crowded: BTreeMap::new(),
            due: BTreeSet::new(),
            under_way: BTreeMap::new(),
            ends: BTreeSet::new(),
            targets: HashSet::new(),
            open: 0,
            services: Vec::new(),
            began: 0,
        };
        let plan = engine.run.plan.clone();
        for (position, action) in plan.actions.iter().enumerate() {
            let stand = engine.run.actions.entry(action.id.clone()).or_insert(Stand::Waiting);
            engine.open += usize::from(!stand.settled());
            if matches!(action.kind, ActionKind::Service(_)) {
                engine.services.push(position);
            }
            let done = |need: &&usize| !engine.is_done(**need);
            let unmet = engine
                .graph
                .needs
                .get(position)
                .map_or(0, |needs| needs.iter().filter(done).count());
            if let Some(slot) = engine.unmet.get_mut(position) {
                *slot = unmet;
            }
            match engine.run.actions.get(&action.id) {
                Some(Stand::Waiting) if unmet == 0 => engine.make_ready(position),
                Some(Stand::Again { due, .. }) => drop(engine.due.insert((*due, position))),
                _ => {}
            }
        }
        Ok(engine)
    }

    /// The run as it stands.
    pub const fn run(&self) -> &Run {
        &self.run
    }

    /// True when something could begin if there is room: [`begin`] is then to be asked with all runs of which that is true.
    pub fn wants_room(&self) -> bool {
        self.run.state == RunState::Going && !(self.ready.is_empty() && self.crowded.is_empty() && self.met.is_empty())
    }

    /// When [`Self::step`] next wants to be called with [`Input::Tick`]; `None` when only an end or an order moves the
    /// run.
    pub fn deadline(&self) -> Option<Timestamp> {
        let due = self.due.first().filter(|_| self.run.state == RunState::Going);
        let due = due.map(|(at, _)| *at);
        let end = self.ends.first().map(|(at, _)| *at);
        due.into_iter().chain(end).min()
    }

    /// The clock was set, by so many milliseconds: what is left of limits and pauses stays what it was.
    pub fn shift(&mut self, millis: i64) {
        let moved = |at: Timestamp| match u64::try_from(millis) {
            Ok(on) => at.plus(on),
            Err(_) => Timestamp(at.0.saturating_sub(millis.unsigned_abs())),
        };
        self.under_way.values_mut().for_each(|one| one.until = moved(one.until));
        for all in [&mut self.ends, &mut self.due] {
            *all = std::mem::take(all).into_iter().map(|(at, n)| (moved(at), n)).collect();
        }
        for stand in self.run.actions.values_mut() {
            if let Stand::Again { due, .. } = stand {
                *due = moved(*due);
            }
        }
    }

    /// Takes up what an earlier life of the appliance had under way. Once, before the first [`Self::step`].
    pub fn take_up(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let plan = self.run.plan.clone();
        for (position, action) in plan.actions.iter().enumerate() {
            if let Some(Stand::Running(attempt)) = self.run.actions.get(&action.id) {
                let attempt = attempt.clone();
                self.occupy(now, position, action, attempt.clone());
                out.push(Output::Start(action.id.clone(), attempt));
            } else if matches!(
                self.run.actions.get(&action.id),
                Some(Stand::Failed { .. } | Stand::Skipped { .. })
            ) {
                self.fell(position, out);
            }
        }
        // A clock that was set back must not make a pause of seconds one of years.
        let latest = now.plus(self.bounds.longest_pause);
        self.due = std::mem::take(&mut self.due)
            .into_iter()
            .map(|(at, n)| (at.min(latest), n))
            .collect();
        if let Some(by) = self.run.cancelled.clone() {
            self.give_all_up(now, None, &format!("the run was cancelled by {by}"), out);
        }
        for (node, reason) in self.run.excluded.clone() {
            self.give_all_up(now, Some(node), &reason, out);
        }
    }

    /// Takes an input, and begins what may begin: of a run that is alone in its rack. `job` makes job numbers: 32 hexadecimal
    /// digits, never the same twice.
    pub fn step(&mut self, now: Timestamp, input: Input, job: &mut dyn FnMut() -> String, out: &mut Vec<Output>) {
        self.note(now, input, out);
        begin([&mut *self], now, job, &mut |_, one| out.push(one));
    }

    /// Takes an input, and begins nothing: that is [`begin`]'s, once all inputs of a moment were noted in all runs of the rack.
    pub fn note(&mut self, now: Timestamp, input: Input, out: &mut Vec<Output>) {
        if self.run.ended.is_some() {
            return;
        }
        match input {
            Input::Tick => {}
            Input::Ended { action, job, result } => self.ended(now, &action, &job, result, out),
            Input::Progress { action, job, progress } => self.progress(&action, &job, progress),
            Input::Pause if self.run.state == RunState::Going => self.turn(RunState::Paused, out),
            Input::Resume if self.run.state == RunState::Paused && self.run.cancelled.is_none() => {
                self.turn(RunState::Going, out);
            }
            // Paused before it begins, it begins paused: who wants nothing new begun does not mean "unless it may soon".
            Input::Pause if self.run.state == RunState::Waiting => self.hold(true, out),
            Input::Resume if self.run.state == RunState::Waiting => self.hold(false, out),
            Input::Pause | Input::Resume => {}
            Input::Cancel { by } => self.cancel(now, &by, out),
            Input::Exclude { node, reason } => self.exclude(now, node, reason, out),
            Input::Supersede { nodes, by } => self.supersede(now, &nodes, by, out),
            Input::Begin if self.run.state == RunState::Waiting => {
                let held = std::mem::take(&mut self.run.held);
                self.turn(if held { RunState::Paused } else { RunState::Going }, out);
            }
            Input::Drop { reason } if self.run.state == RunState::Waiting => self.give_all_up(now, None, &reason, out),
            Input::Begin | Input::Drop { .. } => {}
        }
        self.watch_limits(now, out);
        if self.run.state == RunState::Going {
            self.come_due(now);
            self.pass_barriers(now, out);
        }
        self.drop_unneeded(now, out);
        self.finish(now, out);
    }

    fn turn(&mut self, state: RunState, out: &mut Vec<Output>) {
        self.run.state = state;
        out.push(Output::JournalRun);
    }

    /// Whether a run that waits begins paused.
    fn hold(&mut self, held: bool, out: &mut Vec<Output>) {
        if self.run.held != held && self.run.cancelled.is_none() {
            self.run.held = held;
            out.push(Output::JournalRun);
        }
    }

    fn action(&self, position: usize) -> Option<&Action> {
        self.run.plan.actions.get(position)
    }

    fn is_done(&self, position: usize) -> bool {
        let stand = self
            .action(position)
            .and_then(|action| self.run.actions.get(&action.id));
        matches!(stand, Some(Stand::Done { .. }))
    }

    fn progress(&mut self, action: &ActionId, job: &str, progress: Progress) {
        if let Some(Stand::Running(attempt)) = self.run.actions.get_mut(action)
            && attempt.job == job
        {
            attempt.progress = Some(progress);
        }
    }

    /// Pauses that are over.
    fn come_due(&mut self, now: Timestamp) {
        while let Some(&(at, position)) = self.due.first() {
            if at > now {
                break;
            }
            self.due.pop_first();
            self.ready.insert(position);
        }
    }

    /// A barrier that is met lets others begin at once, other barriers among them; those come behind it.
    fn pass_barriers(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let plan = self.run.plan.clone();
        while let Some(position) = self.met.pop_first() {
            if let Some(ActionKind::Barrier { name }) = plan.actions.get(position).map(|action| &action.kind) {
                let outcome = Outcome {
                    summary: format!("all that {name} waits for is done"),
                    ..Outcome::default()
                };
                self.done(now, position, 1, outcome, out);
            }
        }
    }

    /// All that the action at `position` needs is done.
    fn make_ready(&mut self, position: usize) {
        let barrier = matches!(
            self.action(position).map(|action| &action.kind),
            Some(ActionKind::Barrier { .. })
        );
        if barrier {
            self.met.insert(position);
        } else {
            self.ready.insert(position);
        }
    }

    /// True when nothing else is at work on its target.
    fn is_free(&self, action: &Action) -> bool {
        action.target == Target::Rack || !self.targets.contains(&action.target)
    }

    fn occupy(&mut self, now: Timestamp, position: usize, action: &Action, attempt: Attempt) {
        let until = now.plus(u64::from(action.limits.seconds).saturating_mul(1_000));
        let one = UnderWay {
            attempt,
            until,
            giving_up: None,
        };
        self.under_way.insert(position, one);
        self.ends.insert((until, position));
        self.targets.insert(action.target.clone());
        self.began = self.room.take(action.kind.name());
    }

    fn release(&mut self, position: usize) -> Option<UnderWay> {
        let one = self.under_way.remove(&position)?;
        self.ends.remove(&(one.until, position));
        let action = self.run.plan.actions.get(position)?;
        self.targets.remove(&action.target);
        self.room.give(action.kind.name());
        Some(one)
    }

    /// Sets how an action stands, and has it written down.
    fn stand(&mut self, position: usize, stand: Stand, out: &mut Vec<Output>) {
        let Some(id) = self.action(position).map(|action| action.id.clone()) else {
            return;
        };
        let settled = stand.settled();
        let before = self.run.actions.insert(id.clone(), stand.clone());
        if settled && !before.is_some_and(|before| before.settled()) {
            self.open = self.open.saturating_sub(1);
        }
        out.push(Output::Journal(id, stand));
    }
}
