//! Bytes to a client: from memory, or from a file without passing through our memory.

use std::fs::File;
use std::io;
use std::time::Duration;

use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, send};
use std::os::fd::AsRawFd as _;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A client that takes nothing for so long is gone.
const STUCK: Duration = Duration::from_secs(120);

/// For one system call: other clients of the same thread wait for it.
const PIECE: usize = 2 << 20;

/// A client's connection and what it sent that is not read yet.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) received: Vec<u8>,
    /// Status of the answer that is under way; 0 before its head is sent.
    pub(crate) status: u16,
}

fn stuck<T>(_: T) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client took nothing for two minutes")
}

/// The status of an answer by its first line, when it is a final one.
fn status(head: &[u8]) -> Option<u16> {
    let digits = head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let status = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (status >= 200).then_some(status)
}

impl Client {
    fn sends(&mut self, bytes: &[u8]) {
        if self.status == 0 {
            self.status = status(bytes).unwrap_or(0);
        }
    }

    /// Sends all of it.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sends(bytes);
        timeout(STUCK, self.stream.write_all(bytes)).await.map_err(stuck)?
    }

    /// Sends a head that content follows at once: both share packets.
    pub(crate) async fn write_more(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sends(bytes);
        let fd = self.stream.as_raw_fd();
        // nix has no name for it.
        let flags = MsgFlags::from_bits_retain(nix::libc::MSG_MORE) | MsgFlags::MSG_NOSIGNAL;
        let sent = self.stream.try_io(Interest::WRITABLE, || Ok(send(fd, bytes, flags)?));
        match sent {
            Ok(count) if count >= bytes.len() => Ok(()),
            Ok(count) => self.write(bytes.get(count..).unwrap_or_default()).await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.write(bytes).await,
            Err(error) => Err(error),
        }
    }

    /// Sends `count` bytes of a file from `offset` on.
    ///
    /// # Errors
    /// When the client is gone, or the file ends before that.
    pub(crate) async fn send_file(&mut self, file: &File, offset: u64, count: u64) -> io::Result<()> {
        let mut at = i64::try_from(offset).map_err(io::Error::other)?;
        let mut left = count;
        while left > 0 {
            timeout(STUCK, self.stream.writable()).await.map_err(stuck)??;
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                Ok(sendfile64(&self.stream, file, Some(&mut at), want)?)
            });
            match sent {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the file is shorter than it was",
                    ));
                }
                Ok(sent) => left = left.saturating_sub(sent as u64),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            // A hit on a fast client would otherwise keep this thread until its end.
            tokio::task::consume_budget().await;
        }
        Ok(())
    }

    /// Ends the connection in order.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Ends the connection by a reset: an answer without an announced length would otherwise look whole.
    pub(crate) fn cut(&mut self) -> io::Result<()> {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }
}
