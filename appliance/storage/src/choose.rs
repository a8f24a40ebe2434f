//! Which disk is meant, and whether the state may go there. Pure.

use crate::{OwnDisk, StorageError};

/// Smallest disk that is taken, in bytes: what an appliance remembers of a rack, and one image.
const LEAST: u64 = 1 << 30;

/// Why a disk is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Nothing has this name.
    #[error(
        "no disk is called {wanted:?}; there are: {there}. A disk is named by kernel name, serial number, WWN or path"
    )]
    Unknown {
        /// As it was asked.
        wanted: String,
        /// The disks there are.
        there: String,
    },
    /// Several have this name.
    #[error("several disks are called {wanted:?}: {them}; name one by its kernel name or path")]
    Ambiguous {
        /// As it was asked.
        wanted: String,
        /// The disks that fit.
        them: String,
    },
    /// It cannot be used as it is, whoever consents.
    #[error("{0}")]
    Unfit(StorageError),
    /// Something is on it.
    #[error(
        "{disk} is not empty: {holds}. All of it would be lost; consent by naming the disk again (command line: --yes-destroy {name})"
    )]
    Consent {
        /// The disk, in words.
        disk: String,
        /// How it is named.
        name: String,
        /// What is on it.
        holds: String,
    },
}

/// A disk in words: `sda (ACME SSD, serial X1, 480 GB)`.
fn words(own: &OwnDisk) -> String {
    let disk = &own.disk;
    let model = disk.model.as_deref().unwrap_or("no model");
    let serial = disk.serial.as_deref().unwrap_or("none");
    format!(
        "{} ({model}, serial {serial}, {} GB)",
        disk.name,
        disk.size_bytes / 1_000_000_000
    )
}

fn list<'a>(disks: impl IntoIterator<Item = &'a OwnDisk>) -> String {
    let all: Vec<String> = disks.into_iter().map(words).collect();
    if all.is_empty() { "none".into() } else { all.join("; ") }
}

fn is_called(own: &OwnDisk, name: &str) -> bool {
    let disk = &own.disk;
    let name = name.trim();
    let kernel = name.strip_prefix("/dev/").unwrap_or(name);
    let path = name.strip_prefix("/dev/disk/by-path/").unwrap_or(name);
    let same = |known: &Option<String>, name: &str| known.as_deref().is_some_and(|known| known.trim() == name);
    !name.is_empty()
        && (disk.name == kernel || same(&disk.serial, name) || same(&disk.wwn, name) || same(&disk.by_path, path))
}

fn find<'a>(disks: &'a [OwnDisk], wanted: &str) -> Result<&'a OwnDisk, Refusal> {
    let fitting: Vec<&OwnDisk> = disks.iter().filter(|disk| is_called(disk, wanted)).collect();
    match fitting.as_slice() {
        [one] => Ok(one),
        [] => Err(Refusal::Unknown {
            wanted: wanted.into(),
            there: list(disks),
        }),
        several => Err(Refusal::Ambiguous {
            wanted: wanted.into(),
            them: list(several.iter().copied()),
        }),
    }
}

