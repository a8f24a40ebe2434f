//! Whose packs are taken.

use std::fmt;
use std::str::FromStr;

use crate::PackError;

/// An Ed25519 public key. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 32]);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A key and a digest are written alike.
        let digest = text.parse::<rackbar_model::Digest>();
        digest
            .map(|digest| Self(digest.0))
            .map_err(|_| format!("{text:?} is no key: 64 hexadecimal digits are wanted"))
    }
}

/// The keys whose packs are taken, each with a word on why.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trust(Vec<(Key, String)>);

impl Trust {
    /// Nobody is trusted.
    pub fn nobody() -> Self {
        Self::default()
    }

    /// Trusts also this key; `why` is what people are shown, such as `this appliance`.
    #[must_use]
    pub fn and(mut self, key: Key, why: impl Into<String>) -> Self {
        if self.why(&key).is_none() {
            self.0.push((key, why.into()));
        }
        self
    }

    /// Why a key is trusted.
    pub fn why(&self, key: &Key) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, why)| why.as_str())
    }

    /// Refuses a key that is not trusted.
    ///
    /// # Errors
    /// [`PackError::Foreign`].
    pub fn check(&self, key: Key) -> Result<(), PackError> {
        self.why(&key).map(drop).ok_or(PackError::Foreign { key })
    }
}
