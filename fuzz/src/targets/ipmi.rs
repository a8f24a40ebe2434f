//! What BMCs, and strangers in their place, send over IPMI; and what consoles send to our simulated BMC.

use std::net::SocketAddr;
use std::time::Duration;

use rackbar_ipmi::client::{Config, Session, presence};
use rackbar_ipmi::command::{chassis, device, lan, payload, sel, sensor, storage, user};
use rackbar_ipmi::rakp::{OpenRequest, OpenResponse, Rakp1, Rakp2, RakpProof};
use rackbar_ipmi::server::{Account, Accounts, Server};
use rackbar_ipmi::sol::SolPacket;
use rackbar_ipmi::{CipherSuite, Entropy, LanMessage, Packet, Privilege, Request, Response, Secret, rmcp};

use crate::pieces::pieces;

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

struct Book(Secret);

impl Accounts for Book {
    fn guid(&self) -> [u8; 16] {
        [0x42; 16]
    }

    fn account(&self, user: &[u8]) -> Option<Account> {
        (user == b"admin").then(|| Account {
            password: self.0.clone(),
            privilege: Privilege::Administrator,
        })
    }
}

pub(super) fn packet(data: &[u8]) {
    let _ = presence(data);
    let Ok((_, body)) = rmcp::open(data) else { return };
    let _ = (rmcp::asf(body), Packet::parse(body), LanMessage::decode(body));
}

pub(super) fn commands(data: &[u8]) {
    let _ = (
        Request::from_kcs(data),
        Response::from_kcs(data),
        SolPacket::decode(data),
    );
    let _ = (
        OpenRequest::decode(data),
        OpenResponse::decode(data),
        Rakp1::decode(data),
    );
    let _ = (Rakp2::decode(data), RakpProof::decode(data), device::decode_guid(data));
    let _ = (chassis::ChassisStatus::decode(data), chassis::BootFlags::decode(data));
    let _ = (
        chassis::ChassisControl::decode(data),
        chassis::BootFlags::decode_answer(data),
    );
    let _ = (user::decode_name(data), user::SetPassword::decode(data));
    let _ = (user::AuthCapabilities::decode(data), user::ChannelInfo::decode(data));
    let _ = (user::UserAccess::decode(data), device::DeviceId::decode(data));
    let _ = storage::RepositoryInfo::decode(data);
    let _ = payload::SolActivated::decode(data);
    if let Some((selector, rest)) = data.split_first() {
        let _ = (
            lan::LanParameter::decode(*selector, rest),
            lan::LanParameter::decode_answer(*selector, rest),
        );
    }
}

/// Sensors, their readings and the event log, as a BMC tells them.
pub(super) fn records(data: &[u8]) {
    let _ = (
        sensor::SdrPart::decode(data),
        sensor::Reading::decode(data),
        sel::decode_time(data),
    );
    if let Ok(Some(record)) = sensor::SensorRecord::decode(data) {
        let _ = record.symbol();
        let Some(scale) = record.scale else { return };
        assert!((0..=u8::MAX).all(|raw| scale.convert(raw).is_finite()), "{scale:?}");
    }
    if let Ok(entry) = sel::SelEntry::decode(data) {
        let _ = (entry.ended(), entry.severity());
        assert!(!entry.words().is_empty(), "{entry:?} has no words");
    }
}

/// Datagrams to the simulated BMC, with waits between.
pub(super) fn server(data: &[u8]) {
    let Some(password) = Secret::new(b"password") else {
        return;
    };
    let mut server = Server::new(Counted(1), 623);
    let from = SocketAddr::from(([10, 0, 0, 9], 40_000));
    let (mut now, mut out) = (Duration::ZERO, Vec::new());
    for piece in pieces(data) {
        let Some((wait, bytes)) = piece.split_first() else {
            continue;
        };
        now += Duration::from_millis(u64::from(*wait) * 100);
        server.input(now, from, bytes, &Book(password.clone()), &mut out);
        server.tick(now, &mut out);
        out.clear();
    }
}

/// Answers to a console that logs in, with waits between.
pub(super) fn client(data: &[u8]) {
    let Some(password) = Secret::new(b"password") else {
        return;
    };
    let config = Config {
        user: "admin".into(),
        password,
        suite: CipherSuite::Three,
        privilege: Privilege::Administrator,
        retry: Duration::from_secs(1),
        tries: 4,
    };
    let mut session = Session::new(config, Counted(1));
    let mut now = Duration::ZERO;
    session.start(now);
    for piece in pieces(data) {
        let Some((wait, bytes)) = piece.split_first() else {
            continue;
        };
        now += Duration::from_millis(u64::from(*wait) * 10);
        session.input(bytes, now);
        session.timeout(now);
        while session.output().is_some() {}
    }
}
