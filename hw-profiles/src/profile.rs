//! A profile as it is written. The build script reads it too, so it needs nothing but serde.

use serde::{Deserialize, Serialize};

/// Which machines a profile is for. What is absent fits any machine; in text, `*` stands for any text, and capitals do
/// not count.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// Maker of the system.
    pub manufacturer: Option<String>,
    /// Product.
    pub model: Option<String>,
    /// Board, as the chassis names it.
    pub board: Option<String>,
    /// Firmware version of the BMC.
    pub firmware: Option<String>,
    /// From this firmware version on.
    pub firmware_from: Option<String>,
    /// Up to, but without, this firmware version.
    pub firmware_before: Option<String>,
}

/// Quirks as a profile states them: only some. What each means stands at [`Quirks`](crate::Quirks).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stated {
    /// See `Quirks`.
    pub reset_needs_force_off: Option<bool>,
    /// See `Quirks`.
    pub boot_override_mode_required: Option<bool>,
    /// See `Quirks`.
    pub boot_override_at_settings: Option<bool>,
    /// See `Quirks`.
    pub boot_order_refused: Option<bool>,
    /// See `Quirks`.
    pub boot_order_at_settings: Option<bool>,
    /// See `Quirks`.
    pub etag_broken: Option<bool>,
    /// See `Quirks`.
    pub basic_auth_only: Option<bool>,
    /// See `Quirks`.
    pub session_given_back: Option<bool>,
    /// See `Quirks`.
    pub system: Option<String>,
    /// See `Quirks`.
    pub bios: Option<String>,
    /// See `Quirks`.
    pub bios_settings: Option<String>,
    /// See `Quirks`.
    pub http_boot_setting: Option<String>,
    /// See `Quirks`.
    pub ipmi_suite: Option<u8>,
    /// See `Quirks`.
    pub ipmi_password_bytes: Option<u8>,
    /// See `Quirks`.
    pub request_pause_ms: Option<u16>,
    /// See `Quirks`.
    pub request_burst: Option<u8>,
}

/// A profile.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name; a site's profile of the same name is laid over the shipped one.
    pub name: String,
    /// Where its claim was found.
    pub source: String,
    /// The profile whose quirks it starts from.
    #[serde(default)]
    pub extends: Option<String>,
    /// Only there to be extended: it fits no machine by itself.
    #[serde(default)]
    pub base: bool,
    /// Which machines it is for.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// What they do differently.
    #[serde(default)]
    pub quirks: Stated,
}
