//! One connection to the appliance, from the first byte to the last.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use rackbar_messages::{
    Ask, FromAgent, Hello, JobId, MAX_FRAME, PROTOCOL_VERSION, Proof, RefusedReason, ToAgent, Welcome, decode, encode,
};
use rackbar_model::{Inventory, MacAddr};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::arguments::Enrolment;
use crate::facts::Facts;
use crate::jobs::Jobs;
use crate::pin::Pinned;
use crate::report::{say, uptime_millis};
use crate::{clock, facts};

/// For connecting and for each step of the handshake.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// From `Hello` to `Welcome`: the appliance writes to its store in between, perhaps for a whole rack at once.
pub(crate) const WELCOME_PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that stay unacknowledged this long mean the appliance is gone; heartbeats see to it that there are some.
const SILENCE_MILLIS: u32 = 20_000;

/// Heartbeats are kept within these bounds whatever we are told.
const HEARTBEAT: std::ops::RangeInclusive<u64> = 1_000..=300_000;

/// Progress of a job is said this often.
const PROGRESS: Duration = Duration::from_millis(500);

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    /// It never got as far as an answer.
    Failed(String),
    /// The appliance refused us.
    Refused(RefusedReason),
    /// It ended after a welcome.
    Lost(String),
}

impl End {
    /// True when the appliance had accepted us.
    pub fn was_welcome(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => write!(f, "the appliance cannot be reached: {why}"),
            Self::Refused(reason) => write!(f, "the appliance refused this machine: {reason}"),
            Self::Lost(why) => write!(f, "the connection to the appliance ended: {why}"),
        }
    }
}

/// What entitles us to speak: the token once, then the secret of the session. In memory only.
pub struct Credentials {
    proof: Proof,
    boot_mac: Option<MacAddr>,
}

impl Credentials {
    /// Starts with the boot token.
    pub fn new(enrolment: &Enrolment) -> Self {
        Self {
            proof: Proof::BootToken(enrolment.token),
            boot_mac: enrolment.boot_mac,
        }
    }

    fn hello(&self, inventory: Option<&Inventory>) -> Hello {
        let macs: Vec<MacAddr> = match inventory {
            Some(inventory) => inventory.nics.iter().map(|nic| nic.mac).collect(),
            None => facts::macs(),
        };
        // Without BOOTIF (a kernel started by hand) the first interface stands in; the appliance compares it.
        let boot_mac = self.boot_mac.or_else(|| macs.first().copied()).unwrap_or_default();
        Hello {
            version: PROTOCOL_VERSION,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            proof: self.proof.clone(),
            boot_mac,
            macs,
            uptime_millis: uptime_millis(),
        }
    }
}

/// The encrypted stream and what came over it so far.
struct Channel {
    stream: TcpStream,
    tls: ClientConnection,
    inbox: Vec<u8>,
}

