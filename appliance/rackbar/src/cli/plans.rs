//! `rackbar plan`, `rackbar commit`, `rackbar install`

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use rackbar_control::client::Client;
use rackbar_control::operations::{Install, PlanRequest, duration};
use rackbar_model::{DiskIntent, DiskMedia, DiskPick, Node, NodeId, Severity};
use rackbar_plan::{Action, Layer, Plan, RunId, RunState};
use serde::Deserialize;
use serde_json::json;

use super::{Failed, output, runs};

/// Machines up to which every name is typed for consent; above, how many they are.
const TYPED_NAMES: usize = 3;

/// Which plan to make.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rackbar plan\n  rackbar plan storage-1 storage-2 --reinstall\n  rackbar plan --rotate-passwords\n  rackbar plan --json > plan.json\n\n\
    A plan only says what would be done. `rackbar commit PLAN` does it."
)]
pub struct Options {
    /// Machines; all that have a role when left out
    nodes: Vec<String>,
    /// Install also what is installed as wanted
    #[arg(long)]
    reinstall: bool,
    /// Give BMCs new passwords, also those that have one of their machine's own
    #[arg(long)]
    rotate_passwords: bool,
}

/// Which plan to carry out.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rackbar commit 3fa1b2c4d5e6\n  \
    rackbar commit 3fa1b2c4d5e6 --yes-destroy storage-1 storage-2 --detach\n\n\
    On a terminal, consent to what is destroyed is asked for and typed. In scripts --yes-destroy names every machine \
    whose data goes. Exit code 1 when the run fails.")]
pub struct Commit {
    /// The plan, as `rackbar plan` named it
    plan: String,
    /// Machines whose data may be destroyed
    #[arg(long, num_args = 1.., value_name = "NODE")]
    yes_destroy: Vec<String>,
    /// Do not wait for the end
    #[arg(long)]
    detach: bool,
}

/// What to install, without a site file.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rackbar install --os debian-12 node-001 --ssh-key ~/.ssh/id_ed25519.pub\n  \
    rackbar install --os debian-12 node-001 --disk smallest,ssd --yes-destroy node-001\n  \
    rackbar install --os debian-12 node-001 --disk serial=S4X1 --detach\n\n\
    --disk takes words apart by commas: smallest, largest, ssd, hdd, serial=, wwn=, model=, by-path=, min-gib=, max-gib=. \
    Without it the machine must have one disk, or two with --mirror."
)]
pub struct InstallOptions {
    /// Machines
    #[arg(required = true)]
    nodes: Vec<String>,
    /// Name in the catalogue (`rackbar os list`)
    #[arg(long)]
    os: String,
    /// Which disk
    #[arg(long, value_parser = disk_intent)]
    disk: Option<DiskIntent>,
    /// On two disks, mirrored
    #[arg(long)]
    mirror: bool,
    /// File of public keys that may log in; may be given more than once
    #[arg(long, value_name = "FILE")]
    ssh_key: Vec<std::path::PathBuf>,
    /// Install also when it is installed already
    #[arg(long)]
    reinstall: bool,
    /// Machines whose data may be destroyed
    #[arg(long, num_args = 1.., value_name = "NODE")]
    yes_destroy: Vec<String>,
    /// Do not wait for the end
    #[arg(long)]
    detach: bool,
}

/// Reads `smallest,ssd,min-gib=100`.
fn disk_intent(text: &str) -> Result<DiskIntent, String> {
    let mut intent = DiskIntent::default();
    for word in text.split(',') {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let named = || {
            if value.is_empty() {
                Err(format!("`{key}=` needs a value"))
            } else {
                Ok(Some(value.to_owned()))
            }
        };
        let number = || {
            value
                .parse()
                .map(Some)
                .map_err(|_| format!("`{word}`: a number of GiB is wanted"))
        };
        match key {
            "smallest" => intent.pick = Some(DiskPick::Smallest),
            "largest" => intent.pick = Some(DiskPick::Largest),
            "ssd" => intent.media = Some(DiskMedia::Ssd),
            "hdd" => intent.media = Some(DiskMedia::Hdd),
            "serial" => intent.serial = named()?,
            "wwn" => intent.wwn = named()?,
            "model" => intent.model = named()?,
            "by-path" => intent.by_path = named()?,
            "min-gib" => intent.min_gib = number()?,
            "max-gib" => intent.max_gib = number()?,
            _ => {
                return Err(format!(
                    "`{word}` is none of smallest, largest, ssd, hdd, serial=, wwn=, model=, by-path=, min-gib=, max-gib="
                ));
            }
        }
    }
    Ok(intent)
}

/// `rackbar plan`
pub async fn plan(client: &Client, options: &Options, as_json: bool) -> Result<()> {
    let request = PlanRequest {
        nodes: options.nodes.clone(),
        reinstall: options.reinstall,
        rotate_passwords: options.rotate_passwords,
        ..PlanRequest::default()
    };
    let plan = make(client, &request).await?;
    if as_json {
        return output::json(&plan);
    }
    show(&plan, &names(client).await?);
    if !plan.actions.is_empty() {
        eprintln!("\nNothing has happened yet. To do it: rackbar commit {}", plan.id);
    }
    Ok(())
}

