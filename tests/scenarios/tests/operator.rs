//! What an operator does with machines that are ready, by the command line and the tools that it feeds.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackbar_scenarios::cli::Cli;
use rackbar_scenarios::install::READY;
use serde_json::Value;
use tokio::process::Command;

/// For what asks the appliance and no machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// For a look at a machine over SSH, as slow as an emulated one is.
const ADOPTED: Duration = Duration::from_secs(240);

/// Plans and commits by the command line, and reads how it went on.
pub(crate) async fn commits(cli: &Cli, names: &[String]) -> Result<()> {
    let plan: Value = serde_json::from_str(&cli.run(&["--json", "plan"], SOON).await?)?;
    let id = plan["id"].as_str().context("a plan has an id")?;
    let mut arguments = vec!["commit", id, "--yes-destroy"];
    arguments.extend(names.iter().map(String::as_str));
    let said = cli.run(&arguments, READY).await?;
    println!("{said}");
    for name in names {
        for kind in ["os.write", "verify"] {
            let told = said.lines().any(|line| line.contains(name) && line.contains(kind));
            ensure!(told, "nothing was said of {kind} on {name}: {said}");
        }
    }
    Ok(())
}

/// Checks the whole rack again, now that each machine has a neighbour that is ready: they reach each other with packets
/// of full size.
pub(crate) async fn verifies(cli: &Cli, names: &[String]) -> Result<()> {
    cli.run(&["verify", "--rack"], READY).await?;
    for name in names {
        let said = cli.run(&["report", "show", name], SOON).await?;
        for check in ["net.pairs", "net.mtu", "dns.resolve", "time.sync"] {
            let line = said.lines().find(|line| line.contains(check));
            let line = line.with_context(|| format!("{check} is not in the report of {name}: {said}"))?;
            ensure!(line.contains("passed"), "{name}: {line}");
        }
        let clock = said.lines().find(|line| line.contains("time.sync")).unwrap_or_default();
        ensure!(clock.contains("kept by systemd-timesyncd"), "{name}: {clock}");
    }
    Ok(())
}

/// Reads what the installed systems log, at the appliance that collects it.
pub(crate) async fn reads_logs(cli: &Cli, names: &[String]) -> Result<()> {
    for name in names {
        let said = cli.run(&["log", name], SOON).await?;
        ensure!(said.contains("sshd"), "{name} logged nothing of our logins: {said}");
    }
    Ok(())
}

/// "Install this on that": no site file, no roles.
pub(crate) async fn installs_simply(cli: &Cli, name: &str) -> Result<()> {
    let what = ["install", "--os", "debian-12", name, "--disk", "smallest"];
    let refused = cli.run(&[&what[..], &["--detach"]].concat(), SOON).await;
    ensure!(refused.is_err(), "data would be destroyed without consent: {refused:?}");
    let consent = ["--yes-destroy", name, "--detach"];
    cli.run(&[&what[..], &consent].concat(), SOON).await?;
    Ok(())
}

/// Takes the signed report along and checks it where no appliance is.
pub(crate) async fn proves(cli: &Cli) -> Result<()> {
    let report = cli.run(&["report", "show", "--file"], SOON).await?;
    let file = cli.folder().join("rack.report");
    std::fs::write(&file, &report)?;
    let path = file.to_str().context("a path in words")?;
    let signed: Value = serde_json::from_str(&report)?;
    let key = signed["key"].as_str().context("a report names its key")?;
    let said = cli.run(&["report", "check", path, "--key", key], SOON).await?;
    println!("{said}");
    // One character of what was proved.
    std::fs::write(&file, report.replacen("debian-12", "debian-13", 1))?;
    let refused = cli.run(&["report", "check", path, "--key", key], SOON).await;
    ensure!(refused.is_err(), "a changed report was believed: {refused:?}");
    Ok(())
}

/// The real Ansible reads the rack through the command line.
pub(crate) async fn hands_over_to_ansible(cli: &Cli, names: &[String]) -> Result<()> {
    let script = cli.folder().join("inventory");
    let text = format!("#!/bin/sh\nexec {} handoff ansible \"$@\"\n", cli.program().display());
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let mut command = Command::new("ansible-inventory");
    cli.login(&mut command);
    command.arg("-i").arg(&script).arg("--list");
    command
        .env("ANSIBLE_INVENTORY_UNPARSED_FAILED", "true")
        .env("LC_ALL", "C.UTF-8");
    let output = command
        .output()
        .await
        .context("running ansible-inventory (Debian package ansible-core; `cargo xtask setup test` installs it)")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ansible-inventory: {complaint}");
    let read: Value = serde_json::from_slice(&output.stdout)?;
    for name in names {
        let address = read["_meta"]["hostvars"][name]["ansible_host"].as_str();
        let address = address.with_context(|| format!("Ansible knows no address of {name}: {read:#}"))?;
        ensure!(address.starts_with("10.77.10."), "{name} at {address}");
    }
    Ok(())
}

/// A machine that somebody works on is left alone until its operator lets go of it.
pub(crate) async fn keeps_hands_off(cli: &Cli, name: &str) -> Result<()> {
    let shown = async || cli.run(&["node", "show", name], SOON).await;
    let reason = "fan is replaced";
    cli.run(&["node", "maintenance", name, "on", "--reason", reason], SOON)
        .await?;
    let planned = cli.run(&["--json", "plan", name, "--reinstall"], SOON).await?;
    let plan: Value = serde_json::from_str(&planned)?;
    ensure!(
        plan["actions"].as_array().is_some_and(Vec::is_empty) && planned.contains("in maintenance"),
        "something would be done to a machine in maintenance: {planned}"
    );
    let said = shown().await?;
    ensure!(said.contains(reason), "why hands are off is not shown: {said}");
    cli.run(&["node", "maintenance", name, "off"], SOON).await?;
    let said = shown().await?;
    ensure!(
        said.contains("Ready") || said.contains("ready"),
        "not ready again: {said}"
    );
    Ok(())
}

/// Takes a machine in as it runs, as one that somebody else installed: it is forgotten first.
pub(crate) async fn adopts(cli: &Cli, name: &str, reached: &str) -> Result<()> {
    const ANEW: &str = "taken-in";
    cli.run(&["node", "forget", name], SOON).await?;
    let asked = ["--json", "adopt", "--name", ANEW, "--ssh", reached, "--trust-first-use"];
    let said = cli.run(&asked, ADOPTED).await?;
    let adoption: Value = serde_json::from_str(&said)?;
    ensure!(adoption["recorded"] == true, "{said}");
    let system = adoption["adopted"]["system"]["name"].as_str().unwrap_or_default();
    ensure!(system.contains("Debian"), "it runs {system:?}: {said}");
    cli.run(&["verify", ANEW], READY).await?;
    let shown = cli.run(&["--json", "node", "show", ANEW], SOON).await?;
    let shown: Value = serde_json::from_str(&shown)?;
    ensure!(shown["state"] == "ready", "not ready: {shown:#}");
    let planned = cli.run(&["--json", "plan"], SOON).await?;
    let plan: Value = serde_json::from_str(&planned)?;
    ensure!(
        plan["actions"].as_array().is_some_and(Vec::is_empty),
        "a plan would touch it: {planned}"
    );
    println!("{ANEW} was adopted with {system} and is ready");
    Ok(())
}
