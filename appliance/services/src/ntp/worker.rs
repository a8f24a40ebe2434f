//! The thread of the NTP service.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use rackbar_model::{EventKind, Severity};
use rackbar_ntp::{Adjust, Asker, Client, ClientConfig, Leap, NameSight, Names, Output, Server};
use socket2::Socket;

use super::lookup::Lookups;
use super::{Clock, NtpConfig, Tracking};
use crate::Common;
use crate::dns::is_near;
use crate::mmsg::{self, Outbound, Receiver};
use crate::poll::{Poller, WAKE};
use crate::running::{StatusCell, StopFlag, lock};

/// Tokens of the client's two sockets; listeners count from above.
const CLIENT4: u64 = 0;
const CLIENT6: u64 = 1;
const LISTENERS: u64 = 2;
/// A request is 48 bytes, with extension fields a few hundred.
const REQUEST: usize = 1024;
const TURNS: usize = 8;

pub(crate) struct Order {
    pub(crate) open: Vec<(SocketAddrV4, Socket)>,
    pub(crate) config: NtpConfig,
}

pub(super) struct Worker {
    poller: Poller,
    clock: Box<dyn Clock>,
    common: Common,
    stop: StopFlag,
    status: StatusCell,
    orders: Arc<Mutex<Vec<Order>>>,
    tracking: Arc<Mutex<Tracking>>,
    config: NtpConfig,
    listeners: HashMap<u64, (SocketAddrV4, Socket)>,
    next: u64,
    receiver: Receiver,
    server: Server,
    client: Client,
    names: Names,
    lookups: Lookups,
    socket4: UdpSocket,
    /// None where the kernel has no IPv6.
    socket6: Option<UdpSocket>,
    begun: Instant,
    trouble: Option<String>,
}

