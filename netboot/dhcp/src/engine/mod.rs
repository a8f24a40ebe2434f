//! The engine: one table of networks, one memory of clients, no I/O.
//!
//! Reading order: `question` (what a message says), `server` (DHCPv4 server), `proxy` (boot information without an
//! address), `boot` and `reply` (what is answered), `memory` (what each firmware did with it), `stance` (listening
//! before speaking), `telling` (what becomes an event), `probe` (is an address really free), `declines` (clients that say
//! it is not), `set_clock` (what was read from a clock that is set).

mod boot;
mod declines;
mod memory;
mod probe;
mod proxy;
mod question;
mod reply;
mod server;
mod set_clock;
mod stance;
mod strange_relays;
mod telling;

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use rackbar_model::{EventKind, FirmwareHabit, Lease, LeaseState, MacAddr, Timestamp};

pub use memory::{ClientMemory, ClientPhase};
pub(crate) use probe::Waiting;
pub use stance::Role;

use declines::Decliners;
use memory::Clients;
use question::Question;
use stance::{Foreign, Stance};
use strange_relays::StrangeRelays;
use telling::Bucket;

use crate::leases::{Binding, Key, State, Table};
use crate::packet::{MessageType, Op, Packet};
use crate::{Config, Input, InterfaceId, Network, Output, UnknownClients};

/// Buffers kept for reuse.
const BUFFERS: usize = 64;

/// The DHCPv4 and ProxyDHCP engine.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    sites: Vec<Site>,
    listed: HashSet<MacAddr>,
    clients: Clients,
    buffers: Vec<Vec<u8>>,
    counters: Counters,
    tell: Bucket,
    strange_relays: StrangeRelays,
    decliners: Decliners,
    /// The first and the last time it was told.
    lived: Option<(Timestamp, Timestamp)>,
}

/// One network at work.
#[derive(Debug)]
struct Site {
    network: Network,
    stance: Stance,
    foreign: Option<Foreign>,
    table: Table,
    /// Exhaustion was told.
    exhausted: bool,
    /// Who answered the last probes, and how many in a row.
    answerer: Option<(MacAddr, u32)>,
}

/// What a network is doing, for status pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkStatus {
    /// Its name.
    pub name: String,
    /// What we do there now.
    pub role: Role,
    /// The other DHCP server seen there last, and when.
    pub foreign: Option<(Ipv4Addr, Timestamp)>,
    /// Addresses in its pools.
    pub pool: u32,
    /// Those of them that a new client could get.
    pub free: u32,
}

/// Packets that led to no answer, by reason, since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Messages from clients.
    pub received: u64,
    /// Messages sent.
    pub sent: u64,
    /// Not DHCP, or without a sensible message type.
    pub malformed: u64,
    /// No Ethernet address to answer to. InfiniBand's PXE is not served.
    pub no_hardware_address: u64,
    /// From an interface or relay that belongs to no network, or one that is off.
    pub no_network: u64,
    /// Came while we still listened for other servers.
    pub listening: u64,
    /// Events left out because too many unknown clients came at once.
    pub untold: u64,
}

impl Engine {
    /// An engine that knows these leases. It does nothing until the first [`Engine::handle`], which its
    /// [`Engine::deadline`] asks for at once.
    pub fn new(config: Config, leases: impl IntoIterator<Item = Lease>) -> Self {
        let mut engine = Self {
            sites: Vec::new(),
            listed: HashSet::new(),
            clients: Clients::default(),
            buffers: Vec::new(),
            counters: Counters::default(),
            tell: Bucket::full(),
            strange_relays: StrangeRelays::default(),
            decliners: Decliners::default(),
            lived: None,
            config: Config::default(),
        };
        engine.set_config(config, Vec::new());
        engine.restore(leases.into_iter().map(|lease| (lease, true)));
        engine
    }

