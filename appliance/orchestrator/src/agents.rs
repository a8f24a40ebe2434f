//! The agents' server: TLS, frames of `rackbar-messages`, one conversation per node.
//!
//! A connection has ten seconds to greet, and three heartbeats of silence end it. Nobody gets past the greeting without
//! a token or a session of ours, and until then costs a bounded buffer and one of [`MAX_CONNECTIONS`] places.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rackbar_messages::{
    FromAgent, Hello, MAX_FRAME, PROTOCOL_VERSION, RefusedReason, ToAgent, Welcome, decode, encode,
};
use rackbar_model::{BootStage, EventKind, MacAddr, NodeId, Severity};
use rackbar_plan::Progress;
use rackbar_services::Outside;
use rackbar_trust::Secret;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::Rack;
use crate::power::Asks;
use crate::rack::{locked, now};
use crate::record::AgentLink;
use crate::tokens::{Admitted, Denied};

/// Connections at a time, greeted or not.
const MAX_CONNECTIONS: usize = 8_192;

/// Time for the TLS handshake and the greeting together.
const GREETING: Duration = Duration::from_secs(10);

/// Longest greeting in bytes: a stranger need not make us hold a megabyte.
const MAX_HELLO: usize = 16 << 10;

/// How the agents' server behaves.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Interval of heartbeats; three without one end a connection.
    pub heartbeat: Duration,
    /// Addresses of ours at which no agent is served.
    pub outside: Outside,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            outside: Outside::default(),
        }
    }
}

/// Serves agents on `listener` until `stop` is true or its sender is gone.
pub async fn run(
    rack: Rack,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    options: AgentOptions,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors: waiting a little lets connections end; spinning would not.
                tracing::warn!(%error, "an agent's connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let local = stream.local_addr();
        if local.is_ok_and(|local| options.outside.holds(local.ip())) {
            continue;
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let talk = connection(rack.clone(), acceptor.clone(), stream, peer, options.clone());
        tasks.spawn(async move {
            talk.await;
            drop(place);
        });
    }
    tasks.shutdown().await;
}

async fn connection(rack: Rack, acceptor: TlsAcceptor, stream: TcpStream, peer: SocketAddr, options: AgentOptions) {
    let _ = stream.set_nodelay(true);
    let greeting = async {
        let mut stream = acceptor.accept(stream).await?;
        let hello: FromAgent = read(&mut stream, MAX_HELLO).await?;
        io::Result::Ok((stream, hello))
    };
    let (mut stream, hello) = match tokio::time::timeout(GREETING, greeting).await {
        Ok(Ok((stream, FromAgent::Hello(hello)))) => (stream, hello),
        // Scanners and half-open connections: not worth an event each.
        Ok(Ok(_)) => return tracing::debug!(%peer, "an agent did not say hello first"),
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "no greeting on the agent port"),
        Err(_) => return tracing::debug!(%peer, "no greeting on the agent port in time"),
    };
    match admit(&rack, &hello, peer.ip()).await {
        Ok(admitted) => {
            if admitted.second_chance {
                came_again(&rack, admitted.node, peer.ip());
            }
            let session = Session {
                rack,
                hello,
                peer: peer.ip(),
                options,
                node: admitted.node,
                asks: Arc::default(),
            };
            session.run(stream, admitted).await;
        }
        Err(Denied::Refused(reason)) => {
            refused(&rack, &hello, peer.ip(), reason);
            let _ = tokio::time::timeout(GREETING, write(&mut stream, &ToAgent::Refused(reason))).await;
            let _ = stream.shutdown().await;
        }
        // Closing without a word: the agent keeps its proof and comes again.
        Err(Denied::Trouble(reason)) => tracing::error!(%peer, %reason, "an agent could not be admitted"),
    }
}

async fn admit(rack: &Rack, hello: &Hello, from: IpAddr) -> Result<Admitted, Denied> {
    if hello.version != PROTOCOL_VERSION {
        return Err(RefusedReason::Version.into());
    }
    let (rack, proof, mac) = (rack.clone(), hello.proof.clone(), hello.boot_mac);
    // It waits for the disk, which the threads of the runtime must not.
    let work = move || {
        let find = |mac| rack.with(|mind, now| mind.node_of_mac(now, mac));
        let admitted = locked(&rack.inner.tokens).admit(&proof, mac, from, now(), find);
        admitted?.durable()
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Denied::Trouble(error.to_string())))
}

fn came_again(rack: &Rack, node: NodeId, address: IpAddr) {
    let text = format!(
        "its agent at {address} showed its boot token once more before it had said anything: the welcome did not reach \
         it, so it got another"
    );
    let severity = Severity::Warning;
    rack.with(|mind, now| mind.emit(now, Some(mind.resolve(node)), None, EventKind::Note { text, severity }));
}

fn refused(rack: &Rack, hello: &Hello, address: IpAddr, reason: RefusedReason) {
    rack.with(|mind, now| {
        let node = mind.by_mac.get(&hello.boot_mac).copied();
        if mind.stranger_may_speak(now) {
            let kind = EventKind::AgentRefused {
                address,
                reason: reason.to_string(),
            };
            mind.emit(now, node, Some(hello.boot_mac), kind);
        }
    });
}

