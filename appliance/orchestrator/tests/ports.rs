//! What switch ports say of themselves, as agents hear it.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::time::Duration;

use common::*;
use rackbar_messages::FromAgent;
use rackbar_model::{EventKind, MacAddr, PortSays};
use rackbar_orchestrator::Rack;
use rackbar_services::EventSink as _;
use rackbar_store::{Options, Store};

/// What ports said, in the order it was told.
fn told(rack: &Rack) -> Vec<(Option<MacAddr>, PortSays)> {
    let says = |event: rackbar_model::Event| match event.kind {
        EventKind::PortSays(says) => Some((event.mac, says)),
        _ => None,
    };
    rack.events(0, usize::MAX)
        .unwrap()
        .into_iter()
        .filter_map(says)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_switch_port_says_is_told_once_per_boot_and_only_of_own_ports() {
    let site = site();
    let rack = rack(Store::in_memory(Options::default()).unwrap());
    let server = Server::start(&site, rack.clone(), Duration::from_secs(60)).await;
    let tree = PortSays::SpanningTree {
        rapid: true,
        forward_delay_millis: 15_000,
        forwards: Some(false),
    };
    let lacp = |forwards| PortSays::Lacp { forwards };
    // An agent that hangs up has a verdict of its own.
    let mut agents = Vec::new();
    for boots in 1..=2 {
        rack.event(Some(mac(1)), discover("rack"));
        let (mut agent, _) = boot(&site, &server, &[mac(1)], machine(&[mac(1)], "S1", "u-1")).await;
        // A stranger's port and repeats are no news; a change is.
        let says = [
            (mac(9), lacp(false)),
            (mac(1), tree),
            (mac(1), lacp(true)),
            (mac(1), tree),
            (mac(1), lacp(false)),
        ];
        for (mac, says) in says {
            agent.say(&FromAgent::Port { mac, says }).await.unwrap();
        }
        until("all is told", || (told(&rack).len() >= 3 * boots).then_some(())).await;
        agents.push(agent);
    }
    let news = [tree, lacp(true), lacp(false)].map(|says| (Some(mac(1)), says));
    assert_eq!(told(&rack), [news, news].concat());
    let verdict = until("the verdict names it", || {
        let node = rack.node("node-001")?;
        node.verdict.contains("LACP").then_some(node.verdict.clone())
    })
    .await;
    assert!(
        verdict.contains("carries nothing for it") && verdict.contains("enable LACP fallback"),
        "{verdict}"
    );
}
