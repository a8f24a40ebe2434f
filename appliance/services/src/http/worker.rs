//! A thread of the boot HTTP server: its listeners, its connections, its epoll set.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::epoll::EpollFlags;
use socket2::Socket;

use super::HttpLimits;
use super::connection::{Connection, Context, Next};
use super::date::http_date;
use super::routes::Site;
use crate::Common;
use crate::poll::{Poller, WAKE};
use crate::running::{StopFlag, lock};

/// Tokens from here on are listeners.
const LISTENER: u64 = 1 << 62;
/// Timeouts are looked at this often; no timer is armed per connection.
const SWEEP: Duration = Duration::from_secs(1);

/// What a thread is told to do.
pub(crate) enum Order {
    Listen(Vec<(SocketAddr, Socket)>),
    Close(Vec<SocketAddr>),
}

/// What the threads share.
pub(crate) struct Shared {
    site: Mutex<(Arc<Site>, HttpLimits)>,
    common: Common,
    clients: Mutex<HashMap<IpAddr, usize>>,
    /// When a thread last had a newcomer that no place was free for.
    waited: Mutex<Option<Instant>>,
}

impl Shared {
    pub(crate) fn new(site: Arc<Site>, limits: HttpLimits, common: Common) -> Self {
        Self {
            site: Mutex::new((site, limits)),
            common,
            clients: Mutex::default(),
            waited: Mutex::default(),
        }
    }

    pub(crate) fn replace(&self, site: Arc<Site>, limits: HttpLimits) {
        *lock(&self.site) = (site, limits);
    }

    /// Shows how many places there are, and where connections that wait for one are found.
    pub(crate) fn tell_busy(&self, listening: &[SocketAddr]) {
        let limit = lock(&self.site).1.connections;
        self.common.metrics.http_places.set(limit as u64);
        self.common.busy.set_http(listening.to_vec());
    }

    /// Takes one of the places for connections; `false` when there is none.
    fn take_place(&self, limits: &HttpLimits) -> bool {
        // Threads that count one after the other never give the last place twice.
        let _one_at_a_time = lock(&self.clients);
        let taken = usize::try_from(self.common.metrics.http_connections.get()).unwrap_or(usize::MAX);
        let room = taken < limits.connections;
        if room {
            self.common.metrics.http_connections.inc();
        }
        room
    }

    fn leave_place(&self) {
        self.common.metrics.http_connections.dec();
    }

    /// Whether a newcomer waits, at whichever thread's listener: the place it needs may be kept at another thread's.
    fn is_waited_for(&self, now: Instant) -> bool {
        // A thread with somebody waiting says so at each of its sweeps; the threads' sweeps are not in step.
        lock(&self.waited).is_some_and(|at| now < at + 2 * SWEEP)
    }

    /// Gives the place that was taken to a connection of `peer`; `false` when it has too many, and then the place is free.
    fn admit(&self, peer: IpAddr, limits: &HttpLimits) -> bool {
        let mut clients = lock(&self.clients);
        let mine = clients.entry(peer).or_default();
        let admitted = *mine < limits.connections_per_client;
        if admitted {
            *mine += 1;
        } else {
            if *mine == 0 {
                clients.remove(&peer);
            }
            self.leave_place();
        }
        admitted
    }

    fn release(&self, peer: IpAddr) {
        let mut clients = lock(&self.clients);
        if let Some(count) = clients.get_mut(&peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                clients.remove(&peer);
            }
        }
        self.leave_place();
    }
}

struct Slot {
    connection: Option<Connection>,
    /// Raised each time the slot is emptied, so that an event for its former tenant is recognised.
    generation: u32,
    interest: EpollFlags,
}

