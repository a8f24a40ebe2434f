//! What an operator sees of machines that were found: in the tables of the command line, in its JSON, and on the page, on a
//! phone without JavaScript.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackbar_browser::Browser;
use rackbar_model::{Inventory, Node};
use rackbar_scenarios::Stage;
use rackbar_scenarios::api::Timeline;
use rackbar_scenarios::cli::Cli;

/// For a command and for a page, on a machine that emulates five others.
const LIMIT: Duration = Duration::from_secs(60);

/// What a person looks for when they stand before a machine: what is printed on it, and what it is plugged into.
fn marks(inventory: &Inventory) -> Vec<String> {
    let system = &inventory.system;
    let mut marks: Vec<String> = [&system.serial, &system.product, &system.uuid, &inventory.cpu.model]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    for nic in &inventory.nics {
        marks.push(nic.mac.to_string());
        marks.extend(nic.driver.clone());
        let port = nic.lldp.as_ref();
        marks.extend(port.map(|lldp| lldp.port_id.clone()));
    }
    for disk in &inventory.disks {
        marks.extend(disk.serial.clone());
        marks.extend(disk.model.clone());
    }
    marks.extend(
        inventory
            .bmc
            .as_ref()
            .and_then(|bmc| bmc.mac)
            .map(|mac| mac.to_string()),
    );
    marks
}

fn shows(what: &str, said: &str, marks: &[String]) -> Result<()> {
    // Tables break long words at the width they have; no table here is narrower than what is looked for.
    let missing: Vec<&String> = marks.iter().filter(|mark| !said.contains(mark.as_str())).collect();
    ensure!(missing.is_empty(), "{what} does not show {missing:?}:\n{said}");
    Ok(())
}

/// Each machine with its inventory and its timeline, in the command line and on the page.
pub(crate) async fn each_machine_is_shown(stage: &Stage, names: &[String]) -> Result<()> {
    let cli = Cli::new(stage).await?;
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(stage.node(name).await?.context("known a moment ago")?);
    }
    let list = cli.run(&["node", "list"], LIMIT).await?;
    for node in &nodes {
        let row = list.lines().find(|line| line.contains(&node.name));
        let row = row.with_context(|| format!("{} is not listed:\n{list}", node.name))?;
        let mac = node.macs.first().context("no MAC")?.to_string();
        ensure!(row.contains("discovered") && row.contains(&mac), "{row}");
        on_the_command_line(&cli, node).await?;
    }
    let (home, token) = (cli.home(), cli.token()?);
    tokio::task::spawn_blocking(move || on_a_phone(&home, &token, &nodes)).await?
}

async fn on_the_command_line(cli: &Cli, node: &Node) -> Result<()> {
    let inventory = node.inventory.as_ref().context("no inventory")?;
    let shown = cli.run(&["node", "show", &node.name], LIMIT).await?;
    shows("rackbar node show", &shown, &marks(inventory))?;
    let json = cli.run(&["node", "show", &node.name, "--json"], LIMIT).await?;
    let json: Node = serde_json::from_str(&json).with_context(|| format!("not a node: {json}"))?;
    let told = json.inventory.context("the JSON has no inventory")?;
    ensure!(
        (json.id, &told.system, &told.disks, told.pci.len())
            == (node.id, &inventory.system, &inventory.disks, inventory.pci.len()),
        "{told:?} and {inventory:?}"
    );
    // A name, and any of its MAC addresses: that is what a label says.
    let mac = node.macs.last().context("no MAC")?.to_string();
    for called in [node.name.as_str(), &mac] {
        let trace = cli.run(&["node", "trace", called], LIMIT).await?;
        let first = trace.lines().next().unwrap_or_default();
        ensure!(
            first.starts_with(&node.name) && first.len() > node.name.len() + 2,
            "no verdict: {trace}"
        );
        for step in ["DHCP: discover", "DHCP: offered", "agent"] {
            ensure!(trace.contains(step), "nothing of {step:?} in:\n{trace}");
        }
    }
    let json = cli.run(&["node", "trace", &node.name, "--json"], LIMIT).await?;
    let trace: Timeline = serde_json::from_str(&json).with_context(|| format!("not a timeline: {json}"))?;
    ensure!(trace.name == node.name && !trace.verdict.is_empty(), "{json}");
    let position = |part: &str| trace.items.iter().position(|item| item.text.contains(part));
    let (asked, agent) = (position("DHCP: discover"), position("agent"));
    ensure!(asked.is_some() && asked < agent, "{asked:?}, {agent:?} of {json}");
    let numbers = trace.items.iter().map(|item| item.event.seq);
    ensure!(numbers.is_sorted(), "not in order: {json}");
    Ok(())
}

fn on_a_phone(home: &str, token: &str, nodes: &[Node]) -> Result<()> {
    let browser = Browser::open(390, 844, false);
    browser.log_in(home, token);
    browser.go(&format!("{home}/"));
    let rack = browser.text("main");
    for node in nodes {
        ensure!(rack.contains(&node.name), "{} is not on the page: {rack}", node.name);
    }
    browser.assert_fits("the page of the rack");
    for node in nodes {
        let inventory = node.inventory.as_ref().context("no inventory")?;
        browser.go(&format!("{home}/nodes/{}", node.name));
        let said = browser.text("main");
        shows(&format!("the page of {}", node.name), &said, &marks(inventory))?;
        ensure!(
            said.contains("Timeline") && said.contains("after the first DHCP packet"),
            "{said}"
        );
        browser.assert_fits("the page of a node");
    }
    Ok(())
}
