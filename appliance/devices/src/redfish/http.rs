//! One HTTPS connection to a BMC, kept open between requests: a TLS handshake costs many BMCs more than a second.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::Cause;
use crate::pace::Pace;
use crate::tls::Pin;
use crate::{BmcAddress, Timing};

/// The largest answer taken. Whole event logs of real BMCs stay under 4 MiB.
const BODY_LIMIT: usize = 8 << 20;

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The body; `Null` when it is empty or not JSON.
    pub(crate) json: Value,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// The connection.
pub(crate) struct Http {
    address: BmcAddress,
    timing: Timing,
    pin: Arc<Pin>,
    pace: Arc<Pace>,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Http {
    pub(crate) const fn new(address: BmcAddress, timing: Timing, pin: Arc<Pin>, pace: Arc<Pace>) -> Self {
        Self {
            address,
            timing,
            pin,
            pace,
            open: None,
        }
    }

    pub(crate) const fn pin(&self) -> &Arc<Pin> {
        &self.pin
    }

    pub(crate) const fn pace(&self) -> &Arc<Pace> {
        &self.pace
    }

    /// Sends one request, when it is its turn by the pace of this BMC. A connection that the BMC closed while idle is opened anew; a request that may have been
    /// carried out is not sent twice, and [`Cause::Unanswered`] says so.
    pub(crate) async fn send(
        &mut self,
        method: &Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Option<&Value>,
    ) -> Result<Reply, Cause> {
        self.pace.turn().await;
        let reused = self.open.as_ref().is_some_and(|open| !open.is_closed());
        match self.once(method, path, headers, body).await {
            Err(Lost { unsent, .. }) if reused && (unsent || *method == Method::GET) => {
                self.open = None;
                self.once(method, path, headers, body).await.map_err(|lost| lost.cause)
            }
            other => other.map_err(|lost| lost.cause),
        }
    }

    async fn once(
        &mut self,
        method: &Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Option<&Value>,
    ) -> Result<Reply, Lost> {
        let request = self.request(method, path, headers, body)?;
        let answer = self.timing.answer;
        let reads = *method == Method::GET;
        let sender = self.connected().await?;
        match timeout(answer, exchange(sender, request, reads)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(lost)) => {
                self.open = None;
                Err(lost)
            }
            Err(_) => {
                // The connection is out of step now: an answer that comes late would be taken for the next request's.
                self.open = None;
                Err(silent(format!("no answer within {} ms", answer.as_millis()), reads).into())
            }
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, Cause> {
        let host = if self.address.ip.is_ipv6() {
            format!("[{}]", self.address.ip)
        } else {
            self.address.ip.to_string()
        };
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header("host", host)
            .header("accept", "application/json")
            .header("odata-version", "4.0")
            .header("user-agent", "rackbar");
        for (name, value) in headers {
            let mut value = HeaderValue::from_str(value).map_err(|_| Cause::Malformed(format!("header {name}")))?;
            value.set_sensitive(matches!(*name, "authorization" | "x-auth-token"));
            request = request.header(*name, value);
        }
        let bytes = match body {
            Some(json) => {
                request = request.header("content-type", "application/json");
                Bytes::from(json.to_string())
            }
            None => Bytes::new(),
        };
        request
            .body(Full::new(bytes))
            .map_err(|error| Cause::Malformed(format!("path {path}: {error}")))
    }

    async fn connected(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Cause> {
        let usable = match &mut self.open {
            Some(open) => open.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            self.open = None;
            let limit = self.timing.connect;
            let fresh = timeout(limit, self.connect())
                .await
                .map_err(|_| late("connection", limit))??;
            self.open = Some(fresh);
        }
        self.open
            .as_mut()
            .ok_or_else(|| Cause::Unreachable("connection closed".to_owned()))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Cause> {
        let unreachable = |error: std::io::Error| Cause::Unreachable(error.to_string());
        let stream = TcpStream::connect(self.address.redfish()).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let config = self
            .pin
            .config()
            .map_err(|error| Cause::Unreachable(error.to_string()))?;
        let name = ServerName::IpAddress(self.address.ip.into());
        let secured = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let stream = secured.map_err(|error| self.tls_failed(&error))?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Cause::Unreachable(error.to_string()))?;
        // Ends when the sender is dropped or the BMC closes; either way the sender tells.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a BMC ended");
            }
        });
        Ok(sender)
    }

    fn tls_failed(&self, error: &std::io::Error) -> Cause {
        let known = self.pin.known();
        match (known.pinned, known.seen) {
            (Some(pinned), Some(seen)) if pinned != seen => Cause::CertificateChanged { pinned, seen },
            _ => Cause::Unreachable(format!("TLS: {error}")),
        }
    }
}

struct Lost {
    cause: Cause,
    /// The request never left.
    unsent: bool,
}

impl From<Cause> for Lost {
    fn from(cause: Cause) -> Self {
        Self { cause, unsent: false }
    }
}

/// What a silence after a request means.
fn silent(words: String, reads: bool) -> Cause {
    if reads {
        Cause::Unreachable(words)
    } else {
        Cause::Unanswered(words)
    }
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    reads: bool,
) -> Result<Reply, Lost> {
    let lost = |error: hyper::Error| Lost {
        unsent: error.is_canceled(),
        cause: silent(format!("connection lost: {error}"), reads || error.is_canceled()),
    };
    let response = sender.send_request(request).await.map_err(lost)?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, BODY_LIMIT).collect().await;
    let bytes = body
        .map_err(|error| Cause::Malformed(format!("body: {error}")))?
        .to_bytes();
    let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Ok(Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        json,
    })
}

fn late(what: &str, limit: Duration) -> Cause {
    Cause::Unreachable(format!("no {what} within {} ms", limit.as_millis()))
}
