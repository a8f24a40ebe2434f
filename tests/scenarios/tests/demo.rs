//! The main job: the demo rack from power-on to every machine discovered, each by its own way of booting.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rackbar_model::{FirmwareMode, NodeState, PowerState, WitnessKind};
use rackbar_scenarios::stages::{self, Way};
use rackbar_scenarios::{Stage, eventually, rack_file};
use rackbar_vrack::seat::{self, MachinePower as _};

#[tokio::test(flavor = "multi_thread")]
async fn demo_rack_is_discovered() -> Result<()> {
    let start = Instant::now();
    let stage = Stage::set(rack_file("demo")?).await?;
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("rack.pcapng");
    stage.rack.capture(None, &capture)?;
    stage.start_appliance().await?;
    println!("appliance serving after {:.1} s", start.elapsed().as_secs_f64());
    let names: Vec<String> = stage.rack.nodes().iter().map(|node| node.name.clone()).collect();
    for name in &names {
        stage.power_on(name).await?;
    }
    for name in &names {
        let node = stage.until_discovered(name).await?;
        println!(
            "{name} discovered as {} after {:.1} s: {}",
            node.name,
            start.elapsed().as_secs_f64(),
            node.verdict
        );
        stage.until_complete(name).await?;
        let history: serde_json::Value = stage
            .api
            .read(&format!("/api/v1/nodes/{}/inventories", node.id))
            .await?;
        ensure!(
            history["items"][0]["inventory"]["firmware"].is_object(),
            "{name}: no inventory is kept: {history}"
        );
        ensure!(
            node.power == PowerState::On || node.power == PowerState::Unknown,
            "{name}: power is {}",
            node.power
        );
    }
    crate::seen::each_machine_is_shown(&stage, &names).await?;
    each_came_its_own_way(&stage).await?;
    the_twins_stay_two(&stage).await?;
    one_timeline_tells_of_both_ends(&capture.with_extension("timeline.txt")).await?;
    stage.end().await;
    Ok(())
}

async fn each_came_its_own_way(stage: &Stage) -> Result<()> {
    for (name, mode, way) in [
        ("n1", FirmwareMode::Bios, Way::Ipxe),
        ("n2", FirmwareMode::Uefi, Way::Pxe),
        ("n3", FirmwareMode::Uefi, Way::HttpBoot),
        ("n4", FirmwareMode::Bios, Way::Ipxe),
    ] {
        let node = stage.node(name).await?.context("known a moment ago")?;
        let inventory = node.inventory.as_ref().context("inventory")?;
        ensure!(
            inventory.firmware.mode == Some(mode),
            "{name}: {:?}",
            inventory.firmware.mode
        );
        let timeline = stage.timeline(&node).await?;
        stages::all_told(&timeline, way).with_context(|| format!("{name} by {way:?}"))?;
        stages::no_silence(&timeline).with_context(|| format!("{name} by {way:?}"))?;
    }
    Ok(())
}

/// What consoles print, what is done to the rack and what the appliance says of it are in one file, each in its place.
async fn one_timeline_tells_of_both_ends(file: &Path) -> Result<()> {
    let told = || async {
        let text = std::fs::read_to_string(file)?;
        let at = |source: &str, part: &str| {
            let line = text
                .lines()
                .position(|line| line.contains(source) && line.contains(part));
            line.with_context(|| format!("{source:?} says nothing of {part:?}:\n{text}"))
        };
        let power = at("appliance", "power on asked by admin")?;
        let firmware = at("console n1", "SeaBIOS")?;
        let agent = at("console n1", "rackbar-agent")?;
        // Of n1 or another: each takes longer than the clocks of two machines are apart. Firmware speaks within a tenth of a
        // second of the order to switch on, and the appliance's clock began with its mainboard's whole second.
        let discovered = at("appliance", "inspecting -> discovered")?;
        ensure!(
            power < agent && firmware < agent && firmware < discovered,
            "lines {power}, {firmware}, {agent}, {discovered} of:\n{text}"
        );
        anyhow::Ok(())
    };
    eventually("the timeline tells of both ends", Duration::from_secs(30), told).await
}

