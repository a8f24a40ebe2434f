//! The first terminal: starts a rack, shows it coming up, holds it until somebody has had enough.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rackbar_model::NodeState;
use rackbar_scenarios::api::Api;
use rackbar_scenarios::site;
use rackbar_vrack::rack::control::Control;
use rackbar_vrack::rack::{Medium, Rack, RackFile, RackOptions};
use rackbar_vrack::seat::{MachinePower, PowerAction, PowerState};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::Start;
use super::follow::{self, Followed, Timings};
use super::ready::{self, Wanted};
use super::remote::Registry;
use super::view::{self, View};

/// Between two questions whether the appliance serves.
const LOOK: Duration = Duration::from_millis(200);

/// Starts the rack and stays until it is to end.
pub(super) async fn run(
    file: RackFile,
    image: &Path,
    wanted: Option<&Wanted>,
    registry: &Registry,
    start: &Start,
) -> Result<()> {
    if file.appliance.medium == Medium::None {
        bail!("the rack `{}` has no appliance: it is for tests only", file.name);
    }
    println!("rack {}: {}", file.name, file.description);
    let options = RackOptions {
        nodes: start.nodes,
        keep: start.keep,
        bmc: Some(Arc::new(rackbar_vrack::bmc::start)),
        parent: None,
    };
    let rack = Arc::new(Rack::build(file, options).await.context("building the rack")?);
    let down = Arc::new(Notify::new());
    let control = Control::start(&rack, Arc::clone(&down)).context("opening the control socket")?;
    let entry = registry.enter(&rack.file().name, control.socket())?;
    let outcome = tokio::select! {
        outcome = bring_up(&rack, image, wanted, start) => outcome,
        () = stopped(&down) => Ok(()),
    };
    let outcome = match outcome {
        Ok(()) if !start.headless => {
            stopped(&down).await;
            Ok(())
        }
        other => other,
    };
    println!("taking the rack down");
    rack.shut_down().await;
    if outcome.is_err() && !start.keep {
        println!("run again with --keep to look at the logs of all machines");
    } else if start.keep {
        let directory = rack.directory().display();
        println!("kept: {directory} (run.pcapng for Wireshark, run.timeline.txt to read)");
    }
    drop((entry, control));
    outcome
}

/// Waits for Ctrl-C, a polite kill, or `rack down`. The rack must come down in order, so the signals are ours.
async fn stopped(down: &Notify) {
    let mut terminate = signal(SignalKind::terminate()).ok();
    let terminated = async {
        match &mut terminate {
            Some(terminate) => {
                terminate.recv().await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
        () = down.notified() => {}
    }
}

/// From nothing to all machines discovered, and on to ready where it is known what with.
async fn bring_up(rack: &Arc<Rack>, image: &Path, wanted: Option<&Wanted>, start: &Start) -> Result<()> {
    let token = site::token()?;
    let configuration = site::configuration(rack, &token);
    let medium = site::medium(rack, image, &configuration, &[])?;
    let appliance = rack
        .add_appliance(&medium)
        .await
        .context("putting the appliance into the rack")?;
    let api = Api::new(appliance.api, token.clone())?;
    let events = Api::new(appliance.api, token.clone())?;
    tokio::spawn(rackbar_scenarios::telling::tell_events(Arc::downgrade(rack), events));
    let mut view = View::new(start.headless);
    let mut timings = Timings::default();
    let mut followed = Vec::new();
    let power_on = Instant::now();
    appliance
        .machine
        .act(PowerAction::On)
        .await
        .context("switching the appliance on")?;
    let all = async {
        serving(&api, &appliance.machine, &mut view).await?;
        timings.serving = Some(power_on.elapsed());
        appliance.machine.booted();
        view.done(
            "appliance",
            &format!("serves after {:.1} s", power_on.elapsed().as_secs_f64()),
        );
        follow::until_discovered(rack, &api, &mut view, &mut followed).await?;
        timings.discovered = Some(power_on.elapsed());
        if let Some(wanted) = wanted {
            timings.ready = Some(ready::until_ready(&api, wanted, &mut view, &mut followed).await?);
        }
        anyhow::Ok(())
    };
    // A person decides when it has taken too long; a script must be told.
    let deadline = if start.headless {
        Duration::from_secs(start.deadline)
    } else {
        Duration::from_secs(86_400)
    };
    let in_time = tokio::time::timeout(deadline, all).await;
    timings.all = matches!(in_time, Ok(Ok(()))).then(|| power_on.elapsed());
    view.end();
    println!("\n{}\n", view::machines(&followed));
    print!("{}", view::timings(&timings, &followed));
    match in_time {
        Ok(Ok(())) => {
            if let Some(wanted) = wanted {
                ready::report(&api, &wanted.reports, &rack.file().name).await?;
            }
        }
        Ok(Err(error)) => return Err(tail(error, &appliance.machine)),
        Err(_) => bail!("{}", late(&followed, start.deadline)),
    }
    if !start.headless {
        next_steps(rack, &api, &appliance.api.to_string(), &token);
    }
    Ok(())
}

/// Waits until the API answers, or the appliance's machine ended.
async fn serving(api: &Api, machine: &rackbar_vrack::machine::Machine, view: &mut View) -> Result<()> {
    view.say("appliance", "starting");
    let off = async {
        while machine.state() != PowerState::Off {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = api.lives() => Ok(()),
        () = off => bail!("the appliance switched itself off"),
    }
}

/// Adds the appliance's last words to an error.
fn tail(error: anyhow::Error, machine: &rackbar_vrack::machine::Machine) -> anyhow::Error {
    let log = std::fs::read(machine.console().log_path()).unwrap_or_default();
    let text = String::from_utf8_lossy(&log[log.len().saturating_sub(4000)..]).into_owned();
    error.context(format!("the appliance's console ended with:\n{text}"))
}

fn late(followed: &[Followed], deadline: u64) -> String {
    let late = |machine: &&Followed| {
        let ready = machine.node.as_ref().is_some_and(|node| node.state == NodeState::Ready);
        machine.discovered.is_none() || !ready
    };
    let missing: Vec<_> = followed
        .iter()
        .filter(late)
        .map(|machine| match &machine.node {
            Some(node) => format!("{} ({}: {})", machine.name, node.state.name(), node.verdict),
            None => format!("{} (never seen)", machine.name),
        })
        .collect();
    if followed.is_empty() {
        return format!("the appliance did not serve within {deadline} s");
    }
    format!("not there within {deadline} s: {}", missing.join(", "))
}

fn next_steps(rack: &Rack, api: &Api, address: &str, token: &str) {
    let first = rack.nodes().first().map_or("n1", |node| node.name.as_str());
    println!("\npage   https://{address}/");
    println!("token  {token}");
    if let Some(pin) = api.pin() {
        println!("pin    {pin}");
    }
    println!("\ntry in a second terminal:");
    println!("  curl -k -H 'Authorization: Bearer {token}' https://{address}/api/v1/nodes");
    println!("  cargo xtask rack console {first}       its serial console; Ctrl-] leaves");
    println!("  cargo xtask rack capture {first}       its wires and what happens, for Wireshark");
    println!("  cargo xtask rack cut {first}           pull its cables (--heal plugs them in)");
    println!("  cargo xtask rack forget           the switch restarts and forgets (--restore)");
    println!("  cargo xtask rack power {first} off     its power button");
    println!("  cargo xtask rack down             end the rack, as does Ctrl-C here");
}
