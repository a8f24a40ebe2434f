//! `rackbar verify` and `rackbar report ...`

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use rackbar_control::client::Client;
use rackbar_control::operations::PlanRequest;
use rackbar_model::{BurnIn, CheckStatus, Node, NodeId, Severity};
use rackbar_plan::RunState;
use rackbar_verify::{Level, NodeReport, Report};
use serde_json::json;

use super::{Failed, burn_in, output, plans, segment};

/// What to check.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rackbar verify node-003\n  rackbar verify --rack\n  \
    rackbar verify --rack --burn-in 2h --yes-restart\n  rackbar verify --list\n\n\
    Waits for their end; they are a run like any other. With --burn-in, machines are first taken from their work into Rackbar's \
    agent, exercised, and taken back; `rackbar burn-in` has a time for each part. With --rack that is asked for on a terminal, \
    and in scripts --yes-restart agrees to it. Exit code 1 when a check fails.")]
pub struct Options {
    /// Machines
    #[arg(required_unless_present_any = ["rack", "list"])]
    nodes: Vec<String>,
    /// Every machine that has something installed
    #[arg(long, conflicts_with = "nodes")]
    rack: bool,
    /// Exercise processors, memory and disks first, each for so long: 30s, 10m, 2h, 1d
    #[arg(long, value_name = "TIME", value_parser = burn_in::seconds)]
    burn_in: Option<u32>,
    /// Agree that every installed machine is restarted for it
    #[arg(long, requires_all = ["rack", "burn_in"])]
    yes_restart: bool,
    /// Only list the checks there are; asks no appliance
    #[arg(long, conflicts_with_all = ["nodes", "rack", "burn_in"])]
    pub(super) list: bool,
}

/// What to do with reports.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// Show the newest signed report of the rack or of one machine
    #[command(after_help = "Examples:\n  rackbar report show\n  rackbar report show storage-1\n  \
        rackbar report show --file > rack.report")]
    Show {
        /// Machine; the whole rack when left out
        node: Option<String>,
        /// The signed file itself, byte for byte, as `report check` takes it
        #[arg(long)]
        file: bool,
    },
    /// Check a report file offline: that nobody changed it, and who signed it
    Check(Check),
}

/// Which report to check.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rackbar report check rack.report --key 5d0c...\n\n\
    Asks no appliance. The key is in `rackbar report show` and on the printed page; without --key the command says which \
    key signed it, and that may be anybody's. Exit code 1 when the report is not believed or a check failed.")]
pub struct Check {
    /// The file
    file: PathBuf,
    /// The site's signing key, 64 hexadecimal digits
    #[arg(long, value_name = "HEX")]
    key: Option<String>,
}

/// `rackbar verify --list`: the checks this program knows.
pub fn list_checks(as_json: bool) -> Result<()> {
    let known = rackbar_verify::capabilities();
    if as_json {
        return output::json(known);
    }
    let mut table = output::table(&["CHECK", "LAYER", "OF", "SHOWS"]);
    for check in &known.checks {
        let of = match check.level {
            Level::Component => "one machine",
            Level::Platform => "machines together",
        };
        table.add_row([&*check.id, &check.layer.to_string(), of, &check.title]);
    }
    println!("{table}");
    Ok(())
}

/// `rackbar verify`: waits for the end of the checks, which are a run like any other.
pub async fn verify(client: &Client, options: &Options, as_json: bool) -> Result<()> {
    // By name, id or MAC address, as everywhere: the appliance says who that is, and a report knows ids.
    let mut ids = Vec::new();
    for name in &options.nodes {
        let node: Node = client.get(&format!("/api/v1/nodes/{}", segment(name))).await?;
        ids.push(node.id);
    }
    let (answer, without) = match options.burn_in {
        Some(seconds) => exercised(client, options, seconds, &mut ids, as_json).await?,
        None => {
            eprintln!("checking; `rackbar run list` on another terminal shows how far it is");
            let asked = json!({ "nodes": options.nodes });
            (client.post("/api/v1/verify", &asked).await?.into(), Vec::new())
        }
    };
    let checked = rackbar_verify::check(&answer, None).context("the appliance's report")?;
    let mut report = checked.report;
    report.nodes.retain(|node| ids.is_empty() || ids.contains(&node.node));
    if as_json {
        output::json(&report)?;
    } else {
        print(&report);
    }
    // What is told of one that was not exercised is from before.
    if !without.is_empty() {
        bail!(Failed(format!("not exercised: {}", without.join("; "))));
    }
    if !report.passed() {
        bail!(Failed("not all checks passed".into()));
    }
    Ok(())
}

