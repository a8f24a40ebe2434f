//! From a disk's lasting name to the one device that has it now; and whether that one may be touched.

use std::path::PathBuf;

use rackbar_hardware::{Root, disks};
use rackbar_model::{Disk as DiskInfo, DiskRef};

use crate::control::refuse;
use crate::{Machine, Result};

/// A disk that was found.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    /// What is known of it.
    pub(crate) info: DiskInfo,
    /// Its device file.
    pub(crate) path: PathBuf,
}

/// True when every field that is given fits.
fn fits(wanted: &DiskRef, disk: &DiskInfo) -> bool {
    let same = |wanted: &Option<String>, has: &Option<String>| {
        wanted
            .as_ref()
            .is_none_or(|text| has.as_deref().is_some_and(|has| has.trim() == text.trim()))
    };
    same(&wanted.serial, &disk.serial)
        && same(&wanted.wwn, &disk.wwn)
        && same(&wanted.by_path, &disk.by_path)
        && wanted.size_bytes.is_none_or(|bytes| bytes == disk.size_bytes)
}

fn describe(disk: &DiskInfo) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    format!(
        "{} (serial {}, WWN {}, path {}, {} bytes)",
        disk.name,
        or_none(&disk.serial),
        or_none(&disk.wwn),
        or_none(&disk.by_path),
        disk.size_bytes
    )
}

fn choose(wanted: &DiskRef, disks: Vec<DiskInfo>) -> Result<DiskInfo> {
    if wanted.serial.is_none() && wanted.wwn.is_none() && wanted.by_path.is_none() {
        return Err(refuse(
            "the disk to work on has neither serial, WWN nor path, so it cannot be told from another",
            "name the disk in the site by serial, wwn or by_path",
        ));
    }
    let all: Vec<String> = disks.iter().map(describe).collect();
    let mut fitting: Vec<DiskInfo> = disks.into_iter().filter(|disk| fits(wanted, disk)).collect();
    match (fitting.pop(), fitting.is_empty()) {
        (Some(disk), true) => Ok(disk),
        (None, _) => Err(refuse(
            format!("no disk is {wanted} with the planned size; there are: {}", list(&all)),
            "look whether the disk was swapped or has failed, then plan again",
        )),
        (Some(last), false) => {
            fitting.push(last);
            let fitting: Vec<String> = fitting.iter().map(describe).collect();
            Err(refuse(
                format!("{} disks are {wanted}: {}", fitting.len(), list(&fitting)),
                "name one of them by its path as well",
            ))
        }
    }
}

fn list(words: &[String]) -> String {
    if words.is_empty() {
        "none".to_owned()
    } else {
        words.join("; ")
    }
}

/// The one disk that `wanted` names.
pub(crate) fn resolve(machine: &Machine, wanted: &DiskRef) -> Result<Chosen> {
    let info = choose(wanted, disks::read(&machine.root))?;
    let path = machine.root.path(format!("dev/{}", info.name));
    Ok(Chosen { info, path })
}

/// The kernel's name of partition `number`: `sda1`, but `nvme0n1p1`.
pub(crate) fn partition_name(disk: &str, number: u32) -> String {
    let separator = if disk.ends_with(|c: char| c.is_ascii_digit()) {
        "p"
    } else {
        ""
    };
    format!("{disk}{separator}{number}")
}

/// Names of the disk and its partitions.
fn family(root: &Root, disk: &str) -> Vec<String> {
    let parts = root.names(format!("sys/block/{disk}")).into_iter();
    let is_part = |name: &String| root.exists(format!("sys/block/{disk}/{name}/partition"));
    std::iter::once(disk.to_owned()).chain(parts.filter(is_part)).collect()
}

/// Who uses a disk: mounts, swap, arrays and maps on top of it, in words. Empty when nobody does.
pub(crate) fn users(root: &Root, disk: &str) -> Vec<String> {
    let mounts = root.text("proc/mounts").unwrap_or_default();
    let swaps = root.text("proc/swaps").unwrap_or_default();
    let mut users = Vec::new();
    for name in family(root, disk) {
        let device = format!("/dev/{name}");
        for line in mounts.lines() {
            let mut words = line.split(' ');
            if words.next() == Some(&device) {
                users.push(format!("{name} is mounted at {}", words.next().unwrap_or("?")));
            }
        }
        if swaps
            .lines()
            .any(|line| line.split_whitespace().next() == Some(&device))
        {
            users.push(format!("{name} is swap space"));
        }
        let holders = match name == disk {
            true => format!("sys/block/{name}/holders"),
            false => format!("sys/block/{disk}/{name}/holders"),
        };
        users.extend(
            root.names(holders)
                .iter()
                .map(|holder| format!("{name} is part of {holder}")),
        );
    }
    users
}