async fn make(client: &Client, request: &PlanRequest) -> Result<Plan> {
    let answer = client.post("/api/v1/plans", request).await?;
    serde_json::from_slice(&answer)
        .context("the plan cannot be read; are the appliance and this program of one version?")
}

/// Names of the machines now.
pub async fn names(client: &Client) -> Result<BTreeMap<NodeId, String>> {
    let nodes: Vec<Node> = client.list("/api/v1/nodes").await?;
    Ok(nodes.into_iter().map(|node| (node.id, node.name)).collect())
}

const fn layer(layer: Layer) -> &'static str {
    match layer {
        Layer::Infrastructure => "layer 1, infrastructure",
        Layer::Firmware => "layer 2, firmware",
        Layer::System => "layer 3, system",
        Layer::Clients => "layer 4, clients",
        Layer::Applications => "layer 5, applications",
        Layer::Management => "layer 6, management",
        Layer::Coordination => "layer 7, coordination",
    }
}

fn show(plan: &Plan, names: &BTreeMap<NodeId, String>) {
    let name = |id: &NodeId| names.get(id).cloned().unwrap_or_else(|| id.to_string());
    let mut by_node: BTreeMap<String, Vec<&Action>> = BTreeMap::new();
    for action in &plan.actions {
        let node = action.node.as_ref().map_or_else(|| action.shared().to_owned(), name);
        by_node.entry(node).or_default().push(action);
    }
    let count = |number: usize, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
    let (actions, machines) = (
        count(plan.actions.len(), "action"),
        count(plan.by_node().len(), "machine"),
    );
    println!("plan {}: {actions} on {machines}", plan.id);
    if let Some(limits) = plan.limits.words() {
        println!("at the same time: {}", output::plain(&limits));
    }
    by_node.iter().for_each(|(node, actions)| show_node(node, actions));
    for refused in &plan.refused {
        let line = format!("{} cannot be planned: {}", refused.name, refused.reason);
        println!("\n{}", output::line(&output::plain(&line), Severity::Warning));
    }
    if !plan.left_out.is_empty() {
        println!("\nnot touched:");
    }
    for left in &plan.left_out {
        println!("  {}", output::plain(&format!("{}: {}", left.name, left.reason)));
    }
    if !plan.unchanged.is_empty() {
        let as_wanted: Vec<_> = plan.unchanged.iter().map(name).collect();
        println!("\nas wanted already: {}", output::plain(&as_wanted.join(", ")));
    }
    if plan.actions.is_empty() && plan.refused.is_empty() {
        println!("\nThere is nothing to do.");
    }
}

fn show_node(node: &str, actions: &[&Action]) {
    let seconds = actions.iter().map(|action| u64::from(action.estimate_seconds)).sum();
    println!("\n{}, about {}", output::plain(node), duration(seconds));
    let mut last = None;
    for action in actions {
        if last != Some(action.layer) {
            println!("  {}", layer(action.layer));
            last = Some(action.layer);
        }
        let restarts = if action.reboots { ", restarts" } else { "" };
        println!(
            "    {:14} {}{restarts}",
            action.kind.name(),
            output::plain(&action.reason)
        );
        for change in &action.changes {
            let observed = change.observed.as_deref().unwrap_or("not seen");
            println!(
                "      {}",
                output::plain(&format!("{}: {observed} -> {}", change.what, change.wanted))
            );
        }
        if let Some(destroys) = &action.destroys {
            println!(
                "      {}",
                output::line(&format!("DESTROYS {}", output::plain(destroys)), Severity::Error)
            );
        }
    }
}

/// `rackbar commit`
pub async fn commit(client: &Client, options: &Commit, as_json: bool) -> Result<()> {
    let plan: Plan = client
        .get(&format!("/api/v1/plans/{}", super::segment(&options.plan)))
        .await?;
    let consent = consent(client, &plan, &options.yes_destroy).await?;
    start(client, &plan, consent, options.detach, as_json).await
}

/// `rackbar install`
pub async fn install(client: &Client, options: &InstallOptions, as_json: bool) -> Result<()> {
    let mut ssh_keys = Vec::new();
    for file in &options.ssh_key {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        ensure!(
            !text.contains("PRIVATE KEY"),
            "{} is a private key; give the .pub file",
            file.display()
        );
        ssh_keys.extend(
            text.lines()
                .map(str::trim)
                .filter(|l| !l.is_empty() && !l.starts_with('#'))
                .map(str::to_owned),
        );
    }
    if ssh_keys.is_empty() {
        eprintln!("no --ssh-key: nobody but the appliance will be able to log in");
    }
    let request = PlanRequest {
        nodes: options.nodes.clone(),
        reinstall: options.reinstall,
        install: Some(Install {
            os: options.os.clone(),
            disk: options.disk.clone(),
            mirror: options.mirror,
            ssh_keys,
        }),
        ..PlanRequest::default()
    };
    at_once(client, &request, &options.yes_destroy, options.detach, as_json).await
}

