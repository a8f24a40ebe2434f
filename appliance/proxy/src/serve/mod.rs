//! Connections of clients: read a request, find out what it is for, answer it, and read the next.

mod answer;
mod body;
pub(crate) mod head;
mod pass;
mod send;
mod tunnel;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::VIA;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::Proxy;
use crate::fetch::Ask;
use crate::pinning::unknown_mirror;
use crate::repositories::Found;
use crate::rules::target::Url;
use crate::wire::{Head, Parsed, parse};
use head::{Length, Tail};
pub(crate) use send::Client;

/// A connection without a request.
const IDLE: Duration = Duration::from_secs(75);

/// Of a client that is not served: for its request, and connections at most. It is told why, and no more.
const FOREIGN_WITHIN: Duration = Duration::from_secs(5);
const FOREIGN_MOST: usize = 8;

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Another request may follow.
    Request,
    /// It ends.
    Close,
    /// It ends so that the client notices: what it got is not whole.
    Cut,
}

/// Serves one connection to its end.
pub(crate) async fn connection(proxy: Arc<Proxy>, stream: TcpStream, from: SocketAddr) {
    let settings = proxy.settings();
    let served = settings.serves(from.ip());
    let most = if served {
        settings.connections_each
    } else {
        FOREIGN_MOST
    };
    let Some(_place) = proxy.crowd.enter(from.ip(), most) else {
        proxy.metrics.refused.inc();
        tracing::debug!(%from, "a client has as many connections as one may have");
        return;
    };
    proxy.metrics.connections.inc();
    let _ = stream.set_nodelay(true);
    let mut client = Client {
        stream,
        received: Vec::with_capacity(4096),
        status: 0,
    };
    let done = match served {
        true => requests(&proxy, &mut client, from).await,
        false => foreign(&proxy, &mut client, from).await,
    };
    if let Err(error) = done {
        tracing::debug!(%from, %error, "a client's connection broke");
    }
    proxy.metrics.connections.dec();
}

/// Tells a client that is in no network that is served so. It is led nowhere and given nothing.
async fn foreign(proxy: &Arc<Proxy>, client: &mut Client, from: SocketAddr) -> io::Result<()> {
    if let Some(head) = next_head(proxy, client, FOREIGN_WITHIN, FOREIGN_WITHIN).await? {
        proxy.metrics.refused.inc();
        tracing::info!(%from, "a client from a network that is not served was refused");
        let why = format!(
            "{} is in no network that this proxy serves: those of rackbar.toml whose proxy it is, and those behind relays",
            from.ip().to_canonical()
        );
        error(proxy, client, 403, &why, false, head.method == Method::HEAD).await?;
    }
    client.close().await
}

async fn requests(proxy: &Arc<Proxy>, client: &mut Client, from: SocketAddr) -> io::Result<()> {
    loop {
        let within = proxy.settings().head_within;
        let Some(head) = next_head(proxy, client, IDLE, within).await? else {
            return Ok(());
        };
        proxy.metrics.requests.inc();
        client.status = 0;
        let next = request(proxy, client, &head, from).await;
        proxy.answered(from.ip(), &head.target, client.status);
        match next? {
            Next::Request if head.keep_alive => {}
            Next::Request | Next::Close => return client.close().await,
            Next::Cut => return client.cut(),
        }
    }
}

