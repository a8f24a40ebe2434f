//! What is said of runs and their actions. It goes into the commit with their records: a timeline lacks nothing of what a
//! record holds, and tells of nothing that is not written down.

use rackbar_model::{EventKind, Severity};
use rackbar_plan::engine::Output;
use rackbar_plan::{Action, ActionKind, Run, RunId, RunState, Stand};

use super::memory::Told;
use super::{Book, Inner};

impl Inner {
    /// What is said of all that is about to be written.
    pub(super) fn to_be_told(&self, book: &Book) -> Vec<Told> {
        let mut told = Vec::new();
        for live in book.live.values() {
            let run = live.engine.run();
            // What is said is how it stands now: once, however often that changed since it was last written.
            let last = live
                .to_do
                .iter()
                .rposition(|output| matches!(output, Output::JournalRun));
            for (at, output) in live.to_do.iter().enumerate() {
                match output {
                    Output::Journal(id, stand) => {
                        let action = live.position(id).and_then(|at| run.plan.actions.get(at));
                        told.extend(action.and_then(|action| Some((action.node, self.words(run.id, action, stand)?))));
                    }
                    Output::JournalRun if last == Some(at) => told.push((None, run_words(run))),
                    Output::JournalRun | Output::Start(..) | Output::GiveUp(..) | Output::RunEnded => {}
                }
            }
        }
        told
    }

    /// What is said of how an action stands; `None` before it begins.
    fn words(&self, run: RunId, action: &Action, stand: &Stand) -> Option<EventKind> {
        let (run, name) = (run.0, action.id.0.clone());
        let failed = |reason: &str, advice: &str, again| EventKind::ActionFailed {
            run,
            action: name.clone(),
            reason: reason.into(),
            advice: advice.into(),
            again,
        };
        let kind = match stand {
            Stand::Waiting => return None,
            Stand::Running(attempt) => EventKind::ActionStarted {
                run,
                action: name,
                attempt: attempt.number,
                reason: action.reason.clone(),
            },
            Stand::Again { reason, due, .. } => failed(reason, "", Some(*due)),
            Stand::Failed { reason, advice, .. } => failed(reason, advice, None),
            Stand::Done { outcome, at, .. } => EventKind::ActionDone {
                run,
                action: name,
                summary: outcome.summary.clone(),
                millis: at.since(self.begun(action.id.0.as_str(), run)),
            },
            Stand::Skipped { reason } => EventKind::ActionSkipped {
                run,
                action: name,
                reason: reason.clone(),
            },
        };
        if let Stand::Running(attempt) = stand {
            self.begin_clock(action.id.0.as_str(), run, attempt.began);
        }
        Some(kind)
    }
}

/// What is said of how a run stands.
fn run_words(run: &Run) -> EventKind {
    let (state, reason, severity) = match (run.state, &run.cancelled) {
        (RunState::Going | RunState::Paused | RunState::Waiting, Some(by)) => (
            "cancelled",
            format!("given up by {by}; what runs is being ended"),
            Severity::Warning,
        ),
        (RunState::Going, None) => ("going", "it goes on".into(), Severity::Info),
        (RunState::Waiting, None) => {
            let how = if run.held {
                "it will begin paused"
            } else {
                "it will begin by itself"
            };
            let waits = super::takeover::waits_for(run);
            ("waiting", format!("{how}{waits}"), Severity::Info)
        }
        (RunState::Superseded, _) => ("superseded", outcome_words(run), Severity::Info),
        (RunState::Paused, None) => (
            "paused",
            "nothing new is begun; what runs goes on".into(),
            Severity::Info,
        ),
        (RunState::Done, _) => (
            "done",
            format!("all {} actions are done", run.actions.len()),
            Severity::Info,
        ),
        (RunState::Failed, _) => ("failed", outcome_words(run), Severity::Error),
        (RunState::Cancelled, _) => ("cancelled", outcome_words(run), Severity::Warning),
    };
    let (run, state) = (run.id.0, state.into());
    EventKind::RunChanged {
        run,
        state,
        reason,
        severity,
    }
}

/// What a run came to, in words.
fn outcome_words(run: &Run) -> String {
    let mut done = 0;
    let mut skipped = 0;
    let mut failed = Vec::new();
    for action in &run.plan.actions {
        match run.actions.get(&action.id) {
            Some(Stand::Done { .. }) => done += 1,
            Some(Stand::Failed { reason, .. }) => failed.push(format!("{}: {reason}", action.id)),
            _ if matches!(action.kind, ActionKind::Barrier { .. }) => {}
            _ => skipped += 1,
        }
    }
    let mut words = format!(
        "{done} actions are done, {} failed, {skipped} were not begun",
        failed.len()
    );
    if let Some(first) = failed.first() {
        words = format!("{words}; first {first}");
    }
    words
}
