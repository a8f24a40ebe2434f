//! A connection to one machine, and commands over it.

use std::borrow::Cow;
use std::future::Future;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Handle};
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Channel, ChannelMsg, Disconnect, Preferred};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{ClientKey, SshError, keys, script};

/// Between two signs of life on a connection that is silent: a command may run for an hour without a word, and a
/// machine that lost its power says nothing either.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Time to begin a script on a connection that stands.
const START: Duration = Duration::from_secs(30);

/// Time what is told to end has until we leave it: it terminates, or is killed after five seconds.
const ENDS: Duration = Duration::from_secs(15);

/// What a command left behind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Output {
    /// Exit status; `None` when a signal ended it or the server did not say.
    pub status: Option<i32>,
    /// Name of the signal that ended it, without `SIG` (RFC 4254 section 6.10).
    pub signal: Option<String>,
    /// Standard output, as far as it was kept.
    pub stdout: Vec<u8>,
    /// Standard error, as far as it was kept.
    pub stderr: Vec<u8>,
    /// There was more output than was to be kept.
    pub truncated: bool,
}

impl Output {
    /// True when it ended with status 0.
    pub fn success(&self) -> bool {
        self.status == Some(0)
    }

    /// Standard output as text; what is no UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// How it ended, in words, with the end of what it complained of.
    pub fn ending(&self) -> String {
        let how = match (self.status, &self.signal) {
            (_, Some(signal)) => format!("was ended by signal {signal}"),
            (Some(status), None) => format!("ended with status {status}"),
            (None, None) => "ended without saying how".into(),
        };
        let said = String::from_utf8_lossy(&self.stderr);
        match said.trim().lines().last() {
            Some(line) => format!("{how}: {line}"),
            None => how,
        }
    }

    fn keep(&mut self, error: bool, data: &[u8], max: usize) {
        let into = if error { &mut self.stderr } else { &mut self.stdout };
        let room = max.saturating_sub(into.len());
        let kept = data.get(..room.min(data.len())).unwrap_or_default();
        into.extend_from_slice(kept);
        self.truncated |= kept.len() < data.len();
    }
}

/// A connection, logged in. Dropped, it ends at once.
pub struct Session {
    addr: SocketAddr,
    handle: Handle<Pinned>,
    _socket: Socket,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.addr)
    }
}

/// Our own hand on the socket: russh reads it in a task of its own, which a peer that falls silent in the middle of the
/// handshake would keep alive for ever.
struct Socket(std::net::TcpStream);

impl Drop for Socket {
    fn drop(&mut self) {
        // Fails when the other end was first: then it is what we want already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Takes one host key and no other.
struct Pinned {
    addr: SocketAddr,
    wanted: PublicKey,
}

impl Pinned {
    fn other(&self, seen: String) -> SshError {
        SshError::OtherHostKey {
            addr: self.addr,
            wanted: self.wanted.fingerprint(HashAlg::Sha256).to_string(),
            seen,
        }
    }
}

/// The error of the protocol's task: ours, or the library's.
#[derive(Debug)]
enum Fault {
    Ours(SshError),
    Protocol(russh::Error),
}

impl From<russh::Error> for Fault {
    fn from(error: russh::Error) -> Self {
        Self::Protocol(error)
    }
}

impl client::Handler for Pinned {
    type Error = Fault;

    async fn check_server_key(&mut self, seen: &PublicKeyOrCertificate) -> Result<bool, Fault> {
        match seen {
            PublicKeyOrCertificate::PublicKey { key, .. } if key.key_data() == self.wanted.key_data() => Ok(true),
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                Err(Fault::Ours(self.other(key.fingerprint(HashAlg::Sha256).to_string())))
            }
            PublicKeyOrCertificate::Certificate(_) => Err(Fault::Ours(self.other("a certificate".into()))),
        }
    }
}

impl Session {
    /// Connects to `addr` and logs in as `user` with `key`, all within `limit`. `host_key` is the line of the one
    /// public key the host may have, as in [`HostKeyPair::public`](crate::HostKeyPair).
    ///
    /// # Errors
    /// [`SshError`]: whether the machine is silent, refuses, is another one, or does not know our key.
    pub async fn connect(
        addr: SocketAddr,
        user: &str,
        key: &ClientKey,
        host_key: &str,
        limit: Duration,
    ) -> Result<Self, SshError> {
        let wanted = keys::public(host_key)?;
        let work = Self::connect_unbounded(addr, user, key, wanted);
        timeout(limit, work).await.unwrap_or(Err(SshError::TimedOut {
            addr,
            what: "answer SSH and let us log in",
            limit,
        }))
    }

