//! `rackbar os refresh`

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rackbar_control::client::Client;
use rackbar_control::operations::{ImageRefresh, ImageStandingDone, RefreshState};
use rackbar_model::Upstream;

use super::images::bar;
use super::{output, segment};

/// Between two looks how it goes.
const LOOK: Duration = Duration::from_millis(300);

/// Reads a file that says where an image is had from.
pub(super) fn read(file: &Path) -> Result<Upstream> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {shown}"))?;
    toml::from_str(&text).with_context(|| format!("{shown} does not say where an image is had from"))
}

/// Says where an image is had from.
pub(super) async fn set(client: &Client, name: &str, upstream: &Upstream) -> Result<()> {
    let path = format!("/api/v1/images/{}/upstream", segment(name));
    let answer = client.put(&path, upstream).await?;
    let answer: ImageStandingDone = serde_json::from_slice(&answer).context("the appliance's answer")?;
    eprintln!("{}", answer.done);
    Ok(())
}

/// Begins a refresh and stays until it ends.
pub(super) async fn run(client: &Client, name: &str, upstream: Option<&Path>, as_json: bool) -> Result<()> {
    if let Some(file) = upstream {
        set(client, name, &read(file)?).await?;
    }
    let path = format!("/api/v1/images/{}/refresh", segment(name));
    let begun = client.post(&path, &serde_json::json!({})).await?;
    let mut at: ImageRefresh = serde_json::from_slice(&begun).context("the appliance's answer")?;
    let shown = bar(0, "fetching");
    while at.ended.is_none() {
        tokio::time::sleep(LOOK).await;
        at = client.get(&path).await?;
        shown.set_length(at.total.unwrap_or(at.bytes));
        shown.set_position(at.bytes);
    }
    shown.finish_and_clear();
    if at.state == RefreshState::Failed {
        bail!("{}", at.words);
    }
    if as_json {
        return output::json(&at);
    }
    eprintln!("{}", at.words);
    Ok(())
}
