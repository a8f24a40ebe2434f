//! Where data packs may lie: files in folders, partitions named for them, and whole disks that begin like one.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rackbar_packs::looks_like_one;

/// Names of partitions that hold a pack begin so.
const PARTITION: &str = "rackbar-pack-";

/// The ending of a pack's file.
const ENDING: &str = "pack";

/// A place that may hold a pack, with what changes when another comes to lie there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    bytes: u64,
    written: Option<SystemTime>,
    medium: u64,
}

/// Files in a folder that are named like packs. A folder that is not there has none.
pub(super) fn in_folder(folder: &Path) -> Vec<Place> {
    let all = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let place = |path: PathBuf| {
        // ISO 9660 and FAT may show names in upper case.
        let named = path
            .extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case(ENDING));
        let meta = path.metadata().ok().filter(|meta| named && meta.is_file())?;
        Some(Place {
            path,
            bytes: meta.len(),
            written: meta.modified().ok(),
            medium: 0,
        })
    };
    let mut found: Vec<_> = all.filter_map(|entry| place(entry.path())).collect();
    found.sort();
    found
}

/// A block device of the machine.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Device {
    name: String,
    sectors: u64,
    partition: String,
    /// Which medium it is: the kernel counts them up, so that one of the same size under the same name is another one.
    medium: u64,
}

/// All block devices with something in them, as the kernel lists them below `sys` (`/sys/class/block`). Opens none.
pub(super) fn devices(sys: &Path) -> Vec<Device> {
    let all = std::fs::read_dir(sys).into_iter().flatten().flatten();
    let device = |name: String| {
        let text = |file: &str| std::fs::read_to_string(sys.join(&name).join(file)).unwrap_or_default();
        let sectors = text("size").trim().parse().unwrap_or(0);
        let memory = ["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind));
        let uevent = text("uevent");
        let partition = uevent.lines().find_map(|line| line.strip_prefix("PARTNAME="));
        let partition = partition.unwrap_or_default().to_owned();
        // A partition has none of its own; above it is its disk.
        let numbers = ["diskseq", "../diskseq"].map(text);
        let medium = numbers.iter().find_map(|number| number.trim().parse().ok());
        (sectors > 0 && !memory).then_some(Device {
            name,
            sectors,
            partition,
            medium: medium.unwrap_or(0),
        })
    };
    let mut found: Vec<_> = all
        .filter_map(|entry| device(entry.file_name().into_string().ok()?))
        .collect();
    found.sort();
    found
}

/// Those of them that hold a pack or are meant to.
pub(super) fn on_devices(devices: &[Device], dev: &Path) -> Vec<Place> {
    let holds = |path: &Path| {
        let mut start = [0; 8];
        File::open(path)
            .and_then(|mut file| file.read_exact(&mut start))
            .is_ok()
            && looks_like_one(&start)
    };
    let places = devices.iter().map(|device| (device, dev.join(&device.name)));
    let places = places.filter(|(device, path)| device.partition.starts_with(PARTITION) || holds(path));
    places
        .map(|(device, path)| Place {
            path,
            bytes: device.sectors.saturating_mul(512),
            written: None,
            medium: device.medium,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_are_found_by_ending_by_partition_and_by_their_first_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let put = |path: PathBuf, text: &[u8]| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for name in ["packs/b.PACK", "packs/a.pack", "packs/readme.txt"] {
            put(at(name), b"x");
        }
        let names = |places: Vec<Place>| {
            let name = |place: Place| place.path.file_name().unwrap().to_str().unwrap().to_owned();
            places.into_iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(in_folder(&at("packs"))), ["a.pack", "b.PACK"]);
        assert!(in_folder(&at("none")).is_empty());
        let disks: [(&str, &str, &[u8]); 6] = [
            ("sda", "", b"\0\0\0\0\0\0\0\0"),
            ("sda1", "rackbar-esp", b"\0\0\0\0\0\0\0\0"),
            ("sda2", "rackbar-pack-1", b"\0\0\0\0\0\0\0\0"),
            ("sdb", "", b"RBPACK\r\n"),
            ("loop0", "", b"RBPACK\r\n"),
            ("sr0", "", b""),
        ];
        for (name, partition, start) in disks {
            put(
                at("sys").join(name).join("size"),
                if name == "sr0" { b"0\n" } else { b"8\n" },
            );
            put(
                at("sys").join(name).join("uevent"),
                format!("MAJOR=8\nPARTNAME={partition}\n").as_bytes(),
            );
            put(at("dev").join(name), start);
        }
        let found = devices(&at("sys"));
        let before = on_devices(&found, &at("dev"));
        assert_eq!(names(before.clone()), ["sda2", "sdb"]);
        // Another stick of the same size, put in between two looks.
        put(at("sys/sdb/diskseq"), b"12\n");
        let after = on_devices(&devices(&at("sys")), &at("dev"));
        assert_eq!((before.first(), before.len()), (after.first(), after.len()));
        assert_ne!(before.last(), after.last());
    }
}
