//! The API's client: what the command line and the console use.
//!
//! Over HTTPS the site's CA certificate is pinned by its SHA-256: no name and no public authority counts, since an
//! appliance is reached by whatever address it has today. On the appliance itself, the socket file needs neither.

mod pin;
mod stream;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rackbar_model::Digest;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::operations::{Consent, SiteMistake};
pub use stream::{EventStream, Pieces};

/// Connecting takes longer than this only when nobody is there.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Answers are larger than this never: a thousand nodes with inventory are about 40 MB.
const MAX_ANSWER: usize = 256 << 20;

/// Where the appliance is and how to prove oneself to it.
#[derive(Clone)]
pub enum Endpoint {
    /// Over the network.
    Https {
        /// `host` or `host:port`; 443 when there is no port.
        authority: String,
        /// SHA-256 of the site CA certificate.
        pin: Digest,
        /// The token.
        token: String,
    },
    /// On the appliance itself.
    Socket(PathBuf),
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answered.
    #[error("cannot reach the appliance at {at}: {reason}")]
    Unreachable {
        /// Where.
        at: String,
        /// Why.
        reason: String,
    },
    /// The appliance said no.
    #[error("{title}: {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The kind of problem.
        title: String,
        /// What happened and what to do.
        detail: String,
        /// More, a line each: mistakes of a site file, what changed since a plan was made, whose data is lost.
        lines: Vec<String>,
    },
    /// The answer was not what this client understands.
    #[error("the appliance's answer makes no sense: {0}; are its version and this program's the same?")]
    Malformed(String),
}

#[derive(Deserialize)]
struct ProblemBody {
    title: String,
    detail: String,
    #[serde(default)]
    mistakes: Vec<SiteMistake>,
    #[serde(default)]
    changed: Vec<String>,
    #[serde(default)]
    consent: Vec<Consent>,
}

impl ProblemBody {
    fn lines(&self) -> Vec<String> {
        let mistake = |one: &SiteMistake| {
            let hint = one.suggestion.as_ref().map(|s| format!(" ({s})")).unwrap_or_default();
            format!(
                "line {}, column {}: {} {}{hint}",
                one.line, one.column, one.field, one.message
            )
        };
        let consent = |one: &Consent| format!("{} would lose {}", one.node, one.loses.join("; "));
        let mistakes = self.mistakes.iter().map(mistake);
        mistakes
            .chain(self.changed.iter().cloned())
            .chain(self.consent.iter().map(consent))
            .collect()
    }
}

type Sent = UnsyncBoxBody<Bytes, io::Error>;

