//! `/api/v1/logs`: what machines sent to the log collector, a look at a time or as it comes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;

use super::Problem;
use super::events::last_event_id;
use super::paging::tagged;
use crate::Context;
use crate::operations::{LogLine, LogPage, LogQuery};

/// Between two looks for new messages: below what a person notices, and a look at the end reads memory only.
const LOOK: Duration = Duration::from_millis(500);
/// How often a stream without messages says how far it is.
const TELL: Duration = Duration::from_secs(15);
/// Messages of one look of a stream.
const BATCH: u16 = 256;

/// Log messages, oldest first. Ask again with `after` the `position` of the answer before to follow, or with `before` for older
/// ones.
#[utoipa::path(
    get, path = "/api/v1/logs", tag = "logs", params(LogQuery),
    responses(
        (status = 200, body = LogPage), (status = 400, body = Problem), (status = 404, body = Problem)
    )
)]
pub(crate) async fn list(
    State(context): State<Context>,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let page = context.operations.logs(query).await?;
    Ok(tagged(&headers, &page))
}

/// Log messages that fit as they come, a `log` message each. Resumes after `Last-Event-ID`, or after `after`; without either,
/// begins with the next one. A number beyond the newest is of logs that are gone, and the stream begins with the first of these.
#[utoipa::path(
    get, path = "/api/v1/logs/stream", tag = "logs",
    params(LogQuery, ("Last-Event-ID" = Option<u64>, Header)),
    responses(
        (status = 200, content_type = "text/event-stream", body = LogLine), (status = 400, body = Problem),
        (status = 404, body = Problem)
    )
)]
pub(crate) async fn stream(
    State(context): State<Context>,
    Query(mut query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    if query.before.is_some() {
        return Err(Problem::invalid(
            "before: a stream goes on with what comes; leave it out",
        ));
    }
    query.limit = Some(BATCH);
    query.after = last_event_id(&headers)?.or(query.after);
    // What is wrong with the question is told now and not by a stream that ends.
    let first = context.operations.logs(query.clone()).await?;
    let mut follow = Follow {
        context,
        ready: VecDeque::new(),
        waits: true,
        told: (first.newest, Instant::now()),
        query,
    };
    match follow.query.after {
        Some(_) => follow.take(first),
        None => follow.query.after = Some(first.newest),
    }
    let lines = unfold(follow, |mut follow| async move {
        let event = follow.next().await?;
        Some((Ok(event), follow))
    });
    Ok(Sse::new(lines).keep_alive(KeepAlive::new().interval(TELL)))
}

/// A reader of messages that misses none: its place is a number, and each look goes on where the last one ended.
struct Follow {
    context: Context,
    query: LogQuery,
    ready: VecDeque<LogLine>,
    /// The last look saw all there was.
    waits: bool,
    /// The number that the other end knows, and since when.
    told: (u64, Instant),
}

impl Follow {
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                self.told = (line.seq, Instant::now());
                let json = serde_json::to_string(&line).unwrap_or_default();
                return Some(sse::Event::default().id(line.seq.to_string()).event("log").data(json));
            }
            let position = self.query.after.unwrap_or_default();
            if position != self.told.0 && self.told.1.elapsed() >= TELL {
                // A number alone is no message: whoever resumes with it does not search again what did not fit.
                self.told = (position, Instant::now());
                return Some(sse::Event::default().id(position.to_string()));
            }
            if self.waits {
                tokio::time::sleep(LOOK).await;
            }
            let page = self.context.operations.logs(self.query.clone()).await.ok()?;
            self.take(page);
        }
    }

    fn take(&mut self, page: LogPage) {
        self.query.after = Some(page.position);
        self.waits = !page.more;
        self.ready.extend(page.items);
    }
}
