//! The TFTP thread: wait for datagrams or a deadline, hand over, carry out.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use rackbar_model::EventKind;
use rackbar_tftp::{Limits, Opening, Outcome, Output, Queue, Queued, Server, Transfer, TransferId};
use socket2::{Domain, Protocol, Socket, Type};

use super::shelf::Shelf;
use super::window::{self, Means};
use crate::Common;
use crate::mmsg::{Outbound, Receiver, send};
use crate::poll::{Poller, WAKE};
use crate::running::StopFlag;

/// Tokens from here on are sockets on port 69; below are transfers.
const LISTENER: u64 = 1 << 62;
/// A request fits into one block of RFC 1350's size; anything longer is not one.
const REQUEST: usize = 516;
/// Requests that wait for a place at one time: four times the machines that are served at once.
const WAITING: usize = 4096;
/// Of those, how many are named to whoever looks.
const SHOWN: usize = 64;
/// Refusals told of per second: a scan for file names must not fill the journal.
const REFUSALS_PER_SECOND: u32 = 32;
/// Requests told of per second: two full racks that power on together stay below, a client that asks for ever does not.
const REQUESTS_PER_SECOND: u32 = 1024;

/// How much was told in the second that began at `.0`.
#[derive(Default)]
struct Told(Duration, u32);

impl Told {
    fn another(&mut self, now: Duration, most: u32) -> bool {
        if now.saturating_sub(self.0) >= Duration::from_secs(1) {
            *self = Self(now, 0);
        }
        self.1 = self.1.saturating_add(1);
        self.1 <= most
    }
}

/// Another configuration.
pub(crate) struct Order {
    pub(crate) shelf: Shelf,
    pub(crate) limits: Limits,
    pub(crate) open: Vec<(SocketAddr, Socket)>,
    pub(crate) close: Vec<SocketAddr>,
}

struct Running {
    transfer: Box<Transfer>,
    socket: Socket,
    means: Means,
    /// The earliest entry of the timer heap that is about it.
    armed: Option<Duration>,
}

pub(crate) struct Transfers {
    poller: Poller,
    server: Server,
    limits: Limits,
    shelf: Shelf,
    common: Common,
    orders: mpsc::Receiver<Order>,
    stop: StopFlag,
    began: Instant,
    listeners: Vec<(SocketAddr, Socket, u64)>,
    next_listener: u64,
    running: HashMap<u64, Running>,
    timers: BinaryHeap<Reverse<(Duration, u64)>>,
    receiver: Receiver,
    outputs: Vec<Output>,
    /// Requests that wait for a place, with the address of ours that they came to.
    waiting: Queue<Ipv4Addr>,
    refusals: Told,
    requests: Told,
}

impl Transfers {
    pub(crate) fn new(
        poller: Poller,
        shelf: Shelf,
        limits: Limits,
        common: Common,
        orders: mpsc::Receiver<Order>,
        stop: StopFlag,
    ) -> Self {
        Self {
            poller,
            server: Server::new(limits),
            limits,
            shelf,
            common,
            orders,
            stop,
            began: Instant::now(),
            listeners: Vec::new(),
            next_listener: LISTENER,
            running: HashMap::new(),
            timers: BinaryHeap::new(),
            receiver: Receiver::new(REQUEST),
            outputs: Vec::new(),
            waiting: Queue::new(WAITING, limits.per_client),
            refusals: Told::default(),
            requests: Told::default(),
        }
    }

    pub(crate) fn listen(&mut self, sockets: Vec<(SocketAddr, Socket)>) {
        for (address, socket) in sockets {
            let token = self.next_listener;
            self.next_listener += 1;
            match self.poller.add(&socket, EpollFlags::EPOLLIN, token) {
                Ok(()) => self.listeners.push((address, socket, token)),
                Err(error) => tracing::error!(%address, %error, "TFTP: cannot watch a socket"),
            }
        }
    }

