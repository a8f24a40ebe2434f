//! The thread of the DNS server.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use rackbar_dns::{Bucket, Client, Decision, Forwarder, Limits, Output, Transport, Zones, decide};
use socket2::SockRef;

use super::streams::{Stream, Streams};
use super::upstream::Upstreams;
use super::{DnsConfig, Pair};
use crate::Common;
use crate::mmsg::{self, Outbound, Receiver};
use crate::poll::{Poller, Rest, WAKE};
use crate::running::{StopFlag, lock};

/// Kinds of tokens, in their upper half.
const UDP: u64 = 1 << 56;
const TCP: u64 = 2 << 56;
pub(super) const STREAM: u64 = 3 << 56;
pub(super) const TRY: u64 = 4 << 56;
const KIND: u64 = 0xff << 56;

/// Largest query that is taken in; a real one is below 600 bytes.
const QUERY: usize = 2048;
/// Answers a second for a /24 that we do not serve: enough for a person who looks, nothing for a flood.
const STRANGERS: u32 = 20;
/// Batches read from one socket before the others have their turn.
const TURNS: usize = 8;

/// What the thread is to do from now on.
pub(crate) struct Order {
    pub(crate) open: Vec<Pair>,
    pub(crate) config: DnsConfig,
    pub(crate) zones: Arc<Zones>,
}

/// Who waits for a forwarded answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who {
    Datagram { listener: u64, to: SocketAddrV4 },
    Stream(u64),
}

pub(super) struct Worker {
    poller: Poller,
    common: Common,
    stop: StopFlag,
    orders: Arc<Mutex<Vec<Order>>>,
    config: DnsConfig,
    zones: Arc<Zones>,
    pairs: HashMap<u64, Pair>,
    next: u64,
    rest: Rest,
    receiver: Receiver,
    replies: Vec<Outbound>,
    streams: Streams,
    forwarder: Forwarder<Who>,
    upstreams: Upstreams,
    answered: mpsc::Receiver<(u64, Option<Vec<u8>>)>,
    strangers: Bucket,
    begun: Instant,
}

/// Message numbers from the kernel's random generator, a batch at a time.
fn random() -> Box<dyn FnMut() -> u16 + Send> {
    let mut pool = Vec::new();
    Box::new(move || {
        if pool.is_empty() {
            pool = crate::random::bytes::<128>()
                .chunks_exact(2)
                .map(|two| u16::from_ne_bytes([two[0], two[1]]))
                .collect();
        }
        pool.pop().unwrap_or(0)
    })
}

