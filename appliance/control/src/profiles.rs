//! What the API says of hardware profiles: how machines of a kind are treated, and whose word that is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A hardware profile that was read at the appliance's start.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct HardwareProfile {
    /// Its name; the file's where it cannot be read.
    pub name: String,
    /// Where its claim was found, as it says.
    pub source: String,
    /// The file it is from; `shipped` for those that come with Rackbar.
    pub place: String,
    /// Whether it is in force.
    pub in_use: bool,
    /// Why it is not.
    pub why_not: Option<String>,
    /// The key that signed it, 64 hexadecimal digits; none for one that nobody signed.
    pub key: Option<String>,
    /// Why that key is trusted.
    pub signer: Option<String>,
}

/// A profile to be signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileToSign {
    /// The file's text, byte for byte.
    pub text: String,
}

/// A profile's signature.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProfileSignature {
    /// The profile's name.
    pub name: String,
    /// The key that signed, 64 hexadecimal digits.
    pub key: String,
    /// What belongs into the file beside the profile: its name with `.sig` behind it.
    pub signature: String,
}
