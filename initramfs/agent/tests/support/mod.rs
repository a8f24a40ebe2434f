//! An appliance for tests: a site authority, a TLS server, and the agent protocol, one connection at a time.

// A test's scaffolding; the example shares it, where the lint does not know that.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use rackbar_messages::{FrameError, FromAgent, ToAgent, encode, read_frame};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A site: the digest of its authority, and a server configuration with a leaf of it.
pub struct Site {
    pub pin: [u8; 32],
    pub authority: CertificateDer<'static>,
    pub config: Arc<ServerConfig>,
}

/// Makes a site whose leaf is good in the years given.
pub fn site(from: i32, to: i32) -> Site {
    site_showing(from, to, None)
}

/// The same, but its server shows `other` in place of its own authority.
pub fn site_showing(from: i32, to: i32, other: Option<CertificateDer<'static>>) -> Site {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let mut leaf = CertificateParams::new(vec!["rackbar".to_owned()]).unwrap();
    leaf.not_before = date_time_ymd(from, 1, 1);
    leaf.not_after = date_time_ymd(to, 1, 1);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(params, key)).unwrap();
    let pin = ring::digest::digest(&ring::digest::SHA256, authority.der())
        .as_ref()
        .try_into()
        .unwrap();
    let authority = authority.der().clone();
    let chain = vec![leaf.der().clone(), other.unwrap_or_else(|| authority.clone())];
    let key = PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Site {
        pin,
        authority,
        config: Arc::new(config),
    }
}

/// The appliance's end of one connection.
pub struct Peer(StreamOwned<ServerConnection, TcpStream>);

impl Peer {
    /// Waits for the next agent.
    pub fn accept(listener: &TcpListener, site: &Site) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(60)))
            .unwrap();
        Self(StreamOwned::new(
            ServerConnection::new(Arc::clone(&site.config)).unwrap(),
            stream,
        ))
    }

    pub fn send(&mut self, message: &ToAgent) {
        io::Write::write_all(&mut self.0, &encode(message)).unwrap();
        io::Write::flush(&mut self.0).unwrap();
    }

    /// The next message, or why there is none.
    pub fn read(&mut self) -> Result<FromAgent, String> {
        let mut reader = Reader(&mut self.0);
        read_frame(&mut reader).map_err(|error: FrameError<_>| error.to_string())
    }
}

/// `std::io` as `embedded_io`.
struct Reader<'a>(&'a mut StreamOwned<ServerConnection, TcpStream>);

impl embedded_io::ErrorType for Reader<'_> {
    type Error = embedded_io::ErrorKind;
}

impl embedded_io::Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        io::Read::read(self.0, buffer).map_err(|error| error.kind().into())
    }
}
