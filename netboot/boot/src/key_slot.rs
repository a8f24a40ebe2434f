//! The 48 bytes in our UEFI loader that say whose manifests it believes: section `.rbkey`, 16 bytes of magic, then an
//! Ed25519 public key, all zero while none is set. The appliance writes its key in when it serves the loader, so that
//! one build serves every site. A signature for Secure Boot must be made afterwards: it covers the slot.

use core::fmt;

use crate::pe;

/// Length of the slot in bytes.
pub const KEY_SLOT_LENGTH: usize = 48;

/// How the slot begins.
pub const KEY_SLOT_MAGIC: [u8; 16] = *b"RACKBAR-KEY-SLOT";

/// Writes `key` into the slot of the loader `image` (the file, not the loaded form). An earlier key is replaced.
///
/// # Errors
/// When the image is not our loader.
pub fn fill_key_slot(image: &mut [u8], key: &[u8; 32]) -> Result<(), KeySlotError> {
    let place = pe::section(image, ".rbkey").ok_or(KeySlotError::NoSection)?.in_file();
    let slot = image.get_mut(place).ok_or(KeySlotError::CutOff)?;
    let (magic, rest) = slot.split_at_mut_checked(16).ok_or(KeySlotError::NoSlot)?;
    if magic != KEY_SLOT_MAGIC {
        return Err(KeySlotError::NoSlot);
    }
    rest.get_mut(..32).ok_or(KeySlotError::NoSlot)?.copy_from_slice(key);
    Ok(())
}

/// The key in a slot; `None` when these bytes are no slot or no key is set.
pub fn key_in_slot(slot: &[u8]) -> Option<[u8; 32]> {
    let key = slot.strip_prefix(&KEY_SLOT_MAGIC)?.first_chunk::<32>()?;
    (*key != [0; 32]).then_some(*key)
}

/// Why a key was not written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeySlotError {
    /// No PE image, or none with a section `.rbkey`.
    NoSection,
    /// The section lies beyond the end of the file.
    CutOff,
    /// The section does not begin with the magic or is too short.
    NoSlot,
}

impl fmt::Display for KeySlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSection => "the file is not Rackbar's UEFI loader: it has no section .rbkey",
            Self::CutOff => "the UEFI loader is cut off before its section .rbkey; build or copy it again",
            Self::NoSlot => "section .rbkey of the UEFI loader holds no key slot; build it again with this version",
        })
    }
}

impl core::error::Error for KeySlotError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pe::tests::image;
    use alloc::vec::Vec;

    fn empty_slot() -> Vec<u8> {
        [&KEY_SLOT_MAGIC[..], &[0; 32]].concat()
    }

    #[test]
    fn a_key_goes_into_the_section_and_nowhere_else() {
        // The magic also stands among the code, as it will in a real build.
        let slot = empty_slot();
        let mut file = image(&[(".text", &slot), (".rbkey", &slot)]);
        let before = file.clone();
        fill_key_slot(&mut file, &[7; 32]).unwrap();
        let place = pe::section(&file, ".rbkey").unwrap().in_file();
        assert_eq!(key_in_slot(&file[place.clone()]), Some([7; 32]));
        assert_eq!(file[..place.start + 16], before[..place.start + 16]);
        fill_key_slot(&mut file, &[8; 32]).unwrap();
        assert_eq!(key_in_slot(&file[place]), Some([8; 32]));
    }

    #[test]
    fn an_empty_slot_holds_no_key() {
        assert_eq!(key_in_slot(&empty_slot()), None);
        assert_eq!(key_in_slot(b"RACKBAR-KEY-SLOT\x01"), None);
    }

    #[test]
    fn other_files_are_refused() {
        let slot = empty_slot();
        assert_eq!(fill_key_slot(&mut [0; 100], &[7; 32]), Err(KeySlotError::NoSection));
        let mut foreign = image(&[(".text", &slot)]);
        assert_eq!(fill_key_slot(&mut foreign, &[7; 32]), Err(KeySlotError::NoSection));
        let mut short = image(&[(".rbkey", &slot[..40])]);
        assert_eq!(fill_key_slot(&mut short, &[7; 32]), Err(KeySlotError::NoSlot));
        let mut cut = image(&[(".rbkey", &slot)]);
        cut.truncate(cut.len() - 1);
        assert_eq!(fill_key_slot(&mut cut, &[7; 32]), Err(KeySlotError::CutOff));
    }
}