/// The one disk that `wanted` names, when the state may go there. `consent` names the disk whose content may be lost.
///
/// # Errors
/// In words for the operator; nothing was touched.
pub fn choose<'a>(disks: &'a [OwnDisk], wanted: &str, consent: Option<&str>) -> Result<&'a OwnDisk, Refusal> {
    let own = find(disks, wanted)?;
    let unfit = |why: String| Err(Refusal::Unfit(StorageError(format!("{} {why}", words(own)))));
    if let Some(trouble) = &own.trouble {
        return unfit(format!("cannot take the state: {trouble}"));
    }
    if !own.users.is_empty() {
        return unfit(format!("is in use: {}", own.users.join("; ")));
    }
    if own.is_boot_medium {
        return unfit("is a boot medium of an appliance, which is never overwritten: choose another disk".into());
    }
    if own.is_read_only {
        return unfit("is write-protected".into());
    }
    if own.disk.size_bytes < LEAST {
        return unfit("is smaller than 1 GiB".into());
    }
    if let Some(other) = disks
        .iter()
        .find(|other| other.has_state && other.disk.name != own.disk.name)
    {
        return unfit(format!(
            "cannot be told from {} at the next boot, which has a partition {} too: take that disk out, or name it here",
            words(other),
            crate::DATA
        ));
    }
    match consent {
        // Typed for another disk: whoever typed it has something else in mind.
        Some(name) if find(disks, name)?.disk.name != own.disk.name => {
            unfit(format!("is not {name:?}, which was consented to"))
        }
        None if !own.holds.is_empty() => Err(Refusal::Consent {
            disk: words(own),
            name: wanted.into(),
            holds: own.holds.join(", "),
        }),
        _ => Ok(own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackbar_model::Disk;

    fn own(name: &str, serial: &str) -> OwnDisk {
        OwnDisk {
            disk: Disk {
                name: name.into(),
                serial: Some(serial.into()),
                by_path: Some(format!("pci-{name}")),
                size_bytes: 8 << 30,
                ..Disk::default()
            },
            ..OwnDisk::default()
        }
    }

    fn full(name: &str, serial: &str) -> OwnDisk {
        OwnDisk {
            holds: vec!["partition 1 (ext4, 100 MiB)".into()],
            ..own(name, serial)
        }
    }

    fn chosen(disks: &[OwnDisk], wanted: &str, consent: Option<&str>) -> Result<String, String> {
        let chosen = choose(disks, wanted, consent);
        chosen
            .map(|own| own.disk.name.clone())
            .map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_disk_is_named_by_any_of_its_names_or_not_at_all() {
        let disks = [own("sda", "A"), own("sdb", "B")];
        for name in ["sdb", "/dev/sdb", "B", "pci-sdb", "/dev/disk/by-path/pci-sdb"] {
            assert_eq!(chosen(&disks, name, None), Ok("sdb".into()), "{name}");
        }
        for name in ["", "sd", "sdc", "b"] {
            let words = chosen(&disks, name, None).unwrap_err();
            assert!(words.contains("sda (no model, serial A, 8 GB)"), "{words}");
        }
        let twins = [own("sda", "0"), own("sdb", "0")];
        let words = chosen(&twins, "0", None).unwrap_err();
        assert!(words.contains("sda (") && words.contains("sdb ("), "{words}");
        assert_eq!(chosen(&twins, "sda", None), Ok("sda".into()));
    }

    #[test]
    fn what_is_on_a_disk_goes_only_with_consent_to_that_disk() {
        let disks = [full("sda", "A"), own("sdb", "B")];
        let words = chosen(&disks, "sda", None).unwrap_err();
        assert!(
            words.contains("partition 1 (ext4") && words.contains("--yes-destroy sda"),
            "{words}"
        );
        assert_eq!(chosen(&disks, "sda", Some("A")), Ok("sda".into()));
        assert!(chosen(&disks, "sda", Some("sdb")).unwrap_err().contains("consented"));
        assert!(
            chosen(&disks, "sda", Some("yes"))
                .unwrap_err()
                .contains("no disk is called")
        );
        assert_eq!(chosen(&disks, "sdb", None), Ok("sdb".into()));
    }

    #[test]
    fn no_consent_gives_away_a_disk_that_is_needed() {
        let used = OwnDisk {
            users: vec!["sda1 is mounted at /esp".into()],
            ..full("sda", "A")
        };
        let stick = OwnDisk {
            is_boot_medium: true,
            ..full("sda", "A")
        };
        let locked = OwnDisk {
            is_read_only: true,
            ..own("sda", "A")
        };
        let small = OwnDisk {
            disk: Disk {
                size_bytes: 64 << 20,
                ..own("sda", "A").disk
            },
            ..own("sda", "A")
        };
        let broken = OwnDisk {
            trouble: Some("it cannot be read: EIO".into()),
            ..own("sda", "A")
        };
        let cases = [
            (used, "mounted at /esp"),
            (stick, "boot medium"),
            (locked, "write-protected"),
            (small, "smaller"),
            (broken, "EIO"),
        ];
        for (disk, why) in cases {
            let words = chosen(&[disk], "sda", Some("sda")).unwrap_err();
            assert!(words.contains(why), "{words}");
        }
    }

    #[test]
    fn a_second_disk_for_the_state_would_leave_the_next_boot_without_any() {
        let other = OwnDisk {
            has_state: true,
            ..full("sdb", "B")
        };
        let disks = [own("sda", "A"), other];
        assert!(chosen(&disks, "sda", None).unwrap_err().contains("sdb ("));
        // It may be the one that is replaced.
        assert_eq!(chosen(&disks, "sdb", Some("sdb")), Ok("sdb".into()));
    }
}
