//! The Redfish client (DMTF DSP0266): login, resources, and what Rackbar asks of a BMC.
//!
//! ```text
//!  http      one connection           login     sessions, Basic authentication
//!  change    PATCH with entity tags, actions, tasks
//!  system    identity, power, one-time boot      order     the lasting boot order, HTTP boot
//!  firmware  BIOS attributes          account   accounts         media    virtual media
//!  health    sensors, event logs      view      reading JSON that may be of any shape
//! ```

mod account;
mod change;
mod clock;
mod firmware;
mod health;
pub(crate) mod http;
mod login;
mod media;
mod order;
mod system;
pub(crate) mod view;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use rackbar_hw_profiles::Quirks;
use serde_json::{Value, json};

use self::http::{Http, Reply};
use self::login::Login;
use crate::bios::Rules;
use crate::error::{Cause, Error, Interface};
use crate::pace::Pace;
use crate::tls::Pin;
use crate::{Attempts, BmcAddress, Credentials, Timing};

/// How often a BMC that is busy (503, 429) is asked again within one request.
const BUSY_TRIES: u32 = 3;
/// Redirections followed within one request.
const REDIRECTS: u32 = 3;
/// The longest a BMC's own "Retry-After" is honoured within one request.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// A client of one BMC. One request at a time; the caller sees to it.
pub(crate) struct Redfish {
    address: BmcAddress,
    credentials: Credentials,
    attempts: Arc<Attempts>,
    http: Http,
    login: Login,
    quirks: Quirks,
    timing: Timing,
    /// Path of the system, once found.
    system: Option<String>,
    /// The attribute registry, once fetched: its name and what it says. It is large and changes with firmware only.
    rules: Option<(String, Rules)>,
}

impl Redfish {
    pub(crate) fn new(
        address: BmcAddress,
        timing: Timing,
        credentials: Credentials,
        pin: Arc<Pin>,
        pace: Arc<Pace>,
    ) -> Self {
        let http = Http::new(address, timing, pin, pace);
        let login = Login::None;
        Self {
            address,
            credentials,
            attempts: Arc::new(Attempts::new(timing.wrong_passwords)),
            http,
            login,
            quirks: Quirks::default(),
            timing,
            system: None,
            rules: None,
        }
    }

    /// The same BMC for somebody else, over a connection of its own.
    fn twin(&self, credentials: Credentials) -> Self {
        let mut twin = Self::new(
            self.address,
            self.timing,
            credentials,
            Arc::clone(self.http.pin()),
            Arc::clone(self.http.pace()),
        );
        twin.treat(self.quirks.clone());
        twin.count_in(Arc::clone(&self.attempts));
        twin
    }

    /// Wrong passwords are counted there, with those of everybody else who logs in to this BMC.
    pub(crate) fn count_in(&mut self, attempts: Arc<Attempts>) {
        self.attempts = attempts;
    }

    /// Treats this BMC as its profiles say, from now on.
    pub(crate) fn treat(&mut self, quirks: Quirks) {
        if quirks.system.is_some() {
            self.system = None;
        }
        self.quirks = quirks;
    }

    fn error(&self, request: impl Into<String>, cause: Cause) -> Error {
        Error {
            address: self.address.ip,
            interface: Interface::Redfish,
            request: request.into(),
            cause,
        }
    }

    /// What is asked over IPMI alone.
    pub(crate) fn leaves_to_ipmi(&self, what: &str) -> Error {
        self.error(what, Cause::Unsupported("asked over IPMI".to_owned()))
    }

    /// The service root, without a login: shows whether Redfish is there at all.
    pub(crate) async fn root(&mut self) -> Result<Value, Error> {
        let path = "/redfish/v1/";
        let name = format!("GET {path}");
        let mut busy = 0;
        let reply = loop {
            let reply = self.sent(&name, &Method::GET, path, &[], None).await?;
            if !matches!(reply.status, 429 | 503) || busy >= BUSY_TRIES {
                break reply;
            }
            busy += 1;
            rest(&reply, busy).await;
        };
        match reply.status {
            200..=299 if reply.json.is_object() => Ok(reply.json),
            // A root that wants a login: go on, the login decides.
            401 => Ok(json!({})),
            status => {
                let words = format!("no Redfish service root (answer {status})");
                Err(self.error(name, Cause::Unsupported(words)))
            }
        }
    }

