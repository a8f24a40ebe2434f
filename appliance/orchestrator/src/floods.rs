//! What the journal keeps of floods. It holds so many events and drops the oldest, so whoever causes events without end
//! would wash out everybody else's history, and the trail of who changed what. What outside packets and requests cause
//! is therefore limited before it is kept:
//!
//! ```text
//! event ──▶ of outside? ──no──▶ kept
//!             └─yes─▶ of this kind and sender: BURST at once, one a second after ──┐
//!                       └─ a sender anybody can make up: all of them together, too ┴─▶ kept, or held and counted
//! ```
//! Only keeping is limited. What an event means for its machine is taken up and subscribers hear of it all the same.
//!
//! Buckets are one number each, the time at which they are full again (the generic cell rate algorithm of ITU-T I.371,
//! as virtual scheduling). One that is full says nothing that a new one does not, so those go, and the table stays small.

use std::collections::HashMap;
use std::net::IpAddr;

use rackbar_model::{Event, EventKind, MacAddr, NodeId, Severity, Timestamp};

/// Events of one kind and sender at once: a boot has about thirty of all kinds, one that fetches its files in ranges or by
/// a broken ROM a few times as many.
const BURST: u64 = 120;
/// Then one in so many milliseconds: a machine that boots twenty times an hour stays far below.
const EACH: u64 = 1_000;

/// Events at once, of all senders together that anybody can make up: five hundred new machines that are switched on at the
/// same moment have fifteen thousand.
const CROWD_BURST: u64 = 20_000;
/// Then one in so many milliseconds: the same five hundred, each starting over every few minutes.
const CROWD_EACH: u64 = 10;

/// Kinds and senders told apart: a thousand machines with a dozen kinds each.
const MAX_KEYS: usize = 16_384;

/// Between two looks at what is not needed any more.
const SWEEP: u64 = 1_000;
/// What was held is told after so many quiet milliseconds, and at least so often while it goes on.
const QUIET: u64 = 10_000;
const LASTS: u64 = 60_000;

/// A clock that jumps further than this was set. All buckets are full again after that time.
const JUMP: u64 = 10 * 60 * 1_000;

/// No event waits in its queue for so long: a clock that is further back was set.
const LATE: u64 = 10_000;

/// Who caused an event, as far as we know.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Sender {
    Node(NodeId),
    Mac(MacAddr),
    Address(IpAddr),
    Unknown,
}

