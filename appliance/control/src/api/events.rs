//! Events: a page at a time, or as they happen (Server-Sent Events, WHATWG HTML section 9.2).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use rackbar_model::{Event, NodeId};
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;

use super::Problem;
use super::nodes::{WordedEvent, find};
use super::paging::{Page, tagged};
use crate::Context;

/// Events read from the store at a time while a stream catches up.
const BATCH: usize = 256;
const MAX_LIMIT: usize = 1_000;

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventFilter {
    /// Only events after this number.
    pub(crate) after: Option<u64>,
    /// At most so many, 1 to 1000; 100 when left out. Without `after`, the newest.
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<usize>,
    /// Only events of this node: name, id or MAC address.
    pub(crate) node: Option<String>,
}

/// Events in the order they happened.
#[utoipa::path(
    get, path = "/api/v1/events", tag = "events", params(EventFilter),
    responses((status = 200, body = Page<WordedEvent>), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(crate) async fn list(
    State(context): State<Context>,
    Query(filter): Query<EventFilter>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let items = newest(&context, &filter)?.into_iter().map(WordedEvent::from).collect();
    Ok(tagged(
        &headers,
        &Page {
            items,
            next_page_token: None,
        },
    ))
}

/// The events of a filter, oldest first.
pub(crate) fn newest(context: &Context, filter: &EventFilter) -> Result<Vec<Event>, Problem> {
    let limit = filter.limit.unwrap_or(100);
    if limit == 0 || limit > MAX_LIMIT {
        return Err(Problem::invalid(format!(
            "limit: {limit} is not between 1 and {MAX_LIMIT}"
        )));
    }
    let internal = |e: rackbar_store::StoreError| Problem::internal(e.to_string());
    let Some(name) = &filter.node else {
        let after = filter
            .after
            .unwrap_or_else(|| context.rack.last_seq().saturating_sub(limit as u64));
        return context.rack.events(after, limit).map_err(internal);
    };
    let node = find(context, name)?;
    let mut events = context.rack.timeline(node.id).map_err(internal)?;
    match filter.after {
        Some(after) => {
            events.retain(|event| event.seq > after);
            events.truncate(limit);
        }
        None => drop(events.drain(..events.len().saturating_sub(limit))),
    }
    Ok(events)
}

/// Events as they happen. Resumes after `Last-Event-ID`, or after `after`; without either, begins with the next one. A number
/// older than what the journal keeps resumes with the oldest that is kept; one beyond its end is of another journal (state
/// that went with the power), and the stream begins with the first of this one.
#[utoipa::path(
    get, path = "/api/v1/events/stream", tag = "events",
    params(EventFilter, ("Last-Event-ID" = Option<u64>, Header)),
    responses(
        (status = 200, content_type = "text/event-stream"), (status = 400, body = Problem), (status = 404, body = Problem)
    )
)]
pub(crate) async fn stream(
    State(context): State<Context>,
    Query(filter): Query<EventFilter>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let node = filter
        .node
        .as_deref()
        .map(|name| find(&context, name))
        .transpose()?
        .map(|node| node.id);
    let last = last_event_id(&headers)?;
    // Subscribed before the first look at the store, so that nothing falls between the two.
    let live = context.rack.subscribe();
    let newest = context.rack.last_seq();
    let after = match last.or(filter.after) {
        // Waiting for that number would tell nothing of all that happens until then.
        Some(after) if after > newest => 0,
        Some(after) => after,
        None => newest,
    };
    let follow = Follow {
        context,
        node,
        after,
        live,
        ready: VecDeque::new(),
        behind: true,
    };
    let events = unfold(follow, |mut follow| async move {
        let event = follow.next().await?;
        let json = serde_json::to_string(&WordedEvent::from(event.as_ref().clone())).unwrap_or_default();
        let event = sse::Event::default()
            .id(event.seq.to_string())
            .event("event")
            .data(json);
        Some((Ok(event), follow))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

/// The number of the last event that the caller has seen, from the header of whoever resumes a stream.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    // A browser that has seen none sends an empty one.
    if text.is_empty() {
        return Ok(None);
    }
    let wrong =
        |_| Problem::invalid("Last-Event-ID: not the number of an event; leave it out to begin with the next one");
    text.parse().map(Some).map_err(wrong)
}

/// A reader of events that never misses one: it catches up from the store, then listens, and catches up again
/// whenever it was too slow for the live channel.
struct Follow {
    context: Context,
    node: Option<NodeId>,
    after: u64,
    live: Receiver<Arc<Event>>,
    ready: VecDeque<Arc<Event>>,
    behind: bool,
}

impl Follow {
    async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.behind {
                let batch = self.context.rack.events(self.after, BATCH).ok()?;
                self.behind = batch.len() == BATCH;
                batch.into_iter().for_each(|event| self.take(Arc::new(event)));
                continue;
            }
            match self.live.recv().await {
                // A gap means the live channel outran the store's writer or us: read the store from where we are.
                Ok(event) if event.seq > self.after + 1 => self.behind = true,
                Ok(event) => self.take(event),
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn take(&mut self, event: Arc<Event>) {
        if event.seq <= self.after {
            return;
        }
        self.after = event.seq;
        if self.node.is_none_or(|node| event.node == Some(node)) {
            self.ready.push_back(event);
        }
    }
}
