//! Things that happen, as typed values: the journal, the console, the timeline and the tests read the same ones.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::{BootStage, BootWay, ClientArch, MacAddr, NodeId, PortSays, PowerState, Timestamp, Witness};

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Event {
    /// Position in the journal, from 1, without gaps. 0 until the journal has it.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// The node it is about, once known.
    pub node: Option<NodeId>,
    /// The network interface it is about.
    pub mac: Option<MacAddr>,
    /// What happened.
    pub kind: EventKind,
}

/// How much attention an event asks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Part of the ordinary course.
    Info,
    /// Works, but not as it should.
    Warning,
    /// Something a person should look at.
    Error,
}

/// What happened. In JSON the variant's name is the single key of an object: `{"dhcp_ack": {"address": ...}}`.
/// Variants are added at the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A DHCPDISCOVER came.
    DhcpDiscover {
        /// Name of the network it came from.
        network: String,
        /// Option 93.
        arch: Option<ClientArch>,
        /// Option 60 as text.
        vendor_class: Option<String>,
        /// Option 77 as text, such as `iPXE`.
        user_class: Option<String>,
        /// Relay agent, when it came through one.
        #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
        relay: Option<Ipv4Addr>,
        /// Option 82 circuit ID: the relay's port. Text, or hexadecimal octets where it is none.
        circuit_id: Option<String>,
        /// Option 82 remote ID: the relay, or who is connected to it (RFC 3046 section 3.2). Written like the circuit ID.
        #[serde(default)]
        remote_id: Option<String>,
    },
    /// We offered an address, boot information, or both.
    DhcpOffer {
        /// Offered address; `None` for a proxy offer.
        #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
        address: Option<Ipv4Addr>,
        /// The way of booting it stands for; `None` when the client does not netboot.
        way: Option<BootWay>,
        /// Boot file name or URL.
        boot_file: Option<String>,
    },
    /// A DHCPREQUEST came.
    DhcpRequest {
        /// The address asked for.
        #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
        address: Option<Ipv4Addr>,
        /// The server it chose (option 54).
        #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
        server: Option<Ipv4Addr>,
    },
    /// We acknowledged a lease.
    DhcpAck {
        /// Leased address; `None` for INFORM and proxy answers.
        #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
        address: Option<Ipv4Addr>,
        /// Lease time in seconds.
        lease_seconds: Option<u32>,
        /// Boot file name or URL.
        boot_file: Option<String>,
    },
    /// We refused a request.
    DhcpNak {
        /// Why, in words.
        reason: String,
    },
    /// A client found its address in use.
    DhcpDecline {
        /// That address, now abandoned.
        #[cfg_attr(feature = "utoipa", schema(value_type = String))]
        address: Ipv4Addr,
    },
    /// A client gave its address back.
    DhcpRelease {
        /// That address.
        #[cfg_attr(feature = "utoipa", schema(value_type = String))]
        address: Ipv4Addr,
    },
    /// A probe before an offer was answered: somebody else uses the address.
    AddressConflict {
        /// The address, now abandoned.
        #[cfg_attr(feature = "utoipa", schema(value_type = String))]
        address: Ipv4Addr,
        /// Who answered.
        owner: Option<MacAddr>,
    },
    /// Another DHCP server answered on one of our networks.
    ForeignDhcpServer {
        /// The network.
        network: String,
        /// That server.
        #[cfg_attr(feature = "utoipa", schema(value_type = String))]
        server: Ipv4Addr,
    },
    /// We changed the way we lead this client's firmware.
    WayChanged {
        /// Before.
        from: BootWay,
        /// Now.
        to: BootWay,
        /// What the client did or did not do.
        reason: String,
    },
    /// We ignore this client, by policy.
    ClientIgnored {
        /// Which policy, in words.
        reason: String,
    },
    /// A file was asked for by TFTP.
    TftpRequest {
        /// File name as asked.
        file: String,
        /// Client address.
        #[cfg_attr(feature = "utoipa", schema(value_type = String))]
        client: IpAddr,
        /// Agreed block size in bytes.
        block_size: u16,
        /// Agreed window size in blocks.
        window_size: u16,
    },
    /// A TFTP transfer ended well.
    TftpDone {
        /// File name.
        file: String,
        /// Client address.
        #[cfg_attr(feature = "utoipa", schema(value_type = String))]
        client: IpAddr,
        /// Bytes of the file.
        bytes: u64,
        /// Milliseconds from request to last acknowledgement.
        millis: u64,
        /// Blocks sent again.
        resent: u32,
    },
    /// A TFTP transfer or request failed.
    TftpFailed {
        /// File name.
        file: String,
        /// Client address.
        #[cfg_attr(feature = "utoipa", schema(value_type = String))]
        client: IpAddr,
        /// Why, in words.
        reason: String,
    },
    /// A boot file or document was sent over HTTP.
    HttpSent {
        /// What: a file name, `script`, `manifest`.
        what: String,
        /// Client address.
        #[cfg_attr(feature = "utoipa", schema(value_type = String))]
        client: IpAddr,
        /// Status code.
        status: u16,
        /// Bytes of the body.
        bytes: u64,
        /// Milliseconds from request to last byte.
        millis: u64,
    },
    /// A boot program told how far it is.
    Boot(BootStage),
    /// The agent's connection stands and it proved itself.
    AgentUp {
        /// Its address.
        #[cfg_attr(feature = "utoipa", schema(value_type = String))]
        address: IpAddr,
        /// True when it had been connected before in this boot.
        again: bool,
    },
    /// The agent's connection ended.
    AgentLost {
        /// Why, in words.
        reason: String,
    },
    /// Somebody spoke to the agent port and was refused.
    AgentRefused {
        /// Its address.
        #[cfg_attr(feature = "utoipa", schema(value_type = String))]
        address: IpAddr,
        /// Why, in words.
        reason: String,
    },
    /// An inventory came.
    Facts {
        /// What is different from the last one, one line each; empty when nothing changed or it is the first.
        changed: Vec<String>,
    },
    /// A node was enrolled.
    NodeEnrolled {
        /// Its name.
        name: String,
        /// What showed it: `dhcp`, `bmc`, `agent`.
        by: String,
    },
    /// Two enrolled nodes turned out to be one machine.
    NodesMerged {
        /// The identity that went away.
        gone: NodeId,
        /// The witness that proved it.
        witness: Witness,
    },
    /// Two nodes show the same value of a witness that should be unique.
    IdentityCollision {
        /// The other node.
        other: NodeId,
        /// The shared value.
        witness: Witness,
    },
    /// A node changed state.
    StateChanged {
        /// State name before.
        from: String,
        /// State name now.
        to: String,
        /// Why, in words.
        reason: String,
    },
    /// A BMC was found.
    BmcFound {
        /// Its address.
        #[cfg_attr(feature = "utoipa", schema(value_type = String))]
        address: IpAddr,
        /// What it speaks: `redfish`, `ipmi`.
        speaks: Vec<String>,
    },
    /// A BMC did not do what we asked.
    BmcFailed {
        /// Its address.
        #[cfg_attr(feature = "utoipa", schema(value_type = String))]
        address: IpAddr,
        /// What was asked, why it failed, in words.
        reason: String,
    },
    /// Power was seen to change.
    PowerChanged {
        /// Before.
        from: PowerState,
        /// Now.
        to: PowerState,
    },
    /// Somebody asked for a power action.
    PowerRequested {
        /// `on`, `off`, `cycle`, ...
        action: String,
        /// By whom: a token's name or `console`.
        by: String,
    },
    /// One of our services changed.
    Service {
        /// Its name.
        name: String,
        /// What it does now, in words.
        state: String,
        /// How bad that is.
        severity: Severity,
    },
    /// A configuration was taken or refused.
    Config {
        /// Where it came from.
        source: String,
        /// `taken`, or the error with line and field.
        outcome: String,
        /// How bad that is.
        severity: Severity,
    },
    /// Something went past that a person may want to know.
    Note {
        /// The words.
        text: String,
        /// How bad it is.
        severity: Severity,
    },
    /// Somebody changed something, or tried to: the trail of who did what.
    Changed {
        /// Who: a token's name, or `console`.
        by: String,
        /// What was asked for, in words.
        what: String,
        /// What came of it, in words.
        outcome: String,
        /// False when it was refused or failed.
        ok: bool,
    },
    /// Another site file is in force.
    SiteSet {
        /// The first 12 digits of its SHA-256.
        digest: String,
        /// Who set it: a token's name, or the file it was read from.
        by: String,
    },
    /// A node was given a role, or its role was taken away.
    RoleBound {
        /// The role; `None` when it has none any more.
        role: Option<String>,
        /// Who or what did it: a token's name, or the rule.
        by: String,
    },
    /// A run began, was paused or resumed, or ended.
    RunChanged {
        /// Its number.
        run: u64,
        /// How it stands now: `going`, `paused`, `done`, `failed`, `cancelled`.
        state: String,
        /// Who did it, or what it came to.
        reason: String,
        /// How bad that is.
        severity: Severity,
    },
    /// An attempt of an action began.
    ActionStarted {
        /// The run.
        run: u64,
        /// The action's name.
        action: String,
        /// 1 for the first attempt.
        attempt: u32,
        /// Why it is done.
        reason: String,
    },
    /// An action ended well.
    ActionDone {
        /// The run.
        run: u64,
        /// The action's name.
        action: String,
        /// What came of it.
        summary: String,
        /// Milliseconds of the last attempt.
        millis: u64,
    },
    /// An attempt of an action failed.
    ActionFailed {
        /// The run.
        run: u64,
        /// The action's name.
        action: String,
        /// What failed, where, why.
        reason: String,
        /// What to do.
        advice: String,
        /// When the next attempt begins; `None` when it was the last.
        again: Option<Timestamp>,
    },
    /// An action was not begun.
    ActionSkipped {
        /// The run.
        run: u64,
        /// The action's name.
        action: String,
        /// Why.
        reason: String,
    },
    /// A ready node is no longer as it was proved to be.
    DriftSeen {
        /// What differs, in words.
        what: String,
    },
    /// What had drifted is as wanted again.
    DriftGone {
        /// What differed.
        what: String,
    },
    /// The first DHCP packet of a booting machine that reached us said that it had been asking for a while.
    AskedLate {
        /// `secs` of that packet (RFC 2131, table 1): what the firmware counted, which some count wrong.
        seconds: u16,
    },
    /// The agent hears what the switch port of an interface says of itself.
    PortSays(PortSays),
}

