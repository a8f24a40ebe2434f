//! Disks. One disk is laid out by the image. Of a mirror Ignition makes the image's own partitions anew at the first
//! start, on both disks, and Fedora CoreOS brings its content over by the labels of partitions and file systems.

use rackbar_model::RootTarget;
use serde_json::json;

use super::AT;
use super::config::Config;
use crate::disks;
use crate::error::Result;
use crate::input::Install;

const BIOS: &str = "21686148-6449-6E6F-744E-656564454649";
const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";

pub(super) fn disks(config: &mut Config, install: &Install) -> Result<()> {
    let RootTarget::Mirror(both) = &install.target else {
        return Ok(());
    };
    for (index, disk) in both.iter().enumerate() {
        let name = disks::stable(disk);
        if name.contains('*') {
            return AT.cannot(
                format!("target.disks[{index}]"),
                "a half of a mirror of which only the serial number is known: it needs the WWN or the path",
            );
        }
        let half = index + 1;
        let label = |what: &str| format!("{what}-{half}");
        // No part may be smaller than the image's.
        config.disks.push(json!({
            "device": format!("/dev/{name}"),
            "wipeTable": true,
            "partitions": [
                {"number": 1, "label": label("bios"), "sizeMiB": 1, "typeGuid": BIOS},
                {"number": 2, "label": label("esp"), "sizeMiB": 127, "typeGuid": ESP},
                {"number": 3, "label": label("boot"), "sizeMiB": 384},
                {"number": 4, "label": label("root")},
            ],
        }));
        config.filesystems.push(json!({
            "device": format!("/dev/disk/by-partlabel/{}", label("esp")),
            "format": "vfat",
            "label": label("esp"),
            "wipeFilesystem": true,
        }));
    }
    for (name, format, options) in [("boot", "ext4", &["--metadata=1.0"][..]), ("root", "xfs", &[])] {
        let halves = [1, 2].map(|half| format!("/dev/disk/by-partlabel/{name}-{half}"));
        // Metadata 1.0 lies at the end, so that GRUB reads each half as a plain file system.
        config.raid.push(json!({
            "name": format!("md-{name}"), "level": "raid1", "devices": halves, "options": options,
        }));
        config.filesystems.push(json!({
            "device": format!("/dev/md/md-{name}"), "format": format, "label": name, "wipeFilesystem": true,
        }));
    }
    Ok(())
}
