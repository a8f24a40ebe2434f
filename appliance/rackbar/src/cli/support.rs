//! `rackbar support-bundle`

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use indicatif::ProgressBar;
use rackbar_control::client::Client;
use serde_json::json;

use super::state;

/// Make one file for somebody elsewhere.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rackbar support-bundle rackbar-support.tar.zst\n\n\
    Logs, events, machines and their timelines, runs, services, versions, and the configuration with its secrets masked, \
    in one tar archive (`tar --zstd -xf`). Every file is swept for each secret the appliance knows. Names, addresses and \
    serial numbers are in it. Needs the role admin.")]
pub struct Options {
    /// The file; must not exist
    file: PathBuf,
}

/// Runs it.
pub async fn run(client: &Client, options: &Options) -> Result<()> {
    let waiting = ProgressBar::new_spinner().with_message("the appliance gathers it");
    waiting.enable_steady_tick(Duration::from_millis(200));
    let answer = client.post("/api/v1/support-bundle", &json!({})).await;
    waiting.finish_and_clear();
    state::save(&options.file, &answer?, "without the secrets that are known")
}
