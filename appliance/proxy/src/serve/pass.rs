//! What passes through without being stored: other methods, and answers that are for one client alone.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::head::{Length, Tail, head as write_head, prelude};
use super::{Client, Next, answer, fail};
use crate::Proxy;
use crate::fetch::Ask;
use crate::origin::{Body, OriginError};
use crate::rules::conditional::strip_hop_by_hop;
use crate::rules::freshness::invalidates;
use crate::rules::status::{CacheStatus, Forward};
use crate::settings::Mode;
use crate::wire::Head;

/// A request's body is held in memory, so that it can be sent; larger ones are refused.
const BODY_MOST: u64 = 1 << 20;

/// For the body of a request, and between two pieces of an answer.
const SILENT: Duration = Duration::from_secs(60);

/// Answers a request with another method than GET, or a GET with a body.
pub(super) async fn other(proxy: &Arc<Proxy>, client: &mut Client, head: &Head, mut ask: Ask) -> io::Result<Next> {
    if head.method == Method::HEAD {
        let offline = proxy.settings().mode == Mode::Offline;
        let found = proxy.stored(&ask, &head.headers).0;
        let now = crate::now();
        if let Some(entry) = found.filter(|entry| offline || entry.is_fresh(&ask.wanted, now)) {
            let status = CacheStatus::Hit(entry.fresh.left(now));
            if let Some(next) = answer::entry_to(proxy, client, head, &entry, status).await? {
                return Ok(next);
            }
        }
    }
    if proxy.settings().mode == Mode::Offline {
        return fail(proxy, client, head, 504, "the proxy is offline and asks no origin").await;
    }
    if head.body > BODY_MOST {
        return fail(
            proxy,
            client,
            head,
            413,
            "a request's body may have 1 MiB; use a CONNECT tunnel for more",
        )
        .await;
    }
    if !head.method.is_safe() {
        // It goes where the client said, and nowhere else.
        ask.upstreams.retain(|upstream| upstream.named);
    }
    let body = body(client, head).await?;
    let (status, next) = asked(proxy, client, head, &ask, body, "method").await?;
    if invalidates(&head.method, status) {
        // What a mirror has is not a client's to remove, and no pin either.
        proxy.store.invalidate(&ask.key, ask.mirror.is_some());
    }
    Ok(next)
}

/// Asks for one client alone.
pub(super) async fn own(
    proxy: &Arc<Proxy>,
    client: &mut Client,
    head: &Head,
    ask: &Ask,
    why: &'static str,
) -> io::Result<Next> {
    asked(proxy, client, head, ask, Bytes::new(), why)
        .await
        .map(|(_, next)| next)
}

async fn body(client: &mut Client, head: &Head) -> io::Result<Bytes> {
    if head.expects_continue {
        client.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let length = usize::try_from(head.body).unwrap_or(usize::MAX);
    while client.received.len() < length {
        let read = timeout(SILENT, client.stream.read_buf(&mut client.received)).await;
        if read.map_err(io::Error::other)?? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let rest = client.received.split_off(length);
    Ok(std::mem::replace(&mut client.received, rest).into())
}

async fn asked(
    proxy: &Arc<Proxy>,
    client: &mut Client,
    head: &Head,
    ask: &Ask,
    body: Bytes,
    why: &'static str,
) -> io::Result<(u16, Next)> {
    let mut last = OriginError::Failed("there is no upstream".into());
    for upstream in &ask.upstreams {
        let full: Body = Full::new(body.clone()).map_err(|never| match never {}).boxed_unsync();
        let request = Request::builder()
            .method(head.method.clone())
            .uri(upstream.url.to_string())
            .body(full);
        let Ok(mut request) = request else { continue };
        *request.headers_mut() = upstream.headers(&end_to_end(ask, head));
        match proxy.origins.send(upstream.trusted, request).await {
            Ok(answer) => {
                proxy.metrics.origin_requests.inc();
                let status = answer.status().as_u16();
                return Ok((status, response(proxy, client, head, answer, why).await?));
            }
            // Whether a request that changes something arrived is not known: it is not sent again.
            Err(error) if !head.method.is_safe() => {
                last = error;
                break;
            }
            Err(error) => last = error,
        }
    }
    proxy.metrics.origin_failures.inc();
    let status = if matches!(last, OriginError::Refused(_)) {
        403
    } else {
        502
    };
    let next = fail(proxy, client, head, status, &format!("{}: {last}", ask.key)).await?;
    Ok((status, next))
}

/// The client's fields with its conditions and ranges, which nobody answers here.
fn end_to_end(ask: &Ask, head: &Head) -> HeaderMap {
    let mut headers = ask.headers.clone();
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
    answer: Response<Incoming>,
    why: &'static str,
) -> io::Result<Next> {
    let (parts, body) = answer.into_parts();
    let status = parts.status.as_u16();
    let announced = parts
        .headers
        .get("content-length")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let range = parts.headers.get("content-range").cloned();
    let mut headers = parts.headers;
    strip_hop_by_hop(&mut headers);
    let bare = head.method == Method::HEAD || status == 204 || status == 304;
    let length = match announced {
        Some(length) => Length::Known(length),
        None if bare => Length::None,
        None if head.http10 => Length::UntilClose,
        None => Length::Chunked,
    };
    let forward = if why == "method" {
        Forward::Method
    } else {
        Forward::Bypass
    };
    let detail = Some(why).filter(|why| *why != "method");
    let said = CacheStatus::Forwarded {
        why: forward,
        status: Some(status),
        stored: false,
        collapsed: false,
        detail,
    };
    let tail = Tail {
        length,
        age: None,
        cache_status: Some(said.to_string()),
        via: proxy.via.to_str().unwrap_or_default(),
        range: None,
        keep_alive: head.keep_alive && length != Length::UntilClose,
    };
    let mut out = prelude(status, &headers);
    if let Some(range) = range {
        out.extend_from_slice(&[b"content-range: ", range.as_bytes(), b"\r\n"].concat());
    }
    client.write(&write_head(&out, &tail)).await?;
    if bare {
        return Ok(Next::Request);
    }
    content(proxy, client, body, length).await
}

/// Passes a content on while it comes; the client sees an end that is none as a connection that broke.
async fn content(proxy: &Proxy, client: &mut Client, mut body: Incoming, length: Length) -> io::Result<Next> {
    let mut sent = 0u64;
    loop {
        let data = match timeout(SILENT, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            Ok(Some(Err(_))) | Err(_) => return Ok(Next::Cut),
        };
        if data.is_empty() {
            continue;
        }
        sent = sent.saturating_add(data.len() as u64);
        if length == Length::Chunked {
            client.write_more(format!("{:x}\r\n", data.len()).as_bytes()).await?;
            client.write_more(&data).await?;
            client.write(b"\r\n").await?;
        } else {
            client.write(&data).await?;
        }
        proxy.metrics.client_bytes.add(data.len() as u64);
    }
    match length {
        Length::Chunked => client.write(b"0\r\n\r\n").await.map(|()| Next::Request),
        Length::Known(length) if sent != length => Ok(Next::Cut),
        Length::UntilClose => Ok(Next::Close),
        Length::Known(_) | Length::None => Ok(Next::Request),
    }
}