    pub(crate) fn run(mut self) {
        self.tell_busy();
        let mut ready = Vec::new();
        while !self.stop.is_set() {
            let deadline = self.timers.peek().map(|Reverse((at, _))| self.began + *at);
            if let Err(error) = self.poller.wait(deadline, &mut ready) {
                tracing::error!(%error, "TFTP: waiting for packets failed");
                return;
            }
            for (token, _) in ready.drain(..) {
                match token {
                    WAKE => self.obey(),
                    token if token >= LISTENER => self.requests(token),
                    token => self.answer(token),
                }
            }
            self.tick();
            self.admit();
        }
        self.common.metrics.tftp_transfers.set(0);
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn obey(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            self.shelf = order.shelf;
            if order.limits != self.limits {
                // Transfers under way are not counted against the new limits.
                self.limits = order.limits;
                self.waiting = Queue::new(WAITING, order.limits.per_client);
                self.server = Server::new(order.limits);
                self.tell_busy();
            }
            self.listeners.retain(|(address, _, _)| !order.close.contains(address));
            self.listen(order.open);
        }
    }

    /// Takes the requests that came to port 69.
    fn requests(&mut self, token: u64) {
        let Some(at) = self.listeners.iter().position(|l| l.2 == token) else {
            return;
        };
        let mut receiver = std::mem::replace(&mut self.receiver, Receiver::new(0));
        let mut replies = Vec::new();
        if let Some((_, socket, _)) = self.listeners.get(at)
            && receiver.receive(socket.as_fd()).is_ok_and(|count| count > 0)
        {
            for got in receiver.iter() {
                let local = got.local.unwrap_or(Ipv4Addr::UNSPECIFIED);
                if self.common.outside.holds(local.into()) {
                    continue;
                }
                if let Some(reply) = self.open(SocketAddr::V4(got.source), local, got.bytes) {
                    replies.push(Outbound {
                        to: Some(got.source),
                        from: local,
                        bytes: reply,
                    });
                }
            }
        }
        self.receiver = receiver;
        if let Some((_, socket, _)) = self.listeners.get(at) {
            // A refusal that is lost is asked for again.
            let _ = send(socket.as_fd(), &replies);
        }
    }

    /// Gives places that became free to those who wait, in the order in which they asked.
    fn admit(&mut self) {
        let waited = self.waiting.len();
        while !self.server.is_full()
            && let Some(first) = self.waiting.pop(self.now())
        {
            // What is refused by now is refused once more when its client repeats it.
            let _ = self.open(first.client, first.about, &first.request);
        }
        if self.waiting.len() != waited {
            self.tell_busy();
        }
    }

    /// Shows who waits.
    fn tell_busy(&self) {
        let metrics = &self.common.metrics;
        metrics.tftp_places.set(self.limits.transfers as u64);
        metrics.tftp_waiting.set(self.waiting.len() as u64);
        let waiting = self.waiting.iter().map(|(client, asked)| (client, self.began + asked));
        self.common.busy.set_waiting(waiting.take(SHOWN).collect());
    }

    /// Judges one request; gives what port 69 answers itself.
    fn open(&mut self, client: SocketAddr, local: Ipv4Addr, bytes: &[u8]) -> Option<Vec<u8>> {
        let now = self.now();
        let metrics = &self.common.metrics;
        match self.server.open(now, client, bytes, &self.shelf) {
            Opening::Repeated => None,
            Opening::Busy { event } => {
                let queued = self.waiting.push(now, client, bytes, local);
                if queued != Queued::Again {
                    metrics.tftp_refused.inc();
                    if self.refusals.another(now, REFUSALS_PER_SECOND) {
                        self.tell(client.ip(), event);
                    }
                }
                if queued == Queued::New {
                    self.tell_busy();
                }
                None
            }
            Opening::Refused { reply, event } => {
                metrics.tftp_refused.inc();
                if let Some(event) = event.filter(|_| self.refusals.another(now, REFUSALS_PER_SECOND)) {
                    self.tell(client.ip(), event);
                }
                reply
            }
            Opening::Begins {
                mut transfer,
                replaces,
                event,
            } => {
                metrics.tftp_requests.inc();
                if let Some(old) = replaces {
                    self.running.remove(&old.0);
                }
                if self.requests.another(now, REQUESTS_PER_SECOND) {
                    self.tell(client.ip(), event);
                }
                if let Some(mac) = self.common.clients.mac_of(client.ip()) {
                    self.common.clients.fetched(mac);
                }
                let id = transfer.id();
                match self.port_for(client, local, id) {
                    Ok(socket) => {
                        // Reading a large file took time that is not the client's: a timer that started before it
                        // would repeat the OACK at once, and atftp gives up on a second one.
                        transfer.start(self.now(), &mut self.outputs);
                        let running = Running {
                            transfer,
                            socket,
                            means: Means::Segments,
                            armed: None,
                        };
                        self.running.insert(id.0, running);
                        self.carry_out(id);
                    }
                    Err(error) => {
                        self.server.close(client, id);
                        let file = transfer.file().to_owned();
                        let reason = format!("cannot open a port for the transfer: {error}");
                        self.failed(
                            client.ip(),
                            EventKind::TftpFailed {
                                file,
                                client: client.ip(),
                                reason,
                            },
                        );
                    }
                }
                self.count();
                None
            }
        }
    }

