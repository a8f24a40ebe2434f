//! The manifest our UEFI loader asks for: written and signed here, read and checked here.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use rackbar_messages::{BootFile, BootFileRole, BootManifest, PROTOCOL_VERSION, SignedManifest};
use rackbar_model::MacAddr;
use rackbar_trust::Signer;

use crate::{BootSpec, SpecFile};

/// What stands before the payload under the signature, so that a signature of ours over anything else is no manifest.
pub const MANIFEST_CONTEXT: &[u8] = b"rackbar boot manifest v1\0";

/// The answer to `GET /boot/v1/manifest`: a postcard `SignedManifest`.
pub fn signed_manifest(
    spec: &BootSpec,
    nonce: [u8; 16],
    mac: MacAddr,
    attempt: u64,
    signer: &(impl Signer + ?Sized),
) -> Vec<u8> {
    let file = |role, file: &SpecFile| BootFile {
        role,
        path: file.path(),
        name: file.name().to_string(),
        size: file.size(),
        sha256: file.sha256(),
    };
    let manifest = BootManifest {
        version: PROTOCOL_VERSION,
        nonce,
        mac,
        files: core::iter::once(file(BootFileRole::Kernel, &spec.kernel))
            .chain(spec.initrds.iter().map(|initrd| file(BootFileRole::Initrd, initrd)))
            .collect(),
        command_line: spec.command_line.clone(),
        attempt,
    };
    sign(&manifest, signer)
}

/// The answer to `GET /boot/v1/manifest` for a machine that is installed: no files, so the loader gives the machine
/// back to its firmware, which goes on to the disk.
///
/// Signed like any other: an attacker on the network must not be able to send machines to a disk they should not boot.
pub fn signed_local_disk_manifest(
    nonce: [u8; 16],
    mac: MacAddr,
    attempt: u64,
    signer: &(impl Signer + ?Sized),
) -> Vec<u8> {
    let manifest = BootManifest {
        version: PROTOCOL_VERSION,
        nonce,
        mac,
        files: Vec::new(),
        command_line: String::new(),
        attempt,
    };
    sign(&manifest, signer)
}

fn sign(manifest: &BootManifest, signer: &(impl Signer + ?Sized)) -> Vec<u8> {
    // Plain data into a growing vector: cannot fail. An empty payload would be refused by every loader.
    let payload = postcard::to_allocvec(manifest).unwrap_or_default();
    let signature = signer.sign(&[MANIFEST_CONTEXT, &payload].concat()).to_vec();
    let signed = SignedManifest {
        key: signer.public_key(),
        signature,
        payload,
    };
    postcard::to_allocvec(&signed).unwrap_or_default()
}

/// Reads an answer of the boot server and believes it only if `trusted_key` signed it, for this `nonce` and this `mac`.
/// It names one kernel, or no files at all: then the machine is to go on to its disk.
///
/// # Errors
/// What is wrong with it. Nothing of the payload is looked at before the signature is known to be good.
pub fn verify_manifest(
    bytes: &[u8],
    trusted_key: &[u8; 32],
    nonce: &[u8; 16],
    mac: MacAddr,
) -> Result<BootManifest, ManifestError> {
    let Ok((signed, [])) = postcard::take_from_bytes::<SignedManifest>(bytes) else {
        return Err(ManifestError::Malformed);
    };
    if signed.key != *trusted_key {
        return Err(ManifestError::OtherKey { key: signed.key });
    }
    rackbar_trust::verify(
        trusted_key,
        &[MANIFEST_CONTEXT, &signed.payload].concat(),
        &signed.signature,
    )
    .map_err(|_| ManifestError::BadSignature)?;
    let Ok((manifest, [])) = postcard::take_from_bytes::<BootManifest>(&signed.payload) else {
        return Err(ManifestError::Malformed);
    };
    if manifest.version != PROTOCOL_VERSION {
        return Err(ManifestError::Version(manifest.version));
    }
    if manifest.nonce != *nonce {
        return Err(ManifestError::Replayed);
    }
    if manifest.mac != mac {
        return Err(ManifestError::OtherMachine(manifest.mac));
    }
    let kernels = manifest.files.iter().filter(|f| f.role == BootFileRole::Kernel);
    if !manifest.files.is_empty() && kernels.count() != 1 {
        return Err(ManifestError::NotOneKernel);
    }
    Ok(manifest)
}