/// Stops the md arrays that hold a disk (they assemble nothing by themselves, but somebody may have), then refuses the
/// disk when it is still in use. Gives a line per array that was stopped.
pub(crate) fn release(machine: &Machine, disk: &Chosen) -> Result<Vec<String>> {
    let root = &machine.root;
    let mut steps = Vec::new();
    let arrays: Vec<String> = family(root, &disk.info.name)
        .iter()
        .flat_map(|name| {
            let whole = root.names(format!("sys/block/{name}/holders"));
            let part = root.names(format!("sys/block/{}/{name}/holders", disk.info.name));
            whole.into_iter().chain(part)
        })
        .filter(|holder| holder.starts_with("md"))
        .collect();
    for array in arrays {
        if root.exists(format!("sys/block/{array}")) && users(root, &array).is_empty() {
            crate::mirror::stop(&root.path(format!("dev/{array}")))
                .map_err(crate::control::io(format_args!("stopping the array {array}")))?;
            steps.push(format!("stopped the array {array}"));
        }
    }
    let users = users(root, &disk.info.name);
    if users.is_empty() {
        return Ok(steps);
    }
    Err(refuse(
        format!("{} is in use: {}", describe(&disk.info), users.join("; ")),
        "boot the machine again into the agent; if the disk is still in use then, report it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, serial: Option<&str>, bytes: u64) -> DiskInfo {
        DiskInfo {
            name: name.to_owned(),
            serial: serial.map(str::to_owned),
            size_bytes: bytes,
            ..DiskInfo::default()
        }
    }

    fn wanted(serial: &str, bytes: u64) -> DiskRef {
        DiskRef {
            serial: Some(serial.to_owned()),
            size_bytes: Some(bytes),
            ..DiskRef::default()
        }
    }

    #[test]
    fn exactly_one_disk_or_none() {
        let disks = || {
            vec![
                disk("sda", Some("A"), 10),
                disk("sdb", Some("B"), 10),
                disk("sdc", Some("B"), 20),
            ]
        };
        assert_eq!(choose(&wanted("A", 10), disks()).unwrap().name, "sda");
        assert_eq!(choose(&wanted("B", 20), disks()).unwrap().name, "sdc");
        let swapped = choose(&wanted("A", 11), disks()).unwrap_err();
        assert!(
            swapped.reason.contains("sda (serial A") && !swapped.again,
            "{swapped:?}"
        );
        let two = DiskRef {
            size_bytes: None,
            ..wanted("B", 0)
        };
        assert!(
            choose(&two, disks())
                .unwrap_err()
                .reason
                .starts_with("2 disks are serial B: sdb")
        );
        let nameless = choose(
            &DiskRef {
                size_bytes: Some(10),
                ..DiskRef::default()
            },
            disks(),
        )
        .unwrap_err();
        assert!(nameless.reason.contains("neither"));
    }

    #[test]
    fn a_disk_in_use_is_refused_by_name_of_its_user() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        for (path, text) in [
            ("sys/block/sda/sda1/partition", "1"),
            ("sys/block/sda/sda2/partition", "2"),
            ("sys/block/sda/sda2/holders/dm-0", ""),
            (
                "proc/mounts",
                "/dev/sda1 /boot ext4 rw 0 0\n/dev/sda11 /x ext4 rw 0 0\n",
            ),
            ("proc/swaps", "Filename Type\n/dev/sdb partition 1 0 -2\n"),
        ] {
            std::fs::create_dir_all(root.path(path).parent().unwrap()).unwrap();
            std::fs::write(root.path(path), text).unwrap();
        }
        assert_eq!(
            users(&root, "sda"),
            ["sda1 is mounted at /boot", "sda2 is part of dm-0"]
        );
        assert_eq!(users(&root, "sdb"), ["sdb is swap space"]);
        assert!(users(&root, "sdc").is_empty());
    }
}
