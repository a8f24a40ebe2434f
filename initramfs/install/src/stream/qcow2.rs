//! qcow2, versions 2 and 3 (QEMU's docs/interop/qcow2.txt), read in the guest's order.
//!
//! Its tables say where each cluster lies, so it cannot be unpacked while it streams by. It is fetched twice: once from
//! end to end, for the digest of the whole and of every MiB; then MiB by MiB as the tables ask, each compared with its
//! digest of the first time. So nothing is written that the digest of the image does not cover, in bounded memory.

use std::collections::VecDeque;
use std::io::Read;

use rackbar_messages::JobFailure;
use rackbar_model::ImageSource;
use rackbar_trust::{Sha256, sha256};

use super::http::Remote;
use crate::Result;
use crate::control::{Control, fault, refuse};
use crate::disk::MIB;

/// Size of the pieces that are compared.
const PIECE: u64 = MIB;

/// Pieces kept: tables and data alternate.
const KEPT: usize = 24;

/// Largest file: the digests of its pieces take 32 MiB.
const LARGEST: u64 = MIB << 20;

/// Largest first-level table, QEMU's own limit.
const L1_LIMIT: u64 = 32 * MIB;

/// Bytes that can be read at any offset.
pub(super) trait ReadAt {
    /// Fills `buffer` from `offset`; past the end there are zeros, as the last cluster of a file may be cut short.
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<()>;
}

/// The file at the appliance, verified piece by piece.
pub(super) struct Verified<'a> {
    remote: Remote<'a>,
    digests: Vec<[u8; 32]>,
    kept: VecDeque<(u64, Vec<u8>)>,
}

impl<'a> Verified<'a> {
    /// Fetches the file once and compares its digest.
    pub(super) fn fetch(mut remote: Remote<'a>, image: &ImageSource, control: &Control) -> Result<Self> {
        if image.bytes > LARGEST {
            return Err(refuse(
                format!("{} is larger than 1 TiB", image.name),
                "pack the image as zstd",
            ));
        }
        control.begin(format!("checking {}", image.name), image.bytes);
        let mut whole = Sha256::new();
        let mut digests = Vec::new();
        let mut piece = vec![0; PIECE as usize];
        let mut fetched = 0;
        loop {
            let count = remote.fill(&mut piece, u64::MAX)?;
            if count == 0 {
                break;
            }
            let part = piece.get(..count).unwrap_or_default();
            whole.update(part);
            digests.push(sha256(part));
            fetched += count as u64;
            control.at(fetched);
        }
        super::compare(image, whole, fetched)?;
        Ok(Self {
            remote,
            digests,
            kept: VecDeque::new(),
        })
    }

    /// How often a broken connection was opened again.
    pub(super) fn resumed(&self) -> u32 {
        self.remote.resumed()
    }

    fn piece(&mut self, index: u64) -> Result<&[u8]> {
        if let Some(at) = self.kept.iter().position(|(kept, _)| *kept == index) {
            return Ok(self.kept.get(at).map_or(&[], |(_, bytes)| bytes.as_slice()));
        }
        let offset = index.saturating_mul(PIECE);
        let length = self.remote.size().saturating_sub(offset).min(PIECE);
        let mut bytes = vec![0; length as usize];
        self.remote.seek(offset);
        let count = self.remote.fill(&mut bytes, length)?;
        let digest = usize::try_from(index).ok().and_then(|index| self.digests.get(index));
        if count as u64 != length || digest != Some(&sha256(&bytes)) {
            return Err(fault(
                format!("the image changed between two readings, at byte {offset}"),
                "look whether something between appliance and machine alters what it carries, then try again",
            ));
        }
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((index, bytes));
        Ok(self.kept.back().map_or(&[], |(_, bytes)| bytes.as_slice()))
    }
}

impl ReadAt for Verified<'_> {
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let within = (at % PIECE) as usize;
            let take = rest.len().min(PIECE as usize - within);
            let (now, later) = rest.split_at_mut(take);
            now.fill(0);
            if at < self.remote.size() {
                let piece = self.piece(at / PIECE)?;
                let found = piece.get(within..).unwrap_or_default();
                now.iter_mut().zip(found).for_each(|(to, from)| *to = *from);
            }
            at = at.saturating_add(take as u64);
            rest = later;
        }
        Ok(())
    }
}

fn wrong(what: &str) -> JobFailure {
    refuse(
        format!("the qcow2 image cannot be read: {what}"),
        "convert it with `qemu-img convert -O qcow2` (no backing file, no encryption) and register it again",
    )
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    found.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    found.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Offset of a cluster or table in an entry: bits 9 to 55.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// What compresses clusters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Packing {
    Deflate,
    Zstd,
}