impl Worker {
    pub(super) fn new(
        poller: Poller,
        (clock, lookups): (Box<dyn Clock>, Lookups),
        common: Common,
        (stop, status): (StopFlag, StatusCell),
        orders: Arc<Mutex<Vec<Order>>>,
        tracking: Arc<Mutex<Tracking>>,
    ) -> io::Result<Self> {
        let socket4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let socket6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).ok();
        for (socket, token) in [(Some(&socket4), CLIENT4), (socket6.as_ref(), CLIENT6)] {
            if let Some(socket) = socket {
                socket.set_nonblocking(true)?;
                poller.add(socket, EpollFlags::EPOLLIN, token)?;
            }
        }
        Ok(Self {
            poller,
            clock,
            common,
            stop,
            status,
            orders,
            tracking,
            config: NtpConfig::default(),
            listeners: HashMap::new(),
            next: LISTENERS,
            receiver: Receiver::new(REQUEST),
            server: Server::new(rackbar_ntp::Limits::default()),
            client: Client::new(ClientConfig::default(), 0),
            names: Names::default(),
            lookups,
            socket4,
            socket6,
            begun: Instant::now(),
            trouble: None,
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn run(mut self) {
        let mut ready = Vec::new();
        while !self.stop.is_set() {
            let deadlines = [self.client.deadline(), self.names.deadline()];
            let deadline = deadlines.into_iter().flatten().min();
            let deadline = deadline.map(|at| self.begun + Duration::from_millis(at));
            if let Err(error) = self.poller.wait(deadline, &mut ready) {
                tracing::error!(%error, "NTP: waiting for packets failed");
                return;
            }
            let mut told = deadline.is_some_and(|at| at <= Instant::now());
            for (token, _) in ready.drain(..) {
                match token {
                    WAKE => self.take_orders(),
                    CLIENT4 | CLIENT6 => self.hear(token),
                    listener => self.serve(listener),
                }
                told |= token < LISTENERS || token == WAKE;
            }
            self.look_up();
            self.ask();
            if told {
                self.tell();
            }
        }
    }

    fn take_orders(&mut self) {
        let orders = std::mem::take(&mut *lock(&self.orders));
        for order in orders {
            let poller = &self.poller;
            self.listeners.retain(|_, (at, socket)| {
                let kept = order.config.listen.contains(at);
                if !kept {
                    poller.remove(socket);
                }
                kept
            });
            for (at, socket) in order.open {
                match poller.add(&socket, EpollFlags::EPOLLIN, self.next) {
                    Ok(()) => drop(self.listeners.insert(self.next, (at, socket))),
                    Err(error) => tracing::error!(address = %at, %error, "NTP: cannot watch a socket"),
                }
                self.next += 1;
            }
            if order.config.limits != self.config.limits {
                self.server = Server::new(order.config.limits);
            }
            let now = self.now();
            self.names.configure(&order.config.names, now);
            self.config = order.config;
            self.follow(now);
        }
    }

    /// Has the client follow the servers that are known by now.
    fn follow(&mut self, now: u64) {
        let mut client = self.config.client.clone();
        client.servers = self.names.servers(&client.servers);
        self.client.configure(client, now);
    }

    /// Takes what lookups gave, and starts the one that is due.
    fn look_up(&mut self) {
        if self.config.names.is_empty() {
            return;
        }
        let (now, found) = (self.now(), self.lookups.found());
        let changed = !found.is_empty();
        for (server, result) in found {
            let result = result.and_then(|all| self.usable(all));
            let client = &self.client;
            self.names.found(&server, result, |at| client.answers(at));
        }
        if changed {
            self.follow(now);
        }
        let client = &self.client;
        if let Some(server) = self.names.due(now, |at| client.answers(at)) {
            self.lookups.start(server);
        }
    }

    /// Addresses that can be a server's: following ourselves would be a loop.
    fn usable(&self, all: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
        let ours = |at: SocketAddr| self.config.listen.iter().any(|own| SocketAddr::V4(*own) == at);
        let before = all.len();
        let fit = |at: &SocketAddr| !ours(*at) && !at.ip().is_unspecified() && !at.ip().is_multicast();
        let usable: Vec<_> = all.into_iter().filter(fit).collect();
        if usable.is_empty() && before > 0 {
            return Err("it leads to this appliance itself, or to no address of a server".into());
        }
        Ok(usable)
    }

    fn serve(&mut self, listener: u64) {
        let Some((_, socket)) = self.listeners.get(&listener) else {
            return;
        };
        for _ in 0..TURNS {
            match self.receiver.receive(socket.as_fd()) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return tracing::debug!(%error, "NTP: receiving failed"),
            }
            let received = self.clock.unix();
            let state = self.client.system(received);
            let monotonic = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let mut replies = Vec::new();
            for one in self.receiver.iter() {
                let from = (*one.source.ip()).into();
                let asker = Asker {
                    client: from,
                    served: is_near(&self.config.served, from),
                    received,
                    monotonic,
                };
                let clock = &self.clock;
                let reply = self.server.answer(one.bytes, asker, &state, || clock.unix());
                replies.extend(reply.map(|bytes| Outbound {
                    to: Some(one.source),
                    from: Ipv4Addr::UNSPECIFIED,
                    bytes: bytes.to_vec(),
                }));
            }
            // Before the answers leave: whoever has one is counted.
            let counters = self.server.counters();
            self.common.metrics.ntp_answered.set(counters.answered);
            self.common.metrics.ntp_kissed.set(counters.kissed);
            self.common.metrics.ntp_dropped.set(counters.dropped);
            mmsg::send(socket.as_fd(), &replies);
        }
    }

    fn ask(&mut self) {
        let (now, mut out) = (self.now(), Vec::new());
        let clock = &self.clock;
        self.client.tick(
            now,
            || clock.unix(),
            || u64::from_ne_bytes(crate::random::bytes()),
            &mut out,
        );
        self.carry_out(out);
    }

    fn hear(&mut self, token: u64) {
        let mut buffer = [0; REQUEST];
        loop {
            let socket = if token == CLIENT4 {
                Some(&self.socket4)
            } else {
                self.socket6.as_ref()
            };
            let Some(Ok((length, from))) = socket.map(|socket| socket.recv_from(&mut buffer)) else {
                return;
            };
            let (unix, now, mut out) = (self.clock.unix(), self.now(), Vec::new());
            let bytes = buffer.get(..length).unwrap_or_default();
            if let Err(refused) = self.client.hear(from, bytes, unix, now, &mut out) {
                tracing::debug!(%from, ?refused, "NTP: a packet told nothing");
            }
            self.carry_out(out);
        }
    }

    fn carry_out(&mut self, out: Vec<Output>) {
        for one in out {
            match one {
                Output::Send { to, packet } => {
                    let socket = match to {
                        SocketAddr::V4(_) => Some(&self.socket4),
                        SocketAddr::V6(_) => self.socket6.as_ref(),
                    };
                    // A server that cannot be reached counts as one that does not answer.
                    let _ = socket.map(|socket| socket.send_to(&packet, to));
                }
                Output::Adjust { how, leap, bound } => self.adjust(how, leap, bound),
                Output::Lost => {
                    if let Err(error) = self.clock.lost() {
                        tracing::warn!(%error, "NTP: the kernel cannot be told that the clock is not kept any more");
                    }
                }
            }
        }
    }

    fn adjust(&mut self, how: Adjust, leap: Leap, bound: u64) {
        match self.clock.adjust(how, leap, bound) {
            Ok(()) => {
                self.trouble = None;
                if let Adjust::Step(by) = how {
                    let text = format!("the appliance's clock was off and has been set: {} ", in_words(by));
                    let severity = Severity::Warning;
                    self.common.events.event(
                        None,
                        EventKind::Note {
                            text: text.trim_end().into(),
                            severity,
                        },
                    );
                }
            }
            Err(error) => {
                self.trouble = Some(format!(
                    "the clock cannot be corrected: {error}; that needs root or CAP_SYS_TIME"
                ));
            }
        }
    }

    fn tell(&self) {
        let system = self.client.system(self.clock.unix());
        let (sources, names) = (self.client.sights(self.now()), self.names.sights());
        let follows = sources.iter().find(|one| one.state == "followed");
        let ours = match (follows, &system.reference_id) {
            _ if system.leap == Leap::Unsynchronised && sources.is_empty() && names.is_empty() => {
                "the clock follows nobody: no server is named".to_owned()
            }
            _ if system.leap == Leap::Unsynchronised => "the clock is not synchronised yet".to_owned(),
            (_, b"LOCL") => format!(
                "this appliance's own clock is the reference (stratum {})",
                system.stratum
            ),
            (Some(one), _) => format!("the clock follows {} (stratum {})", one.address.ip(), system.stratum),
            (None, _) => format!(
                "the clock runs by itself since its servers fell silent (stratum {})",
                system.stratum
            ),
        };
        let serves = match self.config.listen.as_slice() {
            [] => "serving nobody".to_owned(),
            some => {
                let addresses: Vec<String> = some.iter().map(ToString::to_string).collect();
                format!("serving the time on {}", addresses.join(", "))
            }
        };
        let ours = ours + &about(&names);
        let unnamed = names
            .iter()
            .any(|one| one.addresses.is_empty() && one.trouble.is_some());
        let quiet = !unnamed && (system.leap != Leap::Unsynchronised || self.config.listen.is_empty());
        match &self.trouble {
            Some(trouble) => self.status.set(Severity::Error, format!("{serves}; {trouble}")),
            None if quiet => self.status.set(Severity::Info, format!("{serves}; {ours}")),
            None => self.status.set(Severity::Warning, format!("{serves}; {ours}")),
        }
        *lock(&self.tracking) = Tracking { system, sources, names };
    }
}

/// The names of servers in words: which addresses each has, or why it has none and what to do.
fn about(names: &[NameSight]) -> String {
    let one = |one: &NameSight| {
        let name = &one.name;
        let addresses: Vec<_> = one.addresses.iter().map(|at| at.ip().to_string()).collect();
        match (addresses.is_empty(), &one.trouble) {
            (false, None) => format!("; {name} is {}", addresses.join(", ")),
            (false, Some(why)) => format!(
                "; {name} is still {}, as it was not found again ({why})",
                addresses.join(", ")
            ),
            (true, None) => format!("; {name} is being looked up"),
            (true, Some(why)) => format!(
                "; {name} has no address ({why}): is it written right in [ntp], and do the resolvers of [dns] upstream, or else those \
                 of the uplink's DHCP server, know it?"
            ),
        }
    };
    names.iter().map(one).collect()
}

/// A correction in words, with its direction.
fn in_words(by: i64) -> String {
    let way = if by < 0 { "back" } else { "forward" };
    let millis = by.unsigned_abs() / 1_000_000;
    let (days, rest) = (millis / 86_400_000, millis % 86_400_000);
    let (hours, minutes) = (rest / 3_600_000, rest / 60_000 % 60);
    let seconds = format!("{}.{:03} s", rest / 1000 % 60, rest % 1000);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{way} by {seconds}"),
        (0, 0, minutes) => format!("{way} by {minutes} min {seconds}"),
        (0, hours, minutes) => format!("{way} by {hours} h {minutes} min {seconds}"),
        (days, hours, minutes) => format!("{way} by {days} d {hours} h {minutes} min {seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_with_their_addresses_or_what_to_do() {
        let sight = |addresses: &[&str], trouble: Option<&str>| {
            let addresses = addresses.iter().map(|at| at.parse().unwrap()).collect();
            let (name, trouble) = ("t.example".into(), trouble.map(str::to_owned));
            about(&[NameSight {
                name,
                addresses,
                trouble,
            }])
        };
        assert_eq!(
            sight(&["192.0.2.1:123", "[2001:db8::1]:123"], None),
            "; t.example is 192.0.2.1, 2001:db8::1"
        );
        assert!(
            sight(&["192.0.2.1:123"], Some("no answer"))
                .contains("still 192.0.2.1, as it was not found again (no answer)")
        );
        assert_eq!(sight(&[], None), "; t.example is being looked up");
        let lost = sight(&[], Some("Name does not resolve"));
        assert!(
            lost.contains("no address (Name does not resolve)") && lost.contains("[dns] upstream"),
            "{lost}"
        );
    }

    #[test]
    fn corrections_are_told_in_words() {
        assert_eq!(in_words(-7_261_500_000_000), "back by 2 h 1 min 1.500 s");
        assert_eq!(in_words(20_000_000), "forward by 0.020 s");
        assert_eq!(in_words(90_000_000_000_000), "forward by 1 d 1 h 0 min 0.000 s");
    }
}
