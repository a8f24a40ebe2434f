//! The DHCP shell: sockets, threads and the lease log around `rackbar_dhcp::Engine`.
//!
//! ```text
//!  sockets ──batches of 64──▶ engine thread ──offers, events──▶ sockets, sink
//!                                  │ leases, and what must wait for them
//!                                  ▼
//!                           committer thread ──one commit for all that gathered──▶ then their acknowledgements
//! ```
//! While the disk syncs one group of leases the engine answers on, and the next group gathers: an acknowledgement
//! waits for one or two syncs however many clients there are.

mod clock;
mod committer;
mod ports;
mod server;

use std::sync::{Arc, mpsc};

use rackbar_dhcp::{Engine, NetworkStatus};
use rackbar_model::{ServiceStatus, Severity, Timestamp};

use crate::bind::StartError;
use crate::doors::LeaseLog;
use crate::poll::{Poller, Waker};
use crate::running::{Running, StatusCell};
use crate::{Common, LeaseLogError};

pub use clock::Clock;

use clock::Time;
use committer::Committer;
use ports::Port;
use server::{Order, Server};

pub(crate) const SERVICE: &str = "DHCP";

/// What the DHCP service does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DhcpConfig {
    /// Interfaces to listen on: those of the networks in `engine`, and those over which only relays reach us. Ports 67
    /// and 4011 are taken on these alone.
    pub interfaces: Vec<String>,
    /// Networks, boot policy, who is served.
    pub engine: rackbar_dhcp::Config,
}

/// A running DHCP service. Dropping it stops it.
pub struct DhcpHandle {
    running: Running,
    orders: mpsc::Sender<Order>,
    waker: Waker,
    common: Common,
}

/// Starts the DHCP service with the leases `log` knows.
///
/// # Errors
/// When the leases cannot be read, an interface cannot be used, or a port is taken; the text says by whom.
pub fn start(config: DhcpConfig, log: Arc<dyn LeaseLog>, common: Common) -> Result<DhcpHandle, StartError> {
    start_by(Clock::default(), config, log, common)
}

/// As [`start`], by other clocks than the system's: minutes of a lease or of a firmware's patience pass when both say so,
/// and a wall clock that goes alone was set.
///
/// # Errors
/// As there.
pub fn start_by(
    clock: Clock,
    config: DhcpConfig,
    log: Arc<dyn LeaseLog>,
    common: Common,
) -> Result<DhcpHandle, StartError> {
    let system = |source| StartError::System {
        service: SERVICE,
        source,
    };
    let leases = log.load()?;
    let ports = ports::open(&config.interfaces)?;
    for lease in leases
        .iter()
        .filter(|lease| lease.state == rackbar_model::LeaseState::Bound)
    {
        common.clients.leased(lease.address, lease.mac);
    }
    let mut engine = Engine::new(config.engine, leases);
    let time = Time::new(clock);
    recall(&mut engine, log.as_ref(), time.now());
    let mut running = Running::new(StatusCell::new("dhcp"));
    let poller = Poller::new().map_err(system)?;
    let waker = poller.waker();
    let (orders, receiver) = mpsc::channel();
    let committer = Committer::start(&mut running, log, common.clone(), waker.clone()).map_err(system)?;
    let mut server = Server::new(poller, (engine, time), committer, common.clone(), receiver, &running);
    server.take_ports(ports);
    running
        .spawn("dhcp", Some(waker.clone()), move || server.run())
        .map_err(system)?;
    let (heard, wake) = (orders.clone(), waker.clone());
    common.clients.listen(Some(Box::new(move |what| {
        // The service was stopped: nobody needs to know.
        let _ = heard.send(Order::Heard(what));
        wake.wake();
    })));
    Ok(DhcpHandle {
        running,
        orders,
        waker,
        common,
    })
}

