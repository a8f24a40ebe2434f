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
    /// Images that lie in data packs, by name: a pack is taken along as a file of its own.
    pub images_in_packs: Vec<String>,
}
