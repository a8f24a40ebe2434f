//! Asking origins: HTTP/1.1 and 2, TLS against the public roots and those the site adds, straight or through a parent proxy.

mod connect;
mod exchange;
mod get;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::{Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rackbar_outward::{Line, Parent, ParentError, Way, tls};

use crate::rules::destination::{Destinations, Refusal};
use crate::rules::freshness::dated;
pub use connect::Connector;
pub(crate) use connect::tunnel;
pub use exchange::Question;
pub use get::{Coming, GetError, check_url};

/// Body of a request to an origin.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Until the head of an answer is there.
pub(crate) const HEAD_WITHIN: Duration = Duration::from_secs(45);

/// Why an origin gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// It is one we lead nobody to.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The parent proxy stands in the way.
    #[error(transparent)]
    Parent(#[from] ParentError),
    /// It cannot be reached, or broke off.
    #[error("{0}")]
    Failed(String),
    /// It said nothing for too long.
    #[error("no answer within {} s", HEAD_WITHIN.as_secs())]
    Silent,
}

/// Connections to origins, kept and used again.
pub struct Origins {
    guarded: Client<HttpsConnector<Connector>, Body>,
    trusted: Client<HttpsConnector<Connector>, Body>,
    rule: Arc<RwLock<Destinations>>,
    way: Option<Way>,
}

impl Origins {
    /// `roots`: certificates in DER form of authorities to trust besides the public ones. `parent`: through whom all are
    /// asked but those that it says are reached without it.
    pub fn new(rule: Destinations, roots: &[Vec<u8>], parent: Option<Parent>) -> Self {
        let rule = Arc::new(RwLock::new(rule));
        let tls = tls(true, roots);
        let way = parent.map(Way::new);
        let client = |guard: Option<Arc<RwLock<Destinations>>>| {
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config(tls.clone())
                .https_or_http()
                .enable_all_versions()
                .wrap_connector(Connector::new(guard, way.clone()));
            Client::builder(TokioExecutor::new())
                .pool_idle_timeout(Duration::from_secs(30))
                .pool_max_idle_per_host(16)
                .pool_timer(hyper_util::rt::TokioTimer::new())
                .http1_read_buf_exact_size(128 << 10)
                .http2_initial_stream_window_size(2 << 20)
                .http2_initial_connection_window_size(4 << 20)
                .build(connector)
        };
        Self {
            guarded: client(Some(rule.clone())),
            trusted: client(None),
            rule,
            way,
        }
    }

    /// The rule for destinations that clients name.
    pub fn rule(&self) -> Destinations {
        self.rule
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Replaces it; connections that are open and idle were opened under the old one and are few and short.
    pub fn set_rule(&self, rule: Destinations) {
        *self.rule.write().unwrap_or_else(std::sync::PoisonError::into_inner) = rule;
    }

    /// Sends a request with an absolute URI. `trusted`: the operator wrote the destination into the configuration, so
    /// that the rule for what clients name is not asked.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self, trusted: bool, request: Request<Body>) -> Result<Response<Incoming>, OriginError> {
        let answer = tokio::time::timeout(HEAD_WITHIN, self.begin(trusted, request)).await;
        answer.unwrap_or(Err(OriginError::Silent))
    }

    /// The same for a request whose body is still to come: who feeds it knows how long that may take.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) async fn begin(
        &self,
        trusted: bool,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, OriginError> {
        let client = if trusted { &self.trusted } else { &self.guarded };
        let uri = request.uri().clone();
        // Whoever asks us proves nothing to the parent, and nobody else hears what we prove to it.
        request.headers_mut().remove(PROXY_AUTHORIZATION);
        if let Some(login) = self.parent().and_then(|parent| parent.login_for(&uri)) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, login.clone());
        }
        match client.request(request).await {
            Ok(mut response) => {
                dated(response.headers_mut(), crate::now());
                self.of_origin(&uri, response)
            }
            Err(error) => Err(explained(&error)),
        }
    }

    fn parent(&self) -> Option<&Parent> {
        self.way.as_ref().map(Way::parent)
    }

    /// The answer, when it is the origin's and not the parent's own.
    fn of_origin(&self, uri: &Uri, response: Response<Incoming>) -> Result<Response<Incoming>, OriginError> {
        let (status, headers) = (response.status().as_u16(), response.headers());
        let refused = self.parent().and_then(|parent| parent.refusal(uri, status, headers));
        refused.map_or(Ok(response), |error| Err(error.into()))
    }

    /// A connection for a client's tunnel.
    ///
    /// # Errors
    /// When the rule or the parent proxy forbids it, or nobody answers.
    pub(crate) async fn tunnel(&self, host: &str, port: u16) -> Result<Line, OriginError> {
        let opened = tunnel(host, port, &self.rule(), self.way.as_ref()).await;
        opened.map_err(|error| explained(&error))
    }
}

/// The cause at the bottom: the layers above only say that a connection failed.
fn explained(error: &(dyn std::error::Error + 'static)) -> OriginError {
    let mut at: &(dyn std::error::Error + 'static) = error;
    loop {
        if let Some(refusal) = at.downcast_ref::<Refusal>() {
            return OriginError::Refused(refusal.clone());
        }
        if let Some(error) = at.downcast_ref::<ParentError>() {
            return OriginError::Parent(error.clone());
        }
        if let Some(error @ rustls::Error::InvalidCertificate(_)) = at.downcast_ref() {
            return OriginError::Failed(format!(
                "{error}; when an authority of your own signed it, name that one by authority in the [proxy] section of \
                 rackbar.toml"
            ));
        }
        // An io::Error hides what it was made of from `source`.
        let inside = at.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let next = inside
            .map(|inside| inside as &(dyn std::error::Error + 'static))
            .or_else(|| at.source());
        match next {
            Some(next) => at = next,
            None => return OriginError::Failed(at.to_string()),
        }
    }
}
