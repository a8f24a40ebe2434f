//! Proving who we are: a session where the BMC has one to give, else the password with each request.

use hyper::Method;
use serde_json::{Value, json};

use super::{BUSY_TRIES, Redfish, location_path, rest, view};
use crate::Credentials;
use crate::error::{Cause, Error};

/// How requests prove who we are.
pub(super) enum Login {
    /// Not logged in.
    None,
    /// A session (DSP0266 section 13.3): cheap for the BMC, must be given back.
    Session { token: String, location: Option<String> },
    /// The password with each request.
    Basic,
}

impl Login {
    pub(super) fn proof(&self, credentials: &Credentials) -> Vec<(&'static str, String)> {
        match self {
            Self::None => Vec::new(),
            Self::Session { token, .. } => vec![("x-auth-token", token.clone())],
            Self::Basic => {
                let pair = format!("{}:{}", credentials.user, credentials.password());
                vec![("authorization", format!("Basic {}", base64(pair.as_bytes())))]
            }
        }
    }
}

impl Redfish {
    /// Opens a session. A BMC that has none to give (limit reached, not implemented) is asked with Basic instead; one
    /// that says the password is wrong is not asked again, or it locks the account.
    pub(super) async fn log_in(&mut self) -> Result<(), Error> {
        if self.quirks.basic_auth_only {
            self.login = Login::Basic;
            return Ok(());
        }
        self.may_log_in("login")?;
        let root = self.root().await?;
        let path =
            view::link(&root, "/Links/Sessions").unwrap_or_else(|| "/redfish/v1/SessionService/Sessions".to_owned());
        let body = json!({"UserName": self.credentials.user, "Password": self.credentials.password()});
        let name = format!("POST {path}");
        let mut busy = 0;
        let reply = loop {
            let reply = self.sent(&name, &Method::POST, &path, &[], Some(&body)).await;
            let reply = reply.map_err(lost_login)?;
            if !matches!(reply.status, 429 | 503) || busy >= BUSY_TRIES || sessions_are_out(&reply.json) {
                break reply;
            }
            busy += 1;
            rest(&reply, busy).await;
        };
        let token = reply.header("x-auth-token").map(str::to_owned);
        self.login = match (reply.status, token) {
            (200..=299, Some(token)) => {
                let body = || view::text(&reply.json, "/@odata.id");
                let location = reply.header("location").and_then(location_path).or_else(body);
                self.attempts.right(&self.credentials.user);
                Login::Session { token, location }
            }
            // Firmware says either of a wrong password, and of a locked account: it is as good as wrong.
            (401 | 403, _) => {
                let error = self.refused(name, reply.status, &reply.json);
                return Err(self.not_let_in(error));
            }
            (status, _) => {
                // Some firmware says this of a wrong password. Where it has no sessions to give, the login that follows is
                // right and clears the count.
                if status == 400 && !sessions_are_out(&reply.json) {
                    self.attempts.wrong(&self.credentials.user);
                    self.may_log_in(&name)?;
                }
                tracing::debug!(bmc = %self.address.ip, status, "no session to be had, using Basic authentication");
                Login::Basic
            }
        };
        Ok(())
    }

    /// Refuses to try a password when enough wrong ones were tried.
    pub(super) fn may_log_in(&self, request: &str) -> Result<(), Error> {
        let may = self.attempts.may(&self.credentials.user);
        may.map_err(|cause| self.error(request, cause))
    }

    fn not_let_in(&self, error: Error) -> Error {
        let cause = match error.cause {
            Cause::Forbidden(words) | Cause::Unauthorized(words) => Cause::Unauthorized(words),
            other => other,
        };
        if matches!(cause, Cause::Unauthorized(_)) {
            self.attempts.wrong(&self.credentials.user);
        }
        Error { cause, ..error }
    }

    /// Proves that the login works, with one attempt, and gives the session back.
    pub(crate) async fn prove(&mut self) -> Result<(), Error> {
        self.log_in().await?;
        // A session is proof enough. Basic proves nothing until something is asked that needs a login.
        let proven = match self.login {
            Login::Session { .. } => Ok(()),
            Login::None | Login::Basic => match self.system_path().await {
                // Right, and to be changed.
                Err(Error {
                    cause: Cause::PasswordChangeRequired { .. },
                    ..
                }) => Ok(()),
                asked => asked.map(drop),
            },
        };
        self.log_out().await;
        proven
    }

    /// Other credentials from now on; the session of the old ones is given back.
    pub(crate) async fn be(&mut self, credentials: Credentials) {
        self.log_out().await;
        self.credentials = credentials;
    }

    /// Gives the session back.
    pub(crate) async fn log_out(&mut self) {
        if let Login::Session {
            token,
            location: Some(location),
        } = std::mem::replace(&mut self.login, Login::None)
        {
            // When it fails, the session times out by itself.
            let _ended = self
                .http
                .send(&Method::DELETE, &location, &[("x-auth-token", token)], None)
                .await;
        }
    }
}

/// A login whose answer got lost changed nothing: what was to be done behind it was not begun.
fn lost_login(error: Error) -> Error {
    match error.cause {
        Cause::Unanswered(words) => Error {
            cause: Cause::Unreachable(words),
            ..error
        },
        _ => error,
    }
}

/// True when a 503 means that no session is free: waiting does not help, others hold them for half an hour.
fn sessions_are_out(body: &Value) -> bool {
    let words = view::error_words(body).to_lowercase();
    let id = body
        .pointer("/error/@Message.ExtendedInfo/0/MessageId")
        .and_then(Value::as_str)
        .unwrap_or_default();
    id.ends_with("SessionLimitExceeded")
        || (words.contains("session") && (words.contains("maximum") || words.contains("limit")))
}

/// Base64 (RFC 4648 section 4) of the few bytes of a login; not worth a crate.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0u32, |word, &b| word << 8 | u32::from(b));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() { digit as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_the_answers_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
