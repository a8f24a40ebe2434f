//! Firmware attributes of ready machines, watched: read through the BMC from time to time, and at once when it was silent
//! and answers again or the machine was switched on. Nothing is ever set here: what differs is shown as drift, and the
//! next plan has it put right.
//!
//! A machine that is in work, in maintenance or not ready is left alone. How fast one BMC may be asked is the business of
//! `rackbar-devices`, which every way to it shares.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rackbar_model::{Node, NodeId, NodeState, PowerState};
use tokio::sync::Semaphore;

use super::memory::NodeWork;
use super::{Book, Inner};
use crate::bmc::{BmcError, bmc_mac};
use crate::rack::locked;

/// Between two looks at the firmware attributes of a machine: they change when somebody stands in front of it.
pub const SETTINGS_LOOK: Duration = Duration::from_secs(60 * 60);

/// From switching on to the look: firmware tells its BMC what it was set to at the end of its own start.
const AFTER_POWER_ON: Duration = Duration::from_secs(5 * 60);

/// The longest between two tries of a BMC that does not tell.
const SLOWEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Machines asked at a time, beside all else that is asked of BMCs.
const AT_ONCE: usize = 4;

/// When each machine is asked next.
pub(super) struct Watch {
    every: Duration,
    nodes: HashMap<NodeId, Asked>,
    permits: Arc<Semaphore>,
}

