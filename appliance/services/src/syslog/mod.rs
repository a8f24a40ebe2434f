//! The syslog shell: port 514, UDP and TCP, on the addresses of served networks, one thread, into a [`LogStore`].
//!
//! A sender that sends more than its share loses the rest, and a record of our own says how many.

mod senders;
mod store;
mod worker;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use rackbar_model::ServiceStatus;
use socket2::Socket;

use crate::Common;
use crate::bind::{self, StartError};
use crate::poll::Poller;
use crate::running::{Running, StatusCell, lock};

pub use store::{Found, LogStore, Start};
use worker::{Order, Worker};

const SERVICE: &str = "syslog";

/// What the collector does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyslogConfig {
    /// Where to listen: our addresses on networks that we serve.
    pub listen: Vec<SocketAddrV4>,
    /// Networks whose messages are taken, by any address and prefix length.
    pub served: Vec<(Ipv4Addr, u8)>,
    /// Messages a second of one sender, in the long run; ten times as many at once.
    pub per_second: u32,
    /// Bytes that are kept.
    pub bytes: u64,
}

impl Default for SyslogConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            served: Vec::new(),
            per_second: 500,
            bytes: 256 << 20,
        }
    }
}

/// A running collector. Dropping it stops it.
pub struct SyslogHandle {
    running: Running,
    orders: Arc<Mutex<Vec<Order>>>,
    listening: Mutex<Vec<SocketAddrV4>>,
}

/// A UDP and a TCP socket on one address.
pub(crate) struct Pair {
    at: SocketAddrV4,
    udp: Socket,
    tcp: Socket,
}

/// Starts the collector.
///
/// # Errors
/// When an address cannot be listened on; the text says who holds the port.
pub fn start(config: SyslogConfig, store: Arc<LogStore>, common: Common) -> Result<SyslogHandle, StartError> {
    let system = |source| StartError::System {
        service: SERVICE,
        source,
    };
    let open = open(&config.listen)?;
    let mut running = Running::new(StatusCell::new("syslog"));
    let poller = Poller::new().map_err(system)?;
    let waker = poller.waker();
    let listening = Mutex::new(config.listen.clone());
    let orders = Arc::new(Mutex::new(vec![Order { open, config }]));
    let ends = (running.stop_flag(), running.status.clone());
    let worker = Worker::new(poller, store, common, ends, orders.clone());
    running
        .spawn("syslog", Some(waker.clone()), move || worker.run())
        .map_err(system)?;
    waker.wake();
    Ok(SyslogHandle {
        running,
        orders,
        listening,
    })
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

impl SyslogHandle {
    /// Takes another configuration; connections go on.
    ///
    /// # Errors
    /// When a new address cannot be listened on; the old configuration then stays in force.
    pub fn reconfigure(&self, config: SyslogConfig) -> Result<(), StartError> {
        let mut listening = lock(&self.listening);
        let added: Vec<_> = config
            .listen
            .iter()
            .copied()
            .filter(|at| !listening.contains(at))
            .collect();
        let open = open(&added)?;
        listening.clone_from(&config.listen);
        drop(listening);
        lock(&self.orders).push(Order { open, config });
        self.running.wake();
        Ok(())
    }

    /// What the service does now.
    pub fn status(&self) -> ServiceStatus {
        self.running.status.get()
    }

    /// Stops, and waits until what came is on the disk.
    pub fn stop(mut self) {
        self.running.stop();
    }
}