/// A body that is at hand.
fn whole(body: Vec<u8>) -> Sent {
    Full::new(Bytes::from(body))
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A client of one appliance.
#[derive(Clone)]
pub struct Client {
    endpoint: Endpoint,
    tls: Option<Arc<rustls::ClientConfig>>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Client {
    /// A client for this endpoint; connects with the first request.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(endpoint: Endpoint) -> Result<Self, ClientError> {
        let tls = match &endpoint {
            Endpoint::Https { authority, pin, .. } => {
                Some(pin::config(*pin).map_err(|error| ClientError::Unreachable {
                    at: authority.clone(),
                    reason: error.to_string(),
                })?)
            }
            Endpoint::Socket(_) => None,
        };
        Ok(Self { endpoint, tls })
    }

    /// The endpoint in words, without the token.
    pub fn place(&self) -> String {
        match &self.endpoint {
            Endpoint::Https { authority, .. } => format!("https://{authority}"),
            Endpoint::Socket(path) => path.display().to_string(),
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let (authority, tls) = match (&self.endpoint, &self.tls) {
            (Endpoint::Socket(path), _) => return Ok(Box::new(UnixStream::connect(path).await?)),
            (Endpoint::Https { authority, .. }, Some(tls)) => (authority, tls),
            (Endpoint::Https { .. }, None) => return Err(io::Error::other("TLS is not set up")),
        };
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port {
            authority.clone()
        } else {
            format!("{authority}:443")
        };
        let stream = TcpStream::connect(&address).await?;
        stream.set_nodelay(true)?;
        // The name is not checked (see `pin`), but the protocol wants one.
        let name = ServerName::try_from("rackbar").map_err(io::Error::other)?;
        Ok(Box::new(TlsConnector::from(tls.clone()).connect(name, stream).await?))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let headers: &[_] = if body.is_some() {
            &[(CONTENT_TYPE, "application/json")]
        } else {
            &[]
        };
        self.exchange(method, path, accept, headers, whole(body.unwrap_or_default()))
            .await
    }

    /// One request on a connection of its own.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        headers: &[(HeaderName, &str)],
        body: Sent,
    ) -> Result<Response<Incoming>, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable {
            at: self.place(),
            reason,
        };
        let connected = tokio::time::timeout(CONNECT_LIMIT, self.connect()).await;
        let stream = connected
            .map_err(|_| unreachable(format!("no answer within {} s", CONNECT_LIMIT.as_secs())))?
            .map_err(|error| unreachable(error.to_string()))?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| unreachable(error.to_string()))?;
        // Ends by itself when the answer has been read or dropped; its error also shows on the request.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "rackbar")
            .header(ACCEPT, accept);
        if let Endpoint::Https { token, .. } = &self.endpoint {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let request = request
            .body(body)
            .map_err(|error| ClientError::Malformed(error.to_string()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refusal(response).await)
        }
    }

    async fn refusal(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        let body = self.collect(response).await.unwrap_or_default();
        let problem = serde_json::from_slice::<ProblemBody>(&body);
        let problem = problem.unwrap_or_else(|_| ProblemBody {
            title: format!("HTTP status {status}"),
            detail: String::from_utf8_lossy(&body).trim().to_owned(),
            mistakes: Vec::new(),
            changed: Vec::new(),
            consent: Vec::new(),
        });
        ClientError::Refused {
            status: status.as_u16(),
            lines: problem.lines(),
            title: problem.title,
            detail: problem.detail,
        }
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let limited = http_body_util::Limited::new(response.into_body(), MAX_ANSWER);
        match limited.collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(ClientError::Unreachable {
                at: self.place(),
                reason: error.to_string(),
            }),
        }
    }

    /// `GET path`, read as JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(Method::GET, path, "application/json", None).await?;
        let body = self.collect(response).await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Malformed(error.to_string()))
    }

    /// `GET path`, as it is.
    ///
    /// # Errors
    /// As [`Client::get_text`], but for its text.
    pub async fn get_bytes(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        let response = self.send(Method::GET, path, "*/*", None).await?;
        Ok(self.collect(response).await?.to_vec())
    }

    /// `GET path`, as text.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_text(&self, path: &str) -> Result<String, ClientError> {
        let response = self.send(Method::GET, path, "*/*", None).await?;
        let body = self.collect(response).await?;
        String::from_utf8(body.to_vec()).map_err(|error| ClientError::Malformed(error.to_string()))
    }

    /// All entries of a paged list.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ClientError> {
        #[derive(Deserialize)]
        struct Page<T> {
            items: Vec<T>,
            next_page_token: Option<String>,
        }
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let page: Page<T> = self.get(&format!("{path}{mark}limit=1000{token}")).await?;
            all.extend(page.items);
            match page.next_page_token {
                Some(next) => token = format!("&page_token={next}"),
                None => return Ok(all),
            }
        }
    }

    /// `POST path` with a JSON body; the answer's body, empty for 204.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Bytes, ClientError> {
        self.change(Method::POST, path, body).await
    }

    /// `PATCH path` with a JSON body.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn patch(&self, path: &str, body: &impl Serialize) -> Result<Bytes, ClientError> {
        self.change(Method::PATCH, path, body).await
    }

    /// `PUT path` with a JSON body.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put(&self, path: &str, body: &impl Serialize) -> Result<Bytes, ClientError> {
        self.change(Method::PUT, path, body).await
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, path, "application/json", None)
            .await
            .map(drop)
    }

    /// `PUT path` with a text of this media type.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_text(&self, path: &str, kind: &str, text: String) -> Result<Bytes, ClientError> {
        let body = whole(text.into_bytes());
        let headers = [(CONTENT_TYPE, kind)];
        let response = self
            .exchange(Method::PUT, path, "application/json", &headers, body)
            .await?;
        self.collect(response).await
    }

    /// `POST path` with a text of this media type.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_text(&self, path: &str, kind: &str, text: String) -> Result<Bytes, ClientError> {
        self.post_bytes(path, &[(CONTENT_TYPE, kind)], text.into_bytes()).await
    }

    /// `POST path` with these headers and bytes.
    ///
    /// # Errors
    /// See [`ClientError`].
    async fn post_bytes(
        &self,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Vec<u8>,
    ) -> Result<Bytes, ClientError> {
        let response = self.exchange(Method::POST, path, "*/*", headers, whole(body)).await?;
        self.collect(response).await
    }

    /// Puts a state file of this length in, which is read while it is sent; the passphrase goes in a header, since URLs are
    /// logged.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn import(
        &self,
        file: crate::operations::Body,
        bytes: u64,
        passphrase: &str,
    ) -> Result<Bytes, ClientError> {
        let header = [(HeaderName::from_static("rackbar-passphrase"), passphrase)];
        self.send_body(Method::POST, "/api/v1/import", file, bytes, &header)
            .await
    }

    /// `PUT path` with a body that is read while it is sent; `bytes` is its length, `sha256` what it must come to
    /// (RFC 9530). The body never lies in memory as a whole.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_stream(
        &self,
        path: &str,
        body: crate::operations::Body,
        bytes: u64,
        sha256: Digest,
    ) -> Result<Bytes, ClientError> {
        use base64::Engine as _;
        let sum = base64::prelude::BASE64_STANDARD.encode(sha256.0);
        let digest = format!("sha-256=:{sum}:");
        let digest = [(HeaderName::from_static("content-digest"), digest.as_str())];
        self.send_body(Method::PUT, path, body, bytes, &digest).await
    }

    /// As [`Self::put_stream`], for what proves itself whole.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_pieces(
        &self,
        path: &str,
        body: crate::operations::Body,
        bytes: u64,
    ) -> Result<Bytes, ClientError> {
        self.send_body(Method::PUT, path, body, bytes, &[]).await
    }

    async fn send_body(
        &self,
        method: Method,
        path: &str,
        body: crate::operations::Body,
        bytes: u64,
        more: &[(HeaderName, &str)],
    ) -> Result<Bytes, ClientError> {
        use futures_util::TryStreamExt as _;
        let length = bytes.to_string();
        let mut headers = vec![
            (CONTENT_TYPE, "application/octet-stream"),
            (CONTENT_LENGTH, length.as_str()),
        ];
        headers.extend(more.iter().cloned());
        let body = StreamBody::new(body.map_ok(Frame::data)).boxed_unsync();
        let response = self.exchange(method, path, "application/json", &headers, body).await?;
        self.collect(response).await
    }

    async fn change(&self, method: Method, path: &str, body: &impl Serialize) -> Result<Bytes, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Malformed(error.to_string()))?;
        let response = self.send(method, path, "application/json", Some(body)).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Bytes::new());
        }
        self.collect(response).await
    }

    /// `GET path`, piece by piece as it comes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pieces(&self, path: &str) -> Result<Pieces, ClientError> {
        let response = self.send(Method::GET, path, "*/*", None).await?;
        Ok(self.pieces_of(response))
    }

    /// `POST path` with a JSON body; the answer piece by piece as it comes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_for_pieces(&self, path: &str, body: &impl Serialize) -> Result<Pieces, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Malformed(error.to_string()))?;
        let response = self.send(Method::POST, path, "*/*", Some(body)).await?;
        Ok(self.pieces_of(response))
    }

    fn pieces_of(&self, response: Response<Incoming>) -> Pieces {
        Pieces {
            place: self.place(),
            body: response.into_body(),
        }
    }

    /// `POST path` with a body that is sent while it comes into being; ends with it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_stream(&self, path: &str, body: crate::operations::Body) -> Result<(), ClientError> {
        use futures_util::TryStreamExt as _;
        let headers = [(CONTENT_TYPE, "application/octet-stream")];
        let body = StreamBody::new(body.map_ok(Frame::data)).boxed_unsync();
        self.exchange(Method::POST, path, "*/*", &headers, body).await.map(drop)
    }

    /// Follows the event stream at `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn follow(&self, path: &str) -> Result<EventStream, ClientError> {
        let response = self.send(Method::GET, path, "text/event-stream", None).await?;
        Ok(EventStream {
            place: self.place(),
            body: response.into_body(),
            pending: Vec::new(),
        })
    }
}
