//! Rules for machines that are off, and for those that boot from their own disk.

use alloc::format;

use rackbar_model::Severity;

use super::reading::{PowerAsked, Reading};
use super::rules::{problem, seconds, waiting};
use super::{Stage, Verdict};

/// An operating system may take this long to shut down in order.
const SHUTDOWN_MILLIS: u64 = 120_000;
/// Firmware of a server that goes through its other network boot options first, then a boot from a slow disk.
const DISK_BOOT_MILLIS: u64 = 600_000;

pub(super) fn switched_off(r: &Reading) -> Option<Verdict> {
    let off = r.powered_off.as_ref()?;
    let age = seconds(r.ago(off.at));
    let text = match &off.asked {
        Some(PowerAsked { action, by, .. }) if action == "off" => format!("switched off by {by} {age} ago"),
        Some(PowerAsked { action, by, .. }) => format!("switched off {age} ago: {action} asked by {by}"),
        None if off.was_known => format!("went off {age} ago, and nobody asked us for it"),
        None => format!("it is off, says its BMC since {age}"),
    };
    Some(problem(
        Stage::Silent,
        Severity::Info,
        text,
        "power it on with network boot first in its boot order",
    ))
}

pub(super) fn switching_off(r: &Reading) -> Option<Verdict> {
    let PowerAsked { at, action, by } = r.asked_off.as_ref()?;
    let age = r.ago(*at);
    Some(waiting(
        Stage::Silent,
        age,
        SHUTDOWN_MILLIS,
        format!(
            "power {action} asked by {by} {} ago; it was not seen off yet",
            seconds(age)
        ),
        "its operating system may not answer the power button: `rackbar node power NAME off` switches it off at once",
    ))
}

pub(super) fn system_runs(r: &Reading) -> Option<Verdict> {
    let at = r.system?;
    let text = match r.local_disk {
        Some(sent) if at >= sent => format!(
            "booted its disk: the system on it asked for an address {} ago, {} after the machine was sent there",
            seconds(r.ago(at)),
            seconds(at.since(sent))
        ),
        _ => format!(
            "runs the system on its disk, which asked for an address {} ago",
            seconds(r.ago(at))
        ),
    };
    Some(waiting(Stage::Disk, 0, 0, text, ""))
}

pub(super) fn sent_to_disk(r: &Reading) -> Option<Verdict> {
    let age = r.ago(r.local_disk?);
    let next_step = if age > DISK_BOOT_MILLIS {
        "if its system does not answer by now, look at its console: the disk should follow network boot in its boot order"
    } else {
        ""
    };
    Some(problem(
        Stage::Disk,
        // A system with a fixed address is never heard of here, so late is no warning by itself.
        Severity::Info,
        format!(
            "installed: sent back to its firmware {} ago, which goes on to its disk",
            seconds(age)
        ),
        next_step,
    ))
}
