//! Clients that ask over TCP (RFC 7766): several questions on one connection, answers in the order they are ready.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;

use super::worker::STREAM;
use crate::poll::Poller;

/// Connections at once, and of one client.
const MOST: usize = 256;
const PER_CLIENT: usize = 32;
/// Idle connections are closed (RFC 7766 section 6.2.3: a few seconds).
const IDLE: Duration = Duration::from_secs(10);
/// A client that does not fetch its answers is closed.
const UNSENT: usize = 256 << 10;
/// Largest question taken.
const QUESTION: usize = 4096;

pub(super) struct Stream {
    socket: TcpStream,
    peer: IpAddr,
    input: Vec<u8>,
    output: Vec<u8>,
    deadline: Instant,
}

impl Stream {
    pub(super) const fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

#[derive(Default)]
pub(super) struct Streams {
    open: BTreeMap<u64, Stream>,
    per_client: HashMap<IpAddr, usize>,
    next: u64,
}

impl Streams {
    pub(super) fn open(&mut self, socket: TcpStream, poller: &Poller) -> io::Result<()> {
        let peer = socket.peer_addr()?.ip();
        let count = self.per_client.get(&peer).copied().unwrap_or(0);
        if self.open.len() >= MOST || count >= PER_CLIENT {
            return Err(io::Error::other(format!(
                "{peer} has {count} connections already, or all are taken"
            )));
        }
        let stream = Stream {
            socket,
            peer,
            input: Vec::new(),
            output: Vec::new(),
            deadline: Instant::now() + IDLE,
        };
        stream.prepare()?;
        self.next += 1;
        poller.add(&stream.socket, EpollFlags::EPOLLIN, STREAM | self.next)?;
        *self.per_client.entry(peer).or_default() += 1;
        self.open.insert(self.next, stream);
        Ok(())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.values().map(|stream| stream.deadline).min()
    }

    pub(super) fn expire(&mut self, poller: &Poller) {
        let now = Instant::now();
        let late = self.open.iter().filter(|(_, stream)| stream.deadline <= now);
        for id in late.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(id, poller);
        }
    }

    /// Reads what came; gives the client and its whole questions.
    pub(super) fn read(&mut self, id: u64, poller: &Poller) -> Option<(IpAddr, Vec<Vec<u8>>)> {
        self.flush(id, poller);
        let stream = self.open.get_mut(&id)?;
        let mut buffer = [0; 4096];
        let ended = match stream.socket.read(&mut buffer) {
            Ok(0) => true,
            Ok(length) => {
                stream.input.extend_from_slice(buffer.get(..length).unwrap_or_default());
                false
            }
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        let (peer, mut questions) = (stream.peer, Vec::new());
        let mut broken = false;
        while let Some(length) = stream
            .input
            .first_chunk::<2>()
            .map(|two| usize::from(u16::from_be_bytes(*two)))
        {
            broken |= length > QUESTION;
            if broken || stream.input.len() < length + 2 {
                break;
            }
            questions.push(stream.input.drain(..length + 2).skip(2).collect());
            stream.deadline = Instant::now() + IDLE;
        }
        if ended || broken {
            self.close(id, poller);
        }
        Some((peer, questions))
    }

    /// Sends an answer, now or when the client takes it.
    pub(super) fn write(&mut self, id: u64, message: &[u8], poller: &Poller) {
        let Some(stream) = self.open.get_mut(&id) else { return };
        let Ok(length) = u16::try_from(message.len()) else {
            return;
        };
        stream.output.extend_from_slice(&length.to_be_bytes());
        stream.output.extend_from_slice(message);
        self.flush(id, poller);
    }

    fn flush(&mut self, id: u64, poller: &Poller) {
        let Some(stream) = self.open.get_mut(&id) else { return };
        let mut broken = stream.output.len() > UNSENT;
        while !broken && !stream.output.is_empty() {
            match stream.socket.write(&stream.output) {
                Ok(length) => drop(stream.output.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => broken = true,
            }
        }
        let interest = if stream.output.is_empty() {
            EpollFlags::EPOLLIN
        } else {
            EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT
        };
        if broken || poller.modify(&stream.socket, interest, STREAM | id).is_err() {
            self.close(id, poller);
        }
    }

    fn close(&mut self, id: u64, poller: &Poller) {
        let Some(stream) = self.open.remove(&id) else { return };
        poller.remove(&stream.socket);
        if let Some(count) = self.per_client.get_mut(&stream.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_client.remove(&stream.peer);
            }
        }
    }
}
