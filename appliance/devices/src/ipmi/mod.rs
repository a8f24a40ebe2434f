//! The IPMI client: sockets and time around the session machine of `rackbar-ipmi`.
//!
//! ```text
//!  boot      boot flags, once and lasting     account   users and passwords
//!  watch     sensors, log, health, clock      lan       the BMC's own network settings
//!  meant     whether the one that answers is the one that is meant
//! ```

mod account;
mod boot;
mod lan;
mod meant;
mod watch;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rackbar_hw_profiles::Quirks;
use rackbar_ipmi::client::{Config, Failure, Output, Session};
use rackbar_ipmi::command::chassis::{ChassisControl, ChassisStatus};
use rackbar_ipmi::command::device::{self, DeviceId};
use rackbar_ipmi::command::user::ChannelInfo;
use rackbar_ipmi::rakp::Status;
use rackbar_ipmi::{CipherSuite, Completion, Malformed, OsEntropy, Privilege, Request, Response, Secret};
use rackbar_model::{MacAddr, PowerState};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use crate::error::{Cause, Error, Interface};
use crate::pace::Pace;
use crate::{Attempts, BmcAddress, BmcIdentity, Credentials, Timing};

/// BMCs end a silent session after 60 s, some a little earlier; a session older than this is not trusted.
const IDLE: Duration = Duration::from_secs(40);

struct Live {
    socket: UdpSocket,
    session: Session<OsEntropy>,
    used: Instant,
    /// The BMC at its other end was seen to be the one that is meant, or is being looked at.
    looked_at: bool,
}

/// A client of one BMC. One request at a time; the caller sees to it.
pub(crate) struct Ipmi {
    address: BmcAddress,
    timing: Timing,
    credentials: Credentials,
    live: Option<Live>,
    attempts: Arc<Attempts>,
    /// MAC address of the LAN interface of the BMC that is meant.
    meant: Option<MacAddr>,
    /// The suite that worked, and the privilege.
    agreed: Option<(CipherSuite, Privilege)>,
    origin: Instant,
    /// The one suite it takes, and its longest password, where its profiles say so.
    suite_alone: Option<u8>,
    password_bytes: usize,
    pace: Arc<Pace>,
}

impl Ipmi {
    pub(crate) fn new(address: BmcAddress, timing: Timing, credentials: Credentials, pace: Arc<Pace>) -> Self {
        Self {
            address,
            timing,
            credentials,
            attempts: Arc::new(Attempts::new(timing.wrong_passwords)),
            live: None,
            meant: None,
            agreed: None,
            origin: Instant::now(),
            suite_alone: None,
            password_bytes: Secret::MAX,
            pace,
        }
    }

    /// Treats this BMC as its profiles say, from now on.
    pub(crate) fn treat(&mut self, quirks: &Quirks) {
        self.suite_alone = quirks.ipmi_suite;
        self.password_bytes = quirks.ipmi_password_bytes.map_or(Secret::MAX, usize::from);
    }

    /// Wrong passwords are counted there, with those of everybody else who logs in to this BMC.
    pub(crate) fn count_in(&mut self, attempts: Arc<Attempts>) {
        self.attempts = attempts;
    }

    fn error(&self, request: &str, cause: Cause) -> Error {
        Error {
            address: self.address.ip,
            interface: Interface::Ipmi,
            request: request.to_owned(),
            cause,
        }
    }

    /// The BMC's address.
    pub(crate) const fn ip(&self) -> std::net::IpAddr {
        self.address.ip
    }

    pub(crate) fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    /// What IPMI has no words for.
    pub(crate) fn lacks(&self, what: &str) -> Error {
        self.error(what, Cause::Unsupported("IPMI has no words for it".to_owned()))
    }

    /// The cipher suite in use.
    pub(crate) fn suite(&self) -> Option<CipherSuite> {
        self.agreed.map(|(suite, _)| suite)
    }

