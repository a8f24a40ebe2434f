//! Package repositories of the site's own, and the state of one that was locked.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{Digest, Timestamp};

/// What kind of repository it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RepositoryKind {
    /// Debian packages, with a signed `InRelease`, or `Release` and its signature.
    #[default]
    Deb,
    /// RPM packages, with a `repomd.xml` that is signed.
    Rpm,
    /// A Git repository, at a commit.
    Git,
}

/// The state of a repository that was recorded. Machines get this one until it is locked again, whatever its origin has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct RepositoryLock {
    /// Its name in the site file.
    pub name: String,
    /// Its kind.
    pub kind: RepositoryKind,
    /// URL of the folder that has `dists` or `repodata`, or that a flat suite is below; of a Git repository as `git clone` takes it.
    pub url: String,
    /// Suite; empty for others than Debian packages, which have none.
    pub suite: String,
    /// What its publisher calls this state, where it is RPM packages and has a name: `revision` in `repomd.xml`. Of a Git
    /// repository the commit, as 40 hexadecimal digits.
    #[serde(default)]
    pub revision: Option<String>,
    /// What was asked for of a Git repository: a branch, a tag, a commit, or `HEAD`.
    #[serde(default)]
    pub reference: Option<String>,
    /// Components.
    pub components: Vec<String>,
    /// Debian's names of the architectures.
    pub architectures: Vec<String>,
    /// SHA-256 of the certificates as the site file had them.
    pub keys: Digest,
    /// When its publisher made it, in seconds since 1970; of a Git repository when the commit was made.
    pub date: u64,
    /// SHA-256 of its `InRelease`, `Release` or `repomd.xml`; of a Git repository of what stands in `info/refs` and `HEAD`.
    pub release: Digest,
    /// Fingerprint of the certificate that signed it; empty for a Git repository, whose signatures nobody looks at.
    pub signer: String,
    /// The lists of packages that are kept here, by their paths below the suite; of RPM packages below the URL; of a Git
    /// repository the pack, its index and the files of the commit.
    pub indexes: Vec<LockedIndex>,
    /// How many packages they list; of a Git repository how many commits there are.
    pub packages: u64,
    /// When it was locked.
    pub locked: Timestamp,
    /// Who locked it.
    pub by: String,
}

/// Where a suite of Debian packages lies below its repository's URL, with a slash at its end or empty. A suite that ends with a
/// slash is a flat one (sources.list(5)): that folder itself, without `dists`.
pub fn suite_folder(suite: &str) -> String {
    match suite.strip_suffix('/') {
        None => format!("dists/{suite}/"),
        Some("." | "") => String::new(),
        Some(folder) => format!("{}/", folder.trim_start_matches("./")),
    }
}

/// A list of packages that a lock keeps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct LockedIndex {
    /// Path, such as `main/binary-amd64/Packages.xz` below a suite or `repodata/primary.xml.gz` below a URL.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: Digest,
}
