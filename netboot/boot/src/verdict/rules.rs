//! The table: what a timeline means. Furthest stage first; the first rule that speaks is the verdict.
//!
//! Times are generous against real machines (server firmware takes its time between steps) and were checked against
//! emulated ones: an agent answers 5 to 20 s after its kernel started.

use alloc::format;
use alloc::string::String;

use rackbar_model::{BootWay, Severity, Timestamp};

use super::port::held_back;
use super::reading::{Outcome, Reading};
use super::rest::{sent_to_disk, switched_off, switching_off, system_runs};
use super::{Stage, Verdict};

/// A rule: `None` when it does not fit.
pub(super) struct Rule {
    /// For the tests, which hold one story for each.
    #[cfg_attr(not(test), allow(dead_code, reason = "read by the test that every rule has a story"))]
    pub(super) name: &'static str,
    pub(super) says: fn(&Reading) -> Option<Verdict>,
}

macro_rules! rules {
    ($($name:ident),* $(,)?) => {
        &[$(Rule { name: stringify!($name), says: $name }),*]
    };
}

pub(super) const RULES: &[Rule] = rules![
    switched_off,
    switching_off,
    system_runs,
    sent_to_disk,
    agent_refused,
    agent_lost,
    discovered,
    agent_up,
    agent_started_alone,
    loader_failed,
    kernel_started,
    loader_fetches,
    loader_unverified,
    script_files,
    script_alone,
    ipxe_without_script,
    first_file_failed,
    first_file_running,
    loader_never_asked,
    ipxe_never_came,
    ack_without_file,
    refused_lease,
    chose_other_server,
    request_unanswered,
    offer_ignored,
    client_ignored,
    discover_unanswered,
    powered_on_silent,
];

/// A step that may take `patience_millis`: expected before, late after.
pub(super) fn waiting(stage: Stage, age_millis: u64, patience_millis: u64, text: String, late: &str) -> Verdict {
    let is_late = age_millis > patience_millis;
    Verdict {
        text,
        stage,
        severity: if is_late { Severity::Warning } else { Severity::Info },
        next_step: if is_late { late.into() } else { String::new() },
    }
}

pub(super) fn problem(stage: Stage, severity: Severity, text: String, next_step: &str) -> Verdict {
    Verdict {
        text,
        stage,
        severity,
        next_step: next_step.into(),
    }
}

/// Whole seconds from a minute on are precise enough; below, a tenth tells.
pub(super) fn seconds(millis: u64) -> String {
    if millis >= 60_000 {
        format!("{} s", millis / 1000)
    } else {
        format!("{}.{} s", millis / 1000, millis % 1000 / 100)
    }
}

fn later(a: Timestamp, b: Option<Timestamp>) -> bool {
    b.is_none_or(|b| a >= b)
}

fn agent_refused(r: &Reading) -> Option<Verdict> {
    let (at, reason) = r.agent_refused.as_ref()?;
    later(*at, r.agent_up).then(|| {
        problem(
            Stage::Kernel,
            Severity::Error,
            format!("an agent came up and was refused: {reason}"),
            "boot the machine again for a fresh token; if it repeats, find out who else shows this machine's token",
        )
    })
}

fn agent_lost(r: &Reading) -> Option<Verdict> {
    let (at, reason) = r.agent_lost.as_ref()?;
    let age = r.ago(*at);
    Some(waiting(
        if r.facts.is_some() {
            Stage::Discovered
        } else {
            Stage::Agent
        },
        age,
        60_000,
        format!("the agent's connection ended {} ago: {reason}", seconds(age)),
        "the agent calls again for ever: check the machine's power and its switch port",
    ))
}

