//! Whether a connection is asked for anything: it is while a request is being answered, to the last byte of the answer.
//! So an event stream in which nothing happens, a long download and a request that we work on for minutes are all active,
//! and a client that only keeps its connection is not. Nor is one that does not take what it asked for: whoever stops
//! reading would hold its place for ever.

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

/// What happens on one connection.
#[derive(Clone)]
pub(super) struct Activity(watch::Sender<Open>);

/// What is under way; each change is a sign of life.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Open {
    /// Requests that we have still to do something for.
    ours: usize,
    /// Answers, or parts of them, that the client has to take.
    theirs: usize,
}

impl Open {
    fn of(&mut self, turn: Turn) -> &mut usize {
        match turn {
            Turn::Ours => &mut self.ours,
            Turn::Theirs => &mut self.theirs,
        }
    }
}

/// Who has to do the next step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Ours,
    Theirs,
}

/// A request that is being answered, or bytes that are on their way.
pub(super) struct Busy {
    open: watch::Sender<Open>,
    turn: Turn,
}

impl Busy {
    fn new(open: watch::Sender<Open>, turn: Turn) -> Self {
        open.send_modify(|open| *open.of(turn) = open.of(turn).saturating_add(1));
        Self { open, turn }
    }

    fn is_now(&mut self, turn: Turn) {
        // Also when it was so before: that something moves is told.
        self.open.send_modify(|open| {
            *open.of(self.turn) = open.of(self.turn).saturating_sub(1);
            *open.of(turn) = open.of(turn).saturating_add(1);
        });
        self.turn = turn;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let turn = self.turn;
        self.open
            .send_modify(|open| *open.of(turn) = open.of(turn).saturating_sub(1));
    }
}

impl Activity {
    /// Nothing was asked yet.
    pub(super) fn new() -> Self {
        Self(watch::Sender::default())
    }

    /// Begins to answer a request.
    pub(super) fn begin(&self) -> Busy {
        Busy::new(self.0.clone(), Turn::Ours)
    }

    /// Bytes for the client have to wait until it takes some.
    pub(super) fn wait(&self) -> Busy {
        Busy::new(self.0.clone(), Turn::Theirs)
    }

    /// Returns once nothing was asked, and nothing taken, for as long as `limits` allow; where nothing is left to be taken, less
    /// while `waiting` says that others need the place.
    pub(super) async fn silent(&self, limits: Limits, mut waiting: watch::Receiver<usize>) {
        tokio::select! {
            () = self.silent_for(limits.idle) => {}
            () = async {
                loop {
                    self.still(limits.spare, |open| open.ours + open.theirs == 0).await;
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

    /// Returns once nothing was asked, and nothing taken, for this long.
    pub(super) async fn silent_for(&self, limit: Duration) {
        self.still(limit, |open| open.ours == 0).await;
    }

    /// Returns once `so` holds and nothing has changed for this long.
    async fn still(&self, limit: Duration, so: impl Fn(&Open) -> bool) {
        let mut open = self.0.subscribe();
        loop {
            let still = so(&open.borrow_and_update());
            if !still {
                // `self` keeps the sender: this cannot fail.
                let _ = open.changed().await;
            } else if tokio::time::timeout(limit, open.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// The body of an answer, which is under way as long as this lives. From when a part is given out until the next is asked
/// for it is the client's turn: of an answer of HTTP/2 nothing is asked for while its client opens no window for it (RFC
/// 9113 section 5.2).
pub(super) struct Answering {
    body: axum::body::Body,
    /// What the body gave and was not given out yet.
    rest: Bytes,
    busy: Busy,
}

impl Answering {
    /// What is given out in one part: a body in one piece would be out of our sight as soon as it is begun.
    const PART: usize = 32 << 10;

    pub(super) fn new(body: axum::body::Body, busy: Busy) -> Self {
        let rest = Bytes::new();
        Self { body, rest, busy }
    }

    fn next_part(&mut self) -> Bytes {
        let length = self.rest.len().min(Self::PART);
        self.rest.split_to(length)
    }
}

impl Body for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.busy.is_now(Turn::Ours);
        if self.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        self.busy.is_now(Turn::Theirs);
        Poll::Ready(Some(Ok(Frame::data(self.next_part()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        let of_body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower().saturating_add(rest));
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
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
