//! A plan: an immutable graph of actions, each with what it changes, what it needs, what it destroys, and why.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use rackbar_model::{BurnIn, Digest, DiskRef, EraseMethod, ImageFormat, NodeId, OsSetup, RootTarget, Timestamp};
use serde::{Deserialize, Serialize};

use crate::site::{Enrol, RunLimits};
use crate::{OwnService, ServiceSpec};

/// The name of a plan: the first 12 hexadecimal digits of the SHA-256 of its inputs and actions. The same inputs give
/// the same plan and the same name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct PlanId(pub String);

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an action within its plan, such as `storage-1/os.write`; stable from plan to plan.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct ActionId(pub String);

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The seven layers of ready state; every action carries one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// 1: switch ports, VLANs, cabling, power.
    Infrastructure,
    /// 2: BMC, BIOS, RAID, firmware, boot order.
    Firmware,
    /// 3: operating system, disks, networks, keys.
    System,
    /// 4: DNS, NTP, cache, syslog, configuration clients.
    Clients,
    /// 5: other tools' applications.
    Applications,
    /// 6: registered outside: names, inventory, monitoring.
    Management,
    /// 7: barriers, quorum, rolling batches.
    Coordination,
}

/// What the planner read; a commit is refused when any of it has changed since.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Inputs {
    /// Digest of the site in force.
    pub site: Digest,
    /// Digest of what each node was seen to be, as far as the plan rests on it.
    pub nodes: BTreeMap<NodeId, Digest>,
    /// Digest of each catalogue entry that is used, by name.
    pub images: BTreeMap<String, Digest>,
    /// Digest of each program that a step runs, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub programs: BTreeMap<String, Digest>,
    /// SHA-256 of the signed list that each repository is locked to, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub repositories: BTreeMap<String, Digest>,
    /// What the site wants of each service of the networks that the planned systems are on, by field of the site file, such
    /// as `network.lan.dns`: `off`, `own at ...` or `external at ...`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, String>,
}

impl Inputs {
    /// Of a plan that rests on nothing but the site in force, such as one that only checks.
    pub const fn of(site: Digest) -> Self {
        Self {
            site,
            nodes: BTreeMap::new(),
            images: BTreeMap::new(),
            programs: BTreeMap::new(),
            repositories: BTreeMap::new(),
            services: BTreeMap::new(),
        }
    }
}

/// An immutable plan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Plan {
    /// Its name.
    pub id: PlanId,
    /// When it was made.
    pub made: Timestamp,
    /// What it rests on.
    pub inputs: Inputs,
    /// The actions; `needs` always points to earlier ones.
    pub actions: Vec<Action>,
    /// Nodes for which there is no way, and why. The others are planned all the same.
    pub refused: Vec<Refusal>,
    /// Nodes that are as wanted already.
    pub unchanged: Vec<NodeId>,
    /// Nodes the plan does not touch, and why: no role is bound, hands off, given to another owner.
    #[serde(default)]
    pub left_out: Vec<Refusal>,
    /// What was asked for.
    #[serde(default)]
    pub scope: Scope,
    /// How much of it is done at the same time, where the site says so.
    #[serde(default)]
    pub limits: RunLimits,
}

/// Which nodes a plan is for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Scope {
    /// Only these; all when `None`.
    #[cfg_attr(feature = "utoipa", schema(value_type = Option<Vec<String>>))]
    pub nodes: Option<Vec<NodeId>>,
    /// Install anew also where everything is as wanted.
    pub reinstall: bool,
    /// Put a system in the place of one that was adopted, on the machines that `nodes` names.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replace_adopted: bool,
    /// Give BMCs new passwords of their machines' own, also those that have one.
    pub rotate_passwords: bool,
    /// Nothing but this: exercise the hardware, and take the nodes back to what they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burn_in: Option<BurnIn>,
}

impl Scope {
    /// True when the node is in it.
    pub fn holds(&self, node: NodeId) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.contains(&node))
    }
}

/// A node the planner does not act on, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Refusal {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What is in the way, with the candidates where a choice is not unique, and what to do.
    pub reason: String,
}

/// What an action works on; actions on one target never overlap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The machine.
    Node(NodeId),
    /// The machine's BMC.
    Bmc(NodeId),
    /// A service that systems use, by its field of the site file, such as `network.lan.dns`.
    Service(String),
    /// Nothing of its own: a barrier.
    Rack,
}

/// One step of a plan. It may run twice without harm.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Action {
    /// Its name.
    pub id: ActionId,
    /// The node it belongs to.
    pub node: Option<NodeId>,
    /// What it works on.
    pub target: Target,
    /// Its layer.
    pub layer: Layer,
    /// What to do.
    pub kind: ActionKind,
    /// What it changes; of a service what is wanted beside what was seen. Else empty when it only looks or waits.
    pub changes: Vec<Change>,
    /// Actions that must have ended well before.
    pub needs: Vec<ActionId>,
    /// What it destroys, in words; `None` when it destroys nothing.
    pub destroys: Option<String>,
    /// It restarts the machine.
    pub reboots: bool,
    /// Expected time in seconds.
    pub estimate_seconds: u32,
    /// Why it is in the plan.
    pub reason: String,
    /// Bounds.
    pub limits: Limits,
}

