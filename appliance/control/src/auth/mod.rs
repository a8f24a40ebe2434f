//! Who may do what: bearer tokens (RFC 6750 section 2.1) for programs, sessions for the page, and a role for each.
//!
//! The admin token comes from the configuration or the first boot; further ones are made with `rackbar token create`
//! and lie in the store. Tokens are 256 random bits, kept only as SHA-256, so neither the store nor a core dump gives one away. A session
//! cookie is `HttpOnly`, `Secure`, `SameSite=Strict`; forms of the page carry a value derived from it besides, so that a
//! page of another origin cannot act in its name.
//!
//! A session is of one token's text, not of its name: whoever has another text is somebody else. What lasts longer than a
//! moment (a stream of events, a console) asks [`Access::end_of`] when it has to end.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use rackbar_model::{Digest, Timestamp};
use rackbar_store::{Store, StoreError, Table};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

/// Name of the page's session cookie. The prefix makes browsers insist on `Secure` and on this very host (RFC 6265bis).
const COOKIE: &str = "__Host-rackbar";
/// A shift in the data hall; after that, log in again.
const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
/// More people than ever look at one rack; the oldest session goes first.
const MAX_SESSIONS: usize = 256;
/// How often it is looked whether a session's time is over while something lasts that it allowed.
const RECHECK: Duration = Duration::from_secs(15);

/// What the holder of a token may do; each role may what the ones before it may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look at everything, change nothing.
    Viewer,
    /// Change the rack: site, plans, runs, power, images.
    Operator,
    /// Manage tokens, take the whole state out and put it in.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

/// A token: its name, for the record of who did what, the SHA-256 of its text, and what it allows.
#[derive(Clone, Debug)]
pub struct Token {
    /// Who holds it.
    pub name: String,
    /// SHA-256 of the token's text.
    pub sha256: Digest,
    /// What its holder may do.
    pub role: Role,
}

/// A token that was made here, as the store keeps it.
#[derive(Clone, Serialize, Deserialize)]
struct Made {
    name: String,
    role: Role,
    sha256: Digest,
    made: Timestamp,
    by: String,
}

/// A token as the API lists it: never its text, nor its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenEntry {
    /// Who holds it.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// When it was made; absent for the one of the configuration.
    pub made: Option<Timestamp>,
    /// Who made it: a token's name, `console`, or `configuration`.
    pub by: String,
}

/// Why a token was not made or taken away.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A name nobody could type.
    #[error("{0:?} is no name for a token: use 1 to 64 lower-case letters, digits, `.`, `_` and `-`, a letter first")]
    Name(String),
    /// There is one of that name.
    #[error("there is a token called {0} already; revoke it first, or choose another name")]
    Taken(String),
    /// There is none of that name.
    #[error("there is no token called {0}")]
    Unknown(String),
    /// It is the configuration's.
    #[error("the token {0} is the configuration's; change `admin_token_sha256` in rackbar.toml")]
    Configured(String),
    /// Randomness or the store failed.
    #[error("the token could not be kept: {0}")]
    Store(String),
}

/// Who sends a request, and what they may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Holder {
    pub(crate) name: String,
    pub(crate) role: Role,
}

/// By what somebody was let in; never a token's or a cookie's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pass {
    /// The token of this digest.
    Token(Digest),
    /// The session whose cookie has this digest.
    Session(Digest),
}

struct Session {
    /// The digest of the token that it was begun with.
    token: Digest,
    begun: Instant,
}

/// The tokens that are valid, and the sessions made with them.
pub struct Access {
    /// Those of the configuration.
    tokens: Mutex<Vec<Token>>,
    /// Those that were made here, and where they are kept.
    made: Mutex<Vec<Made>>,
    store: Option<Store>,
    sessions: Mutex<HashMap<Digest, Session>>,
    /// Tells those who wait that a token or a session may be gone.
    changed: watch::Sender<()>,
}

/// Prefix of a made token's key among the store's secrets.
const KEY: &str = "api-token/";
/// Names that are somebody else's: the first admin token, and who works on the appliance itself.
const RESERVED: [&str; 3] = ["admin", "console", "configuration"];
/// As many as anybody can keep apart.
const MAX_TOKENS: usize = 1_000;

