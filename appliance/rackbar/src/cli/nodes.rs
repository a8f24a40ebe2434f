//! `rackbar node ...`

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use rackbar_control::client::Client;
use rackbar_control::operations::count;
use rackbar_model::{Disk, Event, FirmwareHabit, FirmwareMode, Inventory, Nic, Node, PowerAction};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{handoff, hardware, output, segment};

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the machines of the rack
    #[command(after_help = "Examples:\n  rackbar node list\n  rackbar node list --state discovered --json")]
    List {
        /// Only machines in this state
        #[arg(long)]
        state: Option<String>,
    },
    /// Show one machine and its inventory
    Show {
        /// Name, id or MAC address
        node: String,
    },
    /// Print one machine's inventory in the shape of another tool's
    #[command(after_help = "Example:\n  rackbar node facts node-003 --format facter")]
    Facts {
        /// Name, id or MAC address
        node: String,
        /// Whose shape
        #[arg(long, value_enum)]
        format: handoff::Shape,
    },
    /// Show everything that happened to one machine, with a verdict
    #[command(after_help = "Examples:\n  rackbar node trace node-003\n  rackbar node trace 52:54:00:12:34:56")]
    Trace {
        /// Name, id or MAC address
        node: String,
    },
    #[command(flatten)]
    Hardware(hardware::Command),
    /// Switch a machine through its BMC
    Power {
        /// Name, id or MAC address
        node: String,
        /// What to do
        action: Action,
    },
    /// Give a machine a role by hand
    #[command(after_help = "Examples:\n  rackbar node bind node-003 storage\n  rackbar node bind node-003 --by-rules")]
    Bind {
        /// Name, id or MAC address
        node: String,
        /// A role of the site file
        #[arg(required_unless_present = "by_rules")]
        role: Option<String>,
        /// Leave the choice to the rules again
        #[arg(long, conflicts_with = "role")]
        by_rules: bool,
    },
    /// Bring a machine back to a known state from wherever it is
    #[command(
        after_help = "Examples:\n  rackbar node recover node-003\n  rackbar node recover node-003 --end-maintenance\n\n\
        A system that runs on it is ended in order before it is restarted into the agent. Its history is kept."
    )]
    Recover {
        /// Name, id or MAC address
        node: String,
        /// Also when it is in maintenance, which ends: only when nobody has their hands in it any more
        #[arg(long)]
        end_maintenance: bool,
    },
    /// Forget a machine that is gone for good
    #[command(
        after_help = "Example:\n  rackbar node forget node-003\n\nIts name and its addresses are free again. What happened \
        to it stays in the journal. If it comes back it is a new machine."
    )]
    Forget {
        /// Name, id or MAC address
        node: String,
    },
    /// Keep Rackbar's hands off a machine, or let it again
    #[command(
        after_help = "Examples:\n  rackbar node maintenance node-003 on --reason \"fan is replaced\"\n  \
        rackbar node maintenance node-003 off"
    )]
    Maintenance {
        /// Name, id or MAC address
        node: String,
        /// On or off
        switch: Switch,
        /// Why, for whoever finds it so
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Show what was learnt of a machine's boot firmware, or forget it
    #[command(
        after_help = "Examples:\n  rackbar node firmware node-003\n  rackbar node firmware node-003 --forget\n\n\
        Forget it after the machine's board or its firmware was exchanged."
    )]
    Firmware {
        /// Name, id or MAC address
        node: String,
        /// Lead it by the usual way again, and learn anew
        #[arg(long)]
        forget: bool,
    },
    /// Give a machine another name
    Rename {
        /// Name, id or MAC address
        node: String,
        /// The new name
        name: String,
    },
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Hands off
    On,
    /// Hands on
    Off,
}

/// A power action.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Action {
    /// Switch on
    On,
    /// Switch off at once
    Off,
    /// Ask the operating system to shut down
    Shutdown,
    /// Off, then on
    Cycle,
    /// Hard reset
    Reset,
    /// Boot from the network once
    Netboot,
}

