//! The boot HTTP server on port 80: boot files by sendfile, scripts and manifests from the [`BootDesk`].
//!
//! One thread per core, each with its own listener on the shared port, its own epoll set and its own connections, so
//! that threads share nothing but counters. A thread calls the desk itself: rendering a script takes microseconds.

mod account;
mod connection;
mod date;
mod documents;
mod request;
mod routes;
mod worker;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::available_parallelism;

use rackbar_artifacts::Artifacts;
use rackbar_model::{ServiceStatus, Severity};
use socket2::Socket;

use crate::Common;
use crate::bind::{self, StartError};
use crate::doors::BootDesk;
use crate::poll::Poller;
use crate::running::{Running, StatusCell, lock};

pub use connection::HttpTimeouts;
pub use documents::{Document, Documents};
use routes::Site;
use worker::{Order, Shared, Worker};

const SERVICE: &str = "boot HTTP";

/// What the boot HTTP server does.
#[derive(Clone)]
pub struct HttpConfig {
    /// Addresses to listen on. Several, such as one per served network, or `0.0.0.0:80`.
    pub listen: Vec<SocketAddr>,
    /// Boot files.
    pub artifacts: Arc<Artifacts>,
    /// Who renders scripts and manifests.
    pub desk: Arc<dyn BootDesk>,
    /// Bounds.
    pub limits: HttpLimits,
}

/// Bounds on what strangers can take from us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpLimits {
    /// Open connections of all clients.
    pub connections: usize,
    /// Open connections of one address. Relayed or not, every machine has its own; proxies are allowed for.
    pub connections_per_client: usize,
    /// How long a client may take.
    pub timeouts: HttpTimeouts,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections: 8192,
            connections_per_client: 256,
            timeouts: HttpTimeouts::default(),
        }
    }
}

/// A running boot HTTP server. Dropping it stops it.
pub struct HttpHandle {
    running: Running,
    shared: Arc<Shared>,
    orders: Vec<mpsc::Sender<Order>>,
    listening: Mutex<Vec<SocketAddr>>,
}

/// Starts the boot HTTP server.
///
/// # Errors
/// When an address cannot be listened on; the text says who holds the port.
pub fn start(config: HttpConfig, common: Common) -> Result<HttpHandle, StartError> {
    let threads = available_parallelism().map_or(1, |count| count.get().min(8));
    let system = |source| StartError::System {
        service: SERVICE,
        source,
    };
    let status = StatusCell::new("http");
    let mut running = Running::new(status);
    let shared = Arc::new(Shared::new(site(&config), config.limits, common));
    let mut sets = listeners(&config.listen, threads)?;
    shared.tell_busy(&config.listen);
    let mut orders = Vec::new();
    for index in 0..threads {
        let poller = Poller::new().map_err(system)?;
        let (sender, receiver) = mpsc::channel();
        let waker = poller.waker();
        let mut worker = Worker::new(poller, receiver, Arc::clone(&shared), running.stop_flag());
        worker.listen(sets.pop().unwrap_or_default());
        running
            .spawn(&format!("http-{index}"), Some(waker), move || worker.run())
            .map_err(system)?;
        orders.push(sender);
    }
    let handle = HttpHandle {
        running,
        shared,
        orders,
        listening: Mutex::new(config.listen),
    };
    handle.tell_status();
    Ok(handle)
}

fn site(config: &HttpConfig) -> Arc<Site> {
    Arc::new(Site {
        artifacts: Arc::clone(&config.artifacts),
        desk: Arc::clone(&config.desk),
    })
}

/// One set of listeners per thread, each on all addresses. Opened here so that errors reach the caller.
fn listeners(addresses: &[SocketAddr], threads: usize) -> Result<Vec<Vec<(SocketAddr, Socket)>>, StartError> {
    let mut sets: Vec<Vec<(SocketAddr, Socket)>> = (0..threads).map(|_| Vec::new()).collect();
    for &address in addresses {
        // With port 0 the first socket chooses the port and the others follow.
        let mut actual = address;
        for set in &mut sets {
            let socket = bind::tcp(SERVICE, actual)?;
            if let Some(local) = socket.local_addr().ok().and_then(|local| local.as_socket()) {
                actual = local;
            }
            set.push((address, socket));
        }
    }
    Ok(sets)
}

impl HttpHandle {
    /// Takes a new configuration while connections go on: new addresses are opened first, then old ones closed.
    ///
    /// # Errors
    /// When a new address cannot be listened on; the old configuration then stays in force.
    pub fn reconfigure(&self, config: HttpConfig) -> Result<(), StartError> {
        let mut listening = lock(&self.listening);
        let added: Vec<_> = config
            .listen
            .iter()
            .copied()
            .filter(|a| !listening.contains(a))
            .collect();
        let removed: Vec<_> = listening
            .iter()
            .copied()
            .filter(|a| !config.listen.contains(a))
            .collect();
        let sets = listeners(&added, self.orders.len())?;
        self.shared.replace(site(&config), config.limits);
        for (orders, set) in self.orders.iter().zip(sets) {
            // A thread that is gone was stopped; then nothing needs to be opened or closed.
            let _ = orders.send(Order::Listen(set));
            let _ = orders.send(Order::Close(removed.clone()));
        }
        self.shared.tell_busy(&config.listen);
        *listening = config.listen;
        drop(listening);
        self.running.wake();
        self.tell_status();
        Ok(())
    }

    /// What the service does now.
    pub fn status(&self) -> ServiceStatus {
        self.running.status.get()
    }

    /// Stops listening, closes all connections and waits until that is done.
    pub fn stop(mut self) {
        self.running.stop();
    }

    fn tell_status(&self) {
        let listening = lock(&self.listening);
        let state = match listening.as_slice() {
            [] => "listening nowhere: no network is served".to_owned(),
            some => {
                let addresses: Vec<String> = some.iter().map(ToString::to_string).collect();
                format!("serving boot files on {}", addresses.join(", "))
            }
        };
        self.running.status.set(Severity::Info, state);
    }
}
