//! Nodes that change hands between runs, seeded: commits at any moment, machines that fail, hang or do not listen, and an
//! appliance that is killed between any two outputs. One number is one story; a failure names it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rackbar_model::{NodeId, Timestamp};

use super::simulation::Dice;
use super::tests::{action, plan};
use super::{Attempt, Bounds, Engine, Failure, Input, Output, may_begin};
use crate::{ActionId, ActionKind, Outcome, Plan, Run, RunId, RunState, Stand};

const NODES: u8 = 3;
const KINDS: [&str; 5] = ["agent", "disk.erase", "os.write", "restart", "verify"];

struct Job {
    run: RunId,
    action: ActionId,
    node: NodeId,
    destroys: bool,
    ends: Option<Timestamp>,
    /// False once it was told to end and does not listen: the engine counts it for lost when its grace is over.
    hears: bool,
}

#[derive(Default)]
struct World {
    now: Timestamp,
    /// What is on the disk.
    journal: BTreeMap<RunId, Run>,
    engines: BTreeMap<RunId, Engine>,
    jobs: BTreeMap<String, Job>,
    /// What each job number came to at its machine: it is carried out once.
    executed: BTreeMap<String, Result<(), bool>>,
    numbers: u64,
    kills: u32,
    commits: u64,
}

/// The usual way of some nodes, sometimes one behind the other.
fn some_plan(dice: &mut Dice) -> Plan {
    let mut actions = Vec::new();
    let mut last: Option<String> = None;
    for node in 0..NODES {
        if dice.one_in(3) && node + 1 < NODES {
            continue;
        }
        let mut needs: Vec<String> = last.take().filter(|_| dice.one_in(3)).into_iter().collect();
        for kind in KINDS {
            let name = format!("n{node}/{kind}");
            let needed: Vec<&str> = needs.iter().map(String::as_str).collect();
            let mut one = action(&name, node, kind, &needed);
            one.limits.tries = 2;
            actions.push(one);
            needs = vec![name];
        }
        last = needs.pop();
    }
    plan(actions)
}

impl World {
    fn step(&mut self, dice: &mut Dice, id: RunId, input: Input) {
        let Some(engine) = self.engines.get_mut(&id) else {
            return;
        };
        let (mut out, numbers) = (Vec::new(), &mut self.numbers);
        let mut job = || {
            *numbers += 1;
            format!("{numbers:032x}")
        };
        engine.step(self.now, input, &mut job, &mut out);
        self.carry_out(dice, id, out);
    }

    fn carry_out(&mut self, dice: &mut Dice, id: RunId, out: Vec<Output>) {
        if self.dies(dice) {
            return;
        }
        for one in &out {
            let Some(written) = self.journal.get_mut(&id) else {
                return;
            };
            match one {
                Output::Journal(action, stand) => drop(written.actions.insert(action.clone(), stand.clone())),
                Output::JournalRun => {
                    let run = self.engines[&id].run();
                    let actions = std::mem::take(&mut written.actions);
                    *written = Run { actions, ..run.clone() };
                }
                _ => {}
            }
        }
        for one in out {
            if self.dies(dice) {
                return;
            }
            match one {
                Output::Start(action, attempt) => self.start(dice, id, action, attempt),
                Output::GiveUp(_, attempt) => {
                    let now = self.now;
                    if let Some(job) = self.jobs.get_mut(&attempt.job) {
                        job.hears = !dice.one_in(4);
                        if job.hears {
                            job.ends = Some(now.plus(dice.below(20_000)));
                            self.executed.insert(attempt.job, Err(true));
                        }
                    }
                }
                Output::RunEnded => drop(self.engines.remove(&id)),
                Output::Journal(..) | Output::JournalRun => {}
            }
        }
    }

    fn dies(&mut self, dice: &mut Dice) -> bool {
        if self.kills >= 10 || !dice.one_in(60) {
            return false;
        }
        self.kills += 1;
        self.jobs.clear();
        self.engines.clear();
        for (id, run) in &self.journal {
            if run.ended.is_none() {
                self.engines
                    .insert(*id, Engine::new(run.clone(), Bounds::default()).unwrap());
            }
        }
        let ids: Vec<RunId> = self.engines.keys().copied().collect();
        let life = self.kills;
        for id in &ids {
            let mut out = Vec::new();
            if let Some(engine) = self.engines.get_mut(id) {
                engine.take_up(self.now, &mut out);
                self.carry_out(dice, *id, out);
            }
            // It died once more: that life has taken up everything.
            if self.kills != life {
                return true;
            }
        }
        // What a waiting run takes is told again: the kill may have come before it was.
        for id in ids {
            let takes = self.engines.get(&id).map(|engine| engine.run().clone());
            if let Some(run) = takes.filter(|run| run.state == RunState::Waiting) {
                self.tell(dice, &run);
                if self.kills != life {
                    return true;
                }
            }
        }
        true
    }