fn discovered(r: &Reading) -> Option<Verdict> {
    let facts = r.facts?;
    let text = match r.first {
        Some(first) => format!("discovered {} after the first DHCP packet", seconds(facts.since(first))),
        None => "discovered; its boot was not seen from here".into(),
    };
    match held_back(r) {
        Some((why, what)) => Some(problem(
            Stage::Discovered,
            Severity::Warning,
            format!("{text}; {why}"),
            what,
        )),
        None => Some(waiting(Stage::Discovered, 0, 0, text, "")),
    }
}

fn agent_up(r: &Reading) -> Option<Verdict> {
    let age = r.ago(r.agent_up?);
    Some(waiting(
        Stage::Agent,
        age,
        60_000,
        format!("the agent connected {} ago; its inventory is awaited", seconds(age)),
        "a device may be slow to answer: look at the machine's console for the kernel's messages",
    ))
}

fn agent_started_alone(r: &Reading) -> Option<Verdict> {
    let age = r.ago(r.agent_started?);
    Some(waiting(
        Stage::Kernel,
        age,
        30_000,
        format!("the agent started {} ago but has not connected", seconds(age)),
        "check that TCP port 4917 of the appliance is reachable from the machine's network",
    ))
}

fn loader_failed(r: &Reading) -> Option<Verdict> {
    let reason = r.failed.as_ref()?;
    Some(problem(
        Stage::Loader,
        Severity::Error,
        format!("the boot loader gave up: {reason}"),
        "put right what it names, then boot the machine again",
    ))
}

fn kernel_started(r: &Reading) -> Option<Verdict> {
    let age = r.ago(r.kernel?);
    Some(waiting(
        Stage::Kernel,
        age,
        60_000,
        if age > 60_000 {
            format!("kernel started {} ago, agent silent", seconds(age))
        } else {
            format!("kernel started {} ago; the agent is awaited", seconds(age))
        },
        "look at the machine's console: a kernel panic, no driver for the boot NIC, or no DHCP answer to the agent (a \
         switch port that blocks for 30 s after link-up needs PortFast)",
    ))
}

fn loader_fetches(r: &Reading) -> Option<Verdict> {
    let verified = r.manifest_verified?;
    let (at, text) = match &r.file_verified {
        Some((at, name)) => (*at, format!("the loader has fetched and verified {name}")),
        None => (
            verified,
            "the loader verified its manifest and fetches the kernel".into(),
        ),
    };
    let age = r.ago(at);
    Some(waiting(
        Stage::Loader,
        age,
        60_000,
        format!("{text} ({} ago)", seconds(age)),
        "the next file is overdue: check link speed and errors on the machine's switch port; the loader tries again by itself",
    ))
}

fn loader_unverified(r: &Reading) -> Option<Verdict> {
    let age = r.ago(r.loader?);
    let text = match r.manifest {
        None => format!(
            "the loader runs since {} and has not asked for its manifest",
            seconds(age)
        ),
        Some((_, 200..=299)) => format!(
            "the loader got its manifest and has not accepted it for {}",
            seconds(age)
        ),
        Some((_, status)) => format!("the loader asked for its manifest and was answered HTTP status {status}"),
    };
    Some(waiting(
        Stage::Loader,
        age,
        15_000,
        text,
        "read the loader's words on the machine's console; a loader with another site's key refuses our manifest",
    ))
}

fn script_files(r: &Reading) -> Option<Verdict> {
    let script = r.script?;
    let file = r.boot_file.as_ref().filter(|file| file.at >= script)?;
    if let Outcome::Failed(reason) = &file.outcome {
        return Some(problem(
            Stage::Loader,
            Severity::Error,
            format!("iPXE asked for {} and did not get it: {reason}", file.name),
            "check that the appliance holds this boot file (`rackbar service status`)",
        ));
    }
    let age = r.ago(file.at);
    Some(waiting(
        Stage::Kernel,
        age,
        90_000,
        format!("iPXE fetched {} {} ago; the agent is awaited", file.name, seconds(age)),
        "look at the machine's console: iPXE says why it did not start the kernel, or the kernel panicked or has no \
         driver for the boot NIC",
    ))
}

