//! What a machine boots, and how its boot went: specifications, iPXE scripts, signed manifests, verdicts.
//!
//! Pure: no I/O, no clock, no randomness; `no_std`, because the UEFI loader reads manifests and sections with the same
//! code that the appliance writes them with.
#![no_std]

extern crate alloc;

mod command_line;
mod ipxe;
mod key_slot;
mod manifest;
mod medium;
pub mod pe;
mod spec;
mod verdict;

pub use command_line::{BadArgument, NodeArguments, node_command_line};
pub use ipxe::{BadScript, MAX_SITE_SCRIPT, SiteScript, render_ipxe, render_local_disk, site_script};
pub use key_slot::{KEY_SLOT_LENGTH, KEY_SLOT_MAGIC, KeySlotError, fill_key_slot, key_in_slot};
pub use manifest::{MANIFEST_CONTEXT, ManifestError, signed_local_disk_manifest, signed_manifest, verify_manifest};
pub use medium::{MEDIUM_FILE, MEDIUM_FILE_LONGEST, medium_file};
pub use spec::{BadFileName, BootSpec, SpecFile, is_site_name};
pub use verdict::{Stage, Verdict, verdict};
