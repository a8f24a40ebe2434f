//! The appliance's boot medium at `/esp` (read-only), its data partition at `/data`.
//!
//! | medium | known by | `/esp` | `/data` |
//! |---|---|---|---|
//! | disk or stick | GPT with `rackbar-esp` and `rackbar-data` | its ESP | its data partition, grown to the end |
//! | ISO on a stick | GPT with `rackbar-esp` alone | its ESP | another disk's `rackbar-data`, never grown |
//! | ISO as a CD | ISO 9660 volume `RACKBAR` | that volume | the same |
//! | none (iPXE) | no medium of ours appears | nothing | the same |
//!
//! The loader says what the firmware started (`LoaderInfo`, `LoaderDevicePartUUID`); that is waited for. Otherwise an
//! ISO goes before an installed disk: somebody has just put it in. When it brings no `rackbar.toml`, the one of the
//! disk that has the state is read. Of several disks the kernel argument `rackbar.disk=<disk GUID>` names the one for
//! the state; when nothing tells which medium is ours, none is touched, in words.

mod choice;
mod disc;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, umount};
use rackbar_hardware::cmdline::Arguments;
use rackbar_hardware::{Root, block, gpt};

use crate::report::say;
use crate::{grow, mounts};
use choice::{Choice, Hints, Volume};

/// Names in the partition table.
pub(crate) const ESP: &str = "rackbar-esp";
pub(crate) const DATA: &str = "rackbar-data";

/// For the medium the firmware has booted from: USB sticks behind a slow hub take 10 s and more.
const PATIENCE_KNOWN: Duration = Duration::from_secs(45);

/// Otherwise, since the last block device appeared: the appliance may have been booted over the network.
const QUIET: Duration = Duration::from_secs(4);

const SAFE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// A disk that carries our partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Medium {
    /// Kernel name of the disk.
    pub(crate) disk: String,
    pub(crate) guid: Vec<u8>,
    pub(crate) sector: u64,
    pub(crate) sectors: u64,
    /// Kernel name of the ESP; empty when there is none.
    esp: String,
    esp_guid: [u8; 16],
    /// The first copy of its table is good.
    whole: bool,
    /// Kernel name of the data partition; empty when there is none.
    pub(crate) data: String,
}

impl Medium {
    /// It carries both partitions: we made its table, and may write it.
    fn is_ours(&self) -> bool {
        !self.esp.is_empty() && !self.data.is_empty()
    }

    /// The kernel shows the partitions that its table names.
    fn is_ready(&self, root: &Root) -> bool {
        let shown = |name: &String| name.is_empty() || root.exists(format!("dev/{name}"));
        shown(&self.esp) && shown(&self.data)
    }

    /// Size of the data partition as the kernel sees it.
    pub(crate) fn partition_bytes(&self) -> Option<u64> {
        let sectors: u64 = Root::default().number(format!("sys/class/block/{}/size", self.data))?;
        Some(sectors.saturating_mul(512))
    }
}

/// `sda` and 2 make `sda2`; names that end in a digit put a `p` between.
fn partition_name(disk: &str, number: u32) -> String {
    let infix = if disk.ends_with(|c: char| c.is_ascii_digit()) {
        "p"
    } else {
        ""
    };
    format!("{disk}{infix}{number}")
}

/// Looks at one disk.
fn examine(root: &Root, name: &str) -> Option<Medium> {
    let sector: u64 = root.number(format!("sys/block/{name}/queue/logical_block_size"))?;
    let bytes = root.number::<u64>(format!("sys/block/{name}/size"))?.checked_mul(512)?;
    let sectors = bytes.checked_div(sector)?;
    let disk = File::open(root.path(format!("dev/{name}"))).ok()?;
    let found = gpt::find(&disk, sector, sectors)?;
    let partitions = found.table.partitions();
    let esp = partitions.iter().find(|p| p.name == ESP);
    let data = partitions.iter().find(|p| p.name == DATA);
    esp.or(data)?;
    let kernel_name = |p: &gpt::Partition| partition_name(name, p.number);
    Some(Medium {
        disk: name.to_owned(),
        guid: found.table.disk_guid().to_vec(),
        sector,
        sectors,
        esp: esp.map(kernel_name).unwrap_or_default(),
        esp_guid: esp.map(|esp| esp.guid).unwrap_or_default(),
        whole: found.primary,
        data: data.map(kernel_name).unwrap_or_default(),
    })
}

/// Writes the first copy of our medium's table again after a power cut. The kernel reads only that one and shows no
/// partitions without it.
fn repair(medium: &Medium) -> Result<(), String> {
    let result = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/dev/{}", medium.disk))
        .and_then(|disk| {
            let found = gpt::find(&disk, medium.sector, medium.sectors).ok_or(std::io::ErrorKind::InvalidData)?;
            found.table.write(&disk, medium.sectors)?;
            block::reread_partitions(&disk)
        });
    result.map_err(|error| {
        format!(
            "the partition table of {} is damaged and cannot be repaired: {error}",
            medium.disk
        )
    })?;
    say!("{}: the partition table was repaired from its second copy", medium.disk);
    Ok(())
}

