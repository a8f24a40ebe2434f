//! Client and server against each other: logins, losses, forgeries, a console.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use rackbar_ipmi::client::{Config, Failure, Output as Said, Presence, Session, presence, probes};
use rackbar_ipmi::command::chassis::{ChassisControl, ChassisStatus};
use rackbar_ipmi::command::payload;
use rackbar_ipmi::rakp::Status;
use rackbar_ipmi::server::{Account, Accounts, Output as Done, Server};
use rackbar_ipmi::{CipherSuite, Completion, Entropy, Privilege, Request, Response, Secret};

#[derive(Debug)]
struct Counted(u8);

impl Entropy for Counted {
    fn fill(&mut self, out: &mut [u8]) -> bool {
        for byte in out {
            self.0 = self.0.wrapping_mul(37).wrapping_add(11);
            *byte = self.0;
        }
        true
    }
}

struct Book;

impl Accounts for Book {
    fn guid(&self) -> [u8; 16] {
        [0x42; 16]
    }

    fn account(&self, user: &[u8]) -> Option<Account> {
        let privilege = match user {
            b"admin" => Privilege::Administrator,
            b"op" => Privilege::Operator,
            _ => return None,
        };
        Some(Account {
            password: Secret::new(b"password").unwrap(),
            privilege,
        })
    }
}

/// A console, a BMC, and a wire that loses the datagrams whose numbers are listed.
struct Wire {
    session: Session<Counted>,
    server: Server<Counted>,
    now: Duration,
    lost: Vec<usize>,
    carried: usize,
    resets: usize,
    said: Vec<Said>,
    typed: Vec<u8>,
}

const CONSOLE: &str = "192.0.2.1:40000";

impl Wire {
    fn new(user: &str, password: &[u8], suite: CipherSuite) -> Self {
        let config = Config {
            user: user.to_owned(),
            password: Secret::new(password).unwrap(),
            suite,
            privilege: Privilege::Administrator,
            retry: Duration::from_secs(1),
            tries: 4,
        };
        Self {
            session: Session::new(config, Counted(1)),
            server: Server::new(Counted(99), 623),
            now: Duration::ZERO,
            lost: Vec::new(),
            carried: 0,
            resets: 0,
            said: Vec::new(),
            typed: Vec::new(),
        }
    }

    fn arrives(&mut self) -> bool {
        self.carried += 1;
        !self.lost.contains(&self.carried)
    }

    fn carry_to_server(&mut self, datagram: &[u8]) {
        let from: SocketAddr = CONSOLE.parse().unwrap();
        let mut done = Vec::new();
        self.server.input(self.now, from, datagram, &Book, &mut done);
        self.carry_out(done);
    }

    fn carry_out(&mut self, mut done: Vec<Done>) {
        while !done.is_empty() {
            let mut more = Vec::new();
            for output in done {
                match output {
                    Done::Send { datagram, .. } => {
                        if self.arrives() {
                            self.session.input(&datagram, self.now);
                        }
                    }
                    Done::Execute {
                        ticket,
                        request,
                        privilege,
                    } => {
                        assert_eq!(privilege, Privilege::Administrator);
                        let answer = self.execute(&request);
                        self.server.answer(ticket, answer, &mut more);
                    }
                    Done::SolInput(arrived) => {
                        self.typed.extend(&arrived.data);
                        self.server.sol_write(self.now, &arrived.data, &mut more);
                    }
                    Done::SolOpened | Done::SolClosed => {}
                }
            }
            done = more;
        }
    }

    fn execute(&mut self, request: &Request) -> Response {
        if *request == ChassisControl::HardReset.request() {
            self.resets += 1;
        }
        request.answer(
            Completion::OK,
            ChassisStatus {
                on: true,
                ..ChassisStatus::default()
            }
            .encode(),
        )
    }

    /// Runs until nothing is left to send and, when `patient`, no deadline is left.
    fn run(&mut self) {
        for _ in 0..1000 {
            match self.session.output() {
                Some(Said::Send(datagram)) => {
                    if self.arrives() {
                        self.carry_to_server(&datagram);
                    }
                }
                Some(other) => self.said.push(other),
                None => match self.session.deadline() {
                    Some(deadline) => {
                        self.now = self.now.max(deadline);
                        self.session.timeout(self.now);
                        let mut done = Vec::new();
                        self.server.tick(self.now, &mut done);
                        self.carry_out(done);
                    }
                    None => return,
                },
            }
        }
        panic!("never comes to rest; said so far {:?}", self.said);
    }

    fn login(mut self) -> Self {
        self.session.start(self.now);
        self.run();
        self
    }

    fn ask(&mut self, request: Request) -> Vec<Said> {
        self.session.request(request, self.now).unwrap();
        self.said.clear();
        self.run();
        std::mem::take(&mut self.said)
    }
}

#[test]
fn logs_in_and_asks_with_both_suites() {
    for suite in [CipherSuite::Three, CipherSuite::Seventeen] {
        let mut wire = Wire::new("admin", b"password", suite).login();
        assert_eq!(wire.said, [Said::Ready]);
        let said = wire.ask(ChassisStatus::request());
        let [Said::Answer(response)] = said.as_slice() else {
            panic!("{said:?}")
        };
        assert!(ChassisStatus::decode(&response.data).unwrap().on);
        assert_eq!(wire.server.sessions(), 1);
        wire.session.close();
        wire.run();
        assert_eq!(wire.server.sessions(), 0, "the slot is given back");
    }
}

