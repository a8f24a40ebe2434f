//! One thread per disk that writes pieces as they come. Runs of zeros are made by the device itself, which costs no bus
//! and no wear, and leaves zeros also where a disk had old data.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::Result;
use crate::control::{fault, io};
use crate::disk::{ALIGN, Buffer, Disk, is_zero};

/// Bytes of a piece. Two wait, one is written and one is filled: 16 MiB.
pub(super) const PIECE: usize = 4 << 20;

/// Shortest run of zeros that is not written as data.
const RUN: usize = 64 << 10;

/// Longest run of zeros that is put off.
const LONGEST_RUN: u64 = 256 << 20;

/// Bytes for one place of the disk.
#[derive(Clone)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) bytes: Arc<Buffer>,
    pub(super) length: usize,
}

/// The writers of all disks.
pub(super) struct Writers {
    writers: Vec<(SyncSender<Piece>, JoinHandle<Result<u64>>)>,
}

impl Writers {
    /// Starts one for each disk.
    pub(super) fn start(disks: &[Arc<Disk>]) -> Result<Self> {
        let mut writers = Vec::new();
        for disk in disks {
            let (sender, receiver) = sync_channel(2);
            let disk = Arc::clone(disk);
            let thread = thread::Builder::new().name("writer".to_owned());
            let thread = thread.spawn(move || Writer::new(&disk).run(&receiver));
            writers.push((sender, thread.map_err(io("starting a thread that writes"))?));
        }
        Ok(Self { writers })
    }

    /// Gives a piece to all.
    pub(super) fn send(&mut self, piece: Piece) -> Result<()> {
        if self
            .writers
            .iter()
            .all(|(sender, _)| sender.send(piece.clone()).is_ok())
        {
            return Ok(());
        }
        // A writer only ends early when it failed, and then it says why.
        self.join()
            .and_then(|_| Err(fault("writing to the disk stopped without a reason", "")))
    }

    /// Waits for all; gives the bytes that were zeros.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.join()
    }

    fn join(&mut self) -> Result<u64> {
        let (senders, threads): (Vec<_>, Vec<_>) = std::mem::take(&mut self.writers).into_iter().unzip();
        drop(senders);
        let results: Vec<Result<u64>> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(fault("the thread that writes ended", "")))
            })
            .collect();
        results.into_iter().try_fold(0, |_, result| result)
    }
}

impl Drop for Writers {
    /// Nothing writes to a disk after its job has ended, however it ended.
    fn drop(&mut self) {
        let _ = self.join();
    }
}

struct Writer<'a> {
    disk: &'a Disk,
    /// A run of zeros that is not on the disk yet: offset and length.
    zeros: (u64, u64),
    holes: u64,
}

impl<'a> Writer<'a> {
    fn new(disk: &'a Disk) -> Self {
        Self {
            disk,
            zeros: (0, 0),
            holes: 0,
        }
    }

    fn run(mut self, pieces: &Receiver<Piece>) -> Result<u64> {
        while let Ok(piece) = pieces.recv() {
            self.write(&piece)?;
        }
        self.flush()?;
        self.disk
            .sync()
            .map_err(io(format_args!("writing out {}", self.disk.path().display())))?;
        Ok(self.holes)
    }

    fn write(&mut self, piece: &Piece) -> Result<()> {
        // The last piece ends in the middle of a sector, or of what O_DIRECT wants; the buffer's rest is zero.
        let room = self.disk.bytes().saturating_sub(piece.offset);
        let length = (piece.length.next_multiple_of(ALIGN) as u64).min(room) as usize;
        let bytes = piece.bytes.get(..length).unwrap_or_default();
        let mut data_from = None;
        for (index, part) in bytes.chunks(RUN).enumerate() {
            let at = index * RUN;
            match (is_zero(part), data_from) {
                (true, Some(from)) => {
                    self.data(piece, bytes, from, at)?;
                    data_from = None;
                }
                (false, None) => data_from = Some(at),
                _ => {}
            }
            if data_from.is_none() {
                self.hole(piece.offset + at as u64, part.len() as u64)?;
            }
        }
        data_from.map_or(Ok(()), |from| self.data(piece, bytes, from, length))
    }

    fn data(&mut self, piece: &Piece, bytes: &[u8], from: usize, to: usize) -> Result<()> {
        self.flush()?;
        let offset = piece.offset + from as u64;
        self.disk
            .write(bytes.get(from..to).unwrap_or_default(), offset)
            .map_err(io(format_args!(
                "writing {} at byte {offset}",
                self.disk.path().display()
            )))
    }

    fn hole(&mut self, offset: u64, length: u64) -> Result<()> {
        if self.zeros.0 + self.zeros.1 == offset && self.zeros.1 > 0 {
            self.zeros.1 += length;
        } else {
            self.flush()?;
            self.zeros = (offset, length);
        }
        if self.zeros.1 >= LONGEST_RUN {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        let (offset, length) = std::mem::take(&mut self.zeros);
        if length > 0 {
            self.holes += length;
            self.disk.zero(offset, length, &mut |_| Ok(()))?;
        }
        Ok(())
    }
}
