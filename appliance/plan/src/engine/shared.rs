//! Several runs in one rack, seeded: what a site allows at once is allowed once, no run waits until another is nearly over,
//! and every run ends, also where the appliance is killed between.

use std::collections::BTreeMap;
use std::sync::Arc;

use rackbar_model::Timestamp;

use super::simulation::Dice;
use super::tests::{action, plan};
use super::{Bounds, Engine, Failure, Input, Output, Room};
use crate::{ActionId, Attempt, Outcome, Plan, Run, RunId, RunState};

/// A plan of machines of a run's own, the usual way each.
fn machines(id: u64, count: u64) -> Plan {
    let mut actions = Vec::new();
    for node in 0..count {
        let mut needs: Vec<String> = Vec::new();
        for kind in ["agent", "os.write", "verify"] {
            let name = format!("r{id}n{node}/{kind}");
            let of = (id * 100 + node) as u8;
            let mut one = action(&name, of, kind, &needs.iter().map(String::as_str).collect::<Vec<_>>());
            one.limits.tries = 20;
            actions.push(one);
            needs = vec![name];
        }
    }
    plan(actions)
}

struct Rack {
    bounds: Bounds,
    room: Room,
    engines: BTreeMap<RunId, Engine>,
    at_work: Vec<(RunId, ActionId, Attempt)>,
    /// How many ends there were, and of each run at how many it was committed and began its first action.
    ends: u64,
    firsts: BTreeMap<RunId, (u64, Option<u64>)>,
    ended: usize,
    now: u64,
    numbers: u64,
    /// One try in so many fails; none where it is 0.
    trouble: u64,
}

impl Rack {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            room: Room::default(),
            engines: BTreeMap::new(),
            at_work: Vec::new(),
            ends: 0,
            firsts: BTreeMap::new(),
            ended: 0,
            now: 1_000,
            numbers: 0,
            trouble: 0,
        }
    }

    fn commit(&mut self, id: u64, plan: Plan) {
        let run = Run::new(RunId(id), Arc::new(plan), "test", Timestamp(self.now));
        let engine = Engine::within(run, self.bounds.clone(), self.room.clone()).unwrap();
        self.engines.insert(RunId(id), engine);
        self.firsts.insert(RunId(id), (self.ends, None));
        self.note(RunId(id), Input::Tick);
        self.begin();
    }

    fn note(&mut self, id: RunId, input: Input) {
        let mut out = Vec::new();
        let engine = self.engines.get_mut(&id).unwrap();
        engine.note(Timestamp(self.now), input, &mut out);
        out.into_iter().for_each(|one| self.carry_out(id, one));
    }

    fn begin(&mut self) {
        let (mut out, numbers) = (Vec::new(), &mut self.numbers);
        let mut job = || {
            *numbers += 1;
            format!("{numbers:032x}")
        };
        let now = Timestamp(self.now);
        super::begin(self.engines.values_mut(), now, &mut job, &mut |id, one| {
            out.push((id, one));
        });
        out.into_iter().for_each(|(id, one)| self.carry_out(id, one));
        assert!(self.at_work.len() <= self.bounds.at_once, "{:?}", self.at_work);
        let writers = self
            .at_work
            .iter()
            .filter(|(_, action, _)| action.0.ends_with("os.write"));
        let most = self.bounds.kinds.get("os.write").copied();
        assert!(most.is_none_or(|most| writers.count() <= most), "{:?}", self.at_work);
    }

    fn carry_out(&mut self, id: RunId, one: Output) {
        match one {
            Output::Start(action, attempt) => {
                self.at_work.push((id, action, attempt));
                let first = self.firsts.get_mut(&id).unwrap();
                first.1.get_or_insert(self.ends);
            }
            Output::RunEnded => {
                assert_eq!(self.engines.remove(&id).unwrap().run().state, RunState::Done);
                self.ended += 1;
            }
            _ => {}
        }
    }

    /// One of those at work ends, and all see whether they have room now.
    fn one_ends(&mut self, dice: &mut Dice) {
        let at = dice.below(self.at_work.len() as u64) as usize;
        let (id, action, Attempt { job, .. }) = self.at_work.swap_remove(at);
        let result = match self.trouble > 0 && dice.one_in(self.trouble) {
            true => Err(Failure {
                again: true,
                ..Failure::default()
            }),
            false => Ok(Outcome::default()),
        };
        self.ends += 1;
        self.note(id, Input::Ended { action, job, result });
        self.begin();
    }

    /// All that is left waits for its next try.
    fn later(&mut self) {
        self.now += 60_000;
        self.look();
    }

    fn look(&mut self) {
        let runs: Vec<RunId> = self.engines.keys().copied().collect();
        runs.into_iter().for_each(|id| self.note(id, Input::Tick));
        self.begin();
    }

    /// The appliance starts anew with what it had under way.
    fn kill(&mut self) {
        let before = std::mem::take(&mut self.at_work).len();
        self.room = Room::default();
        for engine in self.engines.values_mut() {
            *engine = Engine::within(engine.run().clone(), self.bounds.clone(), self.room.clone()).unwrap();
        }
        for id in self.engines.keys().copied().collect::<Vec<_>>() {
            let mut out = Vec::new();
            let engine = self.engines.get_mut(&id).unwrap();
            engine.take_up(Timestamp(self.now), &mut out);
            out.into_iter().for_each(|one| self.carry_out(id, one));
        }
        assert_eq!(self.at_work.len(), before);
        self.look();
    }
}

