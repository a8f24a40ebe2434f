//! The file beside us on the volume that we were started from, if that is a medium of the appliance's.

use alloc::vec;
use alloc::vec::Vec;

use rackbar_boot::{MEDIUM_FILE, MEDIUM_FILE_LONGEST};
use rackbar_loader::medium::servers;
use rackbar_loader::server::Server;
use uefi::CStr16;
use uefi::proto::media::file::{File as _, FileAttribute, FileMode};
use uefi::proto::media::fs::SimpleFileSystem;

use super::machine::{Machine, get};

/// The boot servers the medium names; none when we came over the network.
pub(super) fn named(machine: &Machine) -> Vec<Server> {
    read(machine).map(|text| servers(&text)).unwrap_or_default()
}

fn read(machine: &Machine) -> Option<Vec<u8>> {
    let mut volume = get::<SimpleFileSystem>(machine.device?).ok()?;
    let mut name = [0; MEDIUM_FILE.len() + 1];
    let name = CStr16::from_str_with_buf(MEDIUM_FILE, &mut name).ok()?;
    let mut root = volume.open_volume().ok()?;
    let file = root.open(name, FileMode::Read, FileAttribute::empty()).ok()?;
    let mut text = vec![0; MEDIUM_FILE_LONGEST];
    let length = file.into_regular_file()?.read(&mut text).ok()?;
    text.truncate(length);
    Some(text)
}
