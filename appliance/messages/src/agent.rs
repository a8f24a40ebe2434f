//! The agent's conversation with its appliance, over TLS pinned to the site's certificate.
//!
//! The agent connects, sends [`FromAgent::Hello`], and waits for [`ToAgent::Welcome`] or [`ToAgent::Refused`]. After
//! that both sides send when they have something to say. The agent sends a heartbeat at the interval it was told.

use alloc::string::String;
use alloc::vec::Vec;

use rackbar_model::{
    BmcInfo, BootEntry, BurnIn, CheckResult, Digest, DiskRef, EraseEvidence, EraseMethod, ImageSource, Inventory,
    MacAddr, NodeId, OsSetup, PortSays, RootTarget, SecretText,
};
use serde::{Deserialize, Serialize};

/// What the agent says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FromAgent {
    /// The first message.
    Hello(Hello),
    /// The inventory, whole. Sent after `Welcome`, whenever it changed, and when asked.
    Facts(alloc::boxed::Box<Inventory>),
    /// A sign of life.
    Heartbeat {
        /// Milliseconds since the kernel started.
        uptime_millis: u64,
    },
    /// The outcome of an [`Ask`].
    Done {
        /// The number of the ask.
        id: u32,
        /// `Err` says what failed, in words.
        result: Result<(), String>,
    },
    /// How far a job is. Sent at most twice a second.
    Progress {
        /// The job.
        job: JobId,
        /// What it does now, in words: `writing debian-12 to serial S1`.
        doing: String,
        /// Units done, bytes where it moves bytes.
        done: u64,
        /// Units in all; 0 when not known.
        total: u64,
    },
    /// A job ended. Said again after every reconnection until [`ToAgent::Noted`] comes.
    Ended {
        /// The job.
        job: JobId,
        /// What came of it.
        result: Result<JobReport, JobFailure>,
    },
    /// What the switch port of an interface says of itself; since version 4. Sent when it changed, and all of it
    /// again after every reconnection.
    Port {
        /// The interface.
        mac: MacAddr,
        /// What was heard there.
        says: PortSays,
    },
}

/// Who the agent is and how it proves that.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`] of the agent.
    pub version: u16,
    /// The agent program's version.
    pub agent: String,
    /// What entitles it to speak.
    pub proof: Proof,
    /// MAC address of the interface the machine booted from (`BOOTIF`).
    pub boot_mac: MacAddr,
    /// All MAC addresses of its physical interfaces.
    pub macs: Vec<MacAddr>,
    /// Milliseconds since the kernel started.
    pub uptime_millis: u64,
}

/// A proof of the right to speak for a machine.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// The one-time token of the kernel arguments, bound to the machine that it was rendered for.
    BootToken([u8; 32]),
    /// The session secret a `Welcome` gave, for connecting again in the same boot.
    Session([u8; 32]),
}

impl core::fmt::Debug for Proof {
    // Secrets never reach a log, whoever prints the message.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::BootToken(_) => "BootToken(..)",
            Self::Session(_) => "Session(..)",
        })
    }
}

/// What the appliance says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToAgent {
    /// The proof was good.
    Welcome(Welcome),
    /// It was not; the appliance closes after this.
    Refused(RefusedReason),
    /// Do something; the agent answers with [`FromAgent::Done`].
    Ask {
        /// Number of this ask in this session.
        id: u32,
        /// What to do.
        ask: Ask,
    },
    /// The end of a job was written down; the agent may forget it.
    Noted(JobId),
}

/// The answer to a good proof.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The node's identity.
    pub node: NodeId,
    /// Its name; the agent sets it as the host name.
    pub name: String,
    /// For connecting again in this boot.
    pub session: [u8; 32],
    /// Interval of heartbeats in milliseconds.
    pub heartbeat_millis: u32,
    /// The appliance's clock, milliseconds since 1970: the agent sets its own by it when it is far off.
    pub now_millis: u64,
}

impl core::fmt::Debug for Welcome {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            node,
            name,
            session: _,
            heartbeat_millis,
            now_millis,
        } = self;
        f.debug_struct("Welcome")
            .field("node", node)
            .field("name", name)
            .field("heartbeat_millis", heartbeat_millis)
            .field("now_millis", now_millis)
            .finish_non_exhaustive()
    }
}

/// Why an agent was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RefusedReason {
    /// The agent speaks a version this appliance does not.
    Version,
    /// The token is not one of ours.
    UnknownToken,
    /// The token was used before: somebody may have copied it.
    TokenUsed,
    /// The token is too old.
    TokenExpired,
    /// The token was made for another machine.
    OtherMachine,
    /// The session is not known: boot again.
    UnknownSession,
}

impl core::fmt::Display for RefusedReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Version => "the agent speaks a protocol version this appliance does not know",
            Self::UnknownToken => "the boot token is not one of ours",
            Self::TokenUsed => "the boot token was used before; boot the machine again, and find out who used it",
            Self::TokenExpired => "the boot token is too old; boot the machine again",
            Self::OtherMachine => "the boot token was made for another machine",
            Self::UnknownSession => "the session is not known; boot the machine again",
        })
    }
}

/// What the appliance may ask of an agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Look again and send the inventory.
    Facts,
    /// Restart the machine.
    Reboot,
    /// Switch the machine off.
    PowerOff,
    /// Begin a job; `Done` says that it was begun (or that one runs already), `Progress` and `Ended` follow. The same
    /// number again is the same job: an agent that runs it or has run it does not run it twice, it reports.
    Begin {
        /// The job's number.
        job: JobId,
        /// What to do.
        work: alloc::boxed::Box<Work>,
    },
    /// Give a job up at the next safe point; it ends with a failure that says so.
    GiveUp(JobId),
}

