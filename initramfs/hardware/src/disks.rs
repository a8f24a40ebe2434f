//! Whole disks, from `/sys/block`, with their own word on their health.

use std::path::Path;

use rackbar_model::{Disk, DiskBus};

use crate::{Root, health, pci_of};

/// Block devices that are no disks: memory, loops, floppies, CD drives, and what is stacked on disks.
const NO_DISKS: [&str; 9] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "drbd"];

/// All disks with a medium.
pub fn read(root: &Root) -> Vec<Disk> {
    let names = root.names("sys/block").into_iter();
    // A native multipath NVMe disk also shows its hidden paths, `nvme0c1n1`.
    let hidden = |name: &str| root.number(format!("sys/block/{name}/hidden")) == Some(1u8);
    let disk = |name: &String| !NO_DISKS.iter().any(|kind| name.starts_with(kind)) && !hidden(name);
    names
        .filter(disk)
        .map(|name| read_one(root, name))
        .filter(|disk| disk.size_bytes > 0)
        .collect()
}

fn read_one(root: &Root, name: String) -> Disk {
    let folder = format!("sys/block/{name}");
    let device = format!("{folder}/device");
    let path = root.resolve(&device).unwrap_or_default();
    let vendor = root.text(format!("{device}/vendor"));
    let bus = bus_of(&name, &path, vendor.as_deref());
    let flag = |file: &str| root.number(format!("{folder}/{file}")) == Some(1u8);
    let pci = pci_of(root, &device).or_else(|| controller_pci(root, &device));
    // The kernel counts in 512 bytes here, whatever the disk's own sectors are.
    let sectors: u64 = root.number(format!("{folder}/size")).unwrap_or(0);
    Disk {
        size_bytes: sectors.saturating_mul(512),
        model: model(root, &device, vendor.as_deref()),
        serial: serial(root, &folder, &device).or_else(|| usb_serial(root, &device).filter(|_| bus == DiskBus::Usb)),
        wwn: wwn(root, &folder, &device),
        firmware: root
            .text(format!("{device}/firmware_rev"))
            .or_else(|| root.text(format!("{device}/rev"))),
        rotational: flag("queue/rotational") && bus != DiskBus::Virtio,
        by_path: by_path(root, &name, &path, pci.as_deref(), bus),
        pci,
        sector_bytes: root.number(format!("{folder}/queue/logical_block_size")).unwrap_or(512),
        removable: flag("removable"),
        health: health::read(root, &name, bus),
        bus,
        name,
    }
}

fn model(root: &Root, device: &str, vendor: Option<&str>) -> Option<String> {
    let model = root.text(format!("{device}/model"));
    // libata puts "ATA" where SCSI has the maker.
    match (
        vendor.filter(|vendor| *vendor != "ATA" && !vendor.starts_with("0x")),
        model,
    ) {
        (Some(vendor), Some(model)) => Some(format!("{vendor} {model}")),
        (_, model) => model,
    }
}

fn serial(root: &Root, folder: &str, device: &str) -> Option<String> {
    let nvme = root.text(format!("{device}/serial"));
    let virtio = || root.text(format!("{folder}/serial"));
    // Vital product data page 0x80 (SPC-4, 7.8.15): four bytes of header, then the serial number.
    let scsi = || {
        let page = root.bytes(format!("{device}/vpd_pg80"))?;
        let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
        let text = String::from_utf8_lossy(page.get(4..4 + length)?)
            .trim_matches(|c: char| c.is_whitespace() || c == '\0')
            .to_owned();
        (!text.is_empty()).then_some(text)
    };
    nvme.or_else(virtio).or_else(scsi)
}

/// Most sticks have no vital product data; the USB device itself has a serial number (USB 2.0, 9.6.1). Above the SCSI device
/// are target, host and interface, and then it.
fn usb_serial(root: &Root, device: &str) -> Option<String> {
    let usb = format!("{device}/../../../..");
    root.text(format!("{usb}/idVendor"))?;
    root.text(format!("{usb}/serial"))
}

/// `naa.`, `eui.` and `uuid.` names are world-wide; `t10.` and `nvme.` are only model and serial number again.
fn wwn(root: &Root, folder: &str, device: &str) -> Option<String> {
    let names = [root.text(format!("{folder}/wwid")), root.text(format!("{device}/wwid"))];
    names
        .into_iter()
        .flatten()
        .find(|name| ["naa.", "eui.", "uuid."].iter().any(|kind| name.starts_with(kind)))
}

fn bus_of(name: &str, path: &Path, vendor: Option<&str>) -> DiskBus {
    let part = |prefix: &str| {
        path.iter()
            .filter_map(|part| part.to_str())
            .any(|part| part.starts_with(prefix))
    };
    match name {
        _ if name.starts_with("nvme") => DiskBus::Nvme,
        _ if name.starts_with("vd") || part("virtio") => DiskBus::Virtio,
        _ if name.starts_with("mmcblk") => DiskBus::Mmc,
        _ if part("usb") => DiskBus::Usb,
        // A SATA disk behind a SAS controller is still a SATA disk.
        _ if part("ata") || vendor == Some("ATA") => DiskBus::Sata,
        _ if name.starts_with("sd") => DiskBus::Sas,
        _ => DiskBus::Unknown,
    }
}