    async fn connect_unbounded(
        addr: SocketAddr,
        user: &str,
        key: &ClientKey,
        wanted: PublicKey,
    ) -> Result<Self, SshError> {
        let (stream, socket) = open(addr).await.map_err(|error| unreachable(addr, &error))?;
        let pinned = Pinned { addr, wanted };
        let other_kind = pinned.other("a machine without any Ed25519 host key".into());
        let mut handle = client::connect_stream(Arc::new(config()), stream, pinned)
            .await
            .map_err(|fault| match fault {
                Fault::Ours(error) => error,
                Fault::Protocol(russh::Error::NoCommonAlgo {
                    kind: AlgorithmKind::Key,
                    ..
                }) => other_kind,
                Fault::Protocol(error) => broken(addr, "beginning", &error),
            })?;
        let key = PrivateKeyWithHashAlg::new(key.key(), None);
        let login = handle
            .authenticate_publickey(user, key)
            .await
            .map_err(|error| broken(addr, "logging in", &error))?;
        if !login.success() {
            let user = user.to_owned();
            return Err(SshError::LoginRefused { addr, user });
        }
        Ok(Self {
            addr,
            handle,
            _socket: socket,
        })
    }

    /// The machine at the other end.
    pub const fn address(&self) -> SocketAddr {
        self.addr
    }

    /// Runs `command` by the account's login shell with `stdin` as its standard input. Of standard output and standard
    /// error, `max_output` bytes each are kept; the rest is read and dropped.
    ///
    /// # Errors
    /// When the connection fails or the command has not ended within `limit`. The command may then still be running.
    pub async fn run(
        &self,
        command: &str,
        stdin: &[u8],
        limit: Duration,
        max_output: usize,
    ) -> Result<Output, SshError> {
        self.within(limit, async {
            let channel = self.start(command).await?;
            match exchange(channel, stdin, max_output, None::<std::future::Pending<()>>).await {
                (output, How::ByItself) => Ok(output),
                _ => Err(broken(self.addr, "running a command", &russh::Error::HUP)),
            }
        })
        .await
    }

    /// Runs a script with the program that its first line names (`#!/bin/sh`). No shell reads the text on its way;
    /// its standard input is empty. When `end` is over before the script is, it and what it began are told to terminate,
    /// and killed when they have not done so five seconds later; that is `None`. One whose connection breaks goes on.
    ///
    /// # Errors
    /// When the connection fails, and [`SshError::NoInterpreter`].
    pub async fn script(
        &self,
        text: &str,
        end: impl Future<Output = ()>,
        max_output: usize,
    ) -> Result<Option<Output>, SshError> {
        let command = script::command(script::interpreter(text)?, text.len());
        let channel = self.within(START, self.start(&command)).await?;
        match exchange(channel, text.as_bytes(), max_output, Some(end)).await {
            (output, How::ByItself) => Ok(Some(output)),
            (_, How::Told) => Ok(None),
            (_, How::Lost) => Err(broken(self.addr, "running a script", &russh::Error::HUP)),
        }
    }

    /// Says goodbye. A session that is only dropped looks to the server like a broken connection.
    pub async fn close(self) {
        // Whether the other end hears it does not matter any more.
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "");
        if goodbye.await.is_ok() {
            let _ = timeout(Duration::from_secs(1), self.handle).await;
        }
    }