/// One thing that changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Change {
    /// What, such as `BIOS ProcVirtualization` or `root disk`.
    pub what: String,
    /// As observed; `None` when it could not be seen.
    pub observed: Option<String>,
    /// As wanted.
    pub wanted: String,
}

/// Bounds of an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Limits {
    /// Seconds one attempt may take.
    pub seconds: u32,
    /// Attempts in all.
    pub tries: u32,
}

/// What an action does. Variants are added at the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Give the BMC account a password of this machine's own: change, log in with it, only then forget the old one.
    RotatePassword,
    /// Set firmware attributes through the BMC; they are staged and take effect at the next restart.
    BiosSettings {
        /// Attribute names and wanted values.
        attributes: BTreeMap<String, String>,
    },
    /// Have our agent running on the machine: nothing when it is connected, else a boot from the network through the BMC.
    /// With `fresh` the machine is restarted in any case, which lets staged settings take effect.
    Agent {
        /// Restart even when the agent is connected.
        fresh: bool,
    },
    /// Read the firmware attributes back and compare.
    BiosVerify {
        /// Attribute names and wanted values.
        attributes: BTreeMap<String, String>,
    },
    /// Exercise the hardware.
    BurnIn(BurnIn),
    /// Empty disks.
    Erase {
        /// Which.
        disks: Vec<DiskRef>,
        /// How.
        method: EraseMethod,
    },
    /// Write an image and make the disk bootable.
    WriteImage {
        /// Where to.
        target: RootTarget,
        /// Name in the catalogue.
        image: String,
        /// Digest of the file, as the catalogue had it when the plan was made.
        sha256: Digest,
        /// Packing.
        format: ImageFormat,
        /// Bytes of the file.
        bytes: u64,
    },
    /// Give the installed system its identity.
    Setup {
        /// Where it lies.
        target: RootTarget,
        /// Who it is; without its host key, which is filled in when the work is given out.
        setup: Box<OsSetup>,
        /// Tools it enrols itself at. Their secrets are made when the work is given out, and never are in a plan.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        enrol: Vec<Enrol>,
        /// It was given one before, and keeps of it what this does not change: host key and machine ID, and what others wrote.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again: Option<Again>,
    },
    /// Make the disk the first boot device, in the firmware and through the BMC, and read back.
    BootOrder {
        /// Where the system lies.
        target: RootTarget,
    },
    /// Leave our agent for the installed system.
    Restart {
        /// How.
        way: RestartWay,
        /// Where the system lies.
        target: RootTarget,
    },
    /// Wait until the installed system answers over SSH with the host key we gave it.
    Reachable {
        /// Account.
        user: String,
    },
    /// A step of the user's.
    Step(StepSpec),
    /// Run the checks of the role; the node is ready when they pass.
    Verify {
        /// Ids of the checks.
        checks: Vec<String>,
    },
    /// Wait until all of `needs` are done: a barrier between nodes.
    Barrier {
        /// Its name in the site file.
        name: String,
    },
    /// Stay in our agent, in memory: roles without an operating system on disk.
    StayInMemory {
        /// Rescue: the agent accepts the operator's steps.
        rescue: bool,
    },
    /// A step of the user's on a node in rescue: run by our agent inside the system on the disk, which is not started.
    Rescue {
        /// Where the system lies.
        target: RootTarget,
        /// The step; it runs as root.
        step: StepSpec,
    },
    /// Set the machine's BMC up from inside, over KCS: its own network, an account of ours. Done when a login over the
    /// network with that account has succeeded.
    BmcSetUp {
        /// Its network; `None` leaves it as it is.
        network: Option<BmcNetwork>,
        /// Name of the account. Its password is made when the work is given out, and never is in a plan.
        account: Option<String>,
    },
    /// Boot an installer of the catalogue from the network and have it install by the answers that we give it. Done when
    /// it says that the system is on the disk.
    Installer {
        /// Where to.
        target: RootTarget,
        /// Name in the catalogue.
        image: String,
        /// Digest of its archive, as the catalogue had it when the plan was made.
        sha256: Digest,
        /// Who the system is; without its host key, which is filled in when the answers are made.
        setup: Box<OsSetup>,
        /// Tools it enrols itself at. Their secrets are made when the answers are made, and never are in a plan.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        enrol: Vec<Enrol>,
    },
    /// See that a service is there which systems are told to use: of our own that it serves, another's by asking it.
    /// Waits for it within the action's bounds.
    Service(ServiceSpec),
}

impl Action {
    /// Under what it is listed when it is no node's.
    pub const fn shared(&self) -> &'static str {
        match self.target {
            Target::Service(_) => "services",
            Target::Node(_) | Target::Bmc(_) | Target::Rack => "rack",
        }
    }
}