pub(crate) struct Worker {
    poller: Poller,
    orders: mpsc::Receiver<Order>,
    shared: Arc<Shared>,
    stop: StopFlag,
    listeners: Vec<(SocketAddr, Socket, u64)>,
    next_listener: u64,
    slots: Vec<Slot>,
    free: Vec<usize>,
    site: Arc<Site>,
    limits: HttpLimits,
    date: String,
    next_sweep: Instant,
    /// Out of descriptors or of places: newcomers wait in the queues of the listeners, which rest until a connection of
    /// this thread ends, or else until the next sweep, instead of spinning on an accept that fails.
    resting: bool,
}

impl Worker {
    pub(crate) fn new(poller: Poller, orders: mpsc::Receiver<Order>, shared: Arc<Shared>, stop: StopFlag) -> Self {
        let (site, limits) = lock(&shared.site).clone();
        Self {
            poller,
            orders,
            shared,
            stop,
            listeners: Vec::new(),
            next_listener: LISTENER,
            slots: Vec::new(),
            free: Vec::new(),
            site,
            limits,
            date: http_date(SystemTime::now()),
            next_sweep: Instant::now(),
            resting: false,
        }
    }

    pub(crate) fn listen(&mut self, sockets: Vec<(SocketAddr, Socket)>) {
        for (address, socket) in sockets {
            // Accepted sockets inherit it: answers never wait for an acknowledgement (Nagle).
            let _ = socket.set_tcp_nodelay(true);
            let token = self.next_listener;
            self.next_listener += 1;
            match self.poller.add(&socket, EpollFlags::EPOLLIN, token) {
                Ok(()) => self.listeners.push((address, socket, token)),
                Err(error) => tracing::error!(%address, %error, "boot HTTP: cannot watch a listener"),
            }
        }
    }

    pub(crate) fn run(mut self) {
        let mut ready = Vec::new();
        while !self.stop.is_set() {
            let idle = self.free.len() == self.slots.len() && !self.resting;
            let deadline = if idle { None } else { Some(self.next_sweep) };
            if let Err(error) = self.poller.wait(deadline, &mut ready) {
                tracing::error!(%error, "boot HTTP: waiting for sockets failed");
                return;
            }
            let now = Instant::now();
            self.sweep(now);
            for (token, readiness) in ready.drain(..) {
                match token {
                    WAKE => self.obey(),
                    token if token >= LISTENER => self.accept(token, now),
                    token => self.serve(token, readiness, now),
                }
            }
        }
        for index in 0..self.slots.len() {
            self.close(index);
        }
    }

