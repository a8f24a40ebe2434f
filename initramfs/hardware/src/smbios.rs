//! SMBIOS tables (DMTF DSP0134 3.x): what the firmware says about machine, board, chassis and memory.
//!
//! Firmware lies and tables are cut short; a structure that does not fit is left out, and so is a text that is only
//! the factory's placeholder.

use rackbar_model::{BoardInfo, ChassisInfo, FirmwareInfo, MemoryModule, SystemInfo};

use crate::Root;

/// Where the kernel shows the raw table, its entry point already followed.
const TABLE: &str = "sys/firmware/dmi/tables/DMI";

/// More structures than any machine has; ends the walk through a table of rubbish.
const STRUCTURES: usize = 4096;

/// What the tables give.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Smbios {
    /// Type 0.
    pub firmware: FirmwareInfo,
    /// Type 1.
    pub system: SystemInfo,
    /// Type 2, the first one.
    pub board: BoardInfo,
    /// Type 3, the first one.
    pub chassis: ChassisInfo,
    /// Type 17, all.
    pub modules: Vec<MemoryModule>,
}

/// Reads the kernel's copy; empty when there is none.
pub fn read(root: &Root) -> Smbios {
    parse(&root.bytes(TABLE).unwrap_or_default())
}

/// One structure: its formatted area, header included, and its strings.
struct Structure<'a> {
    kind: u8,
    area: &'a [u8],
    strings: Vec<&'a [u8]>,
}

impl Structure<'_> {
    fn byte(&self, offset: usize) -> Option<u8> {
        self.area.get(offset).copied()
    }

    fn word(&self, offset: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.area.get(offset..offset + 2)?.try_into().ok()?))
    }

    fn double(&self, offset: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.area.get(offset..offset + 4)?.try_into().ok()?))
    }

    /// The string whose number stands at `offset`, unless it is a placeholder.
    fn text(&self, offset: usize) -> Option<String> {
        let number = usize::from(self.byte(offset)?);
        let text = String::from_utf8_lossy(self.strings.get(number.checked_sub(1)?)?);
        let text = text.trim();
        (!is_placeholder(text)).then(|| text.to_owned())
    }
}

/// Takes one structure off the front (section 6.1.2): header, formatted area, strings, two NULs.
fn take(bytes: &[u8]) -> Option<(Structure<'_>, &[u8])> {
    let [kind, length, ..] = *bytes else { return None };
    let length = usize::from(length);
    // A length below the header's own four bytes is rubbish and would never end.
    let area = bytes.get(..length).filter(|area| area.len() >= 4)?;
    let mut rest = bytes.get(length..)?;
    let mut strings = Vec::new();
    loop {
        let end = rest.iter().position(|b| *b == 0)?;
        let (text, tail) = rest.split_at(end);
        rest = tail.get(1..)?;
        if text.is_empty() {
            break;
        }
        strings.push(text);
    }
    if strings.is_empty() {
        // Without strings the set is two NULs; some firmware writes only one.
        rest = rest.strip_prefix(&[0]).unwrap_or(rest);
    }
    Some((Structure { kind, area, strings }, rest))
}

/// Texts that say nothing, compared without case: boards leave the factory with them by the thousand, and a serial
/// number of this kind would make two machines one.
const PLACEHOLDERS: [&str; 29] = [
    "to be filled by o.e.m.",
    "to be filled by oem",
    "default string",
    "system serial number",
    "system product name",
    "system manufacturer",
    "system version",
    "base board serial number",
    "chassis serial number",
    "asset-1234567890",
    "serial number",
    "0123456789",
    "123456789",
    "1234567890",
    "none",
    "null",
    "n/a",
    "na",
    "unknown",
    "not specified",
    "not available",
    "not applicable",
    "invalid",
    "o.e.m.",
    "oem",
    "sku",
    "empty",
    "no asset tag",
    "no dimm",
];

/// True for texts without information, also a run of one character such as `00000000` or `........`.
fn is_placeholder(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let mut chars = lower.chars();
    let first = chars.next();
    first.is_none()
        || (lower.len() > 1 && chars.all(|c| Some(c) == first) && first.is_some_and(|c| !c.is_alphabetic()))
        || PLACEHOLDERS.contains(&lower.as_str())
}

