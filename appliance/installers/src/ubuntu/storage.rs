//! Disks in curtin's words, version 1: a list of actions, each of which names those that it stands on.

use rackbar_model::{FirmwareMode, RootTarget};
use serde_json::{Value, json};

use crate::input::Install;

/// What stands for the path of a disk until the installer has found it.
pub(super) fn placeholder(index: usize) -> String {
    format!("RACKBAR_DISK{index}")
}

pub(super) fn storage(install: &Install) -> Value {
    let uefi = install.firmware == FirmwareMode::Uefi;
    let mirror = matches!(install.target, RootTarget::Mirror(_));
    let mut config = Vec::new();
    let partition = |id: &str, disk: &str, number: u8, size: Value, flag: &str, grub: bool| {
        json!({"type": "partition", "id": id, "device": disk, "number": number, "size": size, "flag": flag,
            "grub_device": grub, "preserve": false, "wipe": "superblock"})
    };
    for (index, _) in install.target.disks().iter().enumerate() {
        let disk = format!("disk{index}");
        config.push(
            json!({"type": "disk", "id": disk, "path": placeholder(index), "ptable": "gpt",
            "wipe": "superblock-recursive", "preserve": false, "grub_device": !uefi}),
        );
        let root = format!("root{index}");
        if uefi {
            let esp = format!("esp{index}");
            let name = format!("{esp}-fs");
            // Ubuntu's GRUB writes itself into each system partition that is a device of its.
            config.push(partition(&esp, &disk, 1, "600M".into(), "boot", true));
            config.push(json!({"type": "format", "id": name, "volume": esp, "fstype": "fat32", "preserve": false}));
        } else {
            config.push(partition(
                &format!("bios{index}"),
                &disk,
                1,
                "1M".into(),
                "bios_grub",
                false,
            ));
        }
        config.push(partition(&root, &disk, 2, (-1).into(), "", false));
    }
    let volume = if mirror {
        config.push(json!({"type": "raid", "id": "md0", "name": "md0", "raidlevel": "raid1",
            "devices": ["root0", "root1"], "preserve": false}));
        "md0"
    } else {
        "root0"
    };
    config.push(json!({"type": "format", "id": "root-fs", "volume": volume, "fstype": "ext4", "preserve": false}));
    config.push(json!({"type": "mount", "id": "root-mount", "device": "root-fs", "path": "/"}));
    if uefi {
        config.push(json!({"type": "mount", "id": "esp-mount", "device": "esp0-fs", "path": "/boot/efi"}));
    }
    // The firmware's order of starting is the appliance's to set.
    json!({"config": config, "swap": {"size": 0}, "grub": {"reorder_uefi": false}})
}
