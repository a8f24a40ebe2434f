//! Writers of what firmware boots from: FAT volumes and ISO 9660 discs. They need no outside program, write to a file or
//! to memory alike, and the same files give the same bytes. And a reader of discs of others ([`tree`]).
//!
//! `cargo xtask image` writes the appliance's own media with them, the appliance the disc of its loader
//! ([`iso::bytes`]) that BMCs put into their virtual drives.

pub mod epoch;
pub mod fat;
pub mod iso;
pub mod tree;

use std::io;

/// Where firmware looks for a boot program on a medium without a boot entry (UEFI 2.10 section 3.5.1.1).
pub const BOOT_PATH: &str = "EFI/BOOT/BOOTX64.EFI";

/// Why a medium was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for cannot be: sizes, names. Nothing of use was written.
    #[error("{0}")]
    Wrong(String),
    /// The file it goes to refused.
    #[error("writing the medium: {0}")]
    Write(#[from] io::Error),
}

/// What writers give.
pub type Result<T> = std::result::Result<T, Error>;

/// [`Error::Wrong`] unless a condition holds.
macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err($crate::Error::Wrong(format!($($words)+)));
        }
    };
}
use ensure;
