//! Putting GRUB onto a disk for BIOS firmware, which `grub-install` does through a block device and we do to a file.
//!
//! Three parts, one after the other:
//! * `boot.img`, 512 bytes, goes into the first sector of the disk, around the partition table. The firmware runs it;
//!   it loads one sector, whose number stands in it at 0x5C.
//! * `diskboot.img`, 512 bytes, is the first sector of the core image. It loads the rest, by a list of sector runs that
//!   grows down from its end: the first run's entry is at 500.
//! * The rest of the core image, compressed, is GRUB itself with the modules that read the root file system.
//!
//! The core image lies in a BIOS boot partition (type 21686148-6449-6E6F-744E-656564454649), where no file system moves
//! it. Offsets are those of GRUB 2.06: `include/grub/i386/pc/boot.h`, `include/grub/offsets.h`, `util/setup.c`.

use anyhow::{Result, ensure};

/// Size of a sector as BIOS firmware reads it.
const SECTOR: usize = 512;
/// In `boot.img`: number of the core image's first sector, 8 bytes (`GRUB_BOOT_MACHINE_KERNEL_SECTOR`).
const KERNEL_SECTOR: usize = 0x5C;
/// In `boot.img`: two bytes of code that decide whether the firmware's drive number is believed
/// (`GRUB_BOOT_MACHINE_DRIVE_CHECK`).
const DRIVE_CHECK: usize = 0x66;
/// In `boot.img`: from here to its end belongs to the disk: NT signature, partition table, boot signature
/// (`GRUB_BOOT_MACHINE_WINDOWS_NT_MAGIC`).
const BOOT_CODE_END: usize = 0x1B8;
/// In the core image's first sector: the first run of the block list: start sector (8 bytes), number of sectors (2),
/// segment to load to (2) (`struct grub_pc_bios_boot_blocklist`).
const FIRST_RUN: usize = SECTOR - 12;
/// Where the core image's second sector is loaded: `GRUB_BOOT_I386_PC_KERNEL_SEG` plus the first sector's 32 paragraphs.
const LOAD_SEGMENT: u16 = 0x820;
/// The loader reads below the BIOS data area at 640 KiB.
const LARGEST_CORE: usize = 0x9_0000 - 0x8000;

/// The boot code for the disk's first sector, up to where the partition table's part of the sector begins.
///
/// # Errors
/// When `boot_img` is not one of GRUB's.
pub fn boot_code(boot_img: &[u8], core_sector: u64) -> Result<[u8; BOOT_CODE_END]> {
    ensure!(
        boot_img.len() == SECTOR && boot_img.ends_with(&[0x55, 0xAA]),
        "GRUB's boot.img has {} bytes and should be one boot sector",
        boot_img.len()
    );
    let mut code = [0; BOOT_CODE_END];
    code.copy_from_slice(&boot_img[..BOOT_CODE_END]);
    ensure!(
        // A short jump over the code that sets the drive number to 0x80 when it is not a hard disk's.
        code[DRIVE_CHECK] == 0xEB,
        "GRUB's boot.img has {:#04x} at {DRIVE_CHECK:#x}, not the jump of version 2.06",
        code[DRIVE_CHECK]
    );
    code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&core_sector.to_le_bytes());
    // Some firmware starts a hard disk's sector with drive number 0 or 1. Two no-ops let GRUB correct that, as
    // grub-install does for everything but floppy disks.
    code[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    Ok(code)
}

