//! What passes through without being stored: other methods, and answers that are for one client alone.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use rackbar_model::Severity;
use rackbar_upstream::{Sum, Summing};
use tokio::time::timeout;

use super::answer::{Sent, There};
use super::body::{Fed, Passing, feed};
use super::head::{Length, Tail, age_said, appended, head as write_head, prelude};
use super::{Client, Next, answer, fail};
use crate::Proxy;
use crate::fetch::{Ask, HELD_BACK, Upstream};
use crate::origin::{Body, HEAD_WITHIN, OriginError};
use crate::rules::conditional::strip_hop_by_hop;
use crate::rules::freshness::invalidates;
use crate::rules::status::{CacheStatus, Forward};
use crate::rules::target::without_query;
use crate::settings::Mode;
use crate::wire::Head;

/// Between two pieces of an answer.
const SILENT: Duration = Duration::from_secs(60);

/// Answers a request with another method than GET, or a GET with a body.
pub(super) async fn other(proxy: &Arc<Proxy>, client: &mut Client, head: &Head, mut ask: Ask) -> io::Result<Next> {
    if head.method == Method::HEAD {
        proxy.compare(&ask).await;
        match answer::look(proxy, head, &ask) {
            There::Fresh(entry, status) => {
                if let Sent::Done(next) = answer::entry_to(proxy, client, head, &entry, status).await? {
                    return Ok(next);
                }
            }
            There::Nothing(why) => return fail(proxy, client, head, 504, &answer::miss(&ask, why)).await,
            There::Ask(..) => {}
        }
    }
    if proxy.settings().mode == Mode::Offline {
        return fail(proxy, client, head, 504, "the proxy is offline and asks no origin").await;
    }
    if !head.method.is_safe() || !head.body.is_none() {
        // It goes where the client said, and nowhere else; a body is there only once.
        ask.upstreams.retain(|upstream| upstream.named);
    }
    if head.body.is_none() {
        asked(proxy, client, head, &ask).await
    } else {
        sent(proxy, client, head, &ask).await
    }
}

/// Takes note of what an origin answered, whether or not the client is still there to hear it.
fn noted(proxy: &Proxy, head: &Head, ask: &Ask, answer: &Response<Incoming>) {
    proxy.metrics.origin_requests.inc();
    if invalidates(&head.method, answer.status().as_u16()) {
        // What a mirror has is not a client's to remove, and no pin either.
        proxy.store.invalidate(&ask.key, ask.mirror.is_some());
    }
}

/// Asks for one client alone.
pub(super) async fn own(
    proxy: &Arc<Proxy>,
    client: &mut Client,
    head: &Head,
    ask: &Ask,
    why: &'static str,
) -> io::Result<Next> {
    match proxy.first_answer(ask, &end_to_end(ask, head)).await {
        Ok(answer) => response(proxy, client, head, ask, answer.response, why).await,
        Err(error) => unanswered(proxy, client, head, ask, &error).await,
    }
}

fn request(head: &Head, ask: &Ask, upstream: &Upstream, body: Body) -> Result<Request<Body>, OriginError> {
    let request = Request::builder()
        .method(head.method.clone())
        .uri(upstream.url.to_string())
        .body(body);
    let mut request = request.map_err(|error| OriginError::Failed(error.to_string()))?;
    *request.headers_mut() = upstream.headers(&end_to_end(ask, head));
    Ok(request)
}

/// Passes on a request with a body, while that comes.
async fn sent(proxy: &Arc<Proxy>, client: &mut Client, head: &Head, ask: &Ask) -> io::Result<Next> {
    let Some(upstream) = ask.upstreams.first() else {
        let none = OriginError::Failed("there is no upstream".into());
        return unanswered(proxy, client, head, ask, &none).await;
    };
    if head.expects_continue {
        client.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let (to, body) = Passing::new(head.body);
    let request = match request(head, ask, upstream, body.boxed_unsync()) {
        Ok(request) => request,
        Err(error) => return unanswered(proxy, client, head, ask, &error).await,
    };
    let mut asking = std::pin::pin!(proxy.origins.begin(upstream.trusted, request));
    let mut early = None;
    let fed = {
        let mut feeding = std::pin::pin!(feed(client, head.body, &to));
        loop {
            tokio::select! {
                fed = &mut feeding => break Some(fed?),
                answer = &mut asking, if early.is_none() => {
                    let answer = early.insert(answer);
                    // Whoever answers with an error before it has all wants no more of it.
                    if !answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                        break None;
                    }
                }
            }
        }
    };
    let whole = matches!(fed, Some(Fed::Whole));
    let answer = match early {
        Some(answer) => answer,
        None => {
            let answer = timeout(HEAD_WITHIN, asking).await;
            answer.unwrap_or(Err(OriginError::Silent))
        }
    };
    let next = match answer {
        Ok(answer) => {
            noted(proxy, head, ask, &answer);
            response(proxy, client, head, ask, answer, "method").await?
        }
        Err(error) => unanswered(proxy, client, head, ask, &error).await?,
    };
    // The rest of a body that nobody took is no request.
    Ok(if whole || next == Next::Cut { next } else { Next::Close })
}

