//! What an image file is, and how large a disk it makes, told from its content. Reads only headers and, for formats
//! whose headers form a chain, the chain; decompresses nothing. The bytes come from outside: nothing is trusted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rackbar_model::ImageFormat;

/// Why content is not taken for a disk image.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// The file ends before its content does.
    #[error("it is cut off: {0}")]
    CutOff(&'static str),
    /// It is of another kind than the sender said.
    #[error("it was announced as {announced:?}, its content is {found:?}")]
    Other {
        /// What the sender said.
        announced: ImageFormat,
        /// What the content says.
        found: ImageFormat,
    },
    /// It is something we know and cannot write to a disk.
    #[error("{0}")]
    Unusable(&'static str),
    /// It is a disc, and not one that can be taken.
    #[error("{0}")]
    Disc(String),
    /// Reading failed.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// The packing and the size of the unpacked disk in bytes, where the format tells.
pub(super) fn detect(
    file: &File,
    bytes: u64,
    announced: Option<ImageFormat>,
) -> Result<(ImageFormat, Option<u64>), DetectError> {
    let content = Content { file, bytes };
    let magic: [u8; 6] = content.at(0)?.ok_or(DetectError::CutOff("it has no content"))?;
    let found = match magic {
        [0x28, 0xB5, 0x2F, 0xFD, ..] => ImageFormat::Zstd,
        // A skippable frame in front (RFC 8878 section 3.1.2).
        [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => ImageFormat::Zstd,
        [0xFD, b'7', b'z', b'X', b'Z', 0] => ImageFormat::Xz,
        [0x1F, 0x8B, ..] => ImageFormat::Gzip,
        [b'Q', b'F', b'I', 0xFB, ..] => ImageFormat::Qcow2,
        _ => ImageFormat::Raw,
    };
    if let Some(announced) = announced.filter(|announced| *announced != found) {
        return Err(DetectError::Other { announced, found });
    }
    let disk_bytes = match found {
        ImageFormat::Raw => Some(raw(&content)?),
        ImageFormat::Zstd => zstd(&content)?,
        ImageFormat::Xz => xz(&content)?,
        // Its length field is modulo 4 GiB (RFC 1952 section 2.3.1) and counts one member only: worse than none.
        ImageFormat::Gzip => None,
        ImageFormat::Qcow2 => Some(qcow2(&content)?),
    };
    Ok((found, disk_bytes))
}

struct Content<'a> {
    file: &'a File,
    bytes: u64,
}

impl Content<'_> {
    /// `N` bytes at `offset`; `None` when the file ends before.
    fn at<const N: usize>(&self, offset: u64) -> io::Result<Option<[u8; N]>> {
        if offset.checked_add(N as u64).is_none_or(|end| end > self.bytes) {
            return Ok(None);
        }
        let mut buffer = [0; N];
        self.file.read_exact_at(&mut buffer, offset)?;
        Ok(Some(buffer))
    }
}

fn raw(content: &Content<'_>) -> Result<u64, DetectError> {
    // ISO 9660's first volume descriptor (ECMA-119 section 8.1). Hybrid ISOs carry a boot sector as well.
    if content.at(32_769)? == Some(*b"CD001") {
        return Err(DetectError::Unusable(
            "it begins as an ISO 9660 disc and has no volume: it came damaged; fetch it again",
        ));
    }
    if content.at(510)? != Some([0x55, 0xAA]) {
        return Err(DetectError::Unusable(
            "it is neither zstd, xz, gzip nor qcow2, and as a raw disk it has no partition table (no boot signature in \
             its first sector)",
        ));
    }
    if !content.bytes.is_multiple_of(512) {
        return Err(DetectError::CutOff("a disk's size is a multiple of 512 bytes"));
    }
    Ok(content.bytes)
}

/// qcow2's header: QEMU, docs/interop/qcow2.txt, big-endian.
fn qcow2(content: &Content<'_>) -> Result<u64, DetectError> {
    let cut = || DetectError::CutOff("the qcow2 header is not complete");
    let version = u32::from_be_bytes(content.at(4)?.ok_or_else(cut)?);
    let backing = u64::from_be_bytes(content.at(8)?.ok_or_else(cut)?);
    let size = u64::from_be_bytes(content.at(24)?.ok_or_else(cut)?);
    let encryption = u32::from_be_bytes(content.at(32)?.ok_or_else(cut)?);
    if !matches!(version, 2 | 3) {
        return Err(DetectError::Unusable("it is qcow2 of a version other than 2 and 3"));
    }
    if backing != 0 {
        return Err(DetectError::Unusable(
            "it is a qcow2 overlay whose backing file is not part of it; flatten it with `qemu-img convert`",
        ));
    }
    if encryption != 0 {
        return Err(DetectError::Unusable("it is an encrypted qcow2 image"));
    }
    Ok(size)
}

/// Walks all frames, because tools that compress in parallel write many. `None` when one does not say its size.
fn zstd(content: &Content<'_>) -> Result<Option<u64>, DetectError> {
    let cut = || DetectError::CutOff("the Zstandard stream ends within a frame");
    let (mut offset, mut total) = (0u64, Some(0u64));
    while offset < content.bytes {
        let magic = u32::from_le_bytes(content.at(offset)?.ok_or_else(cut)?);
        if magic & 0xFFFF_FFF0 == 0x184D_2A50 {
            let length = u32::from_le_bytes(content.at(offset + 4)?.ok_or_else(cut)?);
            offset = offset + 8 + u64::from(length);
            continue;
        }
        if magic != 0xFD2F_B528 {
            return Err(DetectError::Unusable(
                "something that is no Zstandard frame follows the first one",
            ));
        }
        let (size, end) = zstd_frame(content, offset + 4)?;
        total = total.zip(size).and_then(|(total, size)| total.checked_add(size));
        offset = end;
    }
    if offset > content.bytes {
        return Err(cut());
    }
    Ok(total)
}

/// One frame, from its header descriptor (RFC 8878 section 3.1.1): its content size, and where it ends.
fn zstd_frame(content: &Content<'_>, at: u64) -> Result<(Option<u64>, u64), DetectError> {
    let cut = || DetectError::CutOff("the Zstandard stream ends within a frame");
    let [descriptor] = content.at(at)?.ok_or_else(cut)?;
    let single = descriptor & 0x20 != 0;
    let checksum = descriptor & 0x04 != 0;
    let window = u64::from(!single);
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    if dictionary != 0 {
        return Err(DetectError::Unusable("it needs a Zstandard dictionary"));
    }
    let field = at + 1 + window;
    let (length, size) = match (descriptor >> 6, single) {
        (0, false) => (0, None),
        (0, true) => (1, content.at::<1>(field)?.map(|[size]| u64::from(size))),
        (1, _) => (
            2,
            content.at(field)?.map(|size| u64::from(u16::from_le_bytes(size)) + 256),
        ),
        (2, _) => (4, content.at(field)?.map(|size| u64::from(u32::from_le_bytes(size)))),
        _ => (8, content.at(field)?.map(u64::from_le_bytes)),
    };
    let mut offset = field + length;
    loop {
        let [a, b, c] = content.at(offset)?.ok_or_else(cut)?;
        let header = u32::from_le_bytes([a, b, c, 0]);
        // A block of the RLE kind has one byte, whatever size it stands for.
        let length = match (header >> 1) & 3 {
            1 => 1,
            3 => {
                return Err(DetectError::Unusable(
                    "its Zstandard stream has a block of a reserved kind",
                ));
            }
            _ => u64::from(header >> 3),
        };
        offset = offset + 3 + length;
        if header & 1 != 0 {
            break;
        }
    }
    Ok((size, offset + if checksum { 4 } else { 0 }))
}

/// Adds up the indexes of all streams, from the end (the .xz file format 1.2.0, sections 2.1.2 and 4).
fn xz(content: &Content<'_>) -> Result<Option<u64>, DetectError> {
    let cut = || DetectError::CutOff("the xz stream has no footer");
    let (mut end, mut total) = (content.bytes, 0u64);
    while end > 0 {
        let footer: [u8; 12] = end
            .checked_sub(12)
            .map(|at| content.at(at))
            .transpose()?
            .flatten()
            .ok_or_else(cut)?;
        let [_, _, _, _, b0, b1, b2, b3, _, _, y, z] = footer;
        if footer[8..] == [0; 4] {
            // Stream padding: whole words of zeros.
            end -= 4;
            continue;
        }
        if [y, z] != *b"YZ" {
            return Err(cut());
        }
        let index = (u64::from(u32::from_le_bytes([b0, b1, b2, b3])) + 1) * 4;
        let start = (end - 12).checked_sub(index).ok_or_else(cut)?;
        let (packed, unpacked) = xz_index(content, start, end - 12)?;
        total = total.checked_add(unpacked).ok_or_else(cut)?;
        // Stream header, blocks, index, footer.
        let length = packed.checked_add(12).ok_or_else(cut)?;
        end = start.checked_sub(length).ok_or_else(cut)?;
    }
    Ok(Some(total))
}

/// One index: the sum of all blocks' sizes, packed (padded to words) and unpacked.
fn xz_index(content: &Content<'_>, start: u64, end: u64) -> Result<(u64, u64), DetectError> {
    let bad = || DetectError::Unusable("the index at the end of its xz stream makes no sense");
    let mut at = start.checked_add(1).ok_or_else(bad)?;
    let mut number = || -> Result<u64, DetectError> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let [byte] = content.at(at)?.filter(|_| at < end).ok_or_else(bad)?;
            at += 1;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(bad())
    };
    let records = number()?;
    let (mut packed, mut unpacked) = (0u64, 0u64);
    // Each record has two bytes at least, so the index's end bounds this.
    for _ in 0..records {
        let block = number()?.checked_next_multiple_of(4).ok_or_else(bad)?;
        packed = packed.checked_add(block).ok_or_else(bad)?;
        unpacked = unpacked.checked_add(number()?).ok_or_else(bad)?;
    }
    Ok((packed, unpacked))
}
