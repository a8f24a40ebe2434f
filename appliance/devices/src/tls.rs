//! TLS towards BMCs. Their certificates are self-signed and often expired or made for another name, so chains prove
//! nothing; what counts is that the certificate is the same as the first time.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::Fingerprint;

/// What is known of a BMC's certificate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// The one it must be.
    pub(crate) pinned: Option<Fingerprint>,
    /// The one shown last.
    pub(crate) seen: Option<Fingerprint>,
}

/// Pins the first certificate whose owner proves that he has its key, and then takes no other. A certificate alone is
/// public: whoever stands in the way could show any, and have it pinned.
#[derive(Debug)]
pub(crate) struct Pin {
    known: Mutex<Known>,
    provider: Arc<CryptoProvider>,
}

impl Pin {
    pub(crate) fn new(pinned: Option<Fingerprint>) -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Arc::new(Self {
            known: Mutex::new(Known { pinned, seen: None }),
            provider,
        })
    }

    pub(crate) fn known(&self) -> Known {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration of connections guarded by this pin. TLS 1.2 is allowed: many BMCs know nothing newer.
    pub(crate) fn config(self: &Arc<Self>) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(self) as Arc<dyn ServerCertVerifier>;
        Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth())
    }
}

impl Pin {
    /// The key of this certificate signed this handshake.
    fn proven(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let shown = Fingerprint::of(certificate);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if *known.pinned.get_or_insert(shown) == shown {
            Ok(())
        } else {
            Err(another())
        }
    }
}

const fn another() -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Fingerprint::of(end_entity);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.seen = Some(shown);
        if known.pinned.is_none_or(|pinned| pinned == shown) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(another())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let valid = verify_tls12_signature(message, certificate, signature, algorithms)?;
        self.proven(certificate).map(|()| valid)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let valid = verify_tls13_signature(message, certificate, signature, algorithms)?;
        self.proven(certificate).map(|()| valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may unwrap")]

    use rustls::crypto::ring::sign::any_supported_type;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use rustls::{ServerConfig, SupportedProtocolVersion};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// A server that shows one certificate and signs with a key.
    #[derive(Debug)]
    struct Shows(Arc<CertifiedKey>);

    impl ResolvesServerCert for Shows {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }

    type Made = rcgen::CertifiedKey<rcgen::KeyPair>;

    fn made() -> Made {
        rcgen::generate_simple_self_signed(vec!["bmc".to_owned()]).unwrap()
    }

    /// A handshake with who shows the certificate of one and has the key of another.
    async fn shake(pin: &Arc<Pin>, version: &'static SupportedProtocolVersion, certificate: &Made, key: &Made) -> bool {
        let key = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let key = any_supported_type(&key).unwrap();
        let shown = CertifiedKey::new(vec![certificate.cert.der().clone()], key);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shows(Arc::new(shown))));
        let (here, there) = tokio::io::duplex(1 << 16);
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let served = tokio::spawn(async move { acceptor.accept(there).await.is_ok() });
        let name = ServerName::try_from("bmc").unwrap();
        let config = Arc::new(pin.config().unwrap());
        let opened = TlsConnector::from(config).connect(name, here).await.is_ok();
        served.abort();
        opened
    }

    #[tokio::test]
    async fn a_certificate_is_pinned_only_from_who_has_its_key() {
        let (bmc, stranger) = (made(), made());
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let pin = Pin::new(None);
            assert!(!shake(&pin, version, &stranger, &bmc).await);
            assert_eq!(pin.known().pinned, None, "its key was not shown");
            assert!(shake(&pin, version, &bmc, &bmc).await);
            assert_eq!(pin.known().pinned, Some(Fingerprint::of(bmc.cert.der())));
            assert!(
                !shake(&pin, version, &stranger, &stranger).await,
                "another than the first"
            );
            assert!(shake(&pin, version, &bmc, &bmc).await);
        }
    }
}