/// Has machines exercised, which ends with their checks; then the rack's report, and of each that could not be exercised why. A
/// run that failed is told by what its machines came to.
async fn exercised(
    client: &Client,
    options: &Options,
    seconds: u32,
    ids: &mut Vec<NodeId>,
    as_json: bool,
) -> Result<(Vec<u8>, Vec<String>)> {
    if options.rack {
        let mut nodes: Vec<Node> = client.list("/api/v1/nodes").await?;
        nodes.retain(|node| node.installed.is_some());
        if !options.yes_restart {
            agree(&nodes)?;
        }
        ids.extend(nodes.iter().map(|node| node.id));
    }
    let request = PlanRequest {
        nodes: ids.iter().map(ToString::to_string).collect(),
        burn_in: Some(BurnIn {
            cpu_seconds: seconds,
            memory_seconds: seconds,
            disk_seconds: seconds,
        }),
        ..PlanRequest::default()
    };
    let (end, without) = plans::carried_out(client, &request, as_json).await?;
    if !matches!(end, RunState::Done | RunState::Failed) {
        bail!(Failed("it was not exercised to the end".into()));
    }
    let report = client.get_text("/api/v1/report").await?;
    Ok((report.into_bytes(), without))
}

/// Whoever named no machine is asked whether it may be all of these.
fn agree(nodes: &[Node]) -> Result<()> {
    let count = nodes.len();
    if count == 0 {
        return Ok(());
    }
    let names: Vec<_> = nodes.iter().map(|node| output::plain(&node.name)).collect();
    let line = format!("restarted, and out of work until it is over: {}", names.join(", "));
    eprintln!("{}", output::line(&line, Severity::Warning));
    if !std::io::stdin().is_terminal() {
        bail!("this takes {count} machines from their work; agree with --yes-restart, or name the machines");
    }
    let typed = plans::ask(&format!("Type the number of machines that are restarted ({count}): "))?;
    ensure!(typed == count.to_string(), "not {count}; nothing was begun");
    Ok(())
}

/// `rackbar report show`
pub async fn reports(client: &Client, command: &ReportCommand, as_json: bool) -> Result<()> {
    match command {
        ReportCommand::Show { node, file } => show(client, node.as_deref(), *file, as_json).await,
        ReportCommand::Check(options) => check_file(options, as_json),
    }
}

async fn show(client: &Client, node: Option<&str>, file: bool, as_json: bool) -> Result<()> {
    let path = match node {
        Some(node) => format!("/api/v1/nodes/{}/report", segment(node)),
        None => "/api/v1/report".to_owned(),
    };
    let text = client.get_text(&path).await?;
    if file {
        print!("{text}");
        return Ok(());
    }
    let checked = rackbar_verify::check(text.as_bytes(), None).context("the appliance's report")?;
    if as_json {
        return output::json(&checked.report);
    }
    print(&checked.report);
    println!("signed with key {}", hex(&checked.key));
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn print(report: &Report) {
    println!(
        "{}, Rackbar {}, {}",
        output::plain(&report.site),
        report.appliance,
        report.at
    );
    for node in &report.nodes {
        print_node(node);
    }
}

fn print_node(node: &NodeReport) {
    let [passed, failed, skipped] = node.counts();
    let severity = if node.passed() { Severity::Info } else { Severity::Error };
    let role = node.role.as_deref().unwrap_or("no role");
    let head = format!(
        "\n{} ({role}): {passed} passed, {failed} failed, {skipped} skipped",
        node.name
    );
    println!("{}", output::line(&plain_lines(&head), severity));
    if let Some(why) = node.unproved() {
        println!("{}", output::plain(&why));
        return;
    }
    if let Some(why) = node.gone() {
        println!("{}", output::plain(&why));
    }
    let mut table = output::table(&["CHECK", "RESULT", "WANTED", "OBSERVED", "WHAT TO DO", "AT"]);
    for check in node.results() {
        let (word, severity) = match check.status {
            CheckStatus::Passed => ("passed", Severity::Info),
            CheckStatus::Failed => ("FAILED", Severity::Error),
            CheckStatus::Skipped => ("skipped", Severity::Warning),
        };
        table.add_row(vec![
            output::plain(&check.id).into(),
            output::severity(word.to_owned(), severity),
            output::plain(&check.wanted).into(),
            output::plain(&check.observed).into(),
            output::plain(&check.advice).into(),
            check.at.to_string().into(),
        ]);
    }
    println!("{table}");
}

/// [`output::plain`], but our own line breaks stay.
fn plain_lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(output::plain).collect();
    lines.join("\n")
}

/// `rackbar report check`: asks nobody.
pub fn check_file(options: &Check, as_json: bool) -> Result<()> {
    let file = std::fs::read(&options.file).with_context(|| format!("reading {}", options.file.display()))?;
    let trusted = match &options.key {
        None => None,
        Some(text) => {
            let key: rackbar_model::Digest = text.trim().parse().with_context(|| format!("key `{text}`"))?;
            Some(key.0)
        }
    };
    let checked = rackbar_verify::check(&file, trusted.as_ref())?;
    if as_json {
        output::json(&checked.report)?;
    } else {
        print(&checked.report);
    }
    let signed = hex(&checked.key);
    match trusted {
        Some(_) => eprintln!("unchanged, and signed with the trusted key"),
        None => eprintln!("unchanged since it was signed with key {signed}; whose key that is, only --key can tell"),
    }
    if !checked.report.passed() {
        bail!(Failed("the report is genuine, and not all of its checks passed".into()));
    }
    Ok(())
}
