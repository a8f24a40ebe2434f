//! One connection: read a request, send its answer whole, look for the next one in what was received meanwhile.
//!
//! ```text
//!  reading ──whole request──▶ sending ──last byte──▶ reading (keep-alive, pipelined requests in order)
//!     │                          └──────last byte──▶ lingering ──client closed or 2 s──▶ closed
//!     └── nothing left, client closed, too slow ──▶ closed
//! ```
//! iPXE sends the next GET in the segment that acknowledges the last byte of an answer, so input is never thrown away
//! while an answer is sent; and a connection that ends is shut down for writing first and read until the client
//! closes: a reset for unread input would destroy the answer's end on its way.

use std::fmt::Write as _;
use std::io::{self, IoSlice, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, sendmsg};
use rackbar_artifacts::Content;

use super::account::{Account, announce_length};
use super::request::{self, Method, Parsed};
use super::routes::{self, Body, Response, Site};
use crate::Common;

/// After this much other connections get their turn. Of a file it is one call: eight in its place cost a single fast client a
/// sixth of its rate.
const TURN: u64 = 2 << 20;

/// How long a client may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpTimeouts {
    /// From the first byte of a request to its last.
    pub request: Duration,
    /// Between requests.
    pub idle: Duration,
    /// Without taking a byte of an answer.
    pub stalled: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        // Firmware writes what it downloads to slow memory or asks a person between requests; it does not dawdle in
        // the middle of a request of 300 bytes.
        Self {
            request: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            stalled: Duration::from_secs(60),
        }
    }
}

/// `MSG_MORE`, which `nix` does not name: what follows belongs into the same segment.
const MORE: MsgFlags = MsgFlags::from_bits_retain(nix::libc::MSG_MORE);
const LINGER: Duration = Duration::from_secs(2);

/// What the connection waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    Read,
    Write,
    Close,
}

/// What every connection of a worker shares.
pub(crate) struct Context<'a> {
    pub(crate) site: &'a Site,
    pub(crate) common: &'a Common,
    pub(crate) timeouts: HttpTimeouts,
    /// `Date:` of this second.
    pub(crate) date: &'a str,
    pub(crate) now: Instant,
}

struct Outgoing {
    head: Vec<u8>,
    head_sent: usize,
    body: Body,
    body_sent: u64,
    /// 0 for HEAD.
    body_len: u64,
    account: Account,
    close: bool,
}

/// A connection and what it is doing.
pub(crate) struct Connection {
    stream: TcpStream,
    peer: IpAddr,
    local: Option<SocketAddr>,
    input: Vec<u8>,
    out: Option<Outgoing>,
    lingering: bool,
    client_closed: bool,
    continued: bool,
    /// A request of this connection was answered.
    served: bool,
    deadline: Instant,
    request_began: Option<Instant>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, peer: IpAddr, context: &Context<'_>) -> Self {
        Self {
            stream,
            peer,
            local: None,
            input: Vec::new(),
            out: None,
            lingering: false,
            client_closed: false,
            continued: false,
            served: false,
            deadline: context.now + context.timeouts.request,
            request_began: None,
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// When the client has taken too long.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether it has had its answer and asks for nothing more since `pause`.
    pub(crate) fn is_spare(&self, now: Instant, idle: Duration, pause: Duration) -> bool {
        let resting = self.served && self.out.is_none() && self.input.is_empty() && !self.lingering;
        // The deadline was set when it fell silent.
        resting && self.deadline + pause <= now + idle
    }

    /// Goes on as far as the socket allows. `readable`: there may be input.
    pub(crate) fn drive(&mut self, context: &Context<'_>, mut readable: bool) -> Next {
        let mut budget = TURN;
        loop {
            if self.lingering {
                return self.discard(readable);
            }
            if let Some(out) = &mut self.out {
                match out.send(&self.stream, &mut budget) {
                    Ok(true) => self.finish(context),
                    Ok(false) => {
                        self.deadline = context.now + context.timeouts.stalled;
                        return Next::Write;
                    }
                    Err(_) => return Next::Close,
                }
                continue;
            }
            let parsed = match self.input.as_slice() {
                [] => Parsed::Partial { wants_continue: false },
                input => request::parse(input),
            };
            match parsed {
                Parsed::Whole(request, used) => {
                    self.input.drain(..used);
                    self.begin(context, &request);
                    continue;
                }
                Parsed::Bad(status, text) => {
                    let mut response = Response::text(status, text);
                    response.close = true;
                    self.input.clear();
                    self.answer(context, response, false, false, false);
                    continue;
                }
                Parsed::Partial { wants_continue } => {
                    if wants_continue && !self.continued {
                        self.continued = true;
                        let go_ahead = [IoSlice::new(b"HTTP/1.1 100 Continue\r\n\r\n")];
                        if send(&self.stream, &go_ahead, MsgFlags::empty()).is_err() {
                            return Next::Close;
                        }
                    }
                }
            }
            if self.client_closed {
                return Next::Close;
            }
            if !readable {
                self.wait_deadline(context);
                return Next::Read;
            }
            readable = false;
            match self.receive() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Next::Close,
            }
        }
    }

    /// A request must be whole a fixed time after its first byte, however slowly it drips in.
    fn wait_deadline(&mut self, context: &Context<'_>) {
        self.deadline = if self.input.is_empty() {
            self.request_began = None;
            context.now + context.timeouts.idle
        } else {
            *self.request_began.get_or_insert(context.now) + context.timeouts.request
        };
    }

