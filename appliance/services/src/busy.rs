//! How busy the servers of boot files are, and who waits: what an operator wants to see when a whole rack is switched on.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rackbar_model::MacAddr;

use crate::running::lock;

/// Waiting clients that are named.
const SHOWN: usize = 64;
/// What was asked for once is forgotten after so long.
const FORGET: Duration = Duration::from_secs(600);
/// Requests that are remembered, so that strangers cannot fill our memory.
const REMEMBERED: usize = 4_096;
/// Firmware asks for a file twice, for its length and for its content. From the third time on it is told.
const AGAIN: u32 = 3;

/// A client that waits for a place at the TFTP server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    /// Who.
    pub client: SocketAddr,
    /// Since when.
    pub since: Duration,
}

/// A machine that asks for the same thing again and again: its own back-off, as we see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Again {
    /// Who, when that is known.
    pub mac: Option<MacAddr>,
    /// Where it asked from last.
    pub client: IpAddr,
    /// For what: a boot file, or a document as it is called in events.
    pub what: String,
    /// How often within the last while.
    pub times: u32,
    /// Since it asked last.
    pub since: Duration,
    /// Between that and the time before: so long it waits.
    pub pause: Duration,
}

/// Who asked, by MAC address where it is known, and for what.
type Question = (Option<MacAddr>, Option<IpAddr>, String);

#[derive(Debug)]
struct Asked {
    client: IpAddr,
    times: u32,
    last: Instant,
    pause: Duration,
}

/// Who waits for TFTP, in the order in which they are served, and where boot HTTP listens.
#[derive(Debug, Default)]
pub struct Busy {
    waiting: Mutex<Vec<(SocketAddr, Instant)>>,
    http: Mutex<Vec<SocketAddr>>,
    asked: Mutex<HashMap<Question, Asked>>,
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

    /// Connections to boot HTTP that the kernel holds for us until a place is free: how many, and who, not all where they
    /// are many. In which order they came the kernel does not say.
    pub fn http_waiting(&self) -> (u64, Vec<SocketAddr>) {
        let listening = lock(&self.http).clone();
        let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
        // Without one of the two there is none of that family.
        let tables = tables.iter().filter_map(|table| std::fs::read_to_string(table).ok());
        let (mut count, mut who) = (0, Vec::new());
        for table in tables {
            let waiting = backlog(&table, &listening);
            count += waiting;
            if waiting > 0 {
                who.extend(queued(&table, &listening));
            }
        }
        who.truncate(SHOWN);
        (count, who)
    }

    /// Those who ask for the same thing again, the newest first, and not all where they are many.
    pub fn again(&self) -> Vec<Again> {
        self.again_at(Instant::now())
    }

    fn again_at(&self, now: Instant) -> Vec<Again> {
        let asked = lock(&self.asked);
        let again = asked.iter().filter(|(_, one)| one.times >= AGAIN && !one.is_old(now));
        let mut again: Vec<Again> = again
            .map(|((mac, _, what), one)| Again {
                mac: *mac,
                client: one.client,
                what: what.clone(),
                times: one.times,
                since: now.saturating_duration_since(one.last),
                pause: one.pause,
            })
            .collect();
        again.sort_by(|a, b| (a.since, &a.what, a.client).cmp(&(b.since, &b.what, b.client)));
        again.truncate(SHOWN);
        again
    }

    /// A machine asked for something.
    pub(crate) fn ask(&self, mac: Option<MacAddr>, client: IpAddr, what: &str) {
        self.ask_at(mac, client, what, Instant::now());
    }

