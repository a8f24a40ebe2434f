//! NVMe Sanitize (NVMe Base 2.0, 5.24) with its progress from the sanitize log (5.16.1.25), or Format NVM (5.14) on
//! controllers that know no Sanitize.

use std::fs::File;
use std::time::Duration;

use rackbar_hardware::passthrough::{NvmeAdmin, nvme_log};

use crate::Result;
use crate::control::{Control, fault, io, refuse};

/// Between two looks at the log.
const PAUSE: Duration = Duration::from_millis(500);

/// A format of a large disk may take this long.
const FORMAT_MILLIS: u32 = 6 * 3600 * 1000;

/// What a controller can do, from Identify Controller (5.17.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Abilities {
    /// SANICAP: bit 0 crypto erase, bit 1 block erase, bit 2 overwrite.
    sanitize: u32,
    /// OACS bit 1: Format NVM.
    format: bool,
    /// FNA: bit 2, the format can be a cryptographic erase; bit 0 or 1, it touches all namespaces.
    format_attributes: u8,
    /// NN: the highest namespace number there may be.
    namespaces: u32,
}

impl Abilities {
    fn parse(identify: &[u8]) -> Option<Self> {
        Some(Self {
            sanitize: u32::from_le_bytes(identify.get(328..332)?.try_into().ok()?),
            format: *identify.get(256)? & 2 != 0,
            format_attributes: *identify.get(524)?,
            namespaces: u32::from_le_bytes(identify.get(516..520)?.try_into().ok()?),
        })
    }
}

/// What the sanitize log says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Status {
    /// SPROG: parts of 65536.
    progress: u16,
    /// SSTAT bits 0 to 2: 0 never, 1 done, 2 in progress, 3 failed, 4 done without deallocation.
    state: u8,
}

impl Status {
    fn parse(log: &[u8]) -> Option<Self> {
        Some(Self {
            progress: u16::from_le_bytes([*log.first()?, *log.get(1)?]),
            state: *log.get(2)? & 7,
        })
    }
}

/// Reads an answer as each of those that are asked for.
pub(crate) fn any_answer(bytes: &[u8]) {
    let _ = (Abilities::parse(bytes), Status::parse(bytes));
}

/// What can be asked of a disk before it is erased.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It reads and writes.
    Usable,
    /// A sanitize operation of it failed: it aborts everything but another one (5.24.1).
    Failed,
}

/// How a disk stands. One that is sanitizing itself, which an attempt that was cut off leaves behind, aborts reads and writes
/// until it is done, so that is waited for.
pub(super) fn standing(disk: &File, name: &str, control: &Control) -> Result<Standing> {
    if abilities(disk, name)?.sanitize == 0 {
        return Ok(Standing::Usable);
    }
    let under_way = "begun before";
    let status = status(disk, name)?;
    if status.state == 2 {
        // How it ends is seen below.
        let _ = wait(disk, name, under_way, control);
        control.check()?;
    }
    Ok(match self::status(disk, name)?.state {
        3 => Standing::Failed,
        _ => Standing::Usable,
    })
}

fn status(disk: &File, name: &str) -> Result<Status> {
    let log = nvme_log(disk, 0x81, 20).map_err(io(format_args!("asking {name} how far it is")))?;
    Status::parse(&log).ok_or_else(|| fault(format!("the sanitize log of {name} is too short"), ""))
}

fn abilities(disk: &File, name: &str) -> Result<Abilities> {
    // CNS 1: the controller.
    let identify = identify(disk, 0, 1).map_err(io(format_args!("asking {name} what it can do")))?;
    Abilities::parse(&identify).ok_or_else(|| fault(format!("{name} said nothing of what it can do"), ""))
}

fn identify(disk: &File, namespace: u32, cns: u32) -> std::io::Result<Vec<u8>> {
    let mut answer = vec![0; 4096];
    let ask = NvmeAdmin {
        opcode: 0x06,
        namespace,
        cdw: [cns, 0],
        timeout_millis: 15_000,
    };
    ask.send(disk, &mut answer)?;
    Ok(answer)
}

