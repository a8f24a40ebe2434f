//! An origin that speaks TLS, HTTP/1.1 and 2, with a certificate by an authority of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What was asked, and by which version of HTTP.
pub type Asked = (String, Version, HeaderMap);

pub struct TlsOrigin {
    pub address: SocketAddr,
    /// The authority's certificate, in PEM form.
    pub authority: String,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    _threads: tokio::runtime::Runtime,
}

impl TlsOrigin {
    /// Gives everybody `body` by one of these protocols (RFC 7301), for `names` alone.
    pub fn start(names: &[&str], protocols: &[&str], body: &[u8]) -> Self {
        let (authority, config) = certified(names, protocols);
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = threads.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (acceptor, seen, body) = (
            TlsAcceptor::from(Arc::new(config)),
            asked.clone(),
            Bytes::copy_from_slice(body),
        );
        threads.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen, body) = (acceptor.clone(), seen.clone(), body.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let path = request.uri().path().to_owned();
                        let leads = path.ends_with("/leads");
                        seen.lock()
                            .unwrap()
                            .push((path, request.version(), request.headers().clone()));
                        let answer = match leads {
                            true => Response::builder()
                                .status(302)
                                .header("location", "http://localhost:8080/elsewhere"),
                            false => Response::builder().header("cache-control", "max-age=600"),
                        };
                        let answer = answer.body(Full::new(body.clone())).unwrap();
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self {
            address,
            authority,
            asked,
            _threads: threads,
        }
    }

    pub fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.address.port())
    }
}

fn certified(names: &[&str], protocols: &[&str]) -> (String, rustls::ServerConfig) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let own = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = rcgen::CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &own)
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let chain = vec![CertificateDer::from(leaf.der().to_vec())];
    let mut config = config.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    (own.pem(), config)
}
