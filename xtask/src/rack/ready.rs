//! The second half of the main job: an operating system for every machine of the rack, from the site file that lies
//! beside the rack's, through the same API a person uses.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rackbar_model::Node;
use rackbar_plan::{Action, Run, RunState, Stand};
use rackbar_scenarios::api::Api;
use rackbar_scenarios::install::{Image, commit_all, troubles};

use super::follow::Followed;
use super::view::View;

/// How often the API is asked.
const LOOK: Duration = Duration::from_millis(500);

/// What a rack is made ready with.
pub(super) struct Wanted {
    /// The site file's text.
    pub(super) site: String,
    /// The image every role of it installs.
    pub(super) image: Image,
    /// Where signed reports are kept.
    pub(super) reports: PathBuf,
}

/// The site file that lies beside a rack file: `sites/NAME.toml`.
pub(super) fn site_file(rack: &Path) -> Option<PathBuf> {
    let path = rack.parent()?.join("sites").join(rack.file_name()?);
    path.is_file().then_some(path)
}

/// From discovered to ready. Gives the time from commit to the last machine ready.
pub(super) async fn until_ready(
    api: &Api,
    wanted: &Wanted,
    view: &mut View,
    followed: &mut [Followed],
) -> Result<Duration> {
    let size = std::fs::metadata(&wanted.image.path).map_or(0, |file| file.len() >> 20);
    view.say(
        "appliance",
        &format!("takes the image {} ({size} MiB)", wanted.image.name),
    );
    api.upload(&wanted.image).await?;
    api.set_site(&wanted.site).await.context("the site file")?;
    let (plan, id) = commit_all(api).await?;
    let start = Instant::now();
    view.done("appliance", &format!("plan {} committed as run {id}", plan.id));
    loop {
        if let (Ok(run), Ok(nodes)) = (api.run(id).await, api.nodes().await) {
            for machine in followed.iter_mut() {
                show(view, machine, &run, &nodes);
            }
            match run.state {
                RunState::Going | RunState::Paused | RunState::Waiting => {}
                RunState::Done => return Ok(start.elapsed()),
                RunState::Failed | RunState::Cancelled | RunState::Superseded => {
                    bail!("the run ended badly:\n  {}", troubles(&run).join("\n  "))
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Fetches the rack's signed report, checks its signature, keeps it beside the build, and shows it.
///
/// # Errors
/// When there is none, or it is not what was signed.
pub(super) async fn report(api: &Api, folder: &Path, rack: &str) -> Result<()> {
    let file = api.report().await.context("the rack's report")?;
    let checked = rackbar_verify::check(&file, None).context("the rack's report")?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let path = folder.join(format!("{rack}-report.json"));
    std::fs::write(&path, &file).with_context(|| format!("writing {}", path.display()))?;
    println!("{}", rackbar_verify::text(&checked.report));
    println!("signed report: {}", path.display());
    Ok(())
}

fn show(view: &mut View, machine: &mut Followed, run: &Run, nodes: &[Node]) {
    let Some(node) = machine
        .node
        .as_ref()
        .and_then(|known| nodes.iter().find(|node| node.id == known.id))
    else {
        return;
    };
    machine.node = Some(node.clone());
    let own = || run.plan.actions.iter().filter(|action| action.node == Some(node.id));
    let ended = own().filter(|action| matches!(run.actions.get(&action.id), Some(Stand::Done { .. })));
    let (ended, all) = (ended.count(), own().count());
    match own().find_map(|action| doing(action, run)) {
        Some(words) => view.say(&machine.name, &format!("{} {ended}/{all} {words}", node.name)),
        None if ended == all && all > 0 => view.done(&machine.name, &format!("{} is {}", node.name, node.state.name())),
        None => {}
    }
}

/// What an action does now, in words.
fn doing(action: &Action, run: &Run) -> Option<String> {
    let name = action.kind.name();
    match run.actions.get(&action.id)? {
        Stand::Running(attempt) => Some(match &attempt.progress {
            Some(progress) if progress.total > 0 => {
                let percent = progress.done.saturating_mul(100) / progress.total;
                format!("{name}: {} {percent} %", progress.doing)
            }
            Some(progress) => format!("{name}: {}", progress.doing),
            None => name.to_owned(),
        }),
        Stand::Again { reason, .. } => Some(format!("{name}: tried again soon: {reason}")),
        Stand::Failed { reason, .. } => Some(format!("{name} failed: {reason}")),
        Stand::Waiting | Stand::Done { .. } | Stand::Skipped { .. } => None,
    }
}
