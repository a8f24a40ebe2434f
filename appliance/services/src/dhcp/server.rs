//! The engine's thread: wait for packets, a deadline or an order; hand over; carry out.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use rackbar_dhcp::{Destination, Engine, Input, InterfaceId, Output};
use rackbar_model::MacAddr;

use super::clock::Time;
use super::committer::{self, Addressed, Committer, Job, Way};
use super::ports::{Part, Port};
use crate::Common;
use crate::clients::Heard;
use crate::frame;
use crate::mmsg::{Outbound, Receiver};
use crate::poll::{Poller, WAKE};
use crate::running::{Running, StatusCell, StopFlag};

/// The largest UDP payload on Ethernet; no DHCP client sends more than a fragmentless packet.
const PACKET: usize = 1500;
/// Batches taken from one socket before the others get their turn.
const TURNS: usize = 4;
/// Probes remembered; the engine bounds them too.
const PROBES: usize = 4096;
/// A claim that comes later than this after a probe is ordinary ARP traffic.
const PROBE_LIFE: Duration = Duration::from_secs(3);

/// How old status and counters may be while packets come.
const LOOK: Duration = Duration::from_secs(1);

/// What the thread is told to do.
pub(crate) enum Order {
    /// What other services heard of a machine.
    Heard(Heard),
    /// Look something up.
    Look(Box<dyn FnOnce(&Engine) + Send>),
    /// Which interfaces are open.
    Names(mpsc::Sender<Vec<(String, u32)>>),
    /// Another configuration.
    Reconfigure {
        engine: Box<rackbar_dhcp::Config>,
        keep: Vec<String>,
        ports: Vec<Port>,
    },
}

pub(crate) struct Server {
    poller: Poller,
    engine: Engine,
    time: Time,
    committer: Committer,
    common: Common,
    orders: mpsc::Receiver<Order>,
    stop: StopFlag,
    status: StatusCell,
    ports: Vec<Arc<Port>>,
    probes: HashMap<(u32, Ipv4Addr), Instant>,
    receiver: Receiver,
    outputs: Vec<Output>,
    /// Gathered over a batch of packets.
    direct: Vec<Addressed>,
    job: Job,
    looked_at: Instant,
    /// Packets came since.
    unseen: bool,
    drops_before: u64,
}

impl Server {
    pub(crate) fn new(
        poller: Poller,
        (engine, time): (Engine, Time),
        committer: Committer,
        common: Common,
        orders: mpsc::Receiver<Order>,
        running: &Running,
    ) -> Self {
        Self {
            poller,
            engine,
            time,
            committer,
            common,
            orders,
            stop: running.stop_flag(),
            status: running.status.clone(),
            ports: Vec::new(),
            probes: HashMap::new(),
            receiver: Receiver::new(PACKET),
            outputs: Vec::new(),
            direct: Vec::new(),
            job: Job::default(),
            looked_at: Instant::now(),
            unseen: false,
            drops_before: 0,
        }
    }

    pub(crate) fn take_ports(&mut self, ports: Vec<Port>) {
        for port in ports {
            let index = port.link.index;
            for (part, socket) in port.parts() {
                if let Err(error) = self.poller.add(socket, EpollFlags::EPOLLIN, token(index, part)) {
                    tracing::error!(interface = %port.link.name, %error, "DHCP: cannot watch a socket");
                }
            }
            self.ports.push(Arc::new(port));
        }
    }

    pub(crate) fn run(mut self) {
        let mut ready = Vec::new();
        self.give(Input::Tick);
        self.flush();
        self.look();
        while !self.stop.is_set() {
            if let Err(error) = self.poller.wait(self.deadline(), &mut ready) {
                tracing::error!(%error, "DHCP: waiting for packets failed");
                return;
            }
            let mut look = ready.is_empty() || self.committer.news();
            if self.engine.deadline().is_some_and(|at| at <= self.time.now()) {
                self.give(Input::Tick);
                look = true;
            }
            for (token, _) in ready.drain(..) {
                if token == WAKE {
                    self.obey();
                    look = true;
                } else if let Some((port, part)) = self.part_of(token) {
                    self.receive(&port, part);
                    look |= part == Part::Replies;
                }
                // Between sockets, so that offers of one interface do not wait for the packets of the next.
                self.flush();
            }
            self.flush();
            if look || self.looked_at.elapsed() >= LOOK {
                self.look();
            }
        }
    }