    fn tell(&mut self, dice: &mut Dice, run: &Run) {
        let by = run.id;
        let nodes: BTreeSet<NodeId> = run.takes.keys().copied().collect();
        for id in self.engines.range(..by).map(|(id, _)| *id).collect::<Vec<_>>() {
            let (nodes, life) = (nodes.clone(), self.kills);
            self.step(dice, id, Input::Supersede { nodes, by });
            if self.kills != life {
                return;
            }
        }
    }

    fn commit(&mut self, dice: &mut Dice) {
        self.commits += 1;
        let id = RunId(self.commits);
        let mut run = Run::new(id, Arc::new(some_plan(dice)), "test", self.now);
        for node in run.open_nodes().collect::<Vec<_>>() {
            let newest = self.engines.values().rev().find(|engine| engine.run().open(node));
            if let Some(engine) = newest {
                run.takes.insert(node, engine.run().id);
            }
        }
        if !run.takes.is_empty() {
            run.state = RunState::Waiting;
        }
        self.journal.insert(id, run.clone());
        self.engines
            .insert(id, Engine::new(run.clone(), Bounds::default()).unwrap());
        if self.dies(dice) {
            return;
        }
        self.tell(dice, &run);
        self.step(dice, id, Input::Tick);
    }

    fn start(&mut self, dice: &mut Dice, run: RunId, id: ActionId, attempt: Attempt) {
        let plan = self.journal[&run].plan.clone();
        let action = plan.actions.iter().find(|one| one.id == id).unwrap();
        let (node, destroys) = (
            action.node.unwrap(),
            matches!(action.kind, ActionKind::WriteImage { .. }),
        );
        if let Some((number, other)) = self.jobs.iter().find(|(_, job)| job.hears && job.node == node) {
            panic!(
                "{id} of run {run} began while {} of run {} is at work as {number}",
                other.action, other.run
            );
        }
        for (other, written) in self.journal.range(..run).filter(|(_, run)| run.ended.is_none()) {
            assert!(
                !written.open(node),
                "run {run} began {id} while run {other} has the node open"
            );
        }
        if !self.executed.contains_key(&attempt.job) {
            let result = if dice.one_in(12) { Err(dice.one_in(2)) } else { Ok(()) };
            self.executed.insert(attempt.job.clone(), result);
        }
        let ends = (!dice.one_in(20)).then(|| self.now.plus(1_000 + dice.below(50_000)));
        let job = Job {
            run,
            action: id,
            node,
            destroys,
            ends,
            hears: true,
        };
        self.jobs.insert(attempt.job, job);
    }

    /// One thing happens: an end, or a limit.
    fn turn(&mut self, dice: &mut Dice) {
        let first = self
            .jobs
            .iter()
            .filter_map(|(number, job)| Some((job.ends?, number.clone())))
            .min();
        let deadline = self.engines.values().filter_map(Engine::deadline).min();
        match (first, deadline) {
            (Some((at, number)), deadline) if deadline.is_none_or(|deadline| at <= deadline) => {
                self.now = self.now.max(at);
                let job = self.jobs.remove(&number).unwrap();
                let result = self.executed[&number].map(|()| Outcome::default());
                let result = result.map_err(|again| Failure {
                    reason: "it broke".into(),
                    advice: String::new(),
                    again,
                });
                self.step(
                    dice,
                    job.run,
                    Input::Ended {
                        action: job.action,
                        job: number,
                        result,
                    },
                );
            }
            (_, deadline) => {
                self.now = deadline.map_or(self.now, |deadline| self.now.max(deadline));
                for id in self.engines.keys().copied().collect::<Vec<_>>() {
                    self.step(dice, id, Input::Tick);
                }
            }
        }
        let running = |job: &str, id: &RunId| {
            let stands = self.engines.get(id).map(|engine| &engine.run().actions);
            stands.is_some_and(|stands| {
                stands
                    .values()
                    .any(|stand| matches!(stand, Stand::Running(attempt) if attempt.job == job))
            })
        };
        let lost: Vec<String> = self
            .jobs
            .iter()
            .filter(|(number, job)| !running(number, &job.run))
            .map(|(number, _)| number.clone())
            .collect();
        lost.iter().for_each(|number| drop(self.jobs.remove(number)));
        for id in self.engines.keys().copied().collect::<Vec<_>>() {
            let begins = self.engines.get(&id).is_some_and(|engine| {
                let others = || self.engines.iter().filter(|(other, _)| **other != id);
                may_begin(engine.run(), |node| others().any(|(_, other)| other.run().open(node)))
            });
            if begins {
                self.step(dice, id, Input::Begin);
            }
        }
    }
}

