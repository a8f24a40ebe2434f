//! Knowing our ISO 9660 volume (ECMA-119, section 8.4) on a CD, or on whatever a BMC shows as one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The primary volume descriptor is in sector 16 of 2,048 bytes.
const DESCRIPTOR: u64 = 16 * 2048;

/// True when `device` holds a disc of ours. An empty drive does not open.
pub(super) fn is_ours(device: &Path) -> bool {
    let mut descriptor = [0u8; 2048];
    let read = File::open(device).and_then(|disc| disc.read_exact_at(&mut descriptor, DESCRIPTOR));
    read.is_ok() && is_ours_by(&descriptor)
}

/// Looks at volume name (byte 40) and application (byte 574) of a primary volume descriptor.
fn is_ours_by(descriptor: &[u8; 2048]) -> bool {
    let text = |at: usize, length: usize| descriptor.get(at..at + length).unwrap_or_default().trim_ascii_end();
    descriptor.starts_with(b"\x01CD001\x01") && text(40, 32) == b"RACKBAR" && text(574, 128) == b"RACKBAR"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ours() -> [u8; 2048] {
        let mut descriptor = [b' '; 2048];
        descriptor[..7].copy_from_slice(b"\x01CD001\x01");
        descriptor[40..47].copy_from_slice(b"RACKBAR");
        descriptor[574..581].copy_from_slice(b"RACKBAR");
        descriptor
    }

    #[test]
    fn a_disc_is_ours_when_volume_and_application_say_so() {
        assert!(is_ours_by(&ours()));
        for at in [0, 3, 47, 574] {
            let mut other = ours();
            other[at] = b'X';
            assert!(!is_ours_by(&other), "byte {at}");
        }
        assert!(!is_ours(Path::new("/dev/null")));
    }

    proptest! {
        #[test]
        fn any_sector_is_looked_at(bytes in prop::collection::vec(any::<u8>(), 2048)) {
            prop_assert!(!is_ours_by(bytes.as_slice().try_into().unwrap()));
        }
    }
}