    /// Logs in: suite 17, then 3; administrator, then operator. A wrong password is tried once only.
    async fn log_in(&mut self) -> Result<(), Error> {
        let admin = Privilege::Administrator;
        let ways: Vec<_> = match self.agreed {
            Some(way) => vec![way],
            None => vec![
                (CipherSuite::Seventeen, admin),
                (CipherSuite::Seventeen, Privilege::Operator),
                (CipherSuite::Three, admin),
                (CipherSuite::Three, Privilege::Operator),
            ],
        };
        let mut last = Cause::Unreachable("no way to log in".to_owned());
        let mut refused_suite = None;
        for (suite, privilege) in ways {
            if self.suite_alone.is_some_and(|alone| alone != suite.id()) {
                continue;
            }
            if refused_suite == Some(suite) || (privilege != admin && !matches!(last, Cause::Refused { .. })) {
                continue;
            }
            match self.log_in_with(suite, privilege).await {
                Ok(()) => {
                    self.agreed = Some((suite, privilege));
                    return Ok(());
                }
                Err(LoginFailed {
                    cause,
                    next: Next::Nothing,
                }) => return Err(self.login_error(cause)),
                Err(LoginFailed { cause, next }) => {
                    if next == Next::Suite {
                        refused_suite = Some(suite);
                    }
                    last = cause;
                }
            }
        }
        // What worked once may not after a firmware update: next time all ways again.
        self.agreed = None;
        Err(self.login_error(last))
    }

    fn login_error(&self, cause: Cause) -> Error {
        self.error("RMCP+ login", cause)
    }

    async fn log_in_with(&mut self, suite: CipherSuite, privilege: Privilege) -> Result<(), LoginFailed> {
        let stop = |cause| LoginFailed {
            cause,
            next: Next::Nothing,
        };
        let long = || Cause::Unsupported("IPMI passwords have at most 20 bytes".to_owned());
        self.attempts.may(&self.credentials.user).map_err(stop)?;
        self.pace.turn().await;
        let password = Secret::new(self.credentials.password().as_bytes()).ok_or_else(|| stop(long()))?;
        let config = Config {
            user: self.credentials.user.clone(),
            password,
            suite,
            privilege,
            retry: self.timing.repeat,
            tries: self.timing.tries,
        };
        let socket = self
            .socket()
            .await
            .map_err(|error| stop(Cause::Unreachable(error.to_string())))?;
        let mut session = Session::new(config, OsEntropy);
        session.start(self.origin.elapsed());
        let mut live = Live {
            socket,
            session,
            used: Instant::now(),
            looked_at: false,
        };
        match drive(&mut live, self.origin).await {
            Output::Ready => {
                self.attempts.right(&self.credentials.user);
                self.live = Some(live);
                Ok(())
            }
            Output::Failed(failure) => {
                let failed = login_failed(failure);
                if matches!(failed.cause, Cause::Unauthorized(_)) {
                    self.attempts.wrong(&self.credentials.user);
                }
                Err(failed)
            }
            Output::Send(_) | Output::Answer(_) | Output::Unanswered | Output::Sol(_) => {
                Err(stop(Cause::Malformed("an answer before the login was done".to_owned())))
            }
        }
    }

    async fn socket(&self) -> std::io::Result<UdpSocket> {
        let any: SocketAddr = if self.address.ip.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(self.address.rmcp()).await?;
        Ok(socket)
    }

    /// One command. A command that only reads is asked again in a new session when the old one died.
    /// Before a command that changes something, the BMC of a new session is looked at.
    pub(super) async fn command(&mut self, name: &str, request: Request, reads: bool) -> Result<Response, Error> {
        let mut again = reads;
        loop {
            self.pace.turn().await;
            if !self.is_alive() {
                self.close().await;
                self.log_in().await?;
            }
            if !reads && !self.was_looked_at() {
                self.is_the_one().await?;
                continue;
            }
            let Some(live) = &mut self.live else {
                return Err(self.error(name, Cause::Unreachable("no session".to_owned())));
            };
            live.used = Instant::now();
            let asked = live.session.request(request.clone(), self.origin.elapsed());
            let output = if asked.is_ok() {
                drive(live, self.origin).await
            } else {
                Output::Unanswered
            };
            match output {
                Output::Answer(response) if response.completion == Completion::OK => return Ok(response),
                Output::Answer(response) => return Err(self.refused(name, response.completion)),
                _ if again => {
                    again = false;
                    self.live = None;
                }
                _ => {
                    self.live = None;
                    let cause = if reads {
                        Cause::Unreachable("no answer".to_owned())
                    } else {
                        Cause::Unanswered(format!("sent {} times", self.timing.tries))
                    };
                    return Err(self.error(name, cause));
                }
            }
        }
    }

