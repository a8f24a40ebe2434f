//! How actions and the run end: well, badly, over their time, given up.

use rackbar_model::{NodeId, Timestamp};

use crate::engine::{Engine, Failure, Output};
use crate::{Action, ActionId, ActionKind, Outcome, RunState, Stand};

/// Said when whoever did the work had no advice of its own.
const ADVICE: &str = "look at the node's timeline and console, put right what they show, then plan and commit again";

/// Said of a service when that is so.
const UNNEEDED: &str = "nothing that needs it is left in the run";

impl Engine {
    /// An attempt said how it ended.
    pub(super) fn ended(
        &mut self,
        now: Timestamp,
        action: &ActionId,
        job: &str,
        result: Result<Outcome, Failure>,
        out: &mut Vec<Output>,
    ) {
        let Some(position) = self.graph.position(action) else {
            return;
        };
        if self.under_way.get(&position).is_none_or(|one| one.attempt.job != job) {
            return;
        }
        self.close(now, position, result, out);
    }

    /// The attempt at `position` is over.
    fn close(&mut self, now: Timestamp, position: usize, result: Result<Outcome, Failure>, out: &mut Vec<Output>) {
        let Some(one) = self.release(position) else { return };
        let tries = one.attempt.number;
        let failure = match result {
            // Done is done, also where nobody waits for it any more.
            Ok(outcome) => return self.done(now, position, tries, outcome, out),
            Err(failure) => failure,
        };
        if let Some(reason) = self.unwanted(position) {
            let reason = format!("{reason}; it was given up under way: {}", failure.reason);
            return self.skip(position, reason, out);
        }
        let failure = match one.giving_up {
            Some(why) => Failure {
                reason: format!("{why}: {}", failure.reason),
                again: true,
                ..failure
            },
            None => failure,
        };
        let most = self.action(position).map_or(1, |action| action.limits.tries);
        if failure.again && tries < most {
            let due = now.plus(self.pause(tries));
            let reason = failure.reason;
            self.stand(position, Stand::Again { tries, reason, due }, out);
            self.due.insert((due, position));
        } else {
            self.fail(now, position, tries, failure, out);
        }
    }

    /// Time before the next try.
    fn pause(&self, tries: u32) -> u64 {
        let doublings = tries.saturating_sub(1).min(20);
        let pause = self.bounds.first_pause.saturating_mul(1 << doublings);
        pause.min(self.bounds.longest_pause)
    }

    /// Why nobody wants the action at `position` any more.
    fn unwanted(&self, position: usize) -> Option<String> {
        if let Some(by) = &self.run.cancelled {
            return Some(format!("the run was cancelled by {by}"));
        }
        if self.unneeded(position) {
            return Some(UNNEEDED.to_owned());
        }
        let node = self.action(position)?.node?;
        self.run.excluded.get(&node).cloned()
    }

    pub(super) fn done(
        &mut self,
        now: Timestamp,
        position: usize,
        tries: u32,
        outcome: Outcome,
        out: &mut Vec<Output>,
    ) {
        let at = now;
        self.stand(position, Stand::Done { outcome, tries, at }, out);
        let dependants = self.graph.dependants.get(position).cloned().unwrap_or_default();
        for dependant in dependants {
            let Some(unmet) = self.unmet.get_mut(dependant) else {
                continue;
            };
            *unmet = unmet.saturating_sub(1);
            if *unmet == 0 && self.waits(dependant) {
                self.make_ready(dependant);
            }
        }
    }

    fn waits(&self, position: usize) -> bool {
        let stand = self
            .action(position)
            .and_then(|action| self.run.actions.get(&action.id));
        matches!(stand, Some(Stand::Waiting))
    }

    fn fail(&mut self, now: Timestamp, position: usize, tries: u32, failure: Failure, out: &mut Vec<Output>) {
        let Failure { reason, advice, .. } = failure;
        let advice = if advice.is_empty() { ADVICE.to_owned() } else { advice };
        let at = now;
        let stand = Stand::Failed {
            reason,
            advice,
            tries,
            at,
        };
        self.stand(position, stand, out);
        self.fell(position, out);
    }

    fn skip(&mut self, position: usize, reason: String, out: &mut Vec<Output>) {
        self.leave(position, reason, out);
        self.fell(position, out);
    }

    fn leave(&mut self, position: usize, reason: String, out: &mut Vec<Output>) {
        self.no_more(position);
        self.due.retain(|(_, other)| *other != position);
        self.stand(position, Stand::Skipped { reason }, out);
    }

    /// It does not wait for a start any more.
    fn no_more(&mut self, position: usize) {
        self.ready.remove(&position);
        self.met.remove(&position);
        self.crowded.values_mut().for_each(|crowd| _ = crowd.remove(&position));
    }

    /// Whoever needs the action at `position`, directly or not, is not begun.
    pub(super) fn fell(&mut self, position: usize, out: &mut Vec<Output>) {
        let Some(action) = self.action(position) else { return };
        let name = action.id.clone();
        // Of a service that many wait for, each says why it is not there.
        let why = match (&action.kind, self.run.actions.get(&name)) {
            (ActionKind::Service(_), Some(Stand::Failed { reason, .. })) => format!(": {reason}"),
            _ => String::new(),
        };
        let mut next = self.graph.dependants.get(position).cloned().unwrap_or_default();
        while let Some(dependant) = next.pop() {
            if self.waits(dependant) {
                let reason = format!("{name}, which it needs, did not end well{why}");
                self.no_more(dependant);
                self.stand(dependant, Stand::Skipped { reason }, out);
                next.extend(self.graph.dependants.get(dependant).into_iter().flatten());
            }
        }
    }