fn script_alone(r: &Reading) -> Option<Verdict> {
    let age = r.ago(r.script?);
    Some(waiting(
        Stage::Loader,
        age,
        20_000,
        format!("iPXE got its script {} ago and has fetched nothing yet", seconds(age)),
        "a site script may be waiting at a menu; otherwise read iPXE's error on the machine's console",
    ))
}

fn ipxe_without_script(r: &Reading) -> Option<Verdict> {
    let age = r.ago(r.ipxe?);
    r.ack?;
    Some(waiting(
        Stage::Loader,
        age,
        20_000,
        format!("iPXE runs since {} and has not asked for its script", seconds(age)),
        "check that TCP port 80 of the appliance is reachable from the machine's network",
    ))
}

fn first_file_failed(r: &Reading) -> Option<Verdict> {
    let file = r.first_file.as_ref()?;
    let Outcome::Failed(reason) = &file.outcome else {
        return None;
    };
    Some(problem(
        Stage::BootFile,
        Severity::Warning,
        format!("the firmware's transfer of {} failed: {reason}", file.name),
        "firmware tries again at the next boot; if it repeats, look for lost packets on the path (MTU, a firewall that \
         blocks TFTP's second port)",
    ))
}

fn first_file_running(r: &Reading) -> Option<Verdict> {
    let file = r.first_file.as_ref().filter(|f| f.outcome == Outcome::Running)?;
    let age = r.ago(file.at);
    Some(waiting(
        Stage::BootFile,
        age,
        20_000,
        format!(
            "the firmware asked for {} {} ago; the transfer has not ended",
            file.name,
            seconds(age)
        ),
        "lost packets on the path: check the MTU and firewalls that block TFTP's second port",
    ))
}

fn loader_never_asked(r: &Reading) -> Option<Verdict> {
    let file = r.first_file.as_ref().filter(|file| file.name == "loader.efi")?;
    let age = r.ago(file.at);
    Some(waiting(
        Stage::BootFile,
        age,
        15_000,
        match r.manifest {
            None => format!(
                "the firmware got loader.efi {} ago, but its manifest was never asked for",
                seconds(age)
            ),
            Some(_) => format!(
                "the firmware got loader.efi {} ago, and it asked for its manifest",
                seconds(age)
            ),
        },
        "Secure Boot refuses a loader that is not signed with an enrolled key; otherwise TCP port 80 of the appliance is \
         blocked. The machine's console says which",
    ))
}

fn ipxe_never_came(r: &Reading) -> Option<Verdict> {
    let file = r.first_file.as_ref()?;
    let age = r.ago(file.at);
    Some(waiting(
        Stage::BootFile,
        age,
        20_000,
        format!(
            "the firmware got {} {} ago; it has not been heard of since",
            file.name,
            seconds(age)
        ),
        "the boot program hangs or cannot drive this NIC: look at the machine's console, or let the site's policy choose \
         another boot program for it",
    ))
}

fn ack_without_file(r: &Reading) -> Option<Verdict> {
    let age = r.ago(r.ack?);
    // Only firmware is expected to fetch something: an operating system asks for an address and is content.
    r.offer.as_ref()?.way?;
    Some(waiting(
        Stage::Dhcp,
        age,
        15_000,
        format!(
            "an address was acknowledged {} ago, but no boot file was asked for",
            seconds(age)
        ),
        "a firewall may block UDP port 69 or TCP port 80 of the appliance; or the firmware found another boot option \
         better: check its boot order",
    ))
}

fn refused_lease(r: &Reading) -> Option<Verdict> {
    if let Some(address) = r.declined {
        return Some(problem(
            Stage::Dhcp,
            Severity::Warning,
            format!("the machine found {address} in use by another and declined it"),
            "find out who uses that address without a lease, or take it out of the pool",
        ));
    }
    let (at, reason) = r.nak.as_ref()?;
    let age = r.ago(*at);
    Some(waiting(
        Stage::Dhcp,
        age,
        10_000,
        format!("the machine's request was refused {} ago: {reason}", seconds(age)),
        "the machine should start over by itself; if it does not, boot it again",
    ))
}