/// What the header says.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Header {
    cluster_bits: u32,
    size: u64,
    l1_entries: u64,
    l1_offset: u64,
    packing: Packing,
}

impl Header {
    fn parse(bytes: &[u8; 112]) -> Result<Self> {
        let version = number32(bytes, 4);
        if !bytes.starts_with(b"QFI\xfb") || !(2..=3).contains(&version) {
            return Err(wrong("it is not qcow2 of version 2 or 3"));
        }
        if number(bytes, 8) != 0 {
            return Err(wrong("it has a backing file"));
        }
        if number32(bytes, 32) != 0 {
            return Err(wrong("it is encrypted"));
        }
        let cluster_bits = number32(bytes, 20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(wrong("its cluster size is not between 512 bytes and 2 MiB"));
        }
        // Dirty (bit 0) is about reference counts, which nobody needs to read; bit 3 says that a compression type is
        // given. Corrupt, external data and extended tables are refused.
        let features = if version == 3 { number(bytes, 72) } else { 0 };
        if features & !0b1001 != 0 {
            return Err(wrong(
                "it is marked corrupt, has its data in another file, or uses features that are not known",
            ));
        }
        let kind = if version == 3 && number32(bytes, 100) > 104 {
            bytes[104]
        } else {
            0
        };
        let packing = match kind {
            0 => Packing::Deflate,
            1 => Packing::Zstd,
            _ => return Err(wrong("its compression is neither zlib nor zstd")),
        };
        let header = Self {
            cluster_bits,
            size: number(bytes, 24),
            l1_entries: u64::from(number32(bytes, 36)),
            l1_offset: number(bytes, 40),
            packing,
        };
        let covered = 1u64
            .checked_shl(2 * cluster_bits - 3)
            .unwrap_or(0)
            .saturating_mul(header.l1_entries);
        if header.l1_entries * 8 > L1_LIMIT || covered < header.size {
            return Err(wrong("its first table does not fit its size"));
        }
        Ok(header)
    }
}

/// A reader of the guest's bytes.
pub(super) struct Qcow2<S> {
    source: S,
    header: Header,
    l1: Vec<u8>,
    /// The second-level table in use and its index in the first.
    l2: (u64, Vec<u8>),
    cluster: Vec<u8>,
    position: u64,
}

impl<S: ReadAt> Qcow2<S> {
    /// Reads header and first table.
    pub(super) fn open(mut source: S) -> Result<Self> {
        let mut bytes = [0; 112];
        source.read_at(&mut bytes, 0)?;
        let header = Header::parse(&bytes)?;
        let mut l1 = vec![0; (header.l1_entries * 8) as usize];
        source.read_at(&mut l1, header.l1_offset)?;
        let size = 1usize << header.cluster_bits;
        Ok(Self {
            source,
            header,
            l1,
            l2: (u64::MAX, vec![0; size]),
            cluster: vec![0; size],
            position: 0,
        })
    }

    /// Size of the guest's disk in bytes.
    pub(super) fn size(&self) -> u64 {
        self.header.size
    }

    /// Where the bytes come from.
    pub(super) fn source(&self) -> &S {
        &self.source
    }