fn story(seed: u64) -> BTreeMap<RunId, Run> {
    let (mut dice, mut world) = (
        Dice(seed),
        World {
            now: Timestamp(1_000_000),
            ..World::default()
        },
    );
    let commits = 2 + dice.below(4);
    world.commit(&mut dice);
    for turn in 0.. {
        if world.commits < commits && dice.one_in(6) {
            world.commit(&mut dice);
        }
        if world.engines.is_empty() && world.commits >= commits {
            break;
        }
        assert!(
            turn < 20_000,
            "it does not end: {:#?}",
            world.journal.values().map(|run| &run.actions).collect::<Vec<_>>()
        );
        world.turn(&mut dice);
        let writers = world.jobs.values().filter(|job| job.destroys && job.hears);
        let mut nodes: Vec<NodeId> = writers.map(|job| job.node).collect();
        let all = nodes.len();
        nodes.sort();
        nodes.dedup();
        assert_eq!(nodes.len(), all, "two at once write to one machine");
    }
    world.journal
}

#[test]
fn nodes_that_change_hands_have_one_run_at_a_time_and_every_run_ends() {
    let (mut ends, mut taken) = (BTreeMap::new(), 0);
    for seed in 0..3_000 {
        let runs = std::panic::catch_unwind(|| story(seed)).unwrap_or_else(|_| panic!("story {seed}"));
        for run in runs.values() {
            assert!(run.ended.is_some() && run.state.ended() && run.actions.values().all(Stand::settled));
            *ends.entry(run.state.name()).or_insert(0) += 1;
            taken += run.takes.len();
            for (node, by) in &run.superseded {
                assert!(*by > run.id, "an earlier run never takes over from a later one");
                let mine = run.plan.actions.iter().filter(|action| action.node == Some(*node));
                let said = format!("superseded by run {by}");
                for stand in mine.map(|action| &run.actions[&action.id]) {
                    if let Stand::Skipped { reason } = stand {
                        assert!(reason.contains(&said) || reason.contains("which it needs"), "{reason}");
                    }
                }
            }
        }
    }
    // The stories are worth something only when nodes changed hands and every end occurs.
    assert!(taken > 3_000, "{taken}");
    assert!(
        ends["done"] > 500 && ends["failed"] > 500 && ends["superseded"] > 200,
        "{ends:?}"
    );
}

#[test]
fn a_run_that_was_taken_over_says_so_and_a_run_that_waits_can_be_cancelled() {
    let mut dice = Dice(1);
    let mut first = Engine::new(
        Run::new(RunId(1), Arc::new(some_plan(&mut dice)), "a", Timestamp(1)),
        Bounds::default(),
    )
    .unwrap();
    let (mut out, mut number) = (Vec::new(), 0);
    let mut job = || {
        number += 1;
        format!("{number:032x}")
    };
    let nodes = first.run().open_nodes().collect();
    first.step(
        Timestamp(2),
        Input::Supersede { nodes, by: RunId(2) },
        &mut job,
        &mut out,
    );
    assert_eq!(first.run().state, RunState::Superseded);
    assert!(
        first
            .run()
            .actions
            .values()
            .all(|stand| matches!(stand, Stand::Skipped { reason } if reason == "superseded by run 2"))
    );
    let mut run = Run::new(RunId(2), Arc::new(some_plan(&mut dice)), "a", Timestamp(1));
    run.state = RunState::Waiting;
    let mut second = Engine::new(run, Bounds::default()).unwrap();
    second.step(Timestamp(3), Input::Tick, &mut job, &mut out);
    second.step(Timestamp(3), Input::Resume, &mut job, &mut out);
    assert_eq!(
        second.run().state,
        RunState::Waiting,
        "it begins nothing by itself, nor by a resume"
    );
    second.step(Timestamp(4), Input::Cancel { by: "anna".into() }, &mut job, &mut out);
    assert_eq!(second.run().state, RunState::Cancelled);
}
