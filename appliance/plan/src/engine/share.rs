//! Which run begins something next where several share a rack's room.
//!
//! Room goes to the run with the least under way, of equal ones to that which began something longest ago: the checks of one
//! machine begin at the next end of an installation of two hundred, and not when that is nearly over. A run that was planned
//! with smaller limits than others waits for no more than its own: what it waits for is left free until it can have it.

use std::collections::{BTreeMap, BTreeSet};

use rackbar_model::Timestamp;

use super::{Engine, Output};
use crate::{ActionId, Attempt, RunId, Stand};

/// A run that wants room, before others in the order of these: how much it has under way, when it last began something.
type Turn = (usize, u64, RunId);

/// Lets these runs begin what may begin and has room, one action after the other, and fairly. Together they are all that share
/// their room and [want some](Engine::wants_room), and have [noted](Engine::note) what happened. `job` makes job numbers, `out`
/// is given what is to be done, and of which run.
pub fn begin<'a>(
    engines: impl IntoIterator<Item = &'a mut Engine>,
    now: Timestamp,
    job: &mut dyn FnMut() -> String,
    out: &mut dyn FnMut(RunId, Output),
) {
    let mut turns: BTreeSet<Turn> = BTreeSet::new();
    // Of each how far it has looked: what is passed over once is not free for as long as this takes.
    let mut wanting: BTreeMap<RunId, (&mut Engine, usize)> = BTreeMap::new();
    for engine in engines {
        if engine.wants_room() && engine.run.ended.is_none() {
            engine.uncrowd();
            turns.insert(engine.in_line());
            wanting.insert(engine.run.id, (engine, 0));
        }
    }
    let mut held = BTreeSet::new();
    while let Some((_, _, id)) = turns.pop_first() {
        let Some((engine, from)) = wanting.get_mut(&id) else {
            continue;
        };
        if engine.room.all() >= engine.bounds.at_once {
            break;
        }
        if let Some((action, attempt)) = engine.begin_one(now, from, &held, job) {
            out(id, Output::Journal(action.clone(), Stand::Running(attempt.clone())));
            out(id, Output::Start(action, attempt));
            turns.insert(engine.in_line());
        }
        held.extend(engine.full());
    }
}

impl Engine {
    fn in_line(&self) -> Turn {
        (self.under_way.len(), self.began, self.run.id)
    }

    /// Begins the next action from `from` on that may begin and has room; none of a kind that is `held` for another run.
    fn begin_one(
        &mut self,
        now: Timestamp,
        from: &mut usize,
        held: &BTreeSet<&'static str>,
        job: &mut dyn FnMut() -> String,
    ) -> Option<(ActionId, Attempt)> {
        let plan = self.run.plan.clone();
        while let Some(position) = self.ready.range(*from..).next().copied() {
            *from = position + 1;
            let Some(action) = plan.actions.get(position) else {
                continue;
            };
            let kind = action.kind.name();
            if held.contains(kind) || self.room_of(kind) == Some(0) {
                self.ready.remove(&position);
                self.crowded.entry(kind).or_default().insert(position);
                continue;
            }
            if !self.is_free(action) {
                continue;
            }
            self.ready.remove(&position);
            let before = match self.run.actions.get(&action.id) {
                Some(Stand::Again { tries, .. }) => *tries,
                _ => 0,
            };
            let attempt = Attempt {
                number: before.saturating_add(1),
                job: job(),
                began: now,
                progress: None,
            };
            let stand = Stand::Running(attempt.clone());
            self.run.actions.insert(action.id.clone(), stand);
            self.occupy(now, position, action, attempt.clone());
            return Some((action.id.clone(), attempt));
        }
        None
    }

    /// How many more of a kind may begin; `None` when only the whole is bounded.
    fn room_of(&self, kind: &str) -> Option<usize> {
        let most = self.bounds.kinds.get(kind)?;
        Some(most.saturating_sub(self.room.of(kind)))
    }

    /// Kinds that it would begin and has no room for.
    fn full(&self) -> impl Iterator<Item = &'static str> {
        let kinds = self.crowded.keys().copied();
        kinds.filter(|kind| self.room_of(kind) == Some(0))
    }

    /// Lets as many wait for a start again as their kind has room for: a step then costs what it begins, however many
    /// machines wait for their turn.
    fn uncrowd(&mut self) {
        let kinds: Vec<&'static str> = self.crowded.keys().copied().collect();
        for kind in kinds {
            let room = self.room_of(kind).unwrap_or(usize::MAX);
            let Some(crowd) = self.crowded.get_mut(kind) else {
                continue;
            };
            // Those of the kind that are ready already may come first; who finds no room is put back.
            for _ in 0..room {
                let Some(position) = crowd.pop_first() else { break };
                self.ready.insert(position);
            }
            if crowd.is_empty() {
                self.crowded.remove(kind);
            }
        }
    }
}
