//! The NTP shell: port 123 on the addresses of served networks, and the client that keeps our own clock, on one thread.
//!
//! The clock is behind a door ([`Clock`]), so that no test moves the clock of the machine it runs on.

mod clock;
mod lookup;
mod worker;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use rackbar_model::ServiceStatus;
use rackbar_ntp::{Adjust, ClientConfig, Leap, NameSight, ServerName, Sight, SystemState};
use socket2::Socket;

use crate::Common;
use crate::bind::{self, StartError};
use crate::poll::Poller;
use crate::running::{Running, StatusCell, lock};

pub use clock::{FreeClock, SystemClock};
pub use lookup::{Lookup, SystemLookup};
pub use rackbar_ntp::Limits as NtpLimits;

use lookup::Lookups;
use worker::{Order, Worker};

const SERVICE: &str = "NTP";

/// A clock that can be read and corrected.
pub trait Clock: Send {
    /// Unix time in nanoseconds.
    fn unix(&self) -> u64;

    /// Corrects it. `bound` is the error bound afterwards, in nanoseconds.
    ///
    /// # Errors
    /// When the clock may not be set; the text says why.
    fn adjust(&mut self, how: Adjust, leap: Leap, bound: u64) -> std::io::Result<()>;

    /// Says that nobody corrects it any more, until the next [`Self::adjust`].
    ///
    /// # Errors
    /// As there.
    fn lost(&mut self) -> std::io::Result<()>;
}

/// What the NTP service does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NtpConfig {
    /// Where to answer: our addresses on networks that we serve.
    pub listen: Vec<SocketAddrV4>,
    /// Networks whose clients get the time, by any address and prefix length; others get a DENY.
    pub served: Vec<(Ipv4Addr, u8)>,
    /// Whom our own clock follows.
    pub client: ClientConfig,
    /// And whom by name.
    pub names: Vec<ServerName>,
    /// How often a client may ask.
    pub limits: NtpLimits,
}

/// What is known of our clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tracking {
    /// What we say of it.
    pub system: SystemState,
    /// Its servers.
    pub sources: Vec<Sight>,
    /// Those of its servers that are known by name.
    pub names: Vec<NameSight>,
}

/// A running NTP service. Dropping it stops it.
pub struct NtpHandle {
    running: Running,
    orders: Arc<Mutex<Vec<Order>>>,
    listening: Mutex<Vec<SocketAddrV4>>,
    tracking: Arc<Mutex<Tracking>>,
}

/// Starts the service, which looks names up by the system's resolver.
///
/// # Errors
/// When an address cannot be listened on; the text says who holds the port.
pub fn start(config: NtpConfig, clock: Box<dyn Clock>, common: Common) -> Result<NtpHandle, StartError> {
    start_with(config, clock, Arc::new(SystemLookup), common)
}

/// As [`start`], with another resolver.
///
/// # Errors
/// As there.
pub fn start_with(
    config: NtpConfig,
    clock: Box<dyn Clock>,
    lookup: Arc<dyn Lookup>,
    common: Common,
) -> Result<NtpHandle, StartError> {
    let system = |source| StartError::System {
        service: SERVICE,
        source,
    };
    let open = open(&config.listen)?;
    let mut running = Running::new(StatusCell::new("ntp"));
    let poller = Poller::new().map_err(system)?;
    let waker = poller.waker();
    let listening = Mutex::new(config.listen.clone());
    let orders = Arc::new(Mutex::new(vec![Order { open, config }]));
    let tracking = Arc::new(Mutex::new(Tracking {
        system: SystemState::unsynchronised(),
        sources: Vec::new(),
        names: Vec::new(),
    }));
    let worker = Worker::new(
        poller,
        (clock, Lookups::new(lookup, waker.clone())),
        common,
        (running.stop_flag(), running.status.clone()),
        orders.clone(),
        tracking.clone(),
    )
    .map_err(system)?;
    running
        .spawn("ntp", Some(waker.clone()), move || worker.run())
        .map_err(system)?;
    waker.wake();
    Ok(NtpHandle {
        running,
        orders,
        listening,
        tracking,
    })
}

fn open(addresses: &[SocketAddrV4]) -> Result<Vec<(SocketAddrV4, Socket)>, StartError> {
    let one = |at: &SocketAddrV4| Ok((*at, bind::udp(SERVICE, (*at).into(), None)?));
    addresses.iter().map(one).collect()
}

impl NtpHandle {
    /// Takes another configuration; servers that stay keep what was measured.
    ///
    /// # Errors
    /// When a new address cannot be listened on; the old configuration then stays in force.
    pub fn reconfigure(&self, config: NtpConfig) -> Result<(), StartError> {
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

    /// What is known of our clock now.
    pub fn tracking(&self) -> Tracking {
        lock(&self.tracking).clone()
    }

    /// What the service does now.
    pub fn status(&self) -> ServiceStatus {
        self.running.status.get()
    }

    /// Stops and waits until that is done. The clock goes on as it is.
    pub fn stop(mut self) {
        self.running.stop();
    }
}
