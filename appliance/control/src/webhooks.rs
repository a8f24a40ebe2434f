//! What the API says of webhooks.

use rackbar_model::{Severity, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A webhook.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct WebhookEntry {
    /// Its name.
    pub name: String,
    /// Where events are posted to, without the path, which may be known to the receiver alone.
    pub to: String,
    /// Names of events; one that ends with `*` stands for all that begin so. Empty for all.
    pub events: Vec<String>,
    /// Only events of at least this severity.
    pub severity: Severity,
    /// It has a secret, so that its messages are signed.
    pub signed: bool,
    /// Number of the last event that is done with.
    pub after: u64,
    /// Events since, wanted or not.
    pub behind: u64,
    /// When the receiver last took one, since the start.
    pub heard: Option<Timestamp>,
    /// Why the receiver does not take the next one.
    pub trouble: Option<String>,
    /// Events that were never taken: refused by the receiver for what they are, or gone from the journal before it could
    /// be reached.
    pub passed_over: u64,
}

/// A secret for a webhook.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookSecret {
    /// At least 16 bytes of text, or `whsec_` and base64; a random one is made when it is left out.
    pub secret: Option<String>,
}
