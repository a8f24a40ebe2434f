//! Ed25519 keys in OpenSSH's formats: a host's pair, made before the host exists, and the appliance's own.

use std::fmt;
use std::sync::Arc;

use rackbar_model::SecretText;
use rackbar_trust::Secret;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};

use crate::SshError;

fn generate(comment: &str) -> Result<PrivateKey, SshError> {
    let seed = Secret::<32>::random().map_err(SshError::NoRandomness)?;
    PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(seed.expose())), comment).map_err(bad("a new key"))
}

fn bad(what: &'static str) -> impl Fn(russh::keys::ssh_key::Error) -> SshError {
    move |error| SshError::BadKey {
        what,
        reason: error.to_string(),
    }
}

fn private_text(key: &PrivateKey) -> Result<SecretText, SshError> {
    let text = key.to_openssh(LineEnding::LF).map_err(bad("a private key"))?;
    Ok(SecretText(text.as_str().to_owned()))
}

/// Reads a public key line, `ssh-ed25519 AAAA... comment`.
pub(crate) fn public(line: &str) -> Result<PublicKey, SshError> {
    let key = PublicKey::from_openssh(line.trim()).map_err(bad("the host key"))?;
    match key.algorithm() {
        Algorithm::Ed25519 => Ok(key),
        other => Err(SshError::BadKey {
            what: "the host key",
            reason: format!("it is of the kind {other}"),
        }),
    }
}

/// The line of a public key, without its comment.
pub(crate) fn line(key: &PublicKey) -> Result<String, SshError> {
    let mut key = key.clone();
    key.set_comment("");
    let text = key.to_openssh().map_err(bad("the host key"))?;
    Ok(text.trim_end().to_owned())
}

/// The fingerprint of a public key line as `ssh-keygen -l` writes it: `SHA256:` and base64.
///
/// # Errors
/// [`SshError::BadKey`] when the line is no Ed25519 public key.
pub fn fingerprint(public_line: &str) -> Result<String, SshError> {
    Ok(public(public_line)?.fingerprint(HashAlg::Sha256).to_string())
}

/// The line of a `known_hosts` file (sshd(8)) for a host at `address` and `port`.
///
/// # Errors
/// [`SshError::BadKey`] when the line is no Ed25519 public key.
pub fn known_hosts_line(address: std::net::IpAddr, port: u16, public_line: &str) -> Result<String, SshError> {
    let key = line(&public(public_line)?)?;
    Ok(match port {
        22 => format!("{address} {key}"),
        _ => format!("[{address}]:{port} {key}"),
    })
}

/// A host's key pair. Made by the appliance and laid into the installed system.
#[derive(Clone, Debug)]
pub struct HostKeyPair {
    /// In OpenSSH's private key format (PROTOCOL.key), without passphrase.
    pub private: SecretText,
    /// `ssh-ed25519 AAAA... comment`, without line end.
    pub public: String,
}

impl HostKeyPair {
    /// A new random pair.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate(comment: &str) -> Result<Self, SshError> {
        let key = generate(comment)?;
        Ok(Self {
            private: private_text(&key)?,
            public: key.public_key().to_openssh().map_err(bad("a public key"))?,
        })
    }
}

/// The key the appliance logs in with. `Debug` shows the fingerprint only.
#[derive(Clone)]
pub struct ClientKey(Arc<PrivateKey>);

impl ClientKey {
    /// The comment of the appliance's key: how an operator finds its line in `authorized_keys`.
    pub const COMMENT: &str = "rackbar-appliance";

    /// A new random key.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Self, SshError> {
        Ok(Self(Arc::new(generate(Self::COMMENT)?)))
    }

    /// Reads what [`to_openssh`](Self::to_openssh) or `ssh-keygen -t ed25519 -N ''` wrote.
    ///
    /// # Errors
    /// [`SshError::BadKey`] when it is something else, of another kind, or has a passphrase.
    pub fn from_openssh(text: &SecretText) -> Result<Self, SshError> {
        let what = "the appliance's SSH key";
        let key = PrivateKey::from_openssh(&text.0).map_err(bad(what))?;
        let refuse = |reason: String| Err(SshError::BadKey { what, reason });
        if key.is_encrypted() {
            return refuse("it has a passphrase".into());
        }
        match key.algorithm() {
            Algorithm::Ed25519 => Ok(Self(Arc::new(key))),
            other => refuse(format!("it is of the kind {other}")),
        }
    }

    /// The key in OpenSSH's private key format, to be stored among the secrets.
    ///
    /// # Errors
    /// None that is known: the writer's own type has one.
    pub fn to_openssh(&self) -> Result<SecretText, SshError> {
        private_text(&self.0)
    }

    /// The line for `authorized_keys`, without line end.
    ///
    /// # Errors
    /// None that is known: the writer's own type has one.
    pub fn public_openssh(&self) -> Result<String, SshError> {
        self.0.public_key().to_openssh().map_err(bad("a public key"))
    }

    pub(crate) fn key(&self) -> Arc<PrivateKey> {
        self.0.clone()
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKey({})", self.0.fingerprint(HashAlg::Sha256))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_survive_their_text_form_and_do_not_show_in_debug() {
        let key = ClientKey::generate().unwrap();
        let text = key.to_openssh().unwrap();
        let again = ClientKey::from_openssh(&text).unwrap();
        assert_eq!(again.public_openssh().unwrap(), key.public_openssh().unwrap());
        assert!(key.public_openssh().unwrap().ends_with(" rackbar-appliance"));
        assert!(!format!("{key:?} {text:?}").contains("PRIVATE"));

        let host = HostKeyPair::generate("node-1").unwrap();
        let other = HostKeyPair::generate("node-1").unwrap();
        assert_ne!(host.public, other.public);
        assert!(!format!("{host:?}").contains("PRIVATE"));
        assert!(fingerprint(&host.public).unwrap().starts_with("SHA256:"));
    }

    #[test]
    fn a_known_hosts_line_is_as_sshd_describes_it() {
        let host = HostKeyPair::generate("node-1").unwrap();
        let bare = host.public.strip_suffix(" node-1").unwrap();
        let line = |port| known_hosts_line([10, 0, 0, 7].into(), port, &host.public).unwrap();
        assert_eq!(line(22), format!("10.0.0.7 {bare}"));
        assert_eq!(line(2222), format!("[10.0.0.7]:2222 {bare}"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_no_key_and_no_panic(text in "\\PC*") {
            prop_assert!(ClientKey::from_openssh(&SecretText(text.clone())).is_err());
            prop_assert!(public(&text).is_err());
        }
    }
}
