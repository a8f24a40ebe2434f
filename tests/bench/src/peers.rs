//! Servers side by side that take turns: in each round one is measured after the other, so that what else the machine does
//! meets all of them alike.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::net::Net;
use crate::process::Server;
use crate::report::{OURS, Row, median};

/// A server that can be started.
pub(crate) struct Start {
    /// Whose it is.
    pub(crate) name: &'static str,
    /// Where it listens.
    pub(crate) at: &'static str,
    /// What starts it.
    pub(crate) command: Command,
}

impl Start {
    /// Our own service of that name.
    pub(crate) fn ours(net: &Net, service: &str, at: &'static str) -> Result<Self> {
        let mut command = net.server_command(&std::env::current_exe()?.to_string_lossy());
        command.args(["--serve", service]).arg(net.folder());
        Ok(Self {
            name: OURS,
            at,
            command,
        })
    }
}

/// A server that runs, and what was seen of it.
pub(crate) struct Peer<S> {
    pub(crate) name: &'static str,
    pub(crate) at: &'static str,
    pub(crate) server: Server,
    pub(crate) seen: S,
}

/// Starts all; each is ready once `answers` says so of its address.
pub(crate) fn start<S: Default>(starts: Vec<Start>, answers: impl Fn(&str) -> bool) -> Result<Vec<Peer<S>>> {
    let one = |start: Start| {
        Ok(Peer {
            name: start.name,
            at: start.at,
            server: Server::start(start.command, || answers(start.at))?,
            seen: S::default(),
        })
    };
    starts.into_iter().map(one).collect()
}

/// Lets all take turns, each time another one first.
pub(crate) fn take_turns<S>(
    what: &str,
    peers: &mut [Peer<S>],
    rounds: usize,
    mut turn: impl FnMut(&mut Peer<S>, usize) -> Result<()>,
) -> Result<()> {
    for round in 0..rounds {
        eprintln!("bench: {what}, round {} of {rounds}", round + 1);
        for peer in peers.iter_mut() {
            let name = peer.name;
            turn(peer, round).with_context(|| format!("{what}, {name}, round {}", round + 1))?;
        }
        peers.rotate_left(1);
    }
    // Ours is the one that others are compared with.
    peers.sort_by_key(|peer| peer.name != OURS);
    Ok(())
}

/// One kind of load: its rates by round, and processor time and amount over all rounds.
#[derive(Default)]
pub(crate) struct Load {
    rates: Vec<f64>,
    cpu: f64,
    amount: f64,
}

impl Load {
    /// Measures `work`, which says how much it got done.
    pub(crate) fn measure(&mut self, server: &Server, work: impl FnOnce() -> Result<f64>) -> Result<()> {
        let (before, began) = (server.cpu(), Instant::now());
        let amount = work()?;
        self.add(amount, began.elapsed(), server.cpu().saturating_sub(before));
        Ok(())
    }

    fn add(&mut self, amount: f64, time: Duration, cpu: Duration) {
        self.rates.push(amount / time.as_secs_f64().max(1e-9));
        self.cpu += cpu.as_secs_f64();
        self.amount += amount;
    }

    /// Amount a second, of the round in the middle.
    pub(crate) fn rate(&self) -> f64 {
        median(self.rates.iter().copied())
    }

    /// Processor time for one unit of the amount, in seconds times `scale`.
    pub(crate) fn cpu_each(&self, scale: f64) -> f64 {
        self.cpu * scale / self.amount.max(1e-9)
    }
}

/// What is seen of a server that answers datagrams.
#[derive(Default)]
pub(crate) struct Answers {
    /// Its memory before the load, in MiB.
    pub(crate) idle: f64,
    pub(crate) load: Load,
}

/// Rate, processor time and memory of servers that answer datagrams.
pub(crate) fn rows(what: &str, peers: &[Peer<Answers>]) -> Vec<Row> {
    let rows = |peer: &Peer<Answers>| {
        let (name, seen) = (peer.name, &peer.seen);
        [
            Row::more(format!("{what} answers"), name, seen.load.rate(), "1/s"),
            Row::less(format!("{what} processor time"), name, seen.load.cpu_each(1e6), "us"),
            Row::less(format!("{what} memory idle"), name, seen.idle, "MiB"),
            Row::less(
                format!("{what} memory after the load"),
                name,
                peer.server.memory_mib(),
                "MiB",
            ),
        ]
    };
    peers.iter().flat_map(rows).collect()
}
