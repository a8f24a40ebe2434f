//! What the API says of boot control: how many machines fetch at a time, how many may, and who waits.

use std::net::{IpAddr, SocketAddr};

use rackbar_model::MacAddr;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How busy the servers of boot files are.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct BootControl {
    /// Each server.
    pub servers: Vec<BootServer>,
    /// Who waits for a place at the TFTP server, the next one first, then who waits for boot HTTP, in no order: at most 64 of
    /// each.
    pub waiting: Vec<BootWaiter>,
    /// Who asked for the same thing three times or more within ten minutes, the newest first, at most 64: firmware and
    /// loaders that get no further wait longer each time, and this shows how long.
    #[serde(default)]
    pub again: Vec<BootAgain>,
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
    /// The server: `tftp` or `http`.
    #[serde(default)]
    pub server: String,
    /// Where it asked from.
    #[schema(value_type = String)]
    pub client: SocketAddr,
    /// Its interface, when a lease or the neighbour table tells.
    #[schema(value_type = Option<String>)]
    pub mac: Option<MacAddr>,
    /// Its name, when it is a machine that is known.
    pub node: Option<String>,
    /// Seconds since it asked first; absent where only the kernel would know.
    pub seconds: Option<u64>,
}

/// A machine that asks again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct BootAgain {
    /// Where it asked from last.
    #[schema(value_type = String)]
    pub client: IpAddr,
    /// Its interface, when a lease or the neighbour table tells.
    #[schema(value_type = Option<String>)]
    pub mac: Option<MacAddr>,
    /// Its name, when it is a machine that is known.
    pub node: Option<String>,
    /// The file or document.
    pub what: String,
    /// How often it asked.
    pub times: u32,
    /// Seconds since it asked last.
    pub seconds: u64,
    /// Seconds between that and the time before: its pause.
    pub pause: u64,
}
