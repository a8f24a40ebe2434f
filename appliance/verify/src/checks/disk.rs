//! Where the root file system lies, and what the kernel says of disks.

use rackbar_model::{DiskRef, RootTarget};

use super::{Probed, Verdict, kernel_log};
use crate::Context;

type Probe = Result<Option<String>, String>;

/// Walks from the root file system down to whole disks: device mapper and md by `slaves`, a partition by its folder. The
/// root device comes from mountinfo; btrfs gives an anonymous number there (major 0), so the source is looked up instead.
const LAYOUT: &str = r#"
root=
while read -r id parent number path point rest; do
  [ "$point" = / ] || continue
  source=${rest#* - }; source=${source#* }; source=${source%% *}
  kind=${rest#* - }; kind=${kind%% *}
  root=$number
done < /proc/self/mountinfo
case "$root" in 0:*|'') real=$(readlink -f "$source"); root=$(cat "/sys/class/block/${real##*/}/dev" 2>/dev/null);; esac
echo "root=$root $kind"
text() { tr -d '\000-\037' < "$1" 2>/dev/null; }
disk() {
  name=${1##*/}
  serial=$(text "$1/device/serial"); [ -n "$serial" ] || serial=$(text "$1/serial")
  [ -n "$serial" ] || serial=$(dd if="$1/device/vpd_pg80" bs=1 skip=4 2>/dev/null | tr -d '\000-\037')
  # Of a stick without such data, that of the USB device above host and interface.
  usb=$(readlink -f "$1/device")/../../../..; [ -n "$serial" ] || [ ! -e "$usb/idVendor" ] || serial=$(text "$usb/serial")
  wwn=$(text "$1/wwid"); [ -n "$wwn" ] || wwn=$(text "$1/device/wwid")
  by=; for link in /dev/disk/by-path/*; do
    [ "$(readlink -f "$link")" = "/dev/$name" ] && by="$by ${link##*/}"
  done
  echo "disk=$name|$(cat "$1/size")|$serial|$wwn|$by"
  for part in "$1"/*/partition; do
    [ -e "$part" ] || continue; part=${part%/partition}
    echo "part=$name $(cat "$part/start") $(cat "$part/size")"
  done
}
walk() {
  if [ -d "$1/md" ]; then
    echo "array=${1##*/} $(cat "$1/md/level") $(cat "$1/md/raid_disks") $(cat "$1/md/degraded" 2>/dev/null) $(cat "$1/md/array_state") $(cat "$1/md/sync_action" 2>/dev/null)"
    for half in "$1"/md/dev-*; do [ -e "$half/state" ] && echo "half=${half##*/dev-} $(cat "$half/state")"; done
  fi
  if [ -n "$(ls "$1/slaves" 2>/dev/null)" ]; then
    for below in "$1"/slaves/*; do walk "$(readlink -f "$below")"; done
  elif [ -e "$1/partition" ]; then disk "${1%/*}"
  else disk "$1"; fi
}
device=$(readlink -f "/sys/dev/block/$root") && [ -n "$root" ] && { echo "size=$(cat "$device/size")"; walk "$device"; }
echo "fs=$(df -P -k / | tail -n 1)"
"#;

pub(super) fn layout_probe(context: &Context) -> Probe {
    match &context.wanted.target {
        Some(_) => Ok(Some(LAYOUT.into())),
        None => Err("Rackbar put no system on its disk".into()),
    }
}

/// A disk as the node tells it.
struct Found<'a> {
    name: &'a str,
    sectors: u64,
    serial: &'a str,
    wwn: &'a str,
    paths: &'a str,
}

impl<'a> Found<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut parts = line.splitn(5, '|').map(str::trim);
        Some(Self {
            name: parts.next()?,
            sectors: parts.next()?.parse().ok()?,
            serial: parts.next()?,
            wwn: parts.next()?,
            paths: parts.next()?,
        })
    }

    /// By the first name that both sides know: a path may be written differently by another udev, a serial may not. Volumes of
    /// one RAID controller have its serial, and WWNs of their own.
    fn is(&self, wanted: &DiskRef) -> bool {
        let same_size = wanted
            .size_bytes
            .is_none_or(|bytes| bytes == self.sectors.saturating_mul(512));
        let named = match (&wanted.serial, &wanted.wwn, &wanted.by_path) {
            (Some(serial), _, _) if !self.serial.is_empty() => plain(serial) == plain(self.serial),
            (_, Some(wwn), _) if !self.wwn.is_empty() => plain(wwn) == plain(self.wwn),
            (_, _, Some(path)) => self.paths.split_whitespace().any(|known| known == path),
            _ => false,
        };
        named && same_size && !wanted.wwn.as_ref().is_some_and(|wwn| differ(wwn, self.wwn))
    }

    fn words(&self) -> String {
        let serial = match (self.serial, self.wwn) {
            ("", "") => "without serial".into(),
            ("", wwn) => format!("WWN {wwn}"),
            (serial, _) => format!("serial {serial}"),
        };
        format!("{} ({serial}, {} GB)", self.name, self.sectors / 1_953_125)
    }
}

/// True for two WWNs of one kind that are not the same. Kernels do not agree on which kind of name an NVMe disk has.
fn differ(one: &str, other: &str) -> bool {
    let kind = |text: &str| {
        ["naa.", "eui.", "uuid."]
            .into_iter()
            .find(|kind| text.trim().starts_with(kind))
    };
    kind(one).is_some() && kind(one) == kind(other) && plain(one) != plain(other)
}

/// Names as different readers write them: `0x5000c5..`, `naa.5000C5..`.
fn plain(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    let bare = ["0x", "naa.", "eui.", "uuid."]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix));
    bare.unwrap_or(&text).to_owned()
}

pub(super) fn layout(context: &Context, probed: &Probed) -> Verdict {
    let Some(target) = &context.wanted.target else {
        return Verdict::Skipped("Rackbar put no system on its disk".into());
    };
    let found: Vec<_> = probed.all("disk").filter_map(Found::read).collect();
    let mut faults = Vec::new();
    for disk in target.disks() {
        if !found.iter().any(|found| found.is(disk)) {
            faults.push(format!("the root file system does not lie on the disk with {disk}"));
        }
    }
    if found.len() > target.disks().len() {
        faults.push(format!("it lies on {} disks", found.len()));
    }
    if let RootTarget::Mirror(_) = target {
        faults.extend(mirror_faults(probed));
    }
    faults.extend(room_faults(probed, &found));
    let lies: Vec<_> = found.iter().map(Found::words).collect();
    let observed = match lies.is_empty() {
        true => "no disk under the root file system could be found".into(),
        false => format!("{}{}", lies.join(" and "), array_words(probed)),
    };
    if !faults.is_empty() {
        faults.push(format!("found: {observed}"));
    }
    Verdict::by(
        &faults,
        match target {
            RootTarget::Disk(disk) => format!("on the disk with {disk}, filling it"),
            RootTarget::Mirror([one, two]) => format!("mirrored on the disks with {one} and {two}, filling them"),
        },
        observed,
        "was a disk exchanged, or does the machine boot an older system from another disk? Compare with `rackbar node \
         show`, then install again; a degraded mirror is rebuilt with mdadm --add",
    )
}

fn array_words(probed: &Probed) -> String {
    let array = probed
        .one("array")
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    match array.as_deref() {
        Some([name, level, ..]) => format!(", {name} is {level}"),
        _ => String::new(),
    }
}

fn mirror_faults(probed: &Probed) -> Vec<String> {
    let Some(array) = probed.one("array") else {
        return vec!["it is not on a mirror".into()];
    };
    let mut faults = Vec::new();
    let words: Vec<_> = array.split_whitespace().collect();
    let (level, disks, degraded) = (words.get(1).copied(), words.get(2).copied(), words.get(3).copied());
    let (state, action) = (words.get(4).copied(), words.get(5).copied());
    if level != Some("raid1") || disks != Some("2") {
        faults.push(format!(
            "the array is {} of {}",
            level.unwrap_or("unknown"),
            disks.unwrap_or("unknown")
        ));
    }
    if degraded != Some("0") {
        faults.push("the mirror is degraded".into());
    }
    // A mirror that still copies is whole only when it is done; both halves can be read already.
    if action == Some("recover") {
        faults.push("the mirror is being rebuilt".into());
    }
    if !state.is_some_and(|state| ["clean", "active", "active-idle", "write-pending"].contains(&state)) {
        faults.push(format!("the mirror is {}", state.unwrap_or("in no state")));
    }
    let halves: Vec<_> = probed.all("half").collect();
    for half in halves.iter().filter(|half| !half.contains("in_sync")) {
        faults.push(format!("the half {half} is not in sync"));
    }
    if halves.len() != 2 {
        faults.push(format!("the mirror has {} halves", halves.len()));
    }
    faults
}

/// 64 MiB: more than any alignment, less than anyone would miss.
const SLACK_SECTORS: u64 = 131_072;

fn room_faults(probed: &Probed, found: &[Found<'_>]) -> Vec<String> {
    let mut faults = Vec::new();
    // Of two mirrored disks the smaller one sets the size.
    if let Some(disk) = found.iter().min_by_key(|disk| disk.sectors) {
        let end = |line: &str| {
            let mut words = line.strip_prefix(disk.name)?.split_whitespace();
            let (start, size): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            start.checked_add(size)
        };
        let last = probed.all("part").filter_map(end).max().unwrap_or(disk.sectors);
        let free = disk.sectors.saturating_sub(last);
        if free > SLACK_SECTORS.saturating_add(disk.sectors / 100) {
            faults.push(format!("{} MiB at the end of {} are unused", free / 2048, disk.name));
        }
    }
    let device: Option<u64> = probed.number("size");
    let system = probed
        .one("fs")
        .and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    if let (Some(sectors), Some(kib)) = (device, system) {
        // df leaves out what the file system keeps for itself: inode tables and journal, up to a tenth of a small one.
        let least = sectors / 2 / 100 * 85;
        if kib < least {
            faults.push(format!(
                "the file system has {} MiB of {} MiB",
                kib / 1024,
                sectors / 2048
            ));
        }
    }
    faults
}

pub(super) const ERRORS: &str = "I/O error|medium error|EXT4-fs error|XFS .*corrupt|BTRFS error|\\bUNC\\b|failed command|DRDY ERR|\
                      nvme.*(timeout|reset)|device offlined|read-only";
/// Floppy and CD drives without a medium always fail, a root file system is first mounted read-only, and kernels before 6.9 say
/// of a healthy NVMe disk that needs longer to power down that its `Shutdown timeout` is `set to` so much.
pub(super) const NO_ERRORS: &str = "dev fd[0-9]|dev sr[0-9]|\\bfd0\\b|\\bsr0\\b|Write protecting|rodata|(re-?)?mounted .*(ro|read-only)|\
                         VFS: Mounted root|Command line:|Shutdown timeout set to";

pub(super) fn errors_probe(_: &Context) -> Probe {
    Ok(Some(kernel_log(ERRORS, NO_ERRORS)))
}

pub(super) fn errors(_: &Context, probed: &Probed) -> Verdict {
    let Some(lines @ 1..) = probed.number::<u64>("lines") else {
        return Verdict::Skipped("the account that logs in may not read the kernel's log".into());
    };
    let errors: Vec<String> = probed.all("log").take(5).map(str::to_owned).collect();
    Verdict::by(
        &errors,
        "no I/O error in the kernel's log",
        format!("none in {lines} lines"),
        "a disk, its cable or its controller is failing: look at its health in the inventory and exchange it before the \
         node carries load",
    )
}

#[cfg(test)]
mod tests {
    use rackbar_model::Timestamp;

    use super::*;

    const GOOD: &str = "root=9:0 ext4\nsize=20000000\narray=md0 raid1 2 0 clean idle\nhalf=vda3 in_sync\nhalf=vdb3 in_sync\n\
                        disk=vda|20971520|A||pci-1\npart=vda 2048 100\npart=vda 4096 20967000\ndisk=vdb|20971520|B|naa.5|\n\
                        part=vdb 4096 20967000\nfs=/dev/md0 9400000 1 1 1% /\n";

    fn judge(text: &str) -> Verdict {
        let context = super::super::tests::wishes();
        layout(&context, &Probed::new(text.into(), Timestamp(0), Timestamp(0)))
    }

    fn why(text: &str) -> String {
        match judge(text) {
            Verdict::Failed { observed, .. } => observed,
            other => panic!("{other:?}"),
        }
    }

    /// What the probe finds in a log, with a `dmesg` of our own.
    fn found(log: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let dmesg = folder.path().join("dmesg");
        std::fs::write(&dmesg, format!("#!/bin/sh\ncat <<'END'\n{log}END\n")).unwrap();
        std::fs::set_permissions(&dmesg, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        let probe = kernel_log(ERRORS, NO_ERRORS);
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", &probe])
            .env("PATH", path)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    #[test]
    fn volumes_of_one_controller_are_told_apart_by_their_wwn() {
        let found = Found::read("sda|1000|RAID|naa.600508b1001c0001|").unwrap();
        let wanted = |wwn: &str| DiskRef {
            serial: Some("RAID".into()),
            wwn: Some(wwn.into()),
            ..DiskRef::default()
        };
        assert!(found.is(&wanted("naa.600508b1001c0001")) && found.is(&wanted("0x600508B1001C0001")));
        assert!(!found.is(&wanted("naa.600508b1001c0002")));
        // A reader that does not know the WWN is no proof of another disk.
        let plain = Found::read("sda|1000|RAID||").unwrap();
        assert!(plain.is(&wanted("naa.600508b1001c0002")));
    }

    #[test]
    fn errors_of_disks_are_told_from_words_of_programs() {
        let log = "[    1.000000] EXT4-fs (vda1): re-mounted. Opts: (null)\n\
                   [   18.589856] systemd-journald[211]: File system.journal corrupted or uncleanly shut down\n\
                   [   19.000000] ACPI: truncated function\n";
        assert_eq!(found(log), "lines=2\n");
        let slow = "[    1.2] nvme nvme0: Shutdown timeout set to 8 seconds\n";
        assert_eq!(found(slow), "lines=1\n");
        let aborted = "[   90.1] nvme nvme0: I/O 12 (I/O Cmd) QID 4 timeout, aborting\n";
        assert_eq!(found(aborted).matches("log=").count(), 1);
        let bad = "[   20.1] blk_update_request: I/O error, dev sda, sector 7\n[   20.2] ata1.00: error: { UNC }\n";
        assert_eq!(found(bad).matches("log=").count(), 2);
    }

    #[test]
    fn a_whole_mirror_that_fills_its_disks_passes() {
        assert!(matches!(judge(GOOD), Verdict::Passed { .. }), "{:?}", judge(GOOD));
    }

    #[test]
    fn each_fault_of_a_layout_is_named() {
        let with = |from: &str, to: &str| {
            assert!(GOOD.contains(from));
            why(&GOOD.replace(from, to))
        };
        assert!(with("|A|", "|Z|").contains("not lie on the disk with serial A"));
        assert!(with("2 0 clean", "2 1 clean").contains("degraded"));
        assert!(with("vdb3 in_sync", "vdb3 spare").contains("not in sync"));
        assert!(with("half=vdb3 in_sync\n", "").contains("1 halves"));
        assert!(with("clean idle", "inactive idle").contains("inactive"));
        assert!(with("9400000", "940000").contains("the file system has"));
        assert!(with("20967000", "2096700").contains("at the end of vda are unused"));
        assert!(with("array=md0 raid1 2 0 clean idle\n", "").contains("not on a mirror"));
        assert!(why("").contains("no disk under the root file system"));
    }

    #[test]
    fn disks_are_told_by_the_first_name_both_sides_know() {
        let found = Found::read("sda|20|S1|naa.5000C5|pci-1 ata-1").unwrap();
        let wanted = |serial: Option<&str>, wwn: Option<&str>, path: Option<&str>| DiskRef {
            serial: serial.map(Into::into),
            wwn: wwn.map(Into::into),
            by_path: path.map(Into::into),
            size_bytes: None,
        };
        assert!(found.is(&wanted(Some("s1 "), Some("other"), None)));
        assert!(!found.is(&wanted(Some("S2"), Some("naa.5000c5"), None)));
        assert!(found.is(&wanted(None, Some("0x5000c5"), None)));
        assert!(found.is(&wanted(None, None, Some("ata-1"))));
        assert!(!found.is(&DiskRef::default()));
        let sized = DiskRef {
            size_bytes: Some(1),
            ..wanted(Some("S1"), None, None)
        };
        assert!(!found.is(&sized));
    }
}
