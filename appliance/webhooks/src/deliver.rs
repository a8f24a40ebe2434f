//! Telling a receiver, event after event.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::Full;
use rackbar_model::{Event, Timestamp};
use rackbar_outward::{Client, Parent, client};
use rackbar_store::{Store, StoreError, Table};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::Hook;
use crate::message::{Secret, body, id, sign};
use crate::pause::{Answered, Pause, judge};

/// Events read from the journal at a time.
const BATCH: usize = 64;

/// For one receiver to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Failures in a row before the hook's state says so: one lost packet is no news.
const SAID_AFTER: u32 = 3;

/// A look at the journal also without word of something new.
const LOOK: Duration = Duration::from_secs(30);

/// How a hook is doing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// Number of the last event that is done with.
    pub after: u64,
    /// When the receiver last took one.
    pub heard: Option<Timestamp>,
    /// Why it does not take the next one; `None` when it does.
    pub trouble: Option<String>,
    /// Events that were passed over: refused by the receiver, or gone from the journal before it could be reached.
    pub lost: u64,
    /// Messages are signed.
    pub signed: bool,
}

/// Told when a standing changes.
pub type Report = Arc<dyn Fn(&Standing) + Send + Sync>;

/// A hook's place in the journal, as the store has it.
#[derive(Serialize, Deserialize)]
struct Cursor {
    after: u64,
    #[serde(default)]
    lost: u64,
}

/// Tells one receiver.
pub struct Deliverer {
    hook: Hook,
    site: String,
    store: Store,
    report: Report,
    client: Client,
    standing: Standing,
}

impl Deliverer {
    /// A hook that was never there before begins with what happens from now on. `parent`: the proxy through which its receiver
    /// is reached. Waits for the store.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn new(
        hook: Hook,
        parent: Option<Parent>,
        site: &str,
        store: Store,
        report: Report,
    ) -> Result<Self, StoreError> {
        let key = hook.name.as_bytes();
        let saved = store.get(Table::Webhooks, key)?;
        let saved: Option<Cursor> = saved.and_then(|json| serde_json::from_slice(&json).ok());
        let cursor = match saved {
            Some(cursor) => cursor,
            None => {
                let cursor = Cursor {
                    after: store.last_seq(),
                    lost: 0,
                };
                store.put(Table::Webhooks, key, &written(&cursor))?;
                cursor
            }
        };
        let standing = Standing {
            after: cursor.after,
            lost: cursor.lost,
            ..Standing::default()
        };
        Ok(Self {
            client: client(&hook.roots, parent),
            site: site.to_owned(),
            hook,
            store,
            report,
            standing,
        })
    }

    /// Tells for ever. `news` says that the journal has more. May be dropped at any point: what was not yet noted as told
    /// is told again.
    pub async fn run(mut self, news: Arc<Notify>) {
        (self.report)(&self.standing);
        loop {
            let more = news.notified();
            match self.turn().await {
                Ok(true) => {}
                Ok(false) => drop(tokio::time::timeout(LOOK, more).await),
                Err(error) => {
                    tracing::error!(hook = %self.hook.name, %error, "the journal cannot be read for a webhook");
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    /// Tells what is in the next part of the journal. False when there was nothing.
    async fn turn(&mut self) -> Result<bool, StoreError> {
        let (store, after) = (self.store.clone(), self.standing.after);
        let read = move || Ok((store.events(after, BATCH)?, store.last_seq()));
        let read: Result<(Vec<Event>, u64), StoreError> = blocking(read).await;
        let (events, last) = read?;
        // A state put in from elsewhere may know fewer events than were told.
        if last < after {
            self.moved_to(last);
        }
        let Some(first) = events.first() else { return Ok(false) };
        let gone = first.seq.saturating_sub(after.saturating_add(1));
        if gone > 0 {
            self.standing.lost = self.standing.lost.saturating_add(gone);
            let hook = &self.hook.name;
            tracing::warn!(%hook, gone, "events left the journal before a webhook's receiver could be reached");
        }
        for event in &events {
            if self.hook.wants(event) {
                self.tell(event).await?;
            }
            self.standing.after = event.seq;
        }
        self.moved_to(self.standing.after);
        Ok(true)
    }

    /// Tells one event until it is heard or passed over.
    async fn tell(&mut self, event: &Event) -> Result<(), StoreError> {
        let body = Bytes::from(body(&self.site, event));
        let mut pause = Pause::default();
        loop {
            let answered = self.post(event, body.clone()).await?;
            if answered == Answered::Well {
                self.standing.heard = Some(now());
                self.standing.trouble = None;
                break;
            }
            let next = pause.after(&answered);
            let (Answered::Later(reason, _) | Answered::Refused(reason)) = &answered else {
                break;
            };
            if pause.failures >= SAID_AFTER || next.is_none() {
                self.standing.trouble = Some(reason.clone());
                (self.report)(&self.standing);
            }
            let Some(next) = next else {
                tracing::warn!(hook = %self.hook.name, seq = event.seq, reason, "an event is passed over");
                self.standing.lost = self.standing.lost.saturating_add(1);
                break;
            };
            tokio::time::sleep(next).await;
        }
        self.moved_to(event.seq);
        Ok(())
    }

    /// Notes how far it is. Not waited for: a power cut in between has an event told twice, never not at all.
    fn moved_to(&mut self, after: u64) {
        self.standing.after = after;
        let cursor = Cursor {
            after,
            lost: self.standing.lost,
        };
        let key = self.hook.name.as_bytes();
        self.store.queue(Table::Webhooks, key, Some(&written(&cursor)));
        (self.report)(&self.standing);
    }

    async fn post(&mut self, event: &Event, body: Bytes) -> Result<Answered, StoreError> {
        let (store, name) = (self.store.clone(), secret_key(&self.hook.name));
        // Read for each try: it may be changed while the receiver waits for the right one.
        let secret = blocking(move || store.get(Table::Secrets, &name)).await?;
        let secret = secret.and_then(|bytes| Secret::parse(&String::from_utf8_lossy(&bytes)).ok());
        self.standing.signed = secret.is_some();
        let Some(request) = request(&self.hook, event, body, secret.as_ref()) else {
            return Ok(Answered::Refused("the request cannot be put into words of HTTP".into()));
        };
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.client.request(request)).await;
        Ok(match answer {
            Ok(Ok(answer)) => judge(answer.status().as_u16(), retry_after(answer.headers())),
            Ok(Err(error)) => Answered::Later(error, None),
            Err(_) => Answered::Later(format!("no answer within {} s", ANSWER_WITHIN.as_secs()), None),
        })
    }
}

/// Where the secret of a hook is among the store's secrets.
pub(crate) fn secret_key(hook: &str) -> Vec<u8> {
    format!("webhook/{hook}").into_bytes()
}

fn request(hook: &Hook, event: &Event, body: Bytes, secret: Option<&Secret>) -> Option<Request<Full<Bytes>>> {
    let seconds = now().0 / 1_000;
    let id = id(event);
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(hook.url.uri())
        .header(header::CONTENT_TYPE, "application/cloudevents+json; charset=utf-8")
        .header(header::USER_AGENT, concat!("rackbar/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", &id)
        .header("webhook-timestamp", seconds);
    if let Some(secret) = secret {
        request = request.header("webhook-signature", sign(secret, &id, seconds, &body));
    }
    request.body(Full::new(body)).ok()
}

/// RFC 9110 section 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text)
        .ok()?
        .duration_since(SystemTime::now())
        .ok()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))
}

fn written(cursor: &Cursor) -> Vec<u8> {
    serde_json::to_vec(cursor).unwrap_or_default()
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}