    /// Attempts over their time are told to give up; those that do not are lost.
    pub(super) fn watch_limits(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        while let Some(&(at, position)) = self.ends.first() {
            if at > now {
                return;
            }
            let Some(one) = self.under_way.get(&position) else {
                self.ends.pop_first();
                continue;
            };
            if one.giving_up.is_none() {
                let seconds = self.action(position).map_or(0, |action| action.limits.seconds);
                self.give_up(now, position, format!("not done within {seconds} s"), out);
            } else {
                let progress = self
                    .action(position)
                    .and_then(|action| self.run.actions.get(&action.id));
                let last = match progress {
                    Some(Stand::Running(attempt)) => attempt.progress.as_ref().map(|progress| progress.doing.clone()),
                    _ => None,
                };
                let reason = match last {
                    Some(doing) => format!("nothing more was heard of it; the last was \"{doing}\""),
                    None => "nothing was heard of it".into(),
                };
                let failure = Failure {
                    reason,
                    advice: String::new(),
                    again: true,
                };
                self.close(now, position, Err(failure), out);
            }
        }
    }

    fn give_up(&mut self, now: Timestamp, position: usize, why: String, out: &mut Vec<Output>) {
        let grace = now.plus(self.bounds.grace);
        let Some(one) = self.under_way.get_mut(&position).filter(|one| one.giving_up.is_none()) else {
            return;
        };
        let before = std::mem::replace(&mut one.until, grace);
        one.giving_up = Some(why);
        let attempt = one.attempt.clone();
        self.ends.remove(&(before, position));
        self.ends.insert((grace, position));
        if let Some(action) = self.action(position) {
            out.push(Output::GiveUp(action.id.clone(), attempt));
        }
    }

    /// Ends everything of a node, or of all: what runs is told to, what waits is not begun.
    pub(super) fn give_all_up(&mut self, now: Timestamp, node: Option<NodeId>, reason: &str, out: &mut Vec<Output>) {
        self.give_these_up(now, &|action| node.is_none() || action.node == node, reason, out);
    }

    /// The same of all actions that `which` names.
    pub(super) fn give_these_up(
        &mut self,
        now: Timestamp,
        which: &dyn Fn(&Action) -> bool,
        reason: &str,
        out: &mut Vec<Output>,
    ) {
        let plan = self.run.plan.clone();
        let mut skipped = Vec::new();
        for (position, action) in plan.actions.iter().enumerate() {
            if !which(action) {
                continue;
            }
            match self.run.actions.get(&action.id) {
                Some(Stand::Waiting | Stand::Again { .. }) => {
                    self.leave(position, reason.to_owned(), out);
                    skipped.push(position);
                }
                Some(Stand::Running(_)) => self.give_up(now, position, reason.to_owned(), out),
                Some(Stand::Done { .. } | Stand::Failed { .. } | Stand::Skipped { .. }) | None => {}
            }
        }
        // Only now: the node's own actions keep the true reason, others name the one they waited for.
        skipped.into_iter().for_each(|position| self.fell(position, out));
    }

    /// True of a service that all who needed it have given up. One that nobody ever needed was asked for itself.
    fn unneeded(&self, position: usize) -> bool {
        let settled = |action: &Action| self.run.actions.get(&action.id).is_some_and(Stand::settled);
        let dependants = self.graph.dependants.get(position).map_or(&[][..], Vec::as_slice);
        let is_service = self
            .action(position)
            .is_some_and(|action| matches!(action.kind, ActionKind::Service(_)));
        let waits = |at: &usize| self.action(*at).is_some_and(|action| !settled(action));
        is_service && !dependants.is_empty() && !dependants.iter().any(waits)
    }

    /// A service that nobody waits for any more is not waited for either.
    pub(super) fn drop_unneeded(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        for position in self.services.clone() {
            let stand = self
                .action(position)
                .and_then(|action| self.run.actions.get(&action.id));
            match stand {
                Some(Stand::Running(_)) if self.unneeded(position) => {
                    self.give_up(now, position, UNNEEDED.to_owned(), out);
                }
                Some(Stand::Waiting | Stand::Again { .. }) if self.unneeded(position) => {
                    self.leave(position, UNNEEDED.to_owned(), out);
                }
                _ => {}
            }
        }
    }

    pub(super) fn cancel(&mut self, now: Timestamp, by: &str, out: &mut Vec<Output>) {
        if self.run.cancelled.is_some() {
            return;
        }
        self.run.cancelled = Some(by.to_owned());
        out.push(Output::JournalRun);
        self.give_all_up(now, None, &format!("the run was cancelled by {by}"), out);
    }

    pub(super) fn exclude(&mut self, now: Timestamp, node: NodeId, reason: String, out: &mut Vec<Output>) {
        if !self.run.plan.actions.iter().any(|action| action.node == Some(node)) {
            return;
        }
        // Who was first says why.
        let reason = self.run.excluded.entry(node).or_insert(reason).clone();
        out.push(Output::JournalRun);
        self.give_all_up(now, Some(node), &reason, out);
    }

    /// Ends the run when nothing can happen any more.
    pub(super) fn finish(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if self.open > 0 || self.run.ended.is_some() {
            return;
        }
        let well = |stand: &Stand| matches!(stand, Stand::Done { .. });
        self.run.ended = Some(now);
        self.run.state = match &self.run.cancelled {
            Some(_) => RunState::Cancelled,
            None if self.run.actions.values().all(well) => RunState::Done,
            None if self.was_taken_over() => RunState::Superseded,
            None => RunState::Failed,
        };
        out.push(Output::JournalRun);
        out.push(Output::RunEnded);
    }
}
