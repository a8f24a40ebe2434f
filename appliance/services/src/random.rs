//! Random numbers that nobody can guess, from the kernel.

use nix::libc;

/// Random bytes.
///
/// # Panics
/// When the kernel has none, which getrandom(2) excludes for up to 256 bytes once the machine is up.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    const { assert!(N <= 256) };
    let mut out = [0; N];
    // SAFETY: the pointer and length are those of a live buffer.
    let got = unsafe { libc::getrandom(out.as_mut_ptr().cast(), N, 0) };
    assert_eq!(
        usize::try_from(got),
        Ok(N),
        "getrandom: {}",
        std::io::Error::last_os_error()
    );
    out
}