    async fn start(&self, command: &str) -> Result<Channel<client::Msg>, SshError> {
        let failed = |error| broken(self.addr, "starting a command", &error);
        let mut channel = self.handle.channel_open_session().await.map_err(failed)?;
        channel.exec(true, command).await.map_err(failed)?;
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Success) => return Ok(channel),
                Some(ChannelMsg::WindowAdjusted { .. }) => {}
                Some(ChannelMsg::Failure) => {
                    return Err(SshError::Broken {
                        addr: self.addr,
                        doing: "starting a command",
                        reason: "the server does not run commands for this account".into(),
                    });
                }
                _ => return Err(failed(russh::Error::Disconnect)),
            }
        }
    }

    async fn within<T>(&self, limit: Duration, work: impl Future<Output = Result<T, SshError>>) -> Result<T, SshError> {
        timeout(limit, work).await.unwrap_or(Err(SshError::TimedOut {
            addr: self.addr,
            what: "finish the command",
            limit,
        }))
    }
}

/// How a command came to its end.
enum How {
    ByItself,
    /// It was told to end.
    Told,
    /// The connection broke first.
    Lost,
}

/// Gives the command its input and takes its output until the channel is closed. The two go on at once: a command
/// that answers while it reads would otherwise wait for us, and we for it. When `end` is over, the command is told to end
/// by one more line of input; without one its input ends at once.
async fn exchange(
    channel: Channel<client::Msg>,
    stdin: &[u8],
    max: usize,
    end: Option<impl Future<Output = ()>>,
) -> (Output, How) {
    let (mut reader, writer) = channel.split();
    let has_end = end.is_some();
    let mut feed = std::pin::pin!(async {
        // A command that does not read its input to the end is none of our business.
        let _ = writer.data(stdin).await;
        if !has_end {
            let _ = writer.eof().await;
        }
    });
    let mut end = std::pin::pin!(async {
        if let Some(end) = end {
            end.await;
            let _ = writer.data(&b"\n"[..]).await;
        }
    });
    let mut leave = std::pin::pin!(async { tokio::time::sleep(ENDS).await });
    let (mut fed, mut ended) = (false, false);
    let mut output = Output::default();
    loop {
        let message = tokio::select! {
            () = &mut feed, if !fed => {
                fed = true;
                continue;
            }
            () = &mut end, if has_end && fed && !ended => {
                ended = true;
                continue;
            }
            () = &mut leave, if ended => return (output, How::Told),
            message = reader.wait() => message,
        };
        match message {
            Some(ChannelMsg::Data { data }) => output.keep(false, &data, max),
            Some(ChannelMsg::ExtendedData { data, .. }) => output.keep(true, &data, max),
            Some(ChannelMsg::ExitStatus { exit_status }) => output.status = i32::try_from(exit_status).ok(),
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => output.signal = Some(name_of(&signal_name)),
            Some(ChannelMsg::Close) if !ended => return (output, How::ByItself),
            Some(ChannelMsg::Close) => return (output, How::Told),
            None => {
                let known = output.status.is_some() || output.signal.is_some();
                let how = match (ended, known) {
                    (false, true) => How::ByItself,
                    (true, true) => How::Told,
                    (_, false) => How::Lost,
                };
                return (output, how);
            }
            Some(_) => {}
        }
    }
}

fn name_of(signal: &russh::Sig) -> String {
    match signal {
        russh::Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}

fn config() -> client::Config {
    client::Config {
        keepalive_interval: Some(KEEPALIVE),
        nodelay: true,
        preferred: Preferred {
            // A server that has several host keys shows the one we know.
            key: Cow::Borrowed(&[Algorithm::Ed25519]),
            ..Preferred::default()
        },
        ..client::Config::default()
    }
}

async fn open(addr: SocketAddr) -> std::io::Result<(TcpStream, Socket)> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let socket = Socket(stream.try_clone()?);
    Ok((TcpStream::from_std(stream)?, socket))
}

fn unreachable(addr: SocketAddr, error: &std::io::Error) -> SshError {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => SshError::Refused(addr),
        _ => SshError::Unreachable {
            addr,
            reason: error.to_string(),
        },
    }
}

fn broken(addr: SocketAddr, doing: &'static str, error: &russh::Error) -> SshError {
    let reason = match error {
        russh::Error::HUP | russh::Error::Disconnect | russh::Error::SendError => "the other end closed it".into(),
        russh::Error::KeepaliveTimeout => "the other end fell silent".into(),
        other => other.to_string(),
    };
    SshError::Broken { addr, doing, reason }
}
