//! The HTTP client by which the appliance speaks to programs of others that the configuration names: receivers of
//! webhooks, registries of services. It follows no redirect, and trusts the public authorities or those it is given.
//!
//! [`Parent`] and [`Way`] lead it, and the caching proxy, through a proxy of others where the site wants that.

mod parent;
mod way;

use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;

pub use parent::{BadParent, Direct, Parent, ParentError};
pub use way::{Line, Way, status};

/// A client over HTTP/1.1, with or without TLS as the URL says.
pub struct Client {
    client: hyper_util::client::legacy::Client<HttpsConnector<Connector>, Full<Bytes>>,
    way: Option<Way>,
}

/// Opens connections: through the parent where that leads, else straight.
#[derive(Clone)]
struct Connector {
    straight: HttpConnector,
    way: Option<Way>,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Line>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.straight.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default();
        if let Some(way) = self.way.clone().filter(|way| way.parent().leads(host)) {
            return Box::pin(async move { Ok(TokioIo::new(way.line(&uri).await?)) });
        }
        let opening = self.straight.call(uri);
        Box::pin(async move { Ok(TokioIo::new(Line::from(opening.await?.into_inner()))) })
    }
}

/// A client that trusts these authorities (DER), or the public ones when there are none. One connection is kept to a
/// server, for 30 seconds.
pub fn client(roots: &[Vec<u8>], parent: Option<Parent>) -> Client {
    let way = parent.map(Way::new);
    let mut straight = HttpConnector::new();
    straight.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls(roots.is_empty(), roots))
        .https_or_http()
        .enable_http1()
        .wrap_connector(Connector {
            straight,
            way: way.clone(),
        });
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(1)
        .pool_timer(TokioTimer::new())
        .build(connector);
    Client { client, way }
}

impl Client {
    /// Sends a request with an absolute URI.
    ///
    /// # Errors
    /// Why there is no answer, in words; what the parent proxy answers in the server's stead is none.
    pub async fn request(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        let uri = request.uri().clone();
        let parent = self.way.as_ref().map(Way::parent);
        if let Some(login) = parent.and_then(|parent| parent.login_for(&uri)) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, login.clone());
        }
        let answer = self.client.request(request).await.map_err(|error| deepest(&error))?;
        let refused = parent.and_then(|parent| parent.refusal(&uri, answer.status().as_u16(), answer.headers()));
        refused.map_or(Ok(answer), |refused| Err(refused.to_string()))
    }
}

/// TLS that trusts these authorities (DER), and the `public` ones.
pub fn tls(public: bool, roots: &[Vec<u8>]) -> rustls::ClientConfig {
    let mut trusted = rustls::RootCertStore::empty();
    if public {
        trusted.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    trusted.add_parsable_certificates(roots.iter().map(|der| CertificateDer::from(der.clone())));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // ring has both versions of TLS, so that there is always one in common.
    #[expect(clippy::expect_used, reason = "only a provider without any cipher suite fails here")]
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites")
        .with_root_certificates(trusted)
        .with_no_client_auth()
}

/// The cause at the bottom of an error: the layers above only say that a connection failed.
fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut at = error;
    while let Some(next) = at.source() {
        at = next;
    }
    at.to_string()
}
