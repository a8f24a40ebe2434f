//! The DHCP engine under a shell of channels: the packets are real, the wire is not.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use rackbar_dhcp::{Config, Engine, Input, InterfaceId, Mode, Network, Output, Range};
use rackbar_model::{Lease, Timestamp};
use rackbar_orchestrator::Rack;
use rackbar_services::{EventSink as _, LeaseLog as _};
use tokio::sync::oneshot;

use super::OWN;
use crate::dhcp::{reply, request};

/// The relay that machines are behind.
const RELAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 88, 0, 2), 67);

/// Packets taken in one go: one commit for the leases of all.
const BATCH: usize = 256;

/// A packet of a machine, and where its answer goes.
struct Asked {
    id: u32,
    packet: Vec<u8>,
    answer: oneshot::Sender<Answer>,
}

/// Kind of message, address and server.
type Answer = (u8, [u8; 4], [u8; 4]);

/// The wire to the engine.
pub(super) struct Dhcp(Sender<Asked>);

pub(super) fn start(rack: Rack) -> Result<Dhcp> {
    let pool = Range {
        first: [10, 88, 16, 0].into(),
        last: [10, 88, 255, 254].into(),
    };
    let network = Network {
        mode: Mode::Own,
        ..Network::new("rack", None, OWN, 16, pool)
    };
    let config = Config {
        networks: vec![network],
        ..Config::default()
    };
    let (send, receive) = std::sync::mpsc::channel();
    let engine = Engine::new(config, []);
    std::thread::Builder::new()
        .name("dhcp".into())
        .spawn(move || run(engine, &rack, &receive))?;
    Ok(Dhcp(send))
}

impl Dhcp {
    /// DISCOVER, OFFER, REQUEST, ACK; the address.
    pub(super) async fn lease(&self, id: u32) -> Result<Ipv4Addr> {
        let (_, address, server) = self.ask(id, None).await?;
        let (kind, given, _) = self.ask(id, Some((address, server))).await?;
        anyhow::ensure!(kind == 5, "DHCP message {kind} in place of an acknowledgement");
        Ok(given.into())
    }

    async fn ask(&self, id: u32, chosen: Option<([u8; 4], [u8; 4])>) -> Result<Answer> {
        let (answer, heard) = oneshot::channel();
        let packet = request(id, 3, chosen);
        self.0
            .send(Asked { id, packet, answer })
            .ok()
            .context("the DHCP engine has ended")?;
        heard.await.context("no answer to a DHCP packet")
    }
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

fn run(mut engine: Engine, rack: &Rack, receive: &Receiver<Asked>) {
    let mut waiting: HashMap<u32, oneshot::Sender<Answer>> = HashMap::new();
    loop {
        let mut out = Vec::new();
        match receive.recv_timeout(Duration::from_millis(50)) {
            Ok(first) => {
                for asked in std::iter::once(first).chain(receive.try_iter().take(BATCH)) {
                    let input = Input::Packet {
                        interface: InterfaceId(2),
                        source: RELAY,
                        local_port: 67,
                        bytes: &asked.packet,
                    };
                    engine.handle(now(), input, &mut out);
                    waiting.insert(asked.id, asked.answer);
                }
            }
            Err(RecvTimeoutError::Timeout) => engine.handle(now(), Input::Tick, &mut out),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let leases: Vec<Lease> = out.iter().filter_map(lease).collect();
        // Answers wait for the disk, as in the service.
        if !leases.is_empty() && rack.commit(&leases).is_err() {
            continue;
        }
        for output in out {
            match output {
                Output::Learnt { mac, habit } => rack.record_firmware(mac, habit.as_ref()),
                Output::Event { mac, kind } => rack.event(mac, kind),
                Output::Send { bytes, .. } => {
                    if let Some((id, kind, address, server)) = reply(&bytes)
                        && let Some(answer) = waiting.remove(&id)
                    {
                        let _ = answer.send((kind, address, server));
                    }
                }
                Output::Commit(_) | Output::Probe { .. } => {}
            }
        }
    }
}

fn lease(output: &Output) -> Option<Lease> {
    match output {
        Output::Commit(lease) => Some(lease.clone()),
        _ => None,
    }
}
