//! `rackbar node sensors` and `log`: a machine's hardware as its BMC sees it.

use anyhow::Result;
use clap::Subcommand;
use rackbar_control::client::Client;
use rackbar_control::operations::{Condition, HardwareLog, SensorList};
use rackbar_model::Severity;

use super::{output, segment};

/// What to ask of a machine's BMC.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what a machine's sensors read
    #[command(
        after_help = "Examples:\n  rackbar node sensors node-003\n  rackbar node sensors node-003 --json\n\n\
        Its BMC is asked at that moment, which takes a slow one some seconds."
    )]
    Sensors {
        /// Name, id or MAC address
        node: String,
    },
    /// Show the event log that a machine's BMC keeps of its hardware
    #[command(
        after_help = "Examples:\n  rackbar node log node-003\n  rackbar node log node-003 --limit 500 --json\n\n\
        The newest line comes first. What the machine's system logs is in `rackbar log node-003`."
    )]
    Log {
        /// Name, id or MAC address
        node: String,
        /// At most so many lines
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1_000))]
        limit: u16,
    },
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    match command {
        Command::Sensors { node } => {
            let path = format!("/api/v1/nodes/{}/sensors", segment(node));
            let list: SensorList = output::waiting(format!("the BMC of {node} is asked"), client.get(&path)).await?;
            if as_json { output::json(&list) } else { sensors(&list) }
        }
        Command::Log { node, limit } => {
            let path = format!("/api/v1/nodes/{}/log?limit={limit}", segment(node));
            let log: HardwareLog = output::waiting(format!("the BMC of {node} is asked"), client.get(&path)).await?;
            if as_json { output::json(&log) } else { lines(&log) }
        }
    }
}

const fn severity(condition: Condition) -> Severity {
    match condition {
        Condition::Unknown | Condition::Ok => Severity::Info,
        Condition::Warning => Severity::Warning,
        Condition::Critical => Severity::Error,
    }
}

fn sensors(list: &SensorList) -> Result<()> {
    eprintln!(
        "{}: {} by its BMC at {}, over {}",
        list.node, list.state, list.bmc, list.way
    );
    let mut table = output::table(&["SENSOR", "READS", "STATE"]);
    for sensor in &list.items {
        table.add_row(vec![
            output::plain(&sensor.name).into(),
            output::plain(&sensor.shown()).into(),
            output::severity(sensor.state.to_string(), severity(sensor.state)),
        ]);
    }
    println!("{table}");
    Ok(())
}

fn lines(log: &HardwareLog) -> Result<()> {
    eprintln!(
        "{}: by its BMC at {}, over {}, times by its clock",
        log.node, log.bmc, log.way
    );
    let mut table = output::table(&["TIME", "SEVERITY", "NUMBER", "WHAT"]);
    for line in &log.items {
        table.add_row(vec![
            output::plain(line.time.as_deref().unwrap_or("clock not set")).into(),
            output::severity(line.severity.to_string(), severity(line.severity)),
            output::plain(&line.id).into(),
            output::plain(&line.message).into(),
        ]);
    }
    println!("{table}");
    Ok(())
}
