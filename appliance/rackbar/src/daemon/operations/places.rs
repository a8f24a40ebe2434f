//! How busy the servers of boot files are, put into the API's words.

use std::net::IpAddr;

use rackbar_control::operations::{BootAgain, BootControl, BootServer, BootWaiter};
use rackbar_model::MacAddr;
use rackbar_orchestrator::Rack;
use rackbar_services::{Again, Common, Waiter};

/// What is so now.
pub(super) fn boot_control(common: &Common, rack: &Rack) -> BootControl {
    let metrics = &common.metrics;
    let known = |mac: Option<MacAddr>, client: IpAddr| {
        let mac = mac.or_else(|| common.clients.mac_of(client));
        let node = mac.and_then(|mac| rack.node(&mac.to_string()));
        (mac, node.map(|node| node.name.clone()))
    };
    let waiter = |server: &str, client: std::net::SocketAddr, seconds| {
        let (mac, node) = known(None, client.ip());
        BootWaiter {
            server: server.to_owned(),
            client,
            mac,
            node,
            seconds,
        }
    };
    let tftp = |one: Waiter| waiter("tftp", one.client, Some(one.since.as_secs()));
    let again = |one: Again| {
        let (mac, node) = known(one.mac, one.client);
        BootAgain {
            client: one.client,
            mac,
            node,
            what: one.what,
            times: one.times,
            seconds: one.since.as_secs(),
            pause: one.pause.as_secs(),
        }
    };
    let (http_waiting, http) = common.busy.http_waiting();
    let http = http.into_iter().map(|client| waiter("http", client, None));
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
                waiting: http_waiting,
                full: metrics.http_full.get(),
            },
        ],
        waiting: common.busy.waiting().into_iter().map(tftp).chain(http).collect(),
        again: common.busy.again().into_iter().map(again).collect(),
    }
}
