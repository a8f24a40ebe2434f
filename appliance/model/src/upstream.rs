//! Where an entry of the catalogue is had from, and what was found there last.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::{Digest, Timestamp};

/// Where an entry of the catalogue is had from, so that it can be refreshed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Upstream {
    /// A file beside a signed list of digests, such as `SHA256SUMS`.
    Sums {
        /// URL of the list. The file lies beside it.
        sums: String,
        /// URL of the signature over the list; left out when the list is signed in the clear.
        #[serde(default)]
        signature: Option<String>,
        /// The file as the list names it; one `*` may be in it, for what changes from version to version.
        file: String,
        /// OpenPGP certificates, one of which must have signed; in ASCII armor.
        keys: String,
    },
    /// Debian's installer, by way of the archive's signed `InRelease`.
    DebianInstaller {
        /// URL of the archive: what stands before `/dists/`.
        archive: String,
        /// Suite, such as `bookworm`.
        suite: String,
        /// OpenPGP certificates, one of which must have signed; in ASCII armor.
        keys: String,
    },
}

impl Upstream {
    /// The URL that is asked first, for people.
    pub fn asked(&self) -> &str {
        match self {
            Self::Sums { sums, .. } => sums,
            Self::DebianInstaller { archive, .. } => archive,
        }
    }

    /// The certificates.
    pub fn keys(&self) -> &str {
        match self {
            Self::Sums { keys, .. } | Self::DebianInstaller { keys, .. } => keys,
        }
    }
}

/// What was accepted last from where an entry is had from. Nothing older is accepted after it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Refreshed {
    /// When it was looked.
    pub checked: Timestamp,
    /// Fingerprint of the certificate that signed.
    pub signer: String,
    /// When the list was made or signed, in seconds since 1970.
    pub date: u64,
    /// SHA-256 of the signed text.
    pub text: Digest,
    /// The file, as the list names it.
    pub file: String,
    /// Its digest there, in hexadecimal digits.
    pub listed: String,
    /// SHA-256 of the entry that it became.
    pub became: Digest,
}