/// Refuses what would take other namespaces of the controller with it: they are disks of their own, which nobody named.
fn touches_no_other(disk: &File, name: &str, can: Abilities, words: &str, erased: &[u32]) -> Result<()> {
    // Controllers of NVMe 1.0, which know no list, have one.
    if can.namespaces <= 1 {
        return Ok(());
    }
    // CNS 2: active namespaces above the one that is given.
    let list = identify(disk, 0, 2).map_err(io(format_args!("asking {name} for its controller's namespaces")))?;
    let others = spared(&list, erased);
    if others.is_empty() {
        return Ok(());
    }
    let others: Vec<String> = others.iter().map(u32::to_string).collect();
    Err(refuse(
        format!(
            "{words} of {name} erases every namespace of its controller, and namespace {} is not among the disks that are to be \
             emptied",
            others.join(", ")
        ),
        "name its disks as well, or choose discard or overwrite",
    ))
}

/// The namespaces of an Active Namespace ID list (5.17.2.3) that nobody asked to erase.
fn spared(list: &[u8], erased: &[u32]) -> Vec<u32> {
    let (numbers, _) = list.as_chunks::<4>();
    let active = numbers.iter().map(|bytes| u32::from_le_bytes(*bytes));
    active
        .take_while(|number| *number != 0)
        .filter(|number| !erased.contains(number))
        .collect()
}

