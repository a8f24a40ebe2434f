//! One node as the orchestrator holds it, and as the store keeps it.

use std::collections::VecDeque;
use std::sync::Arc;

use rackbar_messages::ToAgent;
use rackbar_model::{Event, EventKind, FailedIn, Inventory, MacAddr, Node, NodeId, NodeState, PowerState, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::power::Asks;

/// Events kept at hand per node for its verdict: a boot is about thirty.
const RECENT: usize = 96;

/// How sure we are that a node is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Standing {
    /// Only packets anyone could send: forgotten after a while.
    Packets,
    /// It fetched boot files: kept for a day.
    Booting,
    /// Its agent proved itself, its BMC answered, or it holds a lease.
    Firm,
}

pub(crate) struct Record {
    /// What the API shows. Readers hold clones of the `Arc`; changing it copies when they do.
    pub(crate) node: Arc<Node>,
    pub(crate) standing: Standing,
    /// Last progress in the present state.
    pub(crate) progress: Timestamp,
    /// Identities that turned out to be this machine.
    pub(crate) aliases: Vec<NodeId>,
    pub(crate) recent: VecDeque<Event>,
    pub(crate) agent: Option<AgentLink>,
    /// Its BMC said in this run who it is; an address alone, from the host or an earlier run, is asked first.
    pub(crate) bmc_asked: bool,
    /// Something happened since the verdict was given.
    pub(crate) verdict_due: bool,
    /// To be written to the store.
    pub(crate) dirty: bool,
    /// What it boots when it asks the network.
    pub(crate) boots: Boots,
}

/// What a machine boots when it asks the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Boots {
    /// Our agent.
    #[default]
    Agent,
    /// Its own disk: it is installed.
    Disk,
}

/// The connection of a node's agent.
#[derive(Clone)]
pub(crate) struct AgentLink {
    /// Distinguishes this connection from an older one of the same node that ends later.
    pub(crate) connection: u64,
    /// Distinguishes this boot of the machine from others, across connections and restarts of the appliance.
    pub(crate) boot: [u8; 32],
    pub(crate) send: mpsc::Sender<ToAgent>,
    pub(crate) asks: Arc<Asks>,
}

/// A node in the store. The inventory is kept apart, in its history.
#[derive(Serialize, Deserialize)]
struct Saved {
    node: Node,
    #[serde(default)]
    aliases: Vec<NodeId>,
    #[serde(default)]
    progress: Timestamp,
}

impl Record {
    pub(crate) fn new(id: NodeId, name: String, now: Timestamp) -> Self {
        let node = Node {
            id,
            name,
            state: NodeState::Enrolled,
            state_since: now,
            first_seen: now,
            last_seen: now,
            agent_connected: false,
            power: PowerState::Unknown,
            address: None,
            bmc_address: None,
            macs: Vec::new(),
            witnesses: Vec::new(),
            collisions: Vec::new(),
            inventory: None,
            inventory_at: None,
            verdict: String::new(),
            role: None,
            run: None,
            doing: None,
            percent: None,
            drift: Vec::new(),
            installed: None,
            adopted: None,
        };
        Self::of(node, Standing::Packets, now)
    }

    fn of(node: Node, standing: Standing, progress: Timestamp) -> Self {
        Self {
            node: Arc::new(node),
            standing,
            progress,
            aliases: Vec::new(),
            recent: VecDeque::new(),
            agent: None,
            bmc_asked: false,
            verdict_due: true,
            dirty: true,
            boots: Boots::Agent,
        }
    }

    /// The record of an earlier run. Connections do not outlive a run, and power is asked again.
    pub(crate) fn restore(
        json: &[u8],
        inventory: Option<(Timestamp, Inventory)>,
        recent: Vec<Event>,
    ) -> Result<Self, serde_json::Error> {
        let Saved {
            mut node,
            aliases,
            progress,
        } = serde_json::from_slice(json)?;
        node.agent_connected = false;
        node.power = PowerState::Unknown;
        // What is being done is told anew by whoever does it.
        (node.doing, node.percent) = (None, None);
        (node.inventory_at, node.inventory) = inventory.unzip();
        let mut record = Self::of(node, Standing::Firm, progress);
        record.aliases = aliases;
        record.recent = recent.into();
        record.dirty = false;
        Ok(record)
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let node = Node {
            inventory: None,
            ..Node::clone(&self.node)
        };
        serde_json::to_vec(&Saved {
            node,
            aliases: self.aliases.clone(),
            progress: self.progress,
        })
    }

    pub(crate) fn edit(&mut self) -> &mut Node {
        Arc::make_mut(&mut self.node)
    }

    /// Raises the standing; true when the node has just become one to keep.
    pub(crate) fn stand(&mut self, standing: Standing) {
        if standing > self.standing {
            self.standing = standing;
            self.dirty = true;
        }
    }

    /// Has its agent look again; false when none is connected.
    pub(crate) fn ask_facts(&self) -> bool {
        let Some(agent) = &self.agent else { return false };
        // A full channel has asks waiting already.
        let ask = rackbar_messages::Ask::Facts;
        let _ = agent.send.try_send(ToAgent::Ask { id: 0, ask });
        true
    }

