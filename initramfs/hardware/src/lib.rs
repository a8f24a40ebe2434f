//! Reading a machine: sysfs, SMBIOS, PCI, disks, LLDP, the BMC over KCS; and loading the drivers its devices ask for.
//!
//! Readers take a [`Root`] so that tests run them on fixture trees. Everything is optional: a broken table costs its
//! own fields and nothing else. Nothing here changes a device.

pub mod cmdline;
pub mod modules;
mod root;
#[cfg(test)]
mod testing;
pub mod uevent;

pub use root::Root;
