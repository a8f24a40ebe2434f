//! Several runs in one rack, seeded: what a site allows at once is allowed once, and every run ends all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use rackbar_model::Timestamp;

use super::simulation::Dice;
use super::tests::{action, plan};
use super::{Bounds, Engine, Failure, Input, Output, Room};
use crate::{ActionId, Attempt, Outcome, Run, RunId, RunState};

struct Rack {
    bounds: Bounds,
    room: Room,
    engines: BTreeMap<RunId, Engine>,
    at_work: Vec<(RunId, ActionId, Attempt)>,
    ended: usize,
    now: u64,
    numbers: u64,
}

impl Rack {
    /// Commits a run of one to four machines of its own.
    fn commit(&mut self, dice: &mut Dice, id: u64) {
        let mut actions = Vec::new();
        for node in 0..=dice.below(4) {
            let mut needs: Vec<String> = Vec::new();
            for kind in ["agent", "os.write", "verify"] {
                let name = format!("r{id}n{node}/{kind}");
                let of = (id * 8 + node) as u8;
                let mut one = action(&name, of, kind, &needs.iter().map(String::as_str).collect::<Vec<_>>());
                one.limits.tries = 20;
                actions.push(one);
                needs = vec![name];
            }
        }
        let run = Run::new(RunId(id), Arc::new(plan(actions)), "test", Timestamp(self.now));
        let engine = Engine::within(run, self.bounds.clone(), self.room.clone()).unwrap();
        self.engines.insert(RunId(id), engine);
        self.step(RunId(id), Input::Tick);
    }

    fn step(&mut self, id: RunId, input: Input) {
        let (mut out, numbers) = (Vec::new(), &mut self.numbers);
        let mut job = || {
            *numbers += 1;
            format!("{numbers:032x}")
        };
        let engine = self.engines.get_mut(&id).unwrap();
        engine.step(Timestamp(self.now), input, &mut job, &mut out);
        for one in out {
            match one {
                Output::Start(action, attempt) => self.at_work.push((id, action, attempt)),
                Output::RunEnded => {
                    assert_eq!(self.engines.remove(&id).unwrap().run().state, RunState::Done);
                    self.ended += 1;
                }
                _ => {}
            }
        }
        assert!(self.at_work.len() <= self.bounds.at_once, "{:?}", self.at_work);
        let writers = self
            .at_work
            .iter()
            .filter(|(_, action, _)| action.0.ends_with("os.write"));
        assert!(writers.count() <= self.bounds.kinds["os.write"], "{:?}", self.at_work);
    }

    /// One of those at work ends; the others look whether there is room now.
    fn one_ends(&mut self, dice: &mut Dice) {
        let at = dice.below(self.at_work.len() as u64) as usize;
        let (id, action, Attempt { job, .. }) = self.at_work.swap_remove(at);
        let result = match dice.one_in(5) {
            true => Err(Failure {
                again: true,
                ..Failure::default()
            }),
            false => Ok(Outcome::default()),
        };
        self.step(id, Input::Ended { action, job, result });
        self.look();
    }

    fn look(&mut self) {
        let due = |engine: &Engine| engine.wants_room() || engine.deadline().is_some_and(|at| at.0 <= self.now);
        let look: Vec<RunId> = self
            .engines
            .iter()
            .filter(|(_, one)| due(one))
            .map(|(id, _)| *id)
            .collect();
        look.into_iter().for_each(|id| self.step(id, Input::Tick));
    }
}

#[test]
fn what_a_rack_may_do_at_once_is_shared_by_all_its_runs_and_each_of_them_ends() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let bounds = Bounds {
            at_once: 1 + dice.below(6) as usize,
            kinds: BTreeMap::from([("os.write", 1 + dice.below(2) as usize)]),
            ..Bounds::default()
        };
        let mut rack = Rack {
            bounds,
            room: Room::default(),
            engines: BTreeMap::new(),
            at_work: Vec::new(),
            ended: 0,
            now: 1_000,
            numbers: 0,
        };
        let runs = 2 + dice.below(5);
        let mut committed = 0;
        for turn in 0.. {
            assert!(turn < 20_000, "seed {seed}: a run waits for ever: {:?}", rack.engines);
            if committed < runs && (rack.at_work.is_empty() || dice.one_in(4)) {
                committed += 1;
                rack.commit(&mut dice, committed);
            } else if rack.at_work.is_empty() {
                if rack.engines.is_empty() {
                    break;
                }
                // All that is left waits for its next try.
                rack.now += 60_000;
                rack.look();
            } else {
                rack.one_ends(&mut dice);
            }
        }
        assert_eq!(rack.ended as u64, runs, "seed {seed}");
    }
}
