//! What makes this site this site: its CA, its server certificate, the key that signs boot manifests, and the admin
//! token. Made at the first boot, kept among the store's secrets.
//!
//! Nodes and operators trust the CA by its digest. The server certificate is made anew when our names or addresses
//! change, and kept otherwise, so that a browser that was told to trust it is not asked again at every boot.
//! Certificates are valid from 2020 to 2049: appliances and nodes boot with clocks that are years off, and a certificate
//! that is not valid yet would lock both out. What protects is the pinned CA, not the date.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context as _, Result, ensure};
use rackbar_model::Digest;
use rackbar_store::{Store, Table};
use rackbar_trust::{Secret, SigningKey, sha256};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

/// The site's identity.
pub(super) struct Site {
    store: Store,
    ca: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    /// Signs boot manifests.
    pub(super) signer: Arc<SigningKey>,
    resolver: Arc<Resolver>,
}

/// Gives the certificate in force to every handshake.
#[derive(Debug)]
struct Resolver(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// The CA as the store keeps it.
#[derive(Serialize, Deserialize)]
struct SavedCa {
    /// The subject's name, needed to issue under it again.
    name: String,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// The server certificate as the store keeps it.
#[derive(Serialize, Deserialize)]
struct SavedLeaf {
    names: BTreeSet<String>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Site {
    /// Reads the site's identity from the store, or makes it.
    pub(super) fn open(store: Store, site: &str, addresses: &[IpAddr]) -> Result<Self> {
        let ca = match read::<SavedCa>(&store, "ca")? {
            Some(saved) => saved,
            None => make_ca(&store, site)?,
        };
        let key = KeyPair::try_from(ca.key.as_slice()).context("the site CA's key in the store cannot be read")?;
        let issuer = Issuer::new(ca_params(&ca.name), key);
        let signer = match store.get(Table::Secrets, b"signer")? {
            Some(pkcs8) => SigningKey::from_pkcs8(&pkcs8).context("the signing key in the store cannot be read")?,
            None => {
                let (signer, pkcs8) = SigningKey::generate()?;
                store.put(Table::Secrets, b"signer", &pkcs8)?;
                signer
            }
        };
        let ca = CertificateDer::from(ca.certificate);
        let leaf = leaf(&store, &issuer, &ca, &names_of(addresses))?;
        Ok(Self {
            store,
            ca,
            issuer,
            signer: Arc::new(signer),
            resolver: Arc::new(Resolver(RwLock::new(leaf))),
        })
    }

    /// SHA-256 of the CA certificate: what nodes pin and people compare.
    pub(super) fn fingerprint(&self) -> Digest {
        Digest(sha256(&self.ca))
    }

    /// Makes a new server certificate when our addresses changed; running servers use it from the next handshake on.
    pub(super) fn set_addresses(&self, addresses: &[IpAddr]) -> Result<()> {
        let leaf = leaf(&self.store, &self.issuer, &self.ca, &names_of(addresses))?;
        *self.resolver.0.write().unwrap_or_else(PoisonError::into_inner) = leaf;
        Ok(())
    }

    /// TLS of the API and the page.
    pub(super) fn api_tls(&self) -> Result<Arc<rustls::ServerConfig>> {
        let mut config = self.tls(rustls::DEFAULT_VERSIONS)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// TLS of the agents' server: both ends are ours, so 1.3 alone.
    pub(super) fn agent_tls(&self) -> Result<Arc<rustls::ServerConfig>> {
        Ok(Arc::new(self.tls(&[&rustls::version::TLS13])?))
    }

    fn tls(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> Result<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
        Ok(builder.with_no_client_auth().with_cert_resolver(self.resolver.clone()))
    }

    /// Digest of the admin token. At the first boot it is made and its text put into `folder`/admin-token, from where
    /// the console shows it until it is put away; that folder is gone with the power.
    pub(super) fn admin_token(&self, folder: &Path) -> Result<Digest> {
        if let Some(digest) = self.store.get(Table::Secrets, b"admin-token-sha256")? {
            let digest = digest
                .as_slice()
                .try_into()
                .ok()
                .context("the admin token in the store is damaged")?;
            return Ok(Digest(digest));
        }
        let token = Secret::<32>::random()?.expose_hex();
        let digest = sha256(token.as_bytes());
        write_private(&folder.join("admin-token"), token.as_bytes())?;
        self.store.put(Table::Secrets, b"admin-token-sha256", &digest)?;
        Ok(Digest(digest))
    }
}

fn read<T: for<'de> Deserialize<'de>>(store: &Store, name: &str) -> Result<Option<T>> {
    let Some(json) = store.get(Table::Secrets, name.as_bytes())? else {
        return Ok(None);
    };
    serde_json::from_slice(&json)
        .map(Some)
        .with_context(|| format!("the secret {name:?} in the store is damaged"))
}

fn make_ca(store: &Store, site: &str) -> Result<SavedCa> {
    // A part that no other site has: operators import CAs of several sites side by side.
    let unique = Digest(sha256(&rackbar_trust::random::<16>()?)).to_string();
    let name = format!("Rackbar site {site} {}", unique.get(..8).unwrap_or_default());
    let key = KeyPair::generate()?;
    let certificate = ca_params(&name).self_signed(&key)?.der().to_vec();
    let saved = SavedCa {
        name,
        certificate,
        key: key.serialize_der(),
    };
    store.put(Table::Secrets, b"ca", &serde_json::to_vec(&saved)?)?;
    Ok(saved)
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn names_of(addresses: &[IpAddr]) -> BTreeSet<String> {
    let fixed = ["rackbar", "localhost", "127.0.0.1"].map(String::from);
    fixed
        .into_iter()
        .chain(addresses.iter().map(ToString::to_string))
        .collect()
}

/// The server certificate for `names`: the one kept when it fits, else a new one.
fn leaf(
    store: &Store,
    issuer: &Issuer<'static, KeyPair>,
    ca: &CertificateDer<'static>,
    names: &BTreeSet<String>,
) -> Result<Arc<CertifiedKey>> {
    let kept = read::<SavedLeaf>(store, "server")?.filter(|kept| names.is_subset(&kept.names));
    let saved = match kept {
        Some(kept) => kept,
        None => {
            let made = make_leaf(issuer, names)?;
            store.put(Table::Secrets, b"server", &serde_json::to_vec(&made)?)?;
            made
        }
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(saved.key));
    let key = any_ecdsa_type(&key).context("the server certificate's key in the store cannot be used")?;
    let chain = vec![CertificateDer::from(saved.certificate), ca.clone()];
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

fn make_leaf(issuer: &Issuer<'static, KeyPair>, names: &BTreeSet<String>) -> Result<SavedLeaf> {
    ensure!(
        names.len() < 100,
        "this appliance has more than 100 addresses; name only those that are needed"
    );
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Rackbar appliance");
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?.der().to_vec();
    Ok(SavedLeaf {
        names: names.clone(),
        certificate,
        key: key.serialize_der(),
    })
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let draft = path.with_extension("new");
    let what = || format!("{} could not be written", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(what)?;
    }
    let open = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft);
    open.and_then(|mut file| file.write_all(content)).with_context(what)?;
    std::fs::rename(&draft, path).with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_stays_and_the_certificate_follows_the_addresses() {
        let store = Store::in_memory(rackbar_store::Options::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let one: IpAddr = [10, 0, 0, 1].into();
        let two: IpAddr = [10, 0, 0, 2].into();
        let certificate = |site: &Site| site.resolver.0.read().unwrap().cert[0].clone();
        let first = Site::open(store.clone(), "demo", &[one]).unwrap();
        let token = first.admin_token(dir.path()).unwrap();
        let text = std::fs::read(dir.path().join("admin-token")).unwrap();
        assert_eq!(Digest(sha256(&text)), token);
        let again = Site::open(store.clone(), "demo", &[one]).unwrap();
        assert_eq!(again.fingerprint(), first.fingerprint());
        assert_eq!(certificate(&again), certificate(&first));
        assert_eq!(again.admin_token(dir.path()).unwrap(), token);
        again.set_addresses(&[one, two]).unwrap();
        assert_ne!(
            certificate(&again),
            certificate(&first),
            "a new address is a new certificate"
        );
        let now = certificate(&again);
        again.set_addresses(&[two]).unwrap();
        assert_eq!(certificate(&again), now, "one address less is not");
    }
}