impl DhcpHandle {
    /// Takes a new configuration; leases stay. Interfaces that stay keep their sockets.
    ///
    /// # Errors
    /// When a new interface cannot be used; the old configuration then stays in force.
    pub fn reconfigure(&self, config: DhcpConfig) -> Result<(), StartError> {
        let (sender, receiver) = mpsc::channel();
        self.order(Order::Names(sender));
        let open: Vec<(String, u32)> = receiver.recv().unwrap_or_default();
        // An interface that was unplugged and came back has another index: its sockets are dead.
        let stays = |name: &String| {
            ports::index_of(name).is_some_and(|index| open.iter().any(|(n, i)| n == name && *i == index))
        };
        let (keep, new): (Vec<_>, Vec<_>) = config.interfaces.iter().cloned().partition(stays);
        let ports = ports::open(&new)?;
        self.order(Order::Reconfigure {
            engine: Box::new(config.engine),
            keep,
            ports,
        });
        Ok(())
    }

    /// What each network is doing: its role, another server seen there, addresses left. Empty after [`Self::stop`].
    pub fn networks(&self) -> Vec<NetworkStatus> {
        self.ask(|engine| engine.networks().collect()).unwrap_or_default()
    }

    /// Looks something up in the engine, on its thread: what `look` does delays packets.
    pub fn ask<T: Send + 'static>(&self, look: impl FnOnce(&Engine) -> T + Send + 'static) -> Option<T> {
        let (sender, receiver) = mpsc::channel();
        self.order(Order::Look(Box::new(move |engine| {
            // The asker gave up waiting.
            let _ = sender.send(look(engine));
        })));
        receiver.recv().ok()
    }

    /// What the service does now.
    pub fn status(&self) -> ServiceStatus {
        self.running.status.get()
    }

    /// Stops receiving, commits and acknowledges what was under way, and waits until that is done.
    pub fn stop(mut self) {
        self.common.clients.listen(None);
        self.running.stop();
    }

    fn order(&self, order: Order) {
        // Fails only when the thread is gone; the asker then sees its answer channel closed.
        let _ = self.orders.send(order);
        self.waker.wake();
    }
}

/// Gives the engine back what was learnt of firmware. Without it machines are led by their usual way and learnt anew.
fn recall(engine: &mut Engine, log: &dyn LeaseLog, now: Timestamp) {
    match log.habits() {
        Ok(habits) => {
            for mac in engine.recall(now, habits) {
                log.learnt(mac, None);
            }
        }
        Err(error) => tracing::warn!(%error, "what was learnt of firmware cannot be read and is learnt anew"),
    }
}

/// Words for the status: the worst first.
fn status_words(
    networks: &[NetworkStatus],
    ports: &[Arc<Port>],
    failure: Option<&LeaseLogError>,
) -> (Severity, String) {
    use rackbar_dhcp::Role;
    if let Some(error) = failure {
        return (Severity::Error, format!("not acknowledging anybody: {error}"));
    }
    if ports.is_empty() || networks.is_empty() {
        return (Severity::Info, "listening nowhere: no network is served".to_owned());
    }
    let mut severity = Severity::Info;
    let words = networks.iter().map(|network| {
        let name = &network.name;
        let beside = network
            .foreign
            .map(|(server, _)| format!(" beside the DHCP server {server}"))
            .unwrap_or_default();
        match network.role {
            Role::Listening => format!("listening on {name} for other DHCP servers"),
            Role::Own if network.free == 0 && network.pool > 0 => {
                severity = Severity::Error;
                format!("out of addresses on {name}{beside}")
            }
            Role::Own => {
                if network.foreign.is_some() {
                    severity = severity.max(Severity::Warning);
                }
                format!(
                    "serving {name} as the DHCP server{beside}, {} addresses free",
                    network.free
                )
            }
            Role::Proxy => format!("adding boot information on {name}{beside}"),
            Role::Off => format!("off on {name}"),
        }
    });
    let words: Vec<String> = words.collect();
    (severity, words.join("; "))
}
