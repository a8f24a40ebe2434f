//! The origin that proxies ask: it stands behind an uplink of 1 Gbit/s and counts what is fetched.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::client::LARGE;

/// Where it listens: in the clients' namespace.
pub(super) const AT: &str = "10.88.0.2:80";

/// Octets of a small object.
pub(super) const SMALL: u64 = 30_000;

/// Octets a second that the uplink carries.
const UPLINK: f64 = 1e9 / 8.0;

/// Written at once.
const PIECE: usize = 64 << 10;

/// The uplink makes up for so much time in which nobody sent because the machine was busy.
const LATE: Duration = Duration::from_millis(20);

/// What was asked for one object.
#[derive(Clone, Copy, Default)]
pub(super) struct Fetched {
    /// Requests.
    pub(super) times: u64,
    /// Octets that left.
    pub(super) octets: u64,
}

#[derive(Default)]
struct Shared {
    fetched: Mutex<HashMap<String, Fetched>>,
    /// When the uplink is free again.
    free: Mutex<Option<Instant>>,
}

/// A running origin; it ends with the program.
#[derive(Clone)]
pub(super) struct Origin(Arc<Shared>);

impl Origin {
    /// Listens where the calling thread's network is.
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind(AT).context("the origin's port")?;
        let origin = Self(Arc::default());
        let shared = origin.0.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                // A proxy that goes away in the middle is its own affair.
                std::thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        Ok(origin)
    }

    pub(super) fn fetched(&self, path: &str) -> Fetched {
        let all = self.0.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(path).copied().unwrap_or_default()
    }
}

/// The URL of an object, as clients of a proxy name it.
pub(super) fn url(path: &str) -> String {
    format!("http://10.88.0.2{path}")
}

fn serve(stream: TcpStream, shared: &Shared) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        // A proxy may ask in the form that is meant for proxies.
        let path = path.strip_prefix("http://10.88.0.2").unwrap_or(path).to_owned();
        let size = if path.contains("large") { LARGE } else { SMALL };
        let count = |times, octets| {
            let mut all = shared.fetched.lock().unwrap_or_else(PoisonError::into_inner);
            let one = all.entry(path.clone()).or_default();
            one.times += times;
            one.octets += octets;
        };
        count(1, 0);
        write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.debian.binary-package\r\nContent-Length: {size}\r\n\
             Last-Modified: Sun, 01 Nov 2026 00:00:00 GMT\r\nETag: \"{path}\"\r\nCache-Control: max-age=86400\r\n\r\n"
        )?;
        // No two objects are equal, nor two pieces of one.
        let mut piece = vec![0; PIECE];
        let mut left = size;
        while left > 0 {
            let name = format!("{path} {left} ");
            piece.splice(..name.len(), name.bytes());
            let part = piece.get(..left.min(PIECE as u64) as usize).unwrap_or_default();
            wait_for_uplink(shared, part.len());
            out.write_all(part)?;
            count(0, part.len() as u64);
            left -= part.len() as u64;
        }
    }
}

/// Waits until the uplink, which all share, has carried so many octets.
fn wait_for_uplink(shared: &Shared, octets: usize) {
    let now = Instant::now();
    let mut free = shared.free.lock().unwrap_or_else(PoisonError::into_inner);
    let from = free.unwrap_or(now).max(now.checked_sub(LATE).unwrap_or(now));
    let until = from + Duration::from_secs_f64(octets as f64 / UPLINK);
    *free = Some(until);
    drop(free);
    std::thread::sleep(until.saturating_duration_since(now));
}
