//! The DNS shell: UDP and TCP on the addresses of served networks, and sockets to upstreams, on one thread over epoll.
//!
//! Listening is per address: a network that is not served is not listened on. What is answered, refused or forwarded
//! is decided in `rackbar-dns`.

mod streams;
mod upstream;
mod worker;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use rackbar_dns::Zones;
use rackbar_model::{ServiceStatus, Severity};
use socket2::Socket;

use crate::Common;
use crate::bind::{self, StartError};
use crate::poll::Poller;
use crate::running::{Running, StatusCell, lock};

pub(crate) use worker::is_near;
use worker::{Order, Worker};

const SERVICE: &str = "DNS";

/// What the DNS server does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DnsConfig {
    /// Where to listen, for UDP and TCP: our addresses on networks that we serve.
    pub listen: Vec<SocketAddrV4>,
    /// Networks whose clients are forwarded for, by any address and prefix length.
    pub served: Vec<(Ipv4Addr, u8)>,
    /// Resolvers that are asked for what is not ours, the first one first.
    pub upstreams: Vec<SocketAddr>,
}

/// A running DNS server. Dropping it stops it.
pub struct DnsHandle {
    running: Running,
    orders: Arc<Mutex<Vec<Order>>>,
    config: Mutex<DnsConfig>,
    zones: Mutex<Arc<Zones>>,
}

/// A UDP and a TCP socket on one address.
pub(crate) struct Pair {
    at: SocketAddrV4,
    udp: Socket,
    tcp: Socket,
}

/// Starts the DNS server.
///
/// # Errors
/// When an address cannot be listened on; the text says who holds the port.
pub fn start(config: DnsConfig, zones: Arc<Zones>, common: Common) -> Result<DnsHandle, StartError> {
    let system = |source| StartError::System {
        service: SERVICE,
        source,
    };
    let pairs = open(&config.listen)?;
    let mut running = Running::new(StatusCell::new("dns"));
    let poller = Poller::new().map_err(system)?;
    let waker = poller.waker();
    let orders = Arc::new(Mutex::new(vec![Order {
        open: pairs,
        config: config.clone(),
        zones: zones.clone(),
    }]));
    let worker = Worker::new(poller, common, running.stop_flag(), orders.clone());
    running
        .spawn("dns", Some(waker.clone()), move || worker.run())
        .map_err(system)?;
    waker.wake();
    let handle = DnsHandle {
        running,
        orders,
        config: Mutex::new(config),
        zones: Mutex::new(zones),
    };
    handle.tell_status();
    Ok(handle)
}

fn open(addresses: &[SocketAddrV4]) -> Result<Vec<Pair>, StartError> {
    let one = |at: &SocketAddrV4| {
        Ok(Pair {
            at: *at,
            udp: bind::udp(SERVICE, (*at).into(), None)?,
            tcp: bind::tcp(SERVICE, (*at).into())?,
        })
    };
    addresses.iter().map(one).collect()
}

impl DnsHandle {
    /// Takes another configuration; questions under way go on.
    ///
    /// # Errors
    /// When a new address cannot be listened on; the old configuration then stays in force.
    pub fn reconfigure(&self, config: DnsConfig) -> Result<(), StartError> {
        let mut current = lock(&self.config);
        let added: Vec<_> = config
            .listen
            .iter()
            .copied()
            .filter(|at| !current.listen.contains(at))
            .collect();
        let pairs = open(&added)?;
        *current = config.clone();
        drop(current);
        self.order(pairs, config);
        Ok(())
    }

    /// Answers from other zones from now on.
    pub fn set_zones(&self, zones: Arc<Zones>) {
        *lock(&self.zones) = zones;
        let config = lock(&self.config).clone();
        self.order(Vec::new(), config);
    }

    fn order(&self, open: Vec<Pair>, config: DnsConfig) {
        let zones = lock(&self.zones).clone();
        lock(&self.orders).push(Order { open, config, zones });
        self.running.wake();
        self.tell_status();
    }

    /// What the service does now.
    pub fn status(&self) -> ServiceStatus {
        self.running.status.get()
    }

    /// Stops and waits until that is done.
    pub fn stop(mut self) {
        self.running.stop();
    }

    fn tell_status(&self) {
        let config = lock(&self.config).clone();
        let list = |addresses: Vec<String>| addresses.join(", ");
        let at = list(config.listen.iter().map(ToString::to_string).collect());
        let others = match config.upstreams.as_slice() {
            [] => "refusing other names, as no upstream resolver is known".to_owned(),
            some => format!(
                "asking {} for others",
                list(some.iter().map(ToString::to_string).collect())
            ),
        };
        let state = if config.listen.is_empty() {
            "listening nowhere: no network is served".to_owned()
        } else {
            format!("answering for {} names on {at}, {others}", lock(&self.zones).len())
        };
        self.running.status.set(Severity::Info, state);
    }
}
