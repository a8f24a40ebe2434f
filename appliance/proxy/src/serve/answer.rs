//! Answering a GET: from the store, from a fetch that is under way, or from one that begins for it.

use std::io;
use std::sync::Arc;

use http::header::RANGE;
use http::{HeaderMap, Response};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::head::{Length, Tail, age_said, appended, head as write_head, ours, prelude};
use super::{Client, Next, fail, pass};
use crate::fetch::{Arriving, Ask, End, How, Phase, Small};
use crate::rules::conditional::{not_modified, range_holds};
use crate::rules::range::ByteRange;
use crate::rules::status::{CacheStatus, Forward};
use crate::rules::vary::fits;
use crate::settings::Mode;
use crate::store::{Entry, StoreError};
use crate::wire::Head;
use crate::{Proxy, now};

/// How often a damaged object is asked for anew before we give up.
const TRIES: u32 = 3;

/// What is there for a request.
pub(super) enum There {
    /// It may be sent.
    Fresh(Arc<Entry>, CacheStatus),
    /// The origin has to be asked.
    Ask(Option<Arc<Entry>>, Forward),
    /// Nothing, and nobody may be asked.
    Nothing(&'static str),
}

pub(super) async fn get(proxy: &Arc<Proxy>, client: &mut Client, head: &Head, ask: Ask) -> io::Result<Next> {
    for _ in 0..TRIES {
        proxy.compare(&ask).await;
        let (stale, why) = match look(proxy, head, &ask) {
            There::Fresh(entry, status) => match kept_to(proxy, client, head, &ask, &entry, status).await? {
                Some(next) => return Ok(next),
                None => continue,
            },
            There::Nothing(why) => return fail(proxy, client, head, 504, &miss(&ask, why)).await,
            There::Ask(stale, why) => (stale, why),
        };
        if let Some(next) = fetched(proxy, client, head, &ask, stale, why).await? {
            return Ok(next);
        }
    }
    fail(
        proxy,
        client,
        head,
        502,
        "the object is damaged on disk, and what was fetched in its place was too",
    )
    .await
}

pub(super) fn miss(ask: &Ask, why: &str) -> String {
    format!(
        "{} cannot be answered from the cache or a data pack: {why}. While the proxy is online, `rackbar cache pin {}` fetches it \
         and keeps it.",
        ask.key, ask.key
    )
}

pub(super) fn look(proxy: &Proxy, head: &Head, ask: &Ask) -> There {
    let offline = proxy.settings().mode == Mode::Offline;
    let (found, any) = proxy.stored(ask, &head.headers);
    // What contradicts the digest that an index promises is not served; offline there is no better.
    let promised = |entry: &Arc<Entry>| ask.expected.is_none_or(|sum| entry.object.has(&sum));
    let right = |entry: &Arc<Entry>| (offline && !ask.strict) || promised(entry);
    // A content that is the promised one is the answer, whatever else its origin chooses an answer by.
    let proved = || proxy.proved(ask).filter(|_| offline || !ask.wanted.no_cache);
    let found = found.or_else(proved);
    let Some(entry) = found else {
        let why = if any { Forward::VaryMiss } else { Forward::UriMiss };
        return match (offline, ask.wanted.only_if_cached) {
            (true, _) if any => {
                There::Nothing("what is stored of it answers requests with other fields (Vary); the proxy is offline")
            }
            (true, _) => There::Nothing("the proxy is offline and asks no origin"),
            (_, true) => There::Nothing("the client wants nothing else (only-if-cached)"),
            _ => There::Ask(None, why),
        };
    };
    let fresh = entry.is_fresh(&ask.wanted, now());
    // A content whose digest is promised cannot be stale: the name and the digest belong together.
    let proved = ask.expected.is_some_and(|sum| entry.object.has(&sum)) && !ask.wanted.no_cache;
    if (fresh || proved) && right(&entry) {
        let left = entry.fresh.left(now());
        let status = if fresh {
            CacheStatus::Hit(left)
        } else {
            CacheStatus::Used("digest-promised")
        };
        return There::Fresh(entry, status);
    }
    if offline && !right(&entry) {
        let unread = ask.expected.is_some_and(|sum| entry.object.is_unknown(&sum));
        return There::Nothing(match unread {
            true => {
                "what there is cannot be read to be compared with what its repository was locked to; the proxy is offline"
            }
            false => "what there is is another than its repository was locked with; the proxy is offline",
        });
    }
    if offline {
        return There::Fresh(entry, CacheStatus::Used("offline"));
    }
    if ask.wanted.only_if_cached {
        return There::Nothing("what there is has to be validated (only-if-cached)");
    }
    There::Ask(Some(entry), Forward::Stale)
}

/// Waits for a fetch. `None` when what it led to is damaged and has to be asked for anew.
async fn fetched(
    proxy: &Arc<Proxy>,
    client: &mut Client,
    head: &Head,
    ask: &Ask,
    stale: Option<Arc<Entry>>,
    why: Forward,
) -> io::Result<Option<Next>> {
    if ask.wanted.no_store && stale.is_none() {
        // What comes is nobody else's: to wait for each other would gain nothing.
        return pass::own(proxy, client, head, ask, "no-store").await.map(Some);
    }
    let name = ask.flight();
    let seat = proxy.flights.board(&name);
    let collapsed = seat.lead.is_none();
    let mut private = seat.private;
    let mut phases = seat.flight.phase.subscribe();
    if let Some(lead) = seat.lead {
        // The flight before this one may have landed between our look and our boarding.
        let landed = match look(proxy, head, ask) {
            There::Fresh(entry, status) => Some((entry, status)),
            _ => None,
        };
        if let Some((entry, status)) = landed {
            seat.flight
                .phase
                .send_replace(Phase::Entry(entry.clone(), How::Fetched));
            proxy.flights.land(&name);
            return kept_to(proxy, client, head, ask, &entry, status).await;
        }
        tokio::spawn(proxy.clone().fly(name, seat.flight.clone(), ask.clone(), stale, lead));
    }
    loop {
        let phase = phases.borrow_and_update().clone();
        if let Some(done) = told(proxy, client, head, ask, phase, &mut private, (why, collapsed)).await? {
            return Ok(done);
        }
        if phases.changed().await.is_err() {
            return fail(proxy, client, head, 502, "the fetch was given up").await.map(Some);
        }
    }
}

/// What one word of a flight means for a client: `None` to wait for the next, else what [`fetched`] gives.
async fn told(
    proxy: &Arc<Proxy>,
    client: &mut Client,
    head: &Head,
    ask: &Ask,
    phase: Phase,
    private: &mut Option<oneshot::Receiver<Response<Incoming>>>,
    (why, collapsed): (Forward, bool),
) -> io::Result<Option<Option<Next>>> {
    let status = |origin, stored| CacheStatus::Forwarded {
        why,
        status: origin,
        stored,
        collapsed,
        detail: None,
    };
    // What is promised was asked for as it is, whatever this client takes: an answer that was chosen by that is everybody's.
    let shown = match ask.expected {
        Some(_) => &ask.headers,
        None => &head.headers,
    };
    let other = |selecting| !fits(selecting, shown);
    let next = match phase {
        Phase::Asking => return Ok(None),
        Phase::Arriving(arriving) if other(&arriving.selecting) => pass::own(proxy, client, head, ask, "vary").await?,
        // One that broke is followed by the word of what is done about it.
        Phase::Arriving(arriving) if arriving.progress.borrow().end == End::Broken => return Ok(None),
        Phase::Arriving(arriving) => {
            record(proxy, &ask.key);
            let status = status(Some(arriving.status), true);
            arriving_to(proxy, client, head, &arriving, status).await?
        }
        Phase::Entry(entry, _) if other(&entry.record.selecting) => pass::own(proxy, client, head, ask, "vary").await?,
        Phase::Entry(entry, how) => {
            let status = match how {
                How::Validated => status(Some(304), true),
                How::Fetched => status(Some(entry.record.status), true),
                How::StaleIfError => CacheStatus::Used("stale-if-error"),
            };
            return kept_to(proxy, client, head, ask, &entry, status).await.map(Some);
        }
        Phase::Small(small) => {
            let status = status(Some(small.status), false);
            small_to(proxy, client, head, &small, &status).await?
        }
        Phase::Private(word) => lead_to(proxy, client, head, ask, private.take(), word).await?,
        Phase::Failed(status, why) => fail(proxy, client, head, status, &why).await?,
    };
    Ok(Some(Some(next)))
}

/// The first client gets the answer that is not to be shared, the others ask for themselves.
async fn lead_to(
    proxy: &Arc<Proxy>,
    client: &mut Client,
    head: &Head,
    ask: &Ask,
    private: Option<oneshot::Receiver<Response<Incoming>>>,
    word: &'static str,
) -> io::Result<Next> {
    let Some(private) = private else {
        return pass::own(proxy, client, head, ask, word).await;
    };
    match private.await {
        Ok(response) => pass::response(proxy, client, head, ask, response, word).await,
        Err(_) => pass::own(proxy, client, head, ask, word).await,
    }
}

fn tail<'a>(proxy: &'a Proxy, head: &Head, length: Length, age: Option<u64>, status: &CacheStatus) -> Tail<'a> {
    Tail {
        length,
        age,
        ranges: true,
        cache_status: Some(status.to_string()),
        via: proxy.via.to_str().unwrap_or_default(),
        range: None,
        keep_alive: head.keep_alive && length != Length::UntilClose,
    }
}

