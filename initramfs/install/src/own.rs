//! A disk of the machine that runs this program, as the appliance's own storage asks: what is on it, who uses it, and
//! emptying it. Nothing here is sent by an appliance; its callers are on this machine.

use std::io;

use crate::control::io as during;
use crate::disk::{self, Disk};
use crate::erase::signatures;
use crate::{Machine, Result};

/// What a disk holds, in words; empty when it is blank: no partition table, no signature, and zeros at both ends.
///
/// # Errors
/// When it cannot be read.
pub fn contents(machine: &Machine, name: &str) -> io::Result<Vec<String>> {
    signatures::found(&Disk::open_to_read(&machine.root.path(format!("dev/{name}")))?)
}

/// Who uses a disk or a partition of it, in words: mounts, swap, arrays and maps on top of it.
pub fn users(machine: &Machine, name: &str) -> Vec<String> {
    disk::users(&machine.root, name)
}

/// The kernel's name of a disk's partition.
pub fn partition_name(disk: &str, number: u32) -> String {
    disk::partition_name(disk, number)
}

/// Wipes every signature on a disk that nothing uses, and looks whether one is left; gives what was done.
///
/// # Errors
/// When something uses the disk (the kernel's own word on it), or it cannot be written, or does not keep what it is told.
pub fn empty(machine: &Machine, name: &str) -> Result<Vec<String>> {
    let disk = Disk::open(&machine.root.path(format!("dev/{name}"))).map_err(during(format_args!("opening {name}")))?;
    let mut steps = signatures::wipe(&disk, name)?;
    disk.sync().map_err(during(format_args!("emptying {name}")))?;
    steps.push(signatures::verify(&disk, name)?);
    Ok(steps)
}
