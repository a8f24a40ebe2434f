//! Who may use the API: bearer tokens (RFC 6750 section 2.1) for programs, sessions for the page.
//!
//! Tokens are 256 random bits, kept only as SHA-256, so neither the store nor a core dump gives one away. A session
//! cookie is `HttpOnly`, `Secure`, `SameSite=Strict`; forms of the page carry a value derived from it besides, so that a
//! page of another origin cannot act in its name.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use rackbar_model::Digest;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

/// Name of the page's session cookie. The prefix makes browsers insist on `Secure` and on this very host (RFC 6265bis).
const COOKIE: &str = "__Host-rackbar";
/// A shift in the data hall; after that, log in again.
const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
/// More people than ever look at one rack; the oldest session goes first.
const MAX_SESSIONS: usize = 256;

/// A token: its name, for the record of who did what, and the SHA-256 of its text.
#[derive(Clone, Debug)]
pub struct Token {
    /// Who holds it.
    pub name: String,
    /// SHA-256 of the token's text.
    pub sha256: Digest,
}

struct Session {
    name: String,
    begun: Instant,
}

/// The tokens that are valid, and the sessions made with them.
pub struct Access {
    tokens: Mutex<Vec<Token>>,
    sessions: Mutex<HashMap<Digest, Session>>,
}

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
    /// Access for the holders of these tokens.
    pub fn new(tokens: Vec<Token>) -> Self {
        Self {
            tokens: Mutex::new(tokens),
            sessions: Mutex::default(),
        }
    }

    /// Replaces the tokens; sessions made with a token that is gone end.
    pub fn set_tokens(&self, tokens: Vec<Token>) {
        lock(&self.sessions).retain(|_, session| tokens.iter().any(|t| t.name == session.name));
        *lock(&self.tokens) = tokens;
    }

    /// The name of the token's holder.
    fn holder(&self, text: &str) -> Option<String> {
        // Comparing digests leaks nothing of use: an attacker cannot choose a digest's prefix.
        let sha256 = sha256(text.trim());
        lock(&self.tokens)
            .iter()
            .find(|t| t.sha256 == sha256)
            .map(|t| t.name.clone())
    }

    /// Who sends a request with these headers, by token or by session.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Option<String> {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let (scheme, text) = value.to_str().ok()?.split_once(' ')?;
            return if scheme.eq_ignore_ascii_case("bearer") {
                self.holder(text)
            } else {
                None
            };
        }
        let cookie = session_cookie(headers)?;
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, session| session.begun.elapsed() < SESSION_LIFE);
        sessions.get(&sha256(&cookie)).map(|session| session.name.clone())
    }

    /// Begins a session for the holder of `token`; gives the `Set-Cookie` value.
    pub(crate) fn log_in(&self, token: &str) -> Option<String> {
        let name = self.holder(token)?;
        let mut secret = [0u8; 32];
        SystemRandom::new().fill(&mut secret).ok()?;
        let text = Digest(secret).to_string();
        let mut sessions = lock(&self.sessions);
        if sessions.len() >= MAX_SESSIONS
            && let Some(oldest) = sessions.iter().min_by_key(|(_, s)| s.begun).map(|(key, _)| *key)
        {
            sessions.remove(&oldest);
        }
        sessions.insert(
            sha256(&text),
            Session {
                name,
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
        }
        format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Strict")
    }
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
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn access() -> Access {
        Access::new(vec![Token {
            name: "admin".into(),
            sha256: sha256("secret"),
        }])
    }

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_bearer_token_identifies_its_holder_and_another_does_not() {
        let access = access();
        assert_eq!(
            access
                .identify(&headers(header::AUTHORIZATION, "Bearer secret"))
                .as_deref(),
            Some("admin")
        );
        for wrong in ["Bearer Secret", "Bearer ", "Basic secret", "secret"] {
            assert_eq!(access.identify(&headers(header::AUTHORIZATION, wrong)), None, "{wrong}");
        }
        assert_eq!(access.identify(&HeaderMap::new()), None);
    }

    #[test]
    fn a_session_lasts_from_log_in_to_log_out() {
        let access = access();
        assert_eq!(access.log_in("wrong"), None);
        let cookie = access.log_in("secret").unwrap();
        for flag in ["HttpOnly", "Secure", "SameSite=Strict"] {
            assert!(cookie.contains(flag), "{cookie}");
        }
        let sent = headers(
            header::COOKIE,
            &format!("other=1; {}", cookie.split(';').next().unwrap()),
        );
        assert_eq!(access.identify(&sent).as_deref(), Some("admin"));
        assert!(form_key(&sent).is_some());
        access.log_out(&sent);
        assert_eq!(access.identify(&sent), None);
    }

    #[test]
    fn a_token_that_is_taken_away_ends_its_sessions() {
        let access = access();
        let cookie = access.log_in("secret").unwrap();
        let sent = headers(header::COOKIE, cookie.split(';').next().unwrap());
        access.set_tokens(Vec::new());
        assert_eq!(access.identify(&sent), None);
    }

    #[test]
    fn sessions_are_bounded() {
        let access = access();
        let first = access.log_in("secret").unwrap();
        for _ in 0..MAX_SESSIONS {
            access.log_in("secret").unwrap();
        }
        assert_eq!(lock(&access.sessions).len(), MAX_SESSIONS);
        assert_eq!(
            access.identify(&headers(header::COOKIE, first.split(';').next().unwrap())),
            None
        );
    }
}