    fn obey(&mut self) {
        (self.site, self.limits) = lock(&self.shared.site).clone();
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Listen(sockets) => self.listen(sockets),
                Order::Close(addresses) => {
                    // Clients already in the queue of a listener would be reset when it closes.
                    let closing: Vec<u64> = self
                        .listeners
                        .iter()
                        .filter(|l| addresses.contains(&l.0))
                        .map(|l| l.2)
                        .collect();
                    closing.iter().for_each(|&token| self.accept(token, Instant::now()));
                    self.listeners.retain(|(_, _, token)| !closing.contains(token));
                }
            }
        }
    }

    fn accept(&mut self, token: u64, now: Instant) {
        let Some(at) = self.listeners.iter().position(|l| l.2 == token) else {
            return;
        };
        loop {
            let Some((_, listener, _)) = self.listeners.get(at) else {
                return;
            };
            if !self.shared.take_place(&self.limits) {
                // A firmware whose connection is closed gives up its boot; one that is not taken yet waits.
                if !self.resting {
                    self.shared.common.metrics.http_full.inc();
                }
                self.rest(true);
                return;
            }
            // One accept4 that also makes the socket non-blocking.
            match listener.accept4(nix::libc::SOCK_NONBLOCK | nix::libc::SOCK_CLOEXEC) {
                Ok((socket, address)) => {
                    let Some(peer) = address.as_socket().map(|a| a.ip()) else {
                        self.shared.leave_place();
                        continue;
                    };
                    self.shared.common.metrics.http_accepted.inc();
                    if self.shared.admit(peer, &self.limits) {
                        self.open(socket.into(), peer, now);
                    } else {
                        self.shared.common.metrics.http_refused.inc();
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return self.shared.leave_place(),
                Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE)) => {
                    tracing::warn!("boot HTTP: out of file descriptors; new connections wait");
                    self.shared.leave_place();
                    self.rest(true);
                    return;
                }
                // The client gave up between SYN and accept, or a signal came: take the next one.
                Err(_) => self.shared.leave_place(),
            }
        }
    }

    fn rest(&mut self, rest: bool) {
        self.resting = rest;
        if rest {
            *lock(&self.shared.waited) = Some(Instant::now());
        }
        let interest = if rest { EpollFlags::empty() } else { EpollFlags::EPOLLIN };
        for (_, listener, token) in &self.listeners {
            let _ = self.poller.modify(listener, interest, *token);
        }
    }

    fn open(&mut self, stream: TcpStream, peer: IpAddr, now: Instant) {
        let context = self.context(now);
        let mut connection = Connection::new(stream, peer, &context);
        // The first request is often there already.
        let next = connection.drive(&context, true);
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                connection: None,
                generation: 0,
                interest: EpollFlags::empty(),
            });
            self.slots.len() - 1
        });
        let Some(slot) = self.slots.get_mut(index) else { return };
        let token = token_of(index, slot.generation);
        slot.interest = interest(next);
        let watched = next != Next::Close && self.poller.add(connection.stream(), slot.interest, token).is_ok();
        slot.connection = Some(connection);
        if !watched {
            self.close(index);
        }
    }

    fn serve(&mut self, token: u64, readiness: EpollFlags, now: Instant) {
        let index = (token & 0xffff_ffff) as usize;
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(connection) = slot
            .connection
            .as_mut()
            .filter(|_| token_of(index, slot.generation) == token)
        else {
            return;
        };
        let context = Context {
            site: &self.site,
            common: &self.shared.common,
            timeouts: self.limits.timeouts,
            date: &self.date,
            now,
        };
        let next = if readiness.contains(EpollFlags::EPOLLERR) {
            Next::Close
        } else {
            connection.drive(
                &context,
                readiness.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP),
            )
        };
        let wanted = interest(next);
        if next == Next::Close {
            self.close(index);
        } else if slot.interest != wanted {
            slot.interest = wanted;
            if self.poller.modify(connection.stream(), wanted, token).is_err() {
                self.close(index);
            }
        }
    }

    fn close(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if let Some(connection) = slot.connection.take() {
            // Closing the descriptor takes it out of the epoll set.
            slot.generation = slot.generation.wrapping_add(1) & 0x3fff_ffff;
            self.shared.release(connection.peer());
            self.free.push(index);
            if self.resting {
                self.rest(false);
            }
        }
    }

    /// Once a second: the date, clients that take too long, listeners that rest. While newcomers wait, places of clients
    /// that only keep their connection go to them.
    fn sweep(&mut self, now: Instant) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP;
        self.date = http_date(SystemTime::now());
        let (waited_for, idle) = (self.shared.is_waited_for(now), self.limits.timeouts.idle);
        if self.resting {
            self.rest(false);
        }
        for index in 0..self.slots.len() {
            let Some(connection) = self.slots.get(index).and_then(|slot| slot.connection.as_ref()) else {
                continue;
            };
            if connection.deadline() <= now {
                self.shared.common.metrics.http_timeouts.inc();
                self.close(index);
            } else if waited_for && connection.is_spare(now, idle, SWEEP) {
                self.close(index);
            }
        }
    }

    fn context(&self, now: Instant) -> Context<'_> {
        Context {
            site: &self.site,
            common: &self.shared.common,
            timeouts: self.limits.timeouts,
            date: &self.date,
            now,
        }
    }
}

fn token_of(index: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | index as u64
}

fn interest(next: Next) -> EpollFlags {
    match next {
        Next::Read => EpollFlags::EPOLLIN,
        Next::Write => EpollFlags::EPOLLOUT,
        Next::Close => EpollFlags::empty(),
    }
}