/// The number of a job: one attempt of one action, made by the appliance before it asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct JobId(pub [u8; 16]);

/// Work that takes longer than an answer. One job runs at a time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Work {
    /// Empty disks.
    Erase {
        /// Which.
        disks: Vec<DiskRef>,
        /// How.
        method: EraseMethod,
    },
    /// Write an image to a disk or to both disks of a mirror, at the end make it bootable: GPT backup header moved to
    /// the disk's end, root partition and file system grown, md superblocks written. The first MiB goes last and only
    /// when the digest is right, so that a broken image is never booted.
    Write {
        /// Where to.
        target: RootTarget,
        /// From where.
        image: ImageSource,
    },
    /// Give the installed system its identity: seed and files.
    Setup {
        /// Where it lies.
        target: RootTarget,
        /// Who it is.
        setup: OsSetup,
    },
    /// Make the firmware boot the installed system first (UEFI boot entries; nothing to do under BIOS), and read back.
    BootOrder {
        /// Where it lies.
        target: RootTarget,
        /// Description of the boot entry.
        label: String,
    },
    /// Start the installed kernel by kexec; the answer comes before the jump.
    Kexec {
        /// Where it lies.
        target: RootTarget,
    },
    /// Exercise the hardware.
    BurnIn(BurnIn),
    /// Look at what is on the disks: partitions, arrays, file systems.
    Layout,
    /// Set the BMC's own network and a user, in-band over KCS (IPMI 2.0 sections 22.26-22.30 and 23.1).
    BmcSetup(BmcSetup),
    /// Run the operator's script inside the system that lies on a disk, without starting that system. Not repeated by
    /// itself: whoever asks knows whether the script may run twice.
    Rescue {
        /// Where the system lies.
        target: RootTarget,
        /// The script; its first line names a program of the system on the disk, such as `#!/bin/sh`.
        script: SecretText,
        /// Seconds it may take.
        seconds: u32,
    },
    /// Tell how the running machine is: what checks ask of an installed system by script.
    Condition,
    /// Change what may be changed of a system that was given its identity before: keys, clients' settings, time zone, files. It
    /// keeps its host key, its machine ID and all that others wrote.
    Adjust {
        /// Where it lies.
        target: RootTarget,
        /// What it is to be; without host key and machine ID.
        setup: OsSetup,
        /// Files that were written before and are to go.
        gone: Vec<String>,
    },
}

/// What an agent sets on its BMC. `None` leaves a thing as it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcSetup {
    /// True for DHCP; false with `address` for a static address.
    pub dhcp: Option<bool>,
    /// IPv4 address with prefix length and gateway.
    pub address: Option<BmcStatic>,
    /// 802.1Q VLAN ID; 0 switches tagging off.
    pub vlan: Option<u16>,
    /// User slot, name and password, made administrator of the LAN channel. Slot 0: the one whose user has that name, else
    /// the first free one; no other is touched.
    pub user: Option<(u8, String, SecretText)>,
}

impl core::fmt::Debug for BmcSetup {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let user = self.user.as_ref().map(|(slot, name, _)| (slot, name));
        f.debug_struct("BmcSetup")
            .field("dhcp", &self.dhcp)
            .field("address", &self.address)
            .field("vlan", &self.vlan)
            .field("user", &user)
            .finish_non_exhaustive()
    }
}

/// A BMC's static IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BmcStatic {
    /// Address.
    pub address: core::net::Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
    /// Default gateway.
    pub gateway: Option<core::net::Ipv4Addr>,
}

/// What a job gives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum JobReport {
    /// Disks were emptied.
    Erased(Vec<EraseEvidence>),
    /// The image is on the disk.
    Written {
        /// SHA-256 of the file as fetched; equal to what was asked for.
        sha256: Digest,
        /// Bytes fetched.
        fetched: u64,
        /// Bytes of the disk image, holes included.
        disk_bytes: u64,
        /// Bytes of it that were zeros and were not sent to the disk as data.
        holes: u64,
        /// Milliseconds it took.
        millis: u64,
        /// What was done after the writing, line by line: GPT, partition, file system, mirror.
        steps: Vec<String>,
    },
    /// Files were written; the paths.
    SetUp(Vec<String>),
    /// The firmware's boot order as read back, first one first. Empty under BIOS.
    BootOrder(Vec<BootEntry>),
    /// The new kernel is loaded and starts now.
    Jumping,
    /// Results of a burn-in.
    BurnedIn(Vec<CheckResult>),
    /// What is on the disks.
    Layout(Vec<DiskLayout>),
    /// The BMC as read back.
    Bmc(BmcInfo),
    /// A rescue script ended.
    Rescued {
        /// Its exit status; 128 and the signal's number when a signal ended it, as shells count.
        status: i32,
        /// The last of what it printed, on standard output and standard error alike.
        output: String,
    },
    /// How the machine is: lines of `name=value`, in the words of the checks' probes.
    Condition(String),
}

/// What is on one disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskLayout {
    /// The disk.
    pub disk: DiskRef,
    /// Kernel name at this boot.
    pub name: String,
    /// `gpt`, `mbr` or empty.
    pub table: String,
    /// Partitions: name, first byte, bytes, what is in it (`ext4`, `vfat`, `linux_raid_member`, or empty).
    pub partitions: Vec<(String, u64, u64, String)>,
}

/// Why a job failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobFailure {
    /// What failed, where and why, in words.
    pub reason: String,
    /// What to do, in words; may be empty.
    pub advice: String,
    /// True when trying again may help; false when the request itself cannot be met.
    pub again: bool,
}