    /// Takes in what was learnt of firmware before a restart, newest first where there is not room for all. Returns the
    /// machines of whom it is not believed any more: their records can go.
    pub fn recall(&mut self, now: Timestamp, habits: impl IntoIterator<Item = FirmwareHabit>) -> Vec<MacAddr> {
        let mut habits: Vec<_> = habits.into_iter().collect();
        habits.sort_by_key(|habit| std::cmp::Reverse(habit.seen));
        let limits = self.config.limits;
        let mut gone = Vec::new();
        for habit in habits {
            let mac = habit.mac;
            let old = now.since(habit.seen) >= limits.habit_millis;
            if old || !self.clients.recall(habit, limits.clients) {
                gone.push(mac);
            }
        }
        gone
    }

    /// Takes another configuration. Leases stay; a client whose address no longer fits its network is refused when it
    /// renews and asks anew. A network that is what it was keeps what it found out about other servers.
    pub fn reconfigure(&mut self, config: Config) {
        let leases: Vec<_> = self.known_leases().collect();
        let old = std::mem::take(&mut self.sites);
        self.set_config(config, old);
        self.restore(leases);
    }

    fn set_config(&mut self, config: Config, mut old: Vec<Site>) {
        self.listed = config.listed.iter().copied().collect();
        self.sites = config
            .networks
            .iter()
            .map(|network| {
                let same = |site: &Site| {
                    let was = &site.network;
                    (was.name == network.name && was.interface == network.interface)
                        && (was.mode == network.mode && was.server == network.server)
                };
                let before = old.iter().position(same).map(|i| old.swap_remove(i));
                let (stance, foreign) = match before {
                    Some(site) => (site.stance, site.foreign),
                    None => (Stance::at_start(network), None),
                };
                let table = Table::new(network, config.limits.pool_addresses);
                Site {
                    network: network.clone(),
                    stance,
                    foreign,
                    table,
                    exhausted: false,
                    answerer: None,
                }
            })
            .collect();
        self.clients.shrink(config.limits.clients);
        self.config = config;
    }

    /// Takes leases, each with whether it is as the store had it at the start.
    fn restore(&mut self, leases: impl IntoIterator<Item = (Lease, bool)>) {
        for (lease, stored) in leases {
            // A network that was given another name still has its machines.
            let holds = |site: &Site| site.network.contains(lease.address);
            let named = self
                .sites
                .iter()
                .position(|site| holds(site) && site.network.name == lease.network);
            if let Some(at) = named.or_else(|| self.sites.iter().position(holds)) {
                self.sites[at].table.restore(lease, stored);
            }
        }
    }

    /// Tells the engine something. Outputs are appended to `out`.
    pub fn handle(&mut self, now: Timestamp, input: Input<'_>, out: &mut Vec<Output>) {
        self.lived = Some((self.lived.map_or(now, |(begun, _)| begun), now));
        self.advance(now, out);
        match input {
            Input::Packet {
                interface,
                source,
                local_port,
                bytes,
            } => {
                self.packet(now, interface, source, local_port, bytes, out);
            }
            Input::ProbeResult {
                interface,
                address,
                owner,
            } => self.probed(now, interface, address, owner, out),
            Input::BootFileFetched { mac } => {
                if let Some(memory) = self.clients.get_mut(mac)
                    && memory.fetched(now)
                {
                    let habit = memory.learn(now);
                    out.push(Output::Learnt { mac, habit });
                }
            }
            Input::TlsRefused { mac } => {
                if let Some(memory) = self.clients.get_mut(mac) {
                    memory.refused_tls();
                }
            }
            Input::ForgetFirmware { mac } => {
                if let Some(memory) = self.clients.get_mut(mac) {
                    memory.unlearn();
                }
                out.push(Output::Learnt { mac, habit: None });
            }
            Input::Tick => {}
        }
    }

    /// When to call [`Engine::handle`] with [`Input::Tick`] if nothing else happens before.
    pub fn deadline(&self) -> Option<Timestamp> {
        let stances = self.sites.iter().filter_map(|site| site.stance.deadline());
        stances
            .chain(self.sites.iter().filter_map(|site| site.table.deadline()))
            .min()
    }

