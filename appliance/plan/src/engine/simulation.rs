//! Whole runs in a made-up rack, seeded: agents that are lost, actions that fail or hang, orders at any moment, and an
//! appliance that is killed between any two outputs. One number is one story; a failure names it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rackbar_model::{NodeId, Timestamp};

use super::tests::{action, plan, service};
use super::{Bounds, Engine, Failure, Input, Output};
use crate::{ActionId, ActionKind, Attempt, Outcome, Plan, Run, RunId, RunState, Stand, Target};

/// SplitMix64 (Steele, Lea and Flood 2014): a whole story from one number.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a machine's agent did: it outlives the appliance.
#[derive(Default)]
struct Agents {
    /// Jobs that were begun, and what came of each. One number, one execution.
    executed: BTreeMap<String, Result<(), bool>>,
    /// The numbers under which each action was executed.
    executions: BTreeMap<ActionId, Vec<String>>,
}

/// A job under way: when it ends, and whether its end is told.
struct Job {
    action: ActionId,
    ends: Option<Timestamp>,
    hears: bool,
}

struct World {
    dice: Dice,
    now: Timestamp,
    plan: Arc<Plan>,
    /// What is on the disk.
    journal: Run,
    engine: Engine,
    agents: Agents,
    /// Of this life of the appliance: who waits for which job.
    jobs: BTreeMap<String, Job>,
    /// Numbers of attempts that the journal gave up or saw fail: only behind those may another be begun.
    over: BTreeSet<String>,
    /// How likely trouble is, one in so many.
    trouble: u64,
    kills: u32,
    numbers: u64,
    ended: bool,
    bounds: Bounds,
}

