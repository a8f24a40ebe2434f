//! The thread of the collector.

use std::collections::HashMap;
use std::io::Read as _;
use std::net::{IpAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use rackbar_model::Severity;
use rackbar_syslog::{Message, Splitter, parse};

use super::senders::Senders;
use super::store::LogStore;
use super::{Pair, SyslogConfig};
use crate::Common;
use crate::dns::is_near;
use crate::mmsg::Receiver;
use crate::poll::{Poller, Rest, WAKE};
use crate::running::{StatusCell, StopFlag, lock, now};

const UDP: u64 = 1 << 56;
const TCP: u64 = 2 << 56;
const STREAM: u64 = 3 << 56;
const KIND: u64 = 0xff << 56;

/// Largest datagram that is looked at.
const DATAGRAM: usize = rackbar_syslog::LONGEST;
/// Connections at once, and of one sender.
const MOST: usize = 1024;
const PER_SENDER: usize = 16;
/// Batches from one socket before the others have their turn.
const TURNS: usize = 16;
/// Between two orders to the disk.
const SYNC: Duration = Duration::from_secs(1);

pub(crate) struct Order {
    pub(crate) open: Vec<Pair>,
    pub(crate) config: SyslogConfig,
}

struct Stream {
    socket: TcpStream,
    from: IpAddr,
    splitter: Splitter,
    heard: Instant,
}

pub(super) struct Worker {
    poller: Poller,
    store: Arc<LogStore>,
    common: Common,
    stop: StopFlag,
    status: StatusCell,
    orders: Arc<Mutex<Vec<Order>>>,
    config: SyslogConfig,
    pairs: HashMap<u64, Pair>,
    streams: HashMap<u64, Stream>,
    next: u64,
    rest: Rest,
    receiver: Receiver,
    senders: Senders,
    batch: Vec<(IpAddr, Message)>,
    /// When the disk is to be told.
    sync: Option<Instant>,
    trouble: Option<String>,
}

impl Worker {
    pub(super) fn new(
        poller: Poller,
        store: Arc<LogStore>,
        common: Common,
        (stop, status): (StopFlag, StatusCell),
        orders: Arc<Mutex<Vec<Order>>>,
    ) -> Self {
        Self {
            poller,
            store,
            common,
            stop,
            status,
            orders,
            config: SyslogConfig::default(),
            pairs: HashMap::new(),
            streams: HashMap::new(),
            next: 0,
            rest: Rest::default(),
            receiver: Receiver::new(DATAGRAM),
            senders: Senders::default(),
            batch: Vec::new(),
            sync: None,
            trouble: None,
        }
    }

    pub(super) fn run(mut self) {
        let mut ready = Vec::new();
        while !self.stop.is_set() {
            let deadline = self
                .sync
                .into_iter()
                .chain(self.senders.deadline())
                .chain(self.rest.deadline())
                .min();
            if let Err(error) = self.poller.wait(deadline, &mut ready) {
                tracing::error!(%error, "syslog: waiting for messages failed");
                return;
            }
            for (token, _) in ready.drain(..) {
                match token & KIND {
                    _ if token == WAKE => self.take_orders(),
                    UDP => self.datagrams(token & !KIND),
                    TCP => self.accept(token & !KIND),
                    _ => self.stream(token & !KIND),
                }
            }
            let listeners = self.pairs.iter().map(|(id, pair)| (&pair.tcp, TCP | id));
            self.rest.end(listeners, &self.poller);
            self.tell_losses(false);
            self.keep();
            if self.sync.is_some_and(|at| at <= Instant::now()) {
                self.sync();
            }
        }
        self.tell_losses(true);
        self.keep();
        self.sync();
    }

    fn take_orders(&mut self) {
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
                    Err(error) => tracing::error!(address = %pair.at, %error, "syslog: cannot watch a socket"),
                }
            }
            if order.config.bytes != self.config.bytes {
                self.store.set_budget(order.config.bytes);
            }
            self.config = order.config;
            // Connections from networks that are served no more end.
            let served = &self.config.served;
            self.streams.retain(|_, stream| is_near(served, stream.from));
        }
        self.tell_status();
    }

    fn datagrams(&mut self, listener: u64) {
        let Some(pair) = self.pairs.get(&listener) else { return };
        for _ in 0..TURNS {
            match self.receiver.receive(pair.udp.as_fd()) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return tracing::debug!(%error, "syslog: receiving failed"),
            }
            let at = Instant::now();
            for one in self.receiver.iter() {
                let from = (*one.source.ip()).into();
                self.common.metrics.syslog_received.inc();
                if is_near(&self.config.served, from) && self.senders.take(from, self.config.per_second, at) {
                    self.batch.push((from, parse(one.bytes)));
                } else {
                    self.common.metrics.syslog_dropped.inc();
                }
            }
        }
    }

    fn accept(&mut self, listener: u64) {
        let Some(pair) = self.pairs.get(&listener) else { return };
        let listeners = self.pairs.iter().map(|(id, pair)| (&pair.tcp, TCP | id));
        for _ in 0..64 {
            let (socket, peer) = match pair.tcp.accept() {
                Ok(taken) => taken,
                Err(error) => return self.rest.after(&error, "syslog", listeners, &self.poller),
            };
            let Some(from) = peer.as_socket().map(|peer| peer.ip()) else {
                continue;
            };
            let count = self.streams.values().filter(|stream| stream.from == from).count();
            if !is_near(&self.config.served, from) || count >= PER_SENDER {
                continue;
            }
            if self.streams.len() >= MOST {
                // The one that was silent longest makes room.
                let oldest = self.streams.iter().min_by_key(|(_, stream)| stream.heard);
                if let Some(id) = oldest.map(|(id, _)| *id) {
                    self.streams.remove(&id);
                }
            }
            let socket = TcpStream::from(socket);
            self.next += 1;
            let watched = socket
                .set_nonblocking(true)
                .and_then(|()| self.poller.add(&socket, EpollFlags::EPOLLIN, STREAM | self.next));
            if watched.is_ok() {
                let stream = Stream {
                    socket,
                    from,
                    splitter: Splitter::default(),
                    heard: Instant::now(),
                };
                self.streams.insert(self.next, stream);
            }
        }
    }

    fn stream(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let mut buffer = [0; 16 << 10];
        let (from, at) = (stream.from, Instant::now());
        stream.heard = at;
        let (senders, batch, metrics) = (&mut self.senders, &mut self.batch, &self.common.metrics);
        let per_second = self.config.per_second;
        let mut each = |message: &[u8]| {
            metrics.syslog_received.inc();
            if senders.take(from, per_second, at) {
                batch.push((from, parse(message)));
            } else {
                metrics.syslog_dropped.inc();
            }
        };
        match stream.socket.read(&mut buffer) {
            Ok(0) => stream.splitter.end(&mut each),
            Ok(length) => {
                return stream
                    .splitter
                    .push(buffer.get(..length).unwrap_or_default(), &mut each);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(_) => stream.splitter.end(&mut each),
        }
        if let Some(stream) = self.streams.remove(&id) {
            self.poller.remove(&stream.socket);
        }
    }

    fn tell_losses(&mut self, all: bool) {
        for (from, lost) in self.senders.losers(Instant::now(), all) {
            let mut message = parse(b"<44>rackbar: ");
            message.text = format!(
                "{lost} messages of this sender were dropped: it sends more than {} a second",
                self.config.per_second
            );
            self.batch.push((from, message));
        }
    }

    fn keep(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let count = batch.len() as u64;
        let told = match self.store.append(now().0, batch) {
            Ok(()) => {
                self.sync.get_or_insert_with(|| Instant::now() + SYNC);
                None
            }
            Err(error) => {
                self.common.metrics.syslog_dropped.add(count);
                Some(format!("messages are lost, as the disk refuses them: {error}"))
            }
        };
        if told != self.trouble {
            self.trouble = told;
            self.tell_status();
        }
    }

    fn sync(&mut self) {
        self.sync = None;
        if let Err(error) = self.store.sync() {
            self.trouble = Some(format!("the disk did not confirm what was written: {error}"));
            self.tell_status();
        }
    }

    fn tell_status(&self) {
        let at: Vec<String> = self.config.listen.iter().map(ToString::to_string).collect();
        let state = match at.as_slice() {
            [] => "listening nowhere: no network is served".to_owned(),
            _ => format!(
                "taking messages on {}, {} MB at most",
                at.join(", "),
                self.config.bytes >> 20
            ),
        };
        match &self.trouble {
            Some(trouble) => self.status.set(Severity::Error, format!("{state}; {trouble}")),
            None => self.status.set(Severity::Info, state),
        }
    }
}
