//! What can go wrong with the network.

use std::fmt;
use std::io;

/// A failed step: what was tried, on what, and the kernel's word.
#[derive(Debug)]
pub struct Error {
    what: String,
    source: io::Error,
}

impl Error {
    pub(crate) fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self {
            what: what.into(),
            source: source.into(),
        }
    }

    /// The kernel's error code, when it was the kernel that refused.
    pub fn code(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// True when what was to be removed was not there, or what was to be added was there already.
    pub fn is_settled(&self) -> bool {
        use nix::libc::{EADDRNOTAVAIL, EEXIST, ENODEV, ESRCH};
        matches!(self.code(), Some(EEXIST | EADDRNOTAVAIL | ESRCH | ENODEV))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
