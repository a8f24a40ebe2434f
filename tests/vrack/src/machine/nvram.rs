//! Writing a boot entry into the variable store of OVMF while the machine is off: what a BMC does when it hands its
//! machine a URL to boot.
//!
//! ```text
//! firmware volume header (PI 1.7 volume 3 section 3.2.1), its length at 48
//! variable store header: GUID, size, format, state                 28 bytes
//! variables, each at a multiple of 4: header of 60 bytes, name (UCS-2, zero at its end), content
//! erased flash (0xff)
//! ```
//! As flash can only clear bits until it is erased, a variable that goes is marked, and a new one is added at the end
//! (EDK2, MdeModulePkg/Include/Guid/VariableFormat.h).

use std::io;
use std::path::Path;

/// Number of the boot entry that is ours: OVMF counts its own from 0.
const ENTRY: u16 = 0x5242;
/// `EFI_GLOBAL_VARIABLE` (UEFI 2.10 section 3.3), as it lies in memory.
const GLOBAL: [u8; 16] = [
    0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c,
];
/// `EFI_AUTHENTICATED_VARIABLE_GUID`: the kind of store that Debian's OVMF has.
const AUTHENTICATED: [u8; 16] = [
    0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92,
];
/// Kept without power, seen by boot and runtime services.
const ATTRIBUTES: u32 = 7;
const STORE_HEADER: usize = 28;
const HEADER: usize = 60;
const START: [u8; 2] = [0xaa, 0x55];
/// State of a variable that counts.
const ADDED: u8 = 0x3f;
/// The bit that is cleared in a variable that goes.
const DELETED: u8 = 0xfd;

/// Has the firmware whose variables are in `path` fetch `url` by HTTP boot at its next start, once (`BootNext`).
pub(super) fn boot_next(path: &Path, url: &str) -> io::Result<()> {
    let mut flash = std::fs::read(path)?;
    let what = |why: &str| io::Error::other(format!("{}: {why}", path.display()));
    let option = load_option(url).ok_or_else(|| what("the URL is too long for a boot entry"))?;
    set(&mut flash, &format!("Boot{ENTRY:04X}"), &option).map_err(what)?;
    set(&mut flash, "BootNext", &ENTRY.to_le_bytes()).map_err(what)?;
    std::fs::write(path, flash)
}