impl EventKind {
    /// How much attention it asks for.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Service { severity, .. }
            | Self::Config { severity, .. }
            | Self::Note { severity, .. }
            | Self::RunChanged { severity, .. } => *severity,
            Self::ActionFailed { again: None, .. } => Severity::Error,
            Self::Boot(BootStage::Failed { .. }) | Self::BmcFailed { .. } => Severity::Error,
            Self::Changed { ok: true, .. } => Severity::Info,
            Self::DhcpNak { .. }
            | Self::DhcpDecline { .. }
            | Self::AddressConflict { .. }
            | Self::ForeignDhcpServer { .. }
            | Self::WayChanged { .. }
            | Self::TftpFailed { .. }
            | Self::AgentLost { .. }
            | Self::AgentRefused { .. }
            | Self::IdentityCollision { .. }
            | Self::Changed { ok: false, .. }
            | Self::ActionFailed { again: Some(_), .. }
            | Self::ActionSkipped { .. }
            | Self::DriftSeen { .. }
            | Self::AskedLate { .. }
            | Self::PortSays(PortSays::Lacp { forwards: false }) => Severity::Warning,
            Self::DhcpDiscover { .. }
            | Self::DhcpOffer { .. }
            | Self::DhcpRequest { .. }
            | Self::DhcpAck { .. }
            | Self::DhcpRelease { .. }
            | Self::ClientIgnored { .. }
            | Self::TftpRequest { .. }
            | Self::TftpDone { .. }
            | Self::HttpSent { .. }
            | Self::Boot(_)
            | Self::AgentUp { .. }
            | Self::Facts { .. }
            | Self::NodeEnrolled { .. }
            | Self::NodesMerged { .. }
            | Self::StateChanged { .. }
            | Self::BmcFound { .. }
            | Self::PowerChanged { .. }
            | Self::PowerRequested { .. }
            | Self::SiteSet { .. }
            | Self::RoleBound { .. }
            | Self::ActionStarted { .. }
            | Self::ActionDone { .. }
            | Self::DriftGone { .. }
            | Self::PortSays(PortSays::SpanningTree { .. } | PortSays::Lacp { forwards: true }) => Severity::Info,
        }
    }
}
