//! The words every other room uses about the rack: addresses, nodes, inventories, events.
//!
//! Nothing here does I/O, reads a clock or depends on an operating system (`no_std` + `alloc`). Types are plain data:
//! what one program writes another reads, as JSON (API, store) or postcard (agent protocol). Enums grow at the end.
// The derives of utoipa name items of the standard prelude.
#![cfg_attr(not(feature = "utoipa"), no_std)]

extern crate alloc;

mod address;
mod adopted;
mod boot;
mod check;
mod event;
mod install;
mod inventory;
mod node;
mod port;
mod repository;
#[cfg(feature = "utoipa")]
mod schema;
mod time;
mod upstream;
mod view;
mod words;

pub use address::{MacAddr, ParseMacError};
pub use adopted::{Adopted, DiskInUse, MachineReport, RunningSystem};
pub use boot::{BootStage, BootWay, ClientArch, Digest, FirmwareHabit, ParseDigestError};
pub use check::{CHECKS, CheckResult, CheckStatus};
pub use event::{Event, EventKind, Severity};
pub use install::{
    BondMode, BootEntry, BurnIn, DiskIntent, DiskMedia, DiskPick, DiskRef, EraseEvidence, EraseMethod, ImageEntry,
    ImageFormat, ImageSource, Installed, Installer, InstallerDisc, InstallerFile, InstallerSystem, OsFile, OsNetwork,
    OsSetup, ProgramEntry, RootTarget, SecretText,
};
pub use inventory::{
    BmcInfo, BoardInfo, BootInfo, ChassisInfo, CpuInfo, Disk, DiskBus, DiskHealth, FirmwareInfo, FirmwareMode,
    Inventory, LldpNeighbour, MemoryInfo, MemoryModule, Nic, PciDevice, SystemInfo, TpmInfo,
};
pub use node::{
    Collision, FailedIn, Node, NodeId, NodeState, NodeSystem, ParseNodeIdError, PowerState, Witness, WitnessKind,
};
pub use port::PortSays;
pub use repository::{LockedIndex, RepositoryKind, RepositoryLock, suite_folder};
pub use time::{ParseTimestampError, Timestamp};
pub use upstream::{Refreshed, Upstream};
pub use view::{Lease, LeaseState, PowerAction, ServiceStatus};