    fn refused(&self, name: &str, code: Completion) -> Error {
        let cause = match code {
            Completion::INVALID_COMMAND => Cause::Unsupported(code.to_string()),
            _ => Cause::Refused {
                code: u16::from(code.0),
                message: code.meaning().to_owned(),
            },
        };
        self.error(name, cause)
    }

    pub(super) fn malformed<T>(&self, name: &str, result: Result<T, Malformed>) -> Result<T, Error> {
        result.map_err(|error| self.error(name, Cause::Malformed(error.to_string())))
    }

    pub(crate) async fn power_state(&mut self) -> Result<PowerState, Error> {
        let name = "Get Chassis Status";
        let answer = self.command(name, ChassisStatus::request(), true).await?;
        let status = self.malformed(name, ChassisStatus::decode(&answer.data))?;
        Ok(if status.on { PowerState::On } else { PowerState::Off })
    }

    pub(crate) async fn control(&mut self, control: ChassisControl) -> Result<(), Error> {
        self.command(&format!("Chassis Control {control:?}"), control.request(), false)
            .await
            .map(drop)
    }

    pub(crate) async fn identify(&mut self) -> Result<BmcIdentity, Error> {
        let name = "Get Device ID";
        let answer = self.command(name, DeviceId::request(), true).await?;
        let id = self.malformed(name, DeviceId::decode(&answer.data))?;
        let uuid = self.optional("Get System GUID", device::system_guid_request()).await?;
        let uuid = uuid
            .and_then(|data| device::decode_guid(&data).ok())
            .filter(|uuid| *uuid != [0; 16]);
        Ok(BmcIdentity {
            mac: self.lan_mac().await?,
            firmware: Some(format!("{}.{:02}", id.firmware_major, id.firmware_minor)),
            uuid: uuid.map(|uuid| rackbar_model::NodeId(uuid).to_string()),
            power: self.power_state().await?,
            ..BmcIdentity::default()
        })
    }

