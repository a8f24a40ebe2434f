//! The BMC's end: presence pings, logins, sessions, serial over LAN. Commands are handed to the owner, who answers when
//! it pleases.
//!
//! ```text
//!  open session ─▶ half-open ─RAKP 1─▶ challenged ─RAKP 3─▶ active ─close, 60 s of silence─▶ gone
//! ```

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use crate::command::{number, payload, user};
use crate::crypto::{CipherSuite, SessionKeys};
use crate::packet::{self, Packet, PayloadType};
use crate::rakp::{OpenRequest, OpenResponse, Rakp1, Rakp2, RakpProof, Status};
use crate::read::Malformed;
use crate::rmcp::{self, Asf, Class};
use crate::secret::same;
use crate::sol::{SolArrived, SolEnd, SolPacket};
use crate::{Completion, Entropy, LanMessage, NetFn, Privilege, Request, Response, Secret, Window};

/// A session without traffic ends after this (section 6.12.15).
const IDLE: Duration = Duration::from_secs(60);
/// A login that is not finished ends after this.
const HALF_OPEN: Duration = Duration::from_secs(10);
/// Session slots. Real BMCs have 4 to 36.
const SLOTS: usize = 16;
/// Characters in a SOL packet.
const SOL_CHARACTERS: usize = 200;

/// An account that may log in over LAN.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its password.
    pub password: Secret,
    /// Highest privilege.
    pub privilege: Privilege,
}

/// What the server asks its owner at once.
pub trait Accounts {
    /// The GUID told in RAKP 2.
    fn guid(&self) -> [u8; 16];
    /// The account of that name, if it may log in over LAN.
    fn account(&self, user: &[u8]) -> Option<Account>;
}

/// Names a request until it is answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket {
    session: u32,
    sequence: u8,
    console: u8,
}

/// What the server wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send this datagram.
    Send {
        /// To whom.
        to: SocketAddr,
        /// The datagram.
        datagram: Vec<u8>,
    },
    /// Carry this out and call [`Server::answer`].
    Execute {
        /// To be given back.
        ticket: Ticket,
        /// Privilege of the session now.
        privilege: Privilege,
        /// The request.
        request: Request,
    },
    /// A console was opened.
    SolOpened,
    /// Characters were typed.
    SolInput(SolArrived),
    /// The console was closed.
    SolClosed,
}

#[derive(Debug)]
enum Stage {
    HalfOpen,
    Challenged {
        keys: SessionKeys,
        expected: Vec<u8>,
        proof: Vec<u8>,
        limit: Privilege,
        rakp2: Vec<u8>,
    },
    Active {
        keys: SessionKeys,
    },
}

#[derive(Debug)]
struct Slot {
    stage: Stage,
    suite: CipherSuite,
    console_id: u32,
    peer: SocketAddr,
    used: Duration,
    window: Window,
    sent: u32,
    privilege: Privilege,
    limit: Privilege,
    /// The last request and, once given, its answer: a repeated request is not carried out again.
    last: Option<(u8, u8, Option<Response>)>,
}

/// The server.
#[derive(Debug)]
pub struct Server<E> {
    entropy: E,
    port: u16,
    slots: BTreeMap<u32, Slot>,
    sol: Option<(u32, SolEnd)>,
}

impl<E: Entropy> Server<E> {
    /// A server without sessions that answers on this UDP port: consoles insist on being told the port they use.
    pub const fn new(entropy: E, port: u16) -> Self {
        Self {
            entropy,
            port,
            slots: BTreeMap::new(),
            sol: None,
        }
    }

    /// Active sessions.
    pub fn sessions(&self) -> usize {
        self.slots
            .values()
            .filter(|s| matches!(s.stage, Stage::Active { .. }))
            .count()
    }

    /// Forgets every session, as a BMC that restarts does.
    pub fn reset(&mut self, out: &mut Vec<Output>) {
        self.slots.clear();
        if self.sol.take().is_some() {
            out.push(Output::SolClosed);
        }
    }

