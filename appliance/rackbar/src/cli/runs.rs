//! `rackbar run ...`, and following a run live

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rackbar_control::client::{Client, ClientError};
use rackbar_model::Severity;
use rackbar_plan::{ActionId, Run, RunState, Stand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failed, output, plans};

/// Waiting before a broken stream is taken up again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// An appliance that restarts is back before so many tries.
const TRIES: u32 = 120;
/// Bars that fit a terminal; more machines are told line by line.
const MAX_BARS: usize = 40;

/// What to do with runs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the runs, newest first
    List,
    /// Show how each action of a run stands
    #[command(after_help = "Examples:\n  rackbar run show 3\n  rackbar run show 3 --json")]
    Show {
        /// Number of the run
        run: u64,
    },
    /// Follow a run until its end; exit code 1 when it fails
    #[command(after_help = "Example:\n  rackbar run follow 3\n\nEnding this command does not end the run.")]
    Follow {
        /// Number of the run
        run: u64,
    },
    /// Begin nothing new; what is under way goes on
    Pause {
        /// Number of the run
        run: u64,
    },
    /// Go on after a pause
    Resume {
        /// Number of the run
        run: u64,
    },
    /// Give a run up
    #[command(after_help = "Example:\n  rackbar run cancel 3\n\n\
        Machines stay where they are; `rackbar node recover NODE` brings one back to a known state.")]
    Cancel {
        /// Number of the run
        run: u64,
    },
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    match command {
        Command::List => list(client, as_json).await,
        Command::Show { run } => show(client, *run, as_json).await,
        Command::Follow { run } => follow(client, *run, as_json).await,
        Command::Pause { run } => order(client, *run, "pause", as_json).await,
        Command::Resume { run } => order(client, *run, "resume", as_json).await,
        Command::Cancel { run } => order(client, *run, "cancel", as_json).await,
    }
}

/// Said of a run that was paused while it waits for another.
const HELD: &str = ", and begins paused (`rackbar run resume` lets it begin by itself)";

