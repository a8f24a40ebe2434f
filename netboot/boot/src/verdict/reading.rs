//! What happened in a machine's newest boot, gathered from its events.

use alloc::string::String;
use core::net::Ipv4Addr;

use rackbar_model::{BootStage, BootWay, Event, EventKind, PortSays, PowerState, Timestamp};

/// After this long without an event a DISCOVER begins a new boot. Firmware gives up within a minute.
const NEW_BOOT_AFTER_MILLIS: u64 = 180_000;

/// The newest boot, step by step. Each step holds when it was last seen.
#[derive(Clone, Default, Debug)]
pub(super) struct Reading {
    pub(super) now: Timestamp,
    /// First DHCP packet of this boot.
    pub(super) first: Option<Timestamp>,
    /// Newest event of this boot.
    pub(super) last: Option<Timestamp>,
    /// DISCOVERs of the firmware.
    pub(super) discovers: u32,
    pub(super) powered_on: Option<Timestamp>,
    pub(super) powered_off: Option<PoweredOff>,
    /// Somebody asked for it to be off, and it was not seen off since.
    pub(super) asked_off: Option<PowerAsked>,
    /// A system that is not ours and not firmware asked for an address and got it.
    pub(super) system: Option<Timestamp>,
    /// Such a system asked; whether it gets an address is not known yet.
    system_asked: bool,
    /// Sent back to its firmware, to go on to its disk.
    pub(super) local_disk: Option<Timestamp>,
    pub(super) ignored: Option<String>,
    pub(super) offer: Option<Offer>,
    pub(super) way_changed: Option<String>,
    pub(super) foreign_server: Option<Ipv4Addr>,
    pub(super) request: Option<(Timestamp, Option<Ipv4Addr>)>,
    pub(super) ack: Option<Timestamp>,
    pub(super) nak: Option<(Timestamp, String)>,
    pub(super) declined: Option<Ipv4Addr>,
    pub(super) first_file: Option<File>,
    pub(super) ipxe: Option<Timestamp>,
    pub(super) script: Option<Timestamp>,
    pub(super) boot_file: Option<File>,
    pub(super) loader: Option<Timestamp>,
    pub(super) manifest: Option<(Timestamp, u16)>,
    pub(super) manifest_verified: Option<Timestamp>,
    pub(super) file_verified: Option<(Timestamp, String)>,
    pub(super) failed: Option<String>,
    pub(super) kernel: Option<Timestamp>,
    pub(super) agent_started: Option<Timestamp>,
    pub(super) agent_up: Option<Timestamp>,
    pub(super) agent_lost: Option<(Timestamp, String)>,
    pub(super) agent_refused: Option<(Timestamp, String)>,
    pub(super) facts: Option<Timestamp>,
    /// Seconds it had been asking before anything of it was heard.
    pub(super) late: Option<u16>,
    /// Its boot interface's switch port runs spanning tree: the forward delay in milliseconds.
    pub(super) spanning_tree: Option<u32>,
    /// A switch port of it is in a bundle and carries nothing for it.
    pub(super) waits_for_lacp: bool,
}

/// Somebody asked for power to change.
#[derive(Clone, Debug)]
pub(super) struct PowerAsked {
    pub(super) at: Timestamp,
    pub(super) action: String,
    pub(super) by: String,
}

/// The machine was seen off.
#[derive(Clone, Debug)]
pub(super) struct PoweredOff {
    pub(super) at: Timestamp,
    pub(super) asked: Option<PowerAsked>,
    /// False when it is only that we looked for the first time.
    pub(super) was_known: bool,
}

/// Our last offer to the firmware.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) at: Timestamp,
    pub(super) way: Option<BootWay>,
}

/// A file on its way to the machine.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) at: Timestamp,
    pub(super) name: String,
    pub(super) outcome: Outcome,
}

/// How its transfer stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Running,
    Done,
    Failed(String),
}

impl Reading {
    pub(super) fn of(events: &[Event], now: Timestamp) -> Self {
        let mut reading = Self { now, ..Self::default() };
        for event in events.iter().filter(|event| event.at <= now) {
            reading.take(event);
        }
        reading
    }

    /// Milliseconds from `then` to now.
    pub(super) fn ago(&self, then: Timestamp) -> u64 {
        self.now.since(then)
    }

