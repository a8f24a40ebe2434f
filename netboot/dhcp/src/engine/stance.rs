//! Listening before speaking: what we are on a network, and what we know of other servers there.
//!
//! ```text
//!             4.5 s of silence                 another server is seen, mode auto
//!   Listening ────────────────▶ Own ────────────────────────────────────────────▶ Proxy
//!       └──────────────── another server answers ───────────────────────────────────▲
//! ```
//!
//! We ask by DISCOVERs of our own, and hear of other servers by their answers and by clients that name them in a
//! REQUEST. The way back from `Proxy` to `Own` is a person's decision: a server that is down for a minute must not
//! come back to find its network taken. `Off`, and modes that name a stance, stand outside this picture.
//!
//! What goes wrong: at power-on a switch port may drop everything for 30 s (spanning tree), so silence then proves
//! little. Questions go on after the decision, at growing distances.

use std::net::{Ipv4Addr, SocketAddrV4};

use rackbar_model::{EventKind, Severity, Timestamp};

use super::{Engine, Site};
use crate::packet::{DEFAULT_LIMIT, DhcpOption, Message, MessageType, Packet, code};
use crate::shift::Shift;
use crate::{Destination, InterfaceId, Mode, Network, Output};

/// How long we listen, in milliseconds. Before its first offer of an address isc-dhcpd pings it for one second and
/// dnsmasq for three (measured: its offer came 3.3 s after our question).
const LISTEN: u64 = 4500;
/// Distance of the questions while we listen, in milliseconds.
const LISTEN_STEP: u64 = 1000;
/// Distances of the questions after the decision, in milliseconds; the last one repeats.
const LATER: [u64; 4] = [10_000, 30_000, 60_000, 300_000];
/// A server not heard for this long is called silent, in milliseconds: three unanswered questions.
const SILENT: u64 = 16 * 60_000;
/// How often the same foreign server is told again, in milliseconds.
const TELL_AGAIN: u64 = 60 * 60_000;

/// What we do on a network, for status pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Waiting whether another server answers.
    Listening,
    /// The DHCP server.
    Own,
    /// Boot information beside another server.
    Proxy,
    /// Nothing.
    Off,
}

/// What we are on a network.
#[derive(Clone, Debug)]
pub(super) enum Stance {
    Listening(Listening),
    Own(Settled),
    Proxy(Settled),
    Off,
}

/// Asking and waiting.
#[derive(Clone, Debug, Default)]
pub(super) struct Listening {
    /// When the waiting is over; `None` before the first call of the engine.
    until: Option<Timestamp>,
    next_question: Timestamp,
}

/// Decided.
#[derive(Clone, Debug, Default)]
pub(super) struct Settled {
    told: bool,
    /// Next question to other servers, and how many were sent since the decision. Only in mode auto.
    next_question: Option<Timestamp>,
    questions: usize,
    silence_told: bool,
}

/// Another DHCP server.
#[derive(Clone, Debug)]
pub(super) struct Foreign {
    pub(super) server: Ipv4Addr,
    pub(super) seen: Timestamp,
    told: Timestamp,
}

impl Foreign {
    /// The clock was set.
    pub(super) fn shift(&mut self, by: Shift) {
        by.apply(&mut self.seen);
        by.apply(&mut self.told);
    }
}

impl Stance {
    pub(super) fn at_start(network: &Network) -> Self {
        match network.mode {
            Mode::Own => Self::Own(Settled::default()),
            Mode::Proxy => Self::Proxy(Settled::default()),
            Mode::Off => Self::Off,
            Mode::Auto if network.interface.is_some() => Self::Listening(Listening::default()),
            // Somebody pointed a relay at us: that is being told to.
            Mode::Auto => Self::Own(Settled::default()),
        }
    }

    pub(super) fn role(&self) -> Role {
        match self {
            Self::Listening(_) => Role::Listening,
            Self::Own(_) => Role::Own,
            Self::Proxy(_) => Role::Proxy,
            Self::Off => Role::Off,
        }
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Listening(Listening {
                until: Some(until),
                next_question,
            }) => Some(*until.min(next_question)),
            Self::Listening(Listening { until: None, .. }) => Some(Timestamp(0)),
            Self::Own(settled) | Self::Proxy(settled) if !settled.told => Some(Timestamp(0)),
            Self::Own(settled) | Self::Proxy(settled) => settled.next_question,
            Self::Off => None,
        }
    }

    /// The clock was set.
    pub(super) fn shift(&mut self, by: Shift) {
        match self {
            Self::Listening(Listening { until, next_question }) => {
                if let Some(until) = until {
                    by.apply(until);
                }
                by.apply(next_question);
            }
            Self::Own(settled) | Self::Proxy(settled) => {
                if let Some(next) = &mut settled.next_question {
                    by.apply(next);
                }
            }
            Self::Off => {}
        }
    }

    /// What the network's service does, in words.
    fn words(&self, network: &str) -> String {
        match self {
            Self::Listening(_) => format!("network {network}: listening for other DHCP servers"),
            Self::Own(_) => format!("network {network}: serving as the DHCP server"),
            Self::Proxy(_) => {
                format!("network {network}: boot information only (ProxyDHCP), addresses by another server")
            }
            Self::Off => format!("network {network}: off"),
        }
    }
}

impl Settled {
    fn decided(auto: bool, now: Timestamp) -> Self {
        Self {
            next_question: auto.then(|| now.plus(LATER[0])),
            ..Self::default()
        }
    }
}

