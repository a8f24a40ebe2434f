//! Booting over the network: find a way to the boot server, fetch the signed manifest and what it names, start it.
//!
//! Every interface with a link is tried, the one the firmware booted from first; then all again after a pause.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::time::Duration;

use rackbar_boot::{key_in_slot, verify_manifest};
use rackbar_loader::fetch::{Client, FetchError};
use rackbar_loader::medium::ranked;
use rackbar_loader::server::Server;
use rackbar_loader::{command_line, http, payload, progress};
use rackbar_messages::{BootFile, BootFileRole, BootManifest, BootReport, PROTOCOL_VERSION};
use rackbar_model::{BootStage, MacAddr};
use uefi::{Handle, boot, print, println};

use super::End;
use super::clock::Clock;
use super::find::{self, Hint};
use super::machine::Machine;
use super::medium;
use super::net::{Addresses, Stack};
use super::nic::Nic;
use super::random::Random;
use super::start::{self, Kernel};

const TRIES: u32 = 5;
/// Largest manifest in bytes. A real one has about one thousand.
const MAX_MANIFEST: usize = 64 << 10;
/// How long the link of the interface that the firmware booted from may take to come back after it was started anew.
const LINK_MILLIS: u64 = 8_000;
/// A report that does not get through must not hold the boot up.
const REPORT_PATIENCE_MILLIS: u64 = 1_500;
/// Why it failed is worth more than the seconds: nobody may be in front of the screen that says it.
const FAILURE_PATIENCE_MILLIS: u64 = 5_000;
const PATIENCE_MILLIS: u64 = 15_000;

/// Why one way did not lead to a boot. How far it came decides which of several reasons is told.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Failure {
    Link(String),
    Address(String),
    Server(String),
    Boot(String),
}

impl Failure {
    fn words(&self) -> &str {
        match self {
            Self::Link(words) | Self::Address(words) | Self::Server(words) | Self::Boot(words) => words,
        }
    }
}

/// What all tries share.
struct Netboot<'a> {
    machine: &'a Machine,
    key: [u8; 32],
    hints: Vec<Hint>,
    /// Named by the medium that we were started from.
    medium: Vec<Server>,
    clock: Clock,
    random: Random,
    /// How long each interface may wait for an address. Short at first, because a server has many and only one of them
    /// leads to us; long later, because spanning tree blocks a port for 30 s after its link came up.
    address_millis: u64,
}

/// Boots over the network, or says why not.
pub(super) fn boot(machine: &Machine, slot: &[u8]) -> Result<End, String> {
    let named = || command_line::key(machine.load_options.as_deref().unwrap_or_default());
    let key = key_in_slot(slot).or_else(named).ok_or(
        "this loader knows no site key, so it could not tell its appliance from a stranger. Let the machine fetch the \
         loader from its appliance, which writes the key in, or put rackbar.key=<64 hex digits> into the boot entry",
    )?;
    let medium = medium::named(machine);
    // What the firmware keeps of a boot by network is then of an earlier try that came to nothing.
    let hints = if medium.is_empty() {
        find::hints(machine)
    } else {
        Vec::new()
    };
    let mut netboot = Netboot {
        machine,
        key,
        hints,
        medium,
        clock: Clock::new(),
        random: Random::new(),
        address_millis: 4_000,
    };
    let mut reason = String::new();
    for attempt in 1..=TRIES {
        match netboot.every_interface() {
            Ok(end) => {
                netboot.give_back();
                return Ok(end);
            }
            Err(failure) => reason = failure.words().to_string(),
        }
        netboot.address_millis = (netboot.address_millis * 2).min(16_000);
        if attempt < TRIES {
            let pause = Duration::from_secs(1 << attempt);
            println!("Rackbar: try {attempt} of {TRIES} failed: {reason}");
            println!("Rackbar: again in {} s", pause.as_secs());
            boot::stall(pause);
        }
    }
    netboot.give_back();
    Err(reason)
}

