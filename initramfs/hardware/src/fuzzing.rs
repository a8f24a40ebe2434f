//! A door to the private parsers for the fuzz targets, and for nothing else. Not behind a feature: the tests of the workspace
//! link the targets, and the crate would be compiled twice. Programs that do not call it do not hold it.

use crate::{health, passthrough, tpm};

/// Reads an answer of a device in every way that is known: a health page of a disk, the verdict in its sense data, the public
/// part of a TPM's key. Gives the key, when it is one.
pub fn device_answer(bytes: &[u8]) -> Option<Vec<u8>> {
    health::any_page(bytes);
    if let Some(sense) = bytes.first_chunk::<32>() {
        let _ = passthrough::smart_verdict(sense);
    }
    tpm::public_key(bytes).ok()
}
