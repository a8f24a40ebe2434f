//! Answers without an end (events, a console) last as long as what their caller was let in by, and no longer.

use std::io;

use axum::body::{Body, HttpBody as _};
use axum::http::header;
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;

use crate::Context;
use crate::auth::Pass;

/// By what the caller of a request was let in; `None` on the socket file, which stays root's. Put there by the guards.
#[derive(Clone, Copy)]
pub(crate) struct LetIn(pub(crate) Option<Pass>);

impl LetIn {
    /// Returns when the token is revoked or replaced, or the session is over.
    pub(crate) async fn end(self, context: &Context) {
        match self.0 {
            Some(pass) => context.access.clone().end_of(pass).await,
            None => std::future::pending().await,
        }
    }
}

/// An answer that ends when its caller would not be let in any more. One whose length is known is on its way already and
/// stays as it is.
pub(super) fn bounded(response: Response, context: Context, by: LetIn) -> Response {
    if by.0.is_none() || response.body().size_hint().exact().is_some() {
        return response;
    }
    let kind = response.headers().get(header::CONTENT_TYPE);
    // A stream of events has no end of its own that could be mistaken for this one; what is a file must not look whole.
    let events = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let (parts, body) = response.into_parts();
    let end = Box::pin(async move { by.end(&context).await });
    let pieces = unfold(Some((body.into_data_stream(), end)), move |state| async move {
        let (mut pieces, mut end) = state?;
        tokio::select! {
            biased;
            () = &mut end => {
                let told = || io::Error::other("broken off: the token or the session that asked for it is not valid any more");
                (!events).then(|| (Err(axum::Error::new(told())), None))
            }
            piece = pieces.next() => piece.map(|piece| (piece, Some((pieces, end)))),
        }
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}