/// The core image with its block list filled in, padded to whole sectors, for `core_sector` of the disk.
///
/// # Errors
/// When `core` is not one that `grub-mkimage -O i386-pc` made, or is too large to be loaded.
pub fn place_core(core: &[u8], core_sector: u64) -> Result<Vec<u8>> {
    ensure!(
        core.len() > SECTOR && core.len() <= LARGEST_CORE,
        "GRUB's core image has {} bytes; {} to {LARGEST_CORE} can be loaded",
        core.len(),
        SECTOR + 1
    );
    let mut placed = core.to_vec();
    placed.resize(core.len().next_multiple_of(SECTOR), 0);
    let sectors = u16::try_from(placed.len() / SECTOR - 1)?;
    let run = &mut placed[FIRST_RUN..SECTOR];
    ensure!(
        run[8..10] == sectors.to_le_bytes() && run[10..12] == LOAD_SEGMENT.to_le_bytes(),
        "GRUB's core image says that {} sectors follow its first one at segment {:#x}; {sectors} follow",
        u16::from_le_bytes([run[8], run[9]]),
        u16::from_le_bytes([run[10], run[11]]),
    );
    run[..8].copy_from_slice(&(core_sector + 1).to_le_bytes());
    Ok(placed)
}

/// What GRUB does first, in the core image: find the root file system by UUID, wherever the firmware has put its disk.
/// A half of an md mirror with metadata 1.0 is found as the plain file system it is. `grub.cfg` follows by itself.
pub fn embedded_config(root_uuid: &str) -> String {
    format!("search.fs_uuid {root_uuid} root --no-floppy\nset prefix=($root)/boot/grub\n")
}

/// Modules of the core image: partitions, file system, mirror, and what `grub.cfg` uses. Nothing is loaded from the
/// root file system later.
pub const CORE_MODULES: &[&str] = &[
    "biosdisk",
    "part_gpt",
    "ext2",
    "diskfilter",
    "mdraid1x",
    "search",
    "search_fs_uuid",
    "normal",
    "configfile",
    "linux",
    "echo",
    "test",
    "sleep",
    "serial",
    "terminal",
    "ls",
    "cat",
    "reboot",
    "halt",
    "minicmd",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn boot_img() -> Vec<u8> {
        let mut image = vec![0x11; SECTOR];
        image[DRIVE_CHECK] = 0xEB;
        image[510..].copy_from_slice(&[0x55, 0xAA]);
        image
    }

    fn core(sectors: u16) -> Vec<u8> {
        let mut core = vec![0x22; SECTOR * usize::from(sectors) - 10];
        core[500..508].fill(0);
        core[508..510].copy_from_slice(&(sectors - 1).to_le_bytes());
        core[510..512].copy_from_slice(&[0x20, 0x08]);
        core
    }

    #[test]
    fn boot_code_names_the_core_sector_and_leaves_the_rest() {
        let code = boot_code(&boot_img(), 0x0001_2345_6789).unwrap();
        assert_eq!(code[0x5C..0x64], [0x89, 0x67, 0x45, 0x23, 0x01, 0, 0, 0]);
        assert_eq!(code[0x66..0x68], [0x90, 0x90]);
        let patched = (0x5C..0x64).chain(0x66..0x68);
        let others = (0..BOOT_CODE_END).filter(|at| !patched.clone().any(|changed| changed == *at));
        assert!(others.into_iter().all(|at| code[at] == 0x11));
    }

    #[test]
    fn the_core_image_loads_what_follows_its_first_sector() {
        let placed = place_core(&core(90), 2048).unwrap();
        assert_eq!(placed.len(), 90 * SECTOR);
        assert_eq!(placed[500..508], 2049u64.to_le_bytes());
        assert_eq!(placed[508..512], [89, 0, 0x20, 0x08]);
        assert_eq!((placed[499], placed[512]), (0x22, 0x22));
    }

    #[test]
    fn what_is_not_grubs_is_refused() {
        assert!(boot_code(&[0; 512], 1).is_err());
        assert!(boot_code(&boot_img()[..511], 1).is_err());
        let mut other = boot_img();
        other[DRIVE_CHECK] = 0x90;
        assert!(boot_code(&other, 1).is_err());
        assert!(place_core(&core(90)[..SECTOR], 1).is_err());
        assert!(place_core(&core(90)[..88 * SECTOR], 1).is_err());
        assert!(place_core(&vec![0; LARGEST_CORE + 1], 1).is_err());
    }
}