fn sha256(text: &str) -> Digest {
    let mut out = [0u8; 32];
    out.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    Digest(out)
}

/// A panicking handler cannot leave these maps half-changed, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Access {
    /// Access for the holders of these tokens; nothing is kept.
    pub fn new(tokens: Vec<Token>) -> Self {
        Self {
            tokens: Mutex::new(tokens),
            made: Mutex::default(),
            store: None,
            sessions: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// Access for the holders of the tokens that `store` has; new ones are kept there.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(store: Store) -> Result<Self, StoreError> {
        let made = kept(&store)?;
        Ok(Self {
            made: Mutex::new(made),
            store: Some(store),
            ..Self::new(Vec::new())
        })
    }

    /// Replaces the configuration's tokens; sessions made with a token that is gone end.
    pub fn set_tokens(&self, tokens: Vec<Token>) {
        *lock(&self.tokens) = tokens;
        self.end_orphans();
    }

    fn end_orphans(&self) {
        lock(&self.sessions).retain(|_, session| self.of_token(session.token).is_some());
        self.changed.send_replace(());
    }

    /// All tokens, by name.
    pub fn list(&self) -> Vec<TokenEntry> {
        let configured = lock(&self.tokens)
            .iter()
            .map(|t| TokenEntry {
                name: t.name.clone(),
                role: t.role,
                made: None,
                by: "configuration".into(),
            })
            .collect::<Vec<_>>();
        let made = lock(&self.made).iter().map(Made::entry).collect::<Vec<_>>();
        let mut all = [configured, made].concat();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Makes a token; gives its text, which is not kept and cannot be had again.
    ///
    /// # Errors
    /// When the name is not one, is taken, or the token cannot be kept.
    pub fn create(&self, name: &str, role: Role, by: &str, now: Timestamp) -> Result<(String, TokenEntry), TokenError> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        if name.len() > 64 || !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(fits) {
            return Err(TokenError::Name(name.chars().take(80).collect()));
        }
        let mut made = lock(&self.made);
        let configured = lock(&self.tokens).iter().any(|t| t.name == name);
        if configured || RESERVED.contains(&name) || made.iter().any(|t| t.name == name) {
            return Err(TokenError::Taken(name.to_owned()));
        }
        if made.len() >= MAX_TOKENS {
            return Err(TokenError::Store(format!("there are {MAX_TOKENS} already")));
        }
        let text = random().ok_or_else(|| TokenError::Store("the system gave no random numbers".into()))?;
        let token = Made {
            name: name.to_owned(),
            role,
            sha256: sha256(&text),
            made: now,
            by: by.to_owned(),
        };
        self.keep(name, Some(&token))?;
        let entry = token.entry();
        made.push(token);
        Ok((text, entry))
    }

    /// Takes a token away; its sessions end.
    ///
    /// # Errors
    /// When there is none of that name, or it is the configuration's.
    pub fn revoke(&self, name: &str) -> Result<(), TokenError> {
        {
            let mut made = lock(&self.made);
            let Some(at) = made.iter().position(|t| t.name == name) else {
                let configured = lock(&self.tokens).iter().any(|t| t.name == name);
                let name = name.to_owned();
                return Err(if configured {
                    TokenError::Configured(name)
                } else {
                    TokenError::Unknown(name)
                });
            };
            self.keep(name, None)?;
            made.remove(at);
        }
        self.end_orphans();
        Ok(())
    }

    fn keep(&self, name: &str, token: Option<&Made>) -> Result<(), TokenError> {
        let Some(store) = &self.store else { return Ok(()) };
        let json = token
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|e| TokenError::Store(e.to_string()))?;
        store
            .put_all(Table::Secrets, &[(format!("{KEY}{name}").as_bytes(), json.as_deref())])
            .map_err(|e| TokenError::Store(e.to_string()))
    }

    /// The holder of the token of this digest.
    fn of_token(&self, sha256: Digest) -> Option<Holder> {
        // Comparing digests leaks nothing of use: an attacker cannot choose a digest's prefix.
        let configured = lock(&self.tokens).iter().find(|t| t.sha256 == sha256).map(|t| Holder {
            name: t.name.clone(),
            role: t.role,
        });
        configured.or_else(|| {
            let made = lock(&self.made);
            let token = made.iter().find(|t| t.sha256 == sha256)?;
            Some(Holder {
                name: token.name.clone(),
                role: token.role,
            })
        })
    }

    /// By what a request with these headers is let in, if it is.
    pub(crate) fn pass(&self, headers: &HeaderMap) -> Option<Pass> {
        let pass = match headers.get(header::AUTHORIZATION) {
            Some(value) => {
                let (scheme, text) = value.to_str().ok()?.split_once(' ')?;
                let bearer = scheme.eq_ignore_ascii_case("bearer");
                bearer.then(|| Pass::Token(sha256(text.trim())))?
            }
            None => Pass::Session(sha256(&session_cookie(headers)?)),
        };
        self.holder(pass).map(|_| pass)
    }

    /// Who was let in so, and what they may do now; `None` when the token or the session is gone.
    pub(crate) fn holder(&self, pass: Pass) -> Option<Holder> {
        let token = match pass {
            Pass::Token(token) => token,
            Pass::Session(cookie) => {
                let mut sessions = lock(&self.sessions);
                sessions.retain(|_, session| session.begun.elapsed() < SESSION_LIFE);
                sessions.get(&cookie)?.token
            }
        };
        self.of_token(token)
    }

    /// Returns when what somebody was let in by is good no longer: at once when a token is revoked or replaced or a session
    /// ends, within [`RECHECK`] when its time is over.
    pub(crate) async fn end_of(self: Arc<Self>, pass: Pass) {
        let mut changed = self.changed.subscribe();
        while self.holder(pass).is_some() {
            // Whichever comes first: both only mean that it is time to look again.
            let _ = tokio::time::timeout(RECHECK, changed.changed()).await;
        }
    }

    /// Begins a session for the holder of `token`; gives the `Set-Cookie` value.
    pub(crate) fn log_in(&self, token: &str) -> Option<String> {
        let token = sha256(token.trim());
        self.of_token(token)?;
        let text = random()?;
        let mut sessions = lock(&self.sessions);
        if sessions.len() >= MAX_SESSIONS
            && let Some(oldest) = sessions.iter().min_by_key(|(_, s)| s.begun).map(|(key, _)| *key)
        {
            sessions.remove(&oldest);
        }
        sessions.insert(
            sha256(&text),
            Session {
                token,
                begun: Instant::now(),
            },
        );
        let life = SESSION_LIFE.as_secs();
        Some(format!(
            "{COOKIE}={text}; Path=/; Max-Age={life}; HttpOnly; Secure; SameSite=Strict"
        ))
    }

    /// Ends the session of a request; gives the `Set-Cookie` value that makes the browser forget it.
    pub(crate) fn log_out(&self, headers: &HeaderMap) -> String {
        if let Some(cookie) = session_cookie(headers) {
            lock(&self.sessions).remove(&sha256(&cookie));
            self.changed.send_replace(());
        }
        format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Strict")
    }
}

impl Made {
    fn entry(&self) -> TokenEntry {
        TokenEntry {
            name: self.name.clone(),
            role: self.role,
            made: Some(self.made),
            by: self.by.clone(),
        }
    }
}

/// The made tokens that a store has. One that cannot be read is left out: nobody gets in by it.
fn kept(store: &Store) -> Result<Vec<Made>, StoreError> {
    let all = store.list(Table::Secrets)?;
    let tokens = all.iter().filter(|(key, _)| key.starts_with(KEY.as_bytes()));
    Ok(tokens
        .filter_map(|(_, json)| serde_json::from_slice(json).ok())
        .collect())
}

/// 256 random bits in hexadecimal.
fn random() -> Option<String> {
    let mut secret = [0u8; 32];
    SystemRandom::new().fill(&mut secret).ok()?;
    Some(Digest(secret).to_string())
}

fn session_cookie(headers: &HeaderMap) -> Option<String> {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value.to_owned())
}

/// The value a form of the page must carry, for a request with these headers; `None` without a session.
pub(crate) fn form_key(headers: &HeaderMap) -> Option<String> {
    session_cookie(headers).map(|cookie| sha256(&format!("form:{cookie}")).to_string())
}

#[cfg(test)]
mod tests;
