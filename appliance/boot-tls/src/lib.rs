//! TLS for firmware: what UEFI HTTP Boot needs of a server, and nobody else should use.
//!
//! EDK2 before 2022-11, and most server firmware made from it, was built without elliptic curves: it offers TLS 1.2 with
//! DHE or RSA key exchange and verifies RSA signatures alone (seen of OVMF 2022.11: suites 009f 009e 006b 0067 0039 0033
//! 009d 009c 003d 003c 0035 002f, no `supported_groups`). rustls has neither finite-field groups nor suites of its own
//! for that, but takes them from outside: [`provider`] adds DHE with AES-GCM over the 2048-bit group of RFC 7919, and
//! [`Identity`] is a certificate authority and a server certificate in RSA.
//!
//! Nothing secret travels here: a loader that is checked again by signature. The API keeps its own, modern TLS.

mod ffdhe;
mod identity;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, KeyExchangeAlgorithm, ring as base};
use rustls::{CipherSuite, CipherSuiteCommon, SupportedCipherSuite, Tls12CipherSuite};

pub use identity::{Identity, IdentityError};

static DHE_AES_256: LazyLock<Option<Tls12CipherSuite>> = LazyLock::new(|| {
    let like = base::cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384;
    dhe(like, CipherSuite::TLS_DHE_RSA_WITH_AES_256_GCM_SHA384)
});
static DHE_AES_128: LazyLock<Option<Tls12CipherSuite>> = LazyLock::new(|| {
    let like = base::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
    dhe(like, CipherSuite::TLS_DHE_RSA_WITH_AES_128_GCM_SHA256)
});

/// The suite that differs from `like` in its key exchange alone (RFC 5288 section 3).
fn dhe(like: SupportedCipherSuite, suite: CipherSuite) -> Option<Tls12CipherSuite> {
    let SupportedCipherSuite::Tls12(like) = like else {
        return None;
    };
    Some(Tls12CipherSuite {
        common: CipherSuiteCommon {
            suite,
            hash_provider: like.common.hash_provider,
            confidentiality_limit: like.common.confidentiality_limit,
        },
        prf_provider: like.prf_provider,
        kx: KeyExchangeAlgorithm::DHE,
        sign: like.sign,
        aead_alg: like.aead_alg,
    })
}

/// ring's algorithms, and after them DHE over `ffdhe2048` (RFC 7919) with AES-GCM for firmware without elliptic curves.
pub fn provider() -> CryptoProvider {
    let mut provider = base::default_provider();
    let more = [&DHE_AES_256, &DHE_AES_128];
    let more = more.into_iter().filter_map(|suite| LazyLock::force(suite).as_ref());
    provider.cipher_suites.extend(more.map(SupportedCipherSuite::Tls12));
    provider.kx_groups.push(&ffdhe::FFDHE2048);
    provider
}

/// The configuration of a server for firmware: TLS 1.2 and 1.3 with this identity, without tickets.
///
/// # Errors
/// When the identity's key and certificate do not fit each other.
pub fn server_config(identity: &Identity) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(provider()));
    let config = builder
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(identity.chain(), identity.key())?;
    Ok(Arc::new(config))
}
