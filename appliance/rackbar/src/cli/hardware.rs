//! `rackbar node sensors`, `log`, `account`, `media` and `boot`: a machine's hardware as its BMC sees it, its virtual drives and its
//! next boot.

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use rackbar_control::client::{Client, ClientError};
use rackbar_control::operations::{BootRequest, BootSource, BootState, Condition, HardwareLog, MediaList, SensorList};
use rackbar_model::Severity;
use serde_json::json;

use super::{accounts, output, segment};

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
    /// See and change the accounts on a machine's BMC
    #[command(subcommand)]
    Account(accounts::Command),
    /// See and fill the virtual drives of a machine's BMC
    #[command(subcommand)]
    Media(Media),
    /// Show where a machine's next boot comes from, or have it come from elsewhere, once
    #[command(
        after_help = "Examples:\n  rackbar node boot node-003\n  rackbar node boot node-003 cd --restart\n  \
        rackbar node boot node-003 http --url http://10.10.0.1/boot/v1/loader.efi --restart\n  \
        rackbar node boot node-003 default\n\nThe lasting boot order stays as it is."
    )]
    Boot {
        /// Name, id or MAC address
        node: String,
        /// From where
        from: Option<From>,
        /// What UEFI HTTP boot fetches; left out, the firmware asks the network
        #[arg(long, requires = "from")]
        url: Option<String>,
        /// Restart the machine at once, or switch it on
        #[arg(long, requires = "from")]
        restart: bool,
    },
}

/// What to do with virtual drives.
#[derive(Debug, Subcommand)]
pub enum Media {
    /// Show the drives and what is in them
    List {
        /// Name, id or MAC address
        node: String,
    },
    /// Put an image into the virtual CD drive, in the place of the one that is in
    #[command(
        after_help = "Example:\n  rackbar node media insert node-003 http://10.20.0.1/rescue.iso\n  \
        rackbar node boot node-003 cd --restart\n\nThe BMC itself fetches the image, so it must be able to reach the URL."
    )]
    Insert {
        /// Name, id or MAC address
        node: String,
        /// The image, by http or https
        url: String,
    },
    /// Take out what is in the virtual CD drive
    Eject {
        /// Name, id or MAC address
        node: String,
    },
}

/// Where a boot can come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum From {
    /// The firmware's own boot order: takes an earlier order back
    Default,
    /// Network by PXE
    Network,
    /// Network by UEFI HTTP boot
    Http,
    /// Hard disk
    Disk,
    /// CD, real or virtual
    Cd,
    /// Firmware set-up
    Setup,
}

impl std::convert::From<From> for BootSource {
    fn from(from: From) -> Self {
        match from {
            From::Default => Self::Default,
            From::Network => Self::Network,
            From::Http => Self::Http,
            From::Disk => Self::Disk,
            From::Cd => Self::Cd,
            From::Setup => Self::Setup,
        }
    }
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    match command {
        Command::Sensors { node } => {
            let list: SensorList = asked(node, client.get(&path(node, "sensors"))).await?;
            if as_json { output::json(&list) } else { sensors(&list) }
        }
        Command::Log { node, limit } => {
            let path = path(node, &format!("log?limit={limit}"));
            let log: HardwareLog = asked(node, client.get(&path)).await?;
            if as_json { output::json(&log) } else { lines(&log) }
        }
        Command::Account(command) => accounts::run(client, command, as_json).await,
        Command::Media(command) => media(client, command, as_json).await,
        Command::Boot {
            node,
            from,
            url,
            restart,
        } => {
            let path = path(node, "boot");
            let state: BootState = match from {
                None => asked(node, client.get(&path)).await?,
                Some(from) => {
                    let request = BootRequest {
                        from: (*from).into(),
                        url: url.clone(),
                        restart: *restart,
                    };
                    serde_json::from_slice(&asked(node, client.put(&path, &request)).await?)?
                }
            };
            if as_json { output::json(&state) } else { boot(&state) }
        }
    }
}

pub(super) fn path(node: &str, what: &str) -> String {
    format!("/api/v1/nodes/{}/{what}", segment(node))
}

/// Waits for what a BMC takes its time for.
pub(super) async fn asked<T>(node: &str, answer: impl Future<Output = Result<T, ClientError>>) -> Result<T> {
    Ok(output::waiting(format!("the BMC of {node} is asked"), answer).await?)
}

async fn media(client: &Client, command: &Media, as_json: bool) -> Result<()> {
    let list: MediaList = match command {
        Media::List { node } => asked(node, client.get(&path(node, "media"))).await?,
        Media::Insert { node, url } => {
            let path = path(node, "media");
            serde_json::from_slice(&asked(node, client.put(&path, &json!({ "image": url }))).await?)?
        }
        Media::Eject { node } => {
            asked(node, client.delete(&path(node, "media"))).await?;
            asked(node, client.get(&path(node, "media"))).await?
        }
    };
    if as_json {
        return output::json(&list);
    }
    let mut table = output::table(&["DRIVE", "CAN BE", "IN IT", "USED BY RACKBAR"]);
    for drive in &list.items {
        let inside = match (&drive.image, drive.inserted) {
            (Some(image), _) => output::plain(image),
            (None, Some(true)) => "something".to_owned(),
            (None, Some(false)) => "nothing".to_owned(),
            (None, None) => "not told".to_owned(),
        };
        let kinds = output::plain(&drive.kinds.join(", "));
        let ours = if drive.ours { "yes" } else { "" }.to_owned();
        table.add_row(vec![output::plain(&drive.id), kinds, inside, ours]);
    }
    println!("{table}");
    Ok(())
}

fn boot(state: &BootState) -> Result<()> {
    let from = match (state.from.as_str(), &state.url) {
        ("default", _) => {
            println!("{}: its next boot follows its own boot order", state.node);
            return Ok(());
        }
        (from, None) => output::plain(from),
        (from, Some(url)) => output::plain(&format!("{from}, {url}")),
    };
    let once = if state.once { "once" } else { "each time" };
    println!("{}: its next boot comes from {from}, {once}", state.node);
    Ok(())
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
