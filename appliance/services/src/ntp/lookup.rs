//! Looking up servers that are known by name, beside the thread that keeps the time: a resolver may be slow or silent.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex};

use rackbar_ntp::ServerName;

use crate::poll::Waker;
use crate::running::lock;

/// Gives the addresses of a name. It may take its time: it is called on a thread of its own.
pub trait Lookup: Send + Sync {
    /// Its addresses, in the order of preference.
    ///
    /// # Errors
    /// When there are none, or nobody could be asked; the text says why.
    fn addresses(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver, which the appliance asks for everything by name.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn addresses(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((name, port).to_socket_addrs()?.collect())
    }
}

type Found = (ServerName, Result<Vec<SocketAddr>, String>);

/// Lookups under way, and what came of them.
pub(super) struct Lookups {
    lookup: Arc<dyn Lookup>,
    found: Arc<Mutex<Vec<Found>>>,
    waker: Waker,
}

impl Lookups {
    pub(super) fn new(lookup: Arc<dyn Lookup>, waker: Waker) -> Self {
        Self {
            lookup,
            found: Arc::default(),
            waker,
        }
    }

    /// Starts a lookup. Its thread is not joined: a resolver that says nothing would hold up the end of the service, and what
    /// comes after that is read by nobody.
    pub(super) fn start(&self, server: ServerName) {
        let (lookup, found, waker) = (self.lookup.clone(), self.found.clone(), self.waker.clone());
        let name = server.clone();
        let thread = std::thread::Builder::new().name("ntp-lookup".into());
        let started = thread.spawn(move || {
            let result = lookup.addresses(&server.name, server.port);
            let result = result.map_err(|error| {
                let text = error.to_string();
                text.trim_start_matches("failed to lookup address information: ").into()
            });
            lock(&found).push((server, result));
            waker.wake();
        });
        if let Err(error) = started {
            lock(&self.found).push((name, Err(format!("it cannot be looked up: {error}"))));
        }
    }

    /// What came since.
    pub(super) fn found(&self) -> Vec<Found> {
        std::mem::take(&mut *lock(&self.found))
    }
}
