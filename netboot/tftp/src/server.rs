//! Port 69: who may have what, and how many at once.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rackbar_model::EventKind;

use crate::packet::{self, ErrorCode, Packet, Request};
use crate::transfer::Agreed;
use crate::{Files, Transfer, normalise};

/// A request repeated within this is the same one: the client did not hear our first answer yet.
const SAME_REQUEST: Duration = Duration::from_secs(10);

/// Bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Transfers at one time.
    pub transfers: usize,
    /// Transfers at one time to one address.
    pub per_client: usize,
    /// Largest block, in octets. 1468 fills an Ethernet frame; firmware does not put fragments together.
    pub block_size: u16,
    /// Largest window, in blocks. 64 is one UDP segmentation-offload send.
    pub window: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transfers: 1024,
            per_client: 8,
            block_size: 1468,
            window: 64,
        }
    }
}

/// Names a transfer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TransferId(pub u64);

/// What comes of a datagram to port 69.
#[derive(Debug)]
#[must_use]
pub enum Opening {
    /// A transfer begins. Give it a port, call [`Transfer::start`], and [`Server::close`] when it is over.
    Begins {
        /// The transfer.
        transfer: Box<Transfer>,
        /// An older transfer to the same client port, which the client has given up: end it.
        replaces: Option<TransferId>,
        /// `TftpRequest`.
        event: EventKind,
    },
    /// Every place is taken. The request may wait in a [`Queue`](crate::Queue) and be judged again when one is free; its
    /// client repeats it meanwhile.
    Busy {
        /// `TftpFailed`, for when it is told.
        event: EventKind,
    },
    /// No.
    Refused {
        /// What to answer from port 69; nothing when its address has its share, so that the client asks again.
        reply: Option<Vec<u8>>,
        /// `TftpFailed`, when a person may want to know.
        event: Option<EventKind>,
    },
    /// A request we are already serving; its transfer sends again by itself.
    Repeated,
}

/// The transfers there are.
#[derive(Debug, Default)]
pub struct Server {
    limits: Limits,
    next: u64,
    running: HashMap<SocketAddr, Running>,
    per_client: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Running {
    id: TransferId,
    request: Vec<u8>,
    since: Duration,
}

impl Server {
    /// A server with no transfers.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Transfers at this moment.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// True when there is no place for another transfer.
    pub fn is_full(&self) -> bool {
        self.running.len() >= self.limits.transfers
    }

    /// Judges a datagram that came to port 69.
    pub fn open(&mut self, now: Duration, client: SocketAddr, bytes: &[u8], files: &impl Files) -> Opening {
        let request = match Packet::new(bytes) {
            Ok(Packet::Read(request)) => request,
            Ok(Packet::Write(request)) => {
                return refused(&request, client, ErrorCode::AccessViolation, "this server is read-only");
            }
            // Anything else at port 69, ERRORs above all, must not be answered: two servers would talk for ever.
            Ok(Packet::Data { .. } | Packet::Ack { .. } | Packet::Error { .. } | Packet::OptionAck(_)) | Err(_) => {
                return Opening::Refused {
                    reply: None,
                    event: None,
                };
            }
        };
        if let Some(running) = self.running.get(&client)
            && running.request == bytes
            && now.saturating_sub(running.since) < SAME_REQUEST
        {
            return Opening::Repeated;
        }
        if !request.mode.eq_ignore_ascii_case(b"octet") {
            let words = "only mode octet is served, boot files are binary";
            return refused(&request, client, ErrorCode::NotDefined, words);
        }
        let found = normalise(request.file).and_then(|name| files.open(&name).map(|content| (name, content)));
        let Some((name, content)) = found else {
            return refused(&request, client, ErrorCode::NotFound, "no such boot file");
        };
        let replaces = self.take_place(client);
        let own = self.per_client.get(&client.ip()).copied().unwrap_or(0);
        if own >= self.limits.per_client {
            let words = "too many transfers to this client at once";
            return Opening::Refused {
                reply: None,
                event: Some(failed(&request, client, words)),
            };
        }
        if self.is_full() {
            let words = "all places are taken; it waits for its turn";
            return Opening::Busy {
                event: failed(&request, client, words),
            };
        }
        let agreed = Agreed::new(&request, &self.limits, content.len());
        self.next += 1;
        let id = TransferId(self.next);
        self.running.insert(
            client,
            Running {
                id,
                request: bytes.to_vec(),
                since: now,
            },
        );
        *self.per_client.entry(client.ip()).or_default() += 1;
        let event = EventKind::TftpRequest {
            file: name.clone(),
            client: client.ip(),
            block_size: agreed.block_size,
            window_size: agreed.window,
        };
        let transfer = Box::new(Transfer::new(id, client, name, content, agreed));
        Opening::Begins {
            transfer,
            replaces,
            event,
        }
    }

    /// A transfer is over.
    pub fn close(&mut self, client: SocketAddr, id: TransferId) {
        if self.running.get(&client).is_some_and(|running| running.id == id) {
            self.take_place(client);
        }
    }

    fn take_place(&mut self, client: SocketAddr) -> Option<TransferId> {
        let running = self.running.remove(&client)?;
        if let Some(count) = self.per_client.get_mut(&client.ip()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_client.remove(&client.ip());
            }
        }
        Some(running.id)
    }
}

fn refused(request: &Request<'_>, client: SocketAddr, code: ErrorCode, words: &str) -> Opening {
    Opening::Refused {
        reply: Some(packet::error(code, words)),
        event: Some(failed(request, client, words)),
    }
}

fn failed(request: &Request<'_>, client: SocketAddr, words: &str) -> EventKind {
    EventKind::TftpFailed {
        file: printable(request.file),
        client: client.ip(),
        reason: words.to_owned(),
    }
}

/// Octets of a stranger as text, shortened.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let bytes = bytes.get(..128).unwrap_or(bytes);
    bytes
        .iter()
        .map(|b| {
            if b.is_ascii_graphic() || *b == b' ' {
                char::from(*b)
            } else {
                '.'
            }
        })
        .collect()
}
