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

/// A question over TCP that is under way. It is so until it ends in whatever way, also where it never got a thread.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(taken: &Arc<AtomicUsize>) -> Option<Self> {
        let place = |taken: usize| (taken < STREAMS).then_some(taken + 1);
        let had = taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, place);
        had.ok().map(|_| Self(taken.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A question over TCP, to be done on a thread of its own.
type Work = Box<dyn FnOnce() + Send>;

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
            return self.stream(slot, upstream, message, |work| {
                std::thread::Builder::new().name("dns-tcp".into()).spawn(work).map(drop)
            });
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

    fn stream(
        &self,
        slot: u64,
        upstream: SocketAddr,
        message: Vec<u8>,
        spawn: impl FnOnce(Work) -> io::Result<()>,
    ) -> io::Result<()> {
        let place = Place::take(&self.streams).ok_or(io::ErrorKind::QuotaExceeded)?;
        let (answers, waker) = (self.answers.clone(), self.waker.clone());
        spawn(Box::new(move || {
            let answer = exchange(upstream, &message).ok();
            drop(place);
            // Fails only when the service has stopped.
            let _ = answers.send((slot, answer));
            waker.wake();
        }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_gets_no_thread_takes_no_place_from_the_next() {
        let poller = Poller::new().unwrap();
        let (sender, answers) = mpsc::channel();
        let upstreams = Upstreams::new(sender, poller.waker());
        let nobody: SocketAddr = (Ipv4Addr::LOCALHOST, 9).into();
        for slot in 0..2 * STREAMS as u64 {
            let refused = upstreams.stream(slot, nobody, vec![0; 12], |_| Err(io::ErrorKind::WouldBlock.into()));
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::WouldBlock, "slot {slot}");
        }
        // As many as there are places, and one more waits for none.
        let mut works = Vec::new();
        let mut ask = |slot| {
            upstreams.stream(slot, nobody, vec![0; 12], |work| {
                works.push(work);
                Ok(())
            })
        };
        for slot in 0..STREAMS as u64 {
            ask(slot).unwrap();
        }
        assert_eq!(ask(99).unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        // Nobody listens there: each ends with no answer, and its place is free.
        works.into_iter().for_each(|work| work());
        assert_eq!(
            answers.try_iter().filter(|(_, answer)| answer.is_none()).count(),
            STREAMS
        );
        upstreams.stream(100, nobody, vec![0; 12], |_| Ok(())).unwrap();
    }
}