    /// A port of its own for a transfer (RFC 1350 section 4), connected: the kernel then drops what strangers send to it
    /// and tells when the client's port is closed.
    fn port_for(&self, client: SocketAddr, local: Ipv4Addr, id: TransferId) -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        socket.bind(&SocketAddr::from((local, 0)).into())?;
        socket.connect(&client.into())?;
        self.poller.add(&socket, EpollFlags::EPOLLIN, id.0)?;
        Ok(socket)
    }

    /// Takes one datagram of a transfer's client: in lock-step there is never a second.
    fn answer(&mut self, token: u64) {
        let now = self.now();
        let Some(running) = self.running.get_mut(&token) else {
            return;
        };
        let mut buffer = [0; REQUEST];
        match io::Read::read(&mut &running.socket, &mut buffer) {
            Ok(count) => running
                .transfer
                .handle(now, buffer.get(..count).unwrap_or_default(), &mut self.outputs),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                running.transfer.unreachable(&mut self.outputs);
            }
            // No route for a moment, or nothing there: the timer goes on.
            Err(_) => {}
        }
        self.carry_out(TransferId(token));
    }

    fn tick(&mut self) {
        let now = self.now();
        while let Some(&Reverse((at, token))) = self.timers.peek() {
            if at > now {
                return;
            }
            self.timers.pop();
            if let Some(running) = self.running.get_mut(&token)
                && running.armed == Some(at)
            {
                running.armed = None;
                running.transfer.tick(now, &mut self.outputs);
                self.carry_out(TransferId(token));
            }
        }
    }

    /// Does what transfer `id` wants, then arms its timer.
    fn carry_out(&mut self, id: TransferId) {
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            let Some(running) = self.running.get_mut(&id.0) else {
                break;
            };
            match output {
                // A refused send is a lost packet to the engine; its timer sends again.
                Output::Send(bytes) => drop(running.socket.send(&bytes)),
                Output::Blocks(window) => {
                    let content = running.transfer.content();
                    if let Err(error) = window::send(&running.socket, &mut running.means, &window, content) {
                        tracing::debug!(client = %running.transfer.client(), %error, "TFTP: a window was not sent");
                    }
                    let bytes: usize = window.blocks(content).map(|(_, data)| data.len()).sum();
                    self.common.metrics.tftp_bytes.add(bytes as u64);
                }
                Output::Ended { outcome, event } => self.ended(id, outcome, event),
            }
        }
        self.outputs = outputs;
        if let Some(running) = self.running.get_mut(&id.0)
            && let Some(at) = running.transfer.deadline()
            // An earlier entry looks again when it comes up.
            && running.armed.is_none_or(|armed| at < armed)
        {
            running.armed = Some(at);
            self.timers.push(Reverse((at, id.0)));
        }
    }

    fn ended(&mut self, id: TransferId, outcome: Outcome, event: EventKind) {
        let Some(running) = self.running.remove(&id.0) else {
            return;
        };
        let client = running.transfer.client();
        self.server.close(client, id);
        if let EventKind::TftpDone { resent, .. } = &event {
            self.common.metrics.tftp_blocks_resent.add(u64::from(*resent));
        }
        match outcome {
            Outcome::Complete => {
                self.common.metrics.tftp_done.inc();
                self.tell(client.ip(), event);
            }
            Outcome::SizeOnly => self.tell(client.ip(), event),
            Outcome::Failed => self.failed(client.ip(), event),
        }
        self.count();
    }

    fn failed(&self, client: IpAddr, event: EventKind) {
        self.common.metrics.tftp_failed.inc();
        self.tell(client, event);
    }

    fn tell(&self, client: IpAddr, event: EventKind) {
        let mac = self.common.clients.mac_of(client);
        if let EventKind::TftpRequest { file, .. } = &event {
            self.common.busy.ask(mac, client, file);
        }
        self.common.events.event(mac, event);
    }

    fn count(&self) {
        self.common.metrics.tftp_transfers.set(self.running.len() as u64);
    }
}
