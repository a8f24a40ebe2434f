//! Writing an image: fetched, hashed, unpacked in one thread; written past the page cache in another one per disk.
//!
//! ```text
//!  HTTP ─▶ SHA-256 ─▶ unpack ─▶ pieces of 4 MiB ─┬▶ writer, disk 1
//!  (resumes)                                     └▶ writer, disk 2
//! ```
//! A disk that is being written must never boot: its first and last MiB are emptied at the start, and the first MiB of
//! the image is held back until the digest of the whole file was right and everything else is on the medium.

pub(crate) mod fuzzing;
mod http;
mod qcow2;
mod source;
mod writer;

use std::io::Read;
use std::sync::Arc;

use rackbar_messages::JobFailure;
use rackbar_model::{Digest, ImageFormat, ImageSource};
use rackbar_trust::Sha256;

use crate::Result;
use crate::control::{Control, fault, io, refuse};
use crate::disk::{Buffer, Disk, MIB};
use http::{Remote, Url};
use qcow2::{Qcow2, Verified};
use source::{Fetch, Why};
use writer::{PIECE, Piece, Writers};

/// The part that goes last.
const HEAD: u64 = MIB;

/// What was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Written {
    pub(crate) sha256: Digest,
    pub(crate) fetched: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) holes: u64,
    /// How often the connection broke and was opened again.
    pub(crate) resumed: u32,
}

/// The digest of what was fetched; a failure when it or the size is not the image's.
fn compare(image: &ImageSource, hash: Sha256, fetched: u64) -> Result<Digest> {
    let digest = Digest(hash.finish());
    if digest == image.sha256 && fetched == image.bytes {
        return Ok(digest);
    }
    Err(fault(
        format!(
            "{} came with SHA-256 {digest} and {fetched} bytes in place of {} and {} bytes; the disk was left empty",
            image.name, image.sha256, image.bytes
        ),
        "try again; when it happens again, compare the file on the appliance with its source",
    ))
}

/// Writes `image` to all of `disks`.
pub(crate) fn write(image: &ImageSource, disks: &[Arc<Disk>], control: &Control) -> Result<Written> {
    let url = Url::parse(&image.url)?;
    let smallest = disks.iter().map(|disk| disk.bytes()).min().unwrap_or(0);
    let room = Room { image, smallest };
    room.check(image.disk_bytes.unwrap_or(0))?;
    let remote = Remote::new(url, image.bytes, control);
    if image.format == ImageFormat::Qcow2 {
        return write_qcow2(&room, remote, disks, control);
    }
    write_stream(&room, remote, disks, control)
}

/// The space there is for an image.
struct Room<'a> {
    image: &'a ImageSource,
    smallest: u64,
}

impl Room<'_> {
    fn check(&self, needed: u64) -> Result<()> {
        if needed <= self.smallest {
            return Ok(());
        }
        Err(refuse(
            format!(
                "{} needs a disk of {needed} bytes or more, and this one has {}",
                self.image.name, self.smallest
            ),
            "choose a larger disk",
        ))
    }
}

fn write_stream(room: &Room<'_>, mut remote: Remote<'_>, disks: &[Arc<Disk>], control: &Control) -> Result<Written> {
    let image = room.image;
    let (why, mut hash, mut fetched) = (Why::default(), Sha256::new(), 0);
    let mut layer = Layer::begin(room, disks, control)?;
    let copied = {
        let fetch = Fetch::new(&mut remote, &why, &mut hash, &mut fetched);
        let mut unpacked = source::unpack(image.format, Counted { inner: fetch, control })?;
        layer.copy(&mut |buffer| fill(unpacked.as_mut(), buffer).map_err(|error| why.explain(&image.name, &error)))
    };
    if let Err(failure) = copied {
        // What cannot be unpacked may be the wrong file, which is worth more to know.
        if why.is_of_decoder() && drain(&mut Fetch::new(&mut remote, &why, &mut hash, &mut fetched)).is_ok() {
            compare(image, hash, fetched)?;
        }
        return Err(failure);
    }
    // What the decoder left behind its own end belongs to the file and to its digest.
    drain(&mut Fetch::new(&mut remote, &why, &mut hash, &mut fetched))
        .map_err(|error| why.explain(&image.name, &error))?;
    let (head, written) = layer.finish()?;
    let sha256 = compare(image, hash, fetched)?;
    head.write(disks)?;
    Ok(Written {
        sha256,
        fetched,
        resumed: remote.resumed(),
        ..written
    })
}

fn write_qcow2(room: &Room<'_>, remote: Remote<'_>, disks: &[Arc<Disk>], control: &Control) -> Result<Written> {
    let image = room.image;
    let mut guest = Qcow2::open(Verified::fetch(remote, image, control)?)?;
    room.check(guest.size())?;
    let mut layer = Layer::begin(room, disks, control)?;
    control.begin(format!("writing {}", image.name), guest.size());
    let mut read = |buffer: &mut [u8]| -> Result<usize> {
        let count = guest.fill(buffer)?;
        control.add(count as u64);
        Ok(count)
    };
    layer.copy(&mut read)?;
    let (head, written) = layer.finish()?;
    head.write(disks)?;
    Ok(Written {
        sha256: image.sha256,
        fetched: image.bytes,
        resumed: guest.source().resumed(),
        ..written
    })
}