impl From<Action> for PowerAction {
    fn from(action: Action) -> Self {
        match action {
            Action::On => Self::On,
            Action::Off => Self::Off,
            Action::Shutdown => Self::Shutdown,
            Action::Cycle => Self::Cycle,
            Action::Reset => Self::Reset,
            Action::Netboot => Self::Netboot,
        }
    }
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    match command {
        Command::List { state } => list(client, state.as_deref(), as_json).await,
        Command::Show { node } => show(client, node, as_json).await,
        Command::Facts { node, format } => handoff::facts(client, node, *format).await,
        Command::Trace { node } => trace(client, node, as_json).await,
        Command::Hardware(command) => hardware::run(client, command, as_json).await,
        Command::Power { node, action } => {
            let body = json!({ "action": PowerAction::from(*action) });
            let answer = client
                .post(&format!("/api/v1/nodes/{}/power", segment(node)), &body)
                .await?;
            let answer: Value = serde_json::from_slice(&answer)?;
            if as_json {
                return output::json(&answer);
            }
            eprintln!(
                "{node}: its {} took it",
                if answer["way"] == "agent" { "agent" } else { "BMC" }
            );
            Ok(())
        }
        Command::Bind { node, role, .. } => {
            let path = format!("/api/v1/nodes/{}/bind", segment(node));
            client.post(&path, &json!({ "role": role })).await?;
            match role {
                Some(role) => eprintln!("{node} has role {role}; `rackbar plan {node}` shows what that would change"),
                None => eprintln!("{node}: the rules choose its role again"),
            }
            Ok(())
        }
        Command::Recover { node, end_maintenance } => {
            if *end_maintenance {
                let path = format!("/api/v1/nodes/{}/maintenance", segment(node));
                client
                    .post(&path, &json!({ "on": false, "reason": "it is recovered" }))
                    .await?;
            }
            let path = format!("/api/v1/nodes/{}/recover", segment(node));
            let answer: Value = serde_json::from_slice(&client.post(&path, &json!({})).await?)?;
            if as_json {
                return output::json(&answer);
            }
            eprintln!(
                "{node}: {}",
                output::plain(answer["done"].as_str().unwrap_or("recovered"))
            );
            Ok(())
        }
        Command::Forget { node } => {
            client.delete(&format!("/api/v1/nodes/{}", segment(node))).await?;
            eprintln!("{node} is forgotten; if it comes back it is a new machine");
            Ok(())
        }
        Command::Maintenance { node, switch, reason } => {
            let path = format!("/api/v1/nodes/{}/maintenance", segment(node));
            let on = *switch == Switch::On;
            client.post(&path, &json!({ "on": on, "reason": reason })).await?;
            eprintln!("{node} is {} maintenance", if on { "in" } else { "out of" });
            Ok(())
        }
        Command::Firmware { node, forget } => {
            let path = format!("/api/v1/nodes/{}/firmware", segment(node));
            if *forget {
                client.delete(&path).await?;
                eprintln!("{node}: forgotten; its next boot shows anew what its firmware does");
                return Ok(());
            }
            firmware(&client.get::<Vec<FirmwareHabit>>(&path).await?, node, as_json)
        }
        Command::Rename { node, name } => {
            client
                .patch(&format!("/api/v1/nodes/{}", segment(node)), &json!({ "name": name }))
                .await?;
            eprintln!("{node} is now {name}");
            Ok(())
        }
    }
}

fn firmware(habits: &[FirmwareHabit], node: &str, as_json: bool) -> Result<()> {
    if as_json {
        return output::json(&habits);
    }
    if habits.is_empty() {
        eprintln!("{node}: nothing was learnt of its firmware yet; it is led by the usual way");
        return Ok(());
    }
    let mut table = output::table(&["MAC", "FIRMWARE", "WAY", "WORKED", "GIVEN UP", "WHY", "SEEN"]);
    for habit in habits {
        let given_up: Vec<String> = habit.given_up.iter().map(ToString::to_string).collect();
        table.add_row(vec![
            habit.mac.to_string(),
            habit.arch.map(|arch| arch.to_string()).unwrap_or_default(),
            habit.way.to_string(),
            if habit.proven { "yes" } else { "not seen" }.to_owned(),
            given_up.join(", "),
            output::plain(habit.reason.as_deref().unwrap_or("the usual way")),
            habit.seen.to_string(),
        ]);
    }
    println!("{table}");
    Ok(())
}

