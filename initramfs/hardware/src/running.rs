//! The system that runs here, when it is not ours: who it says it is, and which disks it uses.
//!
//! A disk is used when a file system of it is mounted, when there is swap on it, or when the kernel has stacked something
//! on it (a mirror, a logical volume, an encrypted device). Mounts lead to disks by their device number; where that
//! is one of the file system's own, as with btrfs, by the device that the mount names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rackbar_model::{Disk, DiskInUse, DiskRef, RunningSystem};

use crate::Root;

/// How deep devices are followed: more is stacked nowhere.
const DEPTH: usize = 8;

/// Longest word taken from a file of the system.
const WORD: usize = 256;

/// Looks at the running system. `disks` are the machine's, from [`crate::inventory`].
pub fn read(root: &Root, disks: &[Disk]) -> RunningSystem {
    let release = root
        .text("etc/os-release")
        .or_else(|| root.text("usr/lib/os-release"))
        .unwrap_or_default();
    let word = |text: Option<String>| -> String {
        let text = text.unwrap_or_default();
        text.chars().filter(|c| !c.is_control()).take(WORD).collect()
    };
    let named = |key| word(release_word(&release, key));
    RunningSystem {
        name: named("PRETTY_NAME"),
        id: named("ID"),
        version: named("VERSION_ID"),
        kernel: word(root.text("proc/sys/kernel/osrelease")),
        hostname: word(root.text("proc/sys/kernel/hostname")),
        machine_id: word(root.text("etc/machine-id")),
        in_use: in_use(root, disks),
    }
}

