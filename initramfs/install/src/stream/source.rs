//! The image as a stream: fetched, hashed as it comes, and unpacked.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use rackbar_messages::JobFailure;
use rackbar_model::ImageFormat;
use rackbar_trust::Sha256;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::http::Remote;
use crate::Result;
use crate::control::refuse;

/// Bytes fetched at a time.
const PIECE: usize = 256 << 10;

/// Largest Zstandard window. The decoder's ring grows by doubling, and a job may use 256 MiB in all.
const ZSTD_WINDOW: u64 = 64 << 20;

/// Most KiB the xz decoder may use: `xz -9` has a dictionary of 64 MiB.
const XZ_KIB: u32 = 96 << 10;

/// The failure behind an [`io::Error`] that passed through a decoder, which only knows the latter.
#[derive(Default)]
pub(crate) struct Why {
    fetch: Mutex<Option<JobFailure>>,
    is_of_decoder: AtomicBool,
}

impl Why {
    fn keep(&self, failure: JobFailure) -> io::Error {
        *self.fetch.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        io::Error::other("fetching failed")
    }

    /// True when it was the decoder that complained.
    pub(crate) fn is_of_decoder(&self) -> bool {
        self.is_of_decoder.load(Ordering::Relaxed)
    }

    /// The failure of the fetch, or else what the decoder said.
    pub(crate) fn explain(&self, name: &str, error: &io::Error) -> JobFailure {
        let kept = self.fetch.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.unwrap_or_else(|| {
            self.is_of_decoder.store(true, Ordering::Relaxed);
            refuse(
                format!("{name} cannot be unpacked: {error}"),
                "look whether its packing is the one that the catalogue says, and whether it was made by a known tool \
                 (zstd with --long=26 at most, xz -9 at most); register it again",
            )
        })
    }
}

/// The bytes of the file, in order, hashed.
pub(crate) struct Fetch<'a, 'b> {
    remote: &'b mut Remote<'a>,
    why: &'b Why,
    hash: &'b mut Sha256,
    fetched: &'b mut u64,
}

impl<'a, 'b> Fetch<'a, 'b> {
    /// A fetch from the first byte.
    pub(crate) fn new(remote: &'b mut Remote<'a>, why: &'b Why, hash: &'b mut Sha256, fetched: &'b mut u64) -> Self {
        Self {
            remote,
            why,
            hash,
            fetched,
        }
    }
}

impl Read for Fetch<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(PIECE);
        let room = buffer.get_mut(..most).unwrap_or_default();
        let count = self
            .remote
            .fill(room, u64::MAX)
            .map_err(|failure| self.why.keep(failure))?;
        self.hash.update(room.get(..count).unwrap_or_default());
        *self.fetched += count as u64;
        Ok(count)
    }
}

/// Unpacks `source`. qcow2 is no stream and has a module of its own.
pub(crate) fn unpack<'a>(format: ImageFormat, source: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let source = BufReader::with_capacity(PIECE, source);
    Ok(match format {
        ImageFormat::Raw => Box::new(source),
        ImageFormat::Zstd => Box::new(Zstd::new(source)),
        ImageFormat::Xz => Box::new(XzReader::new_mem_limit(source, true, XZ_KIB)),
        ImageFormat::Gzip => Box::new(MultiGzDecoder::new(source)),
        ImageFormat::Qcow2 => return Err(refuse("qcow2 cannot be read as a stream", "")),
    })
}

/// Zstandard frames one after another, skippable ones between them (RFC 8878, section 3.1): parallel and seekable
/// compressors write such files.
struct Zstd<R: BufRead> {
    state: Frame<R>,
}

/// A frame's first four bytes, which were looked at, and the rest.
type Magic<R> = io::Chain<io::Cursor<[u8; 4]>, R>;

enum Frame<R: BufRead> {
    Between(R),
    Inside(Box<StreamingDecoder<Magic<R>, FrameDecoder>>),
    Over,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        Self {
            state: Frame::Between(source),
        }
    }

    /// Opens the next frame, or finds the end.
    fn open(mut source: R) -> io::Result<Frame<R>> {
        loop {
            // The end of the file is an end only between two frames.
            if source.fill_buf()?.is_empty() {
                return Ok(Frame::Over);
            }
            let mut magic = [0; 4];
            source.read_exact(&mut magic)?;
            if magic[0] & 0xf0 == 0x50 && magic[1..] == [0x2a, 0x4d, 0x18] {
                let mut length = [0; 4];
                source.read_exact(&mut length)?;
                let length = u64::from(u32::from_le_bytes(length));
                if io::copy(&mut source.by_ref().take(length), &mut io::sink())? < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            }
            let frame = io::Cursor::new(magic).chain(source);
            let decoder = StreamingDecoder::new_with_max_window_size(frame, ZSTD_WINDOW).map_err(io::Error::other)?;
            return Ok(Frame::Inside(Box::new(decoder)));
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(&mut self.state, Frame::Over) {
                Frame::Between(source) => self.state = Self::open(source)?,
                Frame::Inside(mut decoder) => {
                    let count = decoder.read(buffer)?;
                    if count > 0 || buffer.is_empty() {
                        self.state = Frame::Inside(decoder);
                        return Ok(count);
                    }
                    let (_, source) = decoder.into_inner().into_inner();
                    self.state = Frame::Between(source);
                }
                Frame::Over => return Ok(0),
            }
        }
    }
}