#[test]
fn says_why_it_was_not_let_in() {
    let wrong = Wire::new("admin", b"passw0rd", CipherSuite::Seventeen).login();
    assert_eq!(wrong.said, [Said::Failed(Failure::WrongPassword)]);
    assert_eq!(wrong.server.sessions(), 0);
    let nobody = Wire::new("nobody", b"password", CipherSuite::Three).login();
    let refused = |status| {
        [Said::Failed(Failure::Refused {
            during: "RAKP message 1",
            status,
        })]
    };
    assert_eq!(nobody.said, refused(Status::UNAUTHORIZED_NAME));
    let operator = Wire::new("op", b"password", CipherSuite::Three).login();
    assert_eq!(operator.said, refused(Status::UNAUTHORIZED_ROLE));
    let mut deaf = Wire::new("admin", b"password", CipherSuite::Three);
    deaf.lost = (1..100).collect();
    let deaf = deaf.login();
    assert_eq!(deaf.said, [Said::Failed(Failure::Silent { during: "open session" })]);
    assert_eq!(deaf.now, Duration::from_secs(4));
}

#[test]
fn a_lost_answer_does_not_reset_twice() {
    let mut wire = Wire::new("admin", b"password", CipherSuite::Seventeen).login();
    // The request arrives, its answer does not, twice.
    wire.lost = vec![wire.carried + 2, wire.carried + 4];
    let said = wire.ask(ChassisControl::HardReset.request());
    assert!(
        matches!(said.as_slice(), [Said::Answer(r)] if r.completion == Completion::OK),
        "{said:?}"
    );
    assert_eq!(wire.resets, 1);
}

#[test]
fn a_recorded_packet_is_not_taken_again() {
    let mut wire = Wire::new("admin", b"password", CipherSuite::Seventeen).login();
    wire.session
        .request(ChassisControl::HardReset.request(), wire.now)
        .unwrap();
    let Some(Said::Send(datagram)) = wire.session.output() else {
        panic!("no request")
    };
    for _ in 0..3 {
        wire.carry_to_server(&datagram);
    }
    assert_eq!(wire.resets, 1);
}

#[test]
fn the_console_echoes() {
    let mut wire = Wire::new("admin", b"password", CipherSuite::Seventeen).login();
    let said = wire.ask(payload::activate_sol());
    let [Said::Answer(response)] = said.as_slice() else {
        panic!("{said:?}")
    };
    let activated = payload::SolActivated::decode(&response.data).unwrap();
    wire.session.sol_begin(activated.characters());
    wire.session.sol_write(b"root\r", wire.now);
    wire.run();
    assert_eq!(wire.typed, b"root\r");
    let heard: Vec<u8> = wire
        .said
        .iter()
        .flat_map(|s| {
            if let Said::Sol(a) = s {
                a.data.clone()
            } else {
                Vec::new()
            }
        })
        .collect();
    assert_eq!(heard, b"root\r");
}

#[test]
fn is_found_without_a_password() {
    let mut server = Server::new(Counted(3), 623);
    let mut done = Vec::new();
    for probe in probes() {
        server.input(Duration::ZERO, CONSOLE.parse().unwrap(), &probe, &Book, &mut done);
    }
    let found: Vec<_> = done
        .iter()
        .map(|d| {
            if let Done::Send { datagram, .. } = d {
                presence(datagram)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(found[0], Some(Presence::Pong { ipmi: true }));
    assert!(matches!(found[1], Some(Presence::Logins(l)) if l.rmcp_plus && !l.anonymous));
}

#[test]
fn idle_sessions_and_unfinished_logins_end() {
    let mut wire = Wire::new("admin", b"password", CipherSuite::Three).login();
    wire.server.tick(wire.now + Duration::from_secs(61), &mut Vec::new());
    assert_eq!(wire.server.sessions(), 0);
    assert_eq!(wire.ask(ChassisStatus::request()), [Said::Unanswered]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any few losses delay a login, none breaks it or the request after it.
    #[test]
    fn single_losses_are_made_good(lost in 1usize..9) {
        let mut wire = Wire::new("admin", b"password", CipherSuite::Seventeen);
        wire.lost = vec![lost];
        let mut wire = wire.login();
        // RAKP 4 lost: the BMC has moved on and says so; the caller logs in anew.
        if wire.said == [Said::Ready] {
            let said = wire.ask(ChassisStatus::request());
            prop_assert!(matches!(said.as_slice(), [Said::Answer(_)]));
        } else {
            prop_assert_eq!(lost, 6, "{:?}", wire.said);
        }
    }

    #[test]
    fn strangers_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..120), kind: u8) {
        let mut wire = Wire::new("admin", b"password", CipherSuite::Seventeen).login();
        let mut datagram = vec![6, 0, 255, 7, 6, kind];
        datagram.extend(bytes);
        wire.carry_to_server(&datagram);
        wire.session.input(&datagram, wire.now);
        let said = wire.ask(ChassisStatus::request());
        prop_assert!(matches!(said.as_slice(), [Said::Answer(_)]));
    }
}
