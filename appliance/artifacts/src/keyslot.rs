//! The key slot of our UEFI loader: section `.rbkey`, 16 bytes of magic and 32 bytes for the site's public key.
//!
//! The section is found through the PE section table and not by searching for the magic: the loader holds the magic a
//! second time, among its constants, to recognise its own slot.

/// What stands in front of the key.
pub const KEY_SLOT_MAGIC: &[u8; 16] = b"RACKBAR-KEY-SLOT";

const SECTION: &[u8; 8] = b".rbkey\0\0";

/// Why a file has no key slot we can fill.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeySlotError {
    /// No PE header (PE/COFF specification, sections 2 and 3).
    #[error("it is not a PE image")]
    NotPe,
    /// No section `.rbkey`, or one too small.
    #[error("it has no section .rbkey of 48 bytes")]
    NoSection,
    /// The section does not begin with the magic.
    #[error("its section .rbkey does not begin with RACKBAR-KEY-SLOT")]
    NoMagic,
    /// The slot holds another key already.
    #[error("its key slot already holds another key")]
    Taken,
}

/// Writes `key` into the empty key slot of the PE image `image`. Writing the key that is there already changes nothing.
///
/// # Errors
/// When there is no slot or it holds another key.
pub fn fill_key_slot(image: &mut [u8], key: &[u8; 32]) -> Result<(), KeySlotError> {
    let start = find_section(image)?;
    let slot = image.get_mut(start..).and_then(|rest| rest.get_mut(..48));
    let (magic, place) = slot.ok_or(KeySlotError::NoSection)?.split_at_mut(16);
    if magic != KEY_SLOT_MAGIC {
        return Err(KeySlotError::NoMagic);
    }
    if place.iter().any(|&b| b != 0) && place != key {
        return Err(KeySlotError::Taken);
    }
    place.copy_from_slice(key);
    Ok(())
}

/// Offset in the file of section `.rbkey`.
fn find_section(image: &[u8]) -> Result<usize, KeySlotError> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(image.get(at..at.checked_add(2)?)?.try_into().ok()?) as usize);
    let u32_at = |at: usize| Some(u32::from_le_bytes(image.get(at..at.checked_add(4)?)?.try_into().ok()?) as usize);
    let header = || {
        let pe = u32_at(0x3c)?;
        let signature = image.get(pe..pe.checked_add(4)?)?;
        (image.starts_with(b"MZ") && signature == b"PE\0\0").then_some(())?;
        let count = u16_at(pe.checked_add(6)?)?;
        let optional = u16_at(pe.checked_add(20)?)?;
        Some((pe.checked_add(24)?.checked_add(optional)?, count))
    };
    let (table, count) = header().ok_or(KeySlotError::NotPe)?;
    (0..count)
        .filter_map(|index| {
            let at = table.checked_add(index * 40)?;
            let name = image.get(at..at.checked_add(8)?)?;
            let raw_size = u32_at(at + 16)?;
            (name == SECTION && raw_size >= 48).then(|| u32_at(at + 20))?
        })
        .next()
        .ok_or(KeySlotError::NoSection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A PE header with one section at 0x200.
    fn image(section: &[u8; 8], slot: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x200];
        image[..2].copy_from_slice(b"MZ");
        image[0x3c] = 0x40;
        image[0x40..0x44].copy_from_slice(b"PE\0\0");
        image[0x46] = 1;
        image[0x58..0x60].copy_from_slice(section);
        image[0x58 + 16..0x58 + 20].copy_from_slice(&(slot.len() as u32).to_le_bytes());
        image[0x58 + 20..0x58 + 24].copy_from_slice(&0x200_u32.to_le_bytes());
        image.extend_from_slice(slot);
        image
    }

    fn slot(key: &[u8; 32]) -> Vec<u8> {
        [&KEY_SLOT_MAGIC[..], key].concat()
    }

    #[test]
    fn fills_an_empty_slot_once() {
        let mut loader = image(SECTION, &slot(&[0; 32]));
        fill_key_slot(&mut loader, &[7; 32]).unwrap();
        assert_eq!(loader, image(SECTION, &slot(&[7; 32])));
        assert_eq!(fill_key_slot(&mut loader, &[7; 32]), Ok(()));
        assert_eq!(fill_key_slot(&mut loader, &[8; 32]), Err(KeySlotError::Taken));
    }

    #[test]
    fn says_what_is_missing() {
        let key = [7; 32];
        assert_eq!(fill_key_slot(&mut [], &key), Err(KeySlotError::NotPe));
        let mut other = image(b".text\0\0\0", &slot(&[0; 32]));
        assert_eq!(fill_key_slot(&mut other, &key), Err(KeySlotError::NoSection));
        let mut short = image(SECTION, &KEY_SLOT_MAGIC[..]);
        assert_eq!(fill_key_slot(&mut short, &key), Err(KeySlotError::NoSection));
        let mut unmarked = image(SECTION, &[0; 48]);
        assert_eq!(fill_key_slot(&mut unmarked, &key), Err(KeySlotError::NoMagic));
    }

    proptest! {
        #[test]
        fn never_panics(at in 0usize..0x230, value: u8, length in 0usize..0x240) {
            let mut loader = image(SECTION, &slot(&[0; 32]));
            if let Some(byte) = loader.get_mut(at) {
                *byte = value;
            }
            loader.truncate(length);
            let _ = fill_key_slot(&mut loader, &[7; 32]);
        }
    }
}