/// Reads a table.
pub fn parse(table: &[u8]) -> Smbios {
    let mut found = Smbios::default();
    let mut seen = [false; 256];
    let mut rest = table;
    for _ in 0..STRUCTURES {
        let Some((structure, tail)) = take(rest) else { break };
        rest = tail;
        let first = !std::mem::replace(&mut seen[usize::from(structure.kind)], true);
        match structure.kind {
            0 if first => found.firmware = firmware(&structure),
            1 if first => found.system = system(&structure),
            2 if first => found.board = board(&structure),
            3 if first => found.chassis = chassis(&structure),
            17 => found.modules.push(module(&structure)),
            127 => break,
            _ => {}
        }
    }
    found
}

fn firmware(s: &Structure<'_>) -> FirmwareInfo {
    FirmwareInfo {
        vendor: s.text(4),
        version: s.text(5),
        date: s.text(8),
        ..FirmwareInfo::default()
    }
}

fn system(s: &Structure<'_>) -> SystemInfo {
    SystemInfo {
        manufacturer: s.text(4),
        product: s.text(5),
        serial: s.text(7),
        uuid: s.area.get(8..24).and_then(uuid),
        sku: s.text(0x19),
    }
}

/// Section 7.2.1: the first three fields are little-endian. All zeros and all ones mean "not set".
fn uuid(bytes: &[u8]) -> Option<String> {
    let b: [u8; 16] = bytes.try_into().ok()?;
    if b == [0; 16] || b == [0xff; 16] {
        return None;
    }
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::with_capacity(36);
    for (position, index) in order.into_iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", b[index]));
    }
    Some(text)
}

fn board(s: &Structure<'_>) -> BoardInfo {
    BoardInfo {
        manufacturer: s.text(4),
        product: s.text(5),
        serial: s.text(7),
    }
}

fn chassis(s: &Structure<'_>) -> ChassisInfo {
    ChassisInfo {
        manufacturer: s.text(4),
        serial: s.text(7),
        asset_tag: s.text(8),
    }
}

/// Section 7.18.
fn module(s: &Structure<'_>) -> MemoryModule {
    let size_bytes = match s.word(0x0c) {
        // 0: nothing fitted; 0xffff: size not known.
        None | Some(0 | 0xffff) => 0,
        // 0x7fff: 32 GiB or more, the size in MiB is in the extended field.
        Some(0x7fff) => u64::from(s.double(0x1c).unwrap_or(0) & 0x7fff_ffff) << 20,
        Some(size) if size & 0x8000 != 0 => u64::from(size & 0x7fff) << 10,
        Some(size) => u64::from(size) << 20,
    };
    // The speed it runs at, else the speed it could; 0xffff points to the extended fields of SMBIOS 3.3.
    let speed = |short, extended| match s.word(short) {
        None | Some(0) => None,
        Some(0xffff) => s.double(extended).map(|v| v & 0x7fff_ffff).filter(|v| *v > 0),
        Some(speed) => Some(u32::from(speed)),
    };
    MemoryModule {
        slot: s.text(0x10).unwrap_or_default(),
        size_bytes,
        kind: s.byte(0x12).and_then(memory_kind).map(str::to_owned),
        speed_mts: speed(0x20, 0x58).or_else(|| speed(0x15, 0x54)),
        manufacturer: s.text(0x17),
        part: s.text(0x1a),
        serial: s.text(0x18),
    }
}

