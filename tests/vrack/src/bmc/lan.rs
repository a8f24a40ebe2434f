//! IPMI over LAN: a UDP port around the server machine of `rackbar-ipmi`, with the machine's serial port on the console.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rackbar_ipmi::server::{Output, Server, Ticket};
use rackbar_ipmi::{OsEntropy, Response};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until};

use super::commands;
use super::state::BmcState;
use crate::host;

/// Where datagrams come from: a host on the simulated network, or the kernel's loopback in tests.
pub(super) enum Wire {
    Host(host::UdpSocket),
    Kernel(tokio::net::UdpSocket),
}

impl Wire {
    fn port(&self) -> u16 {
        match self {
            Self::Host(_) => rackbar_ipmi::PORT,
            Self::Kernel(socket) => socket.local_addr().map_or(rackbar_ipmi::PORT, |address| address.port()),
        }
    }

    async fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Self::Host(socket) => socket.recv_from(into).await,
            Self::Kernel(socket) => socket.recv_from(into).await,
        }
    }

    async fn send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<()> {
        match (self, to) {
            (Self::Host(socket), SocketAddr::V4(to)) => socket.send_to(data, to).await,
            (Self::Host(_), SocketAddr::V6(_)) => Ok(()),
            (Self::Kernel(socket), to) => socket.send_to(data, to).await.map(drop),
        }
    }
}

struct Face {
    state: Arc<BmcState>,
    wire: Wire,
    origin: Instant,
    server: Server<OsEntropy>,
    console: Option<broadcast::Receiver<Arc<[u8]>>>,
    answers: mpsc::UnboundedSender<(Ticket, Response)>,
}

/// Answers on a port until dropped.
pub(super) async fn run(state: Arc<BmcState>, wire: Wire) {
    let (answers, mut answered) = mpsc::unbounded_channel();
    let server = Server::new(OsEntropy, wire.port());
    let mut face = Face {
        state,
        wire,
        origin: Instant::now(),
        server,
        console: None,
        answers,
    };
    let mut datagram = vec![0; 4096];
    loop {
        let mut out = Vec::new();
        let idle = Instant::now() + std::time::Duration::from_secs(3600);
        let deadline = face.server.deadline().map_or(idle, |deadline| face.origin + deadline);
        tokio::select! {
            received = face.wire.recv_from(&mut datagram) => match received {
                Ok((length, from)) if !face.state.faults().is_deaf() => {
                    let bytes = datagram.get(..length).unwrap_or_default();
                    face.server.input(face.origin.elapsed(), from, bytes, face.state.as_ref(), &mut out);
                }
                // Deaf; or the echo of an answer nobody took.
                _ => {}
            },
            Some((ticket, response)) = answered.recv() => face.server.answer(ticket, response, &mut out),
            printed = printed(&mut face.console) => face.server.sol_write(face.origin.elapsed(), &printed, &mut out),
            () = sleep_until(deadline) => face.server.tick(face.origin.elapsed(), &mut out),
        }
        face.carry_out(out).await;
    }
}

/// The next characters of the console; waits for ever without one.
async fn printed(console: &mut Option<broadcast::Receiver<Arc<[u8]>>>) -> Arc<[u8]> {
    loop {
        match console {
            Some(receiver) => match receiver.recv().await {
                Ok(bytes) => return bytes,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => *console = None,
            },
            None => std::future::pending().await,
        }
    }
}

impl Face {
    async fn carry_out(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send { to, datagram } => {
                    // As on any network, an answer may be lost.
                    let _sent = self.wire.send_to(&datagram, to).await;
                }
                Output::Execute {
                    ticket,
                    privilege,
                    request,
                } => {
                    let (state, answers) = (Arc::clone(&self.state), self.answers.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(state.faults().slow).await;
                        let response = commands::execute(&state, privilege, &request).await;
                        // Nobody is there when the BMC was stopped meanwhile.
                        let _gone = answers.send((ticket, response));
                    });
                }
                Output::SolOpened => self.console = Some(self.state.console.attach().1),
                Output::SolInput(arrived) => self.state.console.write(&arrived.data),
                Output::SolClosed => self.console = None,
            }
        }
    }
}
