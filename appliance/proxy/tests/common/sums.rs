//! Digests as indexes of packages promise them.
#![allow(dead_code, reason = "each test file uses a part")]

use rackbar_trust::{Sha512, sha256};
use rackbar_upstream::Sum;

pub fn short(bytes: &[u8]) -> Sum {
    Sum::Sha256(sha256(bytes))
}

pub fn long(bytes: &[u8]) -> Sum {
    let mut hash = Sha512::new();
    hash.update(bytes);
    Sum::Sha512(hash.finish())
}