/// Erases a disk by its own means; gives what it answered. `erased` are the namespaces of its controller that the same job
/// empties, its own among them.
pub(super) fn sanitize(
    disk: &File,
    name: &str,
    crypto: bool,
    erased: &[u32],
    control: &Control,
) -> Result<Vec<String>> {
    let can = abilities(disk, name)?;
    match action(can, crypto) {
        Some(Action::Sanitize(kind, words)) => {
            touches_no_other(disk, name, can, "a sanitize operation", erased)?;
            let command = NvmeAdmin {
                opcode: 0x84,
                cdw: [kind, 0],
                timeout_millis: 30_000,
                ..NvmeAdmin::default()
            };
            command
                .send(disk, &mut [])
                .map_err(io(format_args!("{name} refuses the sanitize operation ({words})")))?;
            wait(disk, name, words, control)
        }
        Some(Action::Format(kind, words)) => {
            if can.format_attributes & 3 != 0 {
                touches_no_other(disk, name, can, "Format NVM", erased)?;
            }
            let command = NvmeAdmin {
                opcode: 0x80,
                namespace: namespace(disk, name)?,
                // The format in use stays: bits 0 to 3 and 12 to 13 of dword 10, from the namespace's FLBAS.
                cdw: [format_in_use(disk, name)? | kind << 9, 0],
                timeout_millis: FORMAT_MILLIS,
            };
            control.begin(format!("formatting {name} ({words})"), 0);
            command
                .send(disk, &mut [])
                .map_err(io(format_args!("{name} refuses to be formatted ({words})")))?;
            Ok(vec![format!("{name}: Format NVM with {words} accepted and done")])
        }
        None => Err(refuse(
            format!(
                "{name} knows no {} (SANICAP {:#x}, FNA {:#x})",
                if crypto { "cryptographic erase" } else { "block erase" },
                can.sanitize,
                can.format_attributes
            ),
            "choose discard or overwrite for this disk",
        )),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    /// SANACT and OWPASS as command dword 10 has them, and their name.
    Sanitize(u32, &'static str),
    /// SES, and its name.
    Format(u32, &'static str),
}

/// Sanitize reaches spare and hidden blocks, so it goes before Format.
fn action(can: Abilities, crypto: bool) -> Option<Action> {
    let format_crypto = can.format_attributes & 4 != 0;
    match crypto {
        true if can.sanitize & 1 != 0 => Some(Action::Sanitize(4, "cryptographic erase")),
        true if can.format && format_crypto => Some(Action::Format(2, "cryptographic erase")),
        true => None,
        false if can.sanitize & 2 != 0 => Some(Action::Sanitize(2, "block erase")),
        // One pass (OWPASS): 0 there means 16, which on a large disk takes days and erases no more.
        false if can.sanitize & 4 != 0 => Some(Action::Sanitize(3 | 1 << 4, "overwrite")),
        false if can.format => Some(Action::Format(1, "user data erase")),
        false => None,
    }
}

/// Follows a sanitize operation to its end. It cannot be stopped, and goes on over a restart of the machine.
fn wait(disk: &File, name: &str, words: &str, control: &Control) -> Result<Vec<String>> {
    control.begin(format!("sanitizing {name} ({words})"), 65_536);
    loop {
        let status = status(disk, name)?;
        match status.state {
            1 | 4 => {
                return Ok(vec![format!(
                    "{name}: sanitize ({words}) ended; the sanitize log says state {}, progress {}",
                    status.state, status.progress
                )]);
            }
            2 => control.at(u64::from(status.progress)),
            state => {
                return Err(refuse(
                    format!("{name} failed to sanitize itself ({words}); its log says state {state}"),
                    "the disk takes no writes until a sanitize operation succeeds: try again, else destroy it",
                ));
            }
        }
        control.check()?;
        std::thread::sleep(PAUSE);
    }
}

/// The namespace behind a block device.
pub(super) fn namespace(disk: &File, name: &str) -> Result<u32> {
    use std::os::fd::AsRawFd;
    // _IO('N', 0x40)
    const NVME_IOCTL_ID: nix::libc::c_ulong = 0x4e40;
    // SAFETY: the call takes no argument.
    let answer = unsafe { nix::libc::ioctl(disk.as_raw_fd(), NVME_IOCTL_ID as _, 0) };
    let id = nix::errno::Errno::result(answer).map_err(io(format_args!("asking {name} for its namespace")))?;
    u32::try_from(id).map_err(|_| fault(format!("{name} has no namespace number"), ""))
}

/// The LBA format a namespace has now (Identify Namespace, FLBAS), placed as Format NVM wants it.
fn format_in_use(disk: &File, name: &str) -> Result<u32> {
    let identify =
        identify(disk, namespace(disk, name)?, 0).map_err(io(format_args!("asking {name} for its format")))?;
    let flbas = u32::from(identify.get(26).copied().unwrap_or(0));
    // Bit 4: metadata at the end of the data; bits 5 and 6: the upper part of the index.
    Ok(flbas & 0x1f | (flbas >> 5 & 3) << 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_way_that_is_there_is_taken() {
        let can = |sanitize, format, format_attributes| Abilities {
            sanitize,
            format,
            format_attributes,
            namespaces: 1,
        };
        assert_eq!(
            action(can(3, true, 4), true),
            Some(Action::Sanitize(4, "cryptographic erase"))
        );
        assert_eq!(action(can(3, true, 4), false), Some(Action::Sanitize(2, "block erase")));
        assert_eq!(
            action(can(4, true, 0), false),
            Some(Action::Sanitize(0x13, "overwrite"))
        );
        assert_eq!(
            action(can(0, true, 4), true),
            Some(Action::Format(2, "cryptographic erase"))
        );
        assert_eq!(action(can(0, true, 0), true), None);
        assert_eq!(
            action(can(0, true, 0), false),
            Some(Action::Format(1, "user data erase"))
        );
        assert_eq!(action(can(0, false, 4), false), None);
    }

    #[test]
    fn a_namespace_nobody_named_is_spared() {
        let list = |numbers: &[u32]| -> Vec<u8> {
            let mut list: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            list.resize(4096, 0);
            list
        };
        assert!(spared(&list(&[1]), &[1]).is_empty());
        assert_eq!(spared(&list(&[1, 2, 5]), &[1]), [2, 5]);
        assert!(spared(&list(&[1, 2]), &[2, 1]).is_empty());
        // A list that is full has no end but its own.
        assert_eq!(spared(&[7, 0, 0, 0, 9], &[]), [7]);
    }

    #[test]
    fn answers_are_read_where_the_standard_has_them() {
        let mut identify = vec![0; 4096];
        identify[256] = 2;
        identify[328] = 0b110;
        identify[524] = 4;
        identify[516..520].copy_from_slice(&32u32.to_le_bytes());
        let can = Abilities::parse(&identify).unwrap();
        assert_eq!((can.sanitize, can.format, can.format_attributes), (6, true, 4));
        assert_eq!(can.namespaces, 32);
        assert_eq!(Abilities::parse(&[0; 100]), None);
        assert_eq!(
            Status::parse(&[0, 0x80, 0x0a, 0]).unwrap(),
            Status {
                progress: 0x8000,
                state: 2
            }
        );
        assert_eq!(Status::parse(&[1]), None);
    }
}
