//! Fetching from the boot server over one connection that is kept, and taken up again where it broke.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use rackbar_messages::BootFile;
use rackbar_model::Digest;
use rackbar_trust::Sha256;

use crate::http::{self, BadHead, Head};

/// How often a download goes on after a broken connection without getting a single byte in between.
const FRUITLESS_TRIES: u32 = 4;

/// How often a download goes on at all: a server without ranges that always breaks off later would keep us for ever.
const BROKEN_TRIES: u32 = 50;

/// A byte stream to the boot server.
pub trait Transport {
    /// Opens the connection anew, dropping the old one.
    ///
    /// # Errors
    /// Why not, in words.
    fn connect(&mut self) -> Result<(), String>;

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// Why not, in words.
    fn send(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// Waits for bytes and hands them to `take`, which says how many it took. `Ok(false)` when the server has closed.
    ///
    /// # Errors
    /// Why not, in words: the connection broke or nothing came for too long.
    fn receive(&mut self, take: &mut dyn FnMut(&[u8]) -> usize) -> Result<bool, String>;
}

/// Why something was not fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FetchError {
    /// The connection could not be made or kept.
    Connection(String),
    /// The answer is not one we can use.
    Head(BadHead),
    /// The server refused.
    Status {
        /// The path asked for.
        path: String,
        /// The status code.
        status: u16,
    },
    /// The answer has another length than it should.
    Length {
        /// The path asked for.
        path: String,
        /// Bytes expected.
        expected: u64,
        /// Bytes the server has.
        found: u64,
    },
    /// The content is not what the manifest says.
    Digest {
        /// The file's name.
        name: String,
    },
    /// There is no memory for the file.
    Memory {
        /// The file's name.
        name: String,
        /// Its size in bytes.
        size: u64,
    },
    /// The manifest names a path that cannot stand in a request.
    Path(String),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(reason) => f.write_str(reason),
            Self::Head(error) => error.fmt(f),
            Self::Status { path, status } => write!(f, "the boot server answered {status} for {path}"),
            Self::Length { path, expected, found } => {
                write!(f, "{path} should have {expected} bytes, the boot server has {found}")
            }
            Self::Digest { name } => write!(
                f,
                "{name} is not the file the manifest names (other SHA-256): damaged on the way or changed by somebody; look for \
                 what stands between this machine and its appliance"
            ),
            Self::Memory { name, size } => write!(
                f,
                "no room in memory for {name} ({} MiB): the machine has too little",
                crate::progress::mebibytes(*size)
            ),
            Self::Path(path) => write!(f, "the manifest names the path {path:?}, which no server has"),
        }
    }
}

impl core::error::Error for FetchError {}

impl From<BadHead> for FetchError {
    fn from(error: BadHead) -> Self {
        Self::Head(error)
    }
}

/// An HTTP client for one server.
pub struct Client<T> {
    transport: T,
    host: String,
    /// Bytes that came with a head and belong to its body.
    early: Vec<u8>,
    /// True when the next request may go over the connection there is: the last answer was read to its end.
    connected: bool,
}

impl<T: Transport> Client<T> {
    /// A client that names its server `host`.
    pub fn new(transport: T, host: String) -> Self {
        Self {
            transport,
            host,
            early: Vec::new(),
            connected: false,
        }
    }

    /// What it speaks through.
    pub fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    /// Gets a small document.
    ///
    /// # Errors
    /// [`FetchError`]; also when it is longer than `limit` bytes.
    pub fn get(&mut self, path: &str, limit: usize) -> Result<Vec<u8>, FetchError> {
        let head = self.exchange(&http::get(&self.host, path, 0), &[])?;
        self.refuse_errors(&head, path)?;
        if head.length > limit as u64 {
            return Err(FetchError::Length {
                path: path.into(),
                expected: limit as u64,
                found: head.length,
            });
        }
        let mut body = Vec::new();
        self.body(&head, &mut |bytes| body.extend_from_slice(bytes))?;
        Ok(body)
    }

