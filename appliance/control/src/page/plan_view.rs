//! Plans and runs turned into the words and numbers of a page.

use std::collections::BTreeMap;

use rackbar_plan::{Action, Layer, Plan, Run, RunState, Stand};
use serde::Serialize;

use crate::operations::duration;

/// The layer's number, 1 to 7.
pub(super) const fn layer_number(layer: Layer) -> u8 {
    match layer {
        Layer::Infrastructure => 1,
        Layer::Firmware => 2,
        Layer::System => 3,
        Layer::Clients => 4,
        Layer::Applications => 5,
        Layer::Management => 6,
        Layer::Coordination => 7,
    }
}

const fn layer_name(layer: Layer) -> &'static str {
    match layer {
        Layer::Infrastructure => "infrastructure",
        Layer::Firmware => "firmware",
        Layer::System => "system",
        Layer::Clients => "clients",
        Layer::Applications => "applications",
        Layer::Management => "management",
        Layer::Coordination => "coordination",
    }
}

/// How a run stands, in one word.
pub(super) const fn run_state(state: RunState) -> &'static str {
    match state {
        RunState::Going => "going",
        RunState::Paused => "paused",
        RunState::Done => "done",
        RunState::Failed => "failed",
        RunState::Cancelled => "cancelled",
        RunState::Waiting => "waiting",
        RunState::Superseded => "superseded",
    }
}

/// How an action stands.
#[derive(Serialize)]
pub(super) struct StandRow {
    /// For the style.
    pub(super) class: &'static str,
    /// For a small box.
    pub(super) short: String,
    /// For a line of text.
    words: String,
    /// What to do, when it failed.
    advice: String,
    /// How far it is.
    pub(super) percent: Option<u8>,
    /// Evidence, line by line.
    details: Vec<String>,
}

fn percent(done: u64, total: u64) -> Option<u8> {
    let share = done.min(total).checked_mul(100)?.checked_div(total)?;
    u8::try_from(share).ok()
}

impl From<&Stand> for StandRow {
    fn from(stand: &Stand) -> Self {
        let row = |class, short: &str, words: String| Self {
            class,
            short: short.to_owned(),
            words,
            advice: String::new(),
            percent: None,
            details: Vec::new(),
        };
        match stand {
            Stand::Waiting => row("waiting", "waiting", "waiting".into()),
            Stand::Running(attempt) => running(row("running", "running", "running".into()), attempt),
            Stand::Again { tries, reason, due } => row(
                "again",
                "tried again",
                format!("attempt {tries} failed: {reason}; tried again at {due}"),
            ),
            Stand::Done { outcome, .. } => {
                let short = if outcome.nothing_to_do { "as wanted" } else { "done" };
                Self {
                    details: outcome.details.clone(),
                    ..row("done", short, format!("{short}: {}", outcome.summary))
                }
            }
            Stand::Failed {
                reason, advice, tries, ..
            } => Self {
                advice: advice.clone(),
                ..row("failed", "failed", format!("failed after {tries} tries: {reason}"))
            },
            Stand::Skipped { reason } => row("skipped", "not begun", format!("not begun: {reason}")),
        }
    }
}

fn running(row: StandRow, attempt: &rackbar_plan::Attempt) -> StandRow {
    let Some(progress) = &attempt.progress else { return row };
    let percent = percent(progress.done, progress.total);
    let share = percent.map(|percent| format!(" {percent} %")).unwrap_or_default();
    StandRow {
        short: format!("running{share}"),
        words: format!("running{share}: {}", progress.doing),
        percent,
        ..row
    }
}

/// An action in a list.
#[derive(Serialize)]
pub(super) struct ActionRow {
    id: String,
    kind: &'static str,
    layer: u8,
    layer_name: &'static str,
    changes: Vec<(String, String, String)>,
    destroys: Option<String>,
    reboots: bool,
    estimate: String,
    reason: String,
    stand: Option<StandRow>,
}

impl ActionRow {
    fn new(action: &Action, run: Option<&Run>) -> Self {
        let change = |c: &rackbar_plan::Change| {
            let observed = c.observed.clone().unwrap_or_else(|| "not seen".into());
            (c.what.clone(), observed, c.wanted.clone())
        };
        Self {
            id: action.id.0.clone(),
            kind: action.kind.name(),
            layer: layer_number(action.layer),
            layer_name: layer_name(action.layer),
            changes: action.changes.iter().map(change).collect(),
            destroys: action.destroys.clone(),
            reboots: action.reboots,
            estimate: duration(action.estimate_seconds.into()),
            reason: action.reason.clone(),
            stand: run.and_then(|run| run.actions.get(&action.id)).map(StandRow::from),
        }
    }
}

/// What a plan does to one machine, or how far it is.
#[derive(Serialize)]
pub(super) struct NodePlan {
    name: String,
    actions: Vec<ActionRow>,
    destroys: bool,
    estimate: String,
    done: usize,
    total: usize,
    /// What it is at now, in words.
    now: String,
    /// `waiting`, `running`, `done`, `failed`.
    class: &'static str,
}

/// The machines of a plan by name, and what is no machine's; `name` gives a machine's.
pub(super) fn by_node(plan: &Plan, run: Option<&Run>, name: impl Fn(rackbar_model::NodeId) -> String) -> Vec<NodePlan> {
    let mut nodes: BTreeMap<String, Vec<&Action>> = BTreeMap::new();
    for action in &plan.actions {
        let name = action.node.map_or_else(|| action.shared().to_owned(), &name);
        nodes.entry(name).or_default().push(action);
    }
    nodes
        .into_iter()
        .map(|(name, actions)| node_plan(name, &actions, run))
        .collect()
}

fn node_plan(name: String, actions: &[&Action], run: Option<&Run>) -> NodePlan {
    let rows: Vec<_> = actions.iter().map(|action| ActionRow::new(action, run)).collect();
    let class_of = |row: &ActionRow| row.stand.as_ref().map_or("waiting", |stand| stand.class);
    let done = rows.iter().filter(|row| class_of(row) == "done").count();
    let at = |class: &str| rows.iter().find(|row| class_of(row) == class);
    let worst = ["failed", "running", "again", "skipped"]
        .into_iter()
        .find_map(|class| Some((class, at(class)?)));
    let (class, now) = match worst {
        Some((class, row)) => {
            let words = row.stand.as_ref().map(|stand| stand.words.as_str()).unwrap_or_default();
            (class, format!("{} {words}", row.kind))
        }
        None if done == rows.len() => ("done", "done".to_owned()),
        None => ("waiting", "waiting".to_owned()),
    };
    NodePlan {
        name,
        destroys: actions.iter().any(|action| action.destroys.is_some()),
        estimate: duration(actions.iter().map(|action| u64::from(action.estimate_seconds)).sum()),
        done,
        total: rows.len(),
        actions: rows,
        now,
        class,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_share_of_what_is_known() {
        assert_eq!(percent(1, 3), Some(33));
        assert_eq!(percent(9, 3), Some(100), "a file that is longer than was said");
        assert_eq!(percent(1, 0), None);
        assert_eq!(
            percent(u64::MAX, u64::MAX),
            None,
            "too large to count is no progress, not a crash"
        );
    }
}
