//! What publishers say: certificates, signed texts, lists of digests.

use std::str::FromStr as _;
use std::sync::OnceLock;

use rackbar_artifacts::release;
use rackbar_upstream::{
    Keyring, MAX_AHEAD, MinisignKey, Release, Repomd, Sums, cleartext, detached, minisign, read_primary,
};

/// A key that has signed none of the inputs but one.
const KEYS: &[u8] = include_bytes!("../../corpus/openpgp/keys");
/// A key that has signed the word `release`, once.
const RELEASE_KEY: &str = "RWSqwdGatraMVRKGIzYe2vLO05M4qUDi+Ra7gWsNLTZp5Ux8ol2rEcWh";
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

/// A public key, a signature and the list of a release.
pub(super) fn release(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = text.parse::<MinisignKey>() {
        assert_eq!(
            key.to_string().parse(),
            Ok(key),
            "a key that is read otherwise than it is written"
        );
    }
    let key = MinisignKey::from_str(RELEASE_KEY);
    if let Ok(said) = key.and_then(|key| minisign(b"release", text, &key)) {
        assert_eq!(said, "Rackbar 1.2.3", "what nobody said was believed");
    }
    if let Ok(list) = release::read_list(text) {
        let leads_out = |name: &String| name.contains('/') || name == "..";
        assert!(!list.keys().any(leads_out), "a file of another folder");
    }
}

/// The head of an RPM repository.
pub(super) fn repomd(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(repomd) = Repomd::read(text, NOW) else { return };
    assert!(repomd.date <= NOW + MAX_AHEAD, "a date in the future");
    assert!(repomd.primary().is_some(), "no list of packages");
    repomd.data.iter().for_each(|data| inside(&data.path));
}

/// The list of packages of an RPM repository.
pub(super) fn primary(data: &[u8]) {
    let (mut count, mut words) = (0_u64, 0);
    let read = read_primary(data, &mut |package| {
        inside(&package.path);
        assert!(!package.name.is_empty(), "a package without a name");
        count += 1;
        words += package.name.len() + package.path.len();
    });
    assert!(words <= data.len(), "more was read than there is");
    assert!(read.is_err() || read == Ok(count), "packages were counted wrongly");
}

fn inside(path: &str) {
    let leads_out = path.starts_with('/') || path.contains("://") || path.split('/').any(|part| part == "..");
    assert!(!leads_out && !path.contains('%'), "{path} leads out");
}
