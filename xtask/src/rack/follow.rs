//! Following a rack through the appliance's eyes: which node of the API is which machine, and where each one stands.

use std::time::{Duration, Instant};

use anyhow::Result;
use rackbar_model::{Node, NodeState};
use rackbar_scenarios::api::Api;
use rackbar_vrack::rack::Rack;
use rackbar_vrack::seat::{MachinePower, PowerAction, PowerState};

use super::view::View;

/// How often the API is asked.
const LOOK: Duration = Duration::from_millis(300);
/// How long the appliance has to find a BMC before a machine is switched on by hand.
const FIND_BMC: Duration = Duration::from_secs(60);

/// One machine of the rack and what became of it.
pub(super) struct Followed {
    /// Its name in the rack file.
    pub(super) name: String,
    /// What the appliance says of it.
    pub(super) node: Option<Node>,
    /// When it got power.
    pub(super) powered: Option<Instant>,
    /// When it was seen discovered.
    pub(super) discovered: Option<Instant>,
    asked: bool,
}

/// Times of the whole run.
#[derive(Default)]
pub(super) struct Timings {
    /// Power-on of the appliance until it served.
    pub(super) serving: Option<Duration>,
    /// Power-on of the appliance until the last machine was discovered.
    pub(super) discovered: Option<Duration>,
    /// Commit of the plan until the last machine was ready.
    pub(super) ready: Option<Duration>,
    /// Power-on of the appliance until the end.
    pub(super) all: Option<Duration>,
}

/// Switches every machine on, through its BMC by the appliance where there is one, and returns when all are discovered.
pub(super) async fn until_discovered(
    rack: &Rack,
    api: &Api,
    view: &mut View,
    followed: &mut Vec<Followed>,
) -> Result<()> {
    let start = Instant::now();
    followed.extend(rack.nodes().iter().map(|node| Followed {
        name: node.name.clone(),
        node: None,
        powered: None,
        discovered: None,
        asked: false,
    }));
    loop {
        match api.nodes().await {
            Ok(nodes) => {
                for machine in followed.iter_mut() {
                    step(rack, api, view, machine, &nodes, start).await?;
                }
            }
            // It may be restarting, or so busy that it answers late: the deadline is the judge.
            Err(error) => view.say("appliance", &format!("API: {error:#}")),
        }
        if followed.iter().all(|machine| machine.discovered.is_some()) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn step(
    rack: &Rack,
    api: &Api,
    view: &mut View,
    followed: &mut Followed,
    nodes: &[Node],
    start: Instant,
) -> Result<()> {
    let Some(machine) = rack.node(&followed.name) else {
        return Ok(());
    };
    let bmc = machine
        .bmc
        .as_ref()
        .and_then(|host| host.bound())
        .map(|bound| bound.address);
    let is_it = |node: &&Node| {
        node.macs.iter().any(|mac| machine.macs.contains(mac))
            || bmc.is_some_and(|bmc| node.bmc_address == Some(bmc.into()))
    };
    if let Some(node) = nodes.iter().find(is_it) {
        followed.node = Some(node.clone());
    }
    if followed.powered.is_none() && machine.machine.state() == PowerState::On {
        followed.powered = Some(Instant::now());
    }
    if !followed.asked {
        followed.asked = switch_on(api, view, machine, followed.node.as_ref(), start).await?;
        return Ok(());
    }
    let Some(node) = &followed.node else {
        view.say(&followed.name, "on, not seen yet");
        return Ok(());
    };
    if has_been_discovered(&node.state) {
        if followed.discovered.is_none() {
            followed.discovered = Some(Instant::now());
            machine.machine.booted();
            view.done(&followed.name, &format!("discovered as {}", node.name));
        }
    } else {
        view.say(&followed.name, &format!("{}: {}", node.state.name(), node.verdict));
    }
    Ok(())
}

/// Asks the appliance to switch a machine on; a machine without a BMC, or one whose BMC is not found in time, gets its
/// button pressed. True when that was done.
async fn switch_on(
    api: &Api,
    view: &mut View,
    machine: &rackbar_vrack::rack::Node,
    node: Option<&Node>,
    start: Instant,
) -> Result<bool> {
    let reachable = node.filter(|node| node.bmc_address.is_some());
    if let Some(node) = reachable {
        match api.power(node.id, "on").await {
            Ok(()) => {
                view.say(&machine.name, "switched on through its BMC");
                return Ok(true);
            }
            Err(error) => view.say(&machine.name, &format!("BMC: {error:#}")),
        }
    }
    if machine.bmc.is_none() {
        view.say(&machine.name, "has no BMC: switched on by hand");
    } else if start.elapsed() > FIND_BMC {
        view.say(
            &machine.name,
            "WARNING: could not be switched on through its BMC: switched on by hand",
        );
    } else {
        if reachable.is_none() {
            view.say(&machine.name, "off; the appliance looks for its BMC");
        }
        return Ok(false);
    }
    machine.machine.act(PowerAction::On).await?;
    Ok(true)
}

/// True from `Discovered` on.
fn has_been_discovered(state: &NodeState) -> bool {
    !matches!(
        state,
        NodeState::Enrolled | NodeState::Inspecting | NodeState::Failed(_)
    )
}
