//! One session towards a BMC, as a state machine.
//!
//! ```text
//!  start ─▶ Opening ─▶ Rakp1 ─▶ Rakp3 ─▶ Raising ─▶ Ready ⇄ Asking
//!              │          │        │         │         │
//!              └──────────┴────────┴─────────┴─────────┴──▶ Over (Failed or closed)
//! ```
//!
//! Every message is repeated until its tries run out; a repeated request keeps its IPMI sequence number, so that a BMC
//! which carried it out and whose answer was lost does not do it twice, but gets a new session sequence number.

use core::fmt;
use core::time::Duration;
use std::collections::VecDeque;

use crate::command::{payload, user};
use crate::crypto::{CipherSuite, SessionKeys};
use crate::packet::{self, Packet, PayloadType};
use crate::rakp::{OpenRequest, OpenResponse, Rakp1, Rakp2, RakpProof, Role, Status, USER_MAX};
use crate::rmcp::{self, Asf, Class};
use crate::secret::same;
use crate::sol::{SolArrived, SolEnd, SolPacket};
use crate::{CONSOLE_ADDRESS, Completion, Entropy, LanMessage, Privilege, Request, Response, Secret, Window};

/// How to log in.
#[derive(Clone, Debug)]
pub struct Config {
    /// User name, at most 16 bytes; longer ones are refused by every BMC.
    pub user: String,
    /// Password.
    pub password: Secret,
    /// Cipher suite.
    pub suite: CipherSuite,
    /// Privilege the session is raised to.
    pub privilege: Privilege,
    /// How long a message waits for its answer before it is repeated.
    pub retry: Duration,
    /// How often a message is sent before the BMC counts as silent.
    pub tries: u8,
}

/// Why a session is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No answer to a message, however often it was sent.
    Silent {
        /// Which message.
        during: &'static str,
    },
    /// The BMC refused a step of the login.
    Refused {
        /// Which step.
        during: &'static str,
        /// Its reason.
        status: Status,
    },
    /// The BMC's proof does not fit our password: the password is wrong, or it is not the BMC it claims to be.
    WrongPassword,
    /// The BMC took another cipher suite than asked for.
    OtherSuite,
    /// Raising the privilege failed.
    Privilege(Completion),
    /// No random numbers.
    NoEntropy,
    /// The user name is longer than 16 bytes.
    NameTooLong,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent { during } => write!(f, "no answer to {during}"),
            Self::Refused { during, status } => write!(f, "{during} refused: {status}"),
            Self::WrongPassword => f.write_str("the BMC's proof does not fit this password: wrong user or password"),
            Self::OtherSuite => f.write_str("the BMC took another cipher suite than asked for"),
            Self::Privilege(code) => write!(f, "raising the privilege refused: {code}"),
            Self::NoEntropy => f.write_str("the system gave no random numbers"),
            Self::NameTooLong => f.write_str("user names of IPMI have at most 16 bytes"),
        }
    }
}

impl core::error::Error for Failure {}

/// What the session wants done or says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send this datagram to the BMC.
    Send(Vec<u8>),
    /// Logged in; requests may be made.
    Ready,
    /// The answer to the request.
    Answer(Response),
    /// Nobody answered the request; the session may still live, a new one is the safe choice.
    Unanswered,
    /// Characters from the serial console.
    Sol(SolArrived),
    /// The session is over.
    Failed(Failure),
}

/// Another request is in flight, or the session is not ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotReady;

#[derive(Debug)]
enum State {
    Idle,
    Opening,
    Rakp1 {
        one: Rakp1,
    },
    Rakp3 {
        keys: SessionKeys,
        console_random: [u8; 16],
        guid: [u8; 16],
    },
    Raising,
    Ready,
    Asking,
    Over,
}

#[derive(Debug)]
enum Pending {
    /// A datagram outside the session, repeated as it is.
    Login { during: &'static str, datagram: Vec<u8> },
    /// A request inside the session, sealed anew each time.
    Request { sequence: u8, request: Request },
}

#[derive(Debug)]
struct Waiting {
    what: Pending,
    due: Duration,
    tries: u8,
}

/// A session.
#[derive(Debug)]
pub struct Session<E> {
    config: Config,
    entropy: E,
    state: State,
    waiting: Option<Waiting>,
    outputs: VecDeque<Output>,
    tag: u8,
    console_id: u32,
    managed_id: u32,
    keys: Option<SessionKeys>,
    window: Window,
    sent: u32,
    sequence: u8,
    sol: Option<SolEnd>,
}

impl<E: Entropy> Session<E> {
    /// A session that has not started.
    pub fn new(config: Config, entropy: E) -> Self {
        Self {
            config,
            entropy,
            state: State::Idle,
            waiting: None,
            outputs: VecDeque::new(),
            tag: 0,
            console_id: 0,
            managed_id: 0,
            keys: None,
            window: Window::default(),
            sent: 0,
            sequence: 0,
            sol: None,
        }
    }