    fn take(&mut self, event: &Event) {
        let at = event.at;
        match &event.kind {
            EventKind::DhcpDiscover {
                user_class,
                arch,
                vendor_class,
                ..
            } => {
                // What runs is on, whatever was said before.
                self.runs();
                let netboots = |class: &str| class.starts_with("PXEClient") || class.starts_with("HTTPClient");
                if arch.is_some() || user_class.is_some() || vendor_class.as_deref().is_some_and(netboots) {
                    self.discover(at, user_class.as_deref());
                } else {
                    self.system_discover(at);
                }
            }
            EventKind::DhcpOffer { way, .. } => self.offer = Some(Offer { at, way: *way }),
            EventKind::DhcpRequest { server, .. } => {
                self.first.get_or_insert(at);
                self.request = Some((at, *server));
            }
            EventKind::DhcpAck { .. } => self.acknowledged(at),
            EventKind::DhcpNak { reason } => self.nak = Some((at, reason.clone())),
            EventKind::DhcpDecline { address } => self.declined = Some(*address),
            EventKind::ForeignDhcpServer { server, .. } => self.foreign_server = Some(*server),
            EventKind::WayChanged { reason, .. } => self.way_changed = Some(reason.clone()),
            EventKind::ClientIgnored { reason } => self.ignored = Some(reason.clone()),
            EventKind::TftpRequest { file, .. } => self.first_file(at, file, Outcome::Running),
            EventKind::TftpDone { file, .. } => self.first_file(at, file, Outcome::Done),
            EventKind::TftpFailed { file, reason, .. } => {
                // EDK2 opens every file twice and breaks the first transfer off once it knows the size.
                self.first_file(at, file, Outcome::Failed(reason.clone()));
            }
            EventKind::HttpSent { what, status, .. } => self.http_sent(at, what, *status),
            EventKind::Boot(stage) => self.boot_stage(at, stage),
            EventKind::AgentUp { .. } => {
                self.runs();
                self.local_disk = None;
                self.system = None;
                self.agent_up = Some(at);
                self.agent_lost = None;
                self.agent_refused = None;
            }
            EventKind::AgentLost { reason } => self.agent_lost = Some((at, reason.clone())),
            EventKind::AgentRefused { reason, .. } => self.agent_refused = Some((at, reason.clone())),
            EventKind::Facts { .. } => {
                // Later ones tell of a cable or a disk; it was discovered with the first.
                self.facts.get_or_insert(at);
            }
            EventKind::AskedLate { seconds } => self.late = Some(*seconds),
            EventKind::PortSays(PortSays::SpanningTree {
                forward_delay_millis, ..
            }) => self.spanning_tree = Some(*forward_delay_millis),
            EventKind::PortSays(PortSays::Lacp { forwards }) => self.waits_for_lacp = !forwards,
            EventKind::PowerChanged { from, to } => self.power(at, *from, *to),
            EventKind::PowerRequested { action, by } => return self.power_asked(at, action, by),
            // Not steps of a boot.
            EventKind::DhcpRelease { .. }
            | EventKind::AddressConflict { .. }
            | EventKind::NodeEnrolled { .. }
            | EventKind::NodesMerged { .. }
            | EventKind::IdentityCollision { .. }
            | EventKind::StateChanged { .. }
            | EventKind::BmcFound { .. }
            | EventKind::BmcFailed { .. }
            | EventKind::Service { .. }
            | EventKind::Config { .. }
            | EventKind::Note { .. }
            | EventKind::Changed { .. }
            | EventKind::SiteSet { .. }
            | EventKind::RoleBound { .. }
            | EventKind::RunChanged { .. }
            | EventKind::ActionStarted { .. }
            | EventKind::ActionDone { .. }
            | EventKind::ActionFailed { .. }
            | EventKind::ActionSkipped { .. }
            | EventKind::DriftSeen { .. }
            | EventKind::DriftGone { .. } => return,
        }
        self.last = Some(at);
    }

    fn discover(&mut self, at: Timestamp, user_class: Option<&str>) {
        match user_class {
            // Later steps of the same boot asking for their own address.
            Some("rackbar-loader" | "rackbar-agent") => {}
            // iPXE in the ROM is the firmware; iPXE that we handed out is the next step.
            Some("iPXE") if self.first_file.is_some() => self.ipxe = Some(at),
            _ => {
                if self.begins_anew(at) {
                    let powered_on = self.powered_on.filter(|_| self.first.is_none());
                    *self = Self {
                        now: self.now,
                        powered_on,
                        ..Self::default()
                    };
                }
                self.discovers += 1;
                if user_class == Some("iPXE") {
                    self.ipxe = Some(at);
                }
            }
        }
        self.first.get_or_insert(at);
    }

