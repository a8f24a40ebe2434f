//! Answers IPv6 router solicitations on served networks with "no router here".
//!
//! iPXE waits 13 s for a router before it goes on with IPv4; an advertisement of lifetime 0 ends the wait at once. It
//! makes nobody's default router of us and gives no prefix (RFC 4861 section 4.2), so it changes nothing else. It is
//! sent to the asking station only, and never unasked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::epoll::EpollFlags;
use rackbar_model::{MacAddr, ServiceStatus, Severity};

use crate::Common;
use crate::bind::StartError;
use crate::frame;
use crate::link::{FrameSocket, Link, filter, join_group};
use crate::poll::{Poller, WAKE};
use crate::running::{Running, StatusCell, StopFlag, lock};

const SERVICE: &str = "router advertisements";
/// Advertisements per second and network: a rack that powers on at once stays below, a flood does not double itself.
const PER_SECOND: u32 = 500;

/// Where to answer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RaConfig {
    /// Names of the interfaces on which we serve machines. Not those of other networks: there an advertisement of
    /// ours has no business.
    pub interfaces: Vec<String>,
}

/// A running responder. Dropping it stops it.
pub struct RaHandle {
    running: Running,
    wanted: Arc<Mutex<Option<Vec<Port>>>>,
}

struct Port {
    link: Link,
    socket: FrameSocket,
    window: Instant,
    sent: u32,
}

/// Starts the responder.
///
/// # Errors
/// When an interface cannot be used.
pub fn start(config: &RaConfig, common: Common) -> Result<RaHandle, StartError> {
    let system = |source| StartError::System {
        service: SERVICE,
        source,
    };
    let ports = open(config)?;
    let mut running = Running::new(StatusCell::new("ra"));
    let poller = Poller::new().map_err(system)?;
    let waker = poller.waker();
    let wanted = Arc::new(Mutex::new(Some(ports)));
    let responder = Responder {
        poller,
        common,
        stop: running.stop_flag(),
        wanted: Arc::clone(&wanted),
        ports: HashMap::new(),
    };
    running
        .spawn("ra", Some(waker.clone()), move || responder.run())
        .map_err(system)?;
    waker.wake();
    let handle = RaHandle { running, wanted };
    handle.tell_status(config);
    Ok(handle)
}

fn open(config: &RaConfig) -> Result<Vec<Port>, StartError> {
    config
        .interfaces
        .iter()
        .map(|name| {
            let link = Link::find(SERVICE, name)?;
            let socket = FrameSocket::open(&link, libc::ETH_P_IPV6 as u16, &filter::SOLICITATIONS);
            let socket = socket.and_then(|socket| {
                // Solicitations go to the all-routers group.
                join_group(socket.raw(), link.index, [0x33, 0x33, 0, 0, 0, 2])?;
                Ok(socket)
            });
            let socket = socket.map_err(|source| StartError::Interface {
                service: SERVICE,
                interface: name.clone(),
                source,
                hint: "whole frames need root or CAP_NET_RAW".to_owned(),
            })?;
            Ok(Port {
                link,
                socket,
                window: Instant::now(),
                sent: 0,
            })
        })
        .collect()
}

impl RaHandle {
    /// Answers on other interfaces from now on.
    ///
    /// # Errors
    /// When one cannot be used; the old configuration then stays in force.
    pub fn reconfigure(&self, config: &RaConfig) -> Result<(), StartError> {
        *lock(&self.wanted) = Some(open(config)?);
        self.running.wake();
        self.tell_status(config);
        Ok(())
    }

    /// What the service does now.
    pub fn status(&self) -> ServiceStatus {
        self.running.status.get()
    }

    /// Stops and waits until that is done.
    pub fn stop(mut self) {
        self.running.stop();
    }

    fn tell_status(&self, config: &RaConfig) {
        let state = match config.interfaces.as_slice() {
            [] => "answering nowhere: no network is served".to_owned(),
            names => format!("telling IPv6 clients on {} that there is no router", names.join(", ")),
        };
        self.running.status.set(Severity::Info, state);
    }
}

struct Responder {
    poller: Poller,
    common: Common,
    stop: StopFlag,
    wanted: Arc<Mutex<Option<Vec<Port>>>>,
    ports: HashMap<u64, Port>,
}

impl Responder {
    fn run(mut self) {
        let mut ready = Vec::new();
        while !self.stop.is_set() {
            if let Err(error) = self.poller.wait(None, &mut ready) {
                tracing::error!(%error, "router advertisements: waiting for packets failed");
                return;
            }
            for (token, _) in ready.drain(..) {
                match token {
                    WAKE => self.take_ports(),
                    token => self.answer(token),
                }
            }
        }
    }

    fn take_ports(&mut self) {
        let Some(ports) = lock(&self.wanted).take() else { return };
        self.ports.clear();
        for port in ports {
            let token = u64::from(port.link.index);
            match self.poller.add(&port.socket, EpollFlags::EPOLLIN, token) {
                Ok(()) => drop(self.ports.insert(token, port)),
                Err(error) => {
                    tracing::error!(interface = %port.link.name, %error, "router advertisements: cannot watch")
                }
            }
        }
    }

    fn answer(&mut self, token: u64) {
        let Some(port) = self.ports.get_mut(&token) else { return };
        let mut buffer = [0; 2048];
        loop {
            match port.socket.receive(&mut buffer) {
                Ok(Some(bytes)) => {
                    if let Some((mac, client)) = frame::read_solicitation(bytes) {
                        self.common.metrics.ra_solicitations.inc();
                        if mac != port.link.mac && port.may_send() {
                            port.send(mac, client, &self.common);
                        }
                    }
                }
                Ok(None) => return,
                // Reported once by this read and then cleared: the interface went down and will come back.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => return,
                Err(error) => {
                    tracing::warn!(interface = %port.link.name, %error, "router advertisements: receiving failed");
                    return;
                }
            }
        }
    }
}

impl Port {
    fn may_send(&mut self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.window) >= Duration::from_secs(1) {
            (self.window, self.sent) = (now, 0);
        }
        self.sent += 1;
        self.sent <= PER_SECOND
    }

    fn send(&self, to: MacAddr, client: std::net::Ipv6Addr, common: &Common) {
        if self.socket.send(&frame::no_router(self.link.mac, to, client)).is_ok() {
            common.metrics.ra_sent.inc();
        }
    }
}
