//! A way of booting that leads through the BMC: what the DHCP engine decided for a firmware that takes neither proxy offers
//! nor addresses of ours (negotiation, A3), carried out.
//!
//! The BMC is given the URL of our loader for the next boot (Redfish `HttpBootUri`), and the machine is restarted. Only
//! machines that nobody works with are touched: one that is installed boots its disk, whatever its firmware thinks of us.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rackbar_devices::BootTarget;
use rackbar_model::{BootWay, Event, EventKind, Node, NodeId, NodeState, PowerAction, PowerState, Severity};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Rack;

/// Who asks, in the machine's timeline.
const BY: &str = "boot negotiation";

/// Carries out every way through a BMC that is decided from now on, until told to stop. `http_port`: where boot files are.
pub async fn run(rack: Rack, http_port: u16, mut stop: watch::Receiver<bool>) {
    let mut events = rack.subscribe();
    let mut under_way = JoinSet::new();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        while under_way.try_join_next().is_some() {}
        match event {
            Ok(event) => {
                if let Some(id) = led_by_url(&event) {
                    under_way.spawn(lead(rack.clone(), id, http_port));
                }
            }
            // A machine that is still not booting comes to the same decision again after its memory is forgotten.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn led_by_url(event: &Arc<Event>) -> Option<NodeId> {
    let to_url = matches!(
        event.kind,
        EventKind::WayChanged {
            to: BootWay::RedfishUrl,
            ..
        }
    );
    event.node.filter(|_| to_url)
}

/// True for a machine that only its firmware keeps from us.
fn may_restart(node: &Node) -> bool {
    let early = matches!(
        node.state,
        NodeState::Enrolled | NodeState::Inspecting | NodeState::Discovered
    );
    early && !node.agent_connected
}

async fn lead(rack: Rack, id: NodeId, http_port: u16) {
    let Some(node) = rack.node(&id.to_string()) else { return };
    if !may_restart(&node) {
        let state = node.state.name();
        let text = format!("not restarted to boot from a URL: it is {state}, and its work is not to be broken off");
        return tell(&rack, id, text, Severity::Info);
    }
    let from = node.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let Some(ours) = rack.look(|mind| mind.settings.own_address(from)) else {
        let text = "no boot URL for its BMC: this appliance has no address on a network of the rack".to_owned();
        return tell(&rack, id, text, Severity::Warning);
    };
    let port = match http_port {
        80 => String::new(),
        port => format!(":{port}"),
    };
    let url = format!("http://{ours}{port}/boot/v1/loader.efi");
    let set = rack.boot_once(id, BootTarget::Http, Some(url)).await;
    let done = match set {
        Ok(_) => {
            let off = node.power == PowerState::Off;
            let action = if off { PowerAction::On } else { PowerAction::Reset };
            rack.power(id, action, BY).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = done {
        let text = format!("its firmware could not be given our boot URL: {error}");
        tell(&rack, id, text, Severity::Warning);
    }
}

fn tell(rack: &Rack, id: NodeId, text: String, severity: Severity) {
    rack.tell(Some(id), EventKind::Note { text, severity });
}