    pub(crate) fn remember(&mut self, event: &Event) {
        // A running system renews its lease for ever; that must not push the story of its boot out.
        let renewal = matches!(event.kind, EventKind::DhcpRequest { .. } | EventKind::DhcpAck { .. });
        let booting = matches!(
            self.recent.back().map(|last| &last.kind),
            Some(EventKind::DhcpDiscover { .. } | EventKind::DhcpOffer { .. } | EventKind::DhcpRequest { .. })
        );
        if renewal && !booting && self.agent.is_some() {
            return;
        }
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(event.clone());
        self.verdict_due = true;
    }

    /// Gives the verdict on what happened lately; true when it is another than before.
    pub(crate) fn judge(&mut self, now: Timestamp) -> bool {
        let verdict = self.settled().unwrap_or_else(|| {
            let rackbar_boot::Verdict { text, next_step, .. } =
                rackbar_boot::verdict(self.recent.make_contiguous(), now);
            if next_step.is_empty() {
                text
            } else {
                format!("{text}; {next_step}")
            }
        });
        let changed = verdict != self.node.verdict;
        if changed {
            // Not written for its own sake: it counts seconds, and is given anew after a restart.
            self.edit().verdict = verdict;
        }
        changed
    }

    /// The verdict on a machine whose last boot is no longer what matters: somebody keeps hands off it, work on it failed,
    /// or it runs its own system, where the silence of our agent is as it should be.
    fn settled(&self) -> Option<String> {
        let reason = || {
            let state = self.node.state.name();
            self.recent.iter().rev().find_map(|event| match &event.kind {
                EventKind::StateChanged { to, reason, .. } if to == state => Some(reason.as_str()),
                _ => None,
            })
        };
        match &self.node.state {
            NodeState::Maintenance => Some(format!("in maintenance: {}", reason().unwrap_or("hands off"))),
            NodeState::Failed(FailedIn {
                reason, retry: None, ..
            }) => Some(reason.clone()),
            NodeState::Ready if self.agent.is_none() && self.boots == Boots::Disk => {
                let words = reason().unwrap_or("its checks passed");
                Some(format!("runs its own system; {words}"))
            }
            _ => None,
        }
    }

    pub(crate) fn add_mac(&mut self, mac: MacAddr) {
        if !self.node.macs.contains(&mac) {
            self.edit().macs.push(mac);
            self.dirty = true;
        }
    }

    /// Takes over what `gone` knew. The caller moves indexes and events.
    pub(crate) fn absorb(&mut self, gone: Record) {
        let automatic = is_automatic(&self.node.name) && !is_automatic(&gone.node.name);
        let theirs = Arc::unwrap_or_clone(gone.node);
        let node = self.edit();
        for mac in theirs.macs {
            if !node.macs.contains(&mac) {
                node.macs.push(mac);
            }
        }
        node.witnesses.extend(theirs.witnesses);
        node.witnesses.sort();
        node.witnesses.dedup();
        node.first_seen = node.first_seen.min(theirs.first_seen);
        node.last_seen = node.last_seen.max(theirs.last_seen);
        if automatic {
            node.name = theirs.name;
        }
        if rank(&theirs.state) > rank(&node.state) {
            node.state = theirs.state;
            node.state_since = theirs.state_since;
        }
        if theirs.inventory_at > node.inventory_at {
            node.inventory = theirs.inventory;
            node.inventory_at = theirs.inventory_at;
        }
        node.address = node.address.or(theirs.address);
        node.bmc_address = node.bmc_address.or(theirs.bmc_address);
        if node.power == PowerState::Unknown {
            node.power = theirs.power;
        }
        node.agent_connected |= theirs.agent_connected;
        node.role = node.role.take().or(theirs.role);
        node.run = node.run.max(theirs.run);
        node.installed = node.installed.take().or(theirs.installed);
        node.adopted = node.adopted.take().or(theirs.adopted);
        self.agent = self.agent.take().or(gone.agent);
        self.bmc_asked |= gone.bmc_asked;
        self.progress = self.progress.max(gone.progress);
        self.standing = self.standing.max(gone.standing);
        self.aliases.push(theirs.id);
        self.aliases.extend(gone.aliases);
        let mut recent: Vec<Event> = self.recent.drain(..).chain(gone.recent).collect();
        recent.sort_by_key(|event| event.at);
        self.recent = recent.split_off(recent.len().saturating_sub(RECENT)).into();
        self.dirty = true;
        self.verdict_due = true;
    }
}

/// True for a name we gave by order of first sight.
pub(crate) fn is_automatic(name: &str) -> bool {
    name.strip_prefix("node-")
        .is_some_and(|rest| rest.len() >= 3 && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// Which of two states of one machine tells more.
const fn rank(state: &NodeState) -> u8 {
    match state {
        NodeState::Enrolled => 0,
        NodeState::Failed(_) => 1,
        NodeState::Inspecting => 2,
        NodeState::Discovered => 3,
        NodeState::Available => 4,
        NodeState::Configuring => 5,
        NodeState::Provisioning => 6,
        NodeState::Ready => 7,
        NodeState::Cleaning => 8,
        NodeState::Maintenance => 9,
        NodeState::HandedOver => 10,
    }
}
