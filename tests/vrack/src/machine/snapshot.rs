//! Saving a running machine and continuing from there: a machine that takes ten seconds to boot is back in a third of
//! a second. The saved state holds memory, devices, disks and firmware variables. QEMU 7.2 cannot save an NVMe
//! controller or a TPM; machines to be saved have virtio or SATA disks.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use serde_json::{Value, json};

use super::Machine;
use crate::seat::{MachinePower, PowerAction};

/// Saving 1 GiB of a guest takes a few seconds; a busy disk gets more.
const SAVED_WITHIN: Duration = Duration::from_secs(300);

/// A saved machine: a directory.
#[derive(Clone, Debug)]
pub struct Snapshot {
    directory: PathBuf,
}

impl Snapshot {
    /// A snapshot taken earlier.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    fn memory(&self) -> PathBuf {
        self.directory.join("memory")
    }

    /// Copies the machine's files into the snapshot, or back.
    fn copy(&self, machine: &Machine, restore: bool) -> io::Result<()> {
        let config = machine.config();
        let disks = config
            .disks
            .iter()
            .enumerate()
            .map(|(at, disk)| (disk.image.clone(), format!("disk{at}")));
        let vars = config
            .firmware
            .is_uefi()
            .then(|| (config.path("vars"), "vars".to_owned()));
        for (file, name) in disks.chain(vars) {
            let saved = self.directory.join(name);
            let (from, to) = if restore { (&saved, &file) } else { (&file, &saved) };
            sparse_copy(from, to)?;
        }
        Ok(())
    }
}

impl Machine {
    /// Saves the running machine into `directory` and ends it.
    ///
    /// # Errors
    /// When it is off, QEMU refuses (some devices cannot be saved), or the disk is full.
    pub async fn save(&self, directory: &Path) -> io::Result<Snapshot> {
        let qmp = self
            .qmp()
            .await
            .ok_or_else(|| io::Error::other("a machine that is off has no state to save"))?;
        std::fs::create_dir_all(directory)?;
        let snapshot = Snapshot::at(directory);
        qmp.stop().await?;
        let to = format!("exec:cat > '{}'", snapshot.memory().display());
        // Unlimited: the default of 128 MiB/s is meant for networks.
        qmp.execute("migrate-set-parameters", json!({ "max-bandwidth": 0 }))
            .await?;
        qmp.execute("migrate", json!({ "uri": to })).await?;
        let saved = async {
            loop {
                let answer = qmp.execute("query-migrate", json!({})).await?;
                match answer.get("status").and_then(Value::as_str) {
                    Some("completed") => return Ok(()),
                    Some("failed" | "cancelled") => {
                        return Err(io::Error::other(format!("QEMU could not save its state: {answer}")));
                    }
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        tokio::time::timeout(SAVED_WITHIN, saved)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.act(PowerAction::ForceOff).await?;
        snapshot.copy(self, false)?;
        Ok(snapshot)
    }

    /// Continues from a snapshot of a machine with the same configuration; a running one is ended first.
    ///
    /// # Errors
    /// When a file is missing or QEMU does not accept the state.
    pub async fn restore(&self, snapshot: &Snapshot) -> io::Result<()> {
        self.act(PowerAction::ForceOff).await?;
        snapshot.copy(self, true)?;
        self.start(Some(&snapshot.memory())).await?;
        let qmp = self
            .qmp()
            .await
            .ok_or_else(|| io::Error::other("QEMU ended while it read the saved state"))?;
        let loaded = async {
            while qmp.status().await? == "inmigrate" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok::<_, io::Error>(())
        };
        tokio::time::timeout(SAVED_WITHIN, loaded)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        qmp.cont().await
    }
}

/// Copies only what a file holds: disk images here are mostly holes.
///
/// # Errors
/// When a file cannot be read or written.
pub fn sparse_copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", from.display())))?;
    let mut target = File::create(to)?;
    target.set_len(source.metadata()?.len())?;
    let mut at = 0;
    loop {
        let start = match lseek(&source, at, Whence::SeekData) {
            Ok(start) => start,
            // ENXIO: no data from here to the end.
            Err(Errno::ENXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        at = lseek(&source, start, Whence::SeekHole)?;
        let place = |offset: i64| u64::try_from(offset).map(SeekFrom::Start).map_err(io::Error::other);
        source.seek(place(start)?)?;
        target.seek(place(start)?)?;
        let length = u64::try_from(at - start).map_err(io::Error::other)?;
        io::copy(&mut (&source).take(length), &mut target)?;
    }
}
