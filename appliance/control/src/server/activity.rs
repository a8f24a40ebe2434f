//! Whether a connection is asked for anything: it is while a request is being answered, to the last byte of the answer.
//! So an event stream in which nothing happens, a long download and a request that we work on for minutes are all active,
//! and a client that only keeps its connection is not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::places::Limits;

/// How many requests of one connection are being answered.
#[derive(Clone)]
pub(super) struct Activity(watch::Sender<usize>);

/// A request that is being answered.
pub(super) struct Busy(watch::Sender<usize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}

impl Activity {
    /// Nothing was asked yet.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Begins to answer a request.
    pub(super) fn begin(&self) -> Busy {
        self.0.send_modify(|open| *open = open.saturating_add(1));
        Busy(self.0.clone())
    }

    /// Returns once nothing was asked for as long as `limits` allow; less while `waiting` says that others need the place.
    pub(super) async fn silent(&self, limits: Limits, mut waiting: watch::Receiver<usize>) {
        tokio::select! {
            () = self.silent_for(limits.idle) => {}
            () = async {
                loop {
                    self.silent_for(limits.spare).await;
                    // It is spare from now until it is asked for something.
                    let mut open = self.0.subscribe();
                    tokio::select! {
                        _ = waiting.wait_for(|count| *count > 0) => return,
                        _ = open.changed() => {}
                    }
                }
            } => {}
        }
    }

    /// Returns once nothing was asked for this long.
    pub(super) async fn silent_for(&self, limit: Duration) {
        let mut open = self.0.subscribe();
        loop {
            let busy = *open.borrow_and_update() > 0;
            if busy {
                // `self` keeps the sender: this cannot fail.
                let _ = open.changed().await;
            } else if tokio::time::timeout(limit, open.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// The body of an answer, which is under way as long as this lives.
pub(super) struct Answering {
    body: axum::body::Body,
    _busy: Busy,
}

impl Answering {
    pub(super) fn new(body: axum::body::Body, busy: Busy) -> Self {
        Self { body, _busy: busy }
    }
}

impl Body for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request, whose client may not pause in it for longer than it may be idle: else a request that never comes
/// whole would hold its connection for ever.
pub(super) struct Steady {
    body: Incoming,
    limit: Duration,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Steady {
    pub(super) fn new(body: Incoming, limit: Duration) -> Self {
        let pause = None;
        Self { body, limit, pause }
    }
}

impl Body for Steady {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.pause = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = this.limit;
        let pause = this
            .pause
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        std::task::ready!(pause.as_mut().poll(cx));
        Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