/// Why a manifest is not believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ManifestError {
    /// The bytes are no manifest.
    Malformed,
    /// Signed by another key than the trusted one.
    OtherKey {
        /// The signer's.
        key: [u8; 32],
    },
    /// The signature is not good.
    BadSignature,
    /// Of another version of the protocol.
    Version(u16),
    /// Made for another nonce: an old answer played again.
    Replayed,
    /// Made for another machine.
    OtherMachine(MacAddr),
    /// It names files, but not exactly one kernel.
    NotOneKernel,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the boot server's manifest cannot be read: is this a Rackbar appliance?"),
            Self::OtherKey { key } => {
                f.write_str("the manifest is signed by key ")?;
                key.iter().take(8).try_for_each(|b| write!(f, "{b:02x}"))?;
                f.write_str(
                    "..., which this loader does not trust: it came from another appliance; that one \
                     has to leave this network, or this machine has to fetch its loader anew",
                )
            }
            Self::BadSignature => f.write_str(
                "the manifest's signature is false: somebody changed it on the way; look for what \
                 stands between this machine and its appliance",
            ),
            Self::Version(version) => write!(
                f,
                "the manifest is of protocol version {version}, this loader knows {PROTOCOL_VERSION}: fetch the loader again"
            ),
            Self::Replayed => f.write_str(
                "the manifest answers another question than ours: an old one, played again; \
                 look for what stands between this machine and its appliance",
            ),
            Self::OtherMachine(mac) => write!(f, "the manifest was made for the machine with {mac}"),
            Self::NotOneKernel => f.write_str("the manifest does not name exactly one kernel"),
        }
    }
}

impl core::error::Error for ManifestError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::example;
    use rackbar_trust::{Secret, SigningKey};

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    const NONCE: [u8; 16] = [9; 16];

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::new([seed; 32])).unwrap()
    }

    fn signed() -> Vec<u8> {
        signed_manifest(&example(), NONCE, MAC, 77, &key(1))
    }

    #[test]
    fn a_manifest_is_read_back() {
        let manifest = verify_manifest(&signed(), &key(1).public_key(), &NONCE, MAC).unwrap();
        assert_eq!(manifest.attempt, 77);
        assert_eq!(manifest.command_line, example().command_line);
        assert_eq!(manifest.files.len(), 3);
        assert_eq!(manifest.files[1].path, example().initrds[0].path());
        assert_eq!(manifest.files[1].size, 10_000_000);
    }

    #[test]
    fn a_manifest_without_files_sends_the_machine_to_its_disk() {
        let signed = signed_local_disk_manifest(NONCE, MAC, 78, &key(1));
        let manifest = verify_manifest(&signed, &key(1).public_key(), &NONCE, MAC).unwrap();
        assert_eq!((manifest.files.len(), manifest.attempt), (0, 78));
        let stranger = verify_manifest(&signed, &key(2).public_key(), &NONCE, MAC);
        assert!(matches!(stranger, Err(ManifestError::OtherKey { .. })));
    }

    #[test]
    fn files_without_a_kernel_are_no_boot() {
        let mut manifest = verify_manifest(&signed(), &key(1).public_key(), &NONCE, MAC).unwrap();
        manifest.files.remove(0);
        let error = verify_manifest(&sign(&manifest, &key(1)), &key(1).public_key(), &NONCE, MAC);
        assert_eq!(error, Err(ManifestError::NotOneKernel));
    }

    #[test]
    fn each_lie_is_told_apart() {
        let trusted = key(1).public_key();
        let check = |bytes: &[u8], nonce, mac| verify_manifest(bytes, &trusted, nonce, mac).unwrap_err();
        let other = signed_manifest(&example(), NONCE, MAC, 1, &key(2));
        assert!(matches!(check(&other, &NONCE, MAC), ManifestError::OtherKey { .. }));
        assert_eq!(check(&signed(), &[8; 16], MAC), ManifestError::Replayed);
        let neighbour = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x57]);
        assert_eq!(check(&signed(), &NONCE, neighbour), ManifestError::OtherMachine(MAC));
        assert_eq!(check(b"<html>", &NONCE, MAC), ManifestError::Malformed);
        let mut forged: SignedManifest = postcard::from_bytes(&signed()).unwrap();
        *forged.payload.last_mut().unwrap() ^= 1;
        let forged = postcard::to_allocvec(&forged).unwrap();
        assert_eq!(check(&forged, &NONCE, MAC), ManifestError::BadSignature);
    }

    #[test]
    fn a_signature_without_the_context_is_none() {
        let mut signed: SignedManifest = postcard::from_bytes(&signed()).unwrap();
        signed.signature = key(1).sign(&signed.payload).to_vec();
        let bytes = postcard::to_allocvec(&signed).unwrap();
        let error = verify_manifest(&bytes, &key(1).public_key(), &NONCE, MAC).unwrap_err();
        assert_eq!(error, ManifestError::BadSignature);
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_never_panic_and_are_never_believed(bytes: Vec<u8>, at: usize, flip in 1u8..) {
            let trusted = key(1).public_key();
            proptest::prop_assert!(verify_manifest(&bytes, &trusted, &NONCE, MAC).is_err());
            let mut damaged = signed();
            let at = at % damaged.len();
            damaged[at] ^= flip;
            proptest::prop_assert!(verify_manifest(&damaged, &trusted, &NONCE, MAC).is_err());
        }
    }
}
