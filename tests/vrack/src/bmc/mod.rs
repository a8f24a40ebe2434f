//! The simulated BMC of a node: one [`BmcState`], three faces that act on the very machine.
//!
//! ```text
//!  Redfish over HTTPS (443/tcp) ─┐
//!  IPMI over LAN (623/udp), SOL ─┼─▶ BmcState ─▶ MachinePower (QEMU by QMP)
//!  KCS (QEMU's ipmi-bmc-extern) ─┘
//! ```
//!
//! [`start`] puts it on a [`BmcSeat`] of the virtual rack. [`Loopback`] runs the same on the kernel's loopback, so that
//! real clients (ipmitool, our own) can be tested against it without a rack.

mod commands;
mod faults;
mod kcs;
mod lan;
mod media;
mod pretend;
mod redfish;
mod sensors;
mod state;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use rackbar_model::MacAddr;

pub use self::faults::Faults;
use self::lan::Wire;
use self::media::Drive;
pub use self::pretend::Pretend;
use self::redfish::Tls;
pub use self::state::{Account, BmcState, Lan, LogEntry};
use crate::console::Console;
use crate::host::{Host, Ipv4};
use crate::seat::{BmcHandle, BmcSeat, Boxed, Identity, MachinePower};
use crate::switch::Tasks;

/// Connections that may wait to be taken.
const BACKLOG: usize = 8;

/// Starts a BMC on a seat of the rack. It answers as soon as its host has an address.
pub fn start(seat: BmcSeat) -> Boxed<'static, io::Result<BmcHandle>> {
    Box::pin(async move { start_on(seat).map(|bmc| Box::new(bmc) as BmcHandle) })
}

/// A BMC on a seat. Dropping it stops it.
pub struct Seated {
    state: Arc<BmcState>,
    _tasks: Tasks,
}

impl Seated {
    /// Its state, for tests that break things or look behind the faces.
    pub fn state(&self) -> &Arc<BmcState> {
        &self.state
    }
}

/// As [`start`], with the state within reach.
///
/// # Errors
/// When a port or the KCS socket cannot be had, or the password is too long.
pub fn start_on(seat: BmcSeat) -> io::Result<Seated> {
    let BmcSeat {
        name,
        host,
        power,
        console,
        identity,
        nics,
        kcs_socket,
        media,
        username,
        password,
        redfish,
        ..
    } = seat;
    let drive = Drive {
        station: host.clone(),
        image: media,
        busy: tokio::sync::Mutex::default(),
    };
    let lan = Lan {
        mac: host.mac(),
        address: Ipv4Addr::UNSPECIFIED,
        prefix: 0,
        gateway: None,
        dhcp: true,
        vlan: None,
    };
    let state = BmcState::new(power, console, identity, nics, lan, (&username, &password))?;
    let state = Arc::new(state.with_drive(drive));
    state.set_faults(Faults {
        no_redfish: !redfish,
        ..Faults::NONE
    });
    let tasks = Tasks::default();
    tasks.spawn(lan::run(Arc::clone(&state), Wire::Host(host.udp(rackbar_ipmi::PORT)?)));
    serve_kcs(&tasks, &state, kcs_socket)?;
    let mut listener = host.listen(443, BACKLOG)?;
    let tls = Tls::new()?;
    let here = Arc::clone(&state);
    tasks.spawn(async move {
        let connections = Tasks::default();
        // Ends with the host.
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(redfish::serve(Arc::clone(&here), tls.clone(), stream));
        }
    });
    follow(&tasks, &state, host.clone(), format!("bmc-{name}"));
    let here = Arc::clone(&state);
    tasks.spawn(async move {
        let mut addresses = host.watch_address();
        loop {
            let bound = *addresses.borrow_and_update();
            let lan = here.lan();
            // A static address is there because it was set.
            if let Some(bound) = bound.filter(|_| lan.dhcp) {
                here.set_lan(Lan {
                    address: bound.address,
                    prefix: bound.prefix,
                    gateway: bound.gateway,
                    ..lan
                });
            }
            if addresses.changed().await.is_err() {
                return;
            }
        }
    });
    Ok(Seated { state, _tasks: tasks })
}