impl Netboot<'_> {
    /// The firmware goes on with its boot order and needs its own network stack again.
    fn give_back(&self) {
        for handle in find::interfaces(&self.hints) {
            let _ = boot::connect_controller(handle, &[], None, true);
        }
    }

    fn every_interface(&mut self) -> Result<End, Failure> {
        let mut furthest = Failure::Link("no network interface was found by the firmware".into());
        for handle in find::interfaces(&self.hints) {
            match self.interface(handle) {
                Ok(end) => return Ok(end),
                Err(failure) => furthest = furthest.max(failure),
            }
        }
        Err(furthest)
    }

    fn interface(&mut self, handle: Handle) -> Result<End, Failure> {
        let nic = Nic::open(handle, self.clock)
            .map_err(|error| Failure::Link(format!("the firmware does not let us use a network interface: {error}")))?;
        let mac = nic.mac();
        let mut stack = Stack::new(nic, self.clock, self.random.clone());
        // Each interface its own sequence of numbers.
        self.random.bytes();
        let hint = self.hints.iter().find(|hint| hint.mac == mac);
        let patience = if hint.is_some() {
            LINK_MILLIS
        } else {
            self.address_millis / 2
        };
        self.wait_for_link(&mut stack, patience)?;
        let hinted = hint.map(|hint| (hint.server, hint.source, hint.addresses));
        if let Some((server, source, Some(addresses))) = hinted {
            println!("Rackbar: {mac} has {addresses}, boot server {server} (both from {source})");
            stack.configure(addresses);
            match self.server(stack, server) {
                Err(Failure::Server(words)) => println!("Rackbar: {words}; asking for an address anew"),
                done => return done,
            }
            let nic = Nic::open(handle, self.clock).map_err(|error| Failure::Link(error.to_string()))?;
            stack = Stack::new(nic, self.clock, self.random.clone());
        }
        println!("Rackbar: {mac} asks for an address");
        let (addresses, words) = stack.ask_for_address(self.address_millis).map_err(Failure::Address)?;
        // A URL is meant for us and newer than what the firmware remembers; a mere `siaddr` may be anybody's.
        let named = words.boot_file.as_deref().and_then(|url| Server::from_url(url).ok());
        let said = named.or(hinted.map(|(server, ..)| server));
        let mut servers = ranked(&self.medium, said, addresses.address, addresses.prefix);
        if servers.is_empty() {
            servers.extend(Server::from_packets([&words]));
        }
        self.first_to_answer(handle, stack, addresses, &servers)
    }

    /// Boots from the first of the servers that answers `stack`, which has `addresses`.
    fn first_to_answer(
        &mut self,
        handle: Handle,
        mut stack: Stack,
        addresses: Addresses,
        servers: &[Server],
    ) -> Result<End, Failure> {
        let mac = stack.nic().mac();
        let mut first = Some(stack);
        let mut words = format!("{mac} got {addresses}, but the DHCP server names no boot server");
        for server in servers {
            let mut stack = match first.take() {
                Some(stack) => stack,
                None => {
                    let nic = Nic::open(handle, self.clock).map_err(|error| Failure::Link(error.to_string()))?;
                    Stack::new(nic, self.clock, self.random.clone())
                }
            };
            stack.configure(addresses);
            println!("Rackbar: {mac} has {addresses}, boot server {server}");
            match self.server(stack, *server) {
                Err(Failure::Server(why)) => words = why,
                done => return done,
            }
        }
        Err(Failure::Server(words))
    }

    fn wait_for_link(&self, stack: &mut Stack, millis: u64) -> Result<(), Failure> {
        let deadline = self.clock.millis() + millis;
        while !stack.nic().has_link() {
            if self.clock.millis() > deadline {
                let mac = stack.nic().mac();
                return Err(Failure::Link(format!("{mac} has no link: cable, switch port?")));
            }
            boot::stall(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Boots what `server` has for us.
    fn server(&mut self, mut stack: Stack, server: Server) -> Result<End, Failure> {
        let mac = stack.nic().mac();
        stack.use_server(server);
        let mut session = Session {
            client: Some(Client::new(stack, http::host(&server))),
            clock: self.clock,
            mac,
            attempt: 0,
            reports: true,
        };
        session.report(BootStage::LoaderStarted {
            version: env!("CARGO_PKG_VERSION").into(),
        });
        let nonce = self.random.bytes();
        let booted = session.boot(self.machine, &self.key, nonce);
        if let Err(Failure::Boot(reason)) = &booted {
            session.report(BootStage::Failed { reason: reason.clone() });
        }
        session.end();
        booted
    }
}

/// The conversation with one boot server.
struct Session {
    /// Gone once the interface was given up for the kernel.
    client: Option<Client<Stack>>,
    clock: Clock,
    mac: MacAddr,
    attempt: u64,
    /// False after a report was lost: the next of progress would only cost time.
    reports: bool,
}

impl Session {
    fn boot(&mut self, machine: &Machine, key: &[u8; 32], nonce: [u8; 16]) -> Result<End, Failure> {
        let manifest = self.manifest(key, &nonce)?;
        self.attempt = manifest.attempt;
        self.report(BootStage::ManifestVerified);
        if manifest.files.is_empty() {
            self.report(BootStage::LocalDisk);
            return Ok(End::LocalDisk);
        }
        let mut kernel = Vec::new();
        let mut initrds = Vec::new();
        for file in &manifest.files {
            let content = self.file(file)?;
            match file.role {
                BootFileRole::Kernel => kernel = content,
                BootFileRole::Initrd => initrds.push(content),
            }
        }
        let kernel = Kernel {
            image: &kernel,
            initrd: payload::concatenated(initrds.iter().map(Vec::as_slice)).collect(),
            command_line: &manifest.command_line,
            signed: true,
        };
        let last = || {
            self.report(BootStage::StartingKernel);
            // The interface must rest before the kernel's driver takes it.
            self.end();
        };
        start::start(machine, kernel, last)
            .map(|()| End::KernelCameBack)
            .map_err(Failure::Boot)
    }

    fn manifest(&mut self, key: &[u8; 32], nonce: &[u8; 16]) -> Result<BootManifest, Failure> {
        let mut path = format!(
            "/boot/v1/manifest?mac={}&nonce=",
            self.mac.to_string().replace(':', "-")
        );
        nonce.iter().for_each(|byte| {
            let _ = write!(path, "{byte:02x}");
        });
        let client = self.client()?;
        let bytes = client.get(&path, MAX_MANIFEST).map_err(|error| match error {
            // Nothing answers there, or something that is no appliance: another way may lead further.
            FetchError::Connection(_) | FetchError::Head(_) => Failure::Server(error.to_string()),
            other => Failure::Boot(format!("no manifest: {other}")),
        })?;
        verify_manifest(&bytes, key, nonce, self.mac).map_err(|error| Failure::Boot(error.to_string()))
    }

    fn file(&mut self, file: &BootFile) -> Result<Vec<u8>, Failure> {
        let clock = self.clock;
        let start = clock.millis();
        let mut shown = start;
        let line = |done, millis| progress::line(&file.name, done, file.size, millis);
        let content = self.client()?.file(file, &mut |done| {
            let now = clock.millis();
            // A line takes a serial console several milliseconds.
            if now - shown >= 500 {
                shown = now;
                print!("{}", line(done, now - start));
            }
        });
        let millis = clock.millis() - start;
        match content {
            Ok(content) => {
                println!("{}", line(file.size, millis));
                self.report(BootStage::FileVerified {
                    name: file.name.clone(),
                    bytes: file.size,
                    millis,
                });
                Ok(content)
            }
            Err(error) => {
                println!();
                Err(Failure::Boot(match error {
                    FetchError::Connection(_) | FetchError::Head(_) => format!("{}: {error}", file.name),
                    names_it => names_it.to_string(),
                }))
            }
        }
    }

    fn client(&mut self) -> Result<&mut Client<Stack>, Failure> {
        let gone = || Failure::Boot("the network was given up already".into());
        self.client.as_mut().ok_or_else(gone)
    }

    /// Tells the appliance how far we are, if it listens. A failure is told also where earlier reports were lost.
    fn report(&mut self, stage: BootStage) {
        let failed = matches!(stage, BootStage::Failed { .. });
        let report = BootReport {
            version: PROTOCOL_VERSION,
            mac: self.mac,
            attempt: self.attempt,
            stage,
        };
        let (Some(client), Ok(body)) = (
            self.client.as_mut().filter(|_| self.reports || failed),
            postcard::to_allocvec(&report),
        ) else {
            return;
        };
        client.transport().patience_millis = if failed {
            FAILURE_PATIENCE_MILLIS
        } else {
            REPORT_PATIENCE_MILLIS
        };
        self.reports = client.post("/boot/v1/report", &body).is_ok();
        client.transport().patience_millis = PATIENCE_MILLIS;
    }

    /// Ends the connection and gives the interface up.
    fn end(&mut self) {
        if let Some(mut client) = self.client.take() {
            client.transport().close();
        }
    }
}