fn chose_other_server(r: &Reading) -> Option<Verdict> {
    let (at, server) = r.request?;
    let server = server?;
    if r.offer.as_ref().is_some_and(|offer| offer.way == Some(BootWay::Proxy)) {
        // Address from the other server, boot information from us: what ProxyDHCP is for.
        let age = r.ago(at);
        return Some(waiting(
            Stage::Dhcp,
            age,
            15_000,
            format!(
                "the machine took its address from {server} {} ago; it has not asked us for a boot file",
                seconds(age)
            ),
            "its firmware may ignore proxy offers, or UDP ports 4011 and 69 of the appliance are blocked: allow another \
             way of booting for it",
        ));
    }
    (r.foreign_server == Some(server)).then(|| {
        problem(
            Stage::Dhcp,
            Severity::Warning,
            format!("the machine took the offer of another DHCP server, {server}"),
            "switch that server off on this network, or let Rackbar speak as ProxyDHCP beside it",
        )
    })
}

fn request_unanswered(r: &Reading) -> Option<Verdict> {
    let (at, _) = r.request?;
    let age = r.ago(at);
    Some(waiting(
        Stage::Dhcp,
        age,
        5_000,
        format!(
            "the machine requested an address {} ago and was not answered by us",
            seconds(age)
        ),
        "it may have chosen another server: look for a foreign DHCP server on this network",
    ))
}

fn offer_ignored(r: &Reading) -> Option<Verdict> {
    let offer = r.offer.as_ref()?;
    let age = r.ago(offer.at);
    let seen = format!("offer seen, no request for {}", seconds(age));
    let text = match (&r.way_changed, offer.way, age > 10_000) {
        (Some(reason), _, _) => format!("{reason}; the machine's next request is awaited"),
        (None, Some(BootWay::Proxy), true) => {
            format!("{seen}: this firmware ignores proxy offers, or its port forwards too late")
        }
        (None, _, true) => format!("{seen}: our offer does not reach the machine, or it prefers another server's"),
        (None, _, false) => format!("{seen}; machines collect offers for some seconds"),
    };
    Some(waiting(
        Stage::Dhcp,
        age,
        10_000,
        text,
        "allow full DHCP for this machine; on its switch port enable PortFast/edge (spanning tree blocks the first 30 s) \
         and check DHCP snooping's trust of the appliance's port",
    ))
}

fn client_ignored(r: &Reading) -> Option<Verdict> {
    let reason = r.ignored.as_ref()?;
    Some(problem(
        Stage::Dhcp,
        Severity::Info,
        format!("seen and left alone: {reason}"),
        "if it should be served, change the policy for unknown machines or enrol it",
    ))
}

fn discover_unanswered(r: &Reading) -> Option<Verdict> {
    let age = r.ago(r.first?);
    Some(waiting(
        Stage::Dhcp,
        age,
        5_000,
        match r.discovers {
            0 | 1 => format!("asked for an address {} ago; we made no offer", seconds(age)),
            n => format!(
                "asked for an address {n} times since {}; we made no offer",
                seconds(age)
            ),
        },
        "the pool may be empty, or this network is not ours to serve: look at `rackbar service status`",
    ))
}

fn powered_on_silent(r: &Reading) -> Option<Verdict> {
    let age = r.ago(r.powered_on?);
    Some(waiting(
        Stage::Silent,
        age,
        240_000,
        format!("powered on {} ago, no DHCP packet yet", seconds(age)),
        "network boot may be off in the firmware's boot order, the cable in another port, the port in another VLAN, or \
         held by spanning tree (no PortFast) or LACP (no fallback) for longer than the firmware tries",
    ))
}
