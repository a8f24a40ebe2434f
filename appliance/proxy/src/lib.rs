//! The caching proxy of the site: a forward proxy (plain HTTP, `CONNECT` under a rule) and mirrors under `/mirror/NAME/`.
//!
//! ```text
//! wire      one request out of a connection's bytes                                    pure
//! chunks    its body, when that comes in chunks                                         pure
//! crowd     how many connections each client has
//! rules     what a shared cache may do, where clients may be led, which upstream next  pure
//! index     digests that indexes of packages promise                                   pure
//! store     objects by SHA-256, entries, budget, pins
//! repositories  what locks of repositories name, and nothing else
//! held      contents that locked repositories keep, whatever their origins do
//! pinning   what a pin by prefix stands for                                            pure
//! packs     answers in data packs, and those picked to go into one
//! origin    connections to origins, straight or by a parent proxy
//! fetch     one request to the origin however many wait
//! serve     connections of clients
//! ```
//! Contracts: nobody is ever given a content cut short, or one that contradicts its promised digest, as whole; no client
//! is led to the appliance itself or to a BMC; memory does not grow with the size of what passes.

pub mod chunks;
mod crowd;
pub mod fetch;
mod handle;
mod held;
pub mod index;
mod metrics;
mod mirrors;
mod operate;
pub mod origin;
mod packs;
mod pinning;
mod promises;
mod proxy;
mod repositories;
pub mod rules;
mod serve;
mod settings;
pub mod store;
pub mod wire;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rackbar_model::Severity;

pub use handle::{Handle, StartError, start};
pub use held::{Need, Promised};
pub use metrics::{Counter, Metrics, Sample};
pub use operate::{CacheError, Item, Verified};
pub use packs::{Pick, Picked};
pub use proxy::Proxy;
pub use repositories::{Document, Locked};
pub use settings::{Mirror, Mode, Settings, authorities};

/// Takes what the operator should read.
pub type Tell = Arc<dyn Fn(Severity, String) + Send + Sync>;

/// Hears how each request was answered: the client, what it asked for, and the status; 0 when it got no answer. Called on the
/// proxy's threads: it must not wait.
pub type Watch = Arc<dyn Fn(IpAddr, &str, u16) + Send + Sync>;

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