/// Table 79 of section 7.18.2, the types servers have had in twenty years.
fn memory_kind(value: u8) -> Option<&'static str> {
    Some(match value {
        0x07 => "RAM",
        0x0f => "SDRAM",
        0x12 => "DDR",
        0x13 | 0x14 => "DDR2",
        0x18 => "DDR3",
        0x1a => "DDR4",
        0x1b => "LPDDR",
        0x1c => "LPDDR2",
        0x1d => "LPDDR3",
        0x1e => "LPDDR4",
        0x1f => "NVDIMM",
        0x20 => "HBM",
        0x21 => "HBM2",
        0x22 => "DDR5",
        0x23 => "LPDDR5",
        0x24 => "HBM3",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A structure: formatted area behind the header, and strings.
    fn structure(kind: u8, area: &[u8], strings: &[&str]) -> Vec<u8> {
        let mut bytes = vec![kind, area.len() as u8 + 4, 0, 0];
        bytes.extend_from_slice(area);
        for text in strings {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
        bytes.extend_from_slice(if strings.is_empty() { &[0, 0] } else { &[0] });
        bytes
    }

    fn memory(size: u16, extended: u32, speed: u16) -> Vec<u8> {
        let mut area = vec![0u8; 0x5c - 4];
        area[0x0c - 4..0x0e - 4].copy_from_slice(&size.to_le_bytes());
        area[0x10 - 4] = 1;
        area[0x12 - 4] = 0x22;
        area[0x18 - 4] = 2;
        area[0x1c - 4..0x20 - 4].copy_from_slice(&extended.to_le_bytes());
        area[0x20 - 4..0x22 - 4].copy_from_slice(&speed.to_le_bytes());
        area[0x58 - 4..0x5c - 4].copy_from_slice(&6400u32.to_le_bytes());
        structure(17, &area, &["DIMM_A1", "00000000"])
    }

    #[test]
    fn a_machine_is_read_and_placeholders_are_dropped() {
        let mut area = vec![1, 2, 0, 3];
        area.extend_from_slice(&[
            0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
        ]);
        area.extend_from_slice(&[6, 4, 0]);
        let mut table = structure(
            1,
            &area,
            &["Acme ", "Rack 1", "To Be Filled By O.E.M.", "Default string"],
        );
        table.extend(structure(2, &[1, 2, 0, 3], &["Acme", "Board", "S123"]));
        table.extend(structure(127, &[], &[]));
        let found = parse(&table);
        assert_eq!(found.system.manufacturer.as_deref(), Some("Acme"));
        assert_eq!((found.system.serial, found.system.sku), (None, None));
        assert_eq!(
            found.system.uuid.as_deref(),
            Some("00112233-4455-6677-8899-aabbccddeeff")
        );
        assert_eq!(found.board.serial.as_deref(), Some("S123"));
    }

    #[test]
    fn memory_sizes_in_all_three_forms() {
        let mut table = memory(0x7fff, 64 << 10, 4800);
        table.extend(memory(0x4000, 0, 0xffff));
        table.extend(memory(0x8200, 0, 0));
        table.extend(memory(0, 0, 0));
        let modules = parse(&table).modules;
        let sizes: Vec<u64> = modules.iter().map(|m| m.size_bytes).collect();
        assert_eq!(sizes, [64 << 30, 16 << 30, 512 << 10, 0]);
        assert_eq!((modules[0].speed_mts, modules[1].speed_mts), (Some(4800), Some(6400)));
        assert_eq!(
            (modules[0].kind.as_deref(), modules[0].serial.as_deref()),
            (Some("DDR5"), None)
        );
        assert_eq!(modules[0].slot, "DIMM_A1");
    }

    #[test]
    fn a_broken_table_keeps_what_came_before() {
        let mut table = structure(0, &[1, 2, 0, 0, 3], &["SeaBIOS", "1.16", "04/01/2014"]);
        table.extend_from_slice(&[1, 2, 0, 0, 9, 9]);
        let found = parse(&table);
        assert_eq!(found.firmware.version.as_deref(), Some("1.16"));
        assert_eq!(found.system, SystemInfo::default());
    }

    #[test]
    fn real_serials_are_no_placeholders() {
        for real in ["J30B2X3", "1", "CN7475156P0123", "0000A", "NA123"] {
            assert!(!is_placeholder(real), "{real}");
        }
        for empty in ["", "00000000", "........", "Default String", "0123456789", "NONE"] {
            assert!(is_placeholder(empty), "{empty}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>, kind in prop::sample::select(vec![0u8, 1, 2, 3, 17]), area: Vec<u8>) {
            let _ = parse(&bytes);
            if area.len() < 200 {
                let mut table = structure(kind, &area, &["x"]);
                table.extend(bytes);
                let _ = parse(&table);
            }
        }
    }
}