    fn receive(&mut self) -> io::Result<()> {
        // A request has some hundred bytes; a larger buffer costs its clearing each time.
        let mut buffer = [0; 2 << 10];
        let count = self.stream.read(&mut buffer)?;
        self.client_closed = count == 0;
        self.input.extend_from_slice(&buffer[..count]);
        Ok(())
    }

    fn begin(&mut self, context: &Context<'_>, request: &request::Request) {
        self.continued = false;
        self.served = true;
        self.request_began = None;
        let outside = &context.common.outside;
        if self.local.is_none() && (request.host.is_none() || !outside.is_empty()) {
            self.local = self.stream.local_addr().ok();
        }
        let from_outside = self.local.is_some_and(|local| outside.holds(local.ip()));
        let response = if from_outside && routes::is_for_the_rack(&request.path) {
            Response::text(
                403,
                "This is the appliance's address on an uplink: machines boot in the rack's networks.",
            )
        } else {
            routes::respond(context.site, request, self.peer, self.local)
        };
        if let (Some(mac), 200) = (response.mac, response.status) {
            context.common.clients.claims(self.peer, mac);
        }
        let head_only = request.method == Method::Head;
        self.answer(context, response, request.keep_alive, head_only, request.http10);
    }

    fn answer(&mut self, context: &Context<'_>, response: Response, keep_alive: bool, head_only: bool, http10: bool) {
        let close = response.close || !keep_alive;
        let length = response.body.len();
        let mut head = String::with_capacity(384);
        let status = response.status;
        let _ = write!(
            head,
            "HTTP/1.1 {status} {}\r\nServer: rackbar\r\nDate: {}\r\n",
            routes::reason(status),
            context.date
        );
        head.push_str(&response.headers);
        announce_length(&mut head, status, length);
        if close {
            head.push_str("Connection: close\r\n");
        } else if http10 {
            head.push_str("Connection: keep-alive\r\n");
        }
        head.push_str("\r\n");
        self.out = Some(Outgoing {
            head: head.into_bytes(),
            head_sent: 0,
            body: response.body,
            body_sent: 0,
            body_len: if head_only { 0 } else { length },
            account: Account {
                status,
                what: response.what,
                mac: response.mac,
                started: context.now,
            },
            close,
        });
    }

    /// Counts and tells of the answer that just left.
    fn finish(&mut self, context: &Context<'_>) {
        let Some(out) = self.out.take() else { return };
        out.account.settle(context.common, self.peer, out.body_len);
        if out.close {
            let _ = self.stream.shutdown(std::net::Shutdown::Write);
            self.lingering = true;
            self.deadline = context.now + LINGER;
        }
    }

    /// Reads what the client still sends, without keeping it, until it closes.
    fn discard(&mut self, readable: bool) -> Next {
        self.input = Vec::new();
        if !readable {
            return if self.client_closed { Next::Close } else { Next::Read };
        }
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => Next::Close,
            Ok(_) => Next::Read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Next::Read,
            Err(_) => Next::Close,
        }
    }
}

impl Outgoing {
    /// Sends until done (`true`), until the socket is full, or until `budget` is used up (`false`).
    fn send(&mut self, stream: &TcpStream, budget: &mut u64) -> io::Result<bool> {
        loop {
            let head = self.head.get(self.head_sent..).unwrap_or_default();
            let left = self.body_len - self.body_sent;
            if head.is_empty() && left == 0 {
                return Ok(true);
            }
            if *budget == 0 {
                return Ok(false);
            }
            let step = match &self.body {
                Body::Bytes(bytes) => send_memory(stream, head, bytes, self.body_sent, left),
                Body::Part { artifact, from, .. } => match artifact.content() {
                    Content::Memory(bytes) => send_memory(stream, head, bytes, from + self.body_sent, left),
                    // Without a body to follow the head leaves at once, else with the first bytes of the file.
                    Content::File { .. } if !head.is_empty() => {
                        let more = if left > 0 { MORE } else { MsgFlags::empty() };
                        send(stream, &[IoSlice::new(head)], more)
                    }
                    Content::File { file, offset } => {
                        let at = offset.saturating_add(from + self.body_sent);
                        let mut offset = i64::try_from(at).map_err(io::Error::other)?;
                        let count = usize::try_from(left.min(TURN)).map_err(io::Error::other)?;
                        match sendfile64(stream, file, Some(&mut offset), count) {
                            // The file became shorter in place: what was announced cannot be kept.
                            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                            other => other.map_err(io::Error::from),
                        }
                    }
                },
            };
            match step {
                Ok(sent) => self.sent(sent, budget),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn sent(&mut self, sent: usize, budget: &mut u64) {
        let of_head = sent.min(self.head.len() - self.head_sent);
        self.head_sent += of_head;
        self.body_sent += (sent - of_head) as u64;
        *budget = budget.saturating_sub(sent as u64);
    }
}

fn send_memory(stream: &TcpStream, head: &[u8], bytes: &[u8], from: u64, left: u64) -> io::Result<usize> {
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    let rest = bytes.get(from..).unwrap_or_default();
    let body = rest.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(rest);
    send(stream, &[IoSlice::new(head), IoSlice::new(body)], MsgFlags::empty())
}

fn send(stream: &TcpStream, parts: &[IoSlice<'_>], flags: MsgFlags) -> io::Result<usize> {
    let flags = flags | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(stream.as_raw_fd(), parts, &[], flags, None).map_err(|errno| match errno {
        Errno::EAGAIN => io::ErrorKind::WouldBlock.into(),
        other => other.into(),
    })
}