impl Watch {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            every,
            nodes: HashMap::new(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

/// What is remembered of a machine between two looks.
struct Asked {
    due: Instant,
    busy: bool,
    failures: u32,
    /// Its BMC answered when it was last looked at.
    heard: bool,
    power: PowerState,
}

impl Asked {
    const fn new(now: Instant) -> Self {
        Self {
            due: now,
            busy: false,
            failures: 0,
            heard: false,
            power: PowerState::Unknown,
        }
    }

    /// Takes what is seen of the machine; true when it is to be asked now.
    fn is_due(&mut self, heard: bool, power: PowerState, now: Instant) -> bool {
        if heard && !self.heard {
            (self.due, self.failures) = (now, 0);
        }
        if power == PowerState::On && self.power == PowerState::Off {
            self.due = now + AFTER_POWER_ON;
        }
        (self.heard, self.power) = (heard, power);
        heard && !self.busy && self.due <= now
    }

    fn ended(&mut self, well: bool, every: Duration, now: Instant) {
        self.busy = false;
        self.failures = if well { 0 } else { self.failures.saturating_add(1) };
        let doublings = 1 << self.failures.min(10);
        self.due = now + every.saturating_mul(doublings).min(SLOWEST.max(every));
    }
}

/// Firmware attributes that a node was given, as far as its role still speaks of them, and those its role wants besides.
pub(super) fn wanted(book: &Book, role: Option<&str>, work: &NodeWork) -> BTreeMap<String, String> {
    let site = book.site.as_ref();
    let Some(role) = site.and_then(|site| site.site.role.get(role?)) else {
        return work.wanted_bios.clone();
    };
    let given = |name: &String| work.wanted_bios.get(name).cloned();
    let all = role.bios.iter();
    all.map(|(name, value)| (name.clone(), given(name).unwrap_or_else(|| value.0.clone())))
        .collect()
}

/// What differs in firmware attributes that were read, a sentence each.
pub(super) fn drift(book: &Book, node: &Node, work: &NodeWork) -> Vec<String> {
    let Some(seen) = &work.bios else { return Vec::new() };
    let wanted = wanted(book, node.role.as_deref(), work);
    let differs = wanted.iter().filter(|(name, value)| seen.get(*name) != Some(*value));
    differs
        .map(|(name, value)| match seen.get(name) {
            Some(other) => format!("the firmware attribute {name} is {other}, wanted {value}"),
            None => format!("the firmware attribute {name} is not there, wanted {value}"),
        })
        .collect()
}

impl Inner {
    /// Asks those that are due, once a second.
    pub(super) fn look_at_settings(self: &Arc<Self>) {
        let book = locked(&self.book);
        let mut watch = locked(&self.settings);
        let watch = &mut *watch;
        watch.nodes.retain(|node, _| book.work.contains_key(node));
        for (id, work) in book.work.iter().filter(|(_, work)| work.ready.is_some()) {
            let Some(node) = self.rack.node_by_id(*id) else {
                continue;
            };
            if node.state != NodeState::Ready || wanted(&book, node.role.as_deref(), work).is_empty() {
                continue;
            }
            let heard = self
                .rack
                .look(|mind| mind.records.get(&node.id).is_some_and(|record| record.bmc_asked));
            let now = Instant::now();
            let asked = watch.nodes.entry(*id).or_insert_with(|| Asked::new(now));
            if !asked.is_due(heard, node.power, now) || book.busy(*id).is_some() {
                continue;
            }
            let Ok(permit) = watch.permits.clone().try_acquire_owned() else {
                return;
            };
            asked.busy = true;
            self.read_settings(&node, permit);
        }
    }

    fn read_settings(self: &Arc<Self>, node: &Node, permit: tokio::sync::OwnedSemaphorePermit) {
        let (id, address, mac) = (node.id, node.bmc_address, bmc_mac(node));
        let door = self.rack.inner.door.get().cloned();
        let weak = Arc::downgrade(self);
        self.runtime.spawn(async move {
            let seen = match door.zip(address) {
                Some((door, address)) => {
                    mac.into_iter().for_each(|mac| door.introduce(address, mac));
                    door.bios(address).await
                }
                None => Err(BmcError::Silent("it has no BMC that we know".into())),
            };
            drop(permit);
            if let Some(inner) = weak.upgrade() {
                inner.settings_seen(id, seen);
            }
        });
    }

    fn settings_seen(&self, node: NodeId, seen: Result<BTreeMap<String, String>, BmcError>) {
        let mut book = locked(&self.book);
        {
            let mut watch = locked(&self.settings);
            let every = watch.every;
            if let Some(asked) = watch.nodes.get_mut(&node) {
                asked.ended(seen.is_ok(), every, Instant::now());
            }
        }
        match seen {
            // What was begun meanwhile reads for itself, and knows better.
            Ok(seen) if self.is_settled(&book, node) => {
                book.work(node, |work| work.bios = Some(seen));
                book.looked_at = 0;
                drop(book);
                self.wake();
            }
            Ok(_) => {}
            Err(error) => tracing::info!(%node, %error, "firmware attributes could not be read to look for drift"),
        }
    }

    fn is_settled(&self, book: &Book, node: NodeId) -> bool {
        let shown = self.rack.node_by_id(node);
        book.busy(node).is_none() && shown.is_some_and(|node| node.state == NodeState::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(60);

    #[test]
    fn a_machine_is_asked_in_its_time_and_when_its_bmc_is_heard_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut one = Asked::new(start);
        assert!(!one.is_due(false, PowerState::On, start), "a silent BMC is not asked");
        assert!(one.is_due(true, PowerState::On, start));
        one.busy = true;
        assert!(!one.is_due(true, PowerState::On, at(100)), "one conversation at a time");
        one.ended(true, EVERY, at(100));
        assert!(!one.is_due(true, PowerState::On, at(159)));
        assert!(one.is_due(true, PowerState::On, at(160)));
        one.ended(true, EVERY, at(160));
        assert!(!one.is_due(false, PowerState::On, at(170)));
        assert!(
            one.is_due(true, PowerState::On, at(171)),
            "it was silent and answers again"
        );
    }

    #[test]
    fn one_that_does_not_tell_is_asked_ever_more_rarely_and_one_switched_on_after_its_start() {
        let start = Instant::now();
        let mut one = Asked::new(start);
        assert!(one.is_due(true, PowerState::On, start));
        let pauses: Vec<u64> = (0..12)
            .map(|_| {
                one.ended(false, EVERY, start);
                (one.due - start).as_secs()
            })
            .collect();
        assert_eq!(pauses[..3], [120, 240, 480]);
        assert_eq!(pauses[11], EVERY.as_secs() << 10);
        one.ended(true, EVERY, start);
        assert!(!one.is_due(true, PowerState::Off, start));
        assert!(!one.is_due(true, PowerState::On, start + EVERY));
        assert!(one.is_due(true, PowerState::On, start + EVERY + AFTER_POWER_ON));
    }
}