/// The part a client asks for, which only a GET can (RFC 9110 section 14.2): `Ok(None)` for the whole, `Err` when there is no
/// such part.
fn part(head: &Head, stored: &HeaderMap, status: u16, size: u64) -> Result<Option<std::ops::Range<u64>>, ()> {
    let range = head
        .headers
        .get(RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(ByteRange::parse);
    let method = head.method == http::Method::GET;
    match range.filter(|_| method && status == 200 && range_holds(&head.headers, stored)) {
        None => Ok(None),
        Some(range) => range.within(size).map(Some).ok_or(()),
    }
}

async fn no_such_part(proxy: &Proxy, client: &mut Client, head: &Head, size: u64) -> io::Result<Next> {
    let mut out = prelude(416, &ours());
    out.extend_from_slice(format!("content-range: bytes */{size}\r\n").as_bytes());
    let tail = Tail {
        cache_status: None,
        ranges: true,
        ..tail(proxy, head, Length::Known(0), None, &CacheStatus::Hit(0))
    };
    client.write(&write_head(&out, &tail)).await?;
    Ok(Next::Request)
}

async fn unchanged(
    proxy: &Proxy,
    client: &mut Client,
    head: &Head,
    headers: &HeaderMap,
    age: Option<u64>,
    status: &CacheStatus,
) -> io::Result<Next> {
    let tail = tail(proxy, head, Length::None, age, status);
    client.write(&write_head(&prelude(304, headers), &tail)).await?;
    Ok(Next::Request)
}

/// What became of sending a stored answer.
pub(super) enum Sent {
    /// It was sent.
    Done(Next),
    /// Its content is gone or damaged; nothing was sent.
    Damaged,
    /// Its content cannot be read just now; nothing was sent.
    Unreadable(StoreError),
}

/// Sends a stored answer, or what the origin has where that cannot be read. `None` when it is damaged; nothing was sent then.
async fn kept_to(
    proxy: &Arc<Proxy>,
    client: &mut Client,
    head: &Head,
    ask: &Ask,
    entry: &Arc<Entry>,
    status: CacheStatus,
) -> io::Result<Option<Next>> {
    let error = match entry_to(proxy, client, head, entry, status).await? {
        Sent::Done(next) => return Ok(Some(next)),
        Sent::Damaged => return Ok(None),
        Sent::Unreadable(error) => error,
    };
    if proxy.settings().mode != Mode::Offline && !ask.wanted.only_if_cached {
        return pass::own(proxy, client, head, ask, "unreadable").await.map(Some);
    }
    let text = format!("{}: {error}; nothing was removed, and the origin is not asked", ask.key);
    fail(proxy, client, head, 503, &text).await.map(Some)
}

/// Sends a stored answer.
pub(super) async fn entry_to(
    proxy: &Arc<Proxy>,
    client: &mut Client,
    head: &Head,
    entry: &Arc<Entry>,
    status: CacheStatus,
) -> io::Result<Sent> {
    let age = Some(entry.fresh.age(now()));
    record(proxy, &entry.record.key);
    if entry.record.status == 200 && not_modified(&head.headers, &entry.headers) {
        entry.touch();
        count(proxy, &status);
        return unchanged(proxy, client, head, &entry.headers, age, &status)
            .await
            .map(Sent::Done);
    }
    let (file, base) = match proxy.store.reading(&entry.object).await {
        Ok(open) => open,
        Err(StoreError::Damaged(_) | StoreError::DamagedPack(..)) => return Ok(Sent::Damaged),
        Err(error) => return Ok(Sent::Unreadable(error)),
    };
    entry.touch();
    count(proxy, &status);
    let size = entry.object.size;
    let Ok(part) = part(head, &entry.headers, entry.record.status, size) else {
        return no_such_part(proxy, client, head, size).await.map(Sent::Done);
    };
    let span = part.clone().unwrap_or(0..size);
    let length = span.end.saturating_sub(span.start);
    let mut tail = tail(proxy, head, Length::Known(length), age, &status);
    tail.ranges = entry.record.status == 200;
    tail.range = part.map(|part| (part.start, part.end.saturating_sub(1), size));
    let out = match tail.range {
        None => write_head(&entry.prelude, &tail),
        Some(_) => write_head(&prelude(206, &entry.headers), &tail),
    };
    if head.method == http::Method::HEAD || length == 0 {
        client.write(&out).await?;
        return Ok(Sent::Done(Next::Request));
    }
    client.write_more(&out).await?;
    client.send_file(&file, base.saturating_add(span.start), length).await?;
    proxy.metrics.client_bytes.add(length);
    Ok(Sent::Done(Next::Request))
}

fn count(proxy: &Proxy, status: &CacheStatus) {
    if !matches!(status, CacheStatus::Forwarded { .. }) {
        proxy.metrics.hits.inc();
    }
}

/// In the recording mode what is served is kept.
fn record(proxy: &Arc<Proxy>, key: &str) {
    if proxy.settings().mode == Mode::Recording && proxy.store.note_pin(key) {
        let proxy = proxy.clone();
        drop(tokio::task::spawn_blocking(move || proxy.pin_noted()));
    }
}

async fn small_to(
    proxy: &Proxy,
    client: &mut Client,
    head: &Head,
    small: &Small,
    status: &CacheStatus,
) -> io::Result<Next> {
    let age = age_said(&small.headers);
    let tail = Tail {
        ranges: false,
        cache_status: Some(appended(&small.headers, status.to_string())),
        ..tail(proxy, head, Length::Known(small.body.len() as u64), age, status)
    };
    let mut out = write_head(&prelude(small.status, &small.headers), &tail);
    if head.method != http::Method::HEAD {
        out.extend_from_slice(&small.body);
    }
    client.write(&out).await?;
    Ok(Next::Request)
}

/// Sends a content while it arrives.
async fn arriving_to(
    proxy: &Arc<Proxy>,
    client: &mut Client,
    head: &Head,
    arriving: &Arriving,
    status: CacheStatus,
) -> io::Result<Next> {
    // Whoever joins later gets what is older by then.
    let since = now().saturating_sub(arriving.asked_at);
    let age = age_said(&arriving.headers).map(|age| age.saturating_add(since));
    if arriving.status == 200 && not_modified(&head.headers, &arriving.headers) {
        return unchanged(proxy, client, head, &arriving.headers, age, &status).await;
    }
    let part = match arriving.size {
        Some(size) => match part(head, &arriving.headers, arriving.status, size) {
            Ok(part) => part,
            Err(()) => return no_such_part(proxy, client, head, size).await,
        },
        None => None,
    };
    let span = part.clone().unwrap_or(0..arriving.size.unwrap_or(u64::MAX));
    let length = match arriving.size {
        Some(_) => Length::Known(span.end.saturating_sub(span.start)),
        None if head.http10 => Length::UntilClose,
        None => Length::Chunked,
    };
    let mut tail = tail(proxy, head, length, age, &status);
    tail.ranges = arriving.status == 200 && arriving.size.is_some();
    tail.cache_status = Some(appended(&arriving.headers, status.to_string()));
    tail.range = part
        .zip(arriving.size)
        .map(|(part, size)| (part.start, part.end.saturating_sub(1), size));
    let out = match tail.range {
        None => write_head(&arriving.prelude, &tail),
        Some(_) => write_head(&prelude(206, &arriving.headers), &tail),
    };
    client.write(&out).await?;
    follow(proxy, client, arriving, span, length).await
}

async fn follow(
    proxy: &Proxy,
    client: &mut Client,
    arriving: &Arriving,
    span: std::ops::Range<u64>,
    length: Length,
) -> io::Result<Next> {
    let mut progress = arriving.progress.subscribe();
    let mut sent = span.start;
    while sent < span.end {
        let seen = *progress.borrow_and_update();
        let ready = seen.ready.min(span.end);
        if ready > sent {
            let count = ready - sent;
            if length == Length::Chunked {
                client.write_more(format!("{count:x}\r\n").as_bytes()).await?;
            }
            client.send_file(&arriving.file, sent, count).await?;
            if length == Length::Chunked {
                client.write(b"\r\n").await?;
            }
            proxy.metrics.client_bytes.add(count);
            sent = ready;
            continue;
        }
        match seen.end {
            End::Broken => return Ok(Next::Cut),
            End::Whole => break,
            End::Open if progress.changed().await.is_err() => return Ok(Next::Cut),
            End::Open => {}
        }
    }
    if length == Length::Chunked {
        client.write(b"0\r\n\r\n").await?;
    }
    Ok(if length == Length::UntilClose {
        Next::Close
    } else {
        Next::Request
    })
}
