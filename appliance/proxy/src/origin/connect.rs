//! Connections to origins. Names are resolved here, and the rule is asked about the very address that is connected to. Behind
//! a parent proxy that one resolves them: then the rule is asked about what the name means here, if it means anything.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Uri;
use hyper_util::rt::TokioIo;
use rackbar_outward::{Line, Way};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::rules::destination::Destinations;

/// For one address.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);

/// For a name that only a parent proxy may know.
const LOOK_WITHIN: Duration = Duration::from_secs(3);

/// So many names are looked for at a time: the system's resolver keeps a thread for each until it gives up, whoever still waits.
const LOOKS: usize = 8;

/// A name that meant nothing here is not looked for again so soon: where questions for outside names are dropped, each connection
/// would wait for the whole time of a look.
const UNKNOWN_FOR: Duration = Duration::from_secs(300);

/// So many such names are remembered.
const UNKNOWN: usize = 1024;

/// The same for names that we connect to: where a resolver is slow, storing still has threads.
const LOOKUPS: usize = 24;

/// Looks for names that we connect to.
static RESOLVING: Semaphore = Semaphore::const_new(LOOKUPS);

/// Looks for names that a parent proxy will resolve by itself.
static LOOKING: Semaphore = Semaphore::const_new(LOOKS);

/// Names that meant nothing here, and when that was found.
static NOT_KNOWN: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());

/// Opens connections for the HTTP client.
#[derive(Clone)]
pub struct Connector {
    guard: Option<Arc<RwLock<Destinations>>>,
    way: Option<Way>,
}

impl Connector {
    /// With the rule to keep to, or without any; through a parent proxy, or straight.
    pub fn new(guard: Option<Arc<RwLock<Destinations>>>, way: Option<Way>) -> Self {
        Self { guard, way }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Line>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let rule = self
            .guard
            .as_ref()
            .map(|rule| rule.read().unwrap_or_else(PoisonError::into_inner).clone());
        let way = self.way.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
            if let Some(way) = way.filter(|way| way.parent().leads(&host)) {
                check(&host, rule.as_ref()).await?;
                return Ok(TokioIo::new(way.line(&uri).await?));
            }
            let stream = dial(&host, uri.port_u16().unwrap_or(usual), rule.as_ref()).await?;
            Ok(TokioIo::new(stream.into()))
        })
    }
}

/// Asks the rule for a host that a parent proxy is to lead to. A name that means nothing here is the parent's to judge.
///
/// # Errors
/// When the rule forbids one of its addresses.
async fn check(host: &str, rule: Option<&Destinations>) -> io::Result<()> {
    let Some(rule) = rule else { return Ok(()) };
    let addresses: Vec<IpAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) if is_not_known(host, Instant::now()) => Vec::new(),
        Err(_) => {
            let found = tokio::time::timeout(LOOK_WITHIN, look(host, &LOOKING)).await;
            let found = found.ok().and_then(Result::ok).unwrap_or_default();
            if found.is_empty() {
                remember(host, Instant::now());
            }
            found
        }
    };
    let refused = addresses.into_iter().try_for_each(|address| rule.address(address));
    refused.map_err(|refusal| io::Error::new(io::ErrorKind::PermissionDenied, refusal))
}

/// What a name means here. The look goes on in its own task, and so keeps its place, when who asked waits no longer.
///
/// # Errors
/// When it means nothing, or nobody says what.
async fn look(host: &str, places: &'static Semaphore) -> io::Result<Vec<IpAddr>> {
    let place = places.acquire().await.map_err(io::Error::other)?;
    let host = host.to_owned();
    let found = tokio::spawn(async move {
        let found = tokio::net::lookup_host((host, 0)).await;
        drop(place);
        found.map(|found| found.map(|address| address.ip()).collect())
    });
    found.await.map_err(io::Error::other)?
}

fn is_not_known(host: &str, now: Instant) -> bool {
    let known = NOT_KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.get(host).is_some_and(|at| now.duration_since(*at) < UNKNOWN_FOR)
}

fn remember(host: &str, now: Instant) {
    let mut known = NOT_KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= UNKNOWN {
        known.retain(|_, at| now.duration_since(*at) < UNKNOWN_FOR);
    }
    // Whoever asks for ever new names costs looks and no memory.
    if known.len() < UNKNOWN {
        known.insert(host.to_owned(), now);
    }
}

/// A connection for a client's tunnel: through the parent proxy where that leads, else straight.
///
/// # Errors
/// As of [`dial`]; of a parent proxy, what that says.
pub async fn tunnel(host: &str, port: u16, rule: &Destinations, way: Option<&Way>) -> io::Result<Line> {
    match way.filter(|way| way.parent().leads(host)) {
        Some(way) => {
            check(host, Some(rule)).await?;
            way.tunnel(host, port).await
        }
        None => dial(host, port, Some(rule)).await.map(Line::from),
    }
}

/// Connects to a host by name or address, trying its addresses in turn.
///
/// # Errors
/// When the rule forbids all of them, or none answers.
async fn dial(host: &str, port: u16, rule: Option<&Destinations>) -> io::Result<TcpStream> {
    let addresses: Vec<IpAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => {
            let found = look(host, &RESOLVING).await;
            found.map_err(|error| io::Error::new(error.kind(), format!("{host} has no address: {error}")))?
        }
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in addresses {
        if let Some(Err(refusal)) = rule.map(|rule| rule.address(address)) {
            last = io::Error::new(io::ErrorKind::PermissionDenied, refusal);
            continue;
        }
        let at = SocketAddr::new(address, port);
        match tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(at)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = io::Error::new(error.kind(), format!("connecting to {at}: {error}")),
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("connecting to {at}: no answer")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn so_many_names_are_looked_for_at_a_time_and_the_others_wait() {
        static ONE: Semaphore = Semaphore::const_new(1);
        let taken = ONE.acquire().await.unwrap();
        let mut next = Box::pin(look("localhost", &ONE));
        let early = tokio::time::timeout(Duration::from_millis(50), &mut next).await;
        assert!(early.is_err(), "it did not wait: {early:?}");
        drop(taken);
        assert!(next.await.unwrap().iter().all(IpAddr::is_loopback));
        assert_eq!(ONE.available_permits(), 1);
    }

    #[test]
    fn a_name_that_means_nothing_here_is_looked_for_again_after_a_while() {
        let now = Instant::now();
        assert!(!is_not_known("inside.example", now));
        remember("inside.example", now);
        assert!(is_not_known("inside.example", now + UNKNOWN_FOR / 2));
        assert!(!is_not_known("inside.example", now + UNKNOWN_FOR));
        for number in 0..2 * UNKNOWN {
            remember(&format!("{number}.example"), now + UNKNOWN_FOR);
        }
        let known = NOT_KNOWN.lock().unwrap();
        assert_eq!(known.len(), UNKNOWN);
        assert!(!known.contains_key("inside.example"), "what is old makes room");
    }
}