/// With native multipath an NVMe disk hangs below a virtual subsystem that links its controllers.
fn controller_pci(root: &Root, device: &str) -> Option<String> {
    let controllers = root.names(device).into_iter().filter(|name| name.starts_with("nvme"));
    controllers
        .filter_map(|name| pci_of(root, format!("{device}/{name}")))
        .next()
}

/// The name udev's `path_id` gives, where it follows from the bus address.
fn by_path(root: &Root, name: &str, path: &Path, pci: Option<&str>, bus: DiskBus) -> Option<String> {
    let pci = pci?;
    let part = |prefix: &str| path.iter().filter_map(|p| p.to_str()).find(|p| p.starts_with(prefix));
    match bus {
        DiskBus::Nvme => {
            let namespace: u32 = root.number(format!("sys/block/{name}/nsid"))?;
            Some(format!("pci-{pci}-nvme-{namespace}"))
        }
        DiskBus::Virtio if name.starts_with("vd") => Some(format!("pci-{pci}")),
        DiskBus::Sata => {
            let port = part("ata")?;
            let number: u32 = root.number(format!("sys/class/ata_port/{port}/port_no"))?;
            Some(format!("pci-{pci}-ata-{number}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn a_stick_has_the_serial_number_of_its_usb_device() {
        let usb = "sys/devices/pci0000:00/0000:00:03.0/usb1/1-1";
        let scsi = format!("{usb}/1-1:1.0/host3/target3:0:0/3:0:0:0");
        let at = |folder: &str, file: &str| format!("{folder}/{file}");
        let files: Vec<(String, &[u8])> = vec![
            (at(usb, "idVendor"), b"46f4\n"),
            (at(usb, "serial"), b"STICK0001\n"),
            (at(&scsi, "vendor"), b"QEMU    \n"),
            ("sys/block/sdc/size".into(), b"2048\n"),
        ];
        let files: Vec<(&str, &[u8])> = files.iter().map(|(path, bytes)| (path.as_str(), *bytes)).collect();
        let tree = Tree::of_bytes(&files).link("sys/block/sdc/device", &scsi);
        let disks = read(tree.root());
        assert_eq!(
            (disks[0].bus, disks[0].serial.as_deref()),
            (DiskBus::Usb, Some("STICK0001"))
        );
    }

    #[test]
    fn three_kinds_of_disks_are_read() {
        let sata = "sys/devices/pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0";
        let nvme = "sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0";
        let virtio = "sys/devices/pci0000:00/0000:00:05.0/virtio2";
        let at = |folder: &str, file: &str| format!("{folder}/{file}");
        let files: Vec<(String, &[u8])> = vec![
            (at(sata, "vendor"), b"ATA     \n"),
            (at(sata, "model"), b"QEMU HARDDISK   \n"),
            (at(sata, "vpd_pg80"), b"\0\x80\0\x14            SATA0001"),
            (at(sata, "wwid"), b"naa.5000c500a1b2c3d4\n"),
            (at(sata, "rev"), b"2.5+\n"),
            (at(nvme, "model"), b"QEMU NVMe Ctrl\n"),
            (at(nvme, "serial"), b"NVME0001\n"),
            (at(nvme, "firmware_rev"), b"7.2\n"),
            (at(virtio, "vendor"), b"0x1af4\n"),
            ("sys/block/sda/size".into(), b"2048\n"),
            ("sys/block/sda/queue/rotational".into(), b"1\n"),
            ("sys/block/nvme0n1/size".into(), b"4096\n"),
            ("sys/block/nvme0n1/nsid".into(), b"1\n"),
            ("sys/block/nvme0n1/wwid".into(), b"eui.0025385b01234567\n"),
            ("sys/block/vda/size".into(), b"8\n"),
            ("sys/block/vda/serial".into(), b"VIRT0001\n"),
            ("sys/block/loop0/size".into(), b"8\n"),
            ("sys/block/sdb/size".into(), b"0\n"),
            ("sys/class/ata_port/ata3/port_no".into(), b"3\n"),
        ];
        let files: Vec<(&str, &[u8])> = files.iter().map(|(path, bytes)| (path.as_str(), *bytes)).collect();
        let tree = Tree::of_bytes(&files)
            .link("sys/block/sda/device", sata)
            .link("sys/block/nvme0n1/device", nvme)
            .link("sys/block/vda/device", virtio);
        let disks = read(tree.root());
        let summary: Vec<_> = disks
            .iter()
            .map(|d| (d.name.as_str(), d.bus, d.serial.as_deref(), d.by_path.as_deref()))
            .collect();
        assert_eq!(
            summary,
            [
                (
                    "nvme0n1",
                    DiskBus::Nvme,
                    Some("NVME0001"),
                    Some("pci-0000:00:04.0-nvme-1")
                ),
                ("sda", DiskBus::Sata, Some("SATA0001"), Some("pci-0000:00:1f.2-ata-3")),
                ("vda", DiskBus::Virtio, Some("VIRT0001"), Some("pci-0000:00:05.0")),
            ]
        );
        assert_eq!((disks[1].size_bytes, disks[1].rotational), (1 << 20, true));
        assert_eq!(disks[1].model.as_deref(), Some("QEMU HARDDISK"));
        assert_eq!(disks[1].wwn.as_deref(), Some("naa.5000c500a1b2c3d4"));
        assert_eq!(disks[0].wwn.as_deref(), Some("eui.0025385b01234567"));
        assert_eq!(disks[2].model, None);
    }
}
