//! What becomes an event, and what is kept from the journal: repeats, and floods.

use rackbar_model::{EventKind, Severity, Timestamp};

use super::question::{Question, Speaker, relay_id};
use super::{Admission, Engine, event};
use crate::Output;
use crate::packet::{MessageType, code, relay};
use crate::shift::Shift;

/// New clients told of at once, and how many more per second: a flood of made-up MAC addresses must not fill the
/// journal. Two full racks that power on together stay far below.
const TELL_BURST: u64 = 2048;
const TELL_PER_SECOND: u64 = 64;
/// How often a flood is told again, in milliseconds.
const FLOOD_AGAIN: u64 = 60_000;

/// Firmware tries again after four and eight seconds; one packet may be lost anywhere. Ten minutes no firmware waits: such
/// a number has its octets turned round.
const LATE: std::ops::RangeInclusive<u16> = 8..=600;

/// Tokens for telling of new clients.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: u64,
    refilled: Timestamp,
    flood_told: Option<Timestamp>,
}

impl Bucket {
    pub(super) fn full() -> Self {
        Self {
            tokens: TELL_BURST,
            refilled: Timestamp(0),
            flood_told: None,
        }
    }

    pub(super) fn take(&mut self, now: Timestamp) -> bool {
        let earned = now.since(self.refilled).saturating_mul(TELL_PER_SECOND) / 1000;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(TELL_BURST);
            self.refilled = now;
        }
        let some = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        some
    }

    /// The clock was set.
    pub(super) fn shift(&mut self, by: Shift) {
        by.apply(&mut self.refilled);
        if let Some(told) = &mut self.flood_told {
            by.apply(told);
        }
    }
}

impl Engine {
    /// Says once per client that the policy keeps something from it.
    pub(super) fn tell_ignored(&mut self, question: &Question<'_>, admission: Admission, out: &mut Vec<Output>) {
        let reason = match admission {
            Admission::All => return,
            Admission::AddressOnly if question.speaker == Speaker::Plain => return,
            Admission::AddressOnly => "not listed: the policy for unknown machines gives an address but no boot file",
            Admission::Nothing => "not listed: the policy for unknown machines is to ignore them",
        };
        if let Some(memory) = self.clients.get_mut(question.mac)
            && !std::mem::replace(&mut memory.ignored, true)
        {
            out.push(event(
                question.mac,
                EventKind::ClientIgnored {
                    reason: reason.to_owned(),
                },
            ));
        }
    }

    /// True the first time this message is heard in its transaction.
    pub(super) fn first_heard(&mut self, now: Timestamp, question: &Question<'_>, kind: MessageType) -> bool {
        let xid = question.packet.xid();
        self.clients
            .get_mut(question.mac)
            .is_some_and(|memory| memory.tell_once(xid, kind as u8, now))
    }

    /// The seconds a booting machine says it has been asking, where nothing of that was heard: its first tries were lost
    /// on the way. `None` where that is not so, or `secs` cannot be right.
    pub(super) fn asks_late(&self, now: Timestamp, question: &Question<'_>) -> Option<u16> {
        let seconds = question.packet.secs();
        let boots = question.speaker != Speaker::Plain;
        let heard = self
            .clients
            .get(question.mac)
            .is_some_and(|memory| memory.spoke_within(u64::from(seconds) * 1000, now));
        (boots && !heard && LATE.contains(&seconds)).then_some(seconds)
    }

    /// Says once per client that it netboots but we have nothing for its architecture.
    pub(super) fn tell_fileless(&mut self, question: &Question<'_>, out: &mut Vec<Output>) {
        if self.config.boot.enabled
            && let Some(memory) = self.clients.get_mut(question.mac)
            && !std::mem::replace(&mut memory.fileless, true)
        {
            let named = question.arch.filter(|arch| self.config.boot.file(*arch).is_none());
            let text = match (question.arch, named) {
                (Some(arch), None) => format!(
                    "wants to netboot, but the boot file of its firmware ({arch}) is not to be had over TLS, and \
                     boot.negotiate allows nothing else"
                ),
                (_, Some(arch)) => {
                    let code = arch.code();
                    format!(
                        "wants to netboot, but no boot file is configured for its firmware ({arch}, architecture {code}): \
                         name one in a [[boot.file]] with architecture = {code}"
                    )
                }
                (None, None) => {
                    "wants to netboot, but no boot file is configured for its firmware (no architecture named)"
                        .to_owned()
                }
            };
            out.push(event(
                question.mac,
                EventKind::Note {
                    text,
                    severity: Severity::Warning,
                },
            ));
        }
    }

    /// Says once a minute that not every new client is told.
    pub(super) fn tell_flood(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if self.tell.flood_told.is_some_and(|at| now.since(at) < FLOOD_AGAIN) {
            return;
        }
        self.tell.flood_told = Some(now);
        let text = format!(
            "more new DHCP clients than {TELL_PER_SECOND} per second: they are served, but not each is told; look for a \
             loop or for a host that makes up MAC addresses"
        );
        out.push(Output::Event {
            mac: None,
            kind: EventKind::Note {
                text,
                severity: Severity::Warning,
            },
        });
    }
}

/// The event of a DISCOVER.
pub(super) fn discover_event(network: &str, question: &Question<'_>) -> EventKind {
    let info = question.packet.sub_options(code::RELAY_INFO);
    EventKind::DhcpDiscover {
        network: network.to_owned(),
        arch: question.arch,
        vendor_class: question.text(code::VENDOR_CLASS),
        user_class: question.text(code::USER_CLASS),
        relay: question.relay(),
        circuit_id: info.get(relay::CIRCUIT_ID).and_then(relay_id),
        remote_id: info.get(relay::REMOTE_ID).and_then(relay_id),
    }
}
