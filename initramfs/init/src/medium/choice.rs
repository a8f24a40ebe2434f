//! Which of the volumes that were found is the boot medium, and which partition takes the state. Pure.

use std::fmt;

use rackbar_hardware::Root;
use rackbar_hardware::cmdline::Arguments;

use super::{DATA, Medium};

/// Text of a GUID as it stands in a table.
pub(super) fn guid_text(bytes: &[u8]) -> String {
    let order = [3usize, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::new();
    for (position, index) in order.into_iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", bytes.get(index).copied().unwrap_or(0)));
    }
    text
}

/// What tells several media apart: two variables of the Boot Loader Interface, and the operator.
#[derive(Default)]
pub(super) struct Hints {
    /// Partition the loader was started from.
    partition: Option<String>,
    /// Our loader was started from no partition: from a CD or over the network.
    elsewhere: bool,
    /// Disk for the state, as the operator named it.
    disk: Option<String>,
}

/// An EFI variable of the Boot Loader Interface: UTF-16 behind four bytes of attributes.
fn loader_variable(root: &Root, name: &str) -> Option<String> {
    let file = format!("sys/firmware/efi/efivars/{name}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f");
    let bytes = root.bytes(file)?;
    let units = bytes
        .get(4..)?
        .chunks_exact(2)
        .map(|u| u16::from_le_bytes([u[0], u[1]]));
    Some(String::from_utf16_lossy(
        &units.take_while(|u| *u != 0).collect::<Vec<_>>(),
    ))
}

impl Hints {
    pub(super) fn read(root: &Root, arguments: &Arguments) -> Self {
        let partition = loader_variable(root, "LoaderDevicePartUUID").map(|guid| guid.to_lowercase());
        let ours = loader_variable(root, "LoaderInfo").is_some_and(|loader| loader.starts_with("Rackbar"));
        Self {
            elsewhere: ours && partition.is_none(),
            partition,
            disk: arguments.value("rackbar.disk").map(str::to_lowercase),
        }
    }

    /// What the firmware or the operator chose is not there yet.
    pub(super) fn is_awaited(&self, choice: &Result<Choice, String>) -> bool {
        let booted = match choice {
            Ok(Choice {
                boot: Some(Volume::Esp(medium)),
                ..
            }) => self.names(medium),
            _ => false,
        };
        let state = choice.as_ref().is_ok_and(|choice| choice.state.is_ok());
        self.partition.is_some() && !booted || self.disk.is_some() && !state
    }

    /// Something better may still appear: we were not started from the disk that was found.
    pub(super) fn may_improve(&self, choice: &Choice) -> bool {
        choice.state.is_err() || choice.boot.is_none() || self.elsewhere && matches!(choice.boot, Some(Volume::Esp(_)))
    }

    fn names(&self, medium: &Medium) -> bool {
        !medium.esp.is_empty() && self.partition == Some(guid_text(&medium.esp_guid))
    }

    /// What to use of the disks and discs that are there, or why nothing.
    pub(super) fn choose(&self, disks: Vec<Medium>, mut discs: Vec<String>) -> Result<Choice, String> {
        let (mut state, mut isos): (Vec<_>, Vec<_>) = disks.into_iter().partition(|medium| !medium.data.is_empty());
        if let Some(guid) = &self.disk {
            state.retain(|medium| guid_text(&medium.guid) == *guid);
        }
        let mut installed: Vec<_> = state.iter().filter(|medium| !medium.esp.is_empty()).cloned().collect();
        for list in [&mut installed, &mut isos] {
            if list.iter().any(|medium| self.names(medium)) {
                list.retain(|medium| self.names(medium));
                discs.clear();
            }
        }
        if installed.iter().any(|medium| self.names(medium)) {
            isos.clear();
        }
        let boot = match (discs.pop(), isos.is_empty()) {
            (Some(disc), true) if discs.is_empty() => Some(Volume::Disc(disc)),
            // Booted over the network: a disk that was given to the state has it still.
            (None, true) if installed.is_empty() && !state.is_empty() => None,
            (None, no_iso) => Some(Volume::Esp(only(if no_iso { installed } else { isos })?)),
            (Some(disc), _) => {
                let more = discs.into_iter().chain(isos.into_iter().map(|medium| medium.disk));
                return Err(several(more.chain([disc]).collect()));
            }
        };
        let state = match &boot {
            Some(Volume::Esp(medium)) if !medium.data.is_empty() => Ok(medium.clone()),
            Some(boot) if state.is_empty() => {
                Err(format!("{boot} has no room for it, and no disk has a partition {DATA}"))
            }
            _ => only(state),
        };
        Ok(Choice { boot, state })
    }
}

