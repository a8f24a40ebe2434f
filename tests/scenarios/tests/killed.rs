//! The appliance loses its power at every boundary of a run on a real machine, and the run ends with the machine ready.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackbar_model::{EventKind, PowerState};
use rackbar_plan::{ActionId, Run, RunId};
use rackbar_scenarios::api::{Live, Worded};
use rackbar_scenarios::install::{READY, commit_all, until_done};
use rackbar_scenarios::{Stage, eventually};

use crate::install::{SITE, all_ready, prepared};

/// The machine.
const MACHINE: &str = "n1";
/// For one action, an emulated boot of a machine among them.
const BOUNDARY: Duration = Duration::from_secs(300);

/// Actions that may have ended between the word of their begin and the cut: laying an identity and looking at a boot order
/// take a moment, which a busy machine may need to hear of it. Then the power goes in the action after.
const QUICK: usize = 2;

/// A moment of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Boundary {
    /// An action began, and the one before it ended: both are one commit.
    Began(ActionId),
    /// The last action ended.
    Over,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_appliance_killed_at_every_action_boundary_still_brings_the_rack_to_ready() -> Result<()> {
    let stage = prepared(&[MACHINE], |_| {}, SITE).await?;
    is_switched_off(&stage).await?;
    let mut live = stage.api.follow(None).await?;
    let (plan, id) = commit_all(&stage.api).await?;
    let mut cuts = Vec::new();
    loop {
        let (seq, boundary) = next_boundary(&mut live, id, &cuts).await?;
        stage.appliance.machine.cut_power().await?;
        let served = stage.start_appliance().await;
        let took = served.with_context(|| format!("after the cut at {boundary:?}"))?;
        println!("cut at {boundary:?}, served again after {:.1} s", took.as_secs_f64());
        let over = boundary == Boundary::Over;
        cuts.push(boundary);
        if over {
            break;
        }
        // The event itself may have been lost, and its number be another's now.
        live = stage.api.follow(Some(seq.saturating_sub(1))).await?;
    }
    let run = until_done(&stage.api, id, READY).await?;
    all_ready(&stage, &[MACHINE]).await?;
    every_action_was_cut(&stage, &run).await?;
    for action in &plan.actions {
        let began = Boundary::Began(action.id.clone());
        ensure!(cuts.contains(&began), "no cut at the begin of {}", action.id);
        ensure!(run.actions.contains_key(&action.id), "{} was lost: {run:#?}", action.id);
    }
    println!("{} power cuts of the appliance during one run, and ready", cuts.len());
    stage.end().await;
    Ok(())
}

/// Of a machine that is off and known to be, a run has to bring up the agent as well.
async fn is_switched_off(stage: &Stage) -> Result<()> {
    let node = stage.node(MACHINE).await?.context("known")?;
    stage.api.power(node.id, "shutdown").await?;
    let gone = || async {
        let node = stage.node(MACHINE).await?.context("known")?;
        ensure!(!node.agent_connected, "its agent is connected");
        ensure!(node.power == PowerState::Off, "its power is {:?}", node.power);
        Ok(())
    };
    eventually(&format!("{MACHINE} is off"), BOUNDARY, gone).await
}

/// The next boundary of the run that was not cut yet, with the number of its event.
async fn next_boundary(live: &mut Live, id: RunId, cuts: &[Boundary]) -> Result<(u64, Boundary)> {
    let next = async {
        loop {
            let told = live.next().await?;
            let boundary = match &told.event.kind {
                EventKind::ActionStarted { run, action, .. } if *run == id.0 => {
                    Boundary::Began(ActionId(action.clone()))
                }
                EventKind::RunChanged { run, state, .. } if *run == id.0 && state == "done" => Boundary::Over,
                EventKind::ActionFailed { .. } => anyhow::bail!("{}", told.text),
                _ => continue,
            };
            if !cuts.contains(&boundary) {
                return Ok((told.event.seq, boundary));
            }
        }
    };
    let next = tokio::time::timeout(BOUNDARY, next).await;
    next.with_context(|| format!("no boundary came after {:?}", cuts.last()))?
}

/// By the journal's own account the power went while the actions were under way: a start of the appliance stands between the
/// begin and the end of each but the quickest. And a start tells no trouble that there is none of.
async fn every_action_was_cut(stage: &Stage, run: &Run) -> Result<()> {
    let told = everything(stage).await?;
    let mut begun: BTreeMap<&str, usize> = BTreeMap::new();
    let mut cut: BTreeMap<&str, usize> = BTreeMap::new();
    let mut starts = 0;
    for one in &told {
        match &one.event.kind {
            // The first that a daemon tells of itself.
            EventKind::Service { name, .. } if name == "store" => starts += 1,
            EventKind::ActionStarted { action, .. } => _ = begun.insert(action, starts),
            EventKind::ActionDone { action, .. } => {
                let before = begun
                    .get(action.as_str())
                    .with_context(|| format!("{action} ended and never began"))?;
                cut.insert(action, starts - before);
            }
            EventKind::BmcFailed { reason, .. } => ensure!(!reason.contains("no credential"), "{}", one.text),
            _ => {}
        }
    }
    println!("starts of the appliance under way of each action: {cut:?}");
    let ended_first = |action: &&rackbar_plan::Action| cut.get(action.id.0.as_str()).is_none_or(|cuts| *cuts == 0);
    let ended_first: Vec<_> = run
        .plan
        .actions
        .iter()
        .filter(ended_first)
        .map(|action| &action.id)
        .collect();
    ensure!(
        ended_first.len() <= QUICK,
        "the power went too late, after the ends of {ended_first:?}: {cut:?}"
    );
    Ok(())
}

/// All events of the journal, oldest first.
async fn everything(stage: &Stage) -> Result<Vec<Worded>> {
    let mut told: Vec<Worded> = Vec::new();
    loop {
        let more = stage
            .api
            .events_after(told.last().map_or(0, |last| last.event.seq))
            .await?;
        if more.is_empty() {
            return Ok(told);
        }
        told.extend(more);
    }
}