/// One agent after a good greeting.
struct Session {
    rack: Rack,
    hello: Hello,
    peer: IpAddr,
    options: AgentOptions,
    node: NodeId,
    asks: Arc<Asks>,
}

impl Session {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S, admitted: Admitted) {
        let connection = self.rack.inner.connections.fetch_add(1, Ordering::Relaxed);
        let (send, to_send) = mpsc::channel(16);
        let (reader, mut writer) = tokio::io::split(stream);
        let name = self
            .rack
            .with(|mind, _| mind.node(self.node))
            .map(|node| node.name.clone());
        let welcome = Welcome {
            node: self.node,
            name: name.unwrap_or_default(),
            session: *admitted.session.expose(),
            heartbeat_millis: u32::try_from(self.options.heartbeat.as_millis()).unwrap_or(u32::MAX),
            now_millis: now().0,
        };
        if let Err(error) = write(&mut writer, &ToAgent::Welcome(welcome)).await {
            return tracing::debug!(peer = %self.peer, %error, "an agent left before its welcome");
        }
        let asks = self.asks.clone();
        // A session lasts for one boot; its digest tells boots apart and opens nothing.
        let boot = rackbar_trust::sha256(admitted.session.expose());
        let link = AgentLink {
            connection,
            boot,
            send,
            asks,
        };
        self.rack.with(|mind, now| {
            // Tells where the time between the boot program's last word and now went.
            if !admitted.again {
                let uptime_millis = self.hello.uptime_millis;
                let started = EventKind::Boot(BootStage::AgentStarted { uptime_millis });
                mind.emit(now, Some(mind.resolve(self.node)), None, started);
            }
            mind.agent_up(now, self.node, self.peer, admitted.again, link);
        });
        let session = admitted.session;
        let reason = tokio::select! {
            reason = self.read_all(reader, &session) => reason,
            reason = write_all(writer, to_send) => reason,
        };
        self.asks.end();
        self.rack
            .with(|mind, now| mind.agent_lost(now, self.node, connection, reason));
    }

    /// Takes what the agent says until it ends; says why it ended.
    async fn read_all<R: AsyncRead + Unpin>(&self, mut reader: R, session: &Secret<32>) -> String {
        let patience = self.options.heartbeat * 3;
        let mut silent = true;
        loop {
            let message = match tokio::time::timeout(patience, read(&mut reader, MAX_FRAME)).await {
                Ok(Ok(message)) => message,
                // A machine that goes down has no time to say goodbye in TLS.
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return "it ended the connection".into();
                }
                Ok(Err(error)) => return error.to_string(),
                Err(_) => {
                    return format!(
                        "nothing was heard for {} s: the machine hangs, is off or its link is down",
                        patience.as_secs()
                    );
                }
            };
            if std::mem::take(&mut silent) {
                locked(&self.rack.inner.tokens).heard(session.expose());
            }
            match message {
                FromAgent::Hello(_) => return "it greeted twice".into(),
                FromAgent::Heartbeat { .. } => self.rack.with(|mind, now| mind.heartbeat(now, self.node)),
                FromAgent::Facts(inventory) => self.facts(*inventory, self.hello.boot_mac),
                FromAgent::Done { id, result } => {
                    if let Some(Err(reason)) = self.asks.answered(id, result) {
                        self.could_not(&reason);
                    }
                }
                FromAgent::Progress {
                    job,
                    doing,
                    done,
                    total,
                } => {
                    // Of a job that nobody waits for yet: the appliance was restarted.
                    self.rack.inner.jobs.progress(job, Progress { doing, done, total });
                }
                FromAgent::Ended { job, result } => self.rack.inner.jobs.ended(job, result),
                FromAgent::Port { mac, says } => self.rack.with(|mind, now| mind.port_says(now, self.node, mac, says)),
            }
        }
    }

    fn could_not(&self, reason: &str) {
        let text = format!("the agent could not do what it was asked: {reason}");
        let severity = Severity::Error;
        self.rack.with(|mind, now| {
            let node = mind.resolve(self.node);
            mind.emit(now, Some(node), None, EventKind::Note { text, severity });
        });
    }

    fn facts(&self, inventory: rackbar_model::Inventory, boot_mac: MacAddr) {
        let history = self.rack.with(|mind, now| {
            let history = mind.facts(now, self.node, inventory, boot_mac);
            history.map(|inventory| (mind.resolve(self.node), now, inventory))
        });
        if let Some((node, at, inventory)) = history {
            self.rack.store().save_inventory(node, at, &inventory);
        }
    }
}

/// Sends what is asked of the agent until the connection fails.
async fn write_all<W: AsyncWrite + Unpin>(mut writer: W, mut to_send: mpsc::Receiver<ToAgent>) -> String {
    while let Some(message) = to_send.recv().await {
        if let Err(error) = write(&mut writer, &message).await {
            return error.to_string();
        }
    }
    // The link was replaced: a newer connection of the same machine stands.
    "it connected anew".into()
}

/// Reads one frame of at most `limit` bytes. Memory grows with what arrives, not with what the length promises.
async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin), limit: usize) -> io::Result<T> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let length = u64::from(u32::from_be_bytes(header));
    if length > limit as u64 {
        let text = format!("a message of {length} bytes is over the limit of {limit}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body).await?;
    if body.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    decode(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &ToAgent) -> io::Result<()> {
    stream.write_all(&encode(message)).await?;
    stream.flush().await
}