/// Waits for the medium, mounts it, grows it. Without one `/data` is memory.
pub(crate) fn mount_all(arguments: &Arguments, blocks: &Receiver<String>) {
    let root = Root::default();
    let hints = Hints::read(&root, arguments);
    if arguments.value("rackbar.medium") == Some("none") {
        return volatile("the kernel argument rackbar.medium=none says so");
    }
    let Choice { boot, state } = match wait(&root, &hints, blocks) {
        Ok(choice) => choice,
        Err(why) => return volatile(&why),
    };
    match &boot {
        Some(boot) => {
            say!("boot medium is {boot}");
            mount_boot(boot);
        }
        None => say!("there is no boot medium: this appliance came over the network"),
    }
    match state {
        Ok(medium) => {
            if boot != Some(Volume::Esp(medium.clone())) {
                say!("the state is kept on {}, not on the boot medium", medium.disk);
                lend_configuration(&medium);
            }
            mount_state(&medium);
        }
        Err(why) => volatile(&why),
    }
}

/// Mounts the boot medium at `/esp`. People edit `rackbar.toml`; the secrets in it are for root only.
fn mount_boot(boot: &Volume) {
    let (device, kind, options) = match boot {
        Volume::Esp(medium) => (&medium.esp, "vfat", "umask=0077"),
        // Its names are upper case and end in `;1`; map=normal is what makes `rackbar.toml` of them.
        Volume::Disc(drive) => (drive, "iso9660", "mode=0400,dmode=0500,map=normal"),
    };
    let flags = SAFE | MsFlags::MS_RDONLY;
    if let Err(error) = mounts::one(&format!("/dev/{device}"), "/esp", kind, flags, options) {
        say!("/esp cannot be mounted from {device}, so rackbar.toml is not read: {error}");
    }
}

/// An ISO as it is downloaded has no `rackbar.toml`; the installed disk whose state is used may have one.
fn lend_configuration(medium: &Medium) {
    if medium.esp.is_empty() || fs::exists("/esp/rackbar.toml").unwrap_or(false) {
        return;
    }
    say!("rackbar.toml is read from {}: the boot medium has none", medium.disk);
    // Not mounted, when the boot medium could not be.
    let _ = umount("/esp");
    mount_boot(&Volume::Esp(medium.clone()));
}

/// Mounts the data partition at `/data`, grown when the whole disk is ours.
fn mount_state(medium: &Medium) {
    if medium.is_ours()
        && let Err(why) = grow::partition(medium)
    {
        say!("{}: the data partition was not enlarged: {why}", medium.disk);
    }
    let options = "errors=remount-ro";
    if let Err(error) = mounts::one(&format!("/dev/{}", medium.data), "/data", "ext4", SAFE, options) {
        return volatile(&format!(
            "{} cannot be mounted as ext4 (a new partition wants mkfs.ext4 first): {error}",
            medium.data
        ));
    }
    say!("/data is on {}", medium.data);
    if medium.is_ours()
        && let Err(why) = grow::file_system(medium)
    {
        say!("/data was not enlarged: {why}");
    }
    if let Ok(folder) = File::open("/data") {
        let _ = nix::unistd::fsync(folder.as_fd());
    }
}

/// What is there now.
fn look(root: &Root, hints: &Hints) -> Result<Choice, String> {
    let (mut disks, mut discs) = (Vec::new(), Vec::new());
    for name in root.names("sys/block") {
        match examine(root, &name) {
            Some(medium) => disks.push(medium),
            None if disc::is_ours(&root.path(format!("dev/{name}"))) => discs.push(name),
            None => {}
        }
    }
    hints.choose(disks, discs)
}

/// Looks at all disks and discs whenever one appears.
fn wait(root: &Root, hints: &Hints, blocks: &Receiver<String>) -> Result<Choice, String> {
    let begun = Instant::now();
    loop {
        let choice = look(root, hints);
        let used = choice.iter().flat_map(Choice::disks);
        let late: Vec<&Medium> = used.filter(|medium| !medium.is_ready(root)).collect();
        let awaited = hints.is_awaited(&choice);
        if late.is_empty() && !awaited && choice.as_ref().is_ok_and(|choice| !hints.may_improve(choice)) {
            return choice;
        }
        if let Some(medium) = late.iter().find(|medium| !medium.whole && medium.is_ours()) {
            repair(medium)?;
        }
        let patience = if awaited {
            PATIENCE_KNOWN.saturating_sub(begun.elapsed())
        } else {
            QUIET
        };
        if blocks.recv_timeout(patience).is_err() {
            return match late.first() {
                Some(medium) => Err(format!("the partitions of {} did not appear", medium.disk)),
                None => choice,
            };
        }
        // A disk brings its partitions along; look once for all of them.
        while blocks.recv_timeout(Duration::from_millis(100)).is_ok() {}
    }
}

/// Puts `/data` into memory and says so.
fn volatile(why: &str) {
    say!("/data is in memory and will be lost at power-off: {why}");
    if let Err(error) = mounts::one("tmpfs", "/data", "tmpfs", SAFE, "mode=0700,size=50%") {
        say!("/data cannot even be put into memory: {error}");
    }
    if let Err(error) = fs::write(format!("{}/volatile", crate::RUN_FOLDER), format!("{why}\n")) {
        say!("cannot note that /data is in memory: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_as_the_kernel_names_them() {
        assert_eq!(partition_name("sda", 2), "sda2");
        assert_eq!(partition_name("nvme0n1", 2), "nvme0n1p2");
    }
}
