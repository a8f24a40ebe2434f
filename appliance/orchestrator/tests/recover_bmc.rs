//! `recover` of a machine whose agent is gone: its BMC brings it back into the agent, and what it was installed with stays.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::Arc;

use common::bmcs::{self, Watch};
use common::life::{Life, Sim, hardware};
use common::{boot, mac, until, until_event, until_node};
use rackbar_model::EventKind;
use rackbar_plan::RunState;
use rackbar_vrack::seat::{self, BootDevice};

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_its_agent_is_recovered_through_its_bmc() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (mut life, node) = Life::first(folder.path(), &sim).await;
    let (bmc, machine, _dir) = bmcs::simulated(seat::PowerState::On).await;
    let watch = Watch::with(life.rack.clone(), &bmc, "secret", bmcs::TIMING);
    watch.lease();
    watch.found().await;
    let run = life.commit(node);
    until("the run is done", || {
        life.executor.run(run).filter(|run| run.state == RunState::Done)
    })
    .await;
    let was = until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;

    // It runs its own system, which nobody reaches any more.
    let (server, agent, site) = life.machine.take().unwrap();
    drop(agent);
    until_node(&life.rack, "its agent is gone", |node| !node.agent_connected).await;
    let done = life.executor.recover(node, "anna").unwrap();
    assert!(done.next.contains("its BMC is asked"), "{}", done.next);
    let start = until("a start from the network", || {
        machine.starts().last().copied().flatten()
    })
    .await;
    assert_eq!(start.device, BootDevice::Network);
    assert!(start.once, "the machine's own order of devices stays");
    let who = until_event(
        &life.rack,
        "who restarted it",
        |kind| matches!(kind, EventKind::PowerRequested { by, .. } if by == "anna"),
    );
    who.await;
    let (agent, welcome) = boot(&site, &server, &[mac(1)], hardware(1, 20)).await;
    assert_eq!(welcome.node, node);
    let shown = life.rack.node(&node.to_string()).unwrap();
    assert_eq!(shown.installed, was.installed, "what is on its disk is still known");
    life.machine = Some((server, agent, site));

    // A BMC that is deaf: the machine is in a known state all the same, and why it did not restart is told.
    let (server, agent, site) = life.machine.take().unwrap();
    drop((agent, server, site));
    until_node(&life.rack, "its agent is gone", |node| !node.agent_connected).await;
    watch.devices.set_credentials(bmcs::admin("wrong"), Vec::new());
    bmc.state().set_faults(bmcs::DEAF);
    watch.stop().await;
    life.executor.recover(node, "anna").unwrap();
    assert_eq!(life.state(node), "discovered");
    until_event(
        &life.rack,
        "why it did not restart",
        |kind| matches!(kind, EventKind::Note { text, .. } if text.contains("could not be restarted into our agent")),
    )
    .await;
    life.kill().await;
}