/// A sender, and the name of the kind.
type Key = (Sender, &'static str);

/// A bucket of tokens, and what it held back.
#[derive(Clone, Copy, Default)]
struct Bucket {
    /// When it is full again.
    full: u64,
    /// Events held since it was last told.
    held: u64,
    /// When the first and the last of them came.
    first: u64,
    last: u64,
}

impl Bucket {
    /// Takes a token; false, and counted, when there is none.
    fn takes(&mut self, now: u64, each: u64, burst: u64) -> bool {
        let full = self.full.max(now) + each;
        if full - now <= each * burst {
            self.full = full;
            return true;
        }
        if self.held == 0 {
            self.first = now;
        }
        self.held += 1;
        self.last = now;
        false
    }

    /// How many were held in how many seconds, when it is time to tell.
    fn told(&mut self, now: u64) -> Option<(u64, u64)> {
        let due = self.held > 0 && (now - self.last >= QUIET || now - self.first >= LASTS);
        due.then(|| {
            (
                std::mem::take(&mut self.held),
                (self.last - self.first).div_ceil(1_000).max(1),
            )
        })
    }

    const fn is_idle(&self, now: u64) -> bool {
        self.held == 0 && self.full <= now
    }
}

/// Decides which events the journal keeps.
#[derive(Default)]
pub(crate) struct Floods {
    keys: HashMap<Key, Bucket>,
    /// Of all senders together that anybody can make up.
    crowd: Bucket,
    /// Of all others for whom the table has no room.
    rest: Bucket,
    /// Milliseconds that have passed, however the clock was set.
    elapsed: u64,
    seen: Timestamp,
    swept: u64,
}

impl Floods {
    /// True when the journal keeps this event. `stranger`: nothing proves that its sender exists.
    pub(crate) fn keep(&mut self, event: &Event, stranger: bool) -> bool {
        let Some(kind) = of_outside(event) else { return true };
        self.pass(event.at);
        let (now, key) = (self.elapsed, (sender(event), kind));
        if let Some(bucket) = self.keys.get_mut(&key) {
            return bucket.takes(now, EACH, BURST) && (!stranger || self.crowd.takes(now, CROWD_EACH, CROWD_BURST));
        }
        // Before it gets a place, so that made-up senders do not fill the table.
        if stranger && !self.crowd.takes(now, CROWD_EACH, CROWD_BURST) {
            return false;
        }
        if self.keys.len() >= MAX_KEYS && now - self.swept >= SWEEP {
            self.sweep();
        }
        if self.keys.len() >= MAX_KEYS {
            return stranger || self.rest.takes(now, CROWD_EACH, CROWD_BURST);
        }
        self.keys.entry(key).or_default().takes(now, EACH, BURST)
    }

    /// Time passes: what was held is told, and what is not needed any more goes. `name`: what a node is called.
    pub(crate) fn tick(&mut self, now: Timestamp, name: impl Fn(NodeId) -> Option<String>) -> Vec<Event> {
        self.pass(now);
        let elapsed = self.elapsed;
        let mut notes = Vec::new();
        for ((sender, kind), bucket) in &mut self.keys {
            let Some((held, seconds)) = bucket.told(elapsed) else {
                continue;
            };
            let (mut node, mut mac) = (None, None);
            let from = match *sender {
                Sender::Node(id) => {
                    node = Some(id);
                    name(id).unwrap_or_else(|| id.to_string())
                }
                Sender::Mac(address) => {
                    mac = Some(address);
                    address.to_string()
                }
                Sender::Address(address) => address.to_string(),
                Sender::Unknown => "an unknown sender".to_owned(),
            };
            let text = format!("{held} more events of this kind ({kind}) from {from} in {seconds} s were not kept");
            notes.push(note(now, node, mac, text));
        }
        for (bucket, whose) in [
            (&mut self.crowd, "machines that nothing proves to exist"),
            (&mut self.rest, "more machines than are told apart"),
        ] {
            if let Some((held, seconds)) = bucket.told(elapsed) {
                let text = format!("{held} more events of {whose} in {seconds} s were not kept");
                notes.push(note(now, None, None, text));
            }
        }
        self.sweep();
        notes
    }

    fn sweep(&mut self) {
        let now = self.elapsed;
        self.keys.retain(|_, bucket| !bucket.is_idle(now));
        self.swept = now;
    }

    /// Events wait in a queue, so that one may be a little older than the tick before it.
    fn pass(&mut self, now: Timestamp) {
        let back = self.seen.since(now);
        if back == 0 || back >= LATE {
            self.elapsed += now.since(self.seen).min(JUMP);
            self.seen = now;
        }
    }
}

const fn note(at: Timestamp, node: Option<NodeId>, mac: Option<MacAddr>, text: String) -> Event {
    let severity = Severity::Warning;
    Event {
        seq: 0,
        at,
        node,
        mac,
        kind: EventKind::Note { text, severity },
    }
}

/// The machine; before it is known its interface, or else the address it sent from.
fn sender(event: &Event) -> Sender {
    let address = match &event.kind {
        EventKind::TftpRequest { client, .. }
        | EventKind::TftpDone { client, .. }
        | EventKind::TftpFailed { client, .. }
        | EventKind::HttpSent { client, .. } => Some(*client),
        EventKind::AgentRefused { address, .. } => Some(*address),
        EventKind::ForeignDhcpServer { server, .. } => Some(IpAddr::V4(*server)),
        _ => None,
    };
    let node = event.node.map(Sender::Node);
    node.or(event.mac.map(Sender::Mac))
        .or(address.map(Sender::Address))
        .unwrap_or(Sender::Unknown)
}

/// The name of a kind of which whoever sends packets or requests causes as many events as he likes. `None` for what
/// people or this appliance do: none of that is ever left out. A new kind belongs in one of the two.
const fn of_outside(event: &Event) -> Option<&'static str> {
    match &event.kind {
        EventKind::DhcpDiscover { .. } => Some("DHCPDISCOVER"),
        EventKind::DhcpOffer { .. } => Some("DHCPOFFER"),
        EventKind::DhcpRequest { .. } => Some("DHCPREQUEST"),
        EventKind::DhcpAck { .. } => Some("DHCPACK"),
        EventKind::DhcpNak { .. } => Some("DHCPNAK"),
        EventKind::DhcpDecline { .. } => Some("DHCPDECLINE"),
        EventKind::DhcpRelease { .. } => Some("DHCPRELEASE"),
        EventKind::AddressConflict { .. } => Some("address in use"),
        EventKind::ForeignDhcpServer { .. } => Some("foreign DHCP server"),
        EventKind::WayChanged { .. } => Some("way of booting"),
        EventKind::ClientIgnored { .. } => Some("ignored client"),
        EventKind::TftpRequest { .. } => Some("TFTP request"),
        EventKind::TftpDone { .. } => Some("TFTP transfer"),
        EventKind::TftpFailed { .. } => Some("failed TFTP transfer"),
        EventKind::HttpSent { .. } => Some("HTTP request"),
        EventKind::Boot(_) => Some("boot report"),
        EventKind::AgentUp { .. } => Some("agent connected"),
        EventKind::AgentLost { .. } => Some("agent lost"),
        EventKind::AgentRefused { .. } => Some("agent refused"),
        EventKind::Facts { .. } => Some("inventory"),
        EventKind::IdentityCollision { .. } => Some("identity shown twice"),
        EventKind::AskedLate { .. } => Some("late DHCP packet"),
        EventKind::PortSays(_) => Some("switch port"),
        // Of an interface it is what a service saw on the wire; all others are ours.
        EventKind::Note { .. } if event.mac.is_some() => Some("note"),
        EventKind::Note { .. } => None,
        // Nodes that strangers make are few already; each has this event once.
        EventKind::NodeEnrolled { .. } | EventKind::NodesMerged { .. } => None,
        // Our judgement of what came, our own looks at BMCs.
        EventKind::StateChanged { .. }
        | EventKind::DriftSeen { .. }
        | EventKind::DriftGone { .. }
        | EventKind::BmcFound { .. }
        | EventKind::BmcFailed { .. }
        | EventKind::PowerChanged { .. } => None,
        // What people do, and what we do for them.
        EventKind::PowerRequested { .. }
        | EventKind::Service { .. }
        | EventKind::Config { .. }
        | EventKind::Changed { .. }
        | EventKind::SiteSet { .. }
        | EventKind::RoleBound { .. }
        | EventKind::RunChanged { .. }
        | EventKind::ActionStarted { .. }
        | EventKind::ActionDone { .. }
        | EventKind::ActionFailed { .. }
        | EventKind::ActionSkipped { .. } => None,
    }
}

#[cfg(test)]
#[path = "floods_tests.rs"]
mod tests;
