//! The firmware's boot order (UEFI 2.10, section 3.1): our entry for the installed disk first, the others kept behind.
//!
//! Variables are files of efivarfs (kernel: Documentation/filesystems/efivarfs.rst): four bytes of attributes, then the
//! value, written in one call. The kernel makes files immutable that it does not know to be harmless to remove.

mod option;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use rackbar_messages::JobReport;
use rackbar_model::{BootEntry, RootTarget};

use crate::control::{fault, io, refuse};
use crate::mount::Mounted;
use crate::table::Part;
use crate::target::Installed;
use crate::{Machine, Result};
use option::{LoadOption, Starts, file_on_partition};

/// EFI_GLOBAL_VARIABLE.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Non-volatile, and for boot services and the running system.
const ATTRIBUTES: u32 = 7;

/// Largest variable that is read.
const LIMIT: u64 = 64 << 10;

/// The fallback program that every bootable medium has (UEFI 2.10, section 3.5.1.1).
const FALLBACK: &str = "EFI/BOOT/BOOTX64.EFI";

/// The variables of the firmware.
pub(crate) struct Variables {
    folder: PathBuf,
}

impl Variables {
    /// The mounted variables, writable; `None` under BIOS.
    fn open(machine: &Machine) -> Result<Option<Self>> {
        if !machine.root.exists("sys/firmware/efi") {
            return Ok(None);
        }
        let folder = machine.root.path("sys/firmware/efi/efivars");
        machine.load_module("efivarfs");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        // Init mounts them read-only for those who only look.
        let none = None::<&str>;
        let writable = mount(none, &folder, none, flags | MsFlags::MS_REMOUNT, none)
            .or_else(|_| mount(Some("efivarfs"), &folder, Some("efivarfs"), flags, none));
        writable.map_err(|error| {
            fault(
                format!("the firmware's variables cannot be mounted for writing: {error}"),
                "look whether the firmware protects its boot entries",
            )
        })?;
        Ok(Some(Self { folder }))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}-{GLOBAL}"))
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path(name))
            .ok()?
            .take(LIMIT)
            .read_to_end(&mut bytes)
            .ok()?;
        bytes.get(4..).map(<[u8]>::to_vec)
    }

    fn write(&self, name: &str, value: &[u8]) -> Result<()> {
        let path = self.path(name);
        make_mutable(&path);
        let bytes = [&ATTRIBUTES.to_le_bytes(), value].concat();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        // One call: the kernel hands each one to the firmware as a whole variable.
        let written = file.and_then(|mut file| file.write(&bytes).map(|_| ()));
        written.map_err(|error| {
            fault(
                format!("the firmware does not take its variable {name}: {error}"),
                "its memory for variables may be full or write-protected: look into its setup",
            )
        })
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        if !path.exists() {
            return Ok(());
        }
        make_mutable(&path);
        fs::remove_file(&path).map_err(io(format_args!("removing the firmware's variable {name}")))
    }

    /// Numbers in `BootOrder`.
    fn order(&self) -> Vec<u16> {
        let bytes = self.read("BootOrder").unwrap_or_default();
        bytes
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .collect()
    }

    /// Numbers of all entries there are, in the order or not, also of those that nobody can read.
    fn numbers(&self) -> Vec<u16> {
        let Ok(files) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let number = |name: &str| {
            let digits = name.strip_prefix("Boot")?.strip_suffix(GLOBAL)?.strip_suffix('-')?;
            (digits.len() == 4)
                .then(|| u16::from_str_radix(digits, 16).ok())
                .flatten()
        };
        let names = files.flatten().filter_map(|file| file.file_name().into_string().ok());
        let mut numbers: Vec<u16> = names.filter_map(|name| number(&name)).collect();
        numbers.sort_unstable();
        numbers
    }

    /// All entries that can be read, in the order or not.
    fn entries(&self) -> Vec<(u16, LoadOption)> {
        let entry = |number: u16| Some((number, LoadOption::parse(&self.read(&entry_name(number))?)?));
        self.numbers().into_iter().filter_map(entry).collect()
    }
}

fn entry_name(number: u16) -> String {
    format!("Boot{number:04X}")
}