/// Makes a plan, shows it, and carries it out.
pub(super) async fn at_once(
    client: &Client,
    request: &PlanRequest,
    yes_destroy: &[String],
    detach: bool,
    as_json: bool,
) -> Result<()> {
    let plan = make(client, request).await?;
    if !as_json {
        show(&plan, &names(client).await?);
    }
    if plan.actions.is_empty() {
        return if plan.refused.is_empty() {
            Ok(())
        } else {
            Err(Failed("no machine could be planned for".into()).into())
        };
    }
    let consent = consent(client, &plan, yes_destroy).await?;
    start(client, &plan, consent, detach, as_json).await
}

/// What is destroyed, by machine; asked for on a terminal when it was not named.
async fn consent(client: &Client, plan: &Plan, named: &[String]) -> Result<Vec<String>> {
    let names = names(client).await?;
    let mut loses: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for action in &plan.actions {
        if let (Some(node), Some(words)) = (&action.node, &action.destroys) {
            loses
                .entry(names.get(node).cloned().unwrap_or_else(|| node.to_string()))
                .or_default()
                .push(words);
        }
    }
    if loses.is_empty() || !named.is_empty() {
        return Ok(named.to_vec());
    }
    for (node, words) in &loses {
        let line = format!("{node}: DESTROYS {}", words.join("; "));
        eprintln!("{}", output::line(&output::plain(&line), Severity::Error));
    }
    let wanted: Vec<String> = loses.into_keys().collect();
    if !std::io::stdin().is_terminal() {
        bail!(
            "the plan destroys data; consent with --yes-destroy {}",
            wanted.join(" ")
        );
    }
    if wanted.len() > TYPED_NAMES {
        let typed = ask(&format!(
            "Type the number of machines whose data is destroyed ({}): ",
            wanted.len()
        ))?;
        ensure!(
            typed == wanted.len().to_string(),
            "not {}; nothing was begun",
            wanted.len()
        );
    } else {
        for node in &wanted {
            let typed = ask(&format!("Type {node} to destroy its data: "))?;
            ensure!(typed == *node, "not {node}; nothing was begun");
        }
    }
    Ok(wanted)
}

/// What is typed for this question.
pub(super) fn ask(question: &str) -> Result<String> {
    eprint!("{question}");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Makes a plan that destroys nothing and carries it out, `quiet` or told; says how it ended, and of each machine that the plan
/// left out why.
pub(super) async fn carried_out(
    client: &Client,
    request: &PlanRequest,
    quiet: bool,
) -> Result<(RunState, Vec<String>)> {
    let plan = make(client, request).await?;
    if !quiet {
        show(&plan, &names(client).await?);
    }
    let without = plan.refused.iter().chain(&plan.left_out);
    let without: Vec<String> = without
        .map(|said| output::plain(&format!("{}: {}", said.name, said.reason)))
        .collect();
    if plan.actions.is_empty() {
        let reason = without.first().map_or_else(String::new, |said| format!(": {said}"));
        return Err(Failed(format!("no machine could be planned for{reason}")).into());
    }
    let (begun, _) = begin(client, &plan, Vec::new()).await?;
    Ok((runs::to_end(client, begun.0, quiet).await?, without))
}

/// Commits a plan: the run that it began, and the whole answer.
async fn begin(client: &Client, plan: &Plan, consent: Vec<String>) -> Result<(RunId, Vec<u8>)> {
    #[derive(Deserialize)]
    struct Begun {
        id: RunId,
    }
    let path = format!("/api/v1/plans/{}/commit", plan.id);
    let answer = client.post(&path, &json!({ "destroy": consent })).await?;
    let begun: Begun = serde_json::from_slice(&answer)?;
    Ok((begun.id, answer.into()))
}

async fn start(client: &Client, plan: &Plan, consent: Vec<String>, detach: bool, as_json: bool) -> Result<()> {
    let (begun, answer) = begin(client, plan, consent).await?;
    if detach {
        if as_json {
            return output::json(&serde_json::from_slice::<serde_json::Value>(&answer)?);
        }
        eprintln!("run {begun} began; follow it with `rackbar run follow {begun}`");
        return Ok(());
    }
    runs::follow(client, begun.0, as_json).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_asked_for_in_words() {
        let intent = disk_intent("smallest,ssd,min-gib=100,serial=S4X1").unwrap();
        assert_eq!(intent.pick, Some(DiskPick::Smallest));
        assert_eq!(intent.media, Some(DiskMedia::Ssd));
        assert_eq!(intent.min_gib, Some(100));
        assert_eq!(intent.serial.as_deref(), Some("S4X1"));
        for wrong in ["", "fastest", "serial=", "min-gib=x"] {
            assert!(disk_intent(wrong).is_err(), "{wrong}");
        }
    }
}
