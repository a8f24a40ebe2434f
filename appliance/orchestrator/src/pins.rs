//! The certificates BMCs are known by, kept in the store: what was trusted at first sight is still what is trusted after
//! a restart. A BMC is known by its MAC address; by its IP address only where nobody says which MAC address it has,
//! since leases move.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;

use rackbar_devices::Fingerprint;
use rackbar_model::MacAddr;
use rackbar_store::{Store, Table};

use crate::rack::locked;

/// Certificates by BMC.
pub(crate) struct Pins {
    store: Store,
    /// What was kept in this run: the store writes some milliseconds later.
    kept: Mutex<HashMap<String, Fingerprint>>,
}

/// How the store calls a BMC.
pub(crate) fn key(address: IpAddr, mac: Option<MacAddr>) -> String {
    mac.map_or_else(|| format!("ip {address}"), |mac| format!("mac {mac}"))
}

impl Pins {
    pub(crate) fn new(store: Store) -> Self {
        let kept = Mutex::default();
        Self { store, kept }
    }

    /// The certificate this BMC showed first.
    pub(crate) fn get(&self, address: IpAddr, mac: Option<MacAddr>) -> Option<Fingerprint> {
        let key = key(address, mac);
        if let Some(kept) = locked(&self.kept).get(&key) {
            return Some(*kept);
        }
        let found = self.store.get(Table::Bmcs, key.as_bytes());
        let found =
            found.inspect_err(|error| tracing::error!(%address, %error, "a BMC's certificate cannot be looked up"));
        String::from_utf8(found.ok()??).ok()?.parse().ok()
    }

    /// Keeps what it showed.
    pub(crate) fn put(&self, address: IpAddr, mac: Option<MacAddr>, certificate: Fingerprint) {
        if self.get(address, mac) == Some(certificate) {
            return;
        }
        let (key, value) = (key(address, mac), certificate.to_string());
        self.store.queue(Table::Bmcs, key.as_bytes(), Some(value.as_bytes()));
        locked(&self.kept).insert(key, certificate);
    }
}
