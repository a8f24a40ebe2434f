//! Router advertisements, asked for by the Linux kernel's own IPv6 client.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]

mod common;

use common::netns::Net;
use common::{Sink, wait_until};
use rackbar_services::ra::{RaConfig, start};

fn advertisements(net: &Net) -> u64 {
    let table = net.exec_ok("client", "cat", &["/proc/net/snmp6"]);
    let text = String::from_utf8(table.stdout).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Icmp6InRouterAdvertisements"))
        .unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn a_client_that_asks_for_a_router_hears_at_once_that_there_is_none() {
    let net = Net::new();
    let (_, common) = Sink::new();
    let config = RaConfig {
        interfaces: vec!["rack0".into()],
    };
    let handle = net.inside("server", || start(&config, common.clone()).unwrap());
    assert_eq!(
        handle.status().state,
        "telling IPv6 clients on rack0 that there is no router"
    );
    net.exec_ok("client", "ip", &["link", "set", "c0", "down"]);
    net.exec_ok("client", "ip", &["link", "set", "c0", "up"]);
    wait_until("the kernel got an answer", || advertisements(&net) > 0);
    // Counted once it is sent, which the kernel may have heard by then.
    wait_until("it is counted", || {
        common.metrics.ra_solicitations.get() > 0 && common.metrics.ra_sent.get() > 0
    });
    // It made no default router of us.
    let routes = net.exec_ok("client", "ip", &["-6", "route", "show", "default"]);
    assert_eq!(String::from_utf8_lossy(&routes.stdout), "");

    net.inside("server", || handle.reconfigure(&RaConfig::default()).unwrap());
    let sent = common.metrics.ra_sent.get();
    assert!(handle.status().state.starts_with("answering nowhere"));
    handle.stop();
    assert_eq!(common.metrics.ra_sent.get(), sent);
}

#[test]
fn a_missing_interface_is_explained() {
    let (_, common) = Sink::new();
    let error = start(
        &RaConfig {
            interfaces: vec!["nosuch0".into()],
        },
        common,
    )
    .err()
    .unwrap()
    .to_string();
    assert!(
        error.contains("cannot use interface nosuch0") && error.contains("check its name"),
        "{error}"
    );
}
