//! What a saved state would hold, told before it is asked for.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a saved state would hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ExportSizes {
    /// Bytes of the store; its part of the file is smaller.
    pub store_bytes: u64,
    /// The users' programs.
    pub programs: u64,
    /// Their bytes.
    pub program_bytes: u64,
    /// Images of the catalogue, those that only runs under way need included.
    pub images: u64,
    /// Their bytes.
    pub image_bytes: u64,
    /// Data packs that were put in.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Data packs in use that lie on a medium of their own, by name: such a medium is moved as it is.
    pub packs_elsewhere: Vec<String>,
    /// Answers that the proxy stored.
    pub answers: u64,
    /// Bytes of their contents.
    pub answer_bytes: u64,
}

/// What of a state goes into a file beside the store and the users' programs, which always do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExportParts {
    /// The images of the catalogue, and data packs that were put in.
    pub images: bool,
    /// What the proxy stored; its pins go along in any case.
    pub cache: bool,
}