#[test]
fn what_a_rack_may_do_at_once_is_shared_by_all_its_runs_and_each_of_them_ends() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let mut rack = Rack::new(Bounds {
            at_once: 1 + dice.below(6) as usize,
            kinds: BTreeMap::from([("os.write", 1 + dice.below(2) as usize)]),
            ..Bounds::default()
        });
        rack.trouble = 5;
        let runs = 2 + dice.below(5);
        let mut committed = 0;
        for turn in 0.. {
            assert!(turn < 20_000, "seed {seed}: a run waits for ever: {:?}", rack.engines);
            if committed < runs && (rack.at_work.is_empty() || dice.one_in(4)) {
                committed += 1;
                let count = 1 + dice.below(4);
                rack.commit(committed, machines(committed, count));
            } else if dice.one_in(20) {
                rack.kill();
            } else if !rack.at_work.is_empty() {
                rack.one_ends(&mut dice);
            } else if rack.engines.is_empty() {
                break;
            } else {
                rack.later();
            }
        }
        assert_eq!(rack.ended as u64, runs, "seed {seed}");
    }
}

/// The checks of one machine do not wait for an installation of many to be nearly over.
#[test]
fn a_small_run_that_comes_late_begins_after_few_ends_of_others_and_is_done_before_them() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let mut rack = Rack::new(Bounds {
            at_once: 1 + dice.below(6) as usize,
            kinds: BTreeMap::from([("os.write", 1 + dice.below(3) as usize)]),
            ..Bounds::default()
        });
        rack.commit(1, machines(1, 60));
        for _ in 0..dice.below(40) {
            rack.one_ends(&mut dice);
        }
        let small = 1 + dice.below(3);
        for id in 2..2 + small {
            rack.commit(id, machines(id, 1));
        }
        while rack.engines.len() > 1 {
            rack.one_ends(&mut dice);
        }
        for id in 2..2 + small {
            let (committed, first) = rack.firsts[&RunId(id)];
            let waited = first.unwrap() - committed;
            assert!(waited <= small, "seed {seed}: run {id} waited for {waited} ends");
        }
        let big = rack.engines.get(&RunId(1)).map(Engine::run);
        let open = big.map_or(0, |run| run.actions.values().filter(|one| !one.settled()).count());
        assert!(open > 60, "seed {seed}: of the large run {open} actions were left");
    }
}

/// A run that was planned with a smaller limit gets room that it leaves, also where one with a larger limit holds all of it.
#[test]
fn a_run_with_a_smaller_limit_does_not_wait_until_one_with_a_larger_is_nearly_over() {
    for kind in ["at_once", "os.write"] {
        let (large, small) = (8, 2);
        let mut dice = Dice(1);
        let bounds = |most: usize| Bounds {
            at_once: if kind == "at_once" { most } else { 100 },
            kinds: BTreeMap::from([("os.write", most)]),
            ..Bounds::default()
        };
        let mut rack = Rack::new(bounds(large));
        rack.commit(1, machines(1, 60));
        for _ in 0..100 {
            rack.one_ends(&mut dice);
        }
        rack.bounds = bounds(small);
        let run = Run::new(RunId(2), Arc::new(machines(2, 2)), "test", Timestamp(rack.now));
        let engine = Engine::within(run, rack.bounds.clone(), rack.room.clone()).unwrap();
        rack.bounds = bounds(large);
        rack.engines.insert(RunId(2), engine);
        rack.firsts.insert(RunId(2), (rack.ends, None));
        rack.note(RunId(2), Input::Tick);
        while rack.engines.contains_key(&RunId(2)) {
            assert!(
                rack.engines.contains_key(&RunId(1)),
                "{kind}: the large run is over first"
            );
            rack.one_ends(&mut dice);
        }
    }
}