/// What to use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Choice {
    /// Goes to `/esp`; `None` when no medium of ours is there.
    pub(super) boot: Option<Volume>,
    /// Its data partition goes to `/data`; or why there is none.
    pub(super) state: Result<Medium, String>,
}

impl Choice {
    /// The disks it is about; one that is used for both comes twice.
    pub(super) fn disks(&self) -> impl Iterator<Item = &Medium> {
        let boot = match &self.boot {
            Some(Volume::Esp(medium)) => Some(medium),
            Some(Volume::Disc(_)) | None => None,
        };
        boot.into_iter().chain(&self.state)
    }
}

/// Something with `rackbar.toml` on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Volume {
    /// The EFI system partition of a disk.
    Esp(Medium),
    /// A disc with our ISO 9660 volume, by the kernel's name of the drive.
    Disc(String),
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Esp(medium) => write!(f, "{} ({})", medium.disk, guid_text(&medium.guid)),
            Self::Disc(drive) => write!(f, "the disc in {drive}"),
        }
    }
}

fn only(mut media: Vec<Medium>) -> Result<Medium, String> {
    match media.len() {
        0 => Err("no medium with Rackbar's partitions was found".to_owned()),
        1 => media.pop().ok_or_else(String::new),
        _ => Err(several(media.into_iter().map(|medium| medium.disk).collect())),
    }
}

