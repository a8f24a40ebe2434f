//! What switch ports do to machines that netboot.

use anyhow::{Context, Result, ensure};
use rackbar_model::{EventKind, Node, PortSays};
use rackbar_scenarios::{COMPLETE, DISCOVERED, Stage, eventually, rack_file};
use rackbar_vrack::seat::PowerAction;
use rackbar_vrack::switch::StpState;

const MACHINES: [&str; 2] = ["bios", "uefi"];

/// Nobody set the ports to PortFast: spanning tree holds each for half a minute. The machines are found all the same, and
/// the appliance says what cost the time and what to set.
#[tokio::test(flavor = "multi_thread")]
async fn machines_behind_ports_that_spanning_tree_holds_are_found_late_and_told_why() -> Result<()> {
    let stage = Stage::serving("stp").await?;
    for name in MACHINES {
        stage.rack.power(name, PowerAction::On).await?;
    }
    for name in MACHINES {
        let port = *stage
            .rack
            .node(name)
            .and_then(|node| node.ports.first())
            .context("a port")?;
        stage.until_discovered(name).await?;
        ensure!(stage.rack.switch().stp_state(port) == StpState::Forwarding);
        ensure!(
            stage.rack.switch().counters(port).blocked > 0,
            "spanning tree kept nothing of {name} back"
        );
        let told = || async {
            let node = stage.node(name).await?.context("not known")?;
            let why = "spanning tree holds its port for 30.0 s after link-up";
            ensure!(node.verdict.contains(why), "{}", node.verdict);
            ensure!(node.verdict.contains("PortFast"), "{}", node.verdict);
            anyhow::Ok(node)
        };
        let node = eventually(&format!("{name} is told why"), COMPLETE, told).await?;
        println!("{name}: {}", node.verdict);
        // The agent hears the switch only when it speaks: it may be discovered before.
        let heard = || told_of_its_port(&stage, &node);
        eventually(&format!("{name} hears its port"), COMPLETE, heard).await?;
    }
    stage.end().await;
    Ok(())
}

/// The machine's timeline says that it asked late, and what its switch port runs.
async fn told_of_its_port(stage: &Stage, node: &Node) -> Result<()> {
    let timeline = stage.timeline(node).await?;
    let late = timeline
        .iter()
        .any(|item| matches!(item.event.kind, EventKind::AskedLate { .. }));
    let heard = timeline.iter().any(|item| {
        matches!(
            item.event.kind,
            EventKind::PortSays(PortSays::SpanningTree {
                forward_delay_millis: 15_000,
                ..
            })
        )
    });
    let told: Vec<&str> = timeline.iter().map(|item| item.text.as_str()).collect();
    ensure!(late && heard, "late {late}, BPDUs heard {heard}: {told:#?}");
    Ok(())
}

/// Nobody had saved the switch's configuration when it restarted: the appliance's tagged VLANs are gone, and with them every
/// agent. Given its configuration back, all is as before, and nothing had to be done on any machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_forgot_its_vlans_cuts_agents_off_until_it_has_them_again() -> Result<()> {
    const MACHINE: &str = "n1";
    let mut file = rack_file("trunk")?;
    file.nodes.retain(|node| node.name == MACHINE);
    // Booted, not continued: tagged interfaces begin anew in a saved appliance, which is not what this tells of.
    let stage = Stage::set(file).await?;
    stage.start_appliance().await?;
    stage.rack.power(MACHINE, PowerAction::On).await?;
    let before = stage.until_discovered(MACHINE).await?;
    stage.until_connected(MACHINE).await?;
    stage.rack.forget_switch().await?;
    let lost = || async {
        let node = stage.node(MACHINE).await?.context("not known")?;
        ensure!(!node.agent_connected, "still connected: {}", node.verdict);
        anyhow::Ok(node)
    };
    let node = eventually("the agent is missed", DISCOVERED, lost).await?;
    println!("{}", node.verdict);
    stage.rack.restore_switch();
    let after = stage.until_connected(MACHINE).await?;
    ensure!(after.id == before.id, "it came back as another machine");
    stage.end().await;
    Ok(())
}