async fn order(client: &Client, run: u64, order: &str, as_json: bool) -> Result<()> {
    let answer = client.post(&format!("/api/v1/runs/{run}/{order}"), &json!({})).await?;
    let answer: Value = serde_json::from_slice(&answer)?;
    if as_json {
        return output::json(&answer);
    }
    let held = if answer["held"].as_bool() == Some(true) {
        HELD
    } else {
        ""
    };
    eprintln!("run {run} is {}{held}", answer["state"].as_str().unwrap_or(order));
    Ok(())
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let runs: Vec<Value> = client.list("/api/v1/runs").await?;
    if as_json {
        return output::json(&runs);
    }
    let mut table = output::table(&[
        "RUN", "STATE", "DONE", "RUNNING", "FAILED", "WAITING", "BY", "BEGUN", "ENDED", "PLAN",
    ]);
    let text = |value: &Value| match value {
        Value::String(text) => output::plain(text),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    for run in &runs {
        let actions = &run["actions"];
        table.add_row(
            [
                &run["id"],
                &run["state"],
                &actions["done"],
                &actions["running"],
                &actions["failed"],
                &actions["waiting"],
                &run["by"],
                &run["began"],
                &run["ended"],
                &run["plan"],
            ]
            .map(text),
        );
    }
    println!("{table}");
    Ok(())
}

/// A stand in words, how bad it is, and how far.
fn words(stand: &Stand) -> (String, Severity, Option<u64>) {
    match stand {
        Stand::Waiting => ("waiting".into(), Severity::Info, None),
        Stand::Running(attempt) => match &attempt.progress {
            None => ("running".into(), Severity::Info, None),
            Some(progress) => {
                let percent = progress
                    .done
                    .min(progress.total)
                    .saturating_mul(100)
                    .checked_div(progress.total);
                (progress.doing.clone(), Severity::Info, percent)
            }
        },
        Stand::Again { tries, reason, due } => (
            format!("attempt {tries} failed: {reason}; tried again at {due}"),
            Severity::Warning,
            None,
        ),
        Stand::Done { outcome, .. } => (format!("done: {}", outcome.summary), Severity::Info, None),
        Stand::Failed { reason, advice, .. } => (format!("failed: {reason}. {advice}"), Severity::Error, None),
        Stand::Skipped { reason } => (format!("not begun: {reason}"), Severity::Warning, None),
    }
}

async fn show(client: &Client, run: u64, as_json: bool) -> Result<()> {
    let run: Run = client.get(&format!("/api/v1/runs/{run}")).await?;
    if as_json {
        return output::json(&run);
    }
    println!(
        "run {}, {}{}, plan {}, by {}, begun {}",
        run.id,
        state(run.state),
        if run.held { HELD } else { "" },
        run.plan.id,
        output::plain(&run.by),
        run.began
    );
    let mut table = output::table(&["ACTION", "STANDS"]);
    for action in &run.plan.actions {
        let (words, severity, percent) = run
            .actions
            .get(&action.id)
            .map_or_else(|| words(&Stand::Waiting), words);
        let share = percent.map(|percent| format!(" {percent} %")).unwrap_or_default();
        let text = output::plain(&format!("{words}{share}"));
        table.add_row(vec![
            output::plain(&action.id.0).into(),
            output::severity(text, severity),
        ]);
    }
    println!("{table}");
    Ok(())
}

const fn state(state: RunState) -> &'static str {
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

/// What the stream tells.
#[derive(Deserialize)]
struct News {
    state: RunState,
    stands: BTreeMap<ActionId, Stand>,
}

/// Follows a run until it ends: a line for each machine on a terminal, else a line for each change.
pub async fn follow(client: &Client, run: u64, as_json: bool) -> Result<()> {
    let end = to_end(client, run, as_json).await?;
    if as_json {
        output::json(&client.get::<Value>(&format!("/api/v1/runs/{run}")).await?)?;
    }
    match end {
        RunState::Done => {
            eprintln!("run {run} is done");
            Ok(())
        }
        other => Err(Failed(format!(
            "run {run} {}: `rackbar run show {run}` says what to do",
            state(other)
        ))
        .into()),
    }
}

/// Follows a run, `quiet` or told, and says how it ended.
pub(super) async fn to_end(client: &Client, run: u64, quiet: bool) -> Result<RunState> {
    let whole: Run = client.get(&format!("/api/v1/runs/{run}")).await?;
    let names = plans::names(client).await.unwrap_or_default();
    let mut shown = Shown::new(
        &whole,
        |id| names.get(&id).cloned().unwrap_or_else(|| id.to_string()),
        quiet,
    );
    let mut tries = 0;
    let end = loop {
        match watch(client, run, &mut shown).await {
            Ok(Some(end)) => break end,
            Ok(None) => {}
            Err(error) if matches!(error.downcast_ref(), Some(ClientError::Unreachable { .. })) && tries < TRIES => {
                shown.say(&format!("{error:#}; the run goes on without us, trying again"));
            }
            Err(error) => return Err(error),
        }
        tries += 1;
        if tries > TRIES {
            return Err(Failed(format!(
                "the run's stream broke {TRIES} times; see `rackbar run show {run}`"
            ))
            .into());
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    };
    shown.end();
    Ok(end)
}

/// The state it ended in; `None` when the stream ended before the run.
async fn watch(client: &Client, run: u64, shown: &mut Shown) -> Result<Option<RunState>> {
    let mut stream = client.follow(&format!("/api/v1/runs/{run}/stream")).await?;
    while let Some(text) = stream.next().await? {
        let news: News = serde_json::from_str(&text)?;
        shown.take(&news);
        if news.state.ended() {
            return Ok(Some(news.state));
        }
    }
    Ok(None)
}

/// One machine of a run.
struct Line {
    actions: Vec<ActionId>,
    bar: Option<ProgressBar>,
}

/// What is on the terminal.
struct Shown {
    lines: BTreeMap<String, Line>,
    of: BTreeMap<ActionId, String>,
    stands: BTreeMap<ActionId, Stand>,
    /// What was last told of an action, so that progress does not tell it again.
    told: BTreeMap<ActionId, &'static str>,
    quiet: bool,
    bars: Option<MultiProgress>,
}

const fn kind(stand: &Stand) -> &'static str {
    match stand {
        Stand::Waiting => "waiting",
        Stand::Running(_) => "begun",
        Stand::Again { .. } => "again",
        Stand::Done { .. } => "done",
        Stand::Failed { .. } => "failed",
        Stand::Skipped { .. } => "skipped",
    }
}

impl Shown {
    fn new(run: &Run, name: impl Fn(rackbar_model::NodeId) -> String, quiet: bool) -> Self {
        let mut lines: BTreeMap<String, Line> = BTreeMap::new();
        let mut of = BTreeMap::new();
        for action in &run.plan.actions {
            let node = action.node.map_or_else(|| action.shared().to_owned(), &name);
            of.insert(action.id.clone(), node.clone());
            let line = lines.entry(node).or_insert_with(|| Line {
                actions: Vec::new(),
                bar: None,
            });
            line.actions.push(action.id.clone());
        }
        let terminal = std::io::stderr().is_terminal() && !quiet && lines.len() <= MAX_BARS;
        let bars = terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        if let Some(bars) = &bars {
            // The template is ours, so it is right.
            let style = ProgressStyle::with_template("{prefix:16!} [{bar:20}] {pos}/{len} {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            for (name, line) in &mut lines {
                let bar = bars.add(ProgressBar::new(line.actions.len() as u64).with_style(style.clone()));
                bar.set_prefix(output::plain(name));
                line.bar = Some(bar);
            }
        }
        Self {
            lines,
            of,
            stands: BTreeMap::new(),
            told: BTreeMap::new(),
            quiet,
            bars,
        }
    }

    fn take(&mut self, news: &News) {
        for (id, stand) in &news.stands {
            self.stands.insert(id.clone(), stand.clone());
            let kind = kind(stand);
            let before = self.told.insert(id.clone(), kind);
            let new = before != Some(kind) && !(before.is_none() && kind == "waiting");
            if new && (self.bars.is_none() || matches!(kind, "failed" | "again")) {
                let (words, severity, _) = words(stand);
                let words = if kind == "begun" { "begun".to_owned() } else { words };
                let line = output::line(&output::plain(&format!("{id}: {words}")), severity);
                self.say(&line);
            }
            if let Some(node) = self.of.get(id).cloned() {
                self.draw(&node);
            }
        }
    }

    fn draw(&self, node: &str) {
        let Some(line) = self.lines.get(node) else { return };
        let Some(bar) = &line.bar else { return };
        let stands = line.actions.iter().filter_map(|id| Some((id, self.stands.get(id)?)));
        let done = stands
            .clone()
            .filter(|(_, stand)| matches!(stand, Stand::Done { .. }))
            .count();
        bar.set_position(done as u64);
        let now = stands.clone().find(|(_, stand)| matches!(stand, Stand::Failed { .. }));
        let now = now.or_else(|| {
            stands
                .clone()
                .find(|(_, stand)| matches!(stand, Stand::Running(_) | Stand::Again { .. }))
        });
        let message = match now {
            Some((id, stand)) => {
                let (words, _, percent) = words(stand);
                let share = percent.map(|percent| format!(" {percent} %")).unwrap_or_default();
                let short = id.0.split_once('/').map_or(id.0.as_str(), |(_, rest)| rest);
                output::plain(&format!("{short}{share} {words}"))
            }
            None if done == line.actions.len() => "done".to_owned(),
            None => "waiting".to_owned(),
        };
        bar.set_message(message);
    }

    fn say(&self, line: &str) {
        match &self.bars {
            // Printing above the bars fails only with the terminal.
            Some(bars) => drop(bars.println(line)),
            None if self.quiet => {}
            None => eprintln!("{line}"),
        }
    }

    fn end(&self) {
        self.lines
            .values()
            .filter_map(|line| line.bar.as_ref())
            .for_each(ProgressBar::abandon);
    }
}
