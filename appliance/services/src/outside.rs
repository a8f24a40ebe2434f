//! Our addresses on uplinks: nobody boots at them, whatever port they ask. People are still led from there to the page.
//!
//! An address decides and not the interface: machines behind a router may reach an address of the rack through an uplink.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

/// The addresses of ours that nobody boots at; shared by the services, replaced as networks come and go.
#[derive(Clone, Debug, Default)]
pub struct Outside(Arc<RwLock<Vec<IpAddr>>>);

impl Outside {
    /// Puts other addresses in force, from the next connection or packet on.
    pub fn set(&self, addresses: Vec<IpAddr>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// Whether what came to our address `local` came from an uplink.
    pub fn holds(&self, local: IpAddr) -> bool {
        let addresses = self.0.read().unwrap_or_else(PoisonError::into_inner);
        addresses.contains(&local.to_canonical())
    }

    /// Whether there is no such address.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}
