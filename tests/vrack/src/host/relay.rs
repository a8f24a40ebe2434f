//! A way into the rack for programs of this machine: a TCP listener on 127.0.0.1 whose connections continue as TCP of a
//! simulated host. `curl`, `ipmitool`'s web sibling and the tests themselves reach any address of the rack through it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use tokio::net::TcpListener;

use super::Host;
use crate::switch::Tasks;

/// A relay at work; it stops when dropped.
pub struct Relay {
    address: SocketAddr,
    _tasks: Tasks,
}

impl Relay {
    /// Where to connect on this machine.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Relays connections to 127.0.0.1:`port` (0: any free port) to `target`, seen from `host`.
///
/// # Errors
/// When the port is taken on this machine.
pub async fn relay(host: Host, target: SocketAddrV4, port: u16) -> io::Result<Relay> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let address = listener.local_addr()?;
    let tasks = Tasks::default();
    tasks.spawn(async move {
        // Connections end with the relay: the set aborts what it holds when it is dropped.
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((mut outside, _)) = accepted else { continue };
                    let host = host.clone();
                    connections.spawn(async move {
                        let mut inside = host.connect(target).await?;
                        tokio::io::copy_bidirectional_with_sizes(&mut outside, &mut inside, 64 << 10, 64 << 10).await
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    });
    Ok(Relay { address, _tasks: tasks })
}
