//! Finding sections in a PE/COFF image (Microsoft PE format, sections 3 and 4), as a file or as loaded by firmware.
//!
//! The loader looks for its own payload with this, the appliance for the loader's key slot. Only what that needs is
//! read; every offset is checked, because an image may come from a disk that lost a block.

use core::ops::Range;

/// Offset in the DOS header of the offset of the PE signature.
const E_LFANEW: usize = 0x3c;
/// The PE signature and the COFF header behind it.
const COFF_LENGTH: usize = 24;
/// One entry of the section table.
const SECTION_LENGTH: usize = 40;

/// A section's place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    /// Name, padded with zero bytes.
    pub name: [u8; 8],
    /// Offset from the image's base once loaded.
    pub virtual_address: u32,
    /// Bytes of content. What the section has more in memory is zero, what it has more in the file is padding.
    pub virtual_size: u32,
    /// Offset in the file.
    pub file_offset: u32,
    /// Bytes in the file.
    pub file_size: u32,
}

impl Section {
    /// Where its content lies in the file.
    pub fn in_file(&self) -> Range<usize> {
        let length = match self.virtual_size {
            // Some linkers leave the virtual size zero.
            0 => self.file_size,
            size => size.min(self.file_size),
        };
        range(self.file_offset, length)
    }

    /// Where its content lies in a loaded image.
    pub fn in_memory(&self) -> Range<usize> {
        let length = match self.virtual_size {
            0 => self.file_size,
            size => size,
        };
        range(self.virtual_address, length)
    }
}

fn range(start: u32, length: u32) -> Range<usize> {
    let start = start as usize;
    start..start.saturating_add(length as usize)
}

/// The section called `name` (at most eight bytes) of the image that begins at `image[0]`.
///
/// `None` when the bytes are no PE image, are cut off, or have no such section.
pub fn section(image: &[u8], name: &str) -> Option<Section> {
    let mut wanted = [0u8; 8];
    wanted.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    sections(image)?.find(|section| section.name == wanted)
}

/// All sections in the order of the table; `None` when the bytes are no PE image.
pub fn sections(image: &[u8]) -> Option<impl Iterator<Item = Section> + '_> {
    if !image.starts_with(b"MZ") {
        return None;
    }
    let header = u32_at(image, E_LFANEW)? as usize;
    let coff = image.get(header..header.checked_add(COFF_LENGTH)?)?;
    if !coff.starts_with(b"PE\0\0") {
        return None;
    }
    let count = usize::from(u16_at(coff, 6)?);
    let optional = usize::from(u16_at(coff, 20)?);
    let table = image.get(header + COFF_LENGTH + optional..)?;
    Some(table.chunks_exact(SECTION_LENGTH).take(count).filter_map(|entry| {
        Some(Section {
            name: entry.get(..8)?.try_into().ok()?,
            virtual_size: u32_at(entry, 8)?,
            virtual_address: u32_at(entry, 12)?,
            file_size: u32_at(entry, 16)?,
            file_offset: u32_at(entry, 20)?,
        })
    }))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// A PE file with nothing but headers and these sections, one behind the other.
    pub(crate) fn image(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut file = vec![0u8; 0x400];
        file[..2].copy_from_slice(b"MZ");
        file[E_LFANEW] = 0x80;
        file[0x80..0x84].copy_from_slice(b"PE\0\0");
        file[0x86] = sections.len() as u8;
        file[0x94] = 16;
        for (n, (name, content)) in sections.iter().enumerate() {
            let at = 0x80 + COFF_LENGTH + 16 + n * SECTION_LENGTH;
            let (size, offset) = (content.len() as u32, file.len() as u32);
            file[at..at + name.len()].copy_from_slice(name.as_bytes());
            for (field, value) in [(8, size), (12, 0x1000 * (n as u32 + 1)), (16, size), (20, offset)] {
                file[at + field..at + field + 4].copy_from_slice(&value.to_le_bytes());
            }
            file.extend_from_slice(content);
        }
        file
    }

    #[test]
    fn a_section_is_found_by_its_whole_name() {
        let file = image(&[(".text", b"code"), (".initrd2", b"two"), (".initrd", b"one")]);
        assert_eq!(&file[section(&file, ".initrd").unwrap().in_file()], b"one");
        assert_eq!(&file[section(&file, ".initrd2").unwrap().in_file()], b"two");
        assert_eq!(section(&file, ".initrd2").unwrap().in_memory(), 0x2000..0x2003);
        assert_eq!(section(&file, ".init"), None);
        assert_eq!(section(&file, ".too-long-a-name"), None);
    }

    #[test]
    fn padding_in_the_file_is_not_content() {
        let mut file = image(&[(".linux", b"kernel\0\0")]);
        file[0x80 + COFF_LENGTH + 16 + 8] = 6;
        assert_eq!(&file[section(&file, ".linux").unwrap().in_file()], b"kernel");
    }

    proptest::proptest! {
        #[test]
        fn hostile_images_never_panic(damage: Vec<(u16, u8)>, cut in 0usize..1200) {
            let mut file = image(&[(".text", b"code"), (".rbkey", b"key")]);
            for (at, byte) in damage {
                let at = usize::from(at) % file.len();
                file[at] = byte;
            }
            file.truncate(cut);
            for name in [".rbkey", ""] {
                let _ = section(&file, name).map(|s| (file.get(s.in_file()).map(<[u8]>::len), s.in_memory()));
            }
        }
    }
}