    /// Sends a request, and sends it on where the BMC says that the resource moved.
    async fn sent(
        &mut self,
        name: &str,
        method: &Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Option<&Value>,
    ) -> Result<Reply, Error> {
        let mut path = path.to_owned();
        for _ in 0..REDIRECTS {
            let reply = self.http.send(method, &path, headers, body).await;
            let reply = reply.map_err(|cause| self.error(name, cause))?;
            match reply.status {
                // 303 answers a change with a place to read; only 307 and 308 ask to send the change again.
                301 | 302 if *method == Method::GET => path = self.moved_to(name, &reply)?,
                307 | 308 => path = self.moved_to(name, &reply)?,
                _ => return Ok(reply),
            }
        }
        let words = format!("sent on from one place to the next, {REDIRECTS} times");
        Err(self.error(name, Cause::Unsupported(words)))
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

    /// One request with login, asked again while the BMC is busy, logged in anew when the session is gone, sent on
    /// where the BMC says that the resource moved.
    async fn request(
        &mut self,
        method: &Method,
        path: &str,
        tag: Option<String>,
        body: Option<&Value>,
    ) -> Result<Reply, Error> {
        let name = format!("{method} {path}");
        let (mut busy, mut renewed) = (0, false);
        loop {
            if matches!(self.login, Login::None) {
                self.log_in().await?;
            }
            // Each request is a login of its own then.
            let basic = matches!(self.login, Login::Basic);
            if basic {
                self.may_log_in(&name)?;
            }
            let mut headers = self.login.proof(&self.credentials);
            headers.extend(tag.clone().map(|tag| ("if-match", tag)));
            let reply = self.sent(&name, method, path, &headers, body).await?;
            match reply.status {
                401 if basic => self.attempts.wrong(&self.credentials.user),
                200..=299 if basic => self.attempts.right(&self.credentials.user),
                _ => {}
            }
            match reply.status {
                200..=299 => return Ok(reply),
                // A session that timed out, or that the BMC forgot when it restarted.
                401 if matches!(self.login, Login::Session { .. }) && !renewed => {
                    renewed = true;
                    self.login = Login::None;
                }
                429 | 503 if busy < BUSY_TRIES => {
                    busy += 1;
                    rest(&reply, busy).await;
                }
                status => return Err(self.refused(name, status, &reply.json)),
            }
        }
    }

    /// Where a redirection leads: another path of this very BMC, or it is refused. The login would go along.
    fn moved_to(&self, name: &str, reply: &Reply) -> Result<String, Error> {
        let location = reply.header("location").unwrap_or_default();
        location_on(location, self.address.ip)
            .ok_or_else(|| self.error(name, Cause::Elsewhere(location.chars().take(200).collect())))
    }

    fn refused(&self, request: String, status: u16, body: &Value) -> Error {
        let message = view::error_words(body);
        let or_status = |message: String| match message.is_empty() {
            true => format!("status {status}"),
            false => message,
        };
        let cause = match status {
            401 => Cause::Unauthorized(or_status(message)),
            // DSP0266: 401 asks who we are, 403 knows it and says no.
            403 => match view::password_to_change(body) {
                Some(account) => Cause::PasswordChangeRequired { account },
                None => Cause::Forbidden(or_status(message)),
            },
            404 | 405 | 501 => Cause::Unsupported(format!("status {status}; {message}")),
            _ => Cause::Refused { code: status, message },
        };
        self.error(request, cause)
    }
}

/// Waits as long as a busy BMC asks, within bounds.
async fn rest(reply: &Reply, turn: u32) {
    let asked = reply.header("retry-after").and_then(|text| text.trim().parse().ok());
    let pause = asked.map_or(Duration::from_millis(250 << turn.min(5)), Duration::from_secs);
    tokio::time::sleep(pause.min(BUSY_WAIT)).await;
}

/// The path of a redirection that stays on the host.
fn location_on(location: &str, ip: IpAddr) -> Option<String> {
    if let Some((_, rest)) = location.split_once("://") {
        let host = rest.split('/').next()?;
        let own = [ip.to_string(), format!("[{ip}]")];
        let bare = own
            .iter()
            .any(|own| host == own || host.strip_prefix(own.as_str()).is_some_and(|r| r.starts_with(':')));
        if !bare {
            return None;
        }
    }
    location_path(location)
}

/// The path of a `Location`, which may be a whole URL. Only the path is used, always on the connection to this BMC:
/// BMCs behind a name or an address translation write hosts that nobody else knows.
fn location_path(location: &str) -> Option<String> {
    let path = match location.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..))?,
        None => location,
    };
    view::own_path(path)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_redirection_stays_on_the_bmc() {
        let ip = IpAddr::from([10, 0, 0, 1]);
        let there = Some("/redfish/v1/Systems".to_owned());
        assert_eq!(location_on("/redfish/v1/Systems", ip), there);
        assert_eq!(location_on("https://10.0.0.1/redfish/v1/Systems", ip), there);
        assert_eq!(location_on("https://10.0.0.1:443/redfish/v1/Systems", ip), there);
        for elsewhere in [
            "https://10.0.0.11/redfish/v1/Systems",
            "//10.0.0.2/x",
            "https://evil/10.0.0.1",
            "",
        ] {
            assert_eq!(location_on(elsewhere, ip), None, "{elsewhere}");
        }
    }
}
