//! The Redfish client (DMTF DSP0266): login, resources, the handful of things Rackbar asks of a BMC.

pub(crate) mod http;
mod system;
pub(crate) mod view;

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use rackbar_hw_profiles::Quirks;
use serde_json::{Value, json};

use self::http::{Http, Reply};
use crate::error::{Cause, Error, Interface};
use crate::tls::Pin;
use crate::{BmcAddress, Credentials, Timing};

/// How often a BMC that is busy (503, 429) is asked again within one request.
const BUSY_TRIES: u32 = 3;
/// The longest a BMC's own "Retry-After" is honoured within one request.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// How requests prove who we are.
enum Login {
    /// Not logged in.
    None,
    /// A session (DSP0266 section 13.3): cheap for the BMC, must be given back.
    Session { token: String, location: Option<String> },
    /// The password with each request.
    Basic,
}

/// A client of one BMC. One request at a time; the caller sees to it.
pub(crate) struct Redfish {
    address: BmcAddress,
    credentials: Credentials,
    http: Http,
    login: Login,
    pub(crate) quirks: Quirks,
    /// Path of the system, once found.
    system: Option<String>,
}

impl Redfish {
    pub(crate) fn new(address: BmcAddress, timing: Timing, credentials: Credentials, pin: Arc<Pin>) -> Self {
        let http = Http::new(address, timing, pin);
        let login = Login::None;
        Self {
            address,
            credentials,
            http,
            login,
            quirks: Quirks::default(),
            system: None,
        }
    }

    fn error(&self, request: impl Into<String>, cause: Cause) -> Error {
        Error {
            address: self.address.ip,
            interface: Interface::Redfish,
            request: request.into(),
            cause,
        }
    }

    /// The service root, without a login: shows whether Redfish is there at all.
    pub(crate) async fn root(&mut self) -> Result<Value, Error> {
        let path = "/redfish/v1/";
        let reply = self.http.send(&Method::GET, path, &[], None).await;
        let reply = reply.map_err(|cause| self.error(format!("GET {path}"), cause))?;
        match reply.status {
            200..=299 if reply.json.is_object() => Ok(reply.json),
            // A root that wants a login: go on, the login decides.
            401 => Ok(json!({})),
            status => {
                let words = format!("no Redfish service root (answer {status})");
                Err(self.error(format!("GET {path}"), Cause::Unsupported(words)))
            }
        }
    }

