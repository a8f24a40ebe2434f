//! `rackbar storage ...`

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use rackbar_control::client::{Client, ClientError};
use rackbar_control::operations::{StorageDisk, StorageDone, StorageOrder, StorageState};

use super::output;

/// How long the appliance may take to start anew: its services stop, the rest is copied, its services start.
const ANEW: Duration = Duration::from_secs(300);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// The appliance's own disks.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See where the state is, and the disks of the management machine
    List,
    /// Move the state from memory to a disk; the appliance is away for some seconds
    Use(Use),
}

/// Options of `rackbar storage use`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rackbar storage list\n  rackbar storage use sdb\n  \
    rackbar storage use S4XYNX0M --yes-destroy S4XYNX0M\n      a disk that is not empty, by its serial number\n\n\
    The disk gets one partition, rackbar-data, which every later boot of this machine finds by its name. Machines that \
    boot or are installed meanwhile go on.")]
pub struct Use {
    /// Kernel name, serial number, WWN or path
    disk: String,
    /// The same disk again: everything on it may be lost
    #[arg(long, value_name = "DISK")]
    yes_destroy: Option<String>,
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    match command {
        Command::List => list(client, as_json).await,
        Command::Use(options) => use_disk(client, options, as_json).await,
    }
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let state: StorageState = client.get("/api/v1/storage").await?;
    if as_json {
        return output::json(&state);
    }
    eprintln!("The state is {}.", output::plain(&state.words));
    if let Some(failed) = &state.failed {
        eprintln!("The last move to a disk did not succeed: {}", output::plain(failed));
    }
    let mut table = output::table(&["DISK", "MODEL", "SERIAL", "GB", "ON IT", "CAN TAKE THE STATE"]);
    for disk in &state.disks {
        let told = |text: &Option<String>| output::plain(text.as_deref().unwrap_or_default());
        table.add_row(vec![
            output::plain(&disk.name),
            told(&disk.model),
            told(&disk.serial),
            (disk.size_bytes / 1_000_000_000).to_string(),
            output::plain(&held(disk)),
            output::plain(&verdict(disk)),
        ]);
    }
    println!("{table}");
    Ok(())
}

fn held(disk: &StorageDisk) -> String {
    let all: Vec<&str> = disk.holds.iter().chain(&disk.users).map(String::as_str).collect();
    if all.is_empty() {
        "nothing".into()
    } else {
        all.join(", ")
    }
}

fn verdict(disk: &StorageDisk) -> String {
    match &disk.refusal {
        Some(why) => format!("no: {why}"),
        None if disk.needs_consent => "with --yes-destroy".into(),
        None => "yes".into(),
    }
}

async fn use_disk(client: &Client, options: &Use, as_json: bool) -> Result<()> {
    let order = StorageOrder {
        disk: options.disk.clone(),
        destroy: options.yes_destroy.clone(),
    };
    let waiting = ProgressBar::new_spinner().with_message("the disk is prepared, and the state copied");
    waiting.enable_steady_tick(Duration::from_millis(200));
    let answer = client.post("/api/v1/storage", &order).await;
    let done: StorageDone = serde_json::from_slice(&answer?)?;
    waiting.suspend(|| eprintln!("{}", output::plain(&done.done)));
    waiting.set_message("the appliance starts anew");
    let state = until_kept(client).await;
    waiting.finish_and_clear();
    let state = state?;
    if as_json {
        return output::json(&state);
    }
    eprintln!("The state is {}.", output::plain(&state.words));
    Ok(())
}

/// Waits until the appliance serves again, its state on the disk.
async fn until_kept(client: &Client) -> Result<StorageState> {
    let deadline = Instant::now() + ANEW;
    loop {
        let last = match client.get::<StorageState>("/api/v1/storage").await {
            Ok(state) if !state.volatile => return Ok(state),
            Ok(StorageState { failed: Some(why), .. }) => bail!("the state stays in memory: {why}"),
            // Still the appliance of before.
            Ok(_) => None,
            Err(error @ ClientError::Refused { .. }) => return Err(error.into()),
            Err(error) => Some(error),
        };
        if Instant::now() > deadline {
            let late = "the appliance did not serve again with its state on the disk; its console says more";
            return match last {
                Some(error) => Err(error).context(late),
                None => bail!(late),
            };
        }
        tokio::time::sleep(LOOK).await;
    }
}