/// A rack of machines with the usual way each, sometimes with barriers or batches between.
fn rack(dice: &mut Dice) -> Plan {
    let kinds = [
        "agent",
        "disk.erase",
        "os.write",
        "os.setup",
        "boot.order",
        "restart",
        "verify",
    ];
    let mut actions = Vec::new();
    let nodes = 1 + dice.below(5);
    let served = dice.one_in(3);
    if served {
        let mut one = service("lan/dns");
        one.limits.seconds = 60 + dice.below(600) as u32;
        one.limits.tries = 2 + dice.below(5) as u32;
        actions.push(one);
    }
    for node in 0..nodes {
        let mut needs: Vec<String> = Vec::new();
        if node > 0 && dice.one_in(3) {
            needs.push(format!("n{}/verify", node - 1));
        }
        for kind in kinds {
            let name = format!("n{node}/{kind}");
            if served && kind == "verify" && !dice.one_in(3) {
                needs.push("lan/dns".to_owned());
            }
            let mut one = action(
                &name,
                node as u8,
                kind,
                &needs.iter().map(String::as_str).collect::<Vec<_>>(),
            );
            one.limits.seconds = 60 + dice.below(600) as u32;
            one.limits.tries = 1 + dice.below(4) as u32;
            actions.push(one);
            needs = vec![name];
        }
    }
    if dice.one_in(2) {
        let needs: Vec<String> = (0..nodes).map(|node| format!("n{node}/verify")).collect();
        let mut barrier = action(
            "all/barrier",
            0,
            "barrier",
            &needs.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        barrier.node = None;
        barrier.target = Target::Rack;
        actions.push(barrier);
        actions.push(action("n0/step", 0, "step", &["all/barrier"]));
    }
    plan(actions)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let plan = Arc::new(rack(&mut dice));
        let now = Timestamp(1_000_000);
        let journal = Run::new(RunId(1), plan.clone(), "test", now);
        let bounds = Bounds {
            at_once: 1 + dice.below(8) as usize,
            kinds: BTreeMap::from([("os.write", 1 + dice.below(2) as usize)]),
            ..Bounds::default()
        };
        let engine = Engine::new(journal.clone(), bounds.clone()).unwrap();
        let trouble = 3 + dice.below(40);
        Self {
            dice,
            now,
            plan,
            journal,
            engine,
            agents: Agents::default(),
            jobs: BTreeMap::new(),
            over: BTreeSet::new(),
            trouble,
            kills: 0,
            numbers: 0,
            ended: false,
            bounds,
        }
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        let numbers = &mut self.numbers;
        let mut job = || {
            *numbers += 1;
            format!("{numbers:032x}")
        };
        self.engine.step(self.now, input, &mut job, &mut out);
        self.carry_out(out);
    }

    /// Carries out, and is killed in between now and then.
    fn carry_out(&mut self, out: Vec<Output>) {
        // All records of one step are one commit.
        let killed_before = self.kills < 20 && self.dice.one_in(self.trouble * 4);
        if killed_before {
            return self.kill();
        }
        for one in &out {
            match one {
                Output::Journal(action, stand) => {
                    let before = self.journal.actions.insert(action.clone(), stand.clone());
                    assert!(
                        !matches!(before, Some(Stand::Done { .. })) || before.as_ref() == Some(stand),
                        "{action} was done and is now {stand:?}"
                    );
                    if let (Some(Stand::Running(attempt)), Stand::Again { .. } | Stand::Failed { .. }) = (before, stand)
                    {
                        self.over.insert(attempt.job);
                    }
                }
                Output::JournalRun => {
                    let run = self.engine.run();
                    self.journal.state = run.state;
                    self.journal.ended = run.ended;
                    self.journal.cancelled.clone_from(&run.cancelled);
                    self.journal.excluded.clone_from(&run.excluded);
                }
                _ => {}
            }
        }
        for one in out {
            if self.kills < 20 && self.dice.one_in(self.trouble * 4) {
                return self.kill();
            }
            match one {
                Output::Start(action, attempt) => self.start(action, attempt),
                Output::GiveUp(_, attempt) => self.give_up(&attempt),
                Output::RunEnded => self.ended = true,
                Output::Journal(..) | Output::JournalRun => {}
            }
        }
    }

    /// The appliance is gone; the journal and the agents are not.
    fn kill(&mut self) {
        self.kills += 1;
        self.jobs.clear();
        self.now = self.now.plus(self.dice.below(600_000));
        self.engine = Engine::new(self.journal.clone(), self.bounds.clone()).unwrap();
        self.ended = self.journal.ended.is_some();
        let mut out = Vec::new();
        self.engine.take_up(self.now, &mut out);
        self.carry_out(out);
    }

    fn start(&mut self, id: ActionId, attempt: Attempt) {
        let action = self.plan.actions.iter().find(|one| one.id == id).unwrap();
        for need in &action.needs {
            let stand = &self.journal.actions[need];
            assert!(
                matches!(stand, Stand::Done { .. }),
                "{id} began while {need} is {stand:?}"
            );
        }
        let Stand::Running(written) = &self.journal.actions[&id] else {
            panic!("{id} began, and the journal does not say so");
        };
        assert_eq!(written.job, attempt.job, "{id}: the journal has another job");
        let busy = self.jobs.values().filter(|job| job.hears).any(|job| {
            let other = self.plan.actions.iter().find(|one| one.id == job.action).unwrap();
            other.target == action.target
        });
        assert!(!busy, "{id} began while its target was at work");
        // The agent runs a number once, however often it is asked for.
        if !self.agents.executed.contains_key(&attempt.job) {
            let numbers = self.agents.executions.entry(id.clone()).or_default();
            let open = numbers.iter().find(|job| !self.over.contains(*job));
            assert_eq!(open, None, "{id} is done twice: its attempt before is not over");
            numbers.push(attempt.job.clone());
            let fails = self.dice.one_in(self.trouble);
            let result = if fails { Err(self.dice.one_in(2)) } else { Ok(()) };
            self.agents.executed.insert(attempt.job.clone(), result);
        }
        let hangs = self.dice.one_in(self.trouble * 2);
        let ends = (!hangs).then(|| self.now.plus(1_000 + self.dice.below(400_000)));
        let job = Job {
            action: id,
            ends,
            hears: true,
        };
        self.jobs.insert(attempt.job, job);
    }

    fn give_up(&mut self, attempt: &Attempt) {
        let listens = !self.dice.one_in(4);
        let at = self.now.plus(self.dice.below(20_000));
        if let Some(job) = self.jobs.get_mut(&attempt.job) {
            // One that does not listen is lost: from now on it may still end, and nobody waits for it.
            job.hears = listens;
            if listens {
                job.ends = Some(at);
                self.agents.executed.insert(attempt.job.clone(), Err(true));
            }
        }
    }

    fn order(&mut self) {
        let node = NodeId([self.dice.below(3) as u8; 16]);
        match self.dice.below(8) {
            0 if self.dice.one_in(4) => self.step(Input::Cancel { by: "operator".into() }),
            1 => self.step(Input::Exclude {
                node,
                reason: "recovered by operator".into(),
            }),
            2 | 3 => self.step(Input::Pause),
            _ => self.step(Input::Resume),
        }
    }

    /// One thing happens.
    fn turn(&mut self) {
        if self.dice.one_in(self.trouble) {
            self.order();
        }
        if self.engine.run().state == RunState::Paused && self.jobs.is_empty() {
            return self.step(Input::Resume);
        }
        let first = self
            .jobs
            .iter()
            .filter_map(|(number, job)| Some((job.ends?, number.clone())))
            .min();
        let deadline = self.engine.deadline();
        match (first, deadline) {
            (Some((at, number)), deadline) if deadline.is_none_or(|deadline| at <= deadline) => {
                self.now = self.now.max(at);
                let job = self.jobs.remove(&number).unwrap();
                let result = match self.agents.executed[&number] {
                    Ok(()) => Ok(Outcome::default()),
                    Err(again) => Err(Failure {
                        reason: "it broke".into(),
                        advice: String::new(),
                        again,
                    }),
                };
                self.step(Input::Ended {
                    action: job.action,
                    job: number,
                    result,
                });
            }
            (_, Some(deadline)) => {
                self.now = self.now.max(deadline);
                self.step(Input::Tick);
            }
            (_, None) => self.step(Input::Tick),
        }
        // Whoever was given up and did not listen is forgotten once its time is over.
        let running: BTreeSet<String> = self
            .engine
            .run()
            .actions
            .values()
            .filter_map(|stand| match stand {
                Stand::Running(attempt) => Some(attempt.job.clone()),
                _ => None,
            })
            .collect();
        self.jobs.retain(|number, _| running.contains(number));
    }

    fn check_end(&self) {
        let run = self.engine.run();
        assert_eq!(
            run.actions, self.journal.actions,
            "what is remembered is what was written down"
        );
        assert!(run.actions.values().all(Stand::settled));
        let numbers: Vec<&String> = self.agents.executions.values().flatten().collect();
        let different: BTreeSet<&String> = numbers.iter().copied().collect();
        assert_eq!(numbers.len(), different.len(), "one number was given to two actions");
        let all_done = run.actions.values().all(|stand| matches!(stand, Stand::Done { .. }));
        match run.state {
            RunState::Done => assert!(all_done),
            RunState::Cancelled => assert!(run.cancelled.is_some()),
            RunState::Failed => {
                assert!(!all_done);
                for stand in run.actions.values() {
                    match stand {
                        Stand::Failed { reason, advice, .. } => assert!(!reason.is_empty() && !advice.is_empty()),
                        Stand::Skipped { reason } => assert!(!reason.is_empty()),
                        _ => {}
                    }
                }
            }
            RunState::Going | RunState::Paused | RunState::Waiting | RunState::Superseded => {
                panic!("it ended and is {:?}", run.state)
            }
        }
    }
}