/// A value of os-release(5): a shell assignment, quoted or not.
fn release_word(text: &str, key: &str) -> Option<String> {
    let line = |line: &str| Some(line.trim().strip_prefix(key)?.strip_prefix('=')?.to_owned());
    let value = text.lines().find_map(line)?;
    let bare = ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(&value);
    let mut out = String::new();
    let mut letters = bare.chars();
    while let Some(letter) = letters.next() {
        out.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    (!out.is_empty()).then_some(out)
}

fn in_use(root: &Root, disks: &[Disk]) -> Vec<DiskInUse> {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut add = |device: &str, what: &str| {
        for disk in disks_below(root, device, DEPTH) {
            let uses = uses.entry(disk).or_default();
            if uses.len() < DiskInUse::MOST_USES {
                uses.insert(what.to_owned());
            }
        }
    };
    for (device, place) in mounts(root) {
        add(&device, &place);
    }
    for device in swaps(root) {
        add(&device, "swap");
    }
    for disk in disks {
        for device in parts(root, &disk.name) {
            for holder in root.names(format!("sys/class/block/{device}/holders")) {
                add(&device, &format!("part of {holder}"));
            }
        }
    }
    let used = disks.iter().filter_map(|disk| {
        let uses = uses.remove(&disk.name)?;
        Some(DiskInUse {
            name: disk.name.clone(),
            disk: reference(disk),
            uses: uses.into_iter().collect(),
        })
    });
    used.collect()
}

fn reference(disk: &Disk) -> DiskRef {
    DiskRef {
        serial: disk.serial.clone(),
        wwn: disk.wwn.clone(),
        by_path: disk.by_path.clone(),
        size_bytes: Some(disk.size_bytes),
    }
}

/// A disk and its partitions, by kernel name.
fn parts(root: &Root, disk: &str) -> Vec<String> {
    let inside = root.names(format!("sys/block/{disk}")).into_iter();
    let part = |name: &String| root.exists(format!("sys/block/{disk}/{name}/partition"));
    std::iter::once(disk.to_owned()).chain(inside.filter(part)).collect()
}

/// Block devices that are mounted, by kernel name, and where (proc_pid_mountinfo(5)).
fn mounts(root: &Root) -> Vec<(String, String)> {
    // A host of containers has thousands.
    let bytes = root.bytes("proc/self/mountinfo").unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mount = |line: &str| {
        let (fields, source) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(2);
        let (number, place) = (fields.next()?, fields.nth(1)?);
        let by_number = root.link_name(format!("sys/dev/block/{number}"));
        let by_name = || device_of(root, source.split(' ').nth(1)?);
        Some((by_number.or_else(by_name)?, unescaped(place)))
    };
    text.lines().filter_map(mount).collect()
}

/// Block devices with swap on them (proc_swaps(5)); files are on what is mounted.
fn swaps(root: &Root) -> Vec<String> {
    let text = root.text("proc/swaps").unwrap_or_default();
    let devices = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    devices.filter_map(|path| device_of(root, &unescaped(path))).collect()
}

/// The kernel name of a device by its path, also through a link such as `/dev/mapper/root`.
fn device_of(root: &Root, path: &str) -> Option<String> {
    let path = Path::new(path);
    path.strip_prefix("/dev").ok()?;
    let real = root.resolve(path).unwrap_or_else(|| path.to_owned());
    Some(real.file_name()?.to_str()?.to_owned())
}

/// The whole disks that a device lies on.
fn disks_below(root: &Root, device: &str, depth: usize) -> Vec<String> {
    if depth == 0 || device.contains('/') {
        return Vec::new();
    }
    let folder = format!("sys/class/block/{device}");
    let below = root.names(format!("{folder}/slaves"));
    if !below.is_empty() {
        let each = below.iter().flat_map(|device| disks_below(root, device, depth - 1));
        return each.collect();
    }
    let whole = || {
        let path = root.resolve(&folder)?;
        Some(path.parent()?.file_name()?.to_str()?.to_owned())
    };
    match root.exists(format!("{folder}/partition")) {
        true => whole().into_iter().collect(),
        false => vec![device.to_owned()],
    }
}

/// A path with the octal escapes of `/proc` taken back.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => {
                out.push(char::from(code));
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out.chars().filter(|c| !c.is_control()).take(WORD).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Tree;

    fn disk(name: &str) -> Disk {
        Disk {
            name: name.into(),
            serial: Some(format!("S-{name}")),
            size_bytes: 1 << 30,
            ..Disk::default()
        }
    }

    #[test]
    fn a_system_says_who_it_is_and_which_disks_it_uses() {
        let mounts = "22 1 0:21 / /proc rw - proc proc rw\n\
                      27 1 253:0 / / rw shared:1 - ext4 /dev/mapper/vg-root rw\n\
                      28 27 0:40 /@ /srv/my\\040data rw - btrfs /dev/sdb rw\n\
                      29 27 8:1 / /boot rw - ext4 /dev/sda1 rw\n";
        let tree = Tree::new(&[
            (
                "etc/os-release",
                "NAME=x\nPRETTY_NAME=\"Debian \\\"12\\\"\"\nID=debian\nVERSION_ID='12'\n",
            ),
            ("etc/machine-id", "0123\n"),
            ("proc/sys/kernel/hostname", "db-1\n"),
            ("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n"),
            ("proc/self/mountinfo", mounts),
            (
                "proc/swaps",
                "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n/swap file 1 0 -3\n",
            ),
            ("sys/devices/sda/sda1/partition", "1"),
            ("sys/devices/sda/sda2/partition", "2"),
            ("sys/devices/sda/sda3/partition", "3"),
            ("sys/devices/sda/sda3/holders/dm-0", ""),
            ("sys/devices/dm-0/slaves/sda3", ""),
        ])
        .link("sys/block/sda", "sys/devices/sda")
        .link("sys/block/sdb", "sys/devices/sdb")
        .link("sys/block/sdc", "sys/devices/sdc")
        .link("sys/class/block/sda", "sys/devices/sda")
        .link("sys/class/block/sdb", "sys/devices/sdb")
        .link("sys/class/block/sda1", "sys/devices/sda/sda1")
        .link("sys/class/block/sda2", "sys/devices/sda/sda2")
        .link("sys/class/block/sda3", "sys/devices/sda/sda3")
        .link("sys/class/block/dm-0", "sys/devices/dm-0")
        .link("sys/dev/block/253:0", "sys/devices/dm-0")
        .link("sys/dev/block/8:1", "sys/devices/sda/sda1");
        let found = read(tree.root(), &[disk("sda"), disk("sdb"), disk("sdc")]);
        assert_eq!(
            (found.name.as_str(), found.id.as_str(), found.version.as_str()),
            ("Debian \"12\"", "debian", "12")
        );
        assert_eq!((found.hostname.as_str(), found.machine_id.as_str()), ("db-1", "0123"));
        let used: Vec<_> = found
            .in_use
            .iter()
            .map(|one| (one.name.as_str(), one.uses.join(" ")))
            .collect();
        assert_eq!(
            used,
            [
                ("sda", "/ /boot part of dm-0 swap".to_owned()),
                ("sdb", "/srv/my data".to_owned())
            ]
        );
        assert_eq!(found.in_use[0].disk.serial.as_deref(), Some("S-sda"));
    }

    #[test]
    fn an_empty_tree_says_nothing() {
        assert_eq!(read(Tree::new(&[]).root(), &[disk("sda")]), RunningSystem::default());
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,200}|[\\\\0-7 =\"'a-z]{0,60}", key in "[A-Z]{0,4}") {
            let _ = (release_word(&text, &key), unescaped(&text));
        }
    }
}