    /// Takes a datagram. What is not sound is dropped, as the specification asks.
    pub fn input(
        &mut self,
        now: Duration,
        from: SocketAddr,
        datagram: &[u8],
        accounts: &dyn Accounts,
        out: &mut Vec<Output>,
    ) {
        self.expire(now, out);
        match rmcp::open(datagram) {
            Ok((Class::Asf, body)) => {
                if let Ok(Asf::Ping { tag }) = rmcp::asf(body)
                    && tag != u8::MAX
                {
                    out.push(Output::Send {
                        to: from,
                        datagram: rmcp::pong(tag),
                    });
                }
            }
            Ok((Class::Ipmi, body)) => {
                // A malformed packet is dropped without an answer (section 13.28).
                let _dropped = self.ipmi(now, from, body, accounts, out);
            }
            Err(_) => {}
        }
    }

    fn ipmi(
        &mut self,
        now: Duration,
        from: SocketAddr,
        body: &[u8],
        accounts: &dyn Accounts,
        out: &mut Vec<Output>,
    ) -> Result<(), Malformed> {
        match Packet::parse(body)? {
            Packet::V15 { payload } => {
                if let Some(answer) = sessionless(payload, accounts) {
                    out.push(Output::Send {
                        to: from,
                        datagram: packet::seal_v15(&answer),
                    });
                }
            }
            Packet::Plain {
                kind: PayloadType::IPMI,
                payload,
            } => {
                if let Some(answer) = sessionless(payload, accounts) {
                    let datagram = packet::seal_plain(PayloadType::IPMI, &answer);
                    out.push(Output::Send { to: from, datagram });
                }
            }
            Packet::Plain { kind, payload } => {
                let answer = match kind {
                    PayloadType::OPEN_REQUEST => Some((
                        PayloadType::OPEN_RESPONSE,
                        self.open(now, from, &OpenRequest::decode(payload)?),
                    )),
                    PayloadType::RAKP1 => {
                        Some((PayloadType::RAKP2, self.challenge(&Rakp1::decode(payload)?, accounts)))
                    }
                    PayloadType::RAKP3 => self
                        .prove(now, &RakpProof::decode(payload)?)
                        .map(|bytes| (PayloadType::RAKP4, bytes)),
                    _ => None,
                };
                if let Some((kind, payload)) = answer {
                    out.push(Output::Send {
                        to: from,
                        datagram: packet::seal_plain(kind, &payload),
                    });
                }
            }
            Packet::Sealed(sealed) => self.sealed(now, from, &sealed, out)?,
        }
        Ok(())
    }

    fn open(&mut self, now: Duration, from: SocketAddr, request: &OpenRequest) -> Vec<u8> {
        let mut answer = OpenResponse {
            tag: request.tag,
            status: Status::OK,
            privilege: if request.privilege == 0 {
                Privilege::Administrator as u8
            } else {
                request.privilege
            },
            console_id: request.console_id,
            managed_id: 0,
            algorithms: request.algorithms,
        };
        let Some(suite) = CipherSuite::from_algorithms(request.algorithms) else {
            answer.status = Status::NO_CIPHER_SUITE;
            return answer.encode();
        };
        let mut id = [0; 4];
        let random = self.entropy.fill(&mut id);
        let id = u32::from_le_bytes(id);
        if !random || id == 0 || self.slots.contains_key(&id) || !self.make_room() {
            answer.status = Status::NO_RESOURCES;
            return answer.encode();
        }
        answer.managed_id = id;
        let slot = Slot {
            stage: Stage::HalfOpen,
            suite,
            console_id: request.console_id,
            peer: from,
            used: now,
            window: Window::default(),
            sent: 0,
            // The specification starts every session at User (section 6.8).
            privilege: Privilege::User,
            limit: Privilege::User,
            last: None,
        };
        self.slots.insert(id, slot);
        answer.encode()
    }

    /// Room for one more session; a flood of unfinished logins pushes out the oldest of its own kind only.
    fn make_room(&mut self) -> bool {
        if self.slots.len() < SLOTS {
            return true;
        }
        let unfinished = self
            .slots
            .iter()
            .filter(|(_, slot)| !matches!(slot.stage, Stage::Active { .. }));
        let Some(oldest) = unfinished.min_by_key(|(_, slot)| slot.used).map(|(id, _)| *id) else {
            return false;
        };
        self.slots.remove(&oldest).is_some()
    }