async fn list(client: &Client, state: Option<&str>, as_json: bool) -> Result<()> {
    let path = match state {
        Some(state) => format!("/api/v1/nodes?state={}", segment(state)),
        None => "/api/v1/nodes".to_owned(),
    };
    let nodes: Vec<Node> = client.list(&path).await?;
    if as_json {
        return output::json(&nodes);
    }
    let mut table = output::table(&[
        "NAME", "STATE", "ROLE", "POWER", "ADDRESS", "BMC", "MAC", "HARDWARE", "VERDICT",
    ]);
    for node in &nodes {
        table.add_row(vec![
            node.name.clone().into(),
            output::state(&node.state),
            output::plain(node.role.as_deref().unwrap_or_default()).into(),
            output::power(node.power),
            node.address.map(|a| a.to_string()).unwrap_or_default().into(),
            node.bmc_address.map(|a| a.to_string()).unwrap_or_default().into(),
            node.macs.first().map(ToString::to_string).unwrap_or_default().into(),
            output::plain(&node.inventory.as_ref().map(hardware).unwrap_or_default()).into(),
            output::plain(&node.verdict).into(),
        ]);
    }
    println!("{table}");
    // An appliance without a site expects nobody; one that cannot say so has shown its machines all the same.
    let expected = super::site::expected(client).await.unwrap_or_default();
    let unseen = expected.iter().filter(|one| one.node.is_none());
    let unseen: Vec<String> = unseen.map(|one| output::plain(&one.name)).collect();
    if state.is_none() && !unseen.is_empty() {
        let words = format!("expected and never seen: {} (rackbar site machines)", unseen.join(", "));
        println!("{}", output::line(&words, rackbar_model::Severity::Warning));
    }
    Ok(())
}

fn hardware(inventory: &Inventory) -> String {
    format!(
        "{}, {} MiB, {}",
        count(inventory.cpu.threads.into(), "thread", "threads"),
        inventory.memory.total_bytes >> 20,
        count(inventory.disks.len(), "disk", "disks")
    )
}

async fn show(client: &Client, name: &str, as_json: bool) -> Result<()> {
    let path = format!("/api/v1/nodes/{}", segment(name));
    if as_json {
        return output::json(&client.get::<Value>(&path).await?);
    }
    let node: Node = client.get(&path).await?;
    let mut table = output::table(&[]);
    let mut row = |key: &str, value: String| {
        table.add_row(vec![key.to_owned(), output::plain(&value)]);
    };
    row("Name", node.name.clone());
    row("Id", node.id.to_string());
    row("State", format!("{} since {}", node.state.name(), node.state_since));
    row("Verdict", node.verdict.clone());
    row("Power", node.power.to_string());
    let agent = if node.agent_connected {
        "connected"
    } else {
        "not connected"
    };
    row(
        "Agent",
        node.address
            .map_or(agent.to_owned(), |address| format!("{agent}, {address}")),
    );
    row(
        "BMC",
        node.bmc_address
            .map_or("not known".to_owned(), |address| address.to_string()),
    );
    if let Some(adopted) = &node.adopted {
        let system = &adopted.system;
        let words = format!(
            "{}, kernel {}, by {} at {}",
            system.name, system.kernel, adopted.by, adopted.at
        );
        row("Adopted", words);
    }
    for collision in &node.collisions {
        row(
            "Collision",
            format!(
                "same {} {} as {}",
                collision.witness.kind, collision.witness.value, collision.other
            ),
        );
    }
    if let Some(inventory) = &node.inventory {
        inventory_rows(inventory, &mut row);
    }
    println!("{table}");
    Ok(())
}

