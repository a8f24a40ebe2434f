//! How busy the servers of boot files are, and who waits: what an operator wants to see when a whole rack is switched on.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::running::lock;

/// A client that waits for a place at the TFTP server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    /// Who.
    pub client: SocketAddr,
    /// Since when.
    pub since: Duration,
}

/// Who waits for TFTP, in the order in which they are served, and where boot HTTP listens.
#[derive(Debug, Default)]
pub struct Busy {
    waiting: Mutex<Vec<(SocketAddr, Instant)>>,
    http: Mutex<Vec<SocketAddr>>,
}

impl Busy {
    /// Those who wait for TFTP, the next one first, and not all where they are many.
    pub fn waiting(&self) -> Vec<Waiter> {
        let now = Instant::now();
        let waiter = |&(client, asked): &(SocketAddr, Instant)| Waiter {
            client,
            since: now.saturating_duration_since(asked),
        };
        lock(&self.waiting).iter().map(waiter).collect()
    }

    /// Connections to boot HTTP that the kernel holds for us until a place is free. Who they are it does not say.
    pub fn http_waiting(&self) -> u64 {
        let listening = lock(&self.http).clone();
        let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
        // Without one of the two there is none of that family.
        let tables = tables.iter().filter_map(|table| std::fs::read_to_string(table).ok());
        tables.map(|table| backlog(&table, &listening)).sum()
    }

    pub(crate) fn set_waiting(&self, waiting: Vec<(SocketAddr, Instant)>) {
        *lock(&self.waiting) = waiting;
    }

    pub(crate) fn set_http(&self, listening: Vec<SocketAddr>) {
        *lock(&self.http) = listening;
    }
}

/// Connections not yet accepted by sockets that listen on these ports, from the text of `/proc/net/tcp`: the length of a
/// listening socket's queue stands where others have the bytes that wait to be read.
fn backlog(table: &str, listening: &[SocketAddr]) -> u64 {
    const LISTEN: &str = "0A";
    let of_line = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (local, _remote, state, queues) = (fields.nth(1)?, fields.next()?, fields.next()?, fields.next()?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        let ours = state == LISTEN && listening.iter().any(|address| address.port() == port);
        ours.then(|| u64::from_str_radix(queues.split_once(':')?.1, 16).ok())?
    };
    table.lines().skip(1).filter_map(of_line).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_nobody_took_yet_are_counted_by_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
            0: 00000000:0050 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0\n\
            1: 0100007F:0050 00000000:0000 0A 00000000:00000010 00:00000000 00000000     0\n\
            2: 0100007F:0050 0100007F:D431 01 00000000:00000400 00:00000000 00000000     0\n\
            3: 0100007F:01BB 00000000:0000 0A 00000000:00000007 00:00000000 00000000     0\n\
            4: nonsense\n";
        let at = |port| SocketAddr::from(([0, 0, 0, 0], port));
        assert_eq!(backlog(table, &[at(80)]), 0x13);
        assert_eq!(backlog(table, &[at(443)]), 7);
        assert_eq!(backlog(table, &[]), 0);
        assert_eq!(backlog("", &[at(80)]), 0);
    }
}