    fn challenge(&mut self, one: &Rakp1, accounts: &dyn Accounts) -> Vec<u8> {
        let Some(slot) = self.slots.get_mut(&one.managed_id) else {
            return Rakp2::refused(one.tag, Status::INVALID_SESSION, 0).encode();
        };
        let refuse = |status| Rakp2::refused(one.tag, status, slot.console_id).encode();
        match &slot.stage {
            Stage::HalfOpen => {}
            // Repeated because our answer was lost: the same challenge again.
            Stage::Challenged { rakp2, .. } => return rakp2.clone(),
            Stage::Active { .. } => return refuse(Status::INVALID_SESSION),
        }
        let Some(account) = accounts.account(&one.user) else {
            return refuse(Status::UNAUTHORIZED_NAME);
        };
        let Some(wanted) = one
            .role
            .privilege()
            .or(Some(account.privilege))
            .filter(|p| *p <= account.privilege)
        else {
            return refuse(Status::UNAUTHORIZED_ROLE);
        };
        let mut two = Rakp2 {
            tag: one.tag,
            status: Status::OK,
            console_id: slot.console_id,
            random: [0; 16],
            guid: accounts.guid(),
            code: Vec::new(),
        };
        if !self.entropy.fill(&mut two.random) {
            return refuse(Status::NO_RESOURCES);
        }
        let (suite, secret) = (slot.suite, &account.password);
        two.code = suite.rakp2_code(secret, slot.console_id, one, &two).to_vec();
        let keys = SessionKeys::derive(suite, secret, &one.random, &two.random, one.role, &one.user);
        let rakp2 = two.encode();
        slot.stage = Stage::Challenged {
            expected: suite.rakp3_code(secret, slot.console_id, one, &two.random).to_vec(),
            proof: keys.rakp4_code(&one.random, one.managed_id, &two.guid),
            limit: wanted,
            rakp2: rakp2.clone(),
            keys,
        };
        rakp2
    }

    fn prove(&mut self, now: Duration, three: &RakpProof) -> Option<Vec<u8>> {
        if three.status != Status::OK {
            // The console gave up. Its message does not name the session reliably; the slot times out.
            return None;
        }
        let refuse = |status| {
            RakpProof {
                tag: three.tag,
                status,
                session_id: 0,
                code: Vec::new(),
            }
            .encode()
        };
        let Some(mut slot) = self.slots.remove(&three.session_id) else {
            return Some(refuse(Status::INVALID_SESSION));
        };
        match slot.stage {
            Stage::Challenged {
                keys,
                expected,
                proof,
                limit,
                ..
            } => {
                if !same(&expected, &three.code) {
                    return Some(refuse(Status::INVALID_CODE));
                }
                slot.limit = limit;
                slot.privilege = Privilege::User.min(limit);
                slot.used = now;
                slot.stage = Stage::Active { keys };
                let four = RakpProof {
                    tag: three.tag,
                    status: Status::OK,
                    session_id: slot.console_id,
                    code: proof,
                };
                self.slots.insert(three.session_id, slot);
                Some(four.encode())
            }
            // A repeated RAKP 3 of a session that already runs: the console will find out by time-out and start anew.
            stage @ (Stage::HalfOpen | Stage::Active { .. }) => {
                slot.stage = stage;
                self.slots.insert(three.session_id, slot);
                Some(refuse(Status::INVALID_SESSION))
            }
        }
    }

    fn sealed(
        &mut self,
        now: Duration,
        from: SocketAddr,
        sealed: &packet::Sealed<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), Malformed> {
        let id = sealed.session;
        let Some(slot) = self.slots.get_mut(&id) else {
            return Ok(());
        };
        let Stage::Active { keys } = &slot.stage else {
            return Ok(());
        };
        let opened = sealed.open(keys)?;
        if !slot.window.accept(opened.sequence) {
            return Ok(());
        }
        slot.used = now;
        slot.peer = from;
        match opened.kind {
            PayloadType::IPMI => {
                if let LanMessage::Request {
                    sequence,
                    from: console,
                    request,
                } = LanMessage::decode(&opened.payload)?
                {
                    self.request(
                        Ticket {
                            session: id,
                            sequence,
                            console,
                        },
                        request,
                        out,
                    );
                }
            }
            PayloadType::SOL => {
                let packet = SolPacket::decode(&opened.payload)?;
                if let Some((owner, end)) = &mut self.sol
                    && *owner == id
                {
                    let arrived = end.input(&packet);
                    if !arrived.data.is_empty() || arrived.broke {
                        out.push(Output::SolInput(arrived));
                    }
                }
                self.pump_sol(now, out);
            }
            _ => {}
        }
        Ok(())
    }

