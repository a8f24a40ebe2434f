//! Working a machine's power: through its BMC, and where that is not known or silent, through its agent.
//!
//! The agent is the second choice: it can only end the system it runs in, and what it ended it cannot switch on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rackbar_messages::{Ask, ToAgent};
use rackbar_model::{EventKind, Node, NodeId, PowerAction, PowerState};
use tokio::sync::oneshot;

use crate::bmc::{BmcError, bmc_mac};
use crate::jobs::AskError;
use crate::rack::locked;
use crate::record::AgentLink;
use crate::{PowerError, Rack};

/// Time for an agent's answer; it sends it before it acts.
const ANSWER: Duration = Duration::from_secs(10);

/// Who carried out a power action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerWay {
    /// The BMC.
    Bmc,
    /// The agent on the machine: it shuts its own system down, or restarts it.
    Agent,
}

/// Asks of an agent that wait for their answer.
#[derive(Default)]
pub(crate) struct Asks {
    last: AtomicU32,
    waiting: Mutex<HashMap<u32, oneshot::Sender<Result<(), String>>>>,
}

impl Asks {
    /// Hands an answer to who waits for it; gives it back when nobody does.
    pub(crate) fn answered(&self, id: u32, result: Result<(), String>) -> Option<Result<(), String>> {
        match locked(&self.waiting).remove(&id) {
            Some(waiting) => waiting.send(result).err(),
            None => Some(result),
        }
    }

    /// The connection ended: nobody will answer.
    pub(crate) fn end(&self) {
        locked(&self.waiting).clear();
    }
}

impl AgentLink {
    async fn ask(&self, ask: Ask) -> Result<(), String> {
        self.try_ask(ask).await.map_err(|error| match error {
            AskError::Gone => format!(
                "its connection ended before it answered, or it did not answer within {} s",
                ANSWER.as_secs()
            ),
            AskError::Refused(reason) => reason,
        })
    }

    /// Asks and waits for the answer.
    pub(crate) async fn try_ask(&self, ask: Ask) -> Result<(), AskError> {
        // 0 is for asks that nobody waits for.
        let id = self.asks.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
        let (answer, answered) = oneshot::channel();
        locked(&self.asks.waiting).insert(id, answer);
        let asked = async {
            let sent = self.send.send(ToAgent::Ask { id, ask }).await;
            sent.map_err(|_| AskError::Gone)?;
            answered.await.map_err(|_| AskError::Gone)?.map_err(AskError::Refused)
        };
        let result = tokio::time::timeout(ANSWER, asked).await;
        locked(&self.asks.waiting).remove(&id);
        result.unwrap_or(Err(AskError::Gone))
    }
}

/// Carries out a power action and looks at the result.
pub(crate) async fn power(rack: &Rack, id: NodeId, action: PowerAction, by: &str) -> Result<PowerWay, PowerError> {
    let node = rack.with(|mind, _| mind.node(id)).ok_or(PowerError::NoSuchNode(id))?;
    let Some(address) = node.bmc_address.filter(|_| rack.inner.door.get().is_some()) else {
        let none = PowerError::NoBmc(node.name.clone());
        return by_agent(rack, &node, action, by, "no BMC of it is known", none).await;
    };
    match by_bmc(rack, &node, address, action, by).await {
        Ok(()) => Ok(PowerWay::Bmc),
        Err(error @ BmcError::Silent(_)) => {
            let failed = PowerError::of(&node.name, address, asked(action), error);
            by_agent(rack, &node, action, by, "its BMC does not answer", failed).await
        }
        Err(error) => Err(PowerError::of(&node.name, address, asked(action), error)),
    }
}

/// What the BMC says of a machine's power, now; `None` without a BMC that answers.
pub(crate) async fn power_now(rack: &Rack, id: NodeId) -> Option<PowerState> {
    let node = rack.with(|mind, _| mind.node(id))?;
    let power = rack.inner.door.get()?.power(node.bmc_address?).await.ok()?;
    rack.with(|mind, now| mind.power_seen(now, id, power));
    Some(power)
}

async fn by_bmc(rack: &Rack, node: &Node, address: IpAddr, action: PowerAction, by: &str) -> Result<(), BmcError> {
    let Some(door) = rack.inner.door.get() else {
        return Err(BmcError::Silent("BMCs are not watched yet".into()));
    };
    if let Some(mac) = bmc_mac(node) {
        door.introduce(address, mac);
    }
    requested(rack, node, word(action).into(), by);
    let mode = node.inventory.as_ref().and_then(|seen| seen.firmware.mode);
    let done = match action {
        PowerAction::Netboot => door.netboot(address, mode).await,
        other => door.act(address, other).await,
    };
    if let Err(error) = &done {
        let reason = format!("{}: {error}", asked(action));
        rack.with(|mind, now| mind.emit(now, Some(node.id), None, EventKind::BmcFailed { address, reason }));
    } else if let Ok(power) = door.power(address).await {
        // What we ordered is not what is: only the BMC's own word changes the view.
        rack.with(|mind, now| mind.power_seen(now, node.id, power));
    }
    done
}

/// The agent's way, where there is one; else `otherwise`.
async fn by_agent(
    rack: &Rack,
    node: &Node,
    action: PowerAction,
    by: &str,
    why: &str,
    otherwise: PowerError,
) -> Result<PowerWay, PowerError> {
    let ask = match action {
        PowerAction::Off | PowerAction::Shutdown => Ask::PowerOff,
        PowerAction::Reset => Ask::Reboot,
        // A machine that runs our agent is on; the other two need somebody who stays when it is off.
        PowerAction::On | PowerAction::Cycle | PowerAction::Netboot => return Err(otherwise),
    };
    let agent = rack.with(|mind, _| mind.record(node.id).and_then(|record| record.agent.clone()));
    let Some(agent) = agent else { return Err(otherwise) };
    requested(rack, node, format!("{} through its agent, as {why}", word(action)), by);
    agent.ask(ask).await.map_err(|reason| PowerError::Agent {
        name: node.name.clone(),
        reason,
    })?;
    Ok(PowerWay::Agent)
}

fn asked(action: PowerAction) -> String {
    format!("power {}", word(action))
}

fn requested(rack: &Rack, node: &Node, action: String, by: &str) {
    let kind = EventKind::PowerRequested { action, by: by.into() };
    rack.with(|mind, now| mind.emit(now, Some(node.id), None, kind));
}

const fn word(action: PowerAction) -> &'static str {
    match action {
        PowerAction::On => "on",
        PowerAction::Off => "off",
        PowerAction::Shutdown => "shutdown",
        PowerAction::Cycle => "cycle",
        PowerAction::Reset => "reset",
        PowerAction::Netboot => "netboot",
    }
}
