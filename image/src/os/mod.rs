//! Disk images of operating systems for the nodes: their recipe, GRUB for BIOS and UEFI, and the disk they end up on.

pub mod disk;
pub mod grub;
pub mod recipe;
