//! Building one node's chain of actions: names, bounds and estimates in one place.

use rackbar_model::{BurnIn, EraseMethod, NodeId};

use crate::{Action, ActionId, ActionKind, Change, Layer, Limits, RestartWay, Target};

/// A node's actions, each needing those before it that nothing needs yet.
pub(super) struct Chain<'a> {
    name: &'a str,
    node: NodeId,
    tips: Vec<ActionId>,
    pub(super) actions: Vec<Action>,
}

/// What [`Chain::push`] cannot know from the kind.
#[derive(Default)]
pub(super) struct Because {
    pub(super) reason: String,
    pub(super) changes: Vec<Change>,
    pub(super) destroys: Option<String>,
}

impl Because {
    pub(super) fn reason(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            ..Self::default()
        }
    }
}

impl<'a> Chain<'a> {
    pub(super) const fn new(name: &'a str, node: NodeId) -> Self {
        Self {
            name,
            node,
            tips: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// The name an action of this node has.
    pub(super) fn id(&self, suffix: &str) -> ActionId {
        ActionId(format!("{}/{suffix}", self.name))
    }

    /// Adds an action behind all others.
    pub(super) fn push(&mut self, kind: ActionKind, because: Because) {
        let needs = self.tips.clone();
        let id = self.id(kind.name());
        let limits = limits(&kind);
        self.add(id, kind, needs, limits, because);
    }

    /// Adds an action with its own name, needs and bounds.
    pub(super) fn add(
        &mut self,
        id: ActionId,
        kind: ActionKind,
        needs: Vec<ActionId>,
        limits: Limits,
        because: Because,
    ) {
        let Because {
            reason,
            changes,
            destroys,
        } = because;
        let target = match kind {
            ActionKind::RotatePassword
            | ActionKind::BiosSettings { .. }
            | ActionKind::BiosVerify { .. }
            | ActionKind::BmcSetUp { .. } => Target::Bmc(self.node),
            _ => Target::Node(self.node),
        };
        self.tips.retain(|tip| !needs.contains(tip));
        self.tips.push(id.clone());
        self.actions.push(Action {
            id,
            node: Some(self.node),
            target,
            layer: layer(&kind),
            changes,
            needs,
            destroys,
            reboots: matches!(
                kind,
                ActionKind::Agent { fresh: true } | ActionKind::Restart { .. } | ActionKind::Installer { .. }
            ),
            estimate_seconds: estimate(&kind),
            reason,
            limits,
            kind,
        });
    }
}

pub(super) const fn layer(kind: &ActionKind) -> Layer {
    match kind {
        ActionKind::RotatePassword
        | ActionKind::BiosSettings { .. }
        | ActionKind::Agent { .. }
        | ActionKind::BiosVerify { .. }
        | ActionKind::BurnIn(_)
        | ActionKind::BmcSetUp { .. }
        | ActionKind::BootOrder { .. } => Layer::Firmware,
        ActionKind::Erase { .. }
        | ActionKind::WriteImage { .. }
        | ActionKind::Installer { .. }
        | ActionKind::Setup { .. }
        | ActionKind::Restart { .. }
        | ActionKind::Reachable { .. }
        | ActionKind::Verify { .. }
        | ActionKind::StayInMemory { .. } => Layer::System,
        ActionKind::Step(_) | ActionKind::Rescue { .. } => Layer::Applications,
        ActionKind::Service(_) => Layer::Clients,
        ActionKind::Barrier { .. } => Layer::Coordination,
    }
}

/// Bytes per second an image is counted with: a link of 1 Gbit/s shared with others.
const WRITE_RATE: u64 = 50 << 20;
/// Bytes per second a whole disk is overwritten with.
const OVERWRITE_RATE: u64 = 150 << 20;

fn seconds(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn largest(disks: &[rackbar_model::DiskRef]) -> u64 {
    disks.iter().filter_map(|disk| disk.size_bytes).max().unwrap_or(0)
}

const fn burn_in_seconds(burn_in: &BurnIn) -> u32 {
    burn_in
        .cpu_seconds
        .saturating_add(burn_in.memory_seconds)
        .saturating_add(burn_in.disk_seconds)
}

/// Expected seconds. A server's firmware takes two to five minutes to reach its boot device.
pub(super) fn estimate(kind: &ActionKind) -> u32 {
    match kind {
        ActionKind::RotatePassword | ActionKind::BiosSettings { .. } | ActionKind::BiosVerify { .. } => 10,
        ActionKind::Agent { fresh: true } => 240,
        ActionKind::Agent { fresh: false } | ActionKind::Setup { .. } | ActionKind::BootOrder { .. } => 5,
        ActionKind::BurnIn(burn_in) => burn_in_seconds(burn_in),
        ActionKind::Erase { disks, method } => match method {
            EraseMethod::Signatures | EraseMethod::Crypto => 5,
            EraseMethod::Discard => 30,
            // A flash device sanitizes by block in a minute or two; a rotating one overwrites itself.
            EraseMethod::Sanitize => 120,
            EraseMethod::Overwrite => seconds(2 * (largest(disks) / OVERWRITE_RATE) + 10),
        },
        ActionKind::WriteImage { bytes, .. } => seconds(bytes / WRITE_RATE + 20),
        // The firmware, some hundred packages, and the firmware again.
        ActionKind::Installer { .. } => 1200,
        ActionKind::Restart {
            way: RestartWay::Firmware,
            ..
        } => 180,
        ActionKind::Restart {
            way: RestartWay::Kexec, ..
        }
        | ActionKind::Reachable { .. } => 20,
        ActionKind::Step(_) | ActionKind::Rescue { .. } => 30,
        ActionKind::Verify { .. } | ActionKind::BmcSetUp { .. } => 30,
        ActionKind::Barrier { .. } | ActionKind::StayInMemory { .. } | ActionKind::Service(_) => 1,
    }
}

/// Bounds of one attempt, and attempts. Looking and waiting may be tried often; what wears hardware, or what locks an
/// account out when it goes wrong, may not.
pub(super) fn limits(kind: &ActionKind) -> Limits {
    let expected = estimate(kind);
    let (seconds, tries) = match kind {
        ActionKind::RotatePassword => (120, 2),
        // A BMC that changes its address is away for a minute or two.
        ActionKind::BmcSetUp { .. } => (600, 3),
        ActionKind::BiosSettings { .. } | ActionKind::BiosVerify { .. } => (300, 3),
        ActionKind::Agent { .. } => (1200, 3),
        ActionKind::BurnIn(_) => (expected.saturating_add(300), 1),
        ActionKind::Erase {
            method: EraseMethod::Signatures,
            ..
        } => (120, 3),
        // A rotating disk of 20 TB sanitizes itself in more than a day.
        ActionKind::Erase {
            method: EraseMethod::Sanitize | EraseMethod::Overwrite,
            ..
        } => (expected.saturating_mul(4).max(172_800), 2),
        ActionKind::Erase { .. } => (3600, 2),
        ActionKind::WriteImage { .. } => (expected.saturating_mul(10).max(1800), 5),
        // A step that hangs ends it sooner; this bounds one that always goes on.
        ActionKind::Installer { .. } => (4 * 3600, 2),
        ActionKind::Setup { .. } | ActionKind::BootOrder { .. } => (300, 3),
        ActionKind::Restart { .. } => (300, 3),
        ActionKind::Reachable { .. } => (1200, 3),
        ActionKind::Step(_) | ActionKind::Rescue { .. } => (600, 1),
        ActionKind::Verify { .. } => (900, 3),
        ActionKind::Barrier { .. } => (u32::MAX, 1),
        ActionKind::StayInMemory { .. } => (300, 3),
        // With the pauses between them some minutes: a server that restarts is back by then.
        ActionKind::Service(_) => (60, 6),
    };
    Limits { seconds, tries }
}
