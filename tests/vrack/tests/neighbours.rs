//! What the switch has to do with whoever is at the other end of a cable: spanning tree, LACP, and a restart that loses
//! its configuration. tcpdump reads what it says.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::Command;
use std::time::{Duration, Instant};

use rackbar_model::MacAddr;
use rackbar_vrack::rack::{Rack, RackFile, RackOptions};
use rackbar_vrack::seat::{MachinePower, PowerAction};
use rackbar_vrack::switch::{
    CaptureFile, LagConfig, Port, PortConfig, SpanningTree, StpState, StpTimers, Switch, SwitchConfig, Tags, Version,
};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(10);
const BROADCAST: [u8; 6] = [0xff; 6];
const STP: [u8; 6] = [1, 0x80, 0xc2, 0, 0, 0];
const SLOW: [u8; 6] = [1, 0x80, 0xc2, 0, 0, 2];

fn switch(version: Version, forward_delay: Duration) -> Switch {
    Switch::new(SwitchConfig {
        lldp_interval: Duration::from_secs(3600),
        stp: StpTimers {
            version,
            forward_delay,
            ..StpTimers::default()
        },
        ..SwitchConfig::default()
    })
}

fn access(name: &str, mode: SpanningTree) -> PortConfig {
    PortConfig::access(name, "", 10).spanning_tree(mode)
}

fn frame(to: [u8; 6], last: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &[2, 0, 0, 0, 0, last, 0x88, 0xb5], payload].concat();
    frame.resize(60, 0);
    frame
}

/// What has arrived of the test's own frames. Forwarding is synchronous, so no waiting is needed to know.
fn arrived(port: &Port) -> usize {
    std::iter::from_fn(|| port.try_receive())
        .filter(|frame| frame[12..14] == [0x88, 0xb5])
        .count()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, wait)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

/// The next frame to an address.
async fn next(port: &Port, to: [u8; 6]) -> Vec<u8> {
    let wait = async {
        loop {
            let frame = port.receive().await;
            if frame[..6] == to {
                return frame;
            }
        }
    };
    timeout(DEADLINE, wait).await.expect("no such frame arrived")
}

#[tokio::test]
async fn spanning_tree_holds_a_port_for_two_forward_delays_and_counts() {
    let delay = Duration::from_millis(150);
    let switch = switch(Version::Stp, delay);
    let start = Instant::now();
    let held = switch.port(access("1", SpanningTree::Stp));
    let edge = switch.port(access("2", SpanningTree::Edge));
    let off = switch.port(access("3", SpanningTree::Off));
    let (from_edge, from_held) = (frame(BROADCAST, 2, b"edge"), frame(BROADCAST, 1, b"held"));
    edge.send(&from_edge);
    held.send(&from_held);
    assert_eq!(arrived(&off), 1, "an edge port forwards at once, the other does not");
    assert_eq!(arrived(&held), 0);
    assert_eq!(switch.counters(held.id()).blocked, 2, "one in, one out");
    next(&held, STP).await;
    next(&edge, STP).await;
    // It learns before it forwards: what is for its machine is not flooded any more.
    until("it learns", || switch.stp_state(held.id()) == StpState::Learning).await;
    held.send(&from_held);
    assert_eq!(switch.locate(10, MacAddr([2, 0, 0, 0, 0, 1])), Some(held.id()));
    until("it forwards", || switch.is_forwarding(held.id())).await;
    assert!(start.elapsed() >= delay * 2);
    edge.send(&from_edge);
    assert_eq!(arrived(&held), 1);
    // Whoever connects anew waits anew.
    switch.set_fault(held.id(), rackbar_vrack::switch::Fault::cut());
    switch.set_fault(held.id(), rackbar_vrack::switch::Fault::default());
    assert_eq!(switch.stp_state(held.id()), StpState::Listening);
    // Where spanning tree is off, nothing of it is heard.
    let quiet = std::iter::from_fn(|| off.try_receive()).all(|frame| frame[..6] != STP);
    assert!(quiet);
}

/// The host's end of a link under LACP: says what it hears back, in sync, as iPXE does.
fn agree(heard: &[u8], last: u8) -> Vec<u8> {
    let mut answer = SLOW.to_vec();
    answer.extend_from_slice(&[2, 0, 0, 0, 1, last, 0x88, 0x09, 1, 1, 1, 20]);
    // Actor: system 02:00:00:00:01:00, key 1, port `last`; aggregates, in sync, collects and distributes.
    answer.extend_from_slice(&[0xff, 0xff, 2, 0, 0, 0, 1, 0, 0, 1, 0, 0xff, 0, last, 0x3c, 0, 0, 0]);
    answer.extend_from_slice(&[2, 20]);
    answer.extend_from_slice(&heard[18..36]);
    answer.extend_from_slice(&[3, 16]);
    answer.resize(124, 0);
    answer
}

