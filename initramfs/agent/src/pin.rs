//! Trust in one appliance: its chain must end in the certificate authority that the kernel arguments pin.
//!
//! The server sends its authority's certificate along. Names are not compared: a node reaches its appliance by an
//! address that changes with the network, and no other authority is trusted anyway. The end of a certificate's time
//! counts only once the appliance has set this machine's clock: a server that lay in a warehouse believes it is 2015,
//! and refusing would lock it out for good. What that gives up is small: an expired certificate of the very same site
//! is accepted for one first connection. Its beginning never counts: a certificate that the site's authority has signed
//! exists, so when it is of the future it is our clock that is wrong, as after an appliance set a wrong clock of its own
//! right and renewed its certificate; a machine in the middle of a job must come back to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring as provider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// The verifier.
#[derive(Debug)]
pub struct Pinned {
    pin: [u8; 32],
    clock_set: AtomicBool,
    algorithms: WebPkiSupportedAlgorithms,
}

/// TLS 1.3 only, trusting the authority with this SHA-256. The verifier comes along, to be told of the clock.
pub fn client_config(pin: [u8; 32]) -> (Arc<ClientConfig>, Arc<Pinned>) {
    let crypto = Arc::new(provider::default_provider());
    let pinned = Arc::new(Pinned::new(pin, &crypto));
    let mut config = ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap_or_else(|_| unreachable!("the ring provider has cipher suites of TLS 1.3"))
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&pinned) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    // Every connection proves itself anew; a resumed one would skip the verifier.
    config.resumption = Resumption::disabled();
    (Arc::new(config), pinned)
}

impl Pinned {
    /// A verifier that does not know the time yet.
    pub fn new(pin: [u8; 32], crypto: &CryptoProvider) -> Self {
        let algorithms = crypto.signature_verification_algorithms;
        Self {
            pin,
            clock_set: AtomicBool::new(false),
            algorithms,
        }
    }

    /// Dates count from now on.
    pub fn trust_clock(&self) {
        self.clock_set.store(true, Ordering::Relaxed);
    }

    fn check(&self, leaf: &CertificateDer<'_>, sent: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let authority = sent
            .iter()
            .find(|certificate| digest(&SHA256, certificate).as_ref() == self.pin);
        let authority = authority.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let leaf = ParsedCertificate::try_from(leaf)?;
        let mut at = now;
        // The leaf's own dates and the intermediate's may each complain once.
        for _ in 0..4 {
            let result = verify_server_cert_signed_by_trust_anchor(&leaf, &roots, sent, at, self.algorithms.all);
            match result {
                Err(Error::InvalidCertificate(error)) => {
                    let clock_set = self.clock_set.load(Ordering::Relaxed);
                    at = inside(&error, clock_set).ok_or(Error::InvalidCertificate(error))?;
                }
                other => return other,
            }
        }
        Err(Error::InvalidCertificate(CertificateError::Expired))
    }
}

/// A moment at which the certificate that was refused for its dates is good, when that is to be forgiven.
fn inside(error: &CertificateError, clock_set: bool) -> Option<UnixTime> {
    match error {
        CertificateError::ExpiredContext { not_after, .. } if !clock_set => Some(*not_after),
        CertificateError::NotValidYetContext { not_before, .. } => Some(*not_before),
        _ => None,
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(leaf, sent, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