fn inventory_rows(inventory: &Inventory, row: &mut impl FnMut(&str, String)) {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let system = &inventory.system;
    row(
        "System",
        format!(
            "{} {} serial {}",
            text(&system.manufacturer),
            text(&system.product),
            text(&system.serial)
        ),
    );
    row("SMBIOS UUID", text(&system.uuid));
    let firmware = &inventory.firmware;
    row(
        "Firmware",
        format!(
            "{} {}, {}",
            text(&firmware.vendor),
            text(&firmware.version),
            match firmware.mode {
                Some(FirmwareMode::Bios) => "BIOS",
                Some(FirmwareMode::Uefi) => "UEFI",
                None => "mode not known",
            }
        ),
    );
    let cpu = &inventory.cpu;
    row(
        "Processor",
        format!(
            "{}: {}, {}, {}",
            text(&cpu.model),
            count(cpu.sockets.into(), "socket", "sockets"),
            count(cpu.cores.into(), "core", "cores"),
            count(cpu.threads.into(), "thread", "threads")
        ),
    );
    row("Memory", format!("{} MiB", inventory.memory.total_bytes >> 20));
    inventory.nics.iter().for_each(|nic| row("NIC", nic_line(nic)));
    inventory.disks.iter().for_each(|disk| row("Disk", disk_line(disk)));
    if let Some(bmc) = &inventory.bmc {
        let address = bmc.address.map(|a| a.to_string()).unwrap_or_default();
        let mac = bmc.mac.map(|m| m.to_string()).unwrap_or_default();
        row(
            "BMC in-band",
            format!("{address} {mac} firmware {}", text(&bmc.firmware)),
        );
    }
    if let Some(tpm) = &inventory.tpm {
        row("TPM", format!("{} {}", tpm.version, text(&tpm.description)));
    }
    row("PCI devices", inventory.pci.len().to_string());
    for missing in &inventory.boot.missing_drivers {
        row("No driver for", missing.clone());
    }
}

fn nic_line(nic: &Nic) -> String {
    let link = match (nic.link, nic.speed_mbps) {
        (true, Some(speed)) => format!("up {speed} Mbit/s"),
        (true, None) => "up".to_owned(),
        (false, _) => "down".to_owned(),
    };
    let port = nic.lldp.as_ref().map_or_else(String::new, |lldp| {
        format!(
            ", switch {} port {}",
            lldp.system_name.as_deref().unwrap_or(&lldp.chassis_id),
            lldp.port_id
        )
    });
    let boot = if nic.boot { ", boot" } else { "" };
    format!(
        "{} {} {link}{port}{boot}",
        nic.mac,
        nic.driver.as_deref().unwrap_or("no driver")
    )
}

fn disk_line(disk: &Disk) -> String {
    let serial = disk.serial.as_deref().or(disk.wwn.as_deref()).unwrap_or("no serial");
    let model = disk.model.as_deref().unwrap_or("");
    format!("{:.1} GB {:?} {model} {serial}", disk.size_bytes as f64 / 1e9, disk.bus)
}

#[derive(Deserialize)]
struct Timeline {
    name: String,
    verdict: String,
    items: Vec<Worded>,
}

/// An event with its wording.
#[derive(Deserialize)]
pub(super) struct Worded {
    #[serde(flatten)]
    pub(super) event: Event,
    pub(super) text: String,
}

async fn trace(client: &Client, name: &str, as_json: bool) -> Result<()> {
    let path = format!("/api/v1/nodes/{}/timeline", segment(name));
    if as_json {
        return output::json(&client.get::<Value>(&path).await?);
    }
    let timeline: Timeline = client.get(&path).await?;
    println!("{}: {}", timeline.name, output::plain(&timeline.verdict));
    let start = timeline.items.first().map(|item| item.event.at).unwrap_or_default();
    for Worded { event, text } in &timeline.items {
        let since = event.at.since(start);
        let line = format!(
            "{:>9}  {}",
            format!("+{}.{:03}", since / 1000, since % 1000),
            output::plain(text)
        );
        println!("{}", output::line(&line, event.kind.severity()));
    }
    Ok(())
}