/// Fills `buffer`, or as much of it as there is.
fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match source.read(buffer.get_mut(have..).unwrap_or_default())? {
            0 => break,
            count => have += count,
        }
    }
    Ok(have)
}

fn drain(source: &mut impl Read) -> std::io::Result<u64> {
    std::io::copy(source, &mut std::io::sink())
}

/// Tells the progress in bytes of the file, whose size is known, whatever they unpack to.
struct Counted<'a, R> {
    inner: R,
    control: &'a Control,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.control.add(count as u64);
        Ok(count)
    }
}

/// The disks while they are written.
struct Layer<'a> {
    room: &'a Room<'a>,
    control: &'a Control,
    disks: &'a [Arc<Disk>],
    writers: Writers,
    head: Buffer,
    head_length: usize,
    position: u64,
}

impl<'a> Layer<'a> {
    /// Empties both ends of the disks and starts the writers.
    fn begin(room: &'a Room<'a>, disks: &'a [Arc<Disk>], control: &'a Control) -> Result<Self> {
        control.check()?;
        for disk in disks {
            let last = disk.bytes().saturating_sub(MIB);
            disk.zero(0, HEAD, &mut |_| Ok(()))?;
            disk.zero(last, MIB, &mut |_| Ok(()))?;
            disk.sync().map_err(io("emptying the ends of the disk"))?;
        }
        control.begin(format!("writing {}", room.image.name), room.image.bytes);
        Ok(Self {
            room,
            control,
            disks,
            writers: Writers::start(disks)?,
            head: Buffer::new(HEAD as usize),
            head_length: 0,
            position: 0,
        })
    }

    /// Takes all that `read` gives.
    fn copy(&mut self, read: &mut dyn FnMut(&mut [u8]) -> Result<usize>) -> Result<()> {
        self.head_length = read(&mut self.head)?;
        self.position = self.head_length as u64;
        self.check_sectors()?;
        while self.head_length as u64 == HEAD {
            self.control.check()?;
            let mut buffer = Buffer::new(PIECE);
            let length = read(&mut buffer)?;
            if length == 0 {
                break;
            }
            let offset = self.position;
            self.position += length as u64;
            self.room.check(self.position)?;
            self.writers.send(Piece {
                offset,
                bytes: Arc::new(buffer),
                length,
            })?;
        }
        Ok(())
    }

    /// A partition table counts in sectors: one made for 512 bytes means nothing on a disk of 4096, and the other way.
    fn check_sectors(&self) -> Result<()> {
        let has = |sector: usize| self.head.get(sector..sector + 8) == Some(b"EFI PART".as_slice());
        let made_for = match (has(512), has(4096)) {
            (true, false) => 512,
            (false, true) => 4096,
            _ => return Ok(()),
        };
        match self.disks.iter().find(|disk| disk.sector() != made_for) {
            Some(disk) => Err(refuse(
                format!(
                    "{} is made for disks with sectors of {made_for} bytes, and this one has {}",
                    self.room.image.name,
                    disk.sector()
                ),
                "choose another disk, or an image made for its sectors",
            )),
            None => Ok(()),
        }
    }

    /// Waits until all but the head is on the disks.
    fn finish(self) -> Result<(Head, Written)> {
        let holes = self.writers.finish()?;
        if self.position == 0 {
            return Err(refuse(
                format!("{} is empty", self.room.image.name),
                "register it again",
            ));
        }
        let promised = self.room.image.disk_bytes.unwrap_or(self.position);
        if promised != self.position {
            return Err(refuse(
                format!(
                    "{} unpacked to {} bytes, not to {promised}",
                    self.room.image.name, self.position
                ),
                "register the image again",
            ));
        }
        let written = Written {
            sha256: Digest([0; 32]),
            fetched: 0,
            disk_bytes: self.position,
            holes,
            resumed: 0,
        };
        let head = Head {
            bytes: self.head,
            length: self.head_length,
        };
        Ok((head, written))
    }
}

/// The image's first MiB, held back.
struct Head {
    bytes: Buffer,
    length: usize,
}

impl Head {
    /// Writes it and reads it back: from here on the disk boots.
    fn write(&self, disks: &[Arc<Disk>]) -> Result<()> {
        for disk in disks {
            let words = |what: &str| format!("{what} the first MiB of {}", disk.path().display());
            // Whole sectors; what follows in the buffer is zero.
            let length = self.length.next_multiple_of(disk.sector() as usize);
            let part = self.bytes.get(..length).unwrap_or(&self.bytes);
            disk.write(part, 0).map_err(io(words("writing")))?;
            disk.sync().map_err(io(words("writing out")))?;
            let mut again = Buffer::new(HEAD as usize);
            let back = again.get_mut(..part.len()).unwrap_or_default();
            disk.read(back, 0).map_err(io(words("reading back")))?;
            if back != part {
                return Err(failed_read_back(disk));
            }
        }
        Ok(())
    }
}

fn failed_read_back(disk: &Disk) -> JobFailure {
    fault(
        format!("{} gives back other bytes than were written", disk.path().display()),
        "replace the disk, or look at its controller and cable",
    )
}

#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod tests;
