//! One file on its way to one client.
//!
//! ```text
//!   RRQ with options ──▶ Offering ──ACK 0──▶ Sending ──ACK of the last block──▶ Ended
//!   RRQ without ──────────────────────────────▲ │ ▲
//!                                               └─┘ ACK within the window, timeout
//! ```
//!
//! A window of blocks is on its way at a time (RFC 7440; one block is RFC 1350's lock-step). An ACK of its last block
//! brings the next window; an ACK of an earlier one says the blocks after it were lost, and the window starts again
//! behind it (once: what the client says about blocks it then gets twice only moves the window on); an ACK of a block that was acknowledged before says nothing and is never answered, else every delayed
//! packet would double all that follow (the sorcerer's apprentice, RFC 1123 section 4.2.3.1). What is lost without an
//! ACK telling so is sent again by the timer alone.
//!
//! What goes wrong: EDK2 opens each file twice, first only to learn its size, and ends that with an ERROR; that is not
//! a failure. Many ROMs start the boot file without acknowledging its last block.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rackbar_model::{EventKind, Severity};

use crate::packet::{Packet, Request, data_header, option_ack};
use crate::rtt::Rtt;
use crate::server::printable;
use crate::{Limits, TransferId};

/// A client silent for this long is gone.
const PATIENCE: Duration = Duration::from_secs(20);
/// Sends again before the client has shown that it is there at all: the source of a request may be forged, and we must
/// not be somebody's hammer.
const UNPROVEN_RESENDS: u32 = 4;
/// Sends again of the last window: the client most likely has it and runs it.
const LAST_RESENDS: u32 = 5;

/// What client and server agreed on.
#[derive(Clone, Debug)]
pub(crate) struct Agreed {
    pub(crate) block_size: u16,
    pub(crate) window: u16,
    timeout: Option<Duration>,
    /// The OACK; `None` when the client asked for nothing we know.
    oack: Option<Vec<u8>>,
}

impl Agreed {
    /// Reads the options; each is taken, lowered to our limit, or left out (RFC 2347).
    pub(crate) fn new(request: &Request<'_>, limits: &Limits, size: usize) -> Self {
        let mut agreed = Self {
            block_size: 512,
            window: 1,
            timeout: None,
            oack: None,
        };
        let mut answer: Vec<(&str, u64)> = Vec::new();
        for (name, value) in request.options.iter() {
            let Some(value) = std::str::from_utf8(value).ok().and_then(|v| v.parse::<u64>().ok()) else {
                continue;
            };
            let known = ["blksize", "tsize", "timeout", "windowsize"];
            let Some(name) = known
                .into_iter()
                .find(|known| name.eq_ignore_ascii_case(known.as_bytes()))
            else {
                continue;
            };
            // RFC 2347: an option counts once.
            if answer.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let value = match (name, value) {
                ("blksize", 8..=65464) => {
                    agreed.block_size = (value as u16).min(limits.block_size.max(8));
                    u64::from(agreed.block_size)
                }
                ("windowsize", 1..=65535) => {
                    agreed.window = (value as u16).min(limits.window.max(1));
                    u64::from(agreed.window)
                }
                ("timeout", 1..=255) => {
                    agreed.timeout = Some(Duration::from_secs(value));
                    value
                }
                ("tsize", _) => size as u64,
                _ => continue,
            };
            answer.push((name, value));
        }
        agreed.oack = (!answer.is_empty()).then(|| option_ack(answer));
        agreed
    }
}

/// Something the shell is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send one datagram.
    Send(Vec<u8>),
    /// Send these blocks, in one system call where the kernel can.
    Blocks(Window),
    /// The transfer is over: tell the event, close the port, call `Server::close`.
    Ended {
        /// How.
        outcome: Outcome,
        /// The event to tell.
        event: EventKind,
    },
}

/// How a transfer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The client has the file.
    Complete,
    /// The client only wanted to know the file's size.
    SizeOnly,
    /// Anything else.
    Failed,
}

/// Blocks to send, one after the other. All but the last of a file are of one size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Number of the first block, from 1, not wrapped.
    pub first: u64,
    /// How many.
    pub count: u16,
    /// Octets of data in each but the file's last.
    pub block_size: u16,
}

impl Window {
    /// Header and data of each block, pointing into the content: two entries of an I/O vector per block. With UDP
    /// segmentation offload the segment size is `block_size + 4`.
    pub fn blocks<'c>(&self, content: &'c [u8]) -> impl Iterator<Item = ([u8; 4], &'c [u8])> + use<'c> {
        let size = u64::from(self.block_size);
        (self.first..self.first + u64::from(self.count)).map(move |number| {
            let range = block_range(number, size, content.len());
            // Block numbers are 16 bits; past 65535 everybody goes on at 0.
            (data_header(number as u16), content.get(range).unwrap_or(&[]))
        })
    }
}

fn block_range(number: u64, size: u64, len: usize) -> Range<usize> {
    let len = len as u64;
    let start = (number.saturating_sub(1)).saturating_mul(size).min(len);
    start as usize..start.saturating_add(size).min(len) as usize
}

