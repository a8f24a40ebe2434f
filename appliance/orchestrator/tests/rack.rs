//! Stories of machines that are found: agents over real TLS and frames, BMCs by a table, a restart in between.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use rackbar_messages::{Ask, FromAgent, Proof, RefusedReason, ToAgent};
use rackbar_model::{
    BmcInfo, EventKind, Lease, LeaseState, MacAddr, PowerAction, PowerState, Severity, Timestamp, WitnessKind,
};
use rackbar_orchestrator::bmc::{self, Answer, BmcDoor, BmcError};
use rackbar_orchestrator::{BmcSight, PowerError, PowerWay, RenameError};
use rackbar_services::{EventSink as _, LeaseLog as _};
use rackbar_store::{Options, Store};

const HEARTBEAT: Duration = Duration::from_secs(60);

fn memory() -> Store {
    Store::in_memory(Options::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_found_by_its_packets_and_discovered_by_its_agent() {
    let site = site();
    let rack = rack(memory());
    let mut events = rack.subscribe();
    let server = Server::start(&site, rack.clone(), HEARTBEAT).await;
    rack.event(Some(mac(1)), discover("rack"));
    let node = until_node(&rack, "enrolled", |node| node.state.name() == "enrolled").await;
    assert_eq!(node.name, "node-001");
    rack.event(
        Some(mac(1)),
        EventKind::HttpSent {
            what: "manifest".into(),
            client: [10, 10, 0, 50].into(),
            status: 200,
            bytes: 1,
            millis: 1,
        },
    );
    until_node(&rack, "inspecting", |node| node.state.name() == "inspecting").await;
    let (mut agent, welcome) = boot(
        &site,
        &server,
        &[mac(1), mac(2)],
        machine(&[mac(1), mac(2)], "S1", "u-1"),
    )
    .await;
    assert_eq!(welcome.node, node.id);
    assert_eq!(
        rack.node(&mac(2).to_string()).unwrap().id,
        node.id,
        "the second NIC belongs to it"
    );
    let node = rack.node("node-001").unwrap();
    assert!(node.agent_connected);
    assert_eq!(node.macs, [mac(1), mac(2)]);
    assert!(!node.verdict.is_empty());

    let mut changed = machine(&[mac(1), mac(2)], "S1", "u-1");
    changed.firmware.version = Some("2".into());
    agent.facts(changed).await;
    let event = until_event(
        &rack,
        "changed facts",
        |kind| matches!(kind, EventKind::Facts { changed } if !changed.is_empty()),
    )
    .await;
    assert!(matches!(event.kind, EventKind::Facts { changed } if changed == ["firmware: 2, was unknown"]));
    until("history", || {
        (rack.inventory_history(node.id).unwrap().len() == 2).then_some(())
    })
    .await;

    drop(agent);
    until_node(&rack, "agent lost", |node| !node.agent_connected).await;
    let names = kinds(&rack, node.id);
    for name in [
        "node_enrolled",
        "dhcp_discover",
        "state_changed",
        "agent_up",
        "facts",
        "agent_lost",
    ] {
        assert!(names.iter().any(|one| one == name), "{name} is missing in {names:?}");
    }
    let first = events.recv().await.unwrap();
    assert_eq!(first.seq, 1, "subscribers get what the journal has, from the first");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_once_and_for_its_machine_only() {
    let site = site();
    let rack = rack(memory());
    let server = Server::start(&site, rack.clone(), HEARTBEAT).await;
    let token = token_for(&rack, mac(1));
    let refused = |outcome: Result<_, ToAgent>| match outcome.err() {
        Some(ToAgent::Refused(reason)) => reason,
        other => panic!("not refused: {other:?}"),
    };
    let other = Agent::connect(&site, server.address, mac(9), Proof::BootToken(token)).await;
    assert_eq!(refused(other), RefusedReason::OtherMachine);
    let (mut agent, welcome) = Agent::connect(&site, server.address, mac(1), Proof::BootToken(token))
        .await
        .unwrap();
    agent.say(&FromAgent::Heartbeat { uptime_millis: 1 }).await.unwrap();
    agent.until_read(&rack, welcome.node).await;
    let again = Agent::connect(&site, server.address, mac(1), Proof::BootToken(token)).await;
    assert_eq!(refused(again), RefusedReason::TokenUsed);
    let event = until_event(
        &rack,
        "the second use is recorded",
        |kind| matches!(kind, EventKind::AgentRefused { reason, .. } if reason.contains("used before")),
    )
    .await;
    assert_eq!(event.node, Some(welcome.node));
    let made_up = Agent::connect(&site, server.address, mac(1), Proof::Session([3; 32])).await;
    assert_eq!(refused(made_up), RefusedReason::UnknownSession);
    assert_eq!(rack.nodes().len(), 1, "refused agents make no nodes");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_welcome_was_lost_comes_in_with_the_same_token() {
    let site = site();
    let rack = rack(memory());
    let server = Server::start(&site, rack.clone(), HEARTBEAT).await;
    let proof = Proof::BootToken(token_for(&rack, mac(1)));
    let lost = Agent::greet(&site, server.address, mac(1), proof.clone()).await;
    until_node(&rack, "admitted", |node| node.agent_connected).await;
    drop(lost);
    let (mut agent, welcome) = Agent::connect(&site, server.address, mac(1), proof.clone())
        .await
        .expect("the same token, as nobody has spoken with it");
    until_event(
        &rack,
        "it is told",
        |kind| matches!(kind, EventKind::Note { text, severity: Severity::Warning } if text.contains("once more")),
    )
    .await;
    agent.facts(machine(&[mac(1)], "S1", "u-1")).await;
    until_node(&rack, "discovered", |node| node.state.name() == "discovered").await;
    let thief = Agent::connect(&site, server.address, mac(1), proof).await;
    assert!(matches!(thief.err(), Some(ToAgent::Refused(RefusedReason::TokenUsed))));
    assert!(rack.node(&welcome.node.to_string()).unwrap().agent_connected);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_and_all_that_is_known_survive_a_restart_of_the_appliance() {
    let site = site();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let (id, session) = {
        let store = Store::open(&path).unwrap();
        let rack = rack(store.clone());
        let server = Server::start(&site, rack.clone(), HEARTBEAT).await;
        let (agent, welcome) = boot(&site, &server, &[mac(1)], machine(&[mac(1)], "S1", "u-1")).await;
        rack.rename(welcome.node, "web-1").unwrap();
        drop(agent);
        server.stop().await;
        drop(rack);
        store.close();
        (welcome.node, welcome.session)
    };
    let rack = rack(Store::open(&path).unwrap());
    let before = rack.node("web-1").expect("the node is there before its agent is back");
    assert_eq!((before.id, before.agent_connected), (id, false));
    assert!(before.inventory.is_some(), "with its inventory");
    let server = Server::start(&site, rack.clone(), HEARTBEAT).await;
    let (mut agent, welcome) = Agent::connect(&site, server.address, mac(1), Proof::Session(session))
        .await
        .unwrap();
    assert_eq!((welcome.node, welcome.name.as_str()), (id, "web-1"));
    agent.say(&FromAgent::Heartbeat { uptime_millis: 1 }).await.unwrap();
    let node = until_node(&rack, "back", |node| node.agent_connected).await;
    assert_eq!(
        node.state.name(),
        "discovered",
        "coming back in the same boot changes no state"
    );
    until_event(&rack, "again", |kind| {
        matches!(kind, EventKind::AgentUp { again: true, .. })
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_with_cloned_smbios_tables_stay_two_and_both_show_it() {
    let site = site();
    let rack = rack(memory());
    let server = Server::start(&site, rack.clone(), HEARTBEAT).await;
    let (_a, one) = boot(&site, &server, &[mac(1)], machine(&[mac(1)], "SAME", "4c4c4544-0001")).await;
    let (_b, two) = boot(&site, &server, &[mac(2)], machine(&[mac(2)], "SAME", "4c4c4544-0001")).await;
    assert_ne!(one.node, two.node);
    for (own, other) in [(one.node, two.node), (two.node, one.node)] {
        let node = rack.node(&own.to_string()).unwrap();
        let kinds: Vec<_> = node
            .collisions
            .iter()
            .map(|one| (one.witness.kind, one.other))
            .collect();
        assert_eq!(
            kinds,
            [(WitnessKind::SystemSerial, other), (WitnessKind::SystemUuid, other)]
        );
        assert!(self::kinds(&rack, own).iter().any(|name| name == "identity_collision"));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_falls_silent_is_lost() {
    let site = site();
    let rack = rack(memory());
    let server = Server::start(&site, rack.clone(), Duration::from_millis(100)).await;
    let (_agent, _) = boot(&site, &server, &[mac(1)], machine(&[mac(1)], "S1", "u-1")).await;
    until_node(&rack, "lost", |node| !node.agent_connected).await;
    until_event(
        &rack,
        "why",
        |kind| matches!(kind, EventKind::AgentLost { reason } if reason.contains("nothing was heard")),
    )
    .await;
    server.stop().await;
}

/// BMCs by address.
#[derive(Default)]
struct Table {
    bmcs: Mutex<HashMap<IpAddr, BmcSight>>,
}

impl Table {
    fn ask<T>(&self, address: IpAddr, answer: impl FnOnce(&mut BmcSight) -> T) -> Result<T, BmcError> {
        let mut bmcs = self.bmcs.lock().unwrap();
        bmcs.get_mut(&address)
            .map(answer)
            .ok_or_else(|| BmcError::Silent("nobody there".into()))
    }
}

impl BmcDoor for Table {
    fn look(&self, address: IpAddr) -> Answer<'_, BmcSight> {
        Box::pin(async move { self.ask(address, |bmc| bmc.clone()) })
    }

    fn power(&self, address: IpAddr) -> Answer<'_, PowerState> {
        Box::pin(async move { self.ask(address, |bmc| bmc.power) })
    }

    fn act(&self, address: IpAddr, action: PowerAction) -> Answer<'_, ()> {
        let power = if action == PowerAction::Off {
            PowerState::Off
        } else {
            PowerState::On
        };
        Box::pin(async move { self.ask(address, |bmc| bmc.power = power) })
    }
}

fn lease(mac: MacAddr, address: [u8; 4]) -> Lease {
    Lease {
        address: address.into(),
        network: "bmc".into(),
        mac,
        client_id: vec![],
        hostname: None,
        state: LeaseState::Bound,
        expires: Timestamp(u64::MAX),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_is_found_by_its_lease_and_joins_the_machine_it_belongs_to() {
    let site = site();
    let rack = rack(memory());
    let server = Server::start(&site, rack.clone(), HEARTBEAT).await;
    let table = Arc::new(Table::default());
    let address: IpAddr = [10, 10, 1, 50].into();
    let sight = BmcSight {
        speaks: vec!["redfish".into()],
        mac: Some(mac(101)),
        serial: Some("S1".into()),
        power: PowerState::Off,
        ..BmcSight::default()
    };
    table.bmcs.lock().unwrap().insert(address, sight);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let watcher = tokio::spawn(bmc::run(rack.clone(), table.clone(), stopped));

    rack.event(Some(mac(101)), discover("bmc"));
    rack.commit(&[lease(mac(101), [10, 10, 1, 50])]).unwrap();
    let node = until_node(&rack, "found by its BMC", |node| node.bmc_address == Some(address)).await;
    assert_eq!(rack.nodes().len(), 1, "the BMC's own packets make no node");
    assert_eq!((node.power, node.state.name()), (PowerState::Off, "enrolled"));
    assert_eq!(rack.leases().len(), 1);

    rack.power(node.id, PowerAction::On, "test").await.unwrap();
    assert_eq!(rack.node("node-001").unwrap().power, PowerState::On);
    until_event(
        &rack,
        "asked",
        |kind| matches!(kind, EventKind::PowerRequested { by, .. } if by == "test"),
    )
    .await;

    // The host boots from a NIC its BMC did not tell of: a second node, until its agent shows the BMC's MAC address.
    rack.event(Some(mac(1)), discover("rack"));
    until("a second node", || (rack.nodes().len() == 2).then_some(())).await;
    let mut inventory = machine(&[mac(1)], "S1", "u-1");
    inventory.bmc = Some(BmcInfo {
        mac: Some(mac(101)),
        address: Some(address),
        ..BmcInfo::default()
    });
    let (_agent, welcome) = boot(&site, &server, &[mac(1)], inventory).await;
    let merged = until("one node", || (rack.nodes().len() == 1).then(|| rack.nodes().remove(0))).await;
    assert_eq!(merged.id, node.id, "the one seen first keeps its identity");
    assert_eq!(
        rack.node(&welcome.node.to_string()).unwrap().id,
        node.id,
        "the other leads to it"
    );
    assert!(merged.agent_connected && merged.inventory.is_some());
    until("a timeline of both", || {
        let kinds = kinds(&rack, node.id);
        ["nodes_merged", "bmc_found", "dhcp_discover"]
            .iter()
            .all(|name| kinds.iter().any(|one| one == name))
            .then_some(())
    })
    .await;
    stop.send(true).unwrap();
    watcher.await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_a_bmc_is_shut_down_and_restarted_by_its_agent() {
    let site = site();
    let rack = rack(memory());
    let server = Server::start(&site, rack.clone(), HEARTBEAT).await;
    let (mut agent, welcome) = boot(&site, &server, &[mac(1)], machine(&[mac(1)], "S1", "u-1")).await;
    let order = |action| {
        let (rack, id) = (rack.clone(), welcome.node);
        tokio::spawn(async move { rack.power_way(id, action, "test").await })
    };
    let cases = [
        (
            PowerAction::Shutdown,
            Ask::PowerOff,
            "shutdown through its agent, as no BMC of it is known",
        ),
        (PowerAction::Off, Ask::PowerOff, "off through its agent"),
        (PowerAction::Reset, Ask::Reboot, "reset through its agent"),
    ];
    for (action, wanted, words) in cases {
        let ordered = order(action);
        let ToAgent::Ask { id, ask } = agent.hear().await.unwrap() else {
            panic!("no ask");
        };
        assert_eq!(ask, wanted);
        agent.say(&FromAgent::Done { id, result: Ok(()) }).await.unwrap();
        assert_eq!(ordered.await.unwrap(), Ok(PowerWay::Agent));
        until_event(
            &rack,
            words,
            |kind| matches!(kind, EventKind::PowerRequested { action, by } if action.contains(words) && by == "test"),
        )
        .await;
    }
    for action in [PowerAction::On, PowerAction::Cycle, PowerAction::Netboot] {
        let outcome = order(action).await.unwrap();
        assert!(matches!(outcome, Err(PowerError::NoBmc(_))), "{action:?}: {outcome:?}");
    }
    let ordered = order(PowerAction::Reset);
    let ToAgent::Ask { id, .. } = agent.hear().await.unwrap() else {
        panic!("no ask");
    };
    let result = Err("PID 1 is busy".into());
    agent.say(&FromAgent::Done { id, result }).await.unwrap();
    let refused = ordered.await.unwrap().unwrap_err().to_string();
    assert!(
        refused.contains("its agent did not do it either: PID 1 is busy"),
        "{refused}"
    );

    let ordered = order(PowerAction::Off);
    agent.hear().await.unwrap();
    drop(agent);
    let lost = ordered.await.unwrap().unwrap_err().to_string();
    assert!(lost.contains("its connection ended before it answered"), "{lost}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_bmc_is_silent_is_shut_down_by_its_agent() {
    let site = site();
    let rack = rack(memory());
    let server = Server::start(&site, rack.clone(), HEARTBEAT).await;
    let mut inventory = machine(&[mac(1)], "S1", "u-1");
    inventory.bmc = Some(BmcInfo {
        address: Some([10, 10, 1, 66].into()),
        ..BmcInfo::default()
    });
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let watcher = tokio::spawn(bmc::run(rack.clone(), Arc::new(Table::default()), stopped));
    let (mut agent, welcome) = boot(&site, &server, &[mac(1)], inventory).await;
    let ordered = {
        let rack = rack.clone();
        tokio::spawn(async move { rack.power_way(welcome.node, PowerAction::Shutdown, "test").await })
    };
    let ToAgent::Ask { id, ask: Ask::PowerOff } = agent.hear().await.unwrap() else {
        panic!("no ask");
    };
    agent.say(&FromAgent::Done { id, result: Ok(()) }).await.unwrap();
    assert_eq!(ordered.await.unwrap(), Ok(PowerWay::Agent));
    until_event(
        &rack,
        "both ways are told",
        |kind| matches!(kind, EventKind::PowerRequested { action, .. } if action.contains("its BMC does not answer")),
    )
    .await;
    stop.send(true).unwrap();
    watcher.await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_an_agent_tells_of_its_own_bmc_leads_to_nobody_else() {
    let site = site();
    let rack = rack(memory());
    let server = Server::start(&site, rack.clone(), HEARTBEAT).await;
    let table = Arc::new(Table::default());
    let address: IpAddr = [10, 10, 1, 50].into();
    let sight = |n, serial: &str| BmcSight {
        mac: Some(mac(n)),
        serial: Some(serial.into()),
        power: PowerState::On,
        ..BmcSight::default()
    };
    table.bmcs.lock().unwrap().insert(address, sight(101, "S1"));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let watcher = tokio::spawn(bmc::run(rack.clone(), table.clone(), stopped));
    rack.commit(&[lease(mac(101), [10, 10, 1, 50])]).unwrap();
    let first = until_node(&rack, "found by its BMC", |node| node.bmc_address == Some(address)).await;

    // Its BMC is elsewhere now, and the one of another machine has its address.
    table.bmcs.lock().unwrap().insert(address, sight(102, "S2"));
    let mut inventory = machine(&[mac(2)], "S2", "u-2");
    inventory.bmc = Some(BmcInfo {
        mac: Some(mac(102)),
        address: Some(address),
        ..BmcInfo::default()
    });
    let (_agent, welcome) = boot(&site, &server, &[mac(2)], inventory).await;
    until_node(&rack, "asked anew who it is", |node| {
        node.id == welcome.node && node.bmc_address == Some(address) && node.power == PowerState::On
    })
    .await;
    let refused = rack.power(first.id, PowerAction::Off, "test").await;
    assert_eq!(refused, Err(PowerError::NoBmc(first.name.clone())));
    let power = table.ask(address, |bmc| bmc.power);
    assert_eq!(power, Ok(PowerState::On), "the machine of another");
    stop.send(true).unwrap();
    watcher.await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_words() {
    let rack = rack(memory());
    rack.event(Some(mac(1)), discover("rack"));
    rack.event(Some(mac(2)), discover("rack"));
    until("two nodes", || (rack.nodes().len() == 2).then_some(())).await;
    let id = rack.node("node-001").unwrap().id;
    assert!(
        matches!(rack.power(id, PowerAction::On, "test").await, Err(PowerError::NoBmc(name)) if name == "node-001")
    );
    for bad in ["", "Web", "-a", "a-", "a.b", "a b", &"a".repeat(64)] {
        assert!(matches!(rack.rename(id, bad), Err(RenameError::BadName(_))), "{bad}");
    }
    assert!(matches!(rack.rename(id, "node-002"), Err(RenameError::Taken { .. })));
    let revision = rack.revision();
    rack.rename(id, "web-1").unwrap();
    assert!(rack.revision() > revision);
    assert!(rack.node("node-001").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_made_up_machines_stays_bounded_and_a_real_one_is_still_served() {
    let site = site();
    let rack = rack(memory());
    let server = Server::start(&site, rack.clone(), HEARTBEAT).await;
    for n in 0..40_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        rack.event(Some(MacAddr([2, 0, 0, a, b, c])), discover("rack"));
    }
    let (_agent, welcome) = boot(&site, &server, &[mac(1)], machine(&[mac(1)], "S1", "u-1")).await;
    until_event(
        &rack,
        "the flood is told",
        |kind| matches!(kind, EventKind::Note { severity: Severity::Warning, text } if text.contains("not ")),
    )
    .await;
    assert!(rack.nodes().len() <= 1_026, "{}", rack.nodes().len());
    assert!(
        rack.store().nodes().unwrap().len() <= 2,
        "made-up machines do not reach the disk"
    );
    assert!(rack.last_seq() < 20_000, "{}", rack.last_seq());
    assert!(rack.node(&welcome.node.to_string()).unwrap().agent_connected);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_machine_is_taken_in_but_washes_nothing_out_of_the_journal() {
    let rack = rack(memory());
    let mut heard = rack.subscribe();
    rack.event(Some(mac(1)), discover("rack"));
    let node = until_node(&rack, "enrolled", |node| node.state.name() == "enrolled").await;
    let changed = |n: u32| EventKind::Changed {
        by: "anna".into(),
        what: format!("change {n}"),
        outcome: "done".into(),
        ok: true,
    };
    let sent = |what: &str| EventKind::HttpSent {
        what: what.into(),
        client: [10, 10, 0, 50].into(),
        status: 200,
        bytes: 1,
        millis: 1,
    };
    // Fewer than a subscriber may fall behind, and the last of them is the one that counts for the machine.
    for n in 0..200 {
        rack.record_change(changed(n)).unwrap();
        for _ in 0..10 {
            rack.event(Some(mac(1)), sent("favicon"));
        }
    }
    until("the flood is taken in", || {
        let events = rack.events(0, usize::MAX).unwrap();
        (events.iter().filter(|event| event.kind == sent("favicon")).count() >= 120).then_some(())
    })
    .await;
    let boot = EventKind::Boot(rackbar_model::BootStage::Failed {
        reason: "no disk".into(),
    });
    rack.event(Some(mac(1)), sent("script"));
    rack.event(Some(mac(1)), boot);
    until_node(&rack, "what it means counts", |node| node.state.name() == "failed").await;
    let told = until_event(
        &rack,
        "what is not kept is told",
        |kind| matches!(kind, EventKind::Note { text, .. } if text.contains("(HTTP request) from node-001")),
    )
    .await;
    assert_eq!(told.node, Some(node.id));
    let events = rack.events(0, usize::MAX).unwrap();
    let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
    let all: Vec<u64> = (1..=events.len() as u64).collect();
    assert_eq!(numbers, all, "what is not kept takes no number");
    let changes = events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::Changed { .. }));
    assert_eq!(changes.count(), 200);
    assert!(events.len() < 500, "{}", events.len());
    let mut with_number = 0;
    let mut without = 0;
    while let Ok(event) = heard.try_recv() {
        match event.seq {
            0 => without += 1,
            _ => with_number += 1,
        }
    }
    assert_eq!(with_number, events.len(), "subscribers hear what is kept");
    let flood = events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::HttpSent { .. }));
    assert_eq!(without, 2_001 - flood.count(), "and what is not, without a number");
}
