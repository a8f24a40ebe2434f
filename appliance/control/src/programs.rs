//! What the API says of the users' programs.

use rackbar_model::{Digest, ProgramEntry};

use crate::operations::Body;

/// A program on its way in.
pub struct NewProgram {
    /// Its name, as site files will write it.
    pub name: String,
    /// SHA-256 that the file must have.
    pub sha256: Option<Digest>,
    /// The bytes.
    pub body: Body,
}

/// A program that was put in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PutProgram {
    /// What is there under the name now.
    pub entry: ProgramEntry,
    /// What had the name before.
    pub before: Option<ProgramEntry>,
}
