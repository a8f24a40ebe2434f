//! What the API says of boot control: how many machines fetch at a time, how many may, and who waits.

use std::net::SocketAddr;

use rackbar_model::MacAddr;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How busy the servers of boot files are.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct BootControl {
    /// Each server.
    pub servers: Vec<BootServer>,
    /// Who waits for a place at the TFTP server, the next one first, and at most 64 of them. Of machines that wait for boot
    /// HTTP only the number is known: their connections are with the kernel.
    pub waiting: Vec<BootWaiter>,
}

/// A server of boot files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct BootServer {
    /// `tftp` or `http`, as in the list of services.
    pub name: String,
    /// Transfers or connections now.
    pub taken: u64,
    /// Most at one time (`[boot]` in `rackbar.toml`).
    pub limit: u64,
    /// Machines that wait for a place.
    pub waiting: u64,
    /// Since the start: TFTP requests and HTTP moments at which nothing was free.
    pub full: u64,
}

/// A machine that waits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct BootWaiter {
    /// Where it asked from.
    #[schema(value_type = String)]
    pub client: SocketAddr,
    /// Its interface, when a lease or the neighbour table tells.
    #[schema(value_type = Option<String>)]
    pub mac: Option<MacAddr>,
    /// Its name, when it is a machine that is known.
    pub node: Option<String>,
    /// Seconds since it asked first.
    pub seconds: u64,
}