    /// The answer's data, or nothing when the BMC does not know the command or the parameter.
    pub(super) async fn optional(&mut self, name: &str, request: Request) -> Result<Option<Vec<u8>>, Error> {
        match self.command(name, request, true).await {
            Ok(answer) => Ok(Some(answer.data)),
            Err(Error {
                cause: Cause::Refused { .. } | Cause::Unsupported(_),
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// LAN channels: number 1 nearly everywhere, 2, 3 or 8 on some.
    pub(super) async fn lan_channels(&mut self) -> Result<Vec<u8>, Error> {
        let mut found = Vec::new();
        for channel in 1..=8 {
            let info = self.optional("Get Channel Info", ChannelInfo::request(channel)).await?;
            let info = info.and_then(|data| ChannelInfo::decode(&data).ok());
            if info.is_some_and(|info| info.medium == ChannelInfo::LAN) {
                found.push(channel);
            }
        }
        Ok(found)
    }

    /// MAC of the first LAN channel that has one.
    async fn lan_mac(&mut self) -> Result<Option<MacAddr>, Error> {
        for channel in self.lan_channels().await? {
            let mac = self.mac_of(channel).await?;
            if mac.is_some() {
                return Ok(mac);
            }
        }
        Ok(None)
    }

    /// Proves that the login works, with one attempt, and ends the session.
    pub(crate) async fn prove(&mut self) -> Result<(), Error> {
        self.log_in().await?;
        self.close().await;
        Ok(())
    }

    /// Other credentials from now on.
    pub(crate) async fn be(&mut self, credentials: Credentials) {
        self.close().await;
        self.credentials = credentials;
    }

    /// A session of its own for the serial console, which may last for hours beside the requests.
    pub(crate) async fn take_live(mut self) -> Result<(UdpSocket, Session<OsEntropy>, Instant), Error> {
        self.is_the_one().await?;
        match self.live.take() {
            Some(live) => Ok((live.socket, live.session, self.origin)),
            None => Err(self.login_error(Cause::Unreachable("no session".to_owned()))),
        }
    }

    /// Ends the session, so that the BMC gets its slot back at once.
    pub(crate) async fn close(&mut self) {
        if let Some(mut live) = self.live.take() {
            live.session.close();
            while let Some(output) = live.session.output() {
                if let Output::Send(datagram) = output {
                    let _told = live.socket.send(&datagram).await;
                }
            }
        }
    }
}

/// What to try next after a failed login.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Nothing,
    Privilege,
    Suite,
}

struct LoginFailed {
    cause: Cause,
    next: Next,
}

fn login_failed(failure: Failure) -> LoginFailed {
    let words = failure.to_string();
    let next = match failure {
        Failure::Refused {
            during: "open session", ..
        } => Next::Suite,
        _ => Next::Privilege,
    };
    let (cause, next) = match failure {
        Failure::Silent { during: "open session" } => (Cause::Unreachable(words), Next::Suite),
        Failure::Silent { .. } | Failure::NoEntropy => (Cause::Unreachable(words), Next::Nothing),
        Failure::OtherSuite => (Cause::Unsupported(words), Next::Suite),
        Failure::Refused { status, .. } if is_busy(status) => (
            Cause::Refused {
                code: u16::from(Completion::BUSY.0),
                message: words,
            },
            Next::Nothing,
        ),
        Failure::Refused {
            during: "open session",
            status: Status(code),
        }
        | Failure::Refused {
            status: Status(code @ (0x09 | 0x0a)),
            ..
        } => {
            let code = u16::from(code);
            (Cause::Refused { code, message: words }, next)
        }
        Failure::Privilege(code) => (
            Cause::Refused {
                code: u16::from(code.0),
                message: words,
            },
            Next::Privilege,
        ),
        Failure::Refused {
            status: Status::UNAUTHORIZED_NAME | Status::INVALID_CODE,
            ..
        }
        | Failure::WrongPassword => (Cause::Unauthorized(words), Next::Nothing),
        Failure::NameTooLong
        | Failure::Refused {
            status: Status(0x0c), ..
        } => (Cause::Unsupported(words), Next::Nothing),
        // Of algorithms and parameters it takes others, perhaps; no password was judged.
        Failure::Refused { .. } => (Cause::Unsupported(words), Next::Suite),
    };
    LoginFailed { cause, next }
}

/// The BMC has no room now, or lost the session that was being made (table 13-15): later it may.
const fn is_busy(status: Status) -> bool {
    matches!(
        status,
        Status::NO_RESOURCES | Status::INVALID_SESSION | Status(0x08 | 0x0b)
    )
}

/// Carries datagrams until the session says something.
async fn drive(live: &mut Live, origin: Instant) -> Output {
    let mut datagram = vec![0; 2048];
    loop {
        while let Some(output) = live.session.output() {
            match output {
                Output::Send(bytes) => {
                    // An error here is the echo of an earlier datagram that nobody took; repeats and their end are
                    // the session's business.
                    let _sent = live.socket.send(&bytes).await;
                }
                Output::Sol(_) => {}
                said => return said,
            }
        }
        let Some(deadline) = live.session.deadline() else {
            return Output::Unanswered;
        };
        tokio::select! {
            received = live.socket.recv(&mut datagram) => match received {
                Ok(length) => live.session.input(datagram.get(..length).unwrap_or_default(), origin.elapsed()),
                // "Connection refused" by ICMP: nobody listens now. A BMC that restarts does that for a moment.
                Err(_) => {
                    sleep_until(origin + deadline).await;
                    live.session.timeout(origin.elapsed());
                }
            },
            () = sleep_until(origin + deadline) => live.session.timeout(origin.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_judges_the_password_counts_as_a_wrong_one() {
        let refused = |during, code| {
            let status = Status(code);
            login_failed(Failure::Refused { during, status })
        };
        for code in 1..=0x20 {
            let LoginFailed { cause, next } = refused("RAKP message 1", code);
            let wrong = matches!(cause, Cause::Unauthorized(_));
            assert_eq!(wrong, matches!(code, 0x0d | 0x0f), "{code:#04x}: {cause}");
            assert!(!wrong || next == Next::Nothing, "a wrong password is tried once");
            let busy = matches!(cause, Cause::Refused { code: 0xc0, .. });
            assert_eq!(busy, matches!(code, 0x01 | 0x02 | 0x08 | 0x0b), "{code:#04x}: {cause}");
            assert!(!matches!(refused("open session", code).cause, Cause::Unauthorized(_)) || wrong);
        }
        let wrong = login_failed(Failure::WrongPassword).cause;
        assert!(matches!(wrong, Cause::Unauthorized(_)), "a proof that does not fit");
        assert!(matches!(
            login_failed(Failure::NameTooLong).cause,
            Cause::Unsupported(_)
        ));
        assert!(matches!(refused("RAKP message 1", 0x09).next, Next::Privilege));
    }
}