/// An `EFI_LOAD_OPTION` (UEFI 2.10 section 3.1.3) whose path is a URI alone: the firmware tries it on every interface
/// that can boot by HTTP (section 3.1.2).
fn load_option(url: &str) -> Option<Vec<u8>> {
    let node = u16::try_from(url.len()).ok()?.checked_add(4)?;
    let mut option = 1u32.to_le_bytes().to_vec();
    option.extend_from_slice(&node.checked_add(4)?.to_le_bytes());
    option.extend(ucs2("URL from the BMC"));
    option.extend_from_slice(&[3, 24]);
    option.extend_from_slice(&node.to_le_bytes());
    option.extend_from_slice(url.as_bytes());
    option.extend_from_slice(&[0x7f, 0xff, 4, 0]);
    Some(option)
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Where a variable stands, and how long its name and content are.
struct Place {
    at: usize,
    name: usize,
    content: usize,
}

impl Place {
    fn end(&self) -> usize {
        self.at
            .saturating_add(HEADER)
            .saturating_add(self.name)
            .saturating_add(self.content)
            .next_multiple_of(4)
    }
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

/// Where variables begin, and where their store ends.
fn store(flash: &[u8]) -> Result<(usize, usize), &'static str> {
    if flash.get(40..44) != Some(b"_FVH") {
        return Err("no firmware volume");
    }
    let header = flash.get(48..50).and_then(|bytes| bytes.first_chunk().copied());
    let at = usize::from(header.map(u16::from_le_bytes).unwrap_or_default());
    if flash.get(at..at + 16) != Some(&AUTHENTICATED) {
        return Err("its variable store is of another kind than OVMF's");
    }
    let size = long(flash, at + 16).filter(|size| at + size <= flash.len());
    let size = size.ok_or("its variable store is cut off")?;
    Ok((at + STORE_HEADER, at + size))
}

/// Sets one of the variables of the standard.
fn set(flash: &mut [u8], name: &str, content: &[u8]) -> Result<(), &'static str> {
    let (mut at, end) = store(flash)?;
    let wanted = ucs2(name);
    while flash.get(at..at + 2) == Some(&START) {
        let lengths = long(flash, at + 36).zip(long(flash, at + 40));
        let (name, content) = lengths.ok_or("its variable store is damaged")?;
        let place = Place { at, name, content };
        let said = flash.get(at + HEADER..).and_then(|rest| rest.get(..name));
        let is_it = said == Some(&wanted) && flash.get(at + 44..at + HEADER) == Some(&GLOBAL);
        if let Some(state) = flash.get_mut(at + 2).filter(|state| is_it && **state == ADDED) {
            *state &= DELETED;
        }
        at = place.end();
    }
    let place = Place {
        at,
        name: wanted.len(),
        content: content.len(),
    };
    let room = flash.get_mut(at..place.end()).filter(|_| place.end() <= end);
    let room = room.filter(|room| room.iter().all(|byte| *byte == 0xff));
    let room = room.ok_or("its variable store is full")?;
    let mut variable = vec![START[0], START[1], ADDED, 0];
    variable.extend_from_slice(&ATTRIBUTES.to_le_bytes());
    // Count, time and key of authentication: none.
    variable.resize(36, 0);
    for length in [wanted.len(), content.len()] {
        variable.extend_from_slice(&u32::try_from(length).map_err(|_| "too long")?.to_le_bytes());
    }
    variable.extend_from_slice(&GLOBAL);
    variable.extend_from_slice(&wanted);
    variable.extend_from_slice(content);
    room.iter_mut().zip(variable).for_each(|(to, from)| *to = from);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store as EDK2 makes it, with nothing in it.
    fn empty() -> Vec<u8> {
        let mut flash = vec![0xff; 4096];
        flash[..72].fill(0);
        flash[40..44].copy_from_slice(b"_FVH");
        flash[48] = 72;
        flash[72..88].copy_from_slice(&AUTHENTICATED);
        flash[88..92].copy_from_slice(&2048u32.to_le_bytes());
        flash
    }

    #[test]
    fn a_variable_is_added_and_the_one_before_it_marked() {
        let mut flash = empty();
        set(&mut flash, "BootNext", &[1, 0]).unwrap();
        assert_eq!(flash[100..103], [0xaa, 0x55, ADDED]);
        assert_eq!(flash[160..178], *ucs2("BootNext"));
        assert_eq!(flash[178..180], [1, 0]);
        set(&mut flash, "BootNext", &[2, 0]).unwrap();
        assert_eq!(flash[102], ADDED & DELETED);
        assert_eq!(flash[180..183], [0xaa, 0x55, ADDED]);
        set(&mut flash, "Other", &[0]).unwrap();
        assert_eq!(flash[182], ADDED, "another name");
    }

    #[test]
    fn what_is_no_store_or_full_is_refused() {
        assert!(set(&mut [0; 10], "X", &[]).is_err());
        assert!(set(&mut vec![0xff; 4096], "X", &[]).is_err());
        let mut flash = empty();
        assert!(set(&mut flash, "X", &[0; 2048]).is_err());
        let before = flash.clone();
        assert!(
            set(&mut flash, "X", &[0; 1984]).is_err(),
            "beyond the store, not beyond the flash"
        );
        assert_eq!(flash, before, "nothing is half written");
    }

    #[test]
    fn a_boot_entry_holds_the_url() {
        let option = load_option("http://192.0.2.1/x").unwrap();
        assert_eq!(option[..6], [1, 0, 0, 0, 26, 0]);
        assert!(option.ends_with(&[b"\x03\x18\x16\x00http://192.0.2.1/x", &[0x7f, 0xff, 4, 0][..]].concat()));
    }
}
