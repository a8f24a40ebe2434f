//! Drive bays: a disk that comes and goes while the machine runs.

use std::fs::File;
use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::{Disk, Machine};

/// The kernel waits 5 s after the button of a bay, so that a person may change their mind (PCIe base specification,
/// 6.7.1.5), and an emulated one takes its time.
const PULLED: Duration = Duration::from_secs(120);

impl Machine {
    /// Puts an NVMe disk into an empty bay of the running machine. Switched off and on it has an empty bay again.
    ///
    /// # Errors
    /// When the machine is off, has no such bay, or the bay is taken.
    pub async fn plug_in(&self, bay: u8, disk: &Disk) -> io::Result<()> {
        let qmp = self.qmp().await.ok_or_else(|| io::Error::other("the machine is off"))?;
        if !disk.image.exists() {
            File::create(&disk.image)?.set_len(disk.size)?;
        }
        let medium = medium(bay);
        let file = json!({ "driver": "file", "filename": disk.image });
        let drive = json!({ "driver": "raw", "node-name": medium, "file": file });
        qmp.execute("blockdev-add", drive).await?;
        let plugged = json!({
            "driver": "nvme", "id": device(bay), "bus": format!("bay{bay}"), "drive": medium, "serial": disk.serial,
        });
        if let Err(refused) = qmp.execute("device_add", plugged).await {
            qmp.execute("blockdev-del", json!({ "node-name": medium })).await?;
            return Err(refused);
        }
        Ok(())
    }

    /// Presses the button of a bay and takes the disk out once the machine let go of it.
    ///
    /// # Errors
    /// When the bay is empty, or the machine does not let go.
    pub async fn pull(&self, bay: u8) -> io::Result<()> {
        let qmp = self.qmp().await.ok_or_else(|| io::Error::other("the machine is off"))?;
        let mut events = qmp.events();
        qmp.execute("device_del", json!({ "id": device(bay) })).await?;
        let let_go = async {
            loop {
                match events.recv().await {
                    Ok(event) if event.name == "DEVICE_DELETED" => {
                        if event.data.get("device").and_then(Value::as_str) == Some(&device(bay)) {
                            return Ok(());
                        }
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Err(io::Error::other("QEMU ended while a bay was emptied")),
                }
            }
        };
        let waited = tokio::time::timeout(PULLED, let_go).await;
        waited.map_err(|_| io::Error::other(format!("the machine does not let go of the disk in bay {bay}")))??;
        qmp.execute("blockdev-del", json!({ "node-name": medium(bay) }))
            .await
            .map(drop)
    }
}

fn medium(bay: u8) -> String {
    format!("in-bay{bay}")
}

fn device(bay: u8) -> String {
    format!("bay{bay}disk")
}
