//! What the API says of data packs, and of images that may lie in one.

use rackbar_model::{ImageEntry, Refreshed, Timestamp, Upstream};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::operations::Body;

/// An operating system of the catalogue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct CatalogueEntry {
    /// What is known of it.
    #[serde(flatten)]
    pub image: ImageEntry,
    /// The data pack it lies in; left out for one that lies on the appliance itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack: Option<String>,
    /// No new plan takes it; left out for one that new plans may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<RetiredImage>,
    /// Where it is had from, so that it can be refreshed; left out for one of which that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// What was accepted from there last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refreshed: Option<Refreshed>,
    /// Since when it stays as it is; left out for one that may be refreshed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Timestamp>,
    /// Whether a machine gets it with the uplink cut.
    #[serde(default)]
    pub offline: Offline,
    /// What is missing here or not known, where `offline` is not `yes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline_lacks: Option<String>,
}

/// Whether all that an entry itself needs is on the appliance or in its data packs. What the site file adds, such as
/// packages, is not looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Offline {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// A part is, and nobody knows whether that is all.
    #[default]
    Unknown,
}

impl std::fmt::Display for Offline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        })
    }
}

/// Whether an image stays as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImagePin {
    /// True when it is not refreshed.
    pub pinned: bool,
}

/// How a refresh of an image goes, or went.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ImageRefresh {
    /// The image.
    pub image: String,
    /// What it does or did.
    pub state: RefreshState,
    /// What it does now, or what came of it, in words.
    pub words: String,
    /// Bytes of the file that came.
    pub bytes: u64,
    /// Bytes that will come, when the publisher said so.
    pub total: Option<u64>,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

/// How far a refresh is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefreshState {
    /// The publisher is asked.
    Asking,
    /// A file comes.
    Fetching,
    /// It came, and is looked at.
    Checking,
    /// What is here is what the publisher offers.
    Current,
    /// Another image took its place.
    Replaced,
    /// Nothing was changed.
    Failed,
}

/// Since when no new plan takes an image.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RetiredImage {
    /// Since when.
    pub since: Timestamp,
    /// The image that takes its place.
    pub instead: Option<String>,
}

/// Whether new plans may take an image.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageStanding {
    /// True when none may.
    pub retired: bool,
    /// The image that takes its place, for the words of a refused plan.
    #[serde(default)]
    pub instead: Option<String>,
}

/// What became of an image.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ImageStandingDone {
    /// In words.
    pub done: String,
}

/// All data packs, and whose are taken.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PackState {
    /// The key this appliance signs its own packs with.
    pub key: String,
    /// The keys whose packs it takes.
    pub trusted: Vec<TrustedKey>,
    /// The packs, by name.
    pub packs: Vec<PackEntry>,
}

/// A key whose packs are taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct TrustedKey {
    /// 64 hexadecimal digits.
    pub key: String,
    /// Why it is trusted.
    pub why: String,
}

/// A data pack.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PackEntry {
    /// Its name; empty for one that was refused before its index was read.
    pub name: String,
    /// Where it lies.
    pub place: String,
    /// What is served from it now.
    pub in_use: bool,
    /// Why nothing is served from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// It was put in and can be removed; others lie on media or in folders of somebody else.
    pub removable: bool,
    /// Its bytes.
    pub bytes: u64,
    /// When it was made.
    pub made: Timestamp,
    /// Who made it.
    pub by: String,
    /// What it is for.
    pub note: String,
    /// Who signed it.
    pub key: String,
    /// Operating systems in it.
    pub images: Vec<String>,
    /// How many answers of the caching proxy are in it.
    pub answers: u64,
}

/// What to do with data packs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum PackOrder {
    /// Make one, signed by this appliance, of images and of what the caching proxy has stored.
    Create {
        /// Its name.
        name: String,
        /// What it is for.
        #[serde(default)]
        note: String,
        /// Names of images.
        #[serde(default)]
        images: Vec<String>,
        /// Which stored answers; none when left out.
        #[serde(default)]
        cached: Option<PackPick>,
    },
    /// Read one through and compare every content with its digest.
    Verify {
        /// Its name.
        name: String,
    },
}

/// Which stored answers of the caching proxy go into a pack.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PackPick {
    /// Keys that begin with one of these; all when there is none.
    pub only: Vec<String>,
    /// Only what is pinned, as everything is that was served in the recording mode.
    pub pinned: bool,
    /// Only what was used since then.
    pub used_since: Option<Timestamp>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PackDone {
    /// In words.
    pub done: String,
}

/// A pack on its way in.
pub struct NewPack {
    /// The name its index must have.
    pub name: String,
    /// The bytes.
    pub body: Body,
}

/// A pack on its way out.
pub struct PackFile {
    /// How many bytes there are.
    pub bytes: u64,
    /// The bytes.
    pub body: Body,
}