#[tokio::test]
async fn a_bundle_carries_nothing_until_its_partner_agrees_and_then_each_conversation_on_one_link() {
    let switch = switch(Version::Stp, Duration::from_secs(15));
    let links = ["1", "2"].map(|name| switch.port(access(name, SpanningTree::Edge)));
    let other = switch.port(access("3", SpanningTree::Off));
    switch.bundle(&[links[0].id(), links[1].id()], LagConfig::default());
    links[0].send(&frame(BROADCAST, 1, b"alone"));
    other.send(&frame(BROADCAST, 3, b"too"));
    assert_eq!(arrived(&other) + arrived(&links[0]) + arrived(&links[1]), 0);
    assert!(!switch.is_forwarding(links[0].id()));
    assert_eq!(switch.counters(links[0].id()).blocked, 2);
    let active = || links.iter().all(|link| switch.is_forwarding(link.id()));
    let host = async {
        while !active() {
            for (link, last) in links.iter().zip(1..) {
                while let Some(heard) = link.try_receive() {
                    if heard[..6] == SLOW {
                        link.send(&agree(&heard, last));
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, host).await.expect("the bundle never came up");
    // One copy of a broadcast, none back into the bundle, and one address for both links.
    links[1].send(&frame(BROADCAST, 1, b"to all"));
    assert_eq!((arrived(&other), arrived(&links[0]), arrived(&links[1])), (1, 0, 0));
    assert_eq!(switch.locate(10, MacAddr([2, 0, 0, 0, 0, 1])), Some(links[0].id()));
    let mut used = [0, 0];
    for last in 0..64 {
        let frame = frame([2, 0, 0, 0, 0, 1], last + 10, b"to it");
        (0..3).for_each(|_| other.send(&frame));
        let got = [arrived(&links[0]), arrived(&links[1])];
        assert!(got == [3, 0] || got == [0, 3], "a conversation keeps its link: {got:?}");
        used = [used[0] + got[0], used[1] + got[1]];
    }
    assert!(used.iter().all(|count| *count > 32), "{used:?}");
    // A link that breaks is left to the other one.
    switch.set_fault(links[0].id(), rackbar_vrack::switch::Fault::cut());
    until("the other takes over", || {
        other.send(&frame([2, 0, 0, 0, 0, 1], 10, b"still"));
        arrived(&links[1]) == 1
    })
    .await;
}

#[tokio::test]
async fn a_bundle_that_falls_back_carries_a_machine_that_does_not_speak() {
    let switch = switch(Version::Stp, Duration::from_secs(15));
    let links = ["1", "2"].map(|name| switch.port(access(name, SpanningTree::Edge)));
    let other = switch.port(access("3", SpanningTree::Off));
    let config = LagConfig {
        fallback: true,
        ..LagConfig::default()
    };
    switch.bundle(&[links[0].id(), links[1].id()], config);
    until("it falls back", || switch.is_forwarding(links[0].id())).await;
    assert!(!switch.is_forwarding(links[1].id()));
    links[0].send(&frame(BROADCAST, 1, b"discover"));
    other.send(&frame([2, 0, 0, 0, 0, 1], 3, b"offer"));
    assert_eq!((arrived(&other), arrived(&links[0]), arrived(&links[1])), (1, 1, 0));
}

#[tokio::test]
async fn a_forgetful_switch_has_lost_vlans_and_edge_ports_until_it_is_restored() {
    let switch = switch(Version::Stp, Duration::from_millis(30));
    let a = switch.port(access("1", SpanningTree::Edge));
    let b = switch.port(access("2", SpanningTree::Off));
    let stranger = switch.port(PortConfig::access("3", "", 20));
    let pair = ["4", "5"].map(|name| switch.port(access(name, SpanningTree::Off)));
    let pair = [pair[0].id(), pair[1].id()];
    switch.bundle(&pair, LagConfig::default());
    switch.go_dark();
    a.send(&frame(BROADCAST, 1, b"dark"));
    assert_eq!((arrived(&b), switch.counters(a.id()).blocked), (0, 1));
    assert!(!switch.is_up(b.id()));
    switch.start_again(true);
    assert_eq!(
        switch.stp_state(a.id()),
        StpState::Listening,
        "no port is an edge port any more"
    );
    let all = [a.id(), b.id(), stranger.id(), pair[0], pair[1]];
    until("all forward", || all.iter().all(|port| switch.is_forwarding(*port))).await;
    a.send(&frame(BROADCAST, 1, b"all one network"));
    assert_eq!((arrived(&b), arrived(&stranger)), (1, 1), "VLAN 1 holds everybody");
    switch.restore();
    a.send(&frame(BROADCAST, 1, b"as before"));
    assert_eq!((arrived(&b), arrived(&stranger)), (1, 0));
    assert!(
        !switch.is_forwarding(pair[0]),
        "the bundle is one again, and nobody speaks"
    );
    // A restart of a switch whose configuration is saved costs the links and nothing else.
    switch.go_dark();
    switch.start_again(false);
    a.send(&frame(BROADCAST, 1, b"saved"));
    assert_eq!((arrived(&b), arrived(&stranger)), (1, 0));
}

#[tokio::test]
async fn tcpdump_decodes_what_the_switch_says_to_its_neighbours() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("all.pcapng");
    for (version, expected) in [
        (
            Version::Stp,
            "STP 802.1d, Config, Flags [none], bridge-id 8000.02:52:42:53:57:00.8001",
        ),
        (
            Version::Rstp,
            "STP 802.1w, Rapid STP, Flags [Proposal], bridge-id 8000.02:52:42:53:57:00.8001",
        ),
    ] {
        let switch = switch(version, Duration::from_secs(15));
        let file = CaptureFile::create(&path, Tags::Wire).unwrap();
        switch.capture_all(&file);
        let held = switch.port(access("1", SpanningTree::Stp));
        let bundled = switch.port(access("2", SpanningTree::Off));
        switch.bundle(&[bundled.id()], LagConfig::default());
        next(&held, STP).await;
        next(&bundled, SLOW).await;
        switch.stop_capture(&file);
        drop((file, switch));
        let lines = ["message-age 0.00s, max-age 20.00s, hello-time 2.00s, forwarding-delay 15.00s"];
        let lacp = [
            "LACPv1, length 110",
            "System 02:52:42:53:57:00, System Priority 32768, Key 2, Port 2, Port Priority 32768",
            "State Flags [Activity, Aggregation, Default, Expired]",
            "Terminator TLV (0x00), length 0",
        ];
        let wanted = lines.iter().chain(&lacp).copied().chain([expected]);
        let deadline = Instant::now() + DEADLINE;
        loop {
            let read = Command::new("tcpdump")
                .args(["-e", "-n", "-vvv", "-r"])
                .arg(&path)
                .output();
            let read = read.expect("tcpdump: `cargo xtask setup test` installs it");
            let text = String::from_utf8_lossy(&read.stdout).into_owned();
            let missing: Vec<_> = wanted.clone().filter(|line| !text.contains(line)).collect();
            if missing.is_empty() {
                assert!(!text.contains("invalid") && !text.contains("[|"), "{text}");
                break;
            }
            // The writer's thread closes the file after the last handle is gone.
            assert!(Instant::now() < deadline, "tcpdump does not say {missing:?}:\n{text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The one peer of flesh and blood that is at hand: iPXE answers LACPDUs while it boots.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipxe_agrees_to_a_bundle_without_fallback_and_its_dhcp_passes() {
    let file = "name = \"lacp\"\ndescription = \"\"\n[appliance]\nmedium = \"none\"\n[[node]]\nname = \"n1\"\n\
                firmware = \"bios-ipxe\"\nbmc = false\nlacp_fast = true\nnics = [{ vlan = \"rack\", lag = \"a\" }]\n";
    let file = RackFile::parse(file, "lacp.toml").unwrap();
    let rack = Rack::build(file, RackOptions::default()).await.unwrap();
    let node = rack.node("n1").unwrap();
    let (port, mac) = (node.ports[0], node.macs[0]);
    node.machine.act(PowerAction::On).await.unwrap();
    let passes = async {
        while rack.switch().locate(10, mac) != Some(port) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let console = || std::fs::read_to_string(node.machine.console().log_path()).unwrap_or_default();
    let passed = timeout(Duration::from_secs(90), passes).await;
    assert!(passed.is_ok(), "nothing of it passed; its console:\n{}", console());
    assert!(rack.switch().is_forwarding(port));
    // Its machine gone, nobody answers any more.
    rack.shut_down().await;
    assert!(!rack.switch().is_forwarding(port));
}
