//! Files that travel with an exported state. Whose they are and what is in them others know.

use std::io::Read;

use rackbar_model::Digest;
use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::export::bad;

/// A file that travels with a state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attached {
    /// Its name, which is for the one who gave it to understand.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: Digest,
}

/// A file on its way into an export.
pub struct Outgoing {
    /// What it is to be.
    pub file: Attached,
    /// Its content.
    pub content: Box<dyn Read + Send>,
}

/// Takes the files of an export. What is refused here ends the import, with nothing changed.
pub trait Attachments {
    /// All that will come, before any of it and before anything else is written.
    ///
    /// # Errors
    /// When they are not to be taken: [`StoreError::BadExport`], or [`StoreError::NoRoom`].
    fn expect(&mut self, files: &[Attached]) -> Result<(), StoreError>;

    /// The next bytes of this file, in order. Size and digest are compared elsewhere.
    ///
    /// # Errors
    /// When they cannot be written.
    fn take(&mut self, file: &Attached, piece: &[u8]) -> Result<(), StoreError>;

    /// This file came whole.
    ///
    /// # Errors
    /// When it cannot be kept.
    fn whole(&mut self, file: &Attached) -> Result<(), StoreError>;
}

/// For a store that lives alone: an export with files is refused.
impl Attachments for () {
    fn expect(&mut self, files: &[Attached]) -> Result<(), StoreError> {
        match files.first() {
            None => Ok(()),
            Some(file) => Err(bad(format!("there is no place here for its file {:?}", file.name))),
        }
    }

    fn take(&mut self, _: &Attached, _: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }

    fn whole(&mut self, _: &Attached) -> Result<(), StoreError> {
        Ok(())
    }
}