fn several(names: Vec<String>) -> String {
    format!(
        "several media are Rackbar's ({}) and nothing tells which one is ours; \
         unplug the others, or name it with the kernel argument rackbar.disk=<disk GUID>",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with the partitions that are named: `e` for the ESP, `d` for data.
    fn medium(disk: &str, guid: u8, has: &str) -> Medium {
        let named = |letter, number| match has.contains(letter) {
            true => format!("{disk}{number}"),
            false => String::new(),
        };
        Medium {
            disk: disk.into(),
            guid: vec![guid; 16],
            sector: 512,
            sectors: 1,
            esp: named('e', 1),
            esp_guid: [guid ^ 0xff; 16],
            whole: true,
            data: named('d', 2),
        }
    }

    fn hints(partition: Option<u8>, disk: Option<u8>) -> Hints {
        Hints {
            partition: partition.map(|b| guid_text(&[b; 16])),
            disk: disk.map(|b| guid_text(&[b; 16])),
            ..Hints::default()
        }
    }

    /// Boot medium and disk of the state, `-` for none.
    fn chosen(hints: Hints, disks: &[Medium], discs: &[&str]) -> Result<(String, String), String> {
        let discs = discs.iter().map(|disc| disc.to_string()).collect();
        let choice = hints.choose(disks.to_vec(), discs)?;
        let boot = match choice.boot {
            Some(Volume::Esp(medium)) => medium.disk,
            Some(Volume::Disc(drive)) => drive,
            None => "-".into(),
        };
        Ok((boot, choice.state.map_or("-".into(), |medium| medium.disk)))
    }

    fn pair(boot: &str, state: &str) -> Result<(String, String), String> {
        Ok((boot.into(), state.into()))
    }

    #[test]
    fn of_two_media_none_is_taken_unless_something_tells_which() {
        let both = [medium("sda", 1, "ed"), medium("sdb", 2, "ed")];
        assert!(chosen(hints(None, None), &both, &[]).unwrap_err().contains("sda, sdb"));
        assert_eq!(chosen(hints(Some(2 ^ 0xff), None), &both, &[]), pair("sdb", "sdb"));
        assert_eq!(chosen(hints(None, Some(1)), &both, &[]), pair("sda", "sda"));
        assert!(chosen(hints(None, Some(9)), &both, &[]).is_err());
        assert_eq!(chosen(hints(None, None), &both[..1], &[]), pair("sda", "sda"));
        assert!(chosen(hints(None, None), &[], &[]).is_err());
    }

    #[test]
    fn an_iso_keeps_its_state_on_the_one_disk_that_has_a_partition_for_it() {
        let none = || hints(None, None);
        assert_eq!(chosen(none(), &[], &["sr0"]), pair("sr0", "-"));
        assert_eq!(chosen(none(), &[medium("sda", 1, "d")], &["sr0"]), pair("sr0", "sda"));
        assert_eq!(chosen(none(), &[medium("sda", 1, "ed")], &["sr0"]), pair("sr0", "sda"));
        let stick = medium("sdb", 2, "e");
        assert_eq!(chosen(none(), std::slice::from_ref(&stick), &[]), pair("sdb", "-"));
        assert_eq!(
            chosen(none(), &[stick.clone(), medium("sda", 1, "d")], &[]),
            pair("sdb", "sda")
        );
        assert_eq!(
            chosen(none(), &[medium("sda", 1, "ed"), stick], &[]),
            pair("sdb", "sda")
        );
        let two = [medium("sda", 1, "ed"), medium("sdc", 3, "d")];
        assert_eq!(chosen(none(), &two, &["sr0"]), pair("sr0", "-"));
        assert_eq!(chosen(hints(None, Some(3)), &two, &["sr0"]), pair("sr0", "sdc"));
    }

    #[test]
    fn of_two_isos_none_is_taken_and_an_appliance_from_the_network_has_its_state_on_a_disk() {
        let none = || hints(None, None);
        assert!(chosen(none(), &[], &["sr0", "sr1"]).unwrap_err().contains("sr0"));
        assert!(
            chosen(none(), &[medium("sdb", 2, "e")], &["sr0"])
                .unwrap_err()
                .contains("sdb, sr0")
        );
        let disk = medium("sda", 1, "d");
        assert_eq!(chosen(none(), std::slice::from_ref(&disk), &[]), pair("-", "sda"));
        let two = [disk, medium("sdc", 3, "d")];
        assert_eq!(chosen(none(), &two, &[]), pair("-", "-"));
        assert_eq!(chosen(hints(None, Some(3)), &two, &[]), pair("-", "sdc"));
        // A stick may still come.
        assert!(none().may_improve(&none().choose(two[..1].to_vec(), Vec::new()).unwrap()));
    }

    #[test]
    fn what_the_firmware_names_goes_before_an_iso_that_happens_to_be_there() {
        let disks = [medium("sda", 1, "ed"), medium("sdb", 2, "e")];
        let named = |guid: u8| hints(Some(guid ^ 0xff), None);
        assert_eq!(chosen(named(1), &disks, &["sr0"]), pair("sda", "sda"));
        assert_eq!(chosen(named(2), &disks, &["sr0"]), pair("sdb", "sda"));
    }

    #[test]
    fn the_medium_that_the_firmware_chose_is_waited_for() {
        let choose = |hints: &Hints, disks: &[Medium]| hints.choose(disks.to_vec(), Vec::new());
        let disks = [medium("sda", 1, "ed"), medium("sdb", 2, "ed")];
        let named = hints(Some(2 ^ 0xff), None);
        assert!(named.is_awaited(&choose(&named, &disks[..1])));
        assert!(!named.is_awaited(&choose(&named, &disks)));
        let for_state = hints(None, Some(2));
        assert!(for_state.is_awaited(&choose(&for_state, &disks[..1])));
        assert!(!for_state.is_awaited(&choose(&for_state, &disks)));
        let cd = Hints {
            elsewhere: true,
            ..Hints::default()
        };
        assert!(!cd.is_awaited(&choose(&cd, &disks[..1])));
        assert!(cd.may_improve(&choose(&cd, &disks[..1]).unwrap()));
        assert!(!cd.may_improve(&cd.choose(disks[..1].to_vec(), vec!["sr0".into()]).unwrap()));
        assert!(!named.may_improve(&choose(&named, &disks).unwrap()));
    }

    #[test]
    fn the_loader_s_variables_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let efivars = folder.path().join("sys/firmware/efi/efivars");
        std::fs::create_dir_all(&efivars).unwrap();
        let put = |name: &str, text: &str| {
            let units = text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
            let bytes: Vec<u8> = [6, 0, 0, 0].into_iter().chain(units).collect();
            std::fs::write(
                efivars.join(format!("{name}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")),
                bytes,
            )
            .unwrap();
        };
        let read = || Hints::read(&Root::new(folder.path()), &Arguments::parse("rackbar.disk=AB"));
        assert!(!read().elsewhere);
        put("LoaderInfo", "Rackbar 0.1.0");
        assert!(read().elsewhere);
        put("LoaderDevicePartUUID", "00AA");
        let hints = read();
        assert!(!hints.elsewhere);
        assert_eq!(
            (hints.partition.as_deref(), hints.disk.as_deref()),
            (Some("00aa"), Some("ab"))
        );
    }
}
