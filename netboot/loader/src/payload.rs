//! The sections that turn the loader into a unified kernel image, and the initial RAM filesystem made of them.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

use rackbar_boot::pe;

use crate::cpio;

/// What the image author appended to the loader.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// `.linux`: the kernel.
    pub kernel: &'a [u8],
    /// `.initrd`: the base archive, which nodes boot too.
    pub base: &'a [u8],
    /// `.initrd2`: the appliance's archive; empty when there is none.
    pub appliance: &'a [u8],
    /// `.cmdline`.
    pub command_line: &'a str,
}

/// Why a payload that is there cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadPayload {
    /// There is a kernel but not this section.
    Missing(&'static str),
    /// The section reaches beyond the image.
    CutOff(&'static str),
    /// `.cmdline` is not UTF-8.
    CommandLine,
    /// A file is too long to be handed over.
    TooLong,
}

impl fmt::Display for BadPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(
                f,
                "this boot image holds a kernel but no section {name}; write it again"
            ),
            Self::CutOff(name) => write!(
                f,
                "section {name} of this boot image is cut off; write the medium again"
            ),
            Self::CommandLine => f.write_str("section .cmdline of this boot image is not text; write the medium again"),
            Self::TooLong => f.write_str("a file in this boot image has 4 GiB or more"),
        }
    }
}

impl core::error::Error for BadPayload {}

impl<'a> Payload<'a> {
    /// Looks for a payload in a loaded `image`. `Ok(None)` when the loader is alone.
    ///
    /// # Errors
    /// When there is a kernel but the rest is not in order: then nothing else should be booted in silence.
    pub fn find(image: &'a [u8]) -> Result<Option<Self>, BadPayload> {
        let content = |name: &'static str| -> Result<Option<&'a [u8]>, BadPayload> {
            let Some(section) = pe::section(image, name) else {
                return Ok(None);
            };
            let content = image.get(section.in_memory()).ok_or(BadPayload::CutOff(name))?;
            Ok(Some(content))
        };
        let Some(kernel) = content(".linux")? else {
            return Ok(None);
        };
        let command_line =
            core::str::from_utf8(content(".cmdline")?.unwrap_or_default()).map_err(|_| BadPayload::CommandLine)?;
        Ok(Some(Self {
            kernel,
            base: content(".initrd")?.ok_or(BadPayload::Missing(".initrd"))?,
            appliance: content(".initrd2")?.unwrap_or_default(),
            command_line: command_line.trim_matches(|c: char| c == '\0' || c.is_whitespace()),
        }))
    }

    /// The initial RAM filesystem in pieces: the kernel and the base archive as files, so that the appliance can serve
    /// them to its nodes, then the archives themselves.
    ///
    /// # Errors
    /// [`BadPayload::TooLong`].
    pub fn initrd(&self) -> Result<Vec<Cow<'a, [u8]>>, BadPayload> {
        let mut pieces = Vec::new();
        // Kernels take uncompressed archives before compressed ones in any number, each at a multiple of four.
        pieces.push(Cow::Owned(cpio::directory("boot")));
        for (path, content) in [("boot/vmlinuz", self.kernel), ("boot/base.cpio.zst", self.base)] {
            pieces.push(Cow::Owned(cpio::file(path, content.len()).ok_or(BadPayload::TooLong)?));
            pieces.push(Cow::Borrowed(content));
            pieces.push(Cow::Borrowed(cpio::padding(content.len())));
        }
        pieces.push(Cow::Owned(cpio::end()));
        pieces.extend(concatenated([self.base, self.appliance].into_iter()));
        Ok(pieces)
    }
}

/// Archives behind each other, each at a multiple of four.
pub fn concatenated<'a>(archives: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = Cow<'a, [u8]>> {
    archives
        .filter(|archive| !archive.is_empty())
        .flat_map(|archive| [archive, cpio::padding(archive.len())])
        .map(Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// A loaded image (section n at 0x1000 times n) with these sections.
    fn loaded(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut image = vec![0u8; 0x1000 * (sections.len() + 2)];
        image[..2].copy_from_slice(b"MZ");
        image[0x3c] = 0x80;
        image[0x80..0x84].copy_from_slice(b"PE\0\0");
        image[0x86] = sections.len() as u8;
        for (n, (name, content)) in sections.iter().enumerate() {
            let (entry, place) = (0x98 + n * 40, 0x1000 * (n + 1));
            image[entry..entry + name.len()].copy_from_slice(name.as_bytes());
            image[entry + 8..entry + 12].copy_from_slice(&(content.len() as u32).to_le_bytes());
            image[entry + 12..entry + 16].copy_from_slice(&(place as u32).to_le_bytes());
            image[place..place + content.len()].copy_from_slice(content);
        }
        image
    }

    #[test]
    fn a_loader_alone_has_no_payload() {
        assert!(Payload::find(&loaded(&[(".text", b"x")])).unwrap().is_none());
    }

    #[test]
    fn the_sections_are_found_and_the_command_line_trimmed() {
        let image = loaded(&[
            (".linux", b"kernel"),
            (".initrd", b"base"),
            (".initrd2", b"appliance"),
            (".cmdline", b"quiet console=ttyS0\n\0"),
        ]);
        let payload = Payload::find(&image).unwrap().unwrap();
        assert_eq!(payload.kernel, b"kernel");
        assert_eq!((payload.base, payload.appliance), (&b"base"[..], &b"appliance"[..]));
        assert_eq!(payload.command_line, "quiet console=ttyS0");
    }

    #[test]
    fn half_a_payload_is_an_error() {
        let image = loaded(&[(".linux", b"kernel")]);
        assert_eq!(Payload::find(&image).unwrap_err(), BadPayload::Missing(".initrd"));
        let mut image = loaded(&[(".linux", b"kernel"), (".initrd", b"base")]);
        image.truncate(0x2002);
        assert_eq!(Payload::find(&image).unwrap_err(), BadPayload::CutOff(".initrd"));
    }

    #[test]
    fn the_initrd_begins_with_the_files_and_ends_with_the_archives() {
        let payload = Payload {
            kernel: b"kern!",
            base: b"base.",
            appliance: b"appl",
            command_line: "",
        };
        let pieces = payload.initrd().unwrap();
        let mut at = 0usize;
        for piece in &pieces {
            assert!(
                at.is_multiple_of(4) || piece.iter().all(|b| *b == 0),
                "unaligned at {at}"
            );
            at += piece.len();
        }
        let whole = pieces.concat();
        let find = |what: &[u8]| whole.windows(what.len()).position(|w| w == what).unwrap();
        assert!(find(b"boot\0") < find(b"boot/vmlinuz\0"));
        assert!(find(b"boot/vmlinuz\0") < find(b"kern!\0\0\0"));
        assert!(find(b"boot/base.cpio.zst\0") < find(b"TRAILER!!!\0"));
        assert!(whole.ends_with(b"base.\0\0\0appl"));
    }

    proptest::proptest! {
        #[test]
        fn hostile_images_never_panic(damage: Vec<(u16, u8)>, cut in 0usize..0x5000) {
            let mut image = loaded(&[(".linux", b"kernel"), (".initrd", b"base"), (".cmdline", b"\xff")]);
            for (at, byte) in damage {
                let at = usize::from(at) % 0x180;
                image[at] = byte;
            }
            image.truncate(cut);
            if let Ok(Some(payload)) = Payload::find(&image) {
                let _ = payload.initrd();
            }
        }
    }
}