    /// A resource.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Value, Error> {
        let reply = self.request(&Method::GET, path, None, None).await?;
        if reply.json.is_object() {
            Ok(reply.json)
        } else {
            Err(self.error(format!("GET {path}"), Cause::Malformed("not a JSON object".to_owned())))
        }
    }

    /// Changes a resource, guarded by its entity tag: read, then `If-Match`. When somebody changed it in between
    /// (412) it is read and tried once more.
    pub(crate) async fn patch(&mut self, path: &str, body: &Value) -> Result<(), Error> {
        for _ in 0..2 {
            let tag = if self.quirks.etag_broken {
                None
            } else {
                self.tag(path).await?
            };
            match self.request(&Method::PATCH, path, tag, Some(body)).await {
                Err(Error {
                    cause: Cause::Refused { code: 412, .. },
                    ..
                }) => {
                    tracing::debug!(bmc = %self.address.ip, path, "entity tag refused, reading it again");
                }
                other => return other.map(drop),
            }
        }
        let words =
            "the entity tag is refused again and again; if this firmware always does, its profile needs etag_broken";
        Err(self.error(
            format!("PATCH {path}"),
            Cause::Refused {
                code: 412,
                message: words.to_owned(),
            },
        ))
    }

    async fn tag(&mut self, path: &str) -> Result<Option<String>, Error> {
        let reply = self.request(&Method::GET, path, None, None).await?;
        let header = reply.header("etag").map(str::to_owned);
        Ok(header.or_else(|| reply.json.get("@odata.etag").and_then(Value::as_str).map(str::to_owned)))
    }

    /// Runs an action.
    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Result<(), Error> {
        self.request(&Method::POST, path, None, Some(body)).await.map(drop)
    }

    /// One request with login, asked again while the BMC is busy, logged in anew when the session is gone.
    async fn request(
        &mut self,
        method: &Method,
        path: &str,
        tag: Option<String>,
        body: Option<&Value>,
    ) -> Result<Reply, Error> {
        let name = format!("{method} {path}");
        let mut busy = 0;
        let mut renewed = false;
        loop {
            if matches!(self.login, Login::None) {
                self.log_in().await?;
            }
            let mut headers = self.proof();
            headers.extend(tag.clone().map(|tag| ("if-match", tag)));
            let reply = self.http.send(method, path, &headers, body).await;
            let reply = reply.map_err(|cause| self.error(name.clone(), cause))?;
            match reply.status {
                200..=299 => return Ok(reply),
                // A session that timed out, or that the BMC forgot when it restarted.
                401 if matches!(self.login, Login::Session { .. }) && !renewed => {
                    renewed = true;
                    self.login = Login::None;
                }
                429 | 503 if busy < BUSY_TRIES => {
                    busy += 1;
                    let asked = reply.header("retry-after").and_then(|text| text.trim().parse().ok());
                    let pause = asked.map_or(Duration::from_millis(250 << busy), Duration::from_secs);
                    tokio::time::sleep(pause.min(BUSY_WAIT)).await;
                }
                status => return Err(self.refused(name, status, &reply.json)),
            }
        }
    }

    fn refused(&self, request: String, status: u16, body: &Value) -> Error {
        let message = view::error_words(body);
        let cause = match status {
            401 | 403 => Cause::Unauthorized(if message.is_empty() {
                format!("status {status}")
            } else {
                message
            }),
            404 | 405 | 501 => Cause::Unsupported(format!("status {status}; {message}")),
            _ => Cause::Refused { code: status, message },
        };
        self.error(request, cause)
    }

    fn proof(&self) -> Vec<(&'static str, String)> {
        match &self.login {
            Login::None => Vec::new(),
            Login::Session { token, .. } => vec![("x-auth-token", token.clone())],
            Login::Basic => {
                let pair = format!("{}:{}", self.credentials.user, self.credentials.password());
                vec![("authorization", format!("Basic {}", base64(pair.as_bytes())))]
            }
        }
    }

    /// Opens a session. A BMC that has none to give (limit reached, not implemented) is asked with Basic instead; one
    /// that says the password is wrong is not asked again, or it locks the account.
    async fn log_in(&mut self) -> Result<(), Error> {
        if self.quirks.basic_auth_only {
            self.login = Login::Basic;
            return Ok(());
        }
        let root = self.root().await?;
        let path =
            view::link(&root, "/Links/Sessions").unwrap_or_else(|| "/redfish/v1/SessionService/Sessions".to_owned());
        let body = json!({"UserName": self.credentials.user, "Password": self.credentials.password()});
        let name = format!("POST {path}");
        let reply = self.http.send(&Method::POST, &path, &[], Some(&body)).await;
        let reply = reply.map_err(|cause| self.error(name.clone(), cause))?;
        let token = reply.header("x-auth-token").map(str::to_owned);
        self.login = match (reply.status, token) {
            (200..=299, Some(token)) => {
                let location = reply.header("location").and_then(location_path);
                Login::Session { token, location }
            }
            (401 | 403, _) => return Err(self.refused(name, reply.status, &reply.json)),
            (status, _) => {
                tracing::debug!(bmc = %self.address.ip, status, "no session to be had, using Basic authentication");
                Login::Basic
            }
        };
        Ok(())
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

/// The path of a `Location`, which may be a whole URL.
fn location_path(location: &str) -> Option<String> {
    let path = match location.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..))?,
        None => location,
    };
    view::own_path(path)
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

    #[test]
    fn a_location_may_be_a_url() {
        let path = Some("/redfish/v1/SessionService/Sessions/1".to_owned());
        assert_eq!(
            location_path("https://10.0.0.1/redfish/v1/SessionService/Sessions/1"),
            path
        );
        assert_eq!(location_path("/redfish/v1/SessionService/Sessions/1"), path);
        assert_eq!(location_path("https://10.0.0.1"), None);
    }
}