fn story(seed: u64) -> (RunState, u32) {
    let mut world = World::new(seed);
    world.step(Input::Tick);
    for turn in 0.. {
        if world.ended {
            break;
        }
        assert!(
            turn < 20_000,
            "story {seed} does not end: {:#?}",
            world.engine.run().actions
        );
        world.turn();
    }
    world.check_end();
    (world.engine.run().state, world.kills)
}

#[test]
fn thousands_of_runs_with_faults_all_end_and_do_nothing_twice() {
    let mut ends = BTreeMap::new();
    let mut killed = 0;
    for seed in 0..4_000 {
        let (state, kills) = std::panic::catch_unwind(|| story(seed)).unwrap_or_else(|_| panic!("story {seed}"));
        *ends.entry(state.name()).or_insert(0) += 1;
        killed += kills;
    }
    // The stories are worth something only when every end occurs, and kills did.
    assert!(
        ends["done"] > 200 && ends["failed"] > 500 && ends["cancelled"] > 20,
        "{ends:?}"
    );
    assert!(killed > 1_000, "{killed}");
}

#[test]
fn killed_at_every_single_output_a_run_still_ends_well() {
    // No faults but one kill, after each number of carried-out outputs in turn.
    for cut in 0..60 {
        let plan = Arc::new(rack(&mut Dice(7)));
        let mut journal = Run::new(RunId(1), plan.clone(), "test", Timestamp(1));
        let mut engine = Engine::new(journal.clone(), Bounds::default()).unwrap();
        let (mut carried, mut killed, mut number) = (0, false, 0u64);
        let mut executed: BTreeMap<String, ActionId> = BTreeMap::new();
        let mut waiting: Vec<(ActionId, String)> = Vec::new();
        let mut input = Input::Tick;
        while journal.ended.is_none() {
            let mut out = Vec::new();
            let mut job = || {
                number += 1;
                format!("{number:032x}")
            };
            engine.step(Timestamp(2), input.clone(), &mut job, &mut out);
            let mut dead = false;
            for one in out {
                if carried == cut && !killed {
                    (killed, dead) = (true, true);
                    break;
                }
                carried += 1;
                match one {
                    Output::Journal(action, stand) => drop(journal.actions.insert(action, stand)),
                    Output::JournalRun => (journal.state, journal.ended) = (engine.run().state, engine.run().ended),
                    Output::Start(action, attempt) => {
                        executed.insert(attempt.job.clone(), action.clone());
                        waiting.push((action, attempt.job));
                    }
                    Output::GiveUp(..) | Output::RunEnded => {}
                }
            }
            if dead {
                waiting.clear();
                engine = Engine::new(journal.clone(), Bounds::default()).unwrap();
                let mut out = Vec::new();
                engine.take_up(Timestamp(3), &mut out);
                for one in out {
                    match one {
                        Output::Start(action, attempt) => {
                            executed.insert(attempt.job.clone(), action.clone());
                            waiting.push((action, attempt.job));
                        }
                        Output::Journal(action, stand) => drop(journal.actions.insert(action, stand)),
                        other => panic!("{other:?} of a run without faults"),
                    }
                }
            }
            input = match waiting.pop() {
                Some((action, job)) => Input::Ended {
                    action,
                    job,
                    result: Ok(Outcome::default()),
                },
                None => Input::Tick,
            };
        }
        assert_eq!(journal.state, RunState::Done, "cut after {cut}");
        let real = plan
            .actions
            .iter()
            .filter(|one| !matches!(one.kind, ActionKind::Barrier { .. }));
        assert_eq!(executed.len(), real.count(), "cut after {cut}: each action has one job");
    }
}
