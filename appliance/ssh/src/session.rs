//! A connection to one machine, and commands over it.

use std::borrow::Cow;
use std::future::Future;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use russh::client::{self, Handle};
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Channel, ChannelMsg, Disconnect, Preferred};
use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::script::{self, BEAT, END, Load, NOT_RUN, SAYS};
use crate::{ClientKey, SshError, keys};

/// Between two signs of life on a connection that is silent: a command may run for an hour without a word, and a
/// machine that lost its power says nothing either.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Time a machine has to take a TCP connection. Who waits longer for one that just starts waits for the kernel's later repeats,
/// which are 8 and 16 s apart, and misses the moment in which it is up.
const ANSWERS: Duration = Duration::from_secs(5);

/// Time to begin a script on a connection that stands.
const START: Duration = Duration::from_secs(30);

/// Time what is told to end has until we leave it: it terminates, or is killed after five seconds.
const ENDS: Duration = Duration::from_secs(15);

/// How long a script or program goes on without hearing of us: longer than a switch takes to begin anew, shorter than
/// anybody waits for the next try.
const LEASE: Duration = Duration::from_secs(45);

/// Time after the last sign of life in which a script or program has surely ended: the lease, and what it takes to end it.
pub const ENDED_AFTER: Duration = LEASE.saturating_add(ENDS);

/// Signs of life within a lease.
const BEATS: u32 = 4;

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
    lease: Duration,
    _socket: Socket,
}

/// A program to be carried to a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Program<'a> {
    /// Its SHA-256 in 64 lower-case hexadecimal digits; the machine compares it before it runs anything.
    pub sha256: &'a str,
    /// Bytes it has.
    pub bytes: u64,
    /// What it is started with. Whoever is on the machine can read it.
    pub arguments: &'a [String],
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

/// By what the host key of a machine that is met for the first time is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// It has this fingerprint, as [`parse`](Self::parse) takes it.
    Fingerprint(String),
    /// Whatever it shows: the caller's user has said so.
    FirstUse,
}

impl Trust {
    /// Takes a fingerprint as `ssh-keygen -l` writes it: `SHA256:` and 43 characters of base64.
    ///
    /// # Errors
    /// [`SshError::BadFingerprint`] when it is none.
    pub fn parse(text: &str) -> Result<Self, SshError> {
        let bad = || SshError::BadFingerprint(text.chars().take(80).collect());
        let digits = text.trim().strip_prefix("SHA256:").ok_or_else(bad)?;
        let digits = digits.trim_end_matches('=');
        let base64 = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
        if digits.len() != 43 || !digits.bytes().all(base64) {
            return Err(bad());
        }
        Ok(Self::Fingerprint(format!("SHA256:{digits}")))
    }
}

/// Which host keys are taken.
enum Wanted {
    Key(Box<PublicKey>),
    Met(Trust),
}

/// Takes one host key and no other.
struct Pinned {
    addr: SocketAddr,
    wanted: Wanted,
    /// The key that was taken.
    taken: Arc<OnceLock<PublicKey>>,
}

impl Pinned {
    fn takes(&self, key: &PublicKey) -> bool {
        match &self.wanted {
            Wanted::Key(wanted) => key.key_data() == wanted.key_data(),
            Wanted::Met(Trust::Fingerprint(wanted)) => key.fingerprint(HashAlg::Sha256).to_string() == *wanted,
            Wanted::Met(Trust::FirstUse) => key.algorithm() == Algorithm::Ed25519,
        }
    }