/// One file on its way to one client.
#[derive(Clone, Debug)]
pub struct Transfer {
    id: TransferId,
    client: SocketAddr,
    file: String,
    content: Arc<[u8]>,
    agreed: Agreed,
    state: State,
    rtt: Rtt,
    begun: Duration,
    /// When the client last showed progress.
    heard: Duration,
    /// True once it acknowledged anything: its address is not forged.
    proven: bool,
    /// Times the present window or OACK was sent again.
    resends: u32,
    /// Blocks sent again in all.
    resent: u32,
}

#[derive(Clone, Debug)]
enum State {
    /// Not started.
    New,
    /// The OACK is out.
    Offering(Sent),
    /// Blocks are out.
    Sending(Sending),
    /// Over.
    Ended,
}

/// When something was sent, and which answer to it tells a round trip.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Duration,
    /// Blocks from this one on had never been sent before: an ACK of one of them can only answer this sending (Karn's
    /// rule). On a link that loses, nearly every window begins with blocks that were sent before; waiting for a window
    /// of new ones alone would leave the timer doubled up to its cap for the rest of the file.
    once_from: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sending {
    /// First block not acknowledged, from 1, not wrapped.
    base: u64,
    /// First block not in the present window.
    end: u64,
    /// First block never sent.
    fresh: u64,
    /// Acknowledgements below this may come from blocks that arrived twice; 0 when no block was sent twice lately.
    recover: u64,
    sent: Sent,
}

impl Transfer {
    pub(crate) fn new(id: TransferId, client: SocketAddr, file: String, content: Arc<[u8]>, agreed: Agreed) -> Self {
        let rtt = Rtt::new(agreed.timeout);
        Self {
            id,
            client,
            file,
            content,
            agreed,
            state: State::New,
            rtt,
            begun: Duration::ZERO,
            heard: Duration::ZERO,
            proven: false,
            resends: 0,
            resent: 0,
        }
    }

    /// Its name for `Server::close`.
    pub fn id(&self) -> TransferId {
        self.id
    }

    /// Address and port of the client.
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// The file's name.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The file's content, which [`Window::blocks`] points into.
    pub fn content(&self) -> &Arc<[u8]> {
        &self.content
    }

    /// True when it is over.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Sends the first packet.
    pub fn start(&mut self, now: Duration, out: &mut Vec<Output>) {
        if !matches!(self.state, State::New) {
            return;
        }
        self.begun = now;
        self.heard = now;
        if let Some(oack) = &self.agreed.oack {
            out.push(Output::Send(oack.clone()));
            self.state = State::Offering(Sent { at: now, once_from: 0 });
        } else {
            self.send_window(now, 1, 1, out);
        }
    }

