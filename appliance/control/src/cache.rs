//! What the API says of the caching proxy.

use rackbar_model::{Digest, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The cache as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct CacheState {
    /// Whether origins are asked: `online`, `offline` or `recording`.
    pub mode: String,
    /// Bytes of stored contents.
    pub used_bytes: u64,
    /// Bytes they may take.
    pub budget_bytes: u64,
    /// Keys, and prefixes that end in `*`, that are never evicted.
    pub pins: Vec<String>,
}

/// A stored answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct CacheEntry {
    /// What it answers: a URL, or `mirror:NAME/PATH`.
    pub key: String,
    /// SHA-256 of its content.
    pub sha256: Digest,
    /// Bytes of its content.
    pub bytes: u64,
    /// When it came or was last found to hold.
    pub stored: Timestamp,
    /// When it was used last.
    pub used: Timestamp,
    /// Answers given from it since the start.
    pub hits: u64,
    /// It is never evicted.
    pub pinned: bool,
    /// For how many seconds more it is fresh; negative when stale.
    pub fresh_seconds: i64,
    /// The data pack it lies in; left out for what the appliance has stored itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack: Option<String>,
}

/// What to do with the cache.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum CacheOrder {
    /// Keep a key, fetching it when it is not there, or all keys that begin like a prefix that ends in `*`.
    Pin {
        /// Key or prefix.
        key: String,
    },
    /// Let it be evicted again.
    Unpin {
        /// Key or prefix as it was pinned.
        key: String,
    },
    /// Ask the origin whether it still holds, and fetch it when it does not.
    Refresh {
        /// Key.
        key: String,
    },
    /// Hash every stored content, and drop what is damaged.
    Verify,
    /// Whether origins are asked, until the configured mode changes or the appliance starts anew.
    Mode {
        /// `online`, `offline` or `recording`.
        mode: String,
    },
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct CacheDone {
    /// In words.
    pub done: String,
}