    fn request(&mut self, ticket: Ticket, request: Request, out: &mut Vec<Output>) {
        let Some(slot) = self.slots.get_mut(&ticket.session) else {
            return;
        };
        if let Some((sequence, command, answer)) = &slot.last
            && (*sequence, *command) == (ticket.sequence, request.command)
        {
            if let Some(answer) = answer.clone() {
                self.send(ticket, &answer, out);
            }
            return;
        }
        slot.last = Some((ticket.sequence, request.command, None));
        match self.own(ticket.session, &request, out) {
            Some(answer) => {
                self.answer(ticket, answer, out);
                if request.netfn == NetFn::APP && request.command == number::CLOSE_SESSION {
                    self.end(ticket.session, out);
                }
            }
            None => {
                let privilege = self
                    .slots
                    .get(&ticket.session)
                    .map_or(Privilege::Callback, |slot| slot.privilege);
                out.push(Output::Execute {
                    ticket,
                    privilege,
                    request,
                });
            }
        }
    }

    /// The commands that concern sessions only.
    fn own(&mut self, id: u32, request: &Request, out: &mut Vec<Output>) -> Option<Response> {
        if request.netfn != NetFn::APP {
            return None;
        }
        let slot = self.slots.get_mut(&id)?;
        let ok = |data: Vec<u8>| Some(request.answer(Completion::OK, data));
        match request.command {
            number::SET_SESSION_PRIVILEGE => {
                let wanted = request.data.first().copied().unwrap_or(0);
                if wanted == 0 {
                    return ok(vec![slot.privilege as u8]);
                }
                match Privilege::from_nibble(wanted) {
                    Some(level) if level <= slot.limit => {
                        slot.privilege = level;
                        ok(vec![level as u8])
                    }
                    // 81h: the level is not available to this user (section 22.18).
                    _ => Some(request.answer(Completion(0x81), [])),
                }
            }
            number::CLOSE_SESSION => ok(Vec::new()),
            number::GET_CIPHER_SUITES => Some(cipher_suites(request)),
            number::ACTIVATE_PAYLOAD | number::DEACTIVATE_PAYLOAD | number::GET_PAYLOAD_STATUS
                if request.data.first() != Some(&PayloadType::SOL.0) =>
            {
                Some(request.answer(Completion::INVALID_FIELD, []))
            }
            number::ACTIVATE_PAYLOAD => {
                if slot.privilege < Privilege::Operator {
                    return Some(request.answer(Completion::PRIVILEGE, []));
                }
                if self.sol.is_some() {
                    return Some(request.answer(payload::ALREADY_ACTIVE, []));
                }
                self.sol = Some((id, SolEnd::new(SOL_CHARACTERS)));
                out.push(Output::SolOpened);
                let size = SOL_CHARACTERS as u16 + 4;
                ok(payload::SolActivated {
                    inbound: size,
                    outbound: size,
                    port: self.port,
                }
                .encode())
            }
            number::DEACTIVATE_PAYLOAD => {
                if self.sol.take().is_none() {
                    return Some(request.answer(payload::NOT_ACTIVE, []));
                }
                out.push(Output::SolClosed);
                ok(Vec::new())
            }
            number::GET_PAYLOAD_STATUS => ok(vec![1, u8::from(self.sol.is_some()), 0]),
            _ => None,
        }
    }

    /// Answers a request. An answer for a session that ended meanwhile goes nowhere.
    pub fn answer(&mut self, ticket: Ticket, response: Response, out: &mut Vec<Output>) {
        self.send(ticket, &response, out);
        if let Some(slot) = self.slots.get_mut(&ticket.session)
            && let Some((sequence, _, answer)) = &mut slot.last
            && *sequence == ticket.sequence
        {
            *answer = Some(response);
        }
    }

    fn send(&mut self, ticket: Ticket, response: &Response, out: &mut Vec<Output>) {
        let message = LanMessage::Response {
            sequence: ticket.sequence,
            to: ticket.console,
            response: response.clone(),
        };
        self.send_sealed(ticket.session, PayloadType::IPMI, &message.encode(), out);
    }