/// Puts network settings in force as they are ordered. A VLAN is kept and shown; the station stays on its port's.
fn follow(tasks: &Tasks, state: &Arc<BmcState>, host: Host, hostname: String) {
    let mut ordered = state.ordered();
    let mut dhcp = state.lan().dhcp;
    let state = Arc::clone(state);
    tasks.spawn(async move {
        while ordered.changed().await.is_ok() {
            let lan = *ordered.borrow_and_update();
            match (lan.dhcp, std::mem::replace(&mut dhcp, lan.dhcp)) {
                // A lease that is held stays.
                (true, true) => {}
                (true, false) => {
                    state.set_lan(Lan {
                        address: Ipv4Addr::UNSPECIFIED,
                        ..state.lan()
                    });
                    host.set_ipv4(&Ipv4::dhcp(&*hostname));
                }
                (false, _) => host.set_ipv4(&Ipv4::Static {
                    address: lan.address,
                    prefix: lan.prefix,
                    gateway: lan.gateway,
                }),
            }
        }
    });
}

fn serve_kcs(tasks: &Tasks, state: &Arc<BmcState>, socket: PathBuf) -> io::Result<()> {
    let listener = tokio::net::UnixListener::bind(&socket)?;
    let state = Arc::clone(state);
    tasks.spawn(async move {
        let connections = Tasks::default();
        while let Ok((stream, _)) = listener.accept().await {
            let state = Arc::clone(&state);
            connections.spawn(async move {
                // The machine was switched off: QEMU dials again with the next start.
                let _hung_up = kcs::serve(&state, stream).await;
            });
        }
    });
    Ok(())
}

/// What a BMC on the loopback is made of.
pub struct LoopbackConfig {
    /// The machine.
    pub power: Arc<dyn MachinePower>,
    /// Its console.
    pub console: Console,
    /// What it says it is.
    pub identity: Identity,
    /// Its NICs.
    pub nics: Vec<MacAddr>,
    /// MAC address of the BMC.
    pub mac: MacAddr,
    /// Administrator.
    pub username: String,
    /// Their password.
    pub password: String,
    /// Where KCS listens, when wanted.
    pub kcs_socket: Option<PathBuf>,
}

/// A BMC on an address of the kernel's, mostly 127.0.0.1 with free ports. Dropping it stops it.
pub struct Loopback {
    state: Arc<BmcState>,
    https: SocketAddr,
    ipmi: SocketAddr,
    _tasks: Tasks,
}

impl Loopback {
    /// Starts one on 127.0.0.1 with free ports.
    ///
    /// # Errors
    /// When no port is free, or the password is too long.
    pub async fn start(config: LoopbackConfig) -> io::Result<Self> {
        Self::start_at(config, Ipv4Addr::LOCALHOST, (0, 0)).await
    }

    /// Starts one at an address, with these ports for Redfish and IPMI; 0 means any.
    ///
    /// # Errors
    /// When a port cannot be had there, or the password is too long.
    pub async fn start_at(config: LoopbackConfig, address: Ipv4Addr, ports: (u16, u16)) -> io::Result<Self> {
        let LoopbackConfig {
            power,
            console,
            identity,
            nics,
            mac,
            username,
            password,
            kcs_socket,
        } = config;
        let lan = Lan {
            mac,
            address,
            prefix: 8,
            gateway: None,
            dhcp: false,
            vlan: None,
        };
        let state = Arc::new(BmcState::new(
            power,
            console,
            identity,
            nics,
            lan,
            (&username, &password),
        )?);
        let tasks = Tasks::default();
        let socket = tokio::net::UdpSocket::bind((address, ports.1)).await?;
        let ipmi = socket.local_addr()?;
        tasks.spawn(lan::run(Arc::clone(&state), Wire::Kernel(socket)));
        if let Some(path) = kcs_socket {
            serve_kcs(&tasks, &state, path)?;
        }
        let listener = tokio::net::TcpListener::bind((address, ports.0)).await?;
        let https = listener.local_addr()?;
        let tls = Tls::new()?;
        let here = Arc::clone(&state);
        tasks.spawn(async move {
            let connections = Tasks::default();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(redfish::serve(Arc::clone(&here), tls.clone(), stream));
            }
        });
        Ok(Self {
            state,
            https,
            ipmi,
            _tasks: tasks,
        })
    }

    /// Its state.
    pub fn state(&self) -> &Arc<BmcState> {
        &self.state
    }

    /// Where Redfish is.
    pub const fn https(&self) -> SocketAddr {
        self.https
    }

    /// Where IPMI is.
    pub const fn ipmi(&self) -> SocketAddr {
        self.ipmi
    }
}
