//! What the API says of services registered elsewhere.

use rackbar_model::NodeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Services of machines in a registry outside.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RegistrationState {
    /// The registry's URL; `null` when the site names none.
    pub url: Option<String>,
    /// It was given a token for that URL.
    pub token: bool,
    /// Why nothing can be done there now.
    pub trouble: Option<String>,
    /// Machine by machine.
    pub items: Vec<RegistrationEntry>,
}

/// One machine in one registry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RegistrationEntry {
    /// The machine.
    pub id: NodeId,
    /// Its name in the registry.
    pub node: String,
    /// The registry's URL.
    pub url: String,
    /// Its datacentre; the registry's own when there is none.
    pub datacenter: Option<String>,
    /// Ids of the services.
    pub services: Vec<String>,
    /// It is to be there; else it is being taken out.
    pub wanted: bool,
    /// Why it is not as wanted; `null` when it is.
    pub trouble: Option<String>,
}

/// A registry's ACL token.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistrationToken {
    /// At most 1024 printable ASCII characters; `null` forgets the one before.
    pub token: Option<String>,
}