/// Passes on a request without a body.
async fn asked(proxy: &Arc<Proxy>, client: &mut Client, head: &Head, ask: &Ask) -> io::Result<Next> {
    let mut last = OriginError::Failed("there is no upstream".into());
    for upstream in &ask.upstreams {
        let empty: Body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let answer = match request(head, ask, upstream, empty) {
            Ok(request) => proxy.origins.send(upstream.trusted, request).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => {
                noted(proxy, head, ask, &answer);
                return response(proxy, client, head, ask, answer, "method").await;
            }
            // Whether a request that changes something arrived is not known: it is not sent again.
            Err(error) if !head.method.is_safe() => {
                last = error;
                break;
            }
            Err(error) => last = error,
        }
    }
    unanswered(proxy, client, head, ask, &last).await
}

async fn unanswered(
    proxy: &Proxy,
    client: &mut Client,
    head: &Head,
    ask: &Ask,
    error: &OriginError,
) -> io::Result<Next> {
    proxy.metrics.origin_failures.inc();
    let status = if matches!(error, OriginError::Refused(_)) {
        403
    } else {
        502
    };
    fail(proxy, client, head, status, &format!("{}: {error}", ask.key)).await
}

/// The digest that the answer to this request must have.
fn promised(ask: &Ask, head: &Head) -> Option<Sum> {
    ask.expected.filter(|_| head.method == Method::GET)
}

/// The client's fields with its conditions and ranges, which nobody answers here. Whose digest is promised is asked for
/// whole: no part of it could be proved.
fn end_to_end(ask: &Ask, head: &Head) -> HeaderMap {
    let mut headers = ask.headers.clone();
    if promised(ask, head).is_some() {
        return headers;
    }
    for name in [
        "range",
        "if-range",
        "if-none-match",
        "if-modified-since",
        "if-match",
        "if-unmodified-since",
    ] {
        if let (Some(value), Ok(name)) = (head.headers.get(name), name.parse::<http::HeaderName>()) {
            headers.insert(name, value.clone());
        }
    }
    headers
}

/// Passes an answer on while it comes.
pub(super) async fn response(
    proxy: &Arc<Proxy>,
    client: &mut Client,
    head: &Head,
    ask: &Ask,
    answer: Response<Incoming>,
    why: &'static str,
) -> io::Result<Next> {
    let (parts, body) = answer.into_parts();
    let status = parts.status.as_u16();
    let promised = promised(ask, head);
    if promised.is_some() && status != 200 && parts.status.is_success() {
        let text = format!("{}: the origin answers {status} where the whole was asked for", ask.key);
        return fail(proxy, client, head, 502, &text).await;
    }
    let announced = parts
        .headers
        .get("content-length")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let range = parts.headers.get("content-range").cloned();
    let mut headers = parts.headers;
    strip_hop_by_hop(&mut headers);
    let age = age_said(&headers);
    let bare = head.method == Method::HEAD || status == 204 || status == 304;
    let length = match announced {
        Some(length) => Length::Known(length),
        None if bare => Length::None,
        None if head.http10 => Length::UntilClose,
        None => Length::Chunked,
    };
    let mut out = prelude(status, &headers);
    // What the origin says of parts is true of what it answers.
    let ranges = headers.get("accept-ranges").cloned();
    for (name, value) in [("content-range", range), ("accept-ranges", ranges)] {
        if let Some(value) = value {
            out.extend_from_slice(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
    }
    let tail = Tail {
        length,
        age,
        ranges: false,
        cache_status: Some(appended(&headers, said(status, why).to_string())),
        via: proxy.via.to_str().unwrap_or_default(),
        range: None,
        keep_alive: head.keep_alive && length != Length::UntilClose,
    };
    let out = write_head(&out, &tail);
    if bare {
        client.write(&out).await?;
        return Ok(Next::Request);
    }
    match promised.filter(|_| status == 200) {
        Some(sum) => proved(proxy, client, head, ask, (body, length), (out, sum)).await,
        None => {
            client.write(&out).await?;
            content(proxy, client, body, length).await
        }
    }
}

fn said(status: u16, why: &'static str) -> CacheStatus {
    CacheStatus::Forwarded {
        why: if why == "method" {
            Forward::Method
        } else {
            Forward::Bypass
        },
        status: Some(status),
        stored: false,
        collapsed: false,
        detail: Some(why).filter(|why| *why != "method"),
    }
}

/// The next piece of a content; `Err` when it broke off, or nothing came.
async fn piece(body: &mut Incoming) -> Result<Option<Bytes>, ()> {
    match timeout(SILENT, body.frame()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(frame))) => Ok(Some(frame.into_data().unwrap_or_default())),
        Ok(Some(Err(_))) | Err(_) => Err(()),
    }
}

