//! A client of HTTP servers that costs as little as it can: it shares the processors with the server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{MsgFlags, recv};

/// Octets of a large file.
pub(crate) const LARGE: u64 = 60 << 20;
pub(crate) const GIB: f64 = (1u64 << 30) as f64;

/// Repeats `request` on `clients` kept connections for `time`; gives how often it succeeded. `request` gets the number of
/// the connection and of the request on it. A connection that the server ended is made anew, as every client does.
pub(crate) fn many(
    at: &str,
    clients: usize,
    time: Duration,
    request: impl Fn(&mut TcpStream, (usize, usize)) -> Result<()> + Sync,
) -> Result<u64> {
    let end = Instant::now() + time;
    let request = &request;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                scope.spawn(move || -> Result<u64> {
                    let mut stream = connect(at)?;
                    let mut count = 0;
                    while Instant::now() < end {
                        if request(&mut stream, (client, count)).is_err() {
                            stream = connect(at)?;
                            request(&mut stream, (client, count))?;
                        }
                        count += 1;
                    }
                    Ok(count as u64)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
            .sum()
    })
}

fn connect(at: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(at)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Asks and reads the head; gives the body's length and how much of it came with the head.
fn ask(stream: &mut TcpStream, target: &str, buffer: &mut [u8]) -> Result<(u64, u64)> {
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: 10.88.0.1\r\n\r\n").as_bytes())?;
    let mut filled = 0;
    loop {
        let count = stream.read(buffer.get_mut(filled..).unwrap_or_default())?;
        ensure!(count > 0, "the server closed the connection");
        filled += count;
        let got = buffer.get(..filled).unwrap_or_default();
        if let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(got.get(..end).unwrap_or_default()).into_owned();
            ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let (_, length) = length.with_context(|| format!("no length: {head}"))?;
            return Ok((length.trim().parse()?, (filled - end - 4) as u64));
        }
    }
}

/// A small document, read as a program would.
pub(crate) fn small(stream: &mut TcpStream, target: &str) -> Result<()> {
    let mut buffer = [0; 16 << 10];
    let (length, mut got) = ask(stream, target, &mut buffer)?;
    while got < length {
        let count = stream.read(&mut buffer)? as u64;
        ensure!(count > 0, "the server closed the connection");
        got += count;
    }
    Ok(())
}

/// A document of `expected` octets, of which the kernel drops what it would have copied: the reader should cost as little as
/// a NIC does.
pub(crate) fn download(stream: &mut TcpStream, target: &str, expected: u64) -> Result<()> {
    let began = Instant::now();
    first_then_rest(stream, target, expected, began).map(drop)
}

/// Documents of one size on a connection each.
pub(crate) fn each(at: &str, targets: impl IntoIterator<Item = String>, size: u64) -> Result<()> {
    targets
        .into_iter()
        .try_for_each(|target| download(&mut connect(at)?, &target, size))
}

/// As [`download`]; gives when the first octets of the body were there, from `began` on.
pub(crate) fn first_then_rest(stream: &mut TcpStream, target: &str, expected: u64, began: Instant) -> Result<Duration> {
    let mut buffer = vec![0; 256 << 10];
    let (length, mut got) = ask(stream, target, buffer.get_mut(..4096).unwrap_or_default())?;
    ensure!(length == expected, "{length} octets instead of {expected}");
    let mut first = (got > 0).then(|| began.elapsed());
    while got < length {
        let count = recv(stream.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC)?;
        ensure!(count > 0, "the server closed the connection");
        got += count as u64;
        first.get_or_insert_with(|| began.elapsed());
    }
    first.context("an empty body")
}
