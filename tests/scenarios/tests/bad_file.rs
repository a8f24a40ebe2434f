//! A mistake in `rackbar.toml` on the stick: it is told on the console and in the API, and what was right before stays in force.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackbar_model::EventKind;
use rackbar_scenarios::{SERVING, Stage, eventually, rack_file, site};
use rackbar_vrack::host::Ipv4;
use rackbar_vrack::rack::Appliance;
use rackbar_vrack::seat::{MachinePower as _, PowerAction};

use crate::shipped::screen_since;

/// Where the boot partition begins on the medium.
const ESP: u64 = 1 << 20;
/// What a hurried person writes in place of `own`.
const MISTAKE: &str = "onw";

/// As a person with a laptop does it: the stick is mounted, the file is replaced.
fn edit(appliance: &Appliance, folder: &Path, text: &str) -> Result<()> {
    let medium = appliance.machine.config().disks.first().context("no medium")?;
    let file = folder.join("rackbar.toml");
    std::fs::write(&file, text)?;
    let said = Command::new("mcopy")
        .arg("-o")
        .arg("-i")
        .arg(format!("{}@@{ESP}", medium.image.display()))
        .arg(&file)
        .arg("::rackbar.toml")
        .output()
        .context("mcopy: Debian package mtools; `cargo xtask setup test` installs it")?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    Ok(())
}

/// The line of the BMCs' network that says who is its DHCP server, from 1.
fn line_of(text: &str) -> Result<usize> {
    let at = text.lines().position(|line| line == format!("dhcp = \"{MISTAKE}\""));
    Ok(at.context("no such line")? + 1)
}

/// Waits until a person in front of the console sees all of these words, which may go over the end of a line.
async fn console_tells(stage: &Stage, start: usize, words: &[&str]) -> Result<()> {
    let told = || async {
        let screen = screen_since(&stage.appliance, start).map_err(|error| error.to_string())?;
        let said = screen.split_whitespace().collect::<Vec<_>>().join(" ");
        match words.iter().find(|word| !said.contains(**word)) {
            None => Ok(()),
            Some(word) => Err(format!("no {word:?} on:\n{screen}")),
        }
    };
    eventually("the console tells of the mistake", SERVING, told).await
}

/// What the API tells of configurations, newest last: source, outcome.
async fn told(stage: &Stage) -> Result<Vec<(String, String)>> {
    let events = stage.api.events().await?;
    let of_configuration = events.into_iter().filter_map(|item| match item.event.kind {
        EventKind::Config { source, outcome, .. } => Some((source, outcome)),
        _ => None,
    });
    Ok(of_configuration.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_file_on_the_stick_is_told_by_line_and_the_last_good_one_stays() -> Result<()> {
    let mut file = rack_file("demo")?;
    file.nodes.clear();
    let stage = Stage::set(file).await?;
    let folder = tempfile::tempdir()?;
    let good = site::configuration(&stage.rack, stage.api.token());
    let bad = good.replacen("dhcp = \"own\"", &format!("dhcp = \"{MISTAKE}\""), 1);
    let place = format!("line {}", line_of(&bad)?);

    // A new stick: nothing was right before, so it listens and says so.
    edit(&stage.appliance, folder.path(), &bad)?;
    stage.appliance.machine.act(PowerAction::On).await?;
    console_tells(&stage, 0, &[&place, MISTAKE, "safe default"]).await?;

    stage.appliance.machine.cut_power().await?;
    edit(&stage.appliance, folder.path(), &good)?;
    stage.start_appliance().await?;
    // It is kept as the last good one before that is told; it serves a moment earlier.
    let taken = || async {
        let told = told(&stage).await?;
        let of_file =
            |(source, words): &(String, String)| source.ends_with("rackbar.toml") && words.starts_with("taken");
        ensure!(told.iter().any(of_file), "{told:?}");
        Ok(())
    };
    eventually("the right file is in force", Duration::from_secs(30), taken).await?;
    stage.appliance.machine.cut_power().await?;

    let start = std::fs::read(stage.appliance.machine.console().log_path())?.len();
    edit(&stage.appliance, folder.path(), &bad)?;
    stage.start_appliance().await?;
    console_tells(&stage, start, &[&place, MISTAKE, "last good configuration"]).await?;
    let told = told(&stage).await?;
    let mistake = told.iter().rev().find(|(source, _)| source.ends_with("rackbar.toml"));
    let (_, words) = mistake.with_context(|| format!("{told:?}"))?;
    for part in [place.as_str(), "dhcp", MISTAKE, "own"] {
        ensure!(words.contains(part), "no {part:?} in {words:?}");
    }
    let (source, words) = told.last().context("nothing is told")?;
    ensure!(source == "last good configuration", "{source}: {words}");

    // In force: a machine of the rack gets its address as the good file says.
    let station = stage.rack.host("rack", Ipv4::dhcp("a-machine"));
    let bound = || async { station.bound().ok_or("no lease") };
    let bound = eventually("an address is given", Duration::from_secs(30), bound).await?;
    let ours = stage.rack.file().appliance.rack_address;
    ensure!(bound.server == Some(ours), "{bound:?}");
    stage.end().await;
    Ok(())
}
