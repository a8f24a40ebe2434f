//! SHA-256 over a value's postcard bytes: short, unambiguous, and the same on every machine.

use rackbar_model::Digest;
use rackbar_trust::Sha256;
use serde::Serialize;

/// The digest of a value. Postcard can serialise all our plain data; should it ever refuse, the error's text stands in
/// for the bytes and equals no value's.
pub(crate) fn of<T: Serialize + ?Sized>(value: &T) -> Digest {
    let mut hash = Sha256::new();
    match postcard::to_allocvec(value) {
        Ok(bytes) => hash.update(&bytes),
        Err(error) => hash.update(error.to_string().as_bytes()),
    }
    Digest(hash.finish())
}
