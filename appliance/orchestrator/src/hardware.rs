//! What a person asks of a machine's BMC beside its power: what it sees of the hardware.

use std::net::IpAddr;
use std::sync::Arc;

use rackbar_devices::{LogLine, Sensor};
use rackbar_model::{Node, NodeId};

use crate::bmc::{Answer, BmcDoor, Told, bmc_mac};
use crate::{PowerError, Rack};

/// A machine and the way to its BMC.
pub(crate) struct NodeBmc {
    pub(crate) node: Arc<Node>,
    pub(crate) address: IpAddr,
    pub(crate) door: Arc<dyn BmcDoor>,
}

impl NodeBmc {
    /// Waits for an answer; a failure says which machine and what it was asked for.
    pub(crate) async fn asked<T>(&self, action: &str, answer: Answer<'_, T>) -> Result<T, PowerError> {
        let answer = answer.await;
        answer.map_err(|error| PowerError::of(&self.node.name, self.address, action, error))
    }
}

impl Rack {
    /// The way to a machine's BMC.
    ///
    /// # Errors
    /// When the node or its BMC is not known.
    pub(crate) fn bmc_of(&self, id: NodeId) -> Result<NodeBmc, PowerError> {
        let node = self.with(|mind, _| mind.node(id)).ok_or(PowerError::NoSuchNode(id))?;
        let none = || PowerError::NoBmc(node.name.clone());
        let address = node.bmc_address.ok_or_else(none)?;
        let door = self.inner.door.get().cloned().ok_or_else(none)?;
        if let Some(mac) = bmc_mac(&node) {
            door.introduce(address, mac);
        }
        Ok(NodeBmc { node, address, door })
    }

    /// What the sensors of a machine read now, through its BMC.
    ///
    /// # Errors
    /// When the node or its BMC is not known, or the BMC did not tell.
    pub async fn sensors(&self, id: NodeId) -> Result<Told<Vec<Sensor>>, PowerError> {
        let bmc = self.bmc_of(id)?;
        bmc.asked("its sensors", bmc.door.sensors(bmc.address)).await
    }

    /// The newest `limit` lines of the event log that a machine's BMC keeps of its hardware, newest first.
    ///
    /// # Errors
    /// As [`Self::sensors`].
    pub async fn event_log(&self, id: NodeId, limit: usize) -> Result<Told<Vec<LogLine>>, PowerError> {
        let bmc = self.bmc_of(id)?;
        bmc.asked("its event log", bmc.door.event_log(bmc.address, limit)).await
    }
}
