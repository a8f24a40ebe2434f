//! A certificate authority and a server certificate in RSA, as firmware without elliptic curves verifies them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, SanType, date_time_ymd,
};
use rsa::pkcs8::EncodePrivateKey as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// Bits of both keys: what every firmware takes, and generated within a second.
const BITS: usize = 2048;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A key could not be made.
    #[error("an RSA key could not be made: {0}; is there entropy?")]
    Key(String),
    /// A certificate could not be made.
    #[error("a certificate for HTTPS boot could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// The authority that a person enrols in firmware, and what the server shows.
pub struct Identity {
    name: String,
    authority: Vec<u8>,
    authority_key: Zeroizing<Vec<u8>>,
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    addresses: BTreeSet<IpAddr>,
}

/// An identity as it is kept: name, authority (DER), its key (PKCS#8), certificate (DER), its key, the addresses it is for.
pub type Parts = (String, Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>, Vec<IpAddr>);

impl Identity {
    /// A new one for a server at `addresses`; `name` stands in the authority's certificate. Takes up to a second a key.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn generate(name: &str, addresses: &[IpAddr]) -> Result<Self, IdentityError> {
        let authority_key = new_key()?;
        let key = new_key()?;
        let authority = params(name).self_signed(&pair(&authority_key)?)?.der().to_vec();
        let mut identity = Self {
            name: name.to_owned(),
            authority,
            authority_key,
            certificate: Vec::new(),
            key,
            addresses: BTreeSet::new(),
        };
        identity.serve(addresses)?;
        Ok(identity)
    }

    /// Makes the server's certificate anew when it does not name all of `addresses`. True when it did.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn serve(&mut self, addresses: &[IpAddr]) -> Result<bool, IdentityError> {
        let wanted: BTreeSet<IpAddr> = addresses.iter().copied().collect();
        if wanted.is_subset(&self.addresses) && !self.certificate.is_empty() {
            return Ok(false);
        }
        let issuer = Issuer::new(params(&self.name), pair(&self.authority_key)?);
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name = named("Rackbar HTTPS boot");
        // EDK2 compares the host of its URL, an address, with these.
        leaf.subject_alt_names = wanted.iter().copied().map(SanType::IpAddress).collect();
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        (leaf.not_before, leaf.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2049, 12, 31));
        self.certificate = leaf.signed_by(&pair(&self.key)?, &issuer)?.der().to_vec();
        self.addresses = wanted;
        Ok(true)
    }

    /// The authority's certificate (DER): what firmware is to trust.
    pub fn authority(&self) -> &[u8] {
        &self.authority
    }

    /// Everything, for keeping.
    pub fn to_parts(&self) -> Parts {
        (
            self.name.clone(),
            self.authority.clone(),
            self.authority_key.to_vec(),
            self.certificate.clone(),
            self.key.to_vec(),
            self.addresses.iter().copied().collect(),
        )
    }

    /// One that was kept.
    pub fn from_parts((name, authority, authority_key, certificate, key, addresses): Parts) -> Self {
        Self {
            name,
            authority,
            authority_key: Zeroizing::new(authority_key),
            certificate,
            key: Zeroizing::new(key),
            addresses: addresses.into_iter().collect(),
        }
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone().into(), self.authority.clone().into()]
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.to_vec()).into()
    }
}

fn new_key() -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let bad = |error: &dyn std::fmt::Display| IdentityError::Key(error.to_string());
    let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, BITS).map_err(|error| bad(&error))?;
    let der = key.to_pkcs8_der().map_err(|error| bad(&error))?;
    Ok(Zeroizing::new(der.as_bytes().to_vec()))
}

fn pair(key: &[u8]) -> Result<KeyPair, rcgen::Error> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key), &PKCS_RSA_SHA256)
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Firmware's clock may stand years back until somebody sets it.
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2049, 12, 31));
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
