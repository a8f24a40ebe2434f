//! The appliance's boot medium: its ESP at `/esp` (read-only), its data partition at `/data`.
//!
//! A medium is a disk whose GPT names both `rackbar-esp` and `rackbar-data`, or only the first (the ISO on a stick).
//! When two disks answer to that, the one the loader names (`LoaderDevicePartUUID`) or the kernel argument
//! `rackbar.disk=<disk GUID>` decides; else none is touched, in words.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nix::mount::MsFlags;
use rackbar_hardware::Root;
use rackbar_hardware::cmdline::Arguments;

use crate::report::say;
use crate::{gpt, grow, mounts, sys};

/// Names in the partition table.
pub(crate) const ESP: &str = "rackbar-esp";
pub(crate) const DATA: &str = "rackbar-data";

/// For a medium the firmware says it booted from: USB sticks behind a slow hub take 10 s and more.
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
    esp: String,
    esp_guid: [u8; 16],
    /// The first copy of its table is good.
    whole: bool,
    /// Kernel name of the data partition; empty when there is none.
    pub(crate) data: String,
}

impl Medium {
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
    let esp = partitions.iter().find(|p| p.name == ESP)?;
    let data = partitions.iter().find(|p| p.name == DATA);
    Some(Medium {
        disk: name.to_owned(),
        guid: found.table.disk_guid().to_vec(),
        sector,
        sectors,
        esp: partition_name(name, esp.number),
        esp_guid: esp.guid,
        whole: found.primary,
        data: data.map(|data| partition_name(name, data.number)).unwrap_or_default(),
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
            sys::reread_partitions(&disk)
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

/// Text of a GUID as it stands in a table.
fn guid_text(bytes: &[u8]) -> String {
    let order = [3usize, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::new();
    for (position, index) in order.into_iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", bytes.get(index).copied().unwrap_or(0)));
    }
    text
}

/// What tells several media apart.
struct Hints {
    /// Partition the loader was started from (Boot Loader Interface; UTF-16 behind four bytes of attributes).
    partition: Option<String>,
    disk: Option<String>,
}

impl Hints {
    fn read(root: &Root, arguments: &Arguments) -> Self {
        let file = "sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
        let text = root.bytes(file).map(|bytes| {
            let units = bytes
                .get(4..)
                .unwrap_or_default()
                .chunks_exact(2)
                .map(|u| u16::from_le_bytes([u[0], u[1]]));
            String::from_utf16_lossy(&units.take_while(|u| *u != 0).collect::<Vec<_>>()).to_lowercase()
        });
        Self {
            partition: text,
            disk: arguments.value("rackbar.disk").map(str::to_lowercase),
        }
    }

    /// The medium to use, or why none.
    fn choose(&self, mut media: Vec<Medium>) -> Result<Medium, String> {
        if let Some(guid) = &self.disk {
            media.retain(|medium| guid_text(&medium.guid) == *guid);
        } else if let Some(partition) = &self.partition {
            let named = |medium: &Medium| guid_text(&medium.esp_guid) == *partition;
            if media.iter().any(named) {
                media.retain(named);
            }
        }
        let names: Vec<&str> = media.iter().map(|medium| medium.disk.as_str()).collect();
        match names.len() {
            0 => Err("no disk with Rackbar's partitions was found".to_owned()),
            1 => media.pop().ok_or_else(String::new),
            _ => Err(format!(
                "several disks carry Rackbar's partitions ({}) and nothing tells which one is ours; \
                 unplug the others, or name it with the kernel argument rackbar.disk=<disk GUID>",
                names.join(", ")
            )),
        }
    }
}

/// Waits for the medium, mounts it, grows it. Without one `/data` is memory.
pub(crate) fn mount_all(arguments: &Arguments, blocks: &Receiver<String>) {
    let root = Root::default();
    let hints = Hints::read(&root, arguments);
    if arguments.value("rackbar.medium") == Some("none") {
        return volatile("the kernel argument rackbar.medium=none says so");
    }
    let medium = match wait(&root, &hints, blocks) {
        Ok(medium) => medium,
        Err(why) => return volatile(&why),
    };
    say!("boot medium is {} ({})", medium.disk, guid_text(&medium.guid));
    let flags = SAFE | MsFlags::MS_RDONLY;
    // The file system on the stick is edited by people; their secrets in rackbar.toml are for root only.
    if let Err(error) = mounts::one(&format!("/dev/{}", medium.esp), "/esp", "vfat", flags, "umask=0077") {
        say!("/esp cannot be mounted, so rackbar.toml is not read: {error}");
    }
    if medium.data.is_empty() {
        return volatile(&format!("{} has no partition {DATA}", medium.disk));
    }
    if let Err(why) = grow::partition(&medium) {
        say!("{}: the data partition was not enlarged: {why}", medium.disk);
    }
    let options = "errors=remount-ro";
    if let Err(error) = mounts::one(&format!("/dev/{}", medium.data), "/data", "ext4", SAFE, options) {
        return volatile(&format!("{} cannot be mounted: {error}", medium.data));
    }
    say!("/data is on {}", medium.data);
    if let Err(why) = grow::file_system(&medium) {
        say!("/data was not enlarged: {why}");
    }
    if let Ok(folder) = File::open("/data") {
        let _ = nix::unistd::fsync(folder.as_fd());
    }
}

/// Looks at all disks whenever one appears.
fn wait(root: &Root, hints: &Hints, blocks: &Receiver<String>) -> Result<Medium, String> {
    let begun = Instant::now();
    let known = hints.partition.is_some() || hints.disk.is_some();
    loop {
        let media: Vec<Medium> = root
            .names("sys/block")
            .iter()
            .filter_map(|name| examine(root, name))
            .collect();
        let ready = |medium: &Medium| root.exists(format!("dev/{}", medium.esp));
        let chosen = hints.choose(media);
        if chosen.as_ref().is_ok_and(ready) {
            return chosen;
        }
        if let Ok(medium) = &chosen
            && !medium.whole
        {
            repair(medium)?;
        }
        let patience = if known {
            PATIENCE_KNOWN.saturating_sub(begun.elapsed())
        } else {
            QUIET
        };
        if blocks.recv_timeout(patience).is_err() {
            return chosen.and(Err("its partitions did not appear".to_owned()));
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

    fn medium(disk: &str, guid: u8) -> Medium {
        Medium {
            disk: disk.into(),
            guid: vec![guid; 16],
            sector: 512,
            sectors: 1,
            esp: String::new(),
            esp_guid: [guid ^ 0xff; 16],
            whole: true,
            data: String::new(),
        }
    }

    #[test]
    fn partitions_are_named_as_the_kernel_names_them() {
        assert_eq!(partition_name("sda", 2), "sda2");
        assert_eq!(partition_name("nvme0n1", 2), "nvme0n1p2");
    }

    #[test]
    fn of_two_media_none_is_taken_unless_something_tells_which() {
        let both = || vec![medium("sda", 1), medium("sdb", 2)];
        let hints = |partition: Option<u8>, disk: Option<u8>| Hints {
            partition: partition.map(|b| guid_text(&[b; 16])),
            disk: disk.map(|b| guid_text(&[b; 16])),
        };
        let chosen = |hints: Hints, media| hints.choose(media).map(|m| m.disk);
        assert!(chosen(hints(None, None), both()).unwrap_err().contains("sda, sdb"));
        assert_eq!(chosen(hints(Some(2 ^ 0xff), None), both()), Ok("sdb".into()));
        assert_eq!(chosen(hints(None, Some(1)), both()), Ok("sda".into()));
        assert!(chosen(hints(None, Some(9)), both()).is_err());
        assert_eq!(chosen(hints(None, None), vec![medium("sda", 1)]), Ok("sda".into()));
        assert!(chosen(hints(None, None), vec![]).is_err());
    }
}
