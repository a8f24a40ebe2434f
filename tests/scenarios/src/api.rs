//! A small client of the appliance's API.
//!
//! It trusts any certificate, and only to 127.0.0.1: the appliance made its CA a moment ago inside a process of ours
//! and had no way to tell us its digest. Which CA it was is remembered, so that it can be shown and pinned by others.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rackbar_model::{Event, Lease, Node, NodeId};
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring::default_provider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsConnector;

/// An emulated appliance on a busy machine takes its time for a handshake.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two questions whether it lives.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The API of one appliance.
pub struct Api {
    address: SocketAddr,
    token: String,
    tls: TlsConnector,
    certificates: Arc<Seen>,
}

/// A page of a list.
#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next_page_token: Option<String>,
}

/// An event and what it says.
#[derive(Debug, Deserialize)]
pub struct Worded {
    /// The event.
    #[serde(flatten)]
    pub event: Event,
    /// The event in words.
    pub text: String,
}

/// A machine's timeline.
#[derive(Debug, Deserialize)]
pub struct Timeline {
    /// The machine's name.
    pub name: String,
    /// The verdict on its last boot.
    pub verdict: String,
    /// What happened, oldest first.
    pub items: Vec<Worded>,
}

impl Api {
    /// An API at an address of this machine.
    ///
    /// # Errors
    /// When the address is another machine's.
    pub fn new(address: SocketAddr, token: String) -> Result<Self> {
        ensure!(address.ip().is_loopback(), "{address} is not on this machine");
        let provider = Arc::new(default_provider());
        let certificates = Arc::new(Seen {
            provider: Arc::clone(&provider),
            pin: Mutex::default(),
        });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("setting up TLS")?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Seen>::clone(&certificates))
            .with_no_client_auth();
        Ok(Self {
            address,
            token,
            tls: TlsConnector::from(Arc::new(config)),
            certificates,
        })
    }

    /// The token it shows.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Where it is, on this machine.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SHA-256 of the site's CA certificate, once a connection was made.
    pub fn pin(&self) -> Option<String> {
        self.certificates
            .pin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// True when the appliance answers that it lives.
    pub async fn healthy(&self) -> bool {
        matches!(self.request(Method::GET, "/healthz", None).await, Ok((200, _)))
    }

    /// Ends when the appliance answers that it lives.
    pub async fn lives(&self) {
        let mut asked = FuturesUnordered::new();
        loop {
            // Never one question alone: one that was asked before the appliance had an address is carried to it again by
            // QEMU's network after three seconds or six, however early it serves.
            asked.push(self.healthy());
            let again = Instant::now() + ASK_AGAIN;
            while let Ok(Some(answer)) = timeout_at(again, asked.next()).await {
                if answer {
                    return;
                }
            }
            sleep_until(again).await;
        }
    }

    /// What the appliance says of its readiness.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ready(&self) -> Result<String> {
        let (_, body) = self.request(Method::GET, "/readyz", None).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// All machines the appliance knows.
    ///
    /// # Errors
    /// When it does not answer, or not what this program understands. So for all that follow.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        self.list("/api/v1/nodes").await
    }

    /// All leases.
    ///
    /// # Errors
    /// As [`Api::nodes`].
    pub async fn leases(&self) -> Result<Vec<Lease>> {
        self.list("/api/v1/leases").await
    }

    /// The newest events, at most a thousand.
    ///
    /// # Errors
    /// As [`Api::nodes`].
    pub async fn events(&self) -> Result<Vec<Worded>> {
        let page: Page<Worded> = self.read("/api/v1/events?limit=1000").await?;
        Ok(page.items)
    }

    /// The first thousand events after one, oldest first; of all when it is 0.
    ///
    /// # Errors
    /// As [`Api::nodes`].
    pub async fn events_after(&self, after: u64) -> Result<Vec<Worded>> {
        let page: Page<Worded> = self.read(&format!("/api/v1/events?after={after}&limit=1000")).await?;
        Ok(page.items)
    }

    /// Everything that happened to a machine.
    ///
    /// # Errors
    /// As [`Api::nodes`].
    pub async fn timeline(&self, node: NodeId) -> Result<Timeline> {
        self.read(&format!("/api/v1/nodes/{node}/timeline")).await
    }

    async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        let mut all = Vec::new();
        let mut next = format!("{path}?limit=1000");
        loop {
            let page: Page<T> = self.read(&next).await?;
            all.extend(page.items);
            match page.next_page_token {
                Some(token) => next = format!("{path}?limit=1000&page_token={token}"),
                None => return Ok(all),
            }
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When the appliance does not give it, or gives another.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        serde_json::from_slice(&self.get(path).await?).with_context(|| format!("reading the answer to {path}"))
    }

    /// Asks for a power action through a machine's BMC, by its name in the API.
    ///
    /// # Errors
    /// When the appliance refuses; with its words.
    pub async fn power(&self, node: NodeId, action: &str) -> Result<()> {
        let path = format!("/api/v1/nodes/{node}/power");
        let (status, body) = self
            .request(Method::POST, &path, Some(&format!(r#"{{"action":"{action}"}}"#)))
            .await?;
        ensure!(
            (200..300).contains(&status),
            "POST {path}: {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(())
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Bytes> {
        let (status, body) = self.request(Method::GET, path, None).await?;
        if status != 200 {
            bail!("GET {path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    /// A request without a body, or with one of JSON.
    async fn request(&self, method: Method, path: &str, body: Option<&str>) -> Result<(u16, Bytes)> {
        let headers = [("content-type", "application/json".to_owned())];
        self.send_text(method, path, &headers, body.unwrap_or_default()).await
    }

    /// A request with a body that is at hand.
    pub(crate) async fn send_text(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: &str,
    ) -> Result<(u16, Bytes)> {
        let body = Full::new(Bytes::from(body.to_owned()))
            .map_err(|never| match never {})
            .boxed_unsync();
        self.send(method, path, headers, body, LIMIT).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: UnsyncBoxBody<Bytes, std::io::Error>,
        limit: Duration,
    ) -> Result<(u16, Bytes)> {
        let exchange = async {
            let Answering {
                response,
                sender: _sender,
            } = self.ask(method, path, headers, body).await?;
            let status = response.status().as_u16();
            Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        tokio::time::timeout(limit, exchange)
            .await
            .with_context(|| format!("{} did not answer", self.address))?
    }

    /// A request on a connection of its own, as far as the head of its answer.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: UnsyncBoxBody<Bytes, std::io::Error>,
    ) -> Result<Answering> {
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let tls = self.tls.connect(name, tcp).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        // Ends with the sender; its error, if any, is also the request's.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = sender.send_request(request.body(body)?).await?;
        Ok(Answering { response, sender })
    }

    /// Follows the appliance's events: those after one, and then as they happen; without one, those that happen from now on.
    ///
    /// # Errors
    /// When the appliance does not answer, or refuses.
    pub async fn follow(&self, after: Option<u64>) -> Result<Live> {
        let after = after.map(|after| format!("?after={after}")).unwrap_or_default();
        let path = format!("/api/v1/events/stream{after}");
        let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
        let answer = tokio::time::timeout(LIMIT, self.ask(Method::GET, &path, &[], body)).await;
        let Answering { response, sender } = answer.with_context(|| format!("{} did not answer", self.address))??;
        ensure!(response.status() == 200, "GET {path}: {}", response.status());
        Ok(Live {
            body: response.into_body(),
            _sender: sender,
            come: Vec::new(),
        })
    }
}

/// An answer whose body is on its way, over a connection that lasts as long as its sender.
struct Answering {
    response: Response<Incoming>,
    sender: http1::SendRequest<UnsyncBoxBody<Bytes, std::io::Error>>,
}

/// Events as they happen (Server-Sent Events).
pub struct Live {
    body: Incoming,
    _sender: http1::SendRequest<UnsyncBoxBody<Bytes, std::io::Error>>,
    /// What came and was not taken yet.
    come: Vec<u8>,
}

impl Live {
    /// The next event; waits until there is one.
    ///
    /// # Errors
    /// When the appliance ends the stream, or goes.
    pub async fn next(&mut self) -> Result<Worded> {
        loop {
            if let Some(event) = self.taken()? {
                return Ok(event);
            }
            let frame = self.body.frame().await.context("the appliance ended its events")?;
            if let Some(data) = frame.context("the appliance's events")?.data_ref() {
                self.come.extend_from_slice(data);
            }
        }
    }

    /// The first event that came whole; what is none (a sign of life) is passed over.
    fn taken(&mut self) -> Result<Option<Worded>> {
        while let Some(end) = self.come.windows(2).position(|two| two == b"\n\n") {
            let block: Vec<u8> = self.come.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&block);
            if let Some(data) = text.lines().find_map(|line| line.strip_prefix("data:")) {
                let event = serde_json::from_str(data).with_context(|| format!("reading the event {data}"))?;
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

/// Takes every certificate and remembers the CA's digest.
#[derive(Debug)]
struct Seen {
    provider: Arc<CryptoProvider>,
    pin: Mutex<Option<String>>,
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates.last().unwrap_or(end_entity);
        let pin = crate::site::hex(digest(&SHA256, ca).as_ref());
        *self.pin.lock().unwrap_or_else(PoisonError::into_inner) = Some(pin);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
