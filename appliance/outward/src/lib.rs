//! The HTTP client by which the appliance speaks to programs of others that the configuration names: receivers of
//! webhooks, registries of services. It follows no redirect, and trusts the public authorities or those it is given.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;

/// A client over HTTP/1.1, with or without TLS as the URL says.
pub type Client = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that trusts these authorities (DER), or the public ones when there are none. One connection is kept to a
/// server, for 30 seconds.
pub fn client(roots: &[Vec<u8>]) -> Client {
    let mut trusted = rustls::RootCertStore::empty();
    if roots.is_empty() {
        trusted.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    trusted.add_parsable_certificates(roots.iter().map(|der| CertificateDer::from(der.clone())));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // ring has both versions of TLS, so that there is always one in common.
    #[expect(clippy::expect_used, reason = "only a provider without any cipher suite fails here")]
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites")
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build();
    hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(1)
        .pool_timer(TokioTimer::new())
        .build(connector)
}

/// The cause at the bottom of an error: the layers above only say that a connection failed.
pub fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut at = error;
    while let Some(next) = at.source() {
        at = next;
    }
    at.to_string()
}