/// The next request. `idle`: until its first byte; `within`: from that to the last of its head, however these come.
async fn next_head(proxy: &Proxy, client: &mut Client, idle: Duration, within: Duration) -> io::Result<Option<Head>> {
    let mut until = None;
    loop {
        match parse(&client.received) {
            Parsed::Whole(head, length) => {
                client.received.drain(..length.min(client.received.len()));
                return Ok(Some(*head));
            }
            Parsed::Bad(status, why) => {
                error(proxy, client, status, why, false, false).await?;
                client.close().await?;
                return Ok(None);
            }
            Parsed::Partial => {}
        }
        let end = match client.received.is_empty() {
            true => Instant::now() + idle,
            false => *until.get_or_insert_with(|| Instant::now() + within),
        };
        match timeout_at(end, client.stream.read_buf(&mut client.received)).await {
            Ok(Ok(0)) | Err(_) => return Ok(None),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// What a request is for.
enum Wanted {
    /// Something of an origin.
    Ask(Box<Ask>),
    /// A file that a lock keeps.
    Document(Arc<[u8]>),
    /// Nothing we have or do: status and why.
    Nothing(u16, String),
}

async fn request(proxy: &Arc<Proxy>, client: &mut Client, head: &Head, from: SocketAddr) -> io::Result<Next> {
    let ours = proxy
        .via
        .as_bytes()
        .strip_prefix(b"1.1 ")
        .unwrap_or(proxy.via.as_bytes());
    let loops = head
        .headers
        .get_all(VIA)
        .iter()
        .any(|via| via.as_bytes().windows(ours.len()).any(|part| part == ours));
    if loops {
        return fail(
            proxy,
            client,
            head,
            508,
            "this request came through this proxy before: it leads to itself",
        )
        .await;
    }
    if head.method == Method::CONNECT {
        return tunnel::connect(proxy, client, head, from).await;
    }
    let ours = client.stream.local_addr().ok().and_then(|at| of_ours(&head.target, at));
    match wanted(proxy, head, ours.as_deref().unwrap_or(&head.target)) {
        Wanted::Nothing(status, why) => {
            if status == 403 {
                proxy.metrics.refused.inc();
                // A query may have a secret in it.
                let target = head.target.split('?').next().unwrap_or_default();
                tracing::info!(%from, target, why, "a client was refused");
            }
            fail(proxy, client, head, status, &why).await
        }
        Wanted::Document(bytes) => document(proxy, client, head, &bytes).await,
        Wanted::Ask(ask) if head.method == Method::GET && head.body.is_none() => {
            answer::get(proxy, client, head, *ask).await
        }
        Wanted::Ask(ask) => pass::other(proxy, client, head, *ask).await,
    }
}

/// The path of a URL that names the very address its client is connected to. Systems that ask for everything by their proxy ask
/// so for what the proxy itself has; no connection is made to ourselves.
fn of_ours(target: &str, at: SocketAddr) -> Option<String> {
    let url = Url::parse(target).filter(|url| !url.https && url.port == at.port())?;
    (url.host.parse() == Ok(at.ip().to_canonical())).then_some(url.path)
}

fn wanted(proxy: &Proxy, head: &Head, target: &str) -> Wanted {
    if let Some(rest) = target.strip_prefix("/mirror/") {
        let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !head.method.is_safe() {
            return Wanted::Nothing(405, "a mirror can only be read".into());
        }
        return match proxy.ask_mirror(name, path, &head.headers) {
            Some(ask) => Wanted::Ask(Box::new(ask)),
            None => Wanted::Nothing(404, unknown_mirror(&proxy.settings(), name)),
        };
    }
    if let Some(rest) = target.strip_prefix("/repository/") {
        let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !head.method.is_safe() {
            return Wanted::Nothing(405, "a repository can only be read".into());
        }
        return match proxy.of_repository(name, path) {
            Found::Document(bytes) => Wanted::Document(bytes),
            Found::Ask(ask) => Wanted::Ask(ask),
            Found::Nothing(why) => Wanted::Nothing(404, why),
        };
    }
    if head.target.starts_with('/') || head.target == "*" {
        let text = "this is a proxy: set it as http_proxy, or ask for /mirror/NAME/PATH or /repository/NAME/PATH";
        return Wanted::Nothing(400, text.into());
    }
    let Some(url) = Url::parse(&head.target) else {
        return Wanted::Nothing(400, "this is no http or https URL that can be asked for".into());
    };
    match proxy.ask_url(&url, &head.headers) {
        Ok(ask) => Wanted::Ask(Box::new(ask)),
        Err(refusal) => Wanted::Nothing(403, refusal.to_string()),
    }
}

/// Sends a file that a lock keeps: whole, for it is small, and without a date, for a lock may go back to an older one.
async fn document(proxy: &Proxy, client: &mut Client, head: &Head, bytes: &[u8]) -> io::Result<Next> {
    let mut headers = head::ours();
    headers.insert("cache-control", http::HeaderValue::from_static("no-cache"));
    let keep = head.keep_alive && head.body.is_none();
    let tail = Tail {
        length: Length::Known(bytes.len() as u64),
        age: None,
        ranges: false,
        cache_status: None,
        via: proxy.via.to_str().unwrap_or_default(),
        range: None,
        keep_alive: keep,
    };
    let out = head::head(&head::prelude(200, &headers), &tail);
    if head.method == Method::HEAD {
        client.write(&out).await?;
    } else {
        client.write_more(&out).await?;
        client.write(bytes).await?;
        proxy.metrics.client_bytes.add(bytes.len() as u64);
    }
    Ok(if keep { Next::Request } else { Next::Close })
}

/// Answers with an error. A request with a body that nobody read ends the connection.
async fn fail(proxy: &Proxy, client: &mut Client, head: &Head, status: u16, why: &str) -> io::Result<Next> {
    let keep = head.keep_alive && head.body.is_none();
    error(proxy, client, status, why, keep, head.method == Method::HEAD).await?;
    Ok(if keep { Next::Request } else { Next::Close })
}

async fn error(proxy: &Proxy, client: &mut Client, status: u16, why: &str, keep: bool, bare: bool) -> io::Result<()> {
    let mut headers = head::ours();
    headers.insert(
        "content-type",
        http::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert("cache-control", http::HeaderValue::from_static("no-store"));
    let body = format!("{why}\n");
    let tail = Tail {
        length: Length::Known(body.len() as u64),
        age: None,
        ranges: false,
        cache_status: None,
        via: proxy.via.to_str().unwrap_or_default(),
        range: None,
        keep_alive: keep,
    };
    let mut out = head::head(&head::prelude(status, &headers), &tail);
    if !bare {
        out.extend_from_slice(body.as_bytes());
    }
    client.write(&out).await
}
