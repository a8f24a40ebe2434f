//! EFI load options (UEFI 2.10, section 3.1.3) and the device paths in them (chapter 10), as far as a disk's own entry
//! needs them.

/// LOAD_OPTION_ACTIVE.
const ACTIVE: u32 = 1;

/// A `Boot####` variable's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LoadOption {
    pub(super) active: bool,
    pub(super) description: String,
    /// The device path's bytes.
    pub(super) path: Vec<u8>,
}

/// What an entry starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Starts {
    /// A partition with this GUID, as stored.
    Partition([u8; 16]),
    /// A disk or other medium.
    Disk,
    /// A network interface.
    Network,
    /// A program in the firmware itself.
    Firmware,
    /// Something else.
    Other,
}

impl Starts {
    /// In a word.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Partition(_) | Self::Disk => "disk",
            Self::Network => "network",
            Self::Firmware => "firmware",
            Self::Other => "other",
        }
    }
}

impl LoadOption {
    /// Reads attributes, path length, description in UTF-16 ending in zero, path.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (attributes, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let units: Vec<u16> = rest
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .take_while(|unit| *unit != 0)
            .collect();
        let path = rest.get(2 * units.len() + 2..)?;
        Some(Self {
            active: u32::from_le_bytes(*attributes) & ACTIVE != 0,
            description: String::from_utf16_lossy(&units),
            path: path.get(..usize::from(u16::from_le_bytes(*length)))?.to_vec(),
        })
    }

    /// The variable's content.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = u32::from(self.active).to_le_bytes().to_vec();
        bytes.extend_from_slice(&(self.path.len() as u16).to_le_bytes());
        let units = self.description.encode_utf16().filter(|unit| *unit != 0).chain([0]);
        bytes.extend(units.flat_map(u16::to_le_bytes));
        bytes.extend_from_slice(&self.path);
        bytes
    }

    /// What it starts, by its device path.
    pub(super) fn starts(&self) -> Starts {
        let mut found = Starts::Other;
        let mut rest = self.path.as_slice();
        while let Some((node, tail)) = node(rest) {
            match (node.first(), node.get(1)) {
                // Hard drive media path with a GPT signature: the most that can be known.
                (Some(4), Some(1)) if node.get(41) == Some(&2) => {
                    let guid = node.get(24..40).and_then(|guid| guid.first_chunk());
                    return guid.map_or(Starts::Disk, |guid| Starts::Partition(*guid));
                }
                // Firmware file and volume.
                (Some(4), Some(6 | 7)) => return Starts::Firmware,
                (Some(4), Some(_)) => found = Starts::Disk,
                // Messaging: MAC, IPv4, IPv6, URI are networks; ATAPI, SCSI, USB, SATA, NVMe and the like are disks.
                (Some(3), Some(11 | 12 | 13 | 24)) => return Starts::Network,
                (Some(3), Some(1 | 2 | 5 | 10 | 15 | 16 | 18 | 23 | 26 | 29)) => found = Starts::Disk,
                // BIOS boot specification: 1 to 5 are drives, 6 the network.
                (Some(5), Some(1)) if node.get(4) == Some(&6) => return Starts::Network,
                (Some(5), Some(1)) => found = Starts::Disk,
                (Some(0x7f), _) => break,
                _ => {}
            }
            rest = tail;
        }
        found
    }
}

/// The first node of a device path, and what follows.
fn node(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16::from_le_bytes([*path.get(2)?, *path.get(3)?]));
    (length >= 4).then(|| path.split_at_checked(length)).flatten()
}

/// The short form of a path to a file on a GPT partition: HD(...)/File(...). Firmware finds the partition by its GUID
/// on whatever controller it is.
pub(super) fn file_on_partition(number: u32, first: u64, sectors: u64, guid: &[u8; 16], file: &str) -> Vec<u8> {
    // Hard drive media path (10.3.5.1): type 4, subtype 1, 42 bytes; format 2 is GPT, signature type 2 a GUID.
    let mut path = vec![4, 1, 42, 0];
    path.extend_from_slice(&number.to_le_bytes());
    path.extend_from_slice(&first.to_le_bytes());
    path.extend_from_slice(&sectors.to_le_bytes());
    path.extend_from_slice(guid);
    path.extend_from_slice(&[2, 2]);
    // File path media path (10.3.5.4): type 4, subtype 4.
    let name: Vec<u8> = file.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    path.extend_from_slice(&[4, 4]);
    path.extend_from_slice(&(name.len() as u16 + 4).to_le_bytes());
    path.extend_from_slice(&name);
    path.extend_from_slice(&[0x7f, 0xff, 4, 0]);
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> LoadOption {
        LoadOption {
            active: true,
            description: "node-001".to_owned(),
            path: file_on_partition(15, 8192, 253_952, &[7; 16], "\\EFI\\debian\\shimx64.efi"),
        }
    }

    #[test]
    fn an_entry_is_read_back_and_starts_its_partition() {
        let option = sample();
        assert_eq!(LoadOption::parse(&option.bytes()), Some(option.clone()));
        assert_eq!(option.starts(), Starts::Partition([7; 16]));
        // As efibootmgr writes `-d disk -p 1 -l \a`: the first bytes are attributes and the path's length.
        assert_eq!(option.bytes()[..4], [1, 0, 0, 0]);
        assert_eq!(option.path.len(), 42 + 4 + 2 * 24 + 4);
    }

    #[test]
    fn what_ovmf_makes_is_told_apart() {
        let with = |path: &[u8]| {
            LoadOption {
                path: path.to_vec(),
                ..sample()
            }
            .starts()
        };
        // PciRoot(0)/Pci(3,0)/MAC(...)/IPv4: "UEFI PXEv4".
        let mut mac = vec![
            2, 1, 12, 0, 0xd0, 0x41, 3, 10, 0, 0, 0, 0, 1, 1, 6, 0, 0, 3, 3, 11, 37, 0,
        ];
        mac.extend([0; 33]);
        assert_eq!(with(&mac), Starts::Network);
        assert_eq!(
            with(&[4, 7, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Starts::Firmware
        );
        assert_eq!(with(&[3, 23, 16, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Starts::Disk);
        assert_eq!(with(&[]), Starts::Other);
        assert_eq!(with(&[1, 1, 0, 0]), Starts::Other);
    }

    proptest! {
        #[test]
        fn any_variable_is_read(bytes in prop::collection::vec(any::<u8>(), 0..120), path in prop::collection::vec(0u8..8, 0..80)) {
            if let Some(option) = LoadOption::parse(&bytes) {
                let _ = option.starts();
            }
            let _ = LoadOption { path, ..sample() }.starts();
        }
    }
}
