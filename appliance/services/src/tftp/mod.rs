//! The TFTP shell: port 69, a connected socket per transfer, all on one thread over epoll.
//!
//! A window leaves as one `sendmsg` whose segments the kernel cuts (UDP_SEGMENT); where the path cannot do that, as one
//! `sendmmsg`. Only names in the configuration, and the site's own boot files, are served; what a client sends is compared with them and with nothing
//! else.

mod shelf;
mod transfers;
mod window;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};

use rackbar_artifacts::Artifacts;
use rackbar_model::{ServiceStatus, Severity};
use socket2::Socket;

use crate::Common;
use crate::bind::{self, StartError};
use crate::poll::Poller;
use crate::running::{Running, StatusCell, lock};

pub use rackbar_tftp::Limits as TftpLimits;

use shelf::Shelf;
use transfers::{Order, Transfers};

const SERVICE: &str = "TFTP";

/// What the TFTP server does.
#[derive(Clone)]
pub struct TftpConfig {
    /// IPv4 addresses to listen on, such as one per served network, or `0.0.0.0:69`.
    pub listen: Vec<SocketAddr>,
    /// Boot files.
    pub artifacts: Arc<Artifacts>,
    /// Which of ours, by name, strangers may have; those of the site's own they may have all.
    pub names: Vec<String>,
    /// Bounds.
    pub limits: TftpLimits,
}

/// A running TFTP server. Dropping it stops it.
pub struct TftpHandle {
    running: Running,
    orders: mpsc::Sender<Order>,
    listening: Mutex<Vec<SocketAddr>>,
}

/// Starts the TFTP server.
///
/// # Errors
/// When an address cannot be listened on; the text says who holds the port.
pub fn start(config: TftpConfig, common: Common) -> Result<TftpHandle, StartError> {
    let system = |source| StartError::System {
        service: SERVICE,
        source,
    };
    let sockets = listen(&config.listen)?;
    let mut running = Running::new(StatusCell::new("tftp"));
    let poller = Poller::new().map_err(system)?;
    let waker = poller.waker();
    let (orders, receiver) = mpsc::channel();
    let shelf = Shelf::new(config.artifacts, config.names);
    let mut transfers = Transfers::new(poller, shelf, config.limits, common, receiver, running.stop_flag());
    transfers.listen(sockets);
    running
        .spawn("tftp", Some(waker), move || transfers.run())
        .map_err(system)?;
    let handle = TftpHandle {
        running,
        orders,
        listening: Mutex::new(config.listen),
    };
    handle.tell_status();
    Ok(handle)
}

fn listen(addresses: &[SocketAddr]) -> Result<Vec<(SocketAddr, Socket)>, StartError> {
    addresses
        .iter()
        .map(|&address| {
            let socket = bind::udp(SERVICE, address, None)?;
            // Answers must come from the address that was asked (RFC 1123 section 4.2.3.2).
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv4PacketInfo, &true).map_err(
                |errno| StartError::System {
                    service: SERVICE,
                    source: errno.into(),
                },
            )?;
            Ok((address, socket))
        })
        .collect()
}

impl TftpHandle {
    /// Takes a new configuration; transfers under way go on.
    ///
    /// # Errors
    /// When a new address cannot be listened on; the old configuration then stays in force.
    pub fn reconfigure(&self, config: TftpConfig) -> Result<(), StartError> {
        let mut listening = lock(&self.listening);
        let added: Vec<_> = config
            .listen
            .iter()
            .copied()
            .filter(|a| !listening.contains(a))
            .collect();
        let removed = listening
            .iter()
            .copied()
            .filter(|a| !config.listen.contains(a))
            .collect();
        let sockets = listen(&added)?;
        let shelf = Shelf::new(config.artifacts, config.names);
        // Fails only when the thread was stopped.
        let _ = self.orders.send(Order {
            shelf,
            limits: config.limits,
            open: sockets,
            close: removed,
        });
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

    /// Ends all transfers and waits until that is done.
    pub fn stop(mut self) {
        self.running.stop();
    }

    fn tell_status(&self) {
        let listening = lock(&self.listening);
        let state = match listening.as_slice() {
            [] => "listening nowhere: no network is served".to_owned(),
            some => {
                let addresses: Vec<String> = some.iter().map(ToString::to_string).collect();
                format!("serving boot programs on {}", addresses.join(", "))
            }
        };
        self.running.status.set(Severity::Info, state);
    }
}
