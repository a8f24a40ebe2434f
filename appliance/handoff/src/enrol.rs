//! One-time secrets by which an installed system enrols itself at its tool, each for one machine and one tool.
//!
//! ```text
//!   made ──laid into the installed system──▶ placed ──shown once, by the machine it is for──▶ used
//!     └──────────── time over, or taken back by an operator: refused from then on ────────────┘
//! ```
//! A token (Puppet) is checked by us and is bound, at its first use, to the key of the request that showed it: the same
//! request again gets the same answer, since a Puppet server that lost it asks again, and any other is refused. A key
//! (Salt, Chef) is checked by its tool: its public half is handed there before the machine has the private one, and the
//! private half is forgotten here once it is laid into the system.

use rackbar_model::{Digest, NodeId, SecretText, Timestamp};
use rackbar_plan::site::Enrol;
use rackbar_trust::{Secret, constant_time_eq, sha256};
use rsa::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding};
use serde::{Deserialize, Serialize};

use crate::csr::Request;

/// Bits of keys for Salt and Chef: what both make themselves.
const BITS: usize = 2048;

/// A secret and its story. JSON among the sealed secrets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Enrolment {
    /// The machine.
    pub node: NodeId,
    /// The tool: `puppet`, `salt`, `chef`.
    pub tool: String,
    /// The name it may enrol under.
    pub name: String,
    /// The run it was made for; `None` when an operator asked for it.
    pub run: Option<u64>,
    /// When it was made.
    pub made: Timestamp,
    /// From when on it is refused.
    pub expires: Timestamp,
    /// When it was laid into the installed system.
    pub placed: Option<Timestamp>,
    /// When it was first used.
    pub used: Option<Timestamp>,
    /// When an operator took it back.
    pub revoked: Option<Timestamp>,
    /// The secret itself.
    pub secret: Kind,
}

/// The secret itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A token that we check.
    Token {
        /// Its text, until it was used.
        text: Option<SecretText>,
        /// SHA-256 of its text.
        sha256: Digest,
        /// SHA-256 of the public key of the request it was used for.
        used_for: Option<Digest>,
    },
    /// A pair of RSA keys, in PEM.
    Pair {
        /// PKCS #8, until it was laid into the system.
        private: Option<SecretText>,
        /// SubjectPublicKeyInfo.
        public: String,
    },
}

/// Why a secret could not be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a secret to enrol with could not be made: {0}")]
pub struct NoSecret(String);

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The request has no token.
    #[error("the request carries no token (challengePassword in csr_attributes.yaml)")]
    NoToken,
    /// It is another token.
    #[error("the token is not the one this machine was given")]
    Wrong,
    /// The names differ.
    #[error("the request is for another name than the one the token was made for")]
    OtherName,
    /// It is too late.
    #[error("the token's time is over; make another with `rackbar handoff enrol`, or sign by hand")]
    Expired,
    /// Somebody took it back.
    #[error("the token was taken back")]
    Revoked,
    /// It was used for another key.
    #[error("the token was used already, for another key: somebody has a copy of it, or the machine lost its key")]
    Used,
}

/// A new token.
///
/// # Errors
/// When the system gives no random numbers.
pub fn token() -> Result<Kind, NoSecret> {
    let secret = Secret::<32>::random().map_err(|error| NoSecret(error.to_string()))?;
    let text = secret.expose_hex().to_string();
    Ok(Kind::Token {
        sha256: Digest(sha256(text.as_bytes())),
        text: Some(SecretText(text)),
        used_for: None,
    })
}

/// A new pair of keys. Takes up to a second.
///
/// # Errors
/// When the system gives no random numbers.
pub fn pair() -> Result<Kind, NoSecret> {
    let bad = |error: &dyn std::fmt::Display| NoSecret(error.to_string());
    let mut random = rsa::rand_core::OsRng;
    let private = rsa::RsaPrivateKey::new(&mut random, BITS).map_err(|error| bad(&error))?;
    let public = private
        .to_public_key()
        .to_public_key_pem(LineEnding::LF)
        .map_err(|error| bad(&error))?;
    let private = private.to_pkcs8_pem(LineEnding::LF).map_err(|error| bad(&error))?;
    Ok(Kind::Pair {
        private: Some(SecretText(private.to_string())),
        public,
    })
}

impl Enrolment {
    /// Whether `request` for `certname` may be signed now. The first good one uses the token up: what comes back changed
    /// must be recorded before the answer is given.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn sign(&mut self, certname: &str, request: &Request, now: Timestamp) -> Result<(), Refusal> {
        let Kind::Token {
            text,
            sha256: wanted,
            used_for,
        } = &mut self.secret
        else {
            return Err(Refusal::Wrong);
        };
        let shown = request.challenge.as_ref().ok_or(Refusal::NoToken)?;
        // The digest of it: a comparison that stops early tells nothing of the token.
        if !constant_time_eq(&sha256(shown.as_bytes()), &wanted.0) {
            return Err(Refusal::Wrong);
        }
        let other = request.node.as_ref().is_some_and(|node| *node != self.node.to_string());
        if other || request.common_name != certname || !certname.eq_ignore_ascii_case(&self.name) {
            return Err(Refusal::OtherName);
        }
        if self.revoked.is_some() {
            return Err(Refusal::Revoked);
        }
        if now >= self.expires {
            return Err(Refusal::Expired);
        }
        let key = Digest(request.key_sha256);
        match used_for {
            Some(other) if *other != key => return Err(Refusal::Used),
            Some(_) => {}
            None => {
                *used_for = Some(key);
                *text = None;
                self.used = Some(now);
            }
        }
        Ok(())
    }

    /// What became of it, in one word.
    pub fn state(&self, now: Timestamp) -> &'static str {
        match self {
            _ if self.revoked.is_some() => "revoked",
            _ if self.used.is_some() => "used",
            _ if matches!(self.secret, Kind::Pair { .. }) && self.placed.is_some() => "placed",
            _ if now >= self.expires => "expired",
            _ if self.placed.is_some() => "placed",
            _ => "made",
        }
    }

    /// A new secret for `tool`, by which `node` enrols under `name` until it `expires`.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new(tool: Enrol, node: NodeId, name: &str, made: Timestamp, expires: Timestamp) -> Result<Self, NoSecret> {
        let secret = match tool {
            Enrol::Puppet => token(),
            Enrol::Salt | Enrol::Chef => pair(),
        }?;
        Ok(Self {
            node,
            tool: tool.name().into(),
            name: name.to_owned(),
            run: None,
            made,
            expires,
            placed: None,
            used: None,
            revoked: None,
            secret,
        })
    }

    /// Takes it back: it is refused from now on, and its private part is forgotten.
    pub fn take_back(&mut self, now: Timestamp) {
        self.revoked.get_or_insert(now);
        self.forget_private();
        if let Kind::Token { text, .. } = &mut self.secret {
            *text = None;
        }
    }

    /// Whether it is the very one to give to `name` again: nobody used it or took it back, its time is not over, and all of
    /// it is still here.
    pub fn stands(&self, name: &str, now: Timestamp) -> bool {
        let whole = match &self.secret {
            Kind::Token { text, .. } => text.is_some(),
            Kind::Pair { private, .. } => private.is_some(),
        };
        whole && self.name == name && self.used.is_none() && self.revoked.is_none() && now < self.expires
    }

    /// Its private key was laid into the system: nobody needs it here any more.
    pub fn forget_private(&mut self) {
        if let Kind::Pair { private, .. } = &mut self.secret {
            *private = None;
        }
    }
}