    /// Whether a firmware's DISCOVER at `at` belongs to a new boot rather than being a retry.
    fn begins_anew(&self, at: Timestamp) -> bool {
        let went_on = self.first_file.is_some() || self.script.is_some() || self.loader.is_some();
        let ended = self.kernel.is_some() || self.agent_up.is_some() || self.facts.is_some();
        let long_ago = self.last.is_some_and(|last| at.since(last) > NEW_BOOT_AFTER_MILLIS);
        went_on || ended || long_ago
    }

    /// Something runs on the machine, so it is neither off nor about to be, as far as we know.
    fn runs(&mut self) {
        self.powered_off = None;
        self.asked_off = None;
    }

    /// DHCP of a system that is neither firmware nor ours: the one on the machine's disk, or one beside our boots.
    fn system_discover(&mut self, at: Timestamp) {
        *self = Self {
            now: self.now,
            powered_on: self.powered_on,
            local_disk: self.local_disk,
            first: Some(at),
            discovers: if self.system_asked { self.discovers + 1 } else { 1 },
            system_asked: true,
            ..Self::default()
        };
    }

    fn acknowledged(&mut self, at: Timestamp) {
        self.ack = Some(at);
        // After a machine was sent to its disk its firmware asks for nothing more; a system that had a lease before
        // begins with a request, which does not say what it comes from.
        if self.system_asked || self.local_disk.is_some() {
            self.system = Some(at);
            self.runs();
        }
    }

    fn power(&mut self, at: Timestamp, from: PowerState, to: PowerState) {
        let asked = self.asked_off.take();
        if to != PowerState::Unknown {
            *self = Self {
                now: self.now,
                ..Self::default()
            };
        }
        self.powered_on = (to == PowerState::On).then_some(at);
        self.powered_off = (to == PowerState::Off).then_some(PoweredOff {
            at,
            asked,
            was_known: from != PowerState::Unknown,
        });
    }

    fn power_asked(&mut self, at: Timestamp, action: &str, by: &str) {
        // "off through its agent, as ..." is off too.
        let off = action
            .split_whitespace()
            .next()
            .is_some_and(|word| word == "off" || word == "shutdown");
        self.asked_off = (off && self.powered_off.is_none()).then(|| PowerAsked {
            at,
            action: action.into(),
            by: by.into(),
        });
    }

    fn first_file(&mut self, at: Timestamp, name: &str, outcome: Outcome) {
        let done = self.first_file.as_ref().is_some_and(|f| f.outcome == Outcome::Done);
        if done && matches!(outcome, Outcome::Failed(_)) {
            return;
        }
        self.first_file = Some(File {
            at,
            name: name.into(),
            outcome,
        });
    }

    fn http_sent(&mut self, at: Timestamp, what: &str, status: u16) {
        let outcome = match status {
            200..=399 => Outcome::Done,
            status => Outcome::Failed(alloc::format!("HTTP status {status}")),
        };
        match what {
            "loader.efi" => self.first_file(at, what, outcome),
            "script" => self.script = Some(at),
            "manifest" => self.manifest = Some((at, status)),
            name => {
                self.boot_file = Some(File {
                    at,
                    name: name.into(),
                    outcome,
                });
            }
        }
    }

    fn boot_stage(&mut self, at: Timestamp, stage: &BootStage) {
        self.runs();
        match stage {
            BootStage::LoaderStarted { .. } => {
                self.loader = Some(at);
                self.failed = None;
            }
            BootStage::ManifestVerified => {
                self.manifest_verified = Some(at);
                self.failed = None;
            }
            BootStage::FileVerified { name, .. } => self.file_verified = Some((at, name.clone())),
            BootStage::StartingKernel => {
                self.kernel = Some(at);
                self.failed = None;
            }
            BootStage::AgentStarted { .. } => self.agent_started = Some(at),
            BootStage::Failed { reason } => self.failed = Some(reason.clone()),
            BootStage::LocalDisk => {
                self.failed = None;
                self.local_disk = Some(at);
            }
        }
    }
}