    /// Sends a small document; the answer's body is not looked at.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn post(&mut self, path: &str, body: &[u8]) -> Result<(), FetchError> {
        let head = self.exchange(&http::post(&self.host, path, body.len()), body)?;
        self.refuse_errors(&head, path)?;
        self.body(&head, &mut |_| ())
    }

    /// Fetches a file of the manifest into memory and verifies it. `progress` is told how many bytes are there.
    ///
    /// # Errors
    /// [`FetchError`], after the connection was taken up again several times in vain.
    pub fn file(&mut self, file: &BootFile, progress: &mut dyn FnMut(u64)) -> Result<Vec<u8>, FetchError> {
        if !http::is_path(&file.path) {
            return Err(FetchError::Path(file.path.clone()));
        }
        let mut download = Download::new(file)?;
        let (mut fruitless, mut broken) = (0, 0);
        while !download.is_complete() {
            let before = download.data.len();
            match self.continue_file(&mut download, progress) {
                Ok(()) => {}
                Err(FetchError::Connection(reason)) => {
                    broken += 1;
                    fruitless = if download.data.len() > before { 0 } else { fruitless + 1 };
                    if fruitless >= FRUITLESS_TRIES || broken >= BROKEN_TRIES {
                        return Err(FetchError::Connection(reason));
                    }
                }
                Err(other) => return Err(other),
            }
        }
        download.verify()
    }

    /// One request for what is missing of a file.
    fn continue_file(&mut self, download: &mut Download<'_>, progress: &mut dyn FnMut(u64)) -> Result<(), FetchError> {
        let file = download.file;
        let from = download.data.len() as u64;
        let head = self.exchange(&http::get(&self.host, &file.path, from), &[])?;
        self.refuse_errors(&head, &file.path)?;
        // A server that knows no ranges begins again, and so do we.
        let start = if head.status == 206 {
            head.range_start.unwrap_or(from)
        } else {
            0
        };
        if start == 0 {
            download.restart();
        }
        let found = start.saturating_add(head.length);
        if found != file.size || start != download.data.len() as u64 {
            return Err(FetchError::Length {
                path: file.path.clone(),
                expected: file.size,
                found,
            });
        }
        self.body(&head, &mut |bytes| {
            download.take(bytes);
            progress(download.data.len() as u64);
        })
    }

    fn refuse_errors(&self, head: &Head, path: &str) -> Result<(), FetchError> {
        if (200..300).contains(&head.status) {
            return Ok(());
        }
        // The error page is not worth reading to its end: the next request takes a new connection.
        Err(FetchError::Status {
            path: path.into(),
            status: head.status,
        })
    }

    /// Sends a request and reads the head of the answer. A kept connection may have been closed by the server in the
    /// meantime: then once more on a new one.
    fn exchange(&mut self, request: &str, body: &[u8]) -> Result<Head, FetchError> {
        if self.connected {
            match self.try_exchange(request, body) {
                Err(FetchError::Connection(_)) => {}
                done => return done,
            }
        }
        self.early.clear();
        self.transport.connect().map_err(FetchError::Connection)?;
        self.try_exchange(request, body)
    }

    fn try_exchange(&mut self, request: &str, body: &[u8]) -> Result<Head, FetchError> {
        self.connected = false;
        // One send: a small request then leaves in one segment.
        self.transport
            .send(&[request.as_bytes(), body].concat())
            .map_err(FetchError::Connection)?;
        let mut bytes = core::mem::take(&mut self.early);
        loop {
            match http::head(&bytes) {
                Ok(Some((head, used))) => {
                    self.early = bytes.split_off(used);
                    return Ok(head);
                }
                Ok(None) => {}
                Err(error) => return Err(error.into()),
            }
            let more = self.transport.receive(&mut |new| {
                let taken = new.len().min(http::MAX_HEAD);
                bytes.extend_from_slice(new.get(..taken).unwrap_or_default());
                taken
            });
            if !more.map_err(FetchError::Connection)? {
                return Err(closed());
            }
        }
    }

    /// Reads the body behind `head` into `sink`.
    fn body(&mut self, head: &Head, sink: &mut dyn FnMut(&[u8])) -> Result<(), FetchError> {
        // Whatever goes wrong from here on: what comes next on this connection is not an answer to the next request.
        self.connected = false;
        let mut left = head.length;
        let early = core::mem::take(&mut self.early);
        let (now, later) = early.split_at(early.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        if !now.is_empty() {
            sink(now);
            left -= now.len() as u64;
        }
        self.early = later.to_vec();
        while left > 0 {
            let more = self.transport.receive(&mut |new| {
                let taken = new.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                sink(new.get(..taken).unwrap_or_default());
                left -= taken as u64;
                taken
            });
            if !more.map_err(FetchError::Connection)? {
                return Err(closed());
            }
        }
        self.connected = !head.close;
        Ok(())
    }
}

fn closed() -> FetchError {
    FetchError::Connection("the boot server closed the connection too early".into())
}

/// A file on its way into memory, hashed as it comes.
struct Download<'a> {
    file: &'a BootFile,
    data: Vec<u8>,
    hash: Sha256,
}

impl<'a> Download<'a> {
    fn new(file: &'a BootFile) -> Result<Self, FetchError> {
        let mut data = Vec::new();
        let size = usize::try_from(file.size).ok();
        // All at once: growing would need the old and the new memory at the same time, and there may not be so much.
        size.and_then(|size| data.try_reserve_exact(size).ok())
            .ok_or_else(|| FetchError::Memory {
                name: file.name.clone(),
                size: file.size,
            })?;
        Ok(Self {
            file,
            data,
            hash: Sha256::new(),
        })
    }

    fn restart(&mut self) {
        self.data.clear();
        self.hash = Sha256::new();
    }

    fn take(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.hash.update(bytes);
    }

    fn is_complete(&self) -> bool {
        self.data.len() as u64 >= self.file.size
    }

    fn verify(self) -> Result<Vec<u8>, FetchError> {
        if Digest(self.hash.finish()) == self.file.sha256 {
            Ok(self.data)
        } else {
            Err(FetchError::Digest {
                name: self.file.name.clone(),
            })
        }
    }
}

#[cfg(test)]
mod tests;
