//! Passwords and keys that are wiped when dropped and never printed.

use core::fmt;

use zeroize::Zeroizing;

/// A password or key: at most 20 bytes count for IPMI (section 22.30), wiped on drop, left out of `Debug`.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Longest password IPMI 2.0 can carry, in bytes.
    pub const MAX: usize = 20;

    /// Takes a password; `None` when it is longer than [`Self::MAX`], because a BMC would silently cut it and the
    /// operator would see a wrong-password error on another interface.
    pub fn new(password: &[u8]) -> Option<Self> {
        (password.len() <= Self::MAX).then(|| Self(Zeroizing::new(password.to_vec())))
    }

    /// The bytes as they are fed into an HMAC: trailing zeros do not change an HMAC key shorter than its block.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes a fixed, zero-padded field as Set User Password sends it.
    pub fn from_padded(field: &[u8]) -> Self {
        let end = field.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
        Self(Zeroizing::new(field.iter().take(end.min(Self::MAX)).copied().collect()))
    }

    /// The password zero-padded to 20 bytes, as Set User Password sends it.
    pub fn padded(&self) -> Zeroizing<[u8; 20]> {
        let mut out = Zeroizing::new([0u8; 20]);
        for (to, from) in out.iter_mut().zip(self.0.iter()) {
            *to = *from;
        }
        out
    }

    /// Compares in constant time for equal lengths.
    pub fn matches(&self, other: &[u8]) -> bool {
        same(&self.0, other)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Equality without a data-dependent branch. ring keeps its own comparison behind a deprecated door, and this is all
/// it takes; `black_box` keeps the compiler from turning the fold into an early exit.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a
        .iter()
        .zip(b)
        .fold(0u8, |acc, (x, y)| core::hint::black_box(acc | (x ^ y)));
    a.len() == b.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_value_to_itself() {
        let secret = Secret::new(b"calvin").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert!(secret.matches(b"calvin") && !secret.matches(b"calvim") && !secret.matches(b"calvin1"));
        assert!(Secret::from_padded(&*secret.padded()).matches(b"calvin"));
        assert!(Secret::new(&[b'x'; 21]).is_none());
    }
}
