//! What the API says of the site's package repositories.

use rackbar_model::{RepositoryKind, RepositoryLock, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A repository of the site file, or one that is still locked though the site file has it no more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RepositoryEntry {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: RepositoryKind,
    /// Its URL in the site file.
    pub url: String,
    /// Suite; empty for others than Debian packages, which have none.
    pub suite: String,
    /// What of a Git repository is locked.
    #[serde(default)]
    pub reference: Option<String>,
    /// Fingerprints of the certificates that may sign.
    pub keys: Vec<String>,
    /// The site file has it.
    pub in_site: bool,
    /// Roles of the site that name it.
    pub roles: Vec<String>,
    /// What it is locked to; machines can get nothing from it without a lock.
    pub lock: Option<RepositoryLock>,
    /// Fields of the site file that say something else than the lock, so that it has to be locked anew.
    pub differs: Option<String>,
    /// How far the fetching of all its packages is, where that was ordered since the appliance started.
    #[serde(default)]
    pub fetch: Option<RepositoryFetch>,
}

/// How far the fetching of all packages of a locked repository is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RepositoryFetch {
    /// It goes on.
    pub running: bool,
    /// Files that the lock promises.
    pub files: u64,
    /// Those of them that are kept by now.
    pub kept: u64,
    /// Bytes that were to be fetched when it began.
    pub bytes: u64,
    /// Bytes of them that are kept by now.
    pub kept_bytes: u64,
    /// Files that could not be had.
    pub failed: u64,
    /// What went wrong last.
    pub trouble: Option<String>,
}

/// What a new lock of a repository would bring.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RepositoryCheck {
    /// Its name.
    pub name: String,
    /// What its origin has is what it is locked to.
    pub current: bool,
    /// When the publisher made what it is locked to, if it is.
    pub locked_date: Option<Timestamp>,
    /// When the publisher made what its origin has.
    pub found_date: Timestamp,
    /// The origin could not be asked, or is not to be: this is of what was stored at that time.
    pub stored: Option<Timestamp>,
    /// Packages that a new lock would bring, by name and architecture; of a Git repository commits.
    pub added: u64,
    /// Packages that it would take away.
    pub removed: u64,
    /// Packages that would have another version or content.
    pub changed: u64,
    /// In one sentence.
    pub words: String,
}

/// What was done, in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RepositoryDone {
    /// In one sentence.
    pub done: String,
}
