//! Bytes that must not be seen: never printed, compared in constant time, wiped when dropped.

use alloc::string::String;
use core::fmt;
use core::hint::black_box;
use core::str::FromStr;

use zeroize::{Zeroize, Zeroizing};

/// `N` secret bytes: a boot token, a session secret, a seed.
#[derive(Clone)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Takes the bytes into custody. A copy the caller keeps is the caller's to wipe.
    pub const fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// The bytes. The name is there to be seen in review.
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// As lower-case hexadecimal, for the kernel command line. The text wipes itself too.
    pub fn expose_hex(&self) -> Zeroizing<String> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        // Reserved at once: a growing string would leave unwiped copies behind.
        let mut text = Zeroizing::new(String::with_capacity(2 * N));
        for byte in &self.0 {
            text.push(DIGITS[usize::from(byte >> 4)].into());
            text.push(DIGITS[usize::from(byte & 15)].into());
        }
        text
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{N}>(..)")
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(&self.0, &other.0)
    }
}

impl<const N: usize> Eq for Secret<N> {}

/// The text was not a secret in hexadecimal. Does not repeat the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseSecretError {
    /// How many hexadecimal digits were expected.
    pub digits: usize,
}

impl fmt::Display for ParseSecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} hexadecimal digits", self.digits)
    }
}

impl core::error::Error for ParseSecretError {}

impl<const N: usize> FromStr for Secret<N> {
    type Err = ParseSecretError;

    fn from_str(text: &str) -> Result<Self, ParseSecretError> {
        let error = ParseSecretError { digits: 2 * N };
        let nibble = |b: u8| (b as char).to_digit(16).ok_or(error);
        if text.len() != 2 * N {
            return Err(error);
        }
        let mut secret = Self([0; N]);
        for (byte, pair) in secret.0.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            if let [high, low] = *pair {
                *byte = (nibble(high)? << 4 | nibble(low)?) as u8;
            }
        }
        Ok(secret)
    }
}

/// Whether two byte strings are equal, in a time that depends on their lengths only: a token check that stops at the
/// first wrong byte tells a patient attacker how many were right.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let difference = a.iter().zip(b).fold(0u8, |acc, (x, y)| black_box(acc | (x ^ y)));
    black_box(difference) == 0
}
