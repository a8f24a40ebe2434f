//! A client's connection, on which it has to take what is sent: one that takes nothing for too long has an end.
//!
//! Below TLS, where it shows what the network takes: what is above takes an answer into a buffer at once.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::activity::{Activity, Busy};

/// A stream whose other end may not refuse bytes for longer than `limit`.
pub(super) struct Paced<S> {
    stream: S,
    activity: Activity,
    limit: Duration,
    /// Bytes wait since then.
    blocked: Option<(Busy, Pin<Box<Sleep>>)>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, activity: Activity, limit: Duration) -> Self {
        Self {
            stream,
            activity,
            limit,
            blocked: None,
        }
    }

    /// What comes of a write: when it must wait, for how long it may.
    fn paced(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.blocked = None;
            return written;
        }
        let (activity, limit) = (&self.activity, self.limit);
        let (_, patience) = self
            .blocked
            .get_or_insert_with(|| (activity.wait(), Box::pin(sleep(limit))));
        std::task::ready!(patience.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client took nothing of what it asked for",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.paced(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.paced(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_byte_now_and_then_gets_all_and_who_takes_none_is_given_up() {
        let (ours, mut theirs) = duplex(1);
        let mut ours = Paced::new(ours, Activity::new(), LIMIT);
        let taking = tokio::spawn(async move {
            let mut taken = [0; 9];
            for byte in &mut taken {
                sleep(LIMIT - Duration::from_secs(1)).await;
                *byte = theirs.read_u8().await.unwrap();
            }
            (taken, theirs)
        });
        ours.write_all(b"an answer").await.unwrap();
        let (taken, _open) = taking.await.unwrap();
        assert_eq!(&taken, b"an answer");
        let begun = Instant::now();
        let error = ours.write_all(b"another one").await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, LIMIT));
    }
}
