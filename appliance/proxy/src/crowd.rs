//! How many connections each client has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Default)]
pub(crate) struct Crowd(Mutex<HashMap<IpAddr, usize>>);

/// A client's place among the connections; given back when dropped.
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    client: IpAddr,
}

impl Crowd {
    /// Takes one more place of a client that may have `most`; `None` when it has them all.
    pub(crate) fn enter(self: &Arc<Self>, client: IpAddr, most: usize) -> Option<Place> {
        let client = client.to_canonical();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(client).or_default();
        if *count >= most.max(1) {
            return None;
        }
        *count += 1;
        drop(all);
        let crowd = self.clone();
        Some(Place { crowd, client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(all.remove(&self.client)),
        }
    }
}