/// Takes the immutable flag off a variable's file. What cannot be done shows in the write that follows.
fn make_mutable(path: &Path) {
    const FS_IOC_GETFLAGS: libc::c_ulong = 0x8008_6601;
    const FS_IOC_SETFLAGS: libc::c_ulong = 0x4008_6602;
    const FS_IMMUTABLE_FL: libc::c_int = 0x10;
    let Ok(file) = File::open(path) else { return };
    let mut flags: libc::c_long = 0;
    // SAFETY: the call writes an int, for which a long has room, and which lives until it returns.
    let read = Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETFLAGS as _, &mut flags) });
    let wanted = flags as libc::c_int & !FS_IMMUTABLE_FL;
    if read.is_ok() && wanted != flags as libc::c_int {
        let wanted = libc::c_long::from(wanted);
        // SAFETY: the call reads an int, for which a long is large enough, and which lives until it returns.
        let _ = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_SETFLAGS as _, &wanted) };
    }
}

/// Puts the system on a target first in the boot order.
pub(crate) fn boot_order(machine: &Machine, target: &RootTarget, label: &str) -> Result<JobReport> {
    let Some(variables) = Variables::open(machine)? else {
        return Ok(JobReport::BootOrder(Vec::new()));
    };
    let installed = Installed::find(machine, target)?;
    if installed.esps.is_empty() {
        return Err(refuse(
            "the installed disk has no EFI system partition, and this machine starts by UEFI",
            "use an image that boots under UEFI, or switch the machine to BIOS mode",
        ));
    }
    let mut wanted = Vec::new();
    for (index, (esp, disk)) in installed.esps.iter().zip(&installed.chosen).enumerate() {
        let program = program(machine, esp)?;
        let sector = u64::from(disk.info.sector_bytes.max(512));
        let path = file_on_partition(esp.number, esp.start / sector, esp.bytes / sector, &esp.guid, &program);
        let description = if index == 0 {
            label.to_owned()
        } else {
            format!("{label} (second disk)")
        };
        wanted.push(LoadOption {
            active: true,
            description,
            path,
        });
    }
    // Both halves of a mirror bear the same partition GUID, and one entry finds whichever is there.
    wanted.dedup_by(|later, first| later.path == first.path);
    drop(installed);
    put_first(&variables, label, &wanted)?;
    read_back(&variables, &wanted)
}

/// The program an EFI system partition starts: the distribution's own when the fallback is missing.
fn program(machine: &Machine, esp: &Part) -> Result<String> {
    let mounted = Mounted::esp(machine, &esp.path)?;
    // FAT knows no case, and the kernel's driver finds names in any.
    if mounted.path().join(FALLBACK).exists() {
        return Ok(format!("\\{}", FALLBACK.replace('/', "\\")));
    }
    let folders = fs::read_dir(mounted.path().join("EFI")).into_iter().flatten().flatten();
    let mut names: Vec<String> = folders
        .filter_map(|folder| folder.file_name().into_string().ok())
        .collect();
    names.sort();
    for name in names {
        for program in ["shimx64.efi", "grubx64.efi", "systemd-bootx64.efi"] {
            if mounted.path().join("EFI").join(&name).join(program).exists() {
                return Ok(format!("\\EFI\\{name}\\{program}"));
            }
        }
    }
    Err(refuse(
        format!(
            "the EFI system partition {} has no program that starts a system",
            esp.path.display()
        ),
        "use an image that boots under UEFI",
    ))
}

/// Writes our entries, and the order with them in front. Entries of our label that are left from another installation,
/// and others that start the same partition by the same path, make room.
fn put_first(variables: &Variables, label: &str, wanted: &[LoadOption]) -> Result<()> {
    let entries = variables.entries();
    let ours = |option: &LoadOption| {
        let of_label = option.description == label || option.description == format!("{label} (second disk)");
        of_label && option.starts().name() == "disk" || wanted.iter().any(|new| new.path == option.path)
    };
    let of_us = entries.iter().filter(|(_, option)| ours(option));
    let mut free: Vec<u16> = of_us.map(|(number, _)| *number).collect();
    // An entry that cannot be read is somebody's too.
    let mut kept = variables.numbers();
    kept.retain(|number| !free.contains(number));
    let mut numbers = Vec::new();
    for option in wanted {
        let used = |number: &u16| kept.contains(number) || numbers.contains(number);
        let number = free
            .first()
            .copied()
            .or_else(|| (0..=0xfffe).find(|number| !used(number)));
        let number =
            number.ok_or_else(|| fault("all boot entries of the firmware are taken", "remove some in its setup"))?;
        free.retain(|other| *other != number);
        let name = entry_name(number);
        // Firmware memory wears out: what is right is not written again.
        if variables.read(&name).as_deref() != Some(option.bytes().as_slice()) {
            variables.write(&name, &option.bytes())?;
        }
        numbers.push(number);
    }
    let old = variables.order();
    let rest = old
        .iter()
        .copied()
        .filter(|number| !numbers.contains(number) && !free.contains(number));
    let order: Vec<u16> = numbers.iter().copied().chain(rest).collect();
    if order != old {
        let bytes: Vec<u8> = order.iter().flat_map(|number| number.to_le_bytes()).collect();
        variables.write("BootOrder", &bytes)?;
    }
    for stale in free {
        variables.remove(&entry_name(stale))?;
    }
    variables.remove("BootNext")
}