async fn send(proxy: &Proxy, client: &mut Client, data: &[u8], length: Length) -> io::Result<()> {
    if data.is_empty() {
        return Ok(());
    }
    if length == Length::Chunked {
        client.write_more(format!("{:x}\r\n", data.len()).as_bytes()).await?;
        client.write_more(data).await?;
        client.write(b"\r\n").await?;
    } else {
        client.write(data).await?;
    }
    proxy.metrics.client_bytes.add(data.len() as u64);
    Ok(())
}

/// After so many bytes of content, all that came.
async fn end(client: &mut Client, sent: u64, length: Length) -> io::Result<Next> {
    match length {
        Length::Chunked => client.write(b"0\r\n\r\n").await.map(|()| Next::Request),
        Length::Known(length) if sent != length => Ok(Next::Cut),
        Length::UntilClose => Ok(Next::Close),
        Length::Known(_) | Length::None => Ok(Next::Request),
    }
}

/// Passes a content on while it comes; the client sees an end that is none as a connection that broke.
async fn content(proxy: &Proxy, client: &mut Client, mut body: Incoming, length: Length) -> io::Result<Next> {
    let mut sent = 0u64;
    loop {
        let Ok(data) = piece(&mut body).await else {
            return Ok(Next::Cut);
        };
        let Some(data) = data else {
            return end(client, sent, length).await;
        };
        sent = sent.saturating_add(data.len() as u64);
        send(proxy, client, &data, length).await?;
    }
}

/// The same for a content whose digest is promised: its last bytes, and the head before them when these are all, are held
/// back until it has proved right.
async fn proved(
    proxy: &Proxy,
    client: &mut Client,
    head: &Head,
    ask: &Ask,
    (mut body, length): (Incoming, Length),
    (mut out, promised): (Vec<u8>, Sum),
) -> io::Result<Next> {
    let most = usize::try_from(HELD_BACK).unwrap_or(usize::MAX);
    let (mut hash, mut held, mut came) = (Summing::like(&promised), BytesMut::new(), 0u64);
    loop {
        let Ok(data) = piece(&mut body).await else {
            let text = format!("{}: what the origin sends broke off", ask.key);
            return if out.is_empty() {
                Ok(Next::Cut)
            } else {
                fail(proxy, client, head, 502, &text).await
            };
        };
        let Some(data) = data else { break };
        hash.update(&data);
        came = came.saturating_add(data.len() as u64);
        held.extend_from_slice(&data);
        if held.len() > most {
            client.write_more(&std::mem::take(&mut out)).await?;
            let ready = held.split_to(held.len() - most);
            send(proxy, client, &ready, length).await?;
        }
    }
    let found = hash.finish();
    if found != promised {
        let text = format!(
            "{} has {} {found} where {promised} was promised: it is refused",
            ask.key,
            found.kind()
        );
        proxy.metrics.mismatches.inc();
        let told = text.replacen(&ask.key, without_query(&ask.key), 1);
        (proxy.tell)(Severity::Error, told);
        return if out.is_empty() {
            Ok(Next::Cut)
        } else {
            fail(proxy, client, head, 502, &text).await
        };
    }
    client.write_more(&out).await?;
    send(proxy, client, &held, length).await?;
    end(client, came, length).await
}