/// n3 and n4 carry one SMBIOS UUID: they stay two nodes, and both say so.
async fn the_twins_stay_two(stage: &Stage) -> Result<()> {
    let collide = || async {
        let (Some(n3), Some(n4)) = (stage.node("n3").await?, stage.node("n4").await?) else {
            anyhow::bail!("one of them is not known");
        };
        ensure!(n3.id != n4.id, "n3 and n4 became one node");
        let tells = |node: &rackbar_model::Node, other| {
            node.collisions
                .iter()
                .any(|c| c.other == other && c.witness.kind == WitnessKind::SystemUuid)
        };
        ensure!(
            tells(&n3, n4.id) && tells(&n4, n3.id),
            "{:?} {:?}",
            n3.collisions,
            n4.collisions
        );
        Ok(())
    };
    eventually("the twins show their collision", Duration::from_secs(20), collide).await
}

/// One BMC speaks Redfish, the other one IPMI alone; both rule real machines.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_switched_off_and_on_through_its_bmc() -> Result<()> {
    let mut file = rack_file("demo")?;
    file.nodes.truncate(2);
    file.nodes.last_mut().context("two machines")?.bmc_redfish = false;
    let stage = Stage::serving_with(file, |text| text).await?;
    for name in ["n1", "n2"] {
        stage.power_on(name).await?;
    }
    for name in ["n1", "n2"] {
        stage.until_discovered(name).await?;
    }
    tokio::try_join!(off_and_on(&stage, "n1"), off_and_on(&stage, "n2"))?;
    let way = |name| way_to_its_bmc(&stage, name);
    let (redfish, ipmi) = (way("n1").await?, way("n2").await?);
    ensure!(redfish.contains("speaks redfish"), "n1: {redfish}");
    ensure!(!redfish.contains("goes through IPMI"), "n1: {redfish}");
    for words in ["speaks ipmi", "goes through IPMI from now on: suite 17"] {
        ensure!(ipmi.contains(words), "n2: no {words:?} in {ipmi}");
    }
    ensure!(!ipmi.contains("speaks redfish"), "n2: {ipmi}");
    stage.end().await;
    Ok(())
}

/// What the timeline tells of the way to a machine's BMC.
async fn way_to_its_bmc(stage: &Stage, name: &str) -> Result<String> {
    let node = stage.node(name).await?.context("known a moment ago")?;
    let texts = stage.timeline(&node).await?.into_iter().map(|item| item.text);
    let told: Vec<String> = texts.filter(|text| text.contains("BMC")).collect();
    Ok(told.join("\n"))
}

/// Switches a discovered machine off and on to be discovered again, and looks behind the appliance's word: at QEMU.
async fn off_and_on(stage: &Stage, name: &str) -> Result<()> {
    let machine = &stage.rack.node(name).context("no such machine")?.machine;
    let node = stage.node(name).await?.context("known")?;
    let boots = machine.boots();
    ensure!(machine.state() == seat::PowerState::On, "{name} is not on");
    stage.api.power(node.id, "off").await?;
    let gone = || async {
        let node = stage.node(name).await?.context("known")?;
        let seen = (node.power, node.agent_connected, machine.state());
        ensure!(seen == (PowerState::Off, false, seat::PowerState::Off), "{seen:?}");
        anyhow::Ok(())
    };
    eventually("the node is seen off", Duration::from_secs(90), gone).await?;
    let told = || async {
        let node = stage.node(name).await?.context("known")?;
        ensure!(node.verdict.contains("switched off by"), "{}", node.verdict);
        anyhow::Ok(())
    };
    eventually("the verdict says who switched it off", Duration::from_secs(20), told).await?;
    stage.api.power(node.id, "netboot").await?;
    let back = || async {
        let node = stage.node(name).await?.context("known")?;
        ensure!(
            node.agent_connected && node.state == NodeState::Discovered && machine.boots() > boots,
            "{}: {}",
            node.state.name(),
            node.verdict
        );
        anyhow::Ok(node)
    };
    let again = eventually("the node is back", rackbar_scenarios::DISCOVERED, back).await?;
    ensure!(again.id == node.id, "{name}: the same machine got another identity");
    Ok(())
}