    fn send_sealed(&mut self, id: u32, kind: PayloadType, payload: &[u8], out: &mut Vec<Output>) {
        let mut iv = [0; 16];
        if !self.entropy.fill(&mut iv) {
            return;
        }
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let Stage::Active { keys } = &slot.stage else { return };
        slot.sent = slot.sent.wrapping_add(1).max(1);
        let datagram = packet::seal(keys, iv, slot.console_id, slot.sent, kind, payload);
        out.push(Output::Send {
            to: slot.peer,
            datagram,
        });
    }

    /// The machine wrote characters to its serial port. Without a console they are lost, as on a real line.
    pub fn sol_write(&mut self, now: Duration, data: &[u8], out: &mut Vec<Output>) {
        if let Some((_, end)) = &mut self.sol {
            end.write(data);
        }
        self.pump_sol(now, out);
    }

    fn pump_sol(&mut self, now: Duration, out: &mut Vec<Output>) {
        loop {
            let Some((id, end)) = &mut self.sol else { return };
            let id = *id;
            let Some(packet) = end.poll(now) else { return };
            self.send_sealed(id, PayloadType::SOL, &packet.encode(), out);
        }
    }

    /// When [`Self::tick`] wants to be called.
    pub fn deadline(&self) -> Option<Duration> {
        let slots = self.slots.values().map(|slot| slot.used + patience(slot));
        slots.chain(self.sol.as_ref().and_then(|(_, end)| end.deadline())).min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration, out: &mut Vec<Output>) {
        self.expire(now, out);
        self.pump_sol(now, out);
    }

    fn expire(&mut self, now: Duration, out: &mut Vec<Output>) {
        let old: Vec<u32> = self
            .slots
            .iter()
            .filter(|(_, slot)| now >= slot.used + patience(slot))
            .map(|(id, _)| *id)
            .collect();
        for id in old {
            self.end(id, out);
        }
    }

    fn end(&mut self, id: u32, out: &mut Vec<Output>) {
        self.slots.remove(&id);
        if self.sol.take_if(|(owner, _)| *owner == id).is_some() {
            out.push(Output::SolClosed);
        }
    }
}

const fn patience(slot: &Slot) -> Duration {
    match slot.stage {
        Stage::HalfOpen | Stage::Challenged { .. } => HALF_OPEN,
        Stage::Active { .. } => IDLE,
    }
}

/// The few commands anybody may ask (appendix G, "b" for before a session).
fn sessionless(payload: &[u8], accounts: &dyn Accounts) -> Option<Vec<u8>> {
    let LanMessage::Request {
        sequence,
        from,
        request,
    } = LanMessage::decode(payload).ok()?
    else {
        return None;
    };
    let response = match (request.netfn, request.command) {
        (NetFn::APP, number::GET_AUTH_CAPABILITIES) => {
            let capabilities = user::AuthCapabilities {
                channel: 1,
                rmcp_plus: true,
                v15: false,
                named_users: true,
                anonymous: false,
            };
            request.answer(Completion::OK, capabilities.encode())
        }
        (NetFn::APP, number::GET_SYSTEM_GUID) => request.answer(Completion::OK, accounts.guid()),
        (NetFn::APP, number::GET_CIPHER_SUITES) => cipher_suites(&request),
        _ => request.answer(Completion::PRIVILEGE, []),
    };
    Some(
        LanMessage::Response {
            sequence,
            to: from,
            response,
        }
        .encode(),
    )
}

/// Get Channel Cipher Suites (section 22.15): the records of suites 3 and 17, all within the first set of 16 bytes.
fn cipher_suites(request: &Request) -> Response {
    let mut data = vec![1];
    if request.data.get(2).is_some_and(|index| index & 0x3f == 0) {
        for suite in [CipherSuite::Three, CipherSuite::Seventeen] {
            let [authentication, integrity, confidentiality] = suite.algorithms();
            data.extend_from_slice(&[
                0xc0,
                suite.id(),
                authentication,
                0x40 | integrity,
                0x80 | confidentiality,
            ]);
        }
    }
    request.answer(Completion::OK, data)
}