    /// The engine's deadline on our monotonic clock, which is what the kernel waits by; after packets also the time of
    /// the next look at the counters.
    fn deadline(&self) -> Option<Instant> {
        let engine = self
            .engine
            .deadline()
            .map(|at| Instant::now() + Duration::from_millis(at.since(self.time.now())));
        let look = self.unseen.then(|| self.looked_at + LOOK);
        engine.into_iter().chain(look).min()
    }

    fn part_of(&self, wanted: u64) -> Option<(Arc<Port>, Part)> {
        self.ports.iter().find_map(|port| {
            let index = port.link.index;
            let part = [Part::Server, Part::Pxe, Part::Replies, Part::Arp].into_iter();
            part.into_iter()
                .find(|&part| token(index, part) == wanted)
                .map(|part| (Arc::clone(port), part))
        })
    }

    fn receive(&mut self, port: &Arc<Port>, part: Part) {
        match part {
            Part::Server => self.receive_datagrams(port, 67),
            Part::Pxe => self.receive_datagrams(port, 4011),
            Part::Replies => self.overhear(port),
            Part::Arp => self.hear_claims(port),
        }
    }

    fn receive_datagrams(&mut self, port: &Arc<Port>, local_port: u16) {
        let socket = if local_port == 67 { &port.server } else { &port.pxe };
        for _ in 0..TURNS {
            let count = match self.receiver.receive(socket.as_fd()) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) => {
                    // ICMP errors for what we sent come back here, once each.
                    tracing::debug!(interface = %port.link.name, %error, "DHCP: receiving failed");
                    return;
                }
            };
            self.unseen = true;
            self.common.metrics.dhcp_received.add(count as u64);
            let receiver = std::mem::replace(&mut self.receiver, Receiver::new(0));
            for got in receiver.iter() {
                let interface = InterfaceId(port.link.index);
                self.give(Input::Packet {
                    interface,
                    source: got.source,
                    local_port,
                    bytes: got.bytes,
                });
            }
            self.receiver = receiver;
            self.flush();
        }
    }

    /// Replies of other servers: to our own probe, or broadcast to a client.
    fn overhear(&mut self, port: &Arc<Port>) {
        let mut buffer = [0; 2048];
        for _ in 0..256 {
            let Ok(Some(bytes)) = port.replies.receive(&mut buffer) else {
                return;
            };
            let Some((source, destination, payload)) = frame::read_udp(bytes) else {
                continue;
            };
            if destination.port() == 68 {
                let interface = InterfaceId(port.link.index);
                self.give(Input::Packet {
                    interface,
                    source,
                    local_port: 68,
                    bytes: payload,
                });
            }
        }
    }

    fn hear_claims(&mut self, port: &Arc<Port>) {
        let mut buffer = [0; 2048];
        for _ in 0..256 {
            let Ok(Some(bytes)) = port.arp.receive(&mut buffer) else {
                return;
            };
            let Some((address, owner)) = frame::arp_claim(bytes) else {
                continue;
            };
            if owner != port.link.mac && self.probes.remove(&(port.link.index, address)).is_some() {
                let interface = InterfaceId(port.link.index);
                self.give(Input::ProbeResult {
                    interface,
                    address,
                    owner: Some(owner),
                });
            }
        }
    }

    fn obey(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Heard(Heard::Fetched(mac)) => self.give(Input::BootFileFetched { mac }),
                Order::Heard(Heard::RefusedTls(mac)) => self.give(Input::TlsRefused { mac }),
                Order::Heard(Heard::Forget(mac)) => self.give(Input::ForgetFirmware { mac }),
                Order::Look(look) => look(&self.engine),
                Order::Names(sender) => {
                    let names = self.ports.iter().map(|port| (port.link.name.clone(), port.link.index));
                    // The asker gave up waiting.
                    let _ = sender.send(names.collect());
                }
                Order::Reconfigure { engine, keep, ports } => {
                    self.engine.reconfigure(*engine);
                    let poller = &self.poller;
                    self.ports.retain(|port| {
                        let stays = keep.contains(&port.link.name);
                        if !stays {
                            // The committer may hold the port a moment longer; it must not wake us.
                            port.parts().into_iter().for_each(|(_, socket)| poller.remove(socket));
                        }
                        stays
                    });
                    self.take_ports(ports);
                    self.give(Input::Tick);
                }
            }
        }
    }

    /// Hands `input` to the engine and sorts what it wants done: what follows a lease waits for the lease.
    fn give(&mut self, input: Input<'_>) {
        let mut outputs = std::mem::take(&mut self.outputs);
        if let Some(millis) = self.time.set_by() {
            tracing::info!(millis, "DHCP: the clock was set; leases and deadlines move along");
            self.engine.shift(millis, &mut outputs);
        }
        self.engine.handle(self.time.now(), input, &mut outputs);
        let mut held = false;
        for output in outputs.drain(..) {
            match output {
                Output::Commit(lease) => {
                    held = true;
                    self.job.leases.push(lease);
                }
                Output::Send {
                    interface,
                    source,
                    destination,
                    bytes,
                } => {
                    if let Some(send) = self.address(interface, source, destination, bytes) {
                        let list = if held { &mut self.job.sends } else { &mut self.direct };
                        list.push(send);
                    }
                }
                Output::Probe { interface, address } => self.probe(interface, address),
                Output::Learnt { mac, habit } => self.committer.learnt(mac, habit),
                Output::Event { mac, kind } if held => self.job.events.push((mac, kind)),
                Output::Event { mac, kind } => self.common.events.event(mac, kind),
            }
        }
        self.outputs = outputs;
    }

    fn address(
        &self,
        interface: InterfaceId,
        source: SocketAddrV4,
        to: Destination,
        bytes: Vec<u8>,
    ) -> Option<Addressed> {
        let port = self.ports.iter().find(|port| port.link.index == interface.0)?;
        let whole = |mac, ip, to_port| {
            let bytes = frame::udp(port.link.mac, mac, source, SocketAddrV4::new(ip, to_port), &bytes);
            (
                Way::Frame,
                Outbound {
                    to: None,
                    from: Ipv4Addr::UNSPECIFIED,
                    bytes,
                },
            )
        };
        let (way, out) = match to {
            Destination::RawTo { mac, ip } => whole(mac, ip, 68),
            // From port 68 goes our own probe for other servers; from any other an answer to a client.
            Destination::Broadcast => {
                let to_port = if source.port() == 68 { 67 } else { 68 };
                whole(MacAddr::BROADCAST, Ipv4Addr::BROADCAST, to_port)
            }
            Destination::Unicast(to) => {
                let way = if source.port() == 4011 { Way::Pxe } else { Way::Server };
                (
                    way,
                    Outbound {
                        to: Some(to),
                        from: *source.ip(),
                        bytes,
                    },
                )
            }
        };
        Some(Addressed {
            port: Arc::clone(port),
            way,
            out,
        })
    }

    fn probe(&mut self, interface: InterfaceId, address: Ipv4Addr) {
        let Some(port) = self.ports.iter().find(|port| port.link.index == interface.0) else {
            return;
        };
        if self.probes.len() >= PROBES {
            self.probes.retain(|_, sent| sent.elapsed() < PROBE_LIFE);
        }
        if self.probes.len() < PROBES {
            self.probes.insert((interface.0, address), Instant::now());
        }
        self.common.metrics.dhcp_arp_probes.inc();
        if let Err(error) = port.arp.send(&frame::arp_probe(port.link.mac, address)) {
            tracing::debug!(interface = %port.link.name, %error, "DHCP: address probe not sent");
        }
    }

    /// Sends what may leave now, and hands the leases of this batch over.
    fn flush(&mut self) {
        if !self.direct.is_empty() {
            let direct = std::mem::take(&mut self.direct);
            for buffer in committer::send(direct, &self.common) {
                self.engine.recycle(buffer);
            }
        }
        if !self.job.leases.is_empty() && !self.committer.submit(std::mem::take(&mut self.job)) {
            self.common.metrics.dhcp_commit_failures.inc();
        }
    }

    /// Brings status and counters up to date.
    fn look(&mut self) {
        self.looked_at = Instant::now();
        self.unseen = false;
        self.probes.retain(|_, sent| sent.elapsed() < PROBE_LIFE);
        let networks: Vec<_> = self.engine.networks().collect();
        let failure = self.committer.failure();
        let (severity, words) = super::status_words(&networks, &self.ports, failure.as_ref());
        self.status.set(severity, words);
        let metrics = &self.common.metrics;
        metrics.dhcp_malformed.set(self.engine.counters().malformed);
        let drops = self.ports.iter().map(|port| port.drops()).sum::<u64>();
        metrics.dhcp_kernel_drops.add(drops.saturating_sub(self.drops_before));
        self.drops_before = drops;
    }
}

fn token(index: u32, part: Part) -> u64 {
    u64::from(index) << 2 | part as u64
}
