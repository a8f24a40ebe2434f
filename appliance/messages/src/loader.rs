//! What the UEFI loader fetches and reports.
//!
//! `GET /boot/v1/manifest?mac=&uuid=&serial=&nonce=` gives a postcard [`SignedManifest`]; `POST /boot/v1/report` takes
//! a postcard [`BootReport`]. Files lie at the paths the manifest names, on the same server.

use alloc::string::String;
use alloc::vec::Vec;

use rackbar_model::{BootStage, Digest, MacAddr};
use serde::{Deserialize, Serialize};

/// A manifest and its signature.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignedManifest {
    /// Ed25519 public key of the signer (RFC 8032), 32 bytes. The loader trusts it only if it is the key it was
    /// built with or bound to.
    pub key: [u8; 32],
    /// Signature over `b"rackbar boot manifest v1\0"` followed by `payload`: 64 bytes.
    pub signature: Vec<u8>,
    /// A postcard [`BootManifest`].
    pub payload: Vec<u8>,
}

/// What a machine is to boot.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootManifest {
    /// [`crate::PROTOCOL_VERSION`].
    pub version: u16,
    /// The nonce the loader sent, so that an old manifest cannot be played again.
    pub nonce: [u8; 16],
    /// The interface it was made for.
    pub mac: MacAddr,
    /// Kernel and initial RAM filesystems, in the order they are handed over. None at all means: this machine is
    /// installed, the loader gives back to the firmware, which goes on to its disk.
    pub files: Vec<BootFile>,
    /// Kernel command line. Holds the one-time token: never print it.
    pub command_line: String,
    /// Identifies this boot attempt in reports.
    pub attempt: u64,
}

/// A file of a manifest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BootFile {
    /// What it is for.
    pub role: BootFileRole,
    /// Absolute path on the boot server.
    pub path: String,
    /// Name for progress lines.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of its content.
    pub sha256: Digest,
}

/// What a boot file is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum BootFileRole {
    /// A bootable EFI image: the Linux kernel with its EFI stub.
    Kernel,
    /// Part of the initial RAM filesystem.
    Initrd,
}

/// How far a loader is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BootReport {
    /// [`crate::PROTOCOL_VERSION`].
    pub version: u16,
    /// The interface it boots from.
    pub mac: MacAddr,
    /// `attempt` of the manifest; 0 before there is one.
    pub attempt: u64,
    /// The stage reached.
    pub stage: BootStage,
}

impl core::fmt::Debug for BootManifest {
    // The command line holds the boot token.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            version,
            nonce: _,
            mac,
            files,
            command_line: _,
            attempt,
        } = self;
        f.debug_struct("BootManifest")
            .field("version", version)
            .field("mac", mac)
            .field("files", files)
            .field("attempt", attempt)
            .finish_non_exhaustive()
    }
}