impl Engine {
    /// Does what time asks of a network's stance.
    pub(super) fn advance_stance(&mut self, now: Timestamp, at: usize, out: &mut Vec<Output>) {
        let site = &mut self.sites[at];
        if site.stance.deadline().is_none_or(|due| due > now) {
            return;
        }
        let mut ask = false;
        match &mut site.stance {
            Stance::Listening(listening) => match listening.until {
                Some(until) if until <= now => {
                    site.stance = Stance::Own(Settled::decided(true, now));
                    site.tell_stance(Severity::Info, out);
                }
                Some(_) => {
                    listening.next_question = now.plus(LISTEN_STEP);
                    ask = true;
                }
                None => {
                    *listening = Listening {
                        until: Some(now.plus(LISTEN)),
                        next_question: now.plus(LISTEN_STEP),
                    };
                    site.tell_stance(Severity::Info, out);
                    ask = true;
                }
            },
            Stance::Own(settled) | Stance::Proxy(settled) if !settled.told => site.tell_stance(Severity::Info, out),
            Stance::Own(settled) | Stance::Proxy(settled) => {
                settled.questions += 1;
                let step = LATER.get(settled.questions).or(LATER.last()).copied().unwrap_or(LISTEN);
                settled.next_question = Some(now.plus(step));
                ask = true;
                site.tell_silence(now, out);
            }
            Stance::Off => {}
        }
        if ask {
            self.ask_for_servers(now, at, out);
        }
    }

    /// Our own DISCOVER.
    fn ask_for_servers(&mut self, now: Timestamp, at: usize, out: &mut Vec<Output>) {
        let buffer = self.buffer();
        let Some(own) = self.sites[at].network.interface else {
            return;
        };
        let mut message = Message::request((now.0 as u32).wrapping_mul(0x9e37_79b1) ^ own.id.0, own.mac);
        // Without an address we hear only broadcasts.
        message.broadcast = true;
        message.options = vec![
            DhcpOption::MessageType(MessageType::Discover),
            DhcpOption::Other(code::PARAMETERS, &[code::SUBNET_MASK, code::ROUTER]),
        ];
        let mut bytes = buffer;
        message.encode(DEFAULT_LIMIT, &mut bytes);
        out.push(Output::Send {
            interface: own.id,
            source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
            destination: Destination::Broadcast,
            bytes,
        });
    }

    /// A server's message went past.
    pub(super) fn overheard(
        &mut self,
        now: Timestamp,
        interface: InterfaceId,
        packet: &Packet<'_>,
        out: &mut Vec<Output>,
    ) {
        let gives_addresses = match packet.message_type() {
            Some(MessageType::Offer | MessageType::Ack) => !packet.yiaddr().is_unspecified(),
            Some(MessageType::Nak) => true,
            _ => false,
        };
        let Some(server) = packet.server_id().filter(|_| gives_addresses) else {
            return;
        };
        let here = |site: &Site| site.network.interface.is_some_and(|own| own.id == interface);
        for at in 0..self.sites.len() {
            if here(&self.sites[at]) {
                self.foreign_server(now, at, server, out);
            }
        }
    }

    /// Another server was seen on a network.
    pub(super) fn foreign_server(&mut self, now: Timestamp, at: usize, server: Ipv4Addr, out: &mut Vec<Output>) {
        if self.sites.iter().any(|site| site.network.server == server) {
            return;
        }
        let site = &mut self.sites[at];
        let told = site
            .foreign
            .as_ref()
            .filter(|f| f.server == server && now.since(f.told) < TELL_AGAIN)
            .map(|f| f.told);
        site.foreign = Some(Foreign {
            server,
            seen: now,
            told: told.unwrap_or(now),
        });
        if told.is_none() && !matches!(site.stance, Stance::Off) {
            let network = site.network.name.clone();
            out.push(Output::Event {
                mac: None,
                kind: EventKind::ForeignDhcpServer { network, server },
            });
        }
        match &mut site.stance {
            Stance::Listening(_) => {
                site.stance = Stance::Proxy(Settled::decided(true, now));
                site.tell_stance(Severity::Info, out);
            }
            Stance::Own(_) if site.network.mode == Mode::Auto => {
                site.stance = Stance::Proxy(Settled::decided(true, now));
                site.tell_stance(Severity::Warning, out);
            }
            Stance::Proxy(settled) => settled.silence_told = false,
            Stance::Own(_) | Stance::Off => {}
        }
    }
}

impl Site {
    fn tell_stance(&mut self, severity: Severity, out: &mut Vec<Output>) {
        if let Stance::Own(settled) | Stance::Proxy(settled) = &mut self.stance {
            settled.told = true;
        }
        let mut state = self.stance.words(&self.network.name);
        if let (Stance::Proxy(_), Some(foreign)) = (&self.stance, &self.foreign) {
            state.push_str(&format!(" ({})", foreign.server));
        }
        out.push(Output::Event {
            mac: None,
            kind: EventKind::Service {
                name: "dhcp".to_owned(),
                state,
                severity,
            },
        });
    }

    /// Says once that the server we stand beside has not been heard for long.
    fn tell_silence(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let Stance::Proxy(settled) = &mut self.stance else {
            return;
        };
        let Some(foreign) = self.foreign.as_ref().filter(|f| now.since(f.seen) > SILENT) else {
            return;
        };
        if std::mem::replace(&mut settled.silence_told, true) {
            return;
        }
        let state = format!(
            "network {}: the DHCP server {} has not answered for {} minutes and machines get no address from it; start it \
             again, or set this network's mode to \"own\" to have Rackbar give addresses",
            self.network.name,
            foreign.server,
            now.since(foreign.seen) / 60_000
        );
        let kind = EventKind::Service {
            name: "dhcp".to_owned(),
            state,
            severity: Severity::Warning,
        };
        out.push(Output::Event { mac: None, kind });
    }
}