    fn ask_at(&self, mac: Option<MacAddr>, client: IpAddr, what: &str, now: Instant) {
        let question = (mac, mac.is_none().then_some(client), what.to_owned());
        let mut asked = lock(&self.asked);
        if asked.len() >= REMEMBERED && !asked.contains_key(&question) {
            asked.retain(|_, one| !one.is_old(now));
            if asked.len() >= REMEMBERED {
                return;
            }
        }
        let one = asked.entry(question).or_insert(Asked {
            client,
            times: 0,
            last: now,
            pause: Duration::ZERO,
        });
        if one.is_old(now) {
            one.times = 0;
        }
        one.client = client;
        one.pause = now.saturating_duration_since(one.last);
        one.times = one.times.saturating_add(1);
        one.last = now;
    }

    pub(crate) fn set_waiting(&self, waiting: Vec<(SocketAddr, Instant)>) {
        *lock(&self.waiting) = waiting;
    }

    pub(crate) fn set_http(&self, listening: Vec<SocketAddr>) {
        *lock(&self.http) = listening;
    }
}

impl Asked {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= FORGET
    }
}

/// Who is connected to one of these ports and not accepted yet, from the text of `/proc/net/tcp`: a connection that is
/// established and belongs to no file has inode 0.
fn queued(table: &str, listening: &[SocketAddr]) -> Vec<SocketAddr> {
    const ESTABLISHED: &str = "01";
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, remote) = (fields.get(1)?, fields.get(2)?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        let waits = *fields.get(3)? == ESTABLISHED && *fields.get(9)? == "0";
        let ours = listening.iter().any(|address| address.port() == port);
        (waits && ours).then(|| address(remote))?
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

/// `0100007F:D431`: an IPv4 address as the machine has it in memory, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if ip.len() != 8 {
        return None;
    }
    let ip = u32::from_str_radix(ip, 16).ok()?;
    Some((Ipv4Addr::from(ip.to_ne_bytes()), port).into())
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

    #[test]
    fn those_whom_nobody_took_yet_are_named() {
        let line = |remote: &str, state: &str, inode: &str| {
            format!("1: 0100007F:0050 {remote} {state} 00000000:00000000 00:00000000 00000000 0 0 {inode} 1 0\n")
        };
        let remote = format!("{:08X}:D431", u32::from_ne_bytes([10, 0, 0, 9]));
        let table = format!(
            "head\n{}{}{}{}nonsense\n",
            line(&remote, "01", "0"),
            line(&remote, "01", "4711"),
            line(&remote, "06", "0"),
            line("zz:zz", "01", "0")
        );
        let at = |port| SocketAddr::from(([0, 0, 0, 0], port));
        assert_eq!(queued(&table, &[at(80)]), ["10.0.0.9:54321".parse().unwrap()]);
        assert_eq!(queued(&table, &[at(443)]), []);
    }

    #[test]
    fn who_asks_again_is_known_with_its_pause_and_forgotten() {
        let (busy, start) = (Busy::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let (mac, client) = (Some(MacAddr([2, 0, 0, 0, 0, 1])), IpAddr::from([10, 0, 0, 9]));
        for (at, what) in [
            (0, "vmlinuz"),
            (0, "loader.efi"),
            (1, "vmlinuz"),
            (1, "loader.efi"),
            (5, "vmlinuz"),
        ] {
            busy.ask_at(mac, client, what, after(at));
        }
        let again = busy.again_at(after(7));
        assert_eq!(again.len(), 1, "twice is what firmware does: {again:?}");
        let seconds = (again[0].since.as_secs(), again[0].pause.as_secs());
        assert_eq!(
            (again[0].what.as_str(), again[0].times, seconds),
            ("vmlinuz", 3, (2, 4))
        );
        // Strangers from one address each are kept apart, and bounded.
        for n in 0..20_000_u32 {
            busy.ask_at(None, Ipv4Addr::from(n).into(), "vmlinuz", after(8));
        }
        assert!(lock(&busy.asked).len() <= REMEMBERED);
        assert!(busy.again_at(after(606)).is_empty());
        busy.ask_at(mac, client, "vmlinuz", after(700));
        assert!(busy.again_at(after(700)).is_empty(), "counted from anew");
    }
}