    /// Begins the login.
    pub fn start(&mut self, now: Duration) {
        let mut id = [0; 4];
        if self.config.user.len() > USER_MAX {
            return self.fail(Failure::NameTooLong);
        }
        if !self.entropy.fill(&mut id) {
            return self.fail(Failure::NoEntropy);
        }
        // 0 would mean "no session".
        self.console_id = u32::from_le_bytes(id).max(1);
        let request = OpenRequest {
            tag: self.next_tag(),
            privilege: self.config.privilege as u8,
            console_id: self.console_id,
            algorithms: self.config.suite.algorithms(),
        };
        self.state = State::Opening;
        self.login("open session", PayloadType::OPEN_REQUEST, &request.encode(), now);
    }

    /// True when a request may be made.
    pub const fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// True when nothing more will come.
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Sends a request. Its answer, or [`Output::Unanswered`], follows.
    ///
    /// # Errors
    /// When the session is not ready: one request is in flight at a time.
    pub fn request(&mut self, request: Request, now: Duration) -> Result<(), NotReady> {
        if !self.is_ready() {
            return Err(NotReady);
        }
        self.state = State::Asking;
        self.ask(request, now);
        Ok(())
    }

    /// Ends the session: the BMC is told once, without waiting; BMCs have few session slots and free a forgotten one
    /// only after a minute.
    pub fn close(&mut self) {
        if self.keys.is_some() && !self.is_over() {
            let sequence = self.next_sequence();
            let message = LanMessage::Request {
                sequence,
                from: CONSOLE_ADDRESS,
                request: payload::close_session(self.managed_id),
            };
            self.send_sealed(PayloadType::IPMI, &message.encode());
        }
        self.state = State::Over;
        self.waiting = None;
    }

    /// Starts passing characters of the serial console, after the BMC answered Activate Payload.
    pub fn sol_begin(&mut self, characters: usize) {
        self.sol = Some(SolEnd::new(characters));
    }

    /// Types characters into the serial console.
    pub fn sol_write(&mut self, data: &[u8], now: Duration) {
        if let Some(sol) = &mut self.sol {
            sol.write(data);
        }
        self.pump_sol(now);
    }