/// The order as the firmware has it now.
fn read_back(variables: &Variables, wanted: &[LoadOption]) -> Result<JobReport> {
    let entries = variables.entries();
    let find = |number: u16| {
        entries
            .iter()
            .find(|(other, _)| *other == number)
            .map(|(_, option)| option)
    };
    let order = variables.order();
    let first = order.first().and_then(|number| find(*number));
    if first != wanted.first() {
        return Err(fault(
            format!(
                "the firmware says that it boots {:?} first, after it was told otherwise",
                first.map_or("nothing", |option| option.description.as_str())
            ),
            "set the boot order in the firmware's setup, or by the BMC",
        ));
    }
    let entry = |number: &u16| {
        let option = find(*number)?;
        Some(BootEntry {
            number: *number,
            description: option.description.clone(),
            active: option.active,
            kind: match option.starts() {
                Starts::Partition(_) => "disk".to_owned(),
                other => other.name().to_owned(),
            },
        })
    };
    Ok(JobReport::BootOrder(order.iter().filter_map(entry).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(description: &str, guid: u8) -> LoadOption {
        LoadOption {
            active: true,
            description: description.to_owned(),
            path: file_on_partition(1, 2048, 4096, &[guid; 16], "\\EFI\\BOOT\\BOOTX64.EFI"),
        }
    }

    fn firmware(entries: &[(u16, LoadOption)], order: &[u16]) -> (tempfile::TempDir, Variables) {
        let folder = tempfile::tempdir().unwrap();
        let variables = Variables {
            folder: folder.path().to_owned(),
        };
        for (number, option) in entries {
            variables.write(&entry_name(*number), &option.bytes()).unwrap();
        }
        let bytes: Vec<u8> = order.iter().flat_map(|number| number.to_le_bytes()).collect();
        variables.write("BootOrder", &bytes).unwrap();
        variables.write("BootNext", &[0, 0]).unwrap();
        (folder, variables)
    }

    #[test]
    fn the_new_entry_goes_first_the_stale_one_goes_away_and_others_stay() {
        let old = [
            (0u16, option("PXE", 9)),
            (3, option("rackbar", 1)),
            (4, option("rackbar", 2)),
            (5, option("Windows", 3)),
        ];
        let (_folder, variables) = firmware(&old, &[0, 5, 3]);
        let wanted = [option("rackbar", 8)];
        put_first(&variables, "rackbar", &wanted).unwrap();
        let JobReport::BootOrder(order) = read_back(&variables, &wanted).unwrap() else {
            panic!()
        };
        let seen: Vec<(u16, &str)> = order
            .iter()
            .map(|entry| (entry.number, entry.description.as_str()))
            .collect();
        assert_eq!(seen, [(3, "rackbar"), (0, "PXE"), (5, "Windows")]);
        assert_eq!(variables.entries().len(), 3, "the second old one of ours is gone");
        assert!(variables.read("BootNext").is_none());
        put_first(&variables, "rackbar", &wanted).unwrap();
        assert_eq!(variables.order(), [3, 0, 5]);
    }

    #[test]
    fn an_entry_that_nobody_can_read_is_not_written_over() {
        let (_folder, variables) = firmware(&[(1, option("PXE", 9))], &[0, 1]);
        // Shorter than any load option (UEFI 2.10 section 3.1.3).
        variables.write(&entry_name(0), &[1, 0]).unwrap();
        put_first(&variables, "rackbar", &[option("rackbar", 8)]).unwrap();
        assert_eq!(variables.read(&entry_name(0)).unwrap(), [1, 0]);
        assert_eq!(variables.order(), [2, 0, 1]);
    }

    #[test]
    fn firmware_that_keeps_its_own_order_is_found_out() {
        let (_folder, variables) = firmware(&[(0, option("PXE", 9))], &[0]);
        let failure = read_back(&variables, &[option("rackbar", 8)]).unwrap_err();
        assert!(failure.reason.contains("PXE"), "{failure:?}");
    }
}
