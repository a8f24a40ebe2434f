//! A server on loopback with an empty rack, and a client that pins its certificate.

#![allow(clippy::unwrap_used, reason = "a helper of tests: a panic is the failure")]
#![allow(dead_code, reason = "each test program uses its part")]

use std::sync::Arc;

use rackbar_control::client::{Client, Endpoint};
use rackbar_control::{About, Access, Context, Handle, Limits, Listeners, Role, Token, serve};
use rackbar_model::Digest;
use rackbar_orchestrator::{Options, Rack};
use rackbar_store::Store;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) const TOKEN: &str = "an admin token of the tests";

pub(crate) struct Server {
    pub(crate) rack: Rack,
    pub(crate) access: Arc<Access>,
    pub(crate) handle: Handle,
    pub(crate) pin: Digest,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    Digest(out)
}

/// A site CA, a server certificate it signed for `rackbar` and 127.0.0.1, and the CA in PEM.
pub(crate) fn tls() -> (Arc<rustls::ServerConfig>, Digest, String) {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // With one name for both OpenSSL takes the server's certificate for a self-signed one.
    ca.distinguished_name.push(DnType::CommonName, "site CA of a test");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["rackbar".into(), "127.0.0.1".into()])
        .unwrap()
        .signed_by(&key, &ca)
        .unwrap();
    let ca_der: CertificateDer<'static> = ca.der().clone();
    let pin = sha256(&ca_der);
    let pem = ca.pem();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone(), ca_der], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (Arc::new(config), pin, pem)
}

pub(crate) async fn start() -> Server {
    start_within(Limits::default()).await
}

pub(crate) async fn start_within(limits: Limits) -> Server {
    let rack = Rack::start(Store::in_memory(Default::default()).unwrap(), Options::default()).unwrap();
    let about = About {
        site: "test".into(),
        version: "0.0.0".into(),
        fingerprint: "00".repeat(32),
        volatile: true,
    };
    let access = Arc::new(Access::new(vec![Token {
        name: "admin".into(),
        sha256: sha256(TOKEN.as_bytes()),
        role: Role::Admin,
    }]));
    let context = Context {
        rack: rack.clone(),
        about: Arc::new(about),
        operations: Arc::new(()),
        access: access.clone(),
        counters: Arc::new(|| "rackbar_test_total 7\n".to_owned()),
    };
    let folder = tempfile::tempdir().unwrap();
    let (tls, pin, authority) = tls();
    std::fs::write(folder.path().join("ca.pem"), authority).unwrap();
    let listeners = Listeners {
        https: vec!["127.0.0.1:0".parse().unwrap()],
        tls,
        socket: Some(folder.path().join("api.sock")),
        limits,
    };
    let handle = serve(context, listeners).await.unwrap();
    Server {
        rack,
        access,
        handle,
        pin,
        folder,
    }
}

impl Server {
    pub(crate) fn client_with(&self, pin: Digest, token: &str) -> Client {
        let authority = self.handle.addresses()[0].to_string();
        Client::new(Endpoint::Https {
            authority,
            pin,
            token: token.to_owned(),
        })
        .unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        self.client_with(self.pin, TOKEN)
    }

    pub(crate) fn local(&self) -> Client {
        Client::new(Endpoint::Socket(self.folder.path().join("api.sock"))).unwrap()
    }

    /// What curl gets for these arguments and this path, over TLS with the site's CA.
    pub(crate) async fn curl(&self, token: &str, arguments: &[&str], path: &str) -> Got {
        let mut curl = tokio::process::Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "20",
            "--include",
        ]);
        curl.arg("--cacert").arg(self.folder.path().join("ca.pem"));
        // An `Expect: 100-continue` would put a second head in front of the answer.
        curl.args(["--header", "Expect:"]);
        if !token.is_empty() {
            curl.args(["--header", &format!("Authorization: Bearer {token}")]);
        }
        curl.args(arguments)
            .arg(format!("https://{}{path}", self.handle.addresses()[0]));
        let output = curl.output().await.expect("curl is installed by cargo xtask setup");
        let text = String::from_utf8(output.stdout).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| {
            panic!(
                "curl {arguments:?} {path}: {text:?} {}",
                String::from_utf8_lossy(&output.stderr)
            )
        });
        let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
        Got {
            status: first.split(' ').nth(1).unwrap().parse().unwrap(),
            headers: headers.to_lowercase(),
            body: body.to_owned(),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    headers: String,
    pub(crate) body: String,
}

impl Got {
    /// The value of a header, in small letters; empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let line = self.headers.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.strip_prefix(':')).unwrap_or_default().trim()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