    /// The next thing to do or to know.
    pub fn output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::timeout`] wants to be called.
    pub fn deadline(&self) -> Option<Duration> {
        let sol = self.sol.as_ref().and_then(SolEnd::deadline);
        let waiting = self.waiting.as_ref().map(|w| w.due);
        [sol, waiting].into_iter().flatten().min()
    }

    /// Time has passed: repeats or gives up.
    pub fn timeout(&mut self, now: Duration) {
        self.pump_sol(now);
        let Some(mut waiting) = self.waiting.take_if(|w| now >= w.due) else {
            return;
        };
        if waiting.tries >= self.config.tries {
            return match waiting.what {
                Pending::Login { during, .. } => self.fail(Failure::Silent { during }),
                Pending::Request { .. } if matches!(self.state, State::Raising) => {
                    self.fail(Failure::Silent {
                        during: "raising the privilege",
                    });
                }
                Pending::Request { .. } => {
                    self.state = State::Ready;
                    self.outputs.push_back(Output::Unanswered);
                }
            };
        }
        waiting.tries += 1;
        waiting.due = now + self.config.retry;
        match &waiting.what {
            Pending::Login { datagram, .. } => self.outputs.push_back(Output::Send(datagram.clone())),
            Pending::Request { sequence, request } => {
                let message = LanMessage::Request {
                    sequence: *sequence,
                    from: CONSOLE_ADDRESS,
                    request: request.clone(),
                };
                self.send_sealed(PayloadType::IPMI, &message.encode());
            }
        }
        self.waiting = Some(waiting);
    }

    /// Takes a datagram from the BMC. What is not for this session, or not sound, is dropped.
    pub fn input(&mut self, datagram: &[u8], now: Duration) {
        let Ok((Class::Ipmi, body)) = rmcp::open(datagram) else {
            return;
        };
        match Packet::parse(body) {
            Ok(Packet::Plain { kind, payload }) => self.login_step(kind, payload, now),
            Ok(Packet::Sealed(sealed)) if sealed.session == self.console_id => {
                let Some(keys) = &self.keys else { return };
                let Ok(opened) = sealed.open(keys) else { return };
                if !self.window.accept(opened.sequence) {
                    return;
                }
                match opened.kind {
                    PayloadType::IPMI => self.answered(&opened.payload),
                    PayloadType::SOL => self.sol_arrived(&opened.payload, now),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn login_step(&mut self, kind: PayloadType, bytes: &[u8], now: Duration) {
        match (core::mem::replace(&mut self.state, State::Over), kind) {
            (State::Opening, PayloadType::OPEN_RESPONSE) => self.opened(bytes, now),
            (State::Rakp1 { one }, PayloadType::RAKP2) => self.rakp2(one, bytes, now),
            (
                State::Rakp3 {
                    keys,
                    console_random,
                    guid,
                },
                PayloadType::RAKP4,
            ) => {
                self.rakp4(keys, console_random, guid, bytes, now);
            }
            (state, _) => self.state = state,
        }
    }

    fn opened(&mut self, bytes: &[u8], now: Duration) {
        self.state = State::Opening;
        let Ok(answer) = OpenResponse::decode(bytes) else {
            return;
        };
        if answer.tag != self.tag {
            return;
        }
        if answer.status != Status::OK {
            return self.fail(Failure::Refused {
                during: "open session",
                status: answer.status,
            });
        }
        if answer.console_id != self.console_id || answer.managed_id == 0 {
            return;
        }
        if answer.algorithms != self.config.suite.algorithms() {
            return self.fail(Failure::OtherSuite);
        }
        self.managed_id = answer.managed_id;
        let mut random = [0; 16];
        if !self.entropy.fill(&mut random) {
            return self.fail(Failure::NoEntropy);
        }
        let one = Rakp1 {
            tag: self.next_tag(),
            managed_id: self.managed_id,
            random,
            role: Role::named(self.config.privilege),
            user: self.config.user.clone().into_bytes(),
        };
        self.login("RAKP message 1", PayloadType::RAKP1, &one.encode(), now);
        self.state = State::Rakp1 { one };
    }

    fn rakp2(&mut self, one: Rakp1, bytes: &[u8], now: Duration) {
        let suite = self.config.suite;
        let two = match Rakp2::decode(bytes) {
            Ok(two) if two.tag == self.tag => two,
            _ => {
                self.state = State::Rakp1 { one };
                return;
            }
        };
        if two.status != Status::OK {
            return self.fail(Failure::Refused {
                during: "RAKP message 1",
                status: two.status,
            });
        }
        if two.console_id != self.console_id {
            self.state = State::Rakp1 { one };
            return;
        }
        let expected = suite.rakp2_code(&self.config.password, self.console_id, &one, &two);
        let tag = self.next_tag();
        let mut three = RakpProof {
            tag,
            status: Status::OK,
            session_id: self.managed_id,
            code: Vec::new(),
        };
        if !same(&expected, &two.code) {
            // Say so, and the BMC frees its half-open session at once.
            three.status = Status::INVALID_CODE;
            self.outputs
                .push_back(Output::Send(packet::seal_plain(PayloadType::RAKP3, &three.encode())));
            return self.fail(Failure::WrongPassword);
        }
        three.code = suite
            .rakp3_code(&self.config.password, self.console_id, &one, &two.random)
            .to_vec();
        let keys = SessionKeys::derive(
            suite,
            &self.config.password,
            &one.random,
            &two.random,
            one.role,
            &one.user,
        );
        self.login("RAKP message 3", PayloadType::RAKP3, &three.encode(), now);
        self.state = State::Rakp3 {
            keys,
            console_random: one.random,
            guid: two.guid,
        };
    }

    fn rakp4(&mut self, keys: SessionKeys, console_random: [u8; 16], guid: [u8; 16], bytes: &[u8], now: Duration) {
        let back = |keys| State::Rakp3 {
            keys,
            console_random,
            guid,
        };
        let four = match RakpProof::decode(bytes) {
            Ok(four) if four.tag == self.tag => four,
            _ => {
                self.state = back(keys);
                return;
            }
        };
        if four.status != Status::OK {
            return self.fail(Failure::Refused {
                during: "RAKP message 3",
                status: four.status,
            });
        }
        let expected = keys.rakp4_code(&console_random, self.managed_id, &guid);
        if four.session_id != self.console_id || !same(&expected, &four.code) {
            // Forged or damaged; the true one may still come.
            self.state = back(keys);
            return;
        }
        self.keys = Some(keys);
        self.state = State::Raising;
        self.ask(payload::set_privilege(self.config.privilege), now);
    }

    fn answered(&mut self, bytes: &[u8]) {
        let Ok(LanMessage::Response { sequence, response, .. }) = LanMessage::decode(bytes) else {
            return;
        };
        let fits = self.waiting.as_ref().is_some_and(|waiting| match &waiting.what {
            Pending::Request {
                sequence: asked,
                request,
            } => *asked == sequence && request.command == response.command && request.netfn == response.netfn,
            Pending::Login { .. } => false,
        });
        if !fits {
            return;
        }
        self.waiting = None;
        match self.state {
            State::Raising if response.completion == Completion::OK => {
                self.state = State::Ready;
                self.outputs.push_back(Output::Ready);
            }
            State::Raising => self.fail(Failure::Privilege(response.completion)),
            State::Asking => {
                self.state = State::Ready;
                self.outputs.push_back(Output::Answer(response));
            }
            State::Idle | State::Opening | State::Rakp1 { .. } | State::Rakp3 { .. } | State::Ready | State::Over => {}
        }
    }

    fn sol_arrived(&mut self, bytes: &[u8], now: Duration) {
        let (Some(sol), Ok(packet)) = (&mut self.sol, SolPacket::decode(bytes)) else {
            return;
        };
        let arrived = sol.input(&packet);
        if !arrived.data.is_empty() || arrived.broke {
            self.outputs.push_back(Output::Sol(arrived));
        }
        self.pump_sol(now);
    }

    fn pump_sol(&mut self, now: Duration) {
        while let Some(packet) = self.sol.as_mut().and_then(|sol| sol.poll(now)) {
            self.send_sealed(PayloadType::SOL, &packet.encode());
        }
    }

    fn ask(&mut self, request: Request, now: Duration) {
        let sequence = self.next_sequence();
        let message = LanMessage::Request {
            sequence,
            from: CONSOLE_ADDRESS,
            request: request.clone(),
        };
        self.send_sealed(PayloadType::IPMI, &message.encode());
        let what = Pending::Request { sequence, request };
        if !self.is_over() {
            self.waiting = Some(Waiting {
                what,
                due: now + self.config.retry,
                tries: 1,
            });
        }
    }

    fn login(&mut self, during: &'static str, kind: PayloadType, payload: &[u8], now: Duration) {
        let datagram = packet::seal_plain(kind, payload);
        self.outputs.push_back(Output::Send(datagram.clone()));
        let what = Pending::Login { during, datagram };
        self.waiting = Some(Waiting {
            what,
            due: now + self.config.retry,
            tries: 1,
        });
    }

    fn send_sealed(&mut self, kind: PayloadType, payload: &[u8]) {
        let mut iv = [0; 16];
        if !self.entropy.fill(&mut iv) {
            return self.fail(Failure::NoEntropy);
        }
        let Some(keys) = &self.keys else { return };
        self.sent = self.sent.wrapping_add(1).max(1);
        let datagram = packet::seal(keys, iv, self.managed_id, self.sent, kind, payload);
        self.outputs.push_back(Output::Send(datagram));
    }

    fn fail(&mut self, failure: Failure) {
        self.state = State::Over;
        self.waiting = None;
        self.outputs.push_back(Output::Failed(failure));
    }

    fn next_tag(&mut self) -> u8 {
        self.tag = self.tag.wrapping_add(1);
        self.tag
    }

    fn next_sequence(&mut self) -> u8 {
        self.sequence = (self.sequence + 1) & 0x3f;
        self.sequence
    }
}

/// Two datagrams that find a BMC without a password: the presence ping, and the question which logins it offers, since
/// many BMCs let their operators switch the ping off.
pub fn probes() -> [Vec<u8>; 2] {
    let request = user::AuthCapabilities::request(Privilege::Administrator);
    let message = LanMessage::Request {
        sequence: 0,
        from: CONSOLE_ADDRESS,
        request,
    };
    [rmcp::ping(0), packet::seal_v15(&message.encode())]
}

/// What an answer to [`probes`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// A pong: something manages this machine; `ipmi` when it says it speaks IPMI.
    Pong {
        /// It says that it speaks IPMI.
        ipmi: bool,
    },
    /// The logins it offers.
    Logins(user::AuthCapabilities),
}

/// Reads an answer to [`probes`]; `None` for anything else.
pub fn presence(datagram: &[u8]) -> Option<Presence> {
    match rmcp::open(datagram).ok()? {
        (Class::Asf, body) => match rmcp::asf(body).ok()? {
            Asf::Pong { ipmi, .. } => Some(Presence::Pong { ipmi }),
            Asf::Ping { .. } => None,
        },
        (Class::Ipmi, body) => {
            let Packet::V15 { payload } = Packet::parse(body).ok()? else {
                return None;
            };
            let LanMessage::Response { response, .. } = LanMessage::decode(payload).ok()? else {
                return None;
            };
            let known = response.command == crate::command::number::GET_AUTH_CAPABILITIES;
            if !known || response.completion != Completion::OK {
                return None;
            }
            user::AuthCapabilities::decode(&response.data)
                .ok()
                .map(Presence::Logins)
        }
    }
}