impl Channel {
    /// Connects and shakes hands; the certificate is checked here.
    fn open(server: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        setsockopt(&stream, sockopt::TcpUserTimeout, &SILENCE_MILLIS)?;
        let name = ServerName::from(server.ip());
        let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        // An inventory is longer than the 64 KiB that are put aside by default.
        tls.set_buffer_limit(None);
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Self {
            stream,
            tls,
            inbox: Vec::new(),
        })
    }

    fn send(&mut self, message: &FromAgent) -> io::Result<()> {
        self.tls.writer().write_all(&encode(message))?;
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.stream)?;
        }
        Ok(())
    }

    /// Takes in what has arrived. `false` when the other side closed.
    fn fill(&mut self) -> io::Result<bool> {
        let open = self.tls.read_tls(&mut self.stream)? > 0;
        let state = self.tls.process_new_packets().map_err(io::Error::other)?;
        let start = self.inbox.len();
        self.inbox.resize(start + state.plaintext_bytes_to_read(), 0);
        if let Some(room) = self.inbox.get_mut(start..) {
            self.tls.reader().read_exact(room)?;
        }
        // Key updates and alerts want an answer.
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.stream)?;
        }
        Ok(open && !state.peer_has_closed())
    }

    /// The next whole message, if it is there.
    fn next(&mut self) -> Result<Option<ToAgent>, String> {
        let Some(header) = self.inbox.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*header) as usize;
        if length > MAX_FRAME {
            return Err(format!("a message of {length} bytes is over the limit"));
        }
        let Some(body) = self.inbox.get(4..4 + length) else {
            return Ok(None);
        };
        let message = decode(body).map_err(|error| error.to_string())?;
        self.inbox.drain(..4 + length);
        Ok(Some(message))
    }

    /// Waits for the next message until `deadline`.
    fn wait(&mut self, deadline: Instant) -> Result<ToAgent, String> {
        loop {
            if let Some(message) = self.next()? {
                return Ok(message);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::from(u16::try_from(left.as_millis()).unwrap_or(u16::MAX));
            match poll(&mut [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => return Err("no answer came".to_owned()),
                Ok(_) if !self.fill().map_err(|e| e.to_string())? && self.inbox.is_empty() => {
                    return Err("it closed the connection".to_owned());
                }
                _ => {}
            }
        }
    }
}

/// A connection on which we were welcomed.
pub struct Session {
    channel: Channel,
    welcome: Welcome,
    /// Version of the inventory that was sent last.
    sent: u64,
    /// News of switch ports that were sent on this connection.
    ports_sent: usize,
    /// Ends of jobs that were said on this connection.
    said: HashSet<JobId>,
    /// When progress may be said again.
    progress_due: Instant,
}

impl Session {
    /// Connects, proves who we are, and waits for the answer. A welcome gives `credentials` the session's secret and
    /// sets host name and clock.
    pub fn open(
        server: SocketAddr,
        config: Arc<ClientConfig>,
        credentials: &mut Credentials,
        facts: &Facts,
        pinned: &Pinned,
    ) -> Result<Self, End> {
        let mut channel = Channel::open(server, config).map_err(|error| End::Failed(in_words(&error)))?;
        let latest = facts.latest();
        let hello = credentials.hello(latest.as_ref().map(|(_, inventory)| inventory.as_ref()));
        channel
            .send(&FromAgent::Hello(hello))
            .map_err(|error| End::Failed(error.to_string()))?;
        match channel.wait(Instant::now() + WELCOME_PATIENCE).map_err(End::Failed)? {
            ToAgent::Welcome(welcome) => {
                credentials.proof = Proof::Session(welcome.session);
                greet(&welcome, pinned);
                Ok(Self {
                    channel,
                    welcome,
                    sent: 0,
                    ports_sent: 0,
                    said: HashSet::new(),
                    progress_due: Instant::now(),
                })
            }
            ToAgent::Refused(reason) => Err(End::Refused(reason)),
            ToAgent::Ask { .. } | ToAgent::Noted(_) => Err(End::Failed("it asked before it answered".to_owned())),
        }
    }

    /// What the appliance said in its welcome.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Reports and obeys until the connection ends.
    pub fn serve(mut self, facts: &Facts, jobs: &Jobs) -> End {
        loop {
            if let Err(why) = self.turn(facts, jobs) {
                return End::Lost(why);
            }
        }
    }

    /// One round: news out, a heartbeat, then what comes in until the next heartbeat is due.
    fn turn(&mut self, facts: &Facts, jobs: &Jobs) -> Result<(), String> {
        let words = |error: io::Error| error.to_string();
        self.send_news(facts).map_err(words)?;
        self.channel
            .send(&FromAgent::Heartbeat {
                uptime_millis: uptime_millis(),
            })
            .map_err(words)?;
        let interval = u64::from(self.welcome.heartbeat_millis).clamp(*HEARTBEAT.start(), *HEARTBEAT.end());
        let due = Instant::now() + Duration::from_millis(interval);
        loop {
            while let Some(message) = self.channel.next()? {
                self.take(message, facts, jobs)?;
            }
            self.tell_of_jobs(jobs).map_err(words)?;
            let now = Instant::now();
            if now >= due {
                return Ok(());
            }
            let wake = if jobs.is_busy() {
                due.min(self.progress_due)
            } else {
                due
            };
            self.wait(wake, facts, jobs)?;
        }
    }

    /// Sleeps until `wake`, or until something arrives or is new, and takes that in.
    fn wait(&mut self, wake: Instant, facts: &Facts, jobs: &Jobs) -> Result<(), String> {
        let words = |error: io::Error| error.to_string();
        let left = wake.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::from(u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX));
        let mut fds = vec![PollFd::new(self.channel.stream.as_fd(), PollFlags::POLLIN)];
        fds.extend(jobs.news().map(|news| PollFd::new(news, PollFlags::POLLIN)));
        fds.extend(facts.news().map(|news| PollFd::new(news, PollFlags::POLLIN)));
        let _ = poll(&mut fds, timeout);
        let readable = fds.first().and_then(PollFd::any).unwrap_or(false);
        jobs.hear();
        self.send_news(facts).map_err(words)?;
        if readable && !self.channel.fill().map_err(words)? && self.channel.inbox.is_empty() {
            return Err("it closed the connection".to_owned());
        }
        Ok(())
    }

    fn take(&mut self, message: ToAgent, facts: &Facts, jobs: &Jobs) -> Result<(), String> {
        match message {
            ToAgent::Ask { id, ask } => self.obey(id, ask, facts, jobs).map_err(|error| error.to_string()),
            ToAgent::Noted(job) if jobs.noted(job) => {
                say!("the installed kernel starts now");
                end_machine(Signal::SIGQUIT).map_err(|error| error.to_string())
            }
            ToAgent::Noted(_) => Ok(()),
            ToAgent::Welcome(_) => Err("it welcomed us twice".to_owned()),
            ToAgent::Refused(reason) => Err(reason.to_string()),
        }
    }

    /// Ends of jobs that this connection has not carried yet, and the progress of the running one when it is due.
    fn tell_of_jobs(&mut self, jobs: &Jobs) -> io::Result<()> {
        for message in jobs.unsaid(&self.said) {
            if let FromAgent::Ended { job, .. } = &message {
                self.said.insert(*job);
            }
            self.channel.send(&message)?;
        }
        let now = Instant::now();
        if now < self.progress_due {
            return Ok(());
        }
        if let Some((job, progress)) = jobs.progress() {
            self.progress_due = now + PROGRESS;
            self.channel.send(&FromAgent::Progress {
                job,
                doing: progress.doing,
                done: progress.done,
                total: progress.total,
            })?;
        }
        Ok(())
    }

    /// Sends the inventory when there is a newer one than the appliance has, and then what is new of switch ports: the
    /// appliance knows the interfaces by then.
    fn send_news(&mut self, facts: &Facts) -> io::Result<()> {
        facts.hear();
        self.send_inventory(facts)?;
        if self.sent > 0 {
            for (mac, says) in facts.ports(self.ports_sent) {
                self.channel.send(&FromAgent::Port { mac, says })?;
                self.ports_sent += 1;
                say!("{mac}: {says}");
            }
        }
        Ok(())
    }

    fn send_inventory(&mut self, facts: &Facts) -> io::Result<()> {
        let Some((version, inventory)) = facts.latest().filter(|(version, _)| *version != self.sent) else {
            return Ok(());
        };
        self.channel
            .send(&FromAgent::Facts(Box::new(inventory.as_ref().clone())))?;
        self.sent = version;
        say!("inventory sent: {}", facts::in_short(&inventory));
        Ok(())
    }

    fn obey(&mut self, id: u32, ask: Ask, facts: &Facts, jobs: &Jobs) -> io::Result<()> {
        let result = match ask {
            Ask::Facts => {
                say!("the appliance asks for a new inventory");
                self.sent = 0;
                facts.look_again();
                Ok(())
            }
            Ask::Reboot => {
                say!("the appliance restarts this machine");
                self.channel.send(&FromAgent::Done { id, result: Ok(()) })?;
                return end_machine(Signal::SIGTERM);
            }
            Ask::PowerOff => {
                say!("the appliance switches this machine off");
                self.channel.send(&FromAgent::Done { id, result: Ok(()) })?;
                return end_machine(Signal::SIGUSR2);
            }
            Ask::Begin { job, work } => {
                let begun = jobs.begin(job, *work);
                jobs.say_again(job);
                self.said.remove(&job);
                begun
            }
            Ask::GiveUp(job) => jobs.give_up(job),
        };
        self.channel.send(&FromAgent::Done { id, result })
    }
}

/// Tells PID 1 to go down; it knows the order. The answer has left before: nothing can be sent afterwards.
fn end_machine(signal: Signal) -> io::Result<()> {
    kill(Pid::from_raw(1), signal).map_err(io::Error::from)
}

/// Host name and clock, as the appliance says.
fn greet(welcome: &Welcome, pinned: &Pinned) {
    say!("enrolled as {} ({})", welcome.name, welcome.node);
    if let Err(error) = nix::unistd::sethostname(&welcome.name) {
        say!("the host name cannot be set to {}: {error}", welcome.name);
    }
    if clock::follow(&clock::Machine, welcome.now_millis) {
        pinned.trust_clock();
    }
}

/// The two failures of a handshake that an operator can act on, in words.
fn in_words(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            "its certificate is not of the site this machine was booted from (rackbar.pin); \
             another appliance answers at this address, or the site's certificate was renewed: boot the machine again"
                .to_owned()
        }
        Some(rustls::Error::InvalidCertificate(why)) => format!("its certificate is not acceptable: {why}"),
        _ => error.to_string(),
    }
}
