//! Serial over LAN (section 15): a machine's serial console, live, over a session of its own.
//!
//! A task carries characters both ways until the stream is dropped or closed, the BMC ends it, or it falls silent.

use std::time::Duration;

use rackbar_ipmi::client::{Output, Session};
use rackbar_ipmi::command::device::DeviceId;
use rackbar_ipmi::command::payload::{self, SolActivated};
use rackbar_ipmi::{Completion, OsEntropy, Request};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::Interface;
use crate::error::{Cause, Error};
use crate::ipmi::Ipmi;

/// BMCs end a session after 60 s without a request (section 6.12.15); characters alone do not count on all of them.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long the end of a console may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// Pieces that may wait for a slow reader; then the BMC has to wait too.
const WAITING: usize = 64;

/// A serial console. Dropping it gives it back to the BMC.
#[derive(Debug)]
pub struct SolStream {
    output: mpsc::Receiver<Vec<u8>>,
    input: Option<mpsc::Sender<Vec<u8>>>,
    over: Option<tokio::task::JoinHandle<()>>,
}

impl SolStream {
    /// The next characters; nothing when the console ended.
    pub async fn read(&mut self) -> Option<Vec<u8>> {
        self.output.recv().await
    }

    /// Types characters; `false` when the console ended.
    pub async fn write(&self, bytes: &[u8]) -> bool {
        match &self.input {
            Some(input) => input.send(bytes.to_vec()).await.is_ok(),
            None => false,
        }
    }

    /// Gives the console back and waits until the BMC was told.
    pub async fn close(mut self) {
        self.input = None;
        self.output.close();
        if let Some(over) = self.over.take() {
            // A task that was cancelled with its runtime has nothing left to tell.
            let _ended = timeout(GOODBYE * 2, over).await;
        }
    }
}

struct Line {
    socket: UdpSocket,
    session: Session<OsEntropy>,
    origin: Instant,
}

/// Opens the console. One that another session left open, or forgot, is taken over: BMCs have one.
pub(crate) async fn open(ipmi: Ipmi) -> Result<SolStream, Error> {
    let address = ipmi.ip();
    let error = |request: &str, cause| Error {
        address,
        interface: Interface::Ipmi,
        request: request.to_owned(),
        cause,
    };
    let (socket, session, origin) = ipmi.take_live().await?;
    let mut line = Line {
        socket,
        session,
        origin,
    };
    let name = "Activate Payload";
    let mut answer = line.ask(payload::activate_sol()).await;
    if matches!(&answer, Some((code, _)) if *code == payload::ALREADY_ACTIVE) {
        line.ask(payload::deactivate_sol()).await;
        answer = line.ask(payload::activate_sol()).await;
    }
    let data = match answer {
        Some((Completion::OK, data)) => data,
        Some((code, _)) => {
            line.hang_up().await;
            let cause = match code {
                Completion::INVALID_COMMAND => Cause::Unsupported("serial over LAN".to_owned()),
                Completion(0x81) => Cause::Refused {
                    code: 0x81,
                    message: "serial over LAN is switched off on this BMC".to_owned(),
                },
                code => Cause::Refused {
                    code: u16::from(code.0),
                    message: code.meaning().to_owned(),
                },
            };
            return Err(error(name, cause));
        }
        None => return Err(error(name, Cause::Unreachable("no answer".to_owned()))),
    };
    let activated = SolActivated::decode(&data).map_err(|bad| error(name, Cause::Malformed(bad.to_string())))?;
    line.session.sol_begin(activated.characters());
    let (printed, output) = mpsc::channel(WAITING);
    let (input, typed) = mpsc::channel(WAITING);
    let over = tokio::spawn(line.carry(printed, typed));
    Ok(SolStream {
        output,
        input: Some(input),
        over: Some(over),
    })
}

impl Line {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// One request and its answer, before or after characters flow.
    async fn ask(&mut self, request: Request) -> Option<(Completion, Vec<u8>)> {
        self.session.request(request, self.now()).ok()?;
        loop {
            match self.step().await? {
                Output::Answer(response) => return Some((response.completion, response.data)),
                Output::Unanswered | Output::Failed(_) => return None,
                Output::Ready | Output::Send(_) | Output::Sol(_) => {}
            }
        }
    }

    /// The next thing the session says; nothing when it has nothing to wait for.
    async fn step(&mut self) -> Option<Output> {
        loop {
            while let Some(output) = self.session.output() {
                match output {
                    // Lost datagrams are repeated by the session.
                    Output::Send(bytes) => drop(self.socket.send(&bytes).await),
                    said => return Some(said),
                }
            }
            let deadline = self.origin + self.session.deadline()?;
            self.wait(deadline).await;
        }
    }

    async fn wait(&mut self, deadline: Instant) {
        let mut datagram = [0; 2048];
        tokio::select! {
            received = self.socket.recv(&mut datagram) => match received {
                Ok(length) => self.session.input(datagram.get(..length).unwrap_or_default(), self.now()),
                Err(_) => sleep_until(deadline).await,
            },
            () = sleep_until(deadline) => {}
        }
        self.session.timeout(self.now());
    }

    /// Carries characters until one end has enough.
    async fn carry(mut self, printed: mpsc::Sender<Vec<u8>>, mut typed: mpsc::Receiver<Vec<u8>>) {
        let mut alive = Instant::now() + KEEP_ALIVE;
        let mut datagram = vec![0; 2048];
        let mut pause = Instant::now();
        loop {
            while let Some(output) = self.session.output() {
                match output {
                    Output::Send(bytes) => drop(self.socket.send(&bytes).await),
                    Output::Sol(arrived) => {
                        if !arrived.data.is_empty() && printed.send(arrived.data).await.is_err() {
                            return self.end().await;
                        }
                    }
                    Output::Answer(_) | Output::Ready => {}
                    Output::Unanswered | Output::Failed(_) => return,
                }
            }
            let due = self
                .session
                .deadline()
                .map_or(alive, |deadline| alive.min(self.origin + deadline));
            tokio::select! {
                received = self.socket.recv(&mut datagram), if pause <= Instant::now() => match received {
                    Ok(length) => self.session.input(datagram.get(..length).unwrap_or_default(), self.now()),
                    // "Connection refused" by ICMP: the BMC restarts. The keep-alive finds out whether it comes back.
                    Err(_) => pause = Instant::now() + Duration::from_millis(500),
                },
                keys = typed.recv() => match keys {
                    Some(keys) => self.session.sol_write(&keys, self.now()),
                    None => return self.end().await,
                },
                () = printed.closed() => return self.end().await,
                () = sleep_until(due.max(Instant::now())) => {}
                () = sleep_until(pause), if pause > Instant::now() => {}
            }
            self.session.timeout(self.now());
            if Instant::now() >= alive {
                alive = Instant::now() + KEEP_ALIVE;
                // Not ready: an earlier one still waits for its answer.
                let _asked = self.session.request(DeviceId::request(), self.now());
            }
        }
    }

    /// Gives the session back, and with it the console (section 24.2). No Deactivate Payload: BMCs take that for the
    /// console of whoever has it now, and another session may have taken it over meanwhile.
    async fn end(mut self) {
        self.hang_up().await;
    }

    async fn hang_up(&mut self) {
        self.session.close();
        while let Some(output) = self.session.output() {
            if let Output::Send(bytes) = output {
                let _told = self.socket.send(&bytes).await;
            }
        }
    }
}