    /// Fills `buffer` with the next bytes; fewer at the end.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let size = 1u64 << self.header.cluster_bits;
        let mut have = 0;
        while have < buffer.len() && self.position < self.header.size {
            let within = self.position % size;
            if within == 0 {
                self.load(self.position >> self.header.cluster_bits)?;
            }
            let left = (self.header.size - self.position).min(size - within) as usize;
            let room = buffer.get_mut(have..).unwrap_or_default();
            let take = left.min(room.len());
            let found = self
                .cluster
                .get(within as usize..within as usize + take)
                .unwrap_or_default();
            room.iter_mut().zip(found).for_each(|(to, from)| *to = *from);
            have += take;
            self.position += take as u64;
        }
        Ok(have)
    }

    /// Puts a cluster of the guest into `self.cluster`.
    fn load(&mut self, cluster: u64) -> Result<()> {
        self.cluster.fill(0);
        let table_bits = self.header.cluster_bits - 3;
        let (l1_index, l2_index) = (cluster >> table_bits, cluster & ((1 << table_bits) - 1));
        let l2_offset = number(&self.l1, (l1_index as usize).saturating_mul(8)) & OFFSET;
        if l2_offset == 0 {
            return Ok(());
        }
        if self.l2.0 != l1_index {
            self.source.read_at(&mut self.l2.1, l2_offset)?;
            self.l2.0 = l1_index;
        }
        let entry = number(&self.l2.1, (l2_index as usize).saturating_mul(8));
        const COMPRESSED: u64 = 1 << 62;
        const ZERO: u64 = 1;
        if entry & COMPRESSED != 0 {
            return self.unpack(entry);
        }
        if entry & OFFSET != 0 && entry & ZERO == 0 {
            return self.source.read_at(&mut self.cluster, entry & OFFSET);
        }
        Ok(())
    }

    fn unpack(&mut self, entry: u64) -> Result<()> {
        let bits = 62 - (self.header.cluster_bits - 8);
        let offset = entry & ((1 << bits) - 1);
        let sectors = (entry & ((1 << 62) - 1)) >> bits;
        let length = (sectors + 1).saturating_mul(512).saturating_sub(offset % 512);
        // Data that would be longer than the cluster is stored as it is, so more than a little over is damage.
        if length > 2 * self.cluster.len() as u64 + 1024 {
            return Err(wrong("a compressed cluster is too long"));
        }
        let mut packed = vec![0; length as usize];
        self.source.read_at(&mut packed, offset)?;
        let damaged = |_| wrong("a compressed cluster is damaged");
        match self.header.packing {
            // What follows the data in its last sector is not the data's; the cluster's size says where it ends.
            Packing::Deflate => flate2::read::DeflateDecoder::new(packed.as_slice())
                .read_exact(&mut self.cluster)
                .map_err(damaged),
            Packing::Zstd => ruzstd::decoding::StreamingDecoder::new_with_max_window_size(packed.as_slice(), 8 * MIB)
                .map_err(|_| wrong("a compressed cluster is damaged"))?
                .read_exact(&mut self.cluster)
                .map_err(damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    impl ReadAt for Vec<u8> {
        fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<()> {
            buffer.fill(0);
            let found = self.get(offset as usize..).unwrap_or_default();
            buffer.iter_mut().zip(found).for_each(|(to, from)| *to = *from);
            Ok(())
        }
    }

    /// A disk of 5 MiB and a bit with data at odd places.
    fn disk() -> Vec<u8> {
        let mut disk = vec![0u8; (5 << 20) + 512];
        for (index, byte) in disk[700_000..2_000_000].iter_mut().enumerate() {
            *byte = (index / 7 % 251) as u8;
        }
        disk[5 << 20..].fill(9);
        disk
    }

    fn convert(options: &[&str]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let (raw, packed) = (folder.path().join("raw"), folder.path().join("qcow2"));
        std::fs::write(&raw, disk()).unwrap();
        let mut command = Command::new("qemu-img");
        command
            .args(["convert", "-f", "raw", "-O", "qcow2"])
            .args(options)
            .args([&raw, &packed]);
        let status = command
            .status()
            .expect("qemu-img: `cargo xtask setup test` installs it");
        assert!(status.success());
        std::fs::read(packed).unwrap()
    }

    fn read(packed: Vec<u8>) -> Result<Vec<u8>> {
        let mut image = Qcow2::open(packed)?;
        let mut all = vec![0; image.size().min(64 << 20) as usize];
        let mut have = 0;
        while have < all.len() {
            let end = (have + 777_777).min(all.len());
            match image.fill(&mut all[have..end])? {
                0 => break,
                count => have += count,
            }
        }
        Ok(all)
    }

    #[test]
    fn what_qemu_img_packs_is_read_back() {
        for options in [
            &["-o", "compat=0.10"][..],
            &["-o", "compat=1.1"],
            &["-c", "-o", "compat=1.1"],
            &["-c", "-o", "compat=1.1,compression_type=zstd"],
            &["-c", "-o", "cluster_size=512"],
            &["-o", "cluster_size=2M"],
        ] {
            let packed = convert(options);
            assert!(read(packed).unwrap() == disk(), "{options:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_right_is_refused() {
        let good = convert(&["-c"]);
        for (at, value, word) in [
            (15, 1u8, "backing"),
            (35, 1, "encrypted"),
            (79, 2, "corrupt"),
            (79, 16, "features"),
            (7, 4, "version"),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            let failure = read(bad).unwrap_err();
            assert!(failure.reason.contains(word) && !failure.again, "{failure:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_damaged_image_never_panics(at in 0usize..70_000, values in prop::collection::vec(any::<u8>(), 1..9)) {
            static GOOD: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let mut bad = GOOD.get_or_init(|| convert(&["-c", "-o", "cluster_size=4k"])).clone();
            for (offset, value) in values.iter().enumerate() {
                let index = (at + offset) % bad.len();
                bad[index] = *value;
            }
            let _ = read(bad);
        }
    }
}
