//! Drive bays and a USB socket: a disk or a stick that comes and goes while the machine runs.

use std::fs::File;
use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::{Disk, Machine};

/// The kernel waits 5 s after the button of a bay, so that a person may change their mind (PCIe base specification,
/// 6.7.1.5), and an emulated one takes its time.
const PULLED: Duration = Duration::from_secs(120);

/// Where a running machine takes a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// An empty drive bay, by its number, for an NVMe disk.
    Bay(u8),
    /// A USB socket, for a stick.
    Usb,
}

impl Slot {
    /// QEMU's name for what is in it.
    fn device(self) -> String {
        match self {
            Self::Bay(bay) => format!("bay{bay}disk"),
            Self::Usb => "stick".into(),
        }
    }

    /// QEMU's name for what lies on that.
    fn medium(self) -> String {
        format!("in-{}", self.device())
    }

    /// The device to add, with what is on it.
    fn plugged(self, serial: &str) -> Value {
        let (driver, bus) = match self {
            Self::Bay(bay) => ("nvme", format!("bay{bay}")),
            Self::Usb => ("usb-storage", "usb.0".into()),
        };
        let mut plugged = json!({
            "driver": driver, "id": self.device(), "bus": bus, "drive": self.medium(), "serial": serial,
        });
        if self == Self::Usb {
            plugged["removable"] = true.into();
        }
        plugged
    }
}

impl Machine {
    /// Puts a disk into an empty slot of the running machine. Switched off and on it is empty again.
    ///
    /// # Errors
    /// When the machine is off, has no such slot, or it is taken.
    pub async fn plug_in(&self, slot: Slot, disk: &Disk) -> io::Result<()> {
        let qmp = self.qmp().await.ok_or_else(|| io::Error::other("the machine is off"))?;
        if !disk.image.exists() {
            File::create(&disk.image)?.set_len(disk.size)?;
        }
        let medium = slot.medium();
        let file = json!({ "driver": "file", "filename": disk.image });
        let drive = json!({ "driver": "raw", "node-name": medium, "file": file });
        qmp.execute("blockdev-add", drive).await?;
        if let Err(refused) = qmp.execute("device_add", slot.plugged(&disk.serial)).await {
            qmp.execute("blockdev-del", json!({ "node-name": medium })).await?;
            return Err(refused);
        }
        Ok(())
    }

    /// Takes the disk out: of a bay once its button is pressed and the machine let go of it, of a USB socket at once.
    ///
    /// # Errors
    /// When the slot is empty, or the machine does not let go.
    pub async fn pull(&self, slot: Slot) -> io::Result<()> {
        let qmp = self.qmp().await.ok_or_else(|| io::Error::other("the machine is off"))?;
        let mut events = qmp.events();
        qmp.execute("device_del", json!({ "id": slot.device() })).await?;
        let let_go = async {
            loop {
                match events.recv().await {
                    Ok(event) if event.name == "DEVICE_DELETED" => {
                        if event.data.get("device").and_then(Value::as_str) == Some(&slot.device()) {
                            return Ok(());
                        }
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Err(io::Error::other("QEMU ended while a bay was emptied")),
                }
            }
        };
        let waited = tokio::time::timeout(PULLED, let_go).await;
        waited.map_err(|_| io::Error::other(format!("the machine does not let go of {}", slot.device())))??;
        qmp.execute("blockdev-del", json!({ "node-name": slot.medium() }))
            .await
            .map(drop)
    }
}
