//! How busy the servers of boot files are, put into the API's words.

use rackbar_control::operations::{BootControl, BootServer, BootWaiter};
use rackbar_orchestrator::Rack;
use rackbar_services::{Common, Waiter};

/// What is so now.
pub(super) fn boot_control(common: &Common, rack: &Rack) -> BootControl {
    let metrics = &common.metrics;
    let waiter = |waiter: Waiter| {
        let mac = common.clients.mac_of(waiter.client.ip());
        let node = mac.and_then(|mac| rack.node(&mac.to_string()));
        BootWaiter {
            client: waiter.client,
            mac,
            node: node.map(|node| node.name.clone()),
            seconds: waiter.since.as_secs(),
        }
    };
    BootControl {
        servers: vec![
            BootServer {
                name: "tftp".to_owned(),
                taken: metrics.tftp_transfers.get(),
                limit: metrics.tftp_places.get(),
                waiting: metrics.tftp_waiting.get(),
                full: metrics.tftp_refused.get(),
            },
            BootServer {
                name: "http".to_owned(),
                taken: metrics.http_connections.get(),
                limit: metrics.http_places.get(),
                waiting: common.busy.http_waiting(),
                full: metrics.http_full.get(),
            },
        ],
        waiting: common.busy.waiting().into_iter().map(waiter).collect(),
    }
}
