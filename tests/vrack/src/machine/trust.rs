//! The certificates a machine's UEFI firmware trusts for HTTPS boot, in the form OVMF takes them.

use std::io;

use super::MachineConfig;

/// `EFI_CERT_X509_GUID` (UEFI 2.10 section 32.4.1), as it lies in memory: the first three fields little-endian.
const X509: [u8; 16] = [
    0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72,
];
/// Whose entry it is; only shown in the firmware's setup.
const OWNER: [u8; 16] = *b"rackbar-vrack-ca";

/// An `EFI_SIGNATURE_LIST` with one X.509 certificate (DER).
fn signature_list(certificate: &[u8]) -> Option<Vec<u8>> {
    let entry = u32::try_from(OWNER.len() + certificate.len()).ok()?;
    // Type, size of the list, of its header (none), of each entry.
    let list = entry.checked_add(16 + 3 * 4)?;
    let mut out = Vec::new();
    out.extend_from_slice(&X509);
    for size in [list, 0, entry] {
        out.extend_from_slice(&size.to_le_bytes());
    }
    out.extend_from_slice(&OWNER);
    out.extend_from_slice(certificate);
    Some(out)
}

/// Writes what the machine trusts from its next start on.
pub(super) fn write(config: &MachineConfig, certificate: &[u8]) -> io::Result<()> {
    let list = signature_list(certificate).ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::write(config.path("trust"), list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_standard() {
        let list = signature_list(&[7; 100]).unwrap();
        assert_eq!(list.len(), 28 + 16 + 100);
        assert_eq!(list[16..20], 144u32.to_le_bytes());
        assert_eq!(list[20..24], [0; 4]);
        assert_eq!(list[24..28], 116u32.to_le_bytes());
    }
}
