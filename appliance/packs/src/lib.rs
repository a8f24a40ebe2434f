//! Data packs: operating-system images and stored answers of the caching proxy in one signed file, read where it lies.
//!
//! ```text
//! 0        magic "RBPACK\r\n", version, bytes of the index, bytes of the whole pack
//! 32       Ed25519 public key of who signed
//! 64       signature over all of the above and the index
//! 128      index (postcard): what it is, contents by SHA-256, images, answers
//! 4096*n   contents in the order of their digests, each from a multiple of 4096 on; zeros between
//! ```
//! The index comes first, so a pack that is cut off, of a stranger, or not for this version is refused before anything
//! of it is used or kept, also while it arrives. Places are not written down: they follow from the sizes, so that no
//! index can point outside the pack or at the same bytes twice. A content is there once however many use it.
//!
//! [`index`] and [`head`] are pure; [`Draft`] makes a pack; [`Intake`] checks one that comes piece by piece, sans-IO;
//! [`Pack`] is one that lies in a file or fills a partition.

mod draft;
mod head;
mod index;
mod intake;
mod pack;
mod trust;

use rackbar_model::Digest;

pub use draft::{Draft, DraftAnswer, DraftImage, Sealed, WriteError};
pub use head::{HEAD_BYTES, Head, MAGIC, VERSION, looks_like_one};
pub use index::{Answer, Content, Index, PackImage, check_name};
pub use intake::{Checked, Intake};
pub use pack::Pack;
pub use trust::{Key, Trust};

/// Contents begin at multiples of this: pages of memory and blocks of every medium divide it.
pub const ALIGN: u64 = 4096;

/// Why a pack is refused; a sentence each.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It is something else.
    #[error("this is no data pack of Rackbar (its first bytes are others)")]
    NotAPack,
    /// A newer format.
    #[error("this data pack has format {0}, and this program knows format {VERSION}; use a newer Rackbar")]
    Newer(u32),
    /// A number in the head cannot be.
    #[error("the head of this data pack makes no sense ({0}); copy the pack again")]
    Head(&'static str),
    /// The signature is not one over this head and index.
    #[error(
        "the signature of this data pack is not good: its head or index was changed or damaged after {key} signed it; copy \
         the pack again"
    )]
    Signature {
        /// Who is said to have signed.
        key: Key,
    },
    /// Signed by somebody who is not trusted.
    #[error(
        "this data pack is signed by {key}, whom this appliance does not trust; when that is the key its maker shows \
         (`rackbar pack key`), write trust = [\"{key}\"] into the section [packs] of rackbar.toml"
    )]
    Foreign {
        /// Who signed.
        key: Key,
    },
    /// The index was signed and still makes no sense.
    #[error("the index of this data pack makes no sense: {0}")]
    Index(String),
    /// Shorter or longer than its head says.
    #[error(
        "this data pack has {found} bytes, and should have {expected}: it is cut off or was changed; copy it again"
    )]
    Size {
        /// What the head says.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// A content is not what the index says.
    #[error("in this data pack the content {expected} is damaged (it has SHA-256 {found}); copy the pack again")]
    Damaged {
        /// The digest in the index.
        expected: Digest,
        /// The digest of what is there.
        found: Digest,
    },
    /// Between contents lies something that does not belong there.
    #[error("this data pack was changed: there is something between its contents")]
    Padding,
    /// It cannot be read.
    #[error("this data pack cannot be read: {0}")]
    Read(#[from] std::io::Error),
}

/// The next place where a content may begin.
const fn aligned(offset: u64) -> Option<u64> {
    offset.checked_next_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests;
