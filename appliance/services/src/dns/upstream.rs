//! Sockets to upstreams: a fresh UDP socket for every try, connected, so that the kernel picks a random port and hears
//! nobody else; for TCP a short-lived thread.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::epoll::EpollFlags;
use rackbar_dns::Transport;

use super::worker::TRY;
use crate::poll::{Poller, Waker};

/// Questions over TCP at once.
const STREAMS: usize = 32;
/// Longer than the forwarder waits.
const PATIENCE: Duration = Duration::from_secs(4);

pub(super) struct Upstreams {
    tries: HashMap<u64, UdpSocket>,
    answers: mpsc::Sender<(u64, Option<Vec<u8>>)>,
    waker: Waker,
    streams: Arc<AtomicUsize>,
}

impl Upstreams {
    pub(super) fn new(answers: mpsc::Sender<(u64, Option<Vec<u8>>)>, waker: Waker) -> Self {
        Self {
            tries: HashMap::new(),
            answers,
            waker,
            streams: Arc::default(),
        }
    }

    pub(super) fn send(
        &mut self,
        slot: u64,
        upstream: SocketAddr,
        transport: Transport,
        message: Vec<u8>,
        poller: &Poller,
    ) -> io::Result<()> {
        if transport == Transport::Tcp {
            return self.stream(slot, upstream, message);
        }
        let any: SocketAddr = match upstream {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        socket.connect(upstream)?;
        socket.send(&message)?;
        poller.add(&socket, EpollFlags::EPOLLIN, TRY | slot)?;
        self.tries.insert(slot, socket);
        Ok(())
    }

    /// The next datagram of a try: none when there is none.
    pub(super) fn read(&self, slot: u64, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let result = self.tries.get(&slot)?.recv(buffer);
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            result => Some(result),
        }
    }

    pub(super) fn close(&mut self, slot: u64, poller: &Poller) {
        if let Some(socket) = self.tries.remove(&slot) {
            poller.remove(&socket);
        }
    }

    fn stream(&self, slot: u64, upstream: SocketAddr, message: Vec<u8>) -> io::Result<()> {
        if self.streams.fetch_add(1, Ordering::AcqRel) >= STREAMS {
            self.streams.fetch_sub(1, Ordering::AcqRel);
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let (answers, waker, streams) = (self.answers.clone(), self.waker.clone(), self.streams.clone());
        let work = move || {
            let answer = exchange(upstream, &message).ok();
            streams.fetch_sub(1, Ordering::AcqRel);
            // Fails only when the service has stopped.
            let _ = answers.send((slot, answer));
            waker.wake();
        };
        let thread = std::thread::Builder::new().name("dns-tcp".into()).spawn(work);
        // Without a thread nobody else gives the place back.
        thread.map(drop).inspect_err(|_| {
            self.streams.fetch_sub(1, Ordering::AcqRel);
        })
    }
}

fn exchange(upstream: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&upstream, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    // One segment: some servers take the length alone for the end (RFC 7766 section 8).
    stream.write_all(&[&length.to_be_bytes(), message].concat())?;
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(head))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
