//! What publishers say: certificates, signed texts, lists of digests.

use std::sync::OnceLock;

use rackbar_upstream::{Keyring, Release, Sums, cleartext, detached};

/// A key that has signed none of the inputs but one.
const KEYS: &[u8] = include_bytes!("../../corpus/openpgp/keys");
const NOW: u64 = 1_767_312_000;

/// Certificates, a text signed in the clear, a signature beside a text: whatever the bytes are.
pub(super) fn openpgp(data: &[u8]) {
    static RING: OnceLock<Option<Keyring>> = OnceLock::new();
    let _ = Keyring::read(data);
    let Some(keys) = RING.get_or_init(|| Keyring::read(KEYS).ok()) else {
        return;
    };
    if let Ok(signed) = cleartext(data, keys, NOW) {
        assert!(keys.fingerprints().contains(&signed.signer), "a stranger was believed");
        assert!(data.len() > signed.text.len(), "more text than there is");
    }
    let _ = detached(b"text", data, keys, NOW);
}

/// Release and lists of digests.
pub(super) fn list(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let pattern = text.lines().next().unwrap_or_default();
    if let Ok(sums) = Sums::read(text) {
        let _ = (sums.find(pattern), sums.find("*"));
    }
    if let Ok(release) = Release::read(text) {
        let _ = (
            release.judge(pattern, NOW),
            release.file("main/installer-amd64/current/images/SHA256SUMS"),
            release.package_lists(&["main".to_owned()], &[pattern.to_owned()]),
            release.files().count(),
        );
        assert!(
            release.long_digests().all(|(_, digest)| digest.len() == 128),
            "a digest of another length"
        );
    }
}