/// How a BMC is to be on the network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct BmcNetwork {
    /// Name of the site's network.
    pub name: String,
    /// Its static address; `None`: by DHCP.
    pub address: Option<BmcAddress>,
    /// 802.1Q VLAN ID; `None`: untagged.
    pub vlan: Option<u16>,
}

/// A BMC's static IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct BmcAddress {
    /// Address.
    #[cfg_attr(feature = "utoipa", schema(value_type = String))]
    pub address: Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
    /// Default gateway; `None` leaves the one it has.
    #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
    pub gateway: Option<Ipv4Addr>,
}

/// How a machine leaves our agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RestartWay {
    /// Through the firmware: shows that it boots from its disk by itself.
    #[default]
    Firmware,
    /// kexec into the installed kernel, where the machine's firmware takes minutes.
    Kexec,
}

/// A user's own step: a script or a program run on the installed system over SSH.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct StepSpec {
    /// Its name, unique in the role.
    pub name: String,
    /// The script; its first line says which program runs it (`#!/bin/sh`). Empty when it is a program.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub script: String,
    /// The program, in place of a script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<StepProgram>,
    /// Account it runs as.
    pub user: String,
    /// Exit status that counts as success.
    pub expect_status: i32,
    /// Text that its output must contain; `None` when any will do.
    pub expect_output: Option<String>,
}

/// What goes when a system is given another identity in the place of one that it has.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Again {
    /// Files that it was given before and is not to have any more.
    pub gone: Vec<String>,
}

/// A static program of the appliance's store, as it was when the plan was made: another one under its name later is not
/// what this plan runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct StepProgram {
    /// Its name in the store.
    pub name: String,
    /// Digest of its content.
    pub sha256: Digest,
    /// Bytes of its content.
    pub bytes: u64,
    /// What it is started with.
    pub arguments: Vec<String>,
}

impl ActionKind {
    /// The program of the store that it runs.
    pub const fn program(&self) -> Option<&StepProgram> {
        match self {
            Self::Step(step) | Self::Rescue { step, .. } => step.program.as_ref(),
            _ => None,
        }
    }

    /// The disks whose content it destroys.
    pub fn erases(&self) -> &[DiskRef] {
        match self {
            Self::Erase { disks, .. } => disks,
            Self::WriteImage { target, .. } | Self::Installer { target, .. } => target.disks(),
            _ => &[],
        }
    }

    /// The catalogue's entry that it installs: name and digest.
    pub const fn installs(&self) -> Option<(&String, Digest)> {
        match self {
            Self::WriteImage { image, sha256, .. } | Self::Installer { image, sha256, .. } => Some((image, *sha256)),
            _ => None,
        }
    }

    /// Who the system is that it makes.
    pub const fn setup(&self) -> Option<&OsSetup> {
        match self {
            Self::Setup { setup, .. } | Self::Installer { setup, .. } => Some(setup),
            _ => None,
        }
    }

    /// The tools that a system enrols itself at, where this gives it the secrets for that.
    pub fn enrols(&self) -> &[Enrol] {
        match self {
            Self::Setup { enrol, .. } | Self::Installer { enrol, .. } => enrol,
            _ => &[],
        }
    }

    /// The names of all kinds, as [`Self::name`] gives them.
    pub const NAMES: [&'static str; 23] = [
        "agent",
        "agent.restart",
        "barrier",
        "bios.settings",
        "bios.verify",
        "bmc.password",
        "bmc.setup",
        "boot.order",
        "burn-in",
        "disk.erase",
        "memory",
        "os.install",
        "os.reachable",
        "os.setup",
        "os.write",
        "rescue",
        "restart",
        "service.dns",
        "service.ntp",
        "service.proxy",
        "service.syslog",
        "step",
        "verify",
    ];

    /// The kind's short name, the part of the action's name behind the slash.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RotatePassword => "bmc.password",
            Self::BiosSettings { .. } => "bios.settings",
            Self::Agent { fresh: true } => "agent.restart",
            Self::Agent { fresh: false } => "agent",
            Self::BiosVerify { .. } => "bios.verify",
            Self::BurnIn(_) => "burn-in",
            Self::Erase { .. } => "disk.erase",
            Self::WriteImage { .. } => "os.write",
            Self::Setup { .. } => "os.setup",
            Self::BootOrder { .. } => "boot.order",
            Self::Restart { .. } => "restart",
            Self::Reachable { .. } => "os.reachable",
            Self::Step(_) => "step",
            Self::Verify { .. } => "verify",
            Self::Barrier { .. } => "barrier",
            Self::StayInMemory { .. } => "memory",
            Self::Rescue { .. } => "rescue",
            Self::BmcSetUp { .. } => "bmc.setup",
            Self::Installer { .. } => "os.install",
            Self::Service(spec) => match spec.service {
                OwnService::Dns => "service.dns",
                OwnService::Ntp => "service.ntp",
                OwnService::Proxy => "service.proxy",
                OwnService::Syslog => "service.syslog",
            },
        }
    }
}
