//! Bodies of requests, passed on piece by piece while they come: none is held in memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Client;
use crate::chunks::{Chunks, Piece};
use crate::wire::Content;

/// Bytes that are read of a client at a time.
const PIECE: usize = 16 << 10;

/// A client that sends nothing of its body for so long, or an origin that takes nothing of it, is gone.
const SILENT: Duration = Duration::from_secs(60);

/// A body as it goes to an origin.
pub(super) struct Passing {
    pieces: mpsc::Receiver<Option<Bytes>>,
    /// Bytes to come, where that is known.
    left: Option<u64>,
    over: bool,
}

/// The client's end of it: pieces, and `None` for the end of chunks. When it is gone before that, the body broke off.
pub(super) type Feed = mpsc::Sender<Option<Bytes>>;

/// How feeding ended.
pub(super) enum Fed {
    /// All of the body went on.
    Whole,
    /// Whoever was to get it takes no more.
    Refused,
}

impl Passing {
    pub(super) fn new(content: Content) -> (Feed, Self) {
        let (feed, pieces) = mpsc::channel(1);
        let left = match content {
            Content::Known(length) => Some(length),
            Content::None => Some(0),
            Content::Chunked => None,
        };
        let over = left == Some(0);
        (feed, Self { pieces, left, over })
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.over {
            return Poll::Ready(None);
        }
        match std::task::ready!(self.pieces.poll_recv(context)) {
            Some(Some(bytes)) => {
                self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                self.over = self.left == Some(0);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(None) => {
                self.over = true;
                Poll::Ready(None)
            }
            // Whoever has a part of it shall not take it for the whole.
            None => {
                self.over = true;
                Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// Passes a client's body on.
///
/// # Errors
/// When the client is gone, or what it sends is no body.
pub(super) async fn feed(client: &mut Client, content: Content, to: &Feed) -> io::Result<Fed> {
    let fed = match content {
        Content::None => Ok(Fed::Whole),
        Content::Known(length) => known(client, length, to).await,
        Content::Chunked => chunked(client, to).await,
    };
    client.received.shrink_to(PIECE);
    fed
}

async fn known(client: &mut Client, length: u64, to: &Feed) -> io::Result<Fed> {
    let mut left = length;
    while left > 0 {
        if client.received.is_empty() {
            more(client).await?;
        }
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(client.received.len());
        left = left.saturating_sub(count as u64);
        if !pass(client, count, to).await? {
            return Ok(Fed::Refused);
        }
    }
    Ok(Fed::Whole)
}

async fn chunked(client: &mut Client, to: &Feed) -> io::Result<Fed> {
    let mut chunks = Chunks::default();
    loop {
        let next = chunks.next(&client.received);
        match next.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
            Piece::Over(count) => drop(client.received.drain(..count.min(client.received.len()))),
            Piece::Content(count) => {
                if !pass(client, count, to).await? {
                    return Ok(Fed::Refused);
                }
            }
            Piece::Partial => more(client).await?,
            Piece::Done => {
                let refused = timeout(SILENT, to.send(None)).await.is_err();
                return Ok(if refused { Fed::Refused } else { Fed::Whole });
            }
        }
    }
}

async fn more(client: &mut Client) -> io::Result<()> {
    client.received.reserve(PIECE);
    let mut piece = (&mut client.stream).take(PIECE as u64);
    let read = timeout(SILENT, piece.read_buf(&mut client.received)).await;
    match read.map_err(io::Error::other)?? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Passes on the first bytes that were received; false when nobody takes them.
async fn pass(client: &mut Client, count: usize, to: &Feed) -> io::Result<bool> {
    let piece: Bytes = client
        .received
        .drain(..count.min(client.received.len()))
        .collect::<Vec<_>>()
        .into();
    let sent = timeout(SILENT, to.send(Some(piece))).await;
    Ok(sent.is_ok_and(|sent| sent.is_ok()))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[test]
    fn a_body_ends_in_order_only_when_its_end_came() {
        let threads = tokio::runtime::Runtime::new().unwrap();
        for whole in [true, false] {
            let (feed, mut body) = Passing::new(Content::Chunked);
            let sent = async move {
                feed.send(Some(Bytes::from_static(b"half"))).await.unwrap();
                if whole {
                    feed.send(None).await.unwrap();
                }
            };
            let read = async {
                let first = body.frame().await.unwrap().unwrap();
                assert_eq!(first.into_data().unwrap(), "half");
                let end = body.frame().await;
                assert_eq!((end.is_none(), matches!(end, Some(Err(_)))), (whole, !whole));
                assert!(body.frame().await.is_none());
            };
            threads.block_on(async { tokio::join!(sent, read) });
        }
    }
}
