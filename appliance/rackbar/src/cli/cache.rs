//! `rackbar cache ...`

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use indicatif::ProgressBar;
use rackbar_control::client::Client;
use rackbar_control::operations::{CacheDone, CacheEntry, CacheOrder, CacheState};

use super::{output, packs};

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List what the proxy has stored
    List {
        /// Only keys that contain this
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
    /// Keep something whatever else comes, fetching it when it is not there
    #[command(
        after_help = "Examples:\n  rackbar cache pin mirror:debian/dists/bookworm/InRelease\n  \
        rackbar cache pin 'mirror:debian/*'\n  rackbar cache pin http://downloads.example.org/tool.tar.gz"
    )]
    Pin {
        /// A URL, mirror:NAME/PATH, or either with * at its end
        key: String,
    },
    /// Let it be evicted again
    Unpin {
        /// As it was pinned
        key: String,
    },
    /// Ask the origin whether it still holds, and fetch it when it does not
    Refresh {
        /// A URL, or mirror:NAME/PATH
        key: String,
    },
    /// Hash every stored content; what is damaged is dropped and fetched again when it is asked for
    Verify,
    /// Show the mode, or change it until the configured mode changes or the appliance starts anew
    #[command(after_help = "Examples:\n  rackbar cache mode\n  rackbar cache mode offline\n\n\
        offline: no origin is asked; what is stored is served, and a miss is a 504 that names what to pin.\n\
        recording: as online, and what is served is pinned.")]
    Mode {
        /// The new one
        mode: Option<Mode>,
    },
    /// Save what is pinned, or all that is stored, as a file
    #[command(after_help = "Examples:\n  rackbar cache export site-a.pack\n  \
        rackbar cache export updates.pack --all --only mirror:debian/\n\n\
        The file is a data pack, signed by the appliance, named as the file without its ending; nothing of it stays there. \
        `rackbar pack create` makes packs with images too.")]
    Export {
        /// The file to make
        file: PathBuf,
        /// Also what is not pinned
        #[arg(long)]
        all: bool,
        /// Only keys that begin so; may be given more than once
        #[arg(long, value_name = "START")]
        only: Vec<String>,
    },
    /// Put such a file into an appliance, which then serves it as if it had been stored there
    #[command(after_help = "Examples:\n  rackbar cache import site-a.pack\n\n\
        It is checked while it comes, and taken when `[packs] trust` has the key that signed it. `rackbar pack remove` takes it \
        out again.")]
    Import {
        /// The file
        file: PathBuf,
    },
}

/// Whether origins are asked.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Mode {
    /// Yes
    Online,
    /// No
    Offline,
    /// Yes, and what is served is pinned
    Recording,
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    let order = match command {
        Command::List { only } => return list(client, only.as_deref(), as_json).await,
        Command::Mode { mode: None } => return mode(client, as_json).await,
        Command::Export { file, all, only } => {
            return packs::export_cache(client, file, !all, only.clone(), as_json).await;
        }
        Command::Import { file } => return packs::import(client, file, as_json).await,
        Command::Pin { key } => CacheOrder::Pin { key: key.clone() },
        Command::Unpin { key } => CacheOrder::Unpin { key: key.clone() },
        Command::Refresh { key } => CacheOrder::Refresh { key: key.clone() },
        Command::Verify => CacheOrder::Verify,
        Command::Mode { mode: Some(mode) } => CacheOrder::Mode {
            mode: format!("{mode:?}").to_lowercase(),
        },
    };
    let waiting = ProgressBar::new_spinner().with_message("the appliance is at it");
    waiting.enable_steady_tick(Duration::from_millis(200));
    let answer = client.post("/api/v1/cache", &order).await;
    waiting.finish_and_clear();
    let bytes = answer?;
    let done: CacheDone = serde_json::from_slice(&bytes)?;
    if as_json {
        return output::json(&done);
    }
    eprintln!("{}", output::plain(&done.done));
    Ok(())
}

async fn list(client: &Client, only: Option<&str>, as_json: bool) -> Result<()> {
    let mut entries: Vec<CacheEntry> = client.list("/api/v1/cache/entries").await?;
    entries.retain(|entry| only.is_none_or(|text| entry.key.contains(text)));
    if as_json {
        return output::json(&entries);
    }
    let mut table = output::table(&["KEY", "KB", "HITS", "USED", "FRESH", "PINNED", "PACK", "SHA-256"]);
    for entry in &entries {
        let fresh = match entry.fresh_seconds {
            seconds if seconds > 0 => format!("{seconds} s"),
            _ => "stale".to_owned(),
        };
        table.add_row(vec![
            output::plain(&entry.key),
            entry.bytes.div_ceil(1000).to_string(),
            entry.hits.to_string(),
            entry.used.to_string(),
            fresh,
            if entry.pinned { "yes" } else { "" }.to_owned(),
            output::plain(entry.pack.as_deref().unwrap_or_default()),
            entry.sha256.to_string().chars().take(16).collect(),
        ]);
    }
    println!("{table}");
    Ok(())
}

async fn mode(client: &Client, as_json: bool) -> Result<()> {
    let state: CacheState = client.get("/api/v1/cache").await?;
    if as_json {
        return output::json(&state);
    }
    let (used, budget) = (state.used_bytes / 1_000_000, state.budget_bytes / 1_000_000);
    println!("{}, {used} of {budget} MB, {} pins", state.mode, state.pins.len());
    for pin in &state.pins {
        println!("  {}", output::plain(pin));
    }
    Ok(())
}