    /// Takes back the buffer of an [`Output::Send`] that was carried out.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.buffers.len() < BUFFERS {
            self.buffers.push(buffer);
        }
    }

    /// All leases, in no order. Offers are not leases yet.
    pub fn leases(&self) -> impl Iterator<Item = Lease> {
        self.known_leases().map(|(lease, _)| lease)
    }

    /// The same, each with whether it is as the store had it at the start.
    fn known_leases(&self) -> impl Iterator<Item = (Lease, bool)> {
        self.sites.iter().flat_map(|site| {
            let known = |(address, binding)| Some((lease(&site.network.name, address, binding)?, binding.stored));
            site.table.iter().filter_map(known)
        })
    }

    /// All clients remembered, in no order.
    pub fn clients(&self) -> impl Iterator<Item = &ClientMemory> {
        self.clients.iter()
    }

    /// One client.
    pub fn client(&self, mac: MacAddr) -> Option<&ClientMemory> {
        self.clients.get(mac)
    }

    /// The address a machine has from us, if it has one, with the network's name.
    pub fn address_of(&self, mac: MacAddr) -> Option<(Ipv4Addr, &str)> {
        let key = Key {
            mac,
            id: None,
            sent_id: None,
        };
        self.sites.iter().find_map(|site| {
            let address = site.table.find(&key)?;
            let bound = matches!(site.table.get(address)?.state, State::Bound(_));
            bound.then_some((address, site.network.name.as_str()))
        })
    }

    /// The MAC address behind an address: TFTP and HTTP know their clients by address only. Our own leases are certain;
    /// for addresses of another server it is the machine that asked for one by broadcast, or told us on port 4011.
    pub fn holder_of(&self, address: Ipv4Addr) -> Option<MacAddr> {
        let binding = self.sites.iter().find_map(|site| site.table.get(address));
        let bound = binding.filter(|b| matches!(b.state, State::Bound(_))).map(|b| b.mac);
        let asked = || {
            self.clients
                .iter()
                .filter(|c| c.address == Some(address))
                .max_by_key(|c| c.last_seen)
        };
        bound.or_else(|| asked().map(|client| client.mac))
    }

    /// What each network is doing.
    pub fn networks(&self) -> impl Iterator<Item = NetworkStatus> {
        self.sites.iter().map(|site| {
            let (pool, free) = site.table.pool();
            NetworkStatus {
                name: site.network.name.clone(),
                role: site.stance.role(),
                foreign: site.foreign.as_ref().map(|f| (f.server, f.seen)),
                pool,
                free,
            }
        })
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn advance(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        for at in 0..self.sites.len() {
            self.advance_stance(now, at, out);
            while let Some(address) = self.sites[at].table.due(now) {
                self.expire(now, at, address, out);
            }
        }
    }

    /// The time of a binding is over.
    fn expire(&mut self, now: Timestamp, at: usize, address: Ipv4Addr, out: &mut Vec<Output>) {
        let site = &mut self.sites[at];
        match site.table.get(address).map(|b| &b.state) {
            Some(State::Probing(_)) => self.silent(now, at, address, out),
            Some(State::Offered(_)) => site.table.idle(address, now),
            Some(State::Bound(_)) => {
                site.table.idle(address, now);
                out.extend(self.commit(at, address));
            }
            Some(State::Abandoned(_) | State::Idle(_)) | None => _ = site.table.remove(address),
        }
    }

    fn packet(
        &mut self,
        now: Timestamp,
        interface: InterfaceId,
        source: SocketAddrV4,
        local_port: u16,
        bytes: &[u8],
        out: &mut Vec<Output>,
    ) {
        let Ok(packet) = Packet::new(bytes) else {
            self.counters.malformed += 1;
            return;
        };
        if packet.op() == Op::Reply {
            self.overheard(now, interface, &packet, out);
            return;
        }
        if local_port == 68 {
            return;
        }
        self.counters.received += 1;
        let Some(question) = Question::new(packet, interface, source, local_port) else {
            self.counters.no_hardware_address += 1;
            return;
        };
        // Our own probe DISCOVER comes back to us where the kernel loops broadcasts.
        let ours = |site: &Site| site.network.interface.is_some_and(|own| own.mac == question.mac);
        if self.sites.iter().any(ours) {
            return;
        }
        let Some(at) = self.site_for(&question) else {
            self.counters.no_network += 1;
            self.tell_strange_relay(now, &question, out);
            return;
        };
        self.dispatch(now, at, &question, out);
    }

    fn dispatch(&mut self, now: Timestamp, at: usize, question: &Question<'_>, out: &mut Vec<Output>) {
        let kind = question.packet.message_type();
        let new = self.clients.get(question.mac).is_none();
        let memory = self.clients.see(question.mac, now, self.config.limits.clients);
        if new && !self.tell.take(now) {
            self.counters.untold += 1;
            // Not told this time; its next transaction tries again.
            memory.tell_nothing(question.packet.xid(), now);
            self.tell_flood(now, out);
        }
        match kind {
            Some(MessageType::Discover | MessageType::Request | MessageType::Inform) if question.local_port == 4011 => {
                self.boot_server(now, at, question, out);
            }
            Some(MessageType::Discover) => self.discover(now, at, question, out),
            Some(MessageType::Request) => self.request(now, at, question, out),
            Some(MessageType::Decline) => self.decline(now, at, question, out),
            Some(MessageType::Release) => self.release(now, at, question, out),
            Some(MessageType::Inform) => self.inform(now, at, question, out),
            Some(MessageType::Offer | MessageType::Ack | MessageType::Nak) | None => self.counters.malformed += 1,
        }
    }

    /// The network a client is on: by its relay, else by the address it already has, else by the interface.
    fn site_for(&self, question: &Question<'_>) -> Option<usize> {
        let on_interface = |site: &Site| site.network.interface.is_some_and(|own| own.id == question.interface);
        if let Some(subnet) = question.relayed_from() {
            return self.sites.iter().position(|site| site.network.contains(subnet));
        }
        // A client of a relayed network renews straight to us, past the relay, and arrives on any interface.
        let known = question
            .ciaddr()
            .or(question.source_address())
            .or(question.packet.requested_address());
        let by_address = known.and_then(|ip| {
            let fits = |site: &&Site| site.network.contains(ip);
            let here = self.sites.iter().filter(|s| on_interface(s)).find(fits);
            let site = here.or_else(|| self.sites.iter().filter(|_| question.ciaddr().is_some()).find(fits))?;
            self.sites.iter().position(|other| std::ptr::eq(other, site))
        });
        by_address.or_else(|| self.sites.iter().position(on_interface))
    }

    /// What the policy for unknown clients lets this one have.
    fn admit(&self, at: usize, question: &Question<'_>) -> Admission {
        let known =
            || self.listed.contains(&question.mac) || self.sites[at].table.reservation(&question.key()).is_some();
        match self.config.unknown {
            UnknownClients::Enrol => Admission::All,
            _ if known() => Admission::All,
            UnknownClients::LeaseOnly => Admission::AddressOnly,
            UnknownClients::Ignore => Admission::Nothing,
        }
    }

    fn commit(&self, at: usize, address: Ipv4Addr) -> Option<Output> {
        let site = &self.sites[at];
        let binding = site.table.get(address)?;
        lease(&site.network.name, address, binding).map(Output::Commit)
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.counters.sent += 1;
        self.buffers.pop().unwrap_or_default()
    }
}

/// What a client may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Admission {
    All,
    AddressOnly,
    Nothing,
}

fn event(mac: MacAddr, kind: EventKind) -> Output {
    Output::Event { mac: Some(mac), kind }
}

/// A binding as the store keeps it; `None` for one that never was a lease.
fn lease(network: &str, address: Ipv4Addr, binding: &Binding) -> Option<Lease> {
    let (state, expires) = match &binding.state {
        State::Bound(bound) => (LeaseState::Bound, bound.until),
        State::Abandoned(abandoned) => (LeaseState::Abandoned, abandoned.until),
        State::Idle(idle) => (LeaseState::Released, binding.last_bound.map(|_| idle.since)?),
        State::Probing(_) | State::Offered(_) => (LeaseState::Released, binding.last_bound?),
    };
    Some(Lease {
        address,
        network: network.to_owned(),
        mac: binding.mac,
        client_id: binding.id.to_vec(),
        hostname: binding.hostname.clone(),
        state,
        expires,
    })
}
