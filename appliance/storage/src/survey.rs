//! What disks there are, what is on them and who uses them.

use rackbar_hardware::{Root, disks, gpt};
use rackbar_install::{Machine, own};
use rackbar_model::Disk;

use crate::{DATA, ESP};

/// A disk of this machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnDisk {
    /// What it is.
    pub disk: Disk,
    /// What is on it, in words; empty when it is blank.
    pub holds: Vec<String>,
    /// Who uses it, in words; empty when nobody does.
    pub users: Vec<String>,
    /// It has a partition that an appliance boots from.
    pub is_boot_medium: bool,
    /// It has a partition for an appliance's state.
    pub has_state: bool,
    /// It takes no writes.
    pub is_read_only: bool,
    /// Why it could not be looked at.
    pub trouble: Option<String>,
}

/// Every disk of the machine at `root`, by kernel name.
pub fn survey(root: &Root) -> Vec<OwnDisk> {
    let machine = Machine { root: root.clone() };
    disks::read(root).into_iter().map(|disk| look(&machine, disk)).collect()
}

fn look(machine: &Machine, disk: Disk) -> OwnDisk {
    let root = &machine.root;
    let (holds, trouble) = match own::contents(machine, &disk.name) {
        Ok(holds) => (holds, None),
        Err(error) => (Vec::new(), Some(format!("it cannot be read: {error}"))),
    };
    let sector = u64::from(disk.sector_bytes).max(512);
    let table = std::fs::File::open(root.path(format!("dev/{}", disk.name)))
        .ok()
        .and_then(|file| gpt::find(&file, sector, disk.size_bytes / sector));
    let names: Vec<String> = table
        .map(|found| found.table.partitions().into_iter().map(|part| part.name).collect())
        .unwrap_or_default();
    OwnDisk {
        users: own::users(machine, &disk.name),
        is_boot_medium: names.iter().any(|name| name == ESP),
        has_state: names.iter().any(|name| name == DATA),
        is_read_only: root.number(format!("sys/block/{}/ro", disk.name)) == Some(1u8),
        holds,
        trouble,
        disk,
    }
}
