//! DHCPv4 server, ProxyDHCP and boot-path negotiation as one engine that never touches a socket or a clock.
//!
//! [`Engine::handle`] takes the time and an [`Input`] and pushes [`Output`]s, which the shell carries out in order;
//! [`Engine::deadline`] says when the engine next wants to be called. Where the clock is set, [`Engine::shift`] says so. [`packet`] is the codec: [`packet::Packet`] is a
//! view that tolerates what broken ROMs send, [`packet::Message`] a value that can only hold sense.
//!
//! Terms: a *network* is one IPv4 subnet we answer on, a *binding* is an address and the client it stands for, a
//! *way* is how we lead a machine's firmware to our boot files (`rackbar_model::BootWay`).

mod config;
mod engine;
mod io;
mod leases;
pub mod packet;
mod shift;

pub use config::{
    BootPolicy, Config, Interface, Limits, Mode, Network, Range, Reservation, ReservedFor, UnknownClients,
};
pub use engine::{ClientMemory, ClientPhase, Counters, Engine, NetworkStatus, Role};
pub use io::{Destination, Input, InterfaceId, Output};
