//! What a person asks of a machine's BMC beside its power: what it sees of the hardware, virtual media, the next boot.

use std::net::IpAddr;
use std::sync::Arc;

use rackbar_devices::{BootOverride, BootTarget, LogLine, MediaDrive, Sensor};
use rackbar_model::{EventKind, Node, NodeId, Severity};

use crate::bmc::{Answer, BmcDoor, BootFrom, Told, bmc_mac};
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

    /// The virtual drives of a machine's BMC, and what is in them.
    ///
    /// # Errors
    /// As [`Self::sensors`].
    pub async fn virtual_media(&self, id: NodeId) -> Result<Vec<MediaDrive>, PowerError> {
        let bmc = self.bmc_of(id)?;
        bmc.asked("its virtual media", bmc.door.media(bmc.address)).await
    }

    /// Puts the image at a URL into a machine's virtual CD drive, or takes out what is in, and gives the drives as they
    /// are afterwards.
    ///
    /// # Errors
    /// As [`Self::sensors`].
    pub async fn set_virtual_media(&self, id: NodeId, image: Option<&str>) -> Result<Vec<MediaDrive>, PowerError> {
        let bmc = self.bmc_of(id)?;
        let (asked, told) = match image {
            Some(url) => (
                "an image in its virtual drive",
                format!("virtual CD drive: {url} is in"),
            ),
            None => ("an empty virtual drive", "virtual CD drive: empty".to_owned()),
        };
        bmc.asked(asked, bmc.door.set_media(bmc.address, image)).await?;
        self.tell(Some(id), note(told));
        bmc.asked("its virtual media", bmc.door.media(bmc.address)).await
    }

    /// Where a machine's next boot comes from, as its BMC says.
    ///
    /// # Errors
    /// As [`Self::sensors`].
    pub async fn boot_override(&self, id: NodeId) -> Result<BootOverride, PowerError> {
        let bmc = self.bmc_of(id)?;
        bmc.asked("its boot override", bmc.door.boot_override(bmc.address))
            .await
    }

    /// Has a machine's next boot come from elsewhere, once, and gives what its BMC then says.
    ///
    /// # Errors
    /// As [`Self::sensors`].
    pub async fn boot_once(
        &self,
        id: NodeId,
        target: BootTarget,
        url: Option<String>,
    ) -> Result<BootOverride, PowerError> {
        let bmc = self.bmc_of(id)?;
        let mode = bmc.node.inventory.as_ref().and_then(|seen| seen.firmware.mode);
        let asked = format!("a boot from {target}");
        let told = match (&url, &target) {
            (Some(url), _) => format!("its next boot is to fetch {url}"),
            (None, BootTarget::Default) => "its next boot follows its own boot order".to_owned(),
            (None, target) => format!("its next boot is to come from {target}"),
        };
        let from = BootFrom { target, url, mode };
        bmc.asked(&asked, bmc.door.boot_once(bmc.address, &from)).await?;
        self.tell(Some(id), note(told));
        bmc.asked("its boot override", bmc.door.boot_override(bmc.address))
            .await
    }
}

/// A line in the machine's timeline.
const fn note(text: String) -> EventKind {
    EventKind::Note {
        text,
        severity: Severity::Info,
    }
}