    fn other(&self, seen: String) -> SshError {
        SshError::OtherHostKey {
            addr: self.addr,
            wanted: match &self.wanted {
                Wanted::Key(wanted) => wanted.fingerprint(HashAlg::Sha256).to_string(),
                Wanted::Met(Trust::Fingerprint(wanted)) => wanted.clone(),
                Wanted::Met(Trust::FirstUse) => "any Ed25519 key".into(),
            },
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
            PublicKeyOrCertificate::PublicKey { key, .. } if self.takes(key) => {
                // Set by the one handshake of the connection; a later key exchange shows the same key.
                let _ = self.taken.set(key.clone());
                Ok(true)
            }
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
        let wanted = Wanted::Key(Box::new(keys::public(host_key)?));
        let (session, _) = Self::bounded(addr, user, key, wanted, limit).await?;
        Ok(session)
    }

    /// Connects to a machine whose host key is not known yet and logs in as [`connect`](Self::connect) does. With the
    /// session comes the line of its public host key, by which it is known from now on.
    ///
    /// # Errors
    /// As there; [`SshError::OtherHostKey`] when it shows another key than `trust` says, before anything is sent.
    pub async fn meet(
        addr: SocketAddr,
        user: &str,
        key: &ClientKey,
        trust: Trust,
        limit: Duration,
    ) -> Result<(Self, String), SshError> {
        Self::bounded(addr, user, key, Wanted::Met(trust), limit).await
    }

    async fn bounded(
        addr: SocketAddr,
        user: &str,
        key: &ClientKey,
        wanted: Wanted,
        limit: Duration,
    ) -> Result<(Self, String), SshError> {
        let taken = Arc::new(OnceLock::new());
        let pinned = Pinned {
            addr,
            wanted,
            taken: taken.clone(),
        };
        let work = Self::connect_unbounded(addr, user, key, pinned);
        let session = timeout(limit, work).await.unwrap_or(Err(SshError::TimedOut {
            addr,
            what: "answer SSH and let us log in",
            limit,
        }))?;
        let line = taken.get().map(keys::line).transpose()?;
        Ok((session, line.unwrap_or_default()))
    }

    async fn connect_unbounded(
        addr: SocketAddr,
        user: &str,
        key: &ClientKey,
        pinned: Pinned,
    ) -> Result<Self, SshError> {
        let opened = timeout(ANSWERS, open(addr))
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let (stream, socket) = opened.map_err(|error| unreachable(addr, &error))?;
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
            lease: LEASE,
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
            match exchange(channel, stdin, max_output, None::<Hold<std::future::Pending<()>>>).await {
                (output, How::ByItself) => Ok(output),
                _ => Err(broken(self.addr, "running a command", &russh::Error::HUP)),
            }
        })
        .await
    }

    /// Another time that scripts and programs go on without hearing of us, instead of 45 s.
    #[must_use]
    pub const fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Runs a script with the program that its first line names (`#!/bin/sh`). No shell reads the text on its way;
    /// its standard input is empty. When `end` is over before the script is, it and what it began are told to terminate,
    /// and killed when they have not done so five seconds later; that is `None`. The same is done on the machine when the
    /// connection breaks, and when nothing came through it for the time of the lease.
    ///
    /// Of what it began, the machine finds all that is in its process group, and all that still has `RACKBAR_STEP` in an
    /// environment that the account may read.
    ///
    /// # Errors
    /// When the connection fails, which is told when the script has surely ended; [`SshError::NotRun`] when nothing was
    /// begun, and [`SshError::NoInterpreter`].
    pub async fn script(
        &self,
        text: &str,
        end: impl Future<Output = ()>,
        max_output: usize,
    ) -> Result<Option<Output>, SshError> {
        let load = Load::Script(script::interpreter(text)?);
        self.carry(load, text.as_bytes(), text.len() as u64, end, max_output)
            .await
    }

    /// Carries a program to the machine, into a folder that only the account can look into, compares its digest there,
    /// runs it with an empty standard input, and takes it away again. Ended like a [`script`](Self::script).
    ///
    /// # Errors
    /// When the connection fails, which is told when the program has surely ended, and [`SshError::NotRun`] when nothing
    /// was begun: it did not arrive as it was, or no folder takes a program.
    pub async fn program(
        &self,
        program: Program<'_>,
        content: impl AsyncRead + Unpin,
        end: impl Future<Output = ()>,
        max_output: usize,
    ) -> Result<Option<Output>, SshError> {
        let Program {
            sha256,
            bytes,
            arguments,
        } = program;
        let load = Load::Program { sha256, arguments };
        self.carry(load, content, bytes, end, max_output).await
    }

    async fn carry(
        &self,
        load: Load<'_>,
        content: impl AsyncRead + Unpin,
        bytes: u64,
        end: impl Future<Output = ()>,
        max_output: usize,
    ) -> Result<Option<Output>, SshError> {
        let (addr, what) = match load {
            Load::Script(_) => (self.addr, "running a script"),
            Load::Program { .. } => (self.addr, "running a program"),
        };
        let command = script::command(load, bytes, self.lease);
        let channel = self.within(START, self.start(&command)).await?;
        let hold = Hold {
            end,
            beat: self.lease / BEATS,
        };
        match exchange(channel, content, max_output, Some(hold)).await {
            (output, How::ByItself) => match not_run(&output) {
                Some(reason) => Err(SshError::NotRun { addr, reason }),
                None => Ok(Some(output)),
            },
            (_, How::Told) => Ok(None),
            (_, How::Unread(reason)) => Err(SshError::NotRun { addr, reason }),
            (_, How::Lost { begun }) => {
                // Its lease runs on over there. Whoever hears of the loss may try again at once.
                if begun {
                    tokio::time::sleep(self.lease.saturating_add(ENDS)).await;
                }
                Err(broken(addr, what, &russh::Error::HUP))
            }
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

/// Why a script or program was not begun, when it says so.
fn not_run(output: &Output) -> Option<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = said.lines().last()?.strip_prefix(SAYS)?;
    (output.status == Some(NOT_RUN)).then(|| reason.to_owned())
}

/// How a command came to its end.
enum How {
    ByItself,
    /// It was told to end.
    Told,
    /// What it was to be given cannot be read.
    Unread(String),
    /// The connection broke first.
    Lost {
        /// All of its input had been sent.
        begun: bool,
    },
}

/// Holds a command that goes on as long as we are interested.
struct Hold<E> {
    /// It is to end when this is over.
    end: E,
    /// Between two signs of life.
    beat: Duration,
}

/// Gives the command its input and takes its output until the channel is closed. The two go on at once: a command
/// that answers while it reads would otherwise wait for us, and we for it. A command that is held gets signs of life
/// behind its input and one line more when it is to end; any other sees the end of its input at once.
async fn exchange<E: Future<Output = ()>>(
    channel: Channel<client::Msg>,
    stdin: impl AsyncRead + Unpin,
    max: usize,
    hold: Option<Hold<E>>,
) -> (Output, How) {
    let (mut reader, writer) = channel.split();
    let all_sent = AtomicBool::new(false);
    let held = hold.is_some();
    let (beat, end) = hold.map_or((Duration::MAX, None), |hold| (hold.beat, Some(hold.end)));
    let mut feed = std::pin::pin!(async {
        // A command that does not read its input to the end is none of our business.
        let sent = writer.data(stdin).await;
        if !held {
            let _ = writer.eof().await;
            return Ok(());
        }
        if let Err(error) = sent {
            // What is over there waits for the rest.
            let _ = writer.close().await;
            return Err(error.to_string());
        }
        all_sent.store(true, Ordering::Relaxed);
        while writer.data(BEAT).await.is_ok() {
            tokio::time::sleep(beat).await;
        }
        Ok(())
    });
    let mut end = std::pin::pin!(async {
        if let Some(end) = end {
            end.await;
            // In the middle of its input a line would be a part of that.
            let _ = match all_sent.load(Ordering::Relaxed) {
                true => writer.data(END).await,
                false => writer.close().await,
            };
        }
    });
    let mut leave = std::pin::pin!(async { tokio::time::sleep(ENDS).await });
    let (mut fed, mut ended, mut unread) = (false, false, None);
    let mut output = Output::default();
    loop {
        let message = tokio::select! {
            sent = &mut feed, if !fed && !ended => {
                (fed, unread) = (true, sent.err());
                continue;
            }
            () = &mut end, if held && !ended => {
                ended = true;
                continue;
            }
            () = &mut leave, if ended || unread.is_some() => {
                let how = unread.map_or(How::Told, How::Unread);
                return (output, how);
            }
            message = reader.wait() => message,
        };
        match message {
            Some(ChannelMsg::Data { data }) => output.keep(false, &data, max),
            Some(ChannelMsg::ExtendedData { data, .. }) => output.keep(true, &data, max),
            Some(ChannelMsg::ExitStatus { exit_status }) => output.status = i32::try_from(exit_status).ok(),
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => output.signal = Some(name_of(&signal_name)),
            Some(ChannelMsg::Close) if ended => return (output, How::Told),
            Some(ChannelMsg::Close) => {
                // One that ends before it took its input says itself why.
                let how = match unread.filter(|_| output.status.is_none()) {
                    Some(reason) => How::Unread(reason),
                    None => How::ByItself,
                };
                return (output, how);
            }
            None => {
                let known = output.status.is_some() || output.signal.is_some();
                let how = match (ended, known) {
                    (false, true) => How::ByItself,
                    (true, true) => How::Told,
                    (_, false) => How::Lost {
                        begun: all_sent.load(Ordering::Relaxed),
                    },
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
        std::io::ErrorKind::TimedOut => SshError::TimedOut {
            addr,
            what: "answer at all",
            limit: ANSWERS,
        },
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
