//! What one machine is to boot: files by digest, and the kernel's command line.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use rackbar_model::Digest;

/// A kernel, the parts of its initial RAM filesystem in order, and its command line.
#[derive(Clone, PartialEq, Eq)]
pub struct BootSpec {
    /// The kernel: bootable by BIOS and UEFI alike (a bzImage with EFI stub).
    pub kernel: SpecFile,
    /// cpio archives, handed over one behind the other.
    pub initrds: Vec<SpecFile>,
    /// The kernel's arguments. Hold the one-time token, so `Debug` leaves them out.
    pub command_line: String,
}

impl fmt::Debug for BootSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootSpec")
            .field("kernel", &self.kernel)
            .field("initrds", &self.initrds)
            .finish_non_exhaustive()
    }
}

/// A boot file: what to call it and what must be in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpecFile {
    name: String,
    size: u64,
    sha256: Digest,
}

impl SpecFile {
    /// A file called `name` of `size` bytes.
    ///
    /// # Errors
    /// The name becomes part of a URL, of a script and of a command line: letters, digits, `.`, `-`, `_`, `+` only.
    pub fn new(name: &str, size: u64, sha256: Digest) -> Result<Self, BadFileName> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-+".contains(&b);
        if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(BadFileName(name.to_string()));
        }
        Ok(Self {
            name: name.to_string(),
            size,
            sha256,
        })
    }

    /// Its name, without folders.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// SHA-256 of its content.
    pub fn sha256(&self) -> Digest {
        self.sha256
    }

    /// Where the boot HTTP server has it: `/boot/v1/files/<sha256>/<name>`.
    pub fn path(&self) -> String {
        format!("/boot/v1/files/{}/{}", self.sha256, self.name)
    }
}

/// True for what a boot file of the site's own may be called: up to 100 letters, digits, `.`, `-`, `_` and `+`, with `/`
/// between folders, none of which begins with a dot. Such a name leads nowhere but below the folder it is looked for in,
/// and stands in a URL as it is.
pub fn is_site_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_+".contains(&b);
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    name.len() <= 100 && name.split('/').all(part)
}

/// A file name that cannot stand in a URL and a script as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadFileName(pub String);

impl fmt::Display for BadFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` cannot name a boot file: use 1 to 100 letters, digits, `.`, `-`, `_` or `+`, not beginning with `.`",
            self.0.escape_default()
        )
    }
}

impl core::error::Error for BadFileName {}

#[cfg(test)]
pub(crate) fn example() -> BootSpec {
    let file = |name, size, fill| SpecFile::new(name, size, Digest([fill; 32])).unwrap();
    BootSpec {
        kernel: file("vmlinuz", 8_200_000, 0x11),
        initrds: alloc::vec![file("base.cpio.zst", 10_000_000, 0x22), file("extra.cpio", 300, 0x33)],
        command_line: "rackbar.role=node rackbar.token=5ec2e7".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_by_digest_and_name() {
        let path = example().kernel.path();
        assert_eq!(path, format!("/boot/v1/files/{}/vmlinuz", "11".repeat(32)));
    }

    #[test]
    fn names_of_the_sites_files_lead_nowhere_else() {
        for good in ["shimaa64.efi", "arm64/grub/grub.cfg", "a+b", "a..b"] {
            assert!(is_site_name(good), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            ".hidden",
            "a\\b",
            "a b",
            "%2e",
            &"x".repeat(101),
        ] {
            assert!(!is_site_name(bad), "{bad}");
        }
    }

    #[test]
    fn names_that_would_change_a_script_or_a_path_are_refused() {
        for bad in ["", "..", ".x", "a/b", "a b", "a\nb", "ü", "a?b", "${x}", "a%00"] {
            assert!(SpecFile::new(bad, 1, Digest([0; 32])).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_token_is_not_in_debug_output() {
        assert!(!format!("{:?}", example()).contains("5ec2e7"));
    }
}