impl Worker {
    pub(super) fn new(poller: Poller, common: Common, stop: StopFlag, orders: Arc<Mutex<Vec<Order>>>) -> Self {
        let (sender, answered) = mpsc::channel();
        Self {
            upstreams: Upstreams::new(sender, poller.waker()),
            poller,
            common,
            stop,
            orders,
            config: DnsConfig::default(),
            zones: Arc::default(),
            pairs: HashMap::new(),
            next: 0,
            rest: Rest::default(),
            receiver: Receiver::new(QUERY),
            replies: Vec::new(),
            streams: Streams::default(),
            forwarder: Forwarder::new(Limits::default(), random()),
            answered,
            strangers: Bucket::new(STRANGERS),
            begun: Instant::now(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn run(mut self) {
        let mut ready = Vec::new();
        while !self.stop.is_set() {
            let tries = self
                .forwarder
                .deadline()
                .map(|at| self.begun + Duration::from_millis(at));
            let deadline = tries
                .into_iter()
                .chain(self.streams.deadline())
                .chain(self.rest.deadline())
                .min();
            if let Err(error) = self.poller.wait(deadline, &mut ready) {
                tracing::error!(%error, "DNS: waiting for packets failed");
                return;
            }
            for (token, _) in ready.drain(..) {
                match token & KIND {
                    _ if token == WAKE => self.orders(),
                    UDP => self.datagrams(token & !KIND),
                    TCP => self.accept(token & !KIND),
                    STREAM => self.stream(token & !KIND),
                    _ => self.answer(token & !KIND),
                }
            }
            self.streams.expire(&self.poller);
            let listeners = self.pairs.iter().map(|(id, pair)| (&pair.tcp, TCP | id));
            self.rest.end(listeners, &self.poller);
            let (now, mut out) = (self.now(), Vec::new());
            self.forwarder.expire(now, &mut out);
            self.carry_out(out);
            self.count();
        }
    }

    fn orders(&mut self) {
        for order in std::mem::take(&mut *lock(&self.orders)) {
            let poller = &self.poller;
            self.pairs.retain(|_, pair| {
                let kept = order.config.listen.contains(&pair.at);
                if !kept {
                    poller.remove(&pair.udp);
                    poller.remove(&pair.tcp);
                }
                kept
            });
            for pair in order.open {
                self.next += 1;
                let added = poller
                    .add(&pair.udp, EpollFlags::EPOLLIN, UDP | self.next)
                    .and_then(|()| poller.add(&pair.tcp, EpollFlags::EPOLLIN, TCP | self.next));
                match added {
                    Ok(()) => drop(self.pairs.insert(self.next, pair)),
                    Err(error) => tracing::error!(address = %pair.at, %error, "DNS: cannot watch a socket"),
                }
            }
            self.forwarder.set_upstreams(&order.config.upstreams);
            (self.config, self.zones) = (order.config, order.zones);
        }
        while let Ok((slot, message)) = self.answered.try_recv() {
            self.told(slot, message.as_deref());
        }
    }

    /// A query came to `listener`, or on a stream.
    fn query(&mut self, bytes: &[u8], from: IpAddr, who: Who, out: &mut Vec<u8>) -> bool {
        self.common.metrics.dns_queries.inc();
        let near = is_near(&self.config.served, from);
        let transport = match who {
            Who::Datagram { .. } => Transport::Udp,
            Who::Stream(_) => Transport::Tcp,
        };
        let now = self.now();
        if !near && transport == Transport::Udp && !self.strangers.take(from, now) {
            self.common.metrics.dns_dropped.inc();
            return false;
        }
        let client = Client {
            address: from,
            transport,
            recursion: near && self.forwarder.has_upstreams(),
        };
        let mut outputs = Vec::new();
        match decide(bytes, &self.zones, &client, out) {
            Decision::Reply => return true,
            Decision::Drop => self.common.metrics.dns_dropped.inc(),
            Decision::Forward(query) => self.forwarder.ask(now, &query, &client, who, &mut outputs),
            Decision::Chase(query, lead) => self.forwarder.chase(now, &query, lead, &client, who, &mut outputs),
        }
        self.carry_out(outputs);
        false
    }

    fn datagrams(&mut self, listener: u64) {
        for _ in 0..TURNS {
            let Some(pair) = self.pairs.get(&listener) else { return };
            match self.receiver.receive(pair.udp.as_fd()) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return tracing::debug!(%error, "DNS: receiving failed"),
            }
            // Taken out, so that a query may change everything else.
            let receiver = std::mem::replace(&mut self.receiver, Receiver::new(0));
            let mut replies = std::mem::take(&mut self.replies);
            for one in receiver.iter() {
                let mut out = Vec::with_capacity(256);
                let who = Who::Datagram {
                    listener,
                    to: one.source,
                };
                // Port 0 cannot be answered, and port 53 to 53 is how servers were made to talk to each other for ever.
                let sound = one.source.port() != 0 && one.bytes.len() < QUERY;
                if sound && self.query(one.bytes, (*one.source.ip()).into(), who, &mut out) {
                    replies.push(outbound(one.source, out));
                }
            }
            self.receiver = receiver;
            if let Some(pair) = self.pairs.get(&listener) {
                mmsg::send(pair.udp.as_fd(), &replies);
            }
            replies.clear();
            self.replies = replies;
        }
    }

    fn accept(&mut self, listener: u64) {
        let Some(pair) = self.pairs.get(&listener) else { return };
        let listeners = self.pairs.iter().map(|(id, pair)| (&pair.tcp, TCP | id));
        for _ in 0..64 {
            let (socket, _) = match pair.tcp.accept() {
                Ok(taken) => taken,
                Err(error) => return self.rest.after(&error, "DNS", listeners, &self.poller),
            };
            let stream = TcpStream::from(socket);
            if let Err(error) = self.streams.open(stream, &self.poller) {
                tracing::debug!(%error, "DNS: a connection was not taken");
            }
        }
    }

    fn stream(&mut self, id: u64) {
        let Some((from, queries)) = self.streams.read(id, &self.poller) else {
            return;
        };
        for bytes in queries {
            let mut out = Vec::new();
            if self.query(&bytes, from, Who::Stream(id), &mut out) {
                self.streams.write(id, &out, &self.poller);
            }
        }
    }

    /// A datagram came for a try.
    fn answer(&mut self, slot: u64) {
        let mut buffer = [0; 4096];
        while let Some(result) = self.upstreams.read(slot, &mut buffer) {
            match result {
                Ok(length) => {
                    let message = buffer.get(..length).map(<[u8]>::to_vec);
                    self.told(slot, message.as_deref());
                }
                // The other machine has nobody on that port (ECONNREFUSED).
                Err(_) => self.told(slot, None),
            }
        }
    }

    fn told(&mut self, slot: u64, message: Option<&[u8]>) {
        let (now, mut out) = (self.now(), Vec::new());
        match message {
            Some(message) => self.forwarder.answered(now, slot, message, &mut out),
            None => self.forwarder.failed(now, slot, &mut out),
        }
        self.carry_out(out);
    }

    fn carry_out(&mut self, outputs: Vec<Output<Who>>) {
        // Before the answers leave: whoever has one is counted.
        self.count();
        let mut outputs = std::collections::VecDeque::from(outputs);
        while let Some(output) = outputs.pop_front() {
            match output {
                Output::Send {
                    slot,
                    upstream,
                    transport,
                    message,
                } => {
                    let sent = self.upstreams.send(slot, upstream, transport, message, &self.poller);
                    if sent.is_err() {
                        let (now, mut more) = (self.now(), Vec::new());
                        self.forwarder.failed(now, slot, &mut more);
                        outputs.extend(more);
                    }
                }
                Output::Close { slot } => self.upstreams.close(slot, &self.poller),
                Output::Reply { who, message } => self.reply(who, message),
            }
        }
    }

    fn reply(&mut self, who: Who, message: Vec<u8>) {
        match who {
            Who::Stream(id) => self.streams.write(id, &message, &self.poller),
            Who::Datagram { listener, to } => {
                if let Some(pair) = self.pairs.get(&listener) {
                    mmsg::send(pair.udp.as_fd(), &[outbound(to, message)]);
                }
            }
        }
    }

    fn count(&self) {
        let (counters, metrics) = (self.forwarder.counters(), &self.common.metrics);
        metrics.dns_cache_hits.set(counters.hits);
        metrics.dns_forwarded.set(counters.sent);
        metrics.dns_upstream_timeouts.set(counters.timeouts);
        metrics.dns_failed.set(counters.failed + counters.refused);
    }
}

fn outbound(to: SocketAddrV4, bytes: Vec<u8>) -> Outbound {
    Outbound {
        to: Some(to),
        from: Ipv4Addr::UNSPECIFIED,
        bytes,
    }
}

/// Whether an address is in one of the networks.
pub(crate) fn is_near(networks: &[(Ipv4Addr, u8)], address: IpAddr) -> bool {
    let IpAddr::V4(address) = address else { return false };
    networks.iter().any(|(near, prefix)| {
        let shift = 32 - u32::from((*prefix).min(32));
        let of = |address: Ipv4Addr| address.to_bits().checked_shr(shift).unwrap_or(0);
        of(*near) == of(address)
    })
}

impl Stream {
    /// Small answers leave at once.
    pub(super) fn prepare(&self) -> std::io::Result<()> {
        let socket = SockRef::from(self.socket());
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)
    }
}
