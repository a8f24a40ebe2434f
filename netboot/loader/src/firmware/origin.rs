//! Telling the system what it was started from, by two variables of the Boot Loader Interface: with several disks of
//! ours in a machine, init knows by them which one the firmware chose.

use alloc::vec::Vec;

use rackbar_loader::device_path;
use uefi::runtime::{self, VariableAttributes, VariableVendor};
use uefi::{CStr16, Guid, cstr16, guid, println};

use super::machine::Machine;

const VENDOR: VariableVendor = VariableVendor(guid!("4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"));

/// `LoaderInfo` says who we are, `LoaderDevicePartUUID` the partition; without the second it was a CD or the network.
pub(super) fn tell(machine: &Machine) {
    set(cstr16!("LoaderInfo"), concat!("Rackbar ", env!("CARGO_PKG_VERSION")));
    let path = machine.device_path().unwrap_or_default();
    if let Some(partition) = device_path::partition(&path) {
        let text = Guid::from_bytes(partition).to_ascii_hex_lower();
        set(
            cstr16!("LoaderDevicePartUUID"),
            core::str::from_utf8(&text).unwrap_or_default(),
        );
    }
}

/// Kept in memory only: the next boot may come from elsewhere.
fn set(name: &CStr16, text: &str) {
    let value: Vec<u8> = text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let attributes = VariableAttributes::BOOTSERVICE_ACCESS | VariableAttributes::RUNTIME_ACCESS;
    if let Err(error) = runtime::set_variable(name, &VENDOR, attributes, &value) {
        println!("Rackbar: the firmware does not keep {name}: {error}");
    }
}