    /// When to call [`Transfer::tick`] if nothing comes before.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::New | State::Ended => None,
            State::Offering(sent) | State::Sending(Sending { sent, .. }) => {
                Some((sent.at + self.rtt.timeout()).min(self.heard + PATIENCE).max(sent.at))
            }
        }
    }

    /// A datagram from the client. Datagrams from elsewhere must not come here.
    pub fn handle(&mut self, now: Duration, bytes: &[u8], out: &mut Vec<Output>) {
        match Packet::new(bytes) {
            Ok(Packet::Ack { block }) => self.acknowledged(now, block, out),
            Ok(Packet::Error { code, message }) => self.aborted(code, message, out),
            // Nothing else belongs here; an answer would only make noise.
            Ok(Packet::Read(_) | Packet::Write(_) | Packet::Data { .. } | Packet::OptionAck(_)) | Err(_) => {}
        }
    }

    /// The client's port is closed (ICMP port unreachable).
    pub fn unreachable(&mut self, out: &mut Vec<Output>) {
        if !self.is_over() {
            self.silent("the client's port is closed", out);
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: Duration, out: &mut Vec<Output>) {
        if self.deadline().is_none_or(|due| now < due) {
            return;
        }
        let last = matches!(&self.state, State::Sending(s) if s.end > self.last_block());
        let tries = if !self.proven { UNPROVEN_RESENDS } else { u32::MAX };
        let tries = if self.proven && last { LAST_RESENDS } else { tries };
        if now >= self.heard + PATIENCE || self.resends >= tries {
            self.silent("the client does not answer", out);
            return;
        }
        self.rtt.timed_out();
        self.resends += 1;
        match &mut self.state {
            State::Offering(sent) => {
                *sent = Sent {
                    at: now,
                    once_from: u64::MAX,
                };
                out.extend(self.agreed.oack.clone().map(Output::Send));
            }
            State::Sending(sending) => {
                let (base, fresh) = (sending.base, sending.fresh);
                self.send_window(now, base, fresh, out);
            }
            State::New | State::Ended => {}
        }
    }

    /// Number of the file's last block: a file that fills its blocks ends with an empty one.
    fn last_block(&self) -> u64 {
        self.content.len() as u64 / u64::from(self.agreed.block_size) + 1
    }

    fn acknowledged(&mut self, now: Duration, block: u16, out: &mut Vec<Output>) {
        let last = self.last_block();
        match &self.state {
            State::Offering(sent) if block == 0 => {
                let sent = *sent;
                self.progress(now, Some(sent), 0);
                self.send_window(now, 1, 1, out);
            }
            State::Sending(sending) => {
                let sending = *sending;
                // How far behind the last acknowledged block, on the 16-bit circle.
                let ahead = u64::from(block.wrapping_sub((sending.base - 1) as u16));
                let number = sending.base - 1 + ahead;
                if ahead == 0 || number >= sending.fresh {
                    return;
                }
                if number >= last {
                    self.progress(now, Some(sending.sent), number);
                    self.complete(now, out);
                    return;
                }
                if number + 1 < sending.end {
                    self.rtt.lossy();
                }
                if number + 1 < sending.end && number + 1 < sending.recover {
                    self.progress(now, None, number);
                    self.slide(now, number + 1, out);
                    return;
                }
                self.progress(now, Some(sending.sent), number);
                self.send_window(now, number + 1, sending.fresh, out);
            }
            State::New | State::Offering(_) | State::Ended => {}
        }
    }

    fn progress(&mut self, now: Duration, round_trip: Option<Sent>, block: u64) {
        if let Some(sent) = round_trip.filter(|sent| sent.once_from <= block) {
            self.rtt.measured(now.saturating_sub(sent.at));
        } else {
            self.rtt.alive();
        }
        self.heard = now;
        self.proven = true;
        self.resends = 0;
    }

    /// Sends the window that begins at `base`; blocks before `fresh` were sent before.
    fn send_window(&mut self, now: Duration, base: u64, fresh: u64, out: &mut Vec<Output>) {
        let end = (base + u64::from(self.agreed.window)).min(self.last_block() + 1);
        let again = fresh.clamp(base, end) - base;
        self.resent = self.resent.saturating_add(again as u32);
        let sent = Sent {
            at: now,
            once_from: base + again,
        };
        let recover = if again == 0 { 0 } else { end };
        self.state = State::Sending(Sending {
            base,
            end,
            fresh: fresh.max(end),
            recover,
            sent,
        });
        let window = Window {
            first: base,
            count: (end - base) as u16,
            block_size: self.agreed.block_size,
        };
        out.push(Output::Blocks(window));
    }

    /// Moves the window on to `base` and sends only what comes newly into it. Clients such as EDK2 acknowledge every
    /// block they get twice and count their window anew from there; starting the window again at each of these would
    /// send the whole rest of the file twice.
    fn slide(&mut self, now: Duration, base: u64, out: &mut Vec<Output>) {
        let last = self.last_block();
        let State::Sending(sending) = &mut self.state else {
            return;
        };
        let first = sending.end;
        sending.base = base;
        sending.end = (base + u64::from(self.agreed.window)).min(last + 1).max(first);
        sending.sent = Sent {
            at: now,
            once_from: sending.fresh.max(first),
        };
        let count = (sending.end - first) as u16;
        self.resent = self
            .resent
            .saturating_add(sending.fresh.clamp(first, sending.end).abs_diff(first) as u32);
        sending.fresh = sending.fresh.max(sending.end);
        if count > 0 {
            out.push(Output::Blocks(Window {
                first,
                count,
                block_size: self.agreed.block_size,
            }));
        }
    }

    fn complete(&mut self, now: Duration, out: &mut Vec<Output>) {
        let event = EventKind::TftpDone {
            file: self.file.clone(),
            client: self.client.ip(),
            bytes: self.content.len() as u64,
            millis: now.saturating_sub(self.begun).as_millis() as u64,
            resent: self.resent,
        };
        self.state = State::Ended;
        out.push(Output::Ended {
            outcome: Outcome::Complete,
            event,
        });
    }

    /// The client sent an ERROR.
    fn aborted(&mut self, code: u16, message: &[u8], out: &mut Vec<Output>) {
        match &self.state {
            State::Ended | State::New => {}
            State::Offering(_) => {
                self.state = State::Ended;
                let text = format!(
                    "{} asked for the size of {} and ended the transfer, as firmware does before it fetches a file",
                    self.client.ip(),
                    self.file
                );
                let event = EventKind::Note {
                    text,
                    severity: Severity::Info,
                };
                out.push(Output::Ended {
                    outcome: Outcome::SizeOnly,
                    event,
                });
            }
            State::Sending(_) => self.fail(format!("the client gave up: error {code}, {}", printable(message)), out),
        }
    }

    fn silent(&mut self, what: &str, out: &mut Vec<Output>) {
        let reason = match &self.state {
            State::Sending(s) if s.end > self.last_block() => {
                format!("{what}; all blocks were sent, only the last acknowledgement is missing")
            }
            State::Sending(s) => format!("{what} after block {} of {}", s.base - 1, self.last_block()),
            State::New | State::Offering(_) | State::Ended => format!("{what} to the agreed options"),
        };
        self.fail(reason, out);
    }

    fn fail(&mut self, reason: String, out: &mut Vec<Output>) {
        self.state = State::Ended;
        let event = EventKind::TftpFailed {
            file: self.file.clone(),
            client: self.client.ip(),
            reason,
        };
        out.push(Output::Ended {
            outcome: Outcome::Failed,
            event,
        });
    }
}
