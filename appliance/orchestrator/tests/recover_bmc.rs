//! `recover` of a machine whose agent is gone: its BMC brings it back into the agent, and what it was installed with stays.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::bmcs::{self, Watch};
use common::life::{Life, Sim, hardware};
use common::{boot, mac, until, until_event, until_node};
use rackbar_model::{Adopted, EventKind, PowerAction, RunningSystem, Timestamp};
use rackbar_orchestrator::hands::{Appliance, Hands as _, Reach};
use rackbar_plan::{ActionKind, RunState};
use rackbar_vrack::seat::{self, BootDevice, MachinePower as _};

/// What a machine was told that it should do, and no more than was written down.
fn asked(rack: &rackbar_orchestrator::Rack) -> Vec<String> {
    rack.store().flush().unwrap();
    let events = rack.events(0, usize::MAX).unwrap().into_iter();
    let asked = events.filter_map(|event| match event.kind {
        EventKind::PowerRequested { action, .. } => Some(action),
        _ => None,
    });
    asked.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_was_adopted_ends_in_order_before_its_machine_is_installed_anew() {
    let (bmc, machine, _dir) = bmcs::simulated(seat::PowerState::On).await;
    let watch = Watch::start(bmcs::memory(), &bmc, "secret", bmcs::TIMING);
    watch.lease();
    let node = watch.found().await;
    let reach = Reach {
        look: Duration::from_millis(20),
        ..Reach::default()
    };
    let hands = Appliance::new(watch.rack.clone(), watch.rack.store().clone(), None, reach).unwrap();
    let (mut task, _give_up) = bmcs::task(&node, ActionKind::Agent { fresh: true });
    task.system.adopted = Some(Adopted {
        system: RunningSystem::default(),
        user: "root".into(),
        address: bmcs::HERE,
        port: 22,
        host_key: "ssh-ed25519 AAAA".into(),
        trusted_on_first_use: false,
        own_key: None,
        by: "anna".into(),
        at: Timestamp(1),
    });
    let work = tokio::spawn(async move { hands.carry_out(task).await });
    let start = until("a start from the network", || {
        machine.starts().last().copied().flatten()
    })
    .await;
    assert_eq!(start.device, BootDevice::Network);
    assert_eq!(asked(&watch.rack), ["shutdown", "netboot"]);
    work.abort();
    watch.stop().await;
}

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
    assert!(done.next.contains("end its system in order"), "{}", done.next);
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
    assert_eq!(
        asked(&life.rack),
        ["shutdown", "netboot"],
        "the system on it ends in order first"
    );
    let (agent, welcome) = boot(&site, &server, &[mac(1)], hardware(1, 20)).await;
    assert_eq!(welcome.node, node);
    let shown = life.rack.node(&node.to_string()).unwrap();
    assert_eq!(shown.installed, was.installed, "what is on its disk is still known");
    life.machine = Some((server, agent, site));

    // A BMC that is deaf: the machine is in a known state all the same, and why it did not restart is told.
    let (server, agent, site) = life.machine.take().unwrap();
    drop((agent, site));
    until_node(&life.rack, "its agent is gone", |node| !node.agent_connected).await;
    server.stop().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_forgotten_and_comes_back_is_driven_with_the_password_its_bmc_has() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (mut life, old) = Life::first(folder.path(), &sim).await;
    let (bmc, machine, _dir) = bmcs::simulated(seat::PowerState::On).await;
    let watch = Watch::with(life.rack.clone(), &bmc, "secret", bmcs::TIMING);
    watch.lease();
    let node = watch.found().await;
    let store = life.rack.store().clone();
    let hands = Appliance::new(life.rack.clone(), store.clone(), None, Reach::default()).unwrap();
    let (task, _give_up) = bmcs::task(&node, ActionKind::RotatePassword);
    assert!(hands.carry_out(task).await.result.is_ok());
    let login = store.bmc_login(old).unwrap().unwrap();

    // It goes, with its BMC, and is forgotten; the appliance begins anew.
    let (server, agent, _site) = life.machine.take().unwrap();
    drop((agent, hands));
    until_node(&life.rack, "its agent is gone", |node| !node.agent_connected).await;
    life.executor.forget(old, "anna").unwrap();
    assert_eq!(store.bmc_login(old).unwrap(), None);
    watch.stop().await;
    server.stop().await;
    drop(store);
    life.kill().await;
    let life = Life::start(folder.path(), &sim).await;
    assert!(life.rack.nodes().is_empty());

    // Its BMC shows itself again: no login of the site's is tried, and the account is the new node's.
    let watch = Watch::with(life.rack.clone(), &bmc, "secret", bmcs::TIMING);
    watch.lease();
    let node = watch.found().await;
    assert_ne!(node.id, old);
    let store = life.rack.store().clone();
    let kept = until("the account is the new node's", || store.bmc_login(node.id).unwrap()).await;
    assert_eq!(kept, login);
    assert_eq!(store.bmc_logins().unwrap().len(), 1, "it is not kept twice");
    assert_eq!(bmc.state().failures("admin"), 0);
    life.rack.power(node.id, PowerAction::Off, "anna").await.unwrap();
    until("the machine is off", || {
        (machine.state() == seat::PowerState::Off).then_some(())
    })
    .await;
    watch.stop().await;
    drop(store);
    life.kill().await;
}
