//! Who the system is, what it runs on, and whether its kernel is well.

use std::collections::BTreeSet;

use super::{Probed, Verdict, kernel_log};
use crate::Context;

type Probe = Result<Option<String>, String>;

pub(super) fn reachable_probe(_: &Context) -> Probe {
    Ok(Some("echo reached=1\n".into()))
}

pub(super) fn reachable(_: &Context, probed: &Probed) -> Verdict {
    let reached = probed.one("reached").is_some();
    let observed = if reached {
        "it answers"
    } else {
        "it answers, and runs nothing"
    };
    Verdict::of(
        reached,
        "an answer",
        observed,
        "look at its console: no shell starts there",
    )
}

pub(super) fn identity_probe(_: &Context) -> Probe {
    Ok(Some(
        "echo \"name=$(cat /proc/sys/kernel/hostname)\"\n\
         echo \"machine=$(cat /etc/machine-id 2>/dev/null)\"\n\
         echo \"kernel=$(cat /proc/sys/kernel/osrelease)\"\n\
         . /etc/os-release 2>/dev/null; echo \"os=$PRETTY_NAME\"\n"
            .into(),
    ))
}

pub(super) fn identity(context: &Context, probed: &Probed) -> Verdict {
    let setup = &context.wanted.setup;
    let name = probed.one("name").unwrap_or("(none)");
    let mut faults = Vec::new();
    // Some systems take the whole name for the host name; both are right.
    let short = name.split('.').next().unwrap_or_default();
    if !setup.hostname.is_empty() && !short.eq_ignore_ascii_case(&setup.hostname) {
        faults.push(format!("the host name is {name}"));
    }
    let machine = probed.one("machine").unwrap_or("(none)");
    if !setup.machine_id.is_empty() && !machine.eq_ignore_ascii_case(&setup.machine_id) {
        faults.push(format!("the machine-id is {machine}"));
    }
    let wanted = match (setup.hostname.as_str(), setup.machine_id.as_str()) {
        ("", _) => "any system".into(),
        (name, "") => format!("host name {name}"),
        (name, id) => format!("host name {name}, machine-id {id}"),
    };
    let os = probed.one("os").unwrap_or("an unnamed system");
    let observed = format!("{name}, {os}, kernel {}", probed.one("kernel").unwrap_or("unknown"));
    Verdict::by(
        &faults,
        wanted,
        observed,
        "the machine runs something else than what was installed: look at its console and boot order, then install it again",
    )
}

pub(super) fn hostkey_probe(context: &Context) -> Probe {
    match &context.wanted.host_key {
        Some(_) => Ok(Some("sed 's/^/key=/' /etc/ssh/ssh_host_ed25519_key.pub\n".into())),
        None => Err("the system made its own host key".into()),
    }
}

pub(super) fn hostkey(context: &Context, probed: &Probed) -> Verdict {
    let words = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
    let wanted = context.wanted.host_key.as_deref().unwrap_or_default();
    let seen = probed.one("key").unwrap_or_default();
    let print = |line: &str| rackbar_ssh::fingerprint(line).unwrap_or_else(|_| "no Ed25519 key".into());
    Verdict::of(
        words(wanted).len() == 2 && words(seen) == words(wanted),
        print(wanted),
        print(seen),
        "something on the system replaced /etc/ssh/ssh_host_ed25519_key: put the key back by installing again, or find \
         what makes new keys (often cloud-init's ssh module)",
    )
}

pub(super) fn memory_probe(context: &Context) -> Probe {
    match &context.seen.inventory {
        Some(inventory) if inventory.memory.total_bytes > 0 => Ok(Some(
            "echo \"memory=$(sed -n 's/^MemTotal: *//p' /proc/meminfo)\"\n".into(),
        )),
        _ => Err("no inventory of its memory is known".into()),
    }
}

pub(super) fn memory(context: &Context, probed: &Probed) -> Verdict {
    let wanted = context
        .seen
        .inventory
        .as_ref()
        .map_or(0, |seen| seen.memory.total_bytes);
    let kib = probed
        .one("memory")
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    let seen = kib.unwrap_or(0).saturating_mul(1024);
    // Another kernel keeps another part for itself (its own size, crash kernel): far less than the smallest module.
    let slack = (wanted / 25).saturating_add(192 << 20);
    Verdict::of(
        seen.saturating_add(slack) >= wanted,
        format!("{} MiB, as discovered", wanted >> 20),
        format!("{} MiB", seen >> 20),
        "memory is missing that was there when the machine was discovered: look at the BMC's event log for a module that \
         failed or was mapped out",
    )
}

pub(super) fn threads_probe(context: &Context) -> Probe {
    match &context.seen.inventory {
        Some(inventory) if inventory.cpu.threads > 0 => {
            Ok(Some("echo \"online=$(cat /sys/devices/system/cpu/online)\"\n".into()))
        }
        _ => Err("no inventory of its processors is known".into()),
    }
}

pub(super) fn threads(context: &Context, probed: &Probed) -> Verdict {
    let wanted = context
        .seen
        .inventory
        .as_ref()
        .map_or(0, |seen| u64::from(seen.cpu.threads));
    let seen = count_list(probed.one("online").unwrap_or_default());
    let threads = |count| {
        if count == 1 {
            "1 thread".into()
        } else {
            format!("{count} threads")
        }
    };
    Verdict::of(
        seen >= wanted,
        format!("{}, as discovered", threads(wanted)),
        threads(seen),
        "processors are missing that were there when the machine was discovered: look at the firmware's settings for cores \
         and hyper-threading, at the kernel's command line, and at the BMC's event log",
    )
}

/// How many numbers a list such as `0-3,8` holds (kernel documentation, cputopology).
fn count_list(text: &str) -> u64 {
    let count = |part: &str| -> Option<u64> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    text.split(',').filter_map(count).fold(0, u64::saturating_add)
}

pub(super) const FAULTS: &str = "oops|BUG:|general protection fault|kernel panic|soft lockup|hard lockup|hung_task|blocked for more \
                      than|machine check|hardware error|uncorrected|MCE:|\\(EE\\)";
pub(super) const NO_FAULTS: &str = "MCE: In-kernel MCE decoding enabled|mce: CPU|machine check polling|panic=|\
                         Machine check events logged: 0|MCE banks|Command line:|HEST: Enabling|APEI|GHES|\
                         Ignoring request to disable invalid MCA bank";

pub(super) fn taint_probe(_: &Context) -> Probe {
    Ok(Some(format!(
        "echo \"tainted=$(cat /proc/sys/kernel/tainted)\"\n{}",
        kernel_log(FAULTS, NO_FAULTS)
    )))
}

/// Bits of `/proc/sys/kernel/tainted` (kernel documentation, tainted-kernels) that mean a fault. Modules out of tree,
/// of another licence or unsigned, and warnings, are named but not held against the machine.
const TAINTS: &[(u32, bool, &str)] = &[
    (0, false, "a proprietary module"),
    (4, true, "a machine check (M)"),
    (5, true, "a bad memory page (B)"),
    (7, true, "an oops (D)"),
    (9, false, "a kernel warning (W)"),
    (12, false, "a module from outside the kernel"),
    (13, false, "an unsigned module"),
    (14, true, "a soft lockup (L)"),
];

pub(super) fn taint(_: &Context, probed: &Probed) -> Verdict {
    let Some(tainted) = probed.number::<u64>("tainted") else {
        return Verdict::Skipped("the node does not say whether its kernel is tainted".into());
    };
    let is = |bit: &u32| tainted >> bit & 1 == 1;
    let mut faults: Vec<String> = TAINTS
        .iter()
        .filter(|(bit, fault, _)| *fault && is(bit))
        .map(|(_, _, name)| (*name).into())
        .collect();
    faults.extend(probed.all("log").take(5).map(str::to_owned));
    let notes: Vec<_> = TAINTS
        .iter()
        .filter(|(bit, fault, _)| !fault && is(bit))
        .map(|t| t.2)
        .collect();
    let log = match probed.number::<u64>("lines") {
        Some(1..) => "a clean log",
        _ => "the kernel's log could not be read",
    };
    let observed = match notes.is_empty() {
        true => log.into(),
        false => format!("{log}; {}", notes.join(", ")),
    };
    Verdict::by(
        &faults,
        "no oops, lockup or machine check",
        observed,
        "read the kernel's log on the node (journalctl -k -b) and the BMC's event log: memory, processor or a driver is at \
         fault",
    )
}

pub(super) fn passwords_probe(_: &Context) -> Probe {
    // Only whether there is a password leaves the node, never its hash.
    Ok(Some(
        "while IFS=: read -r name hash rest; do\n\
         case \"$hash\" in '') is=empty;; '!'*|'*'*) is=locked;; *) is=set;; esac\n\
         echo \"account=$name $is\"\ndone 2>/dev/null < /etc/shadow\n\
         sshd -T 2>/dev/null | sed -n 's/^permitemptypasswords /sshd-empty=/p; s/^passwordauthentication /sshd-password=/p'\n"
            .into(),
    ))
}

pub(super) fn passwords(_: &Context, probed: &Probed) -> Verdict {
    let accounts: Vec<_> = probed.all("account").filter_map(|line| line.rsplit_once(' ')).collect();
    if accounts.is_empty() {
        return Verdict::Skipped("the account that logs in may not read /etc/shadow".into());
    }
    let are = |kind: &str| -> BTreeSet<&str> {
        let of = accounts.iter().filter(|(_, is)| *is == kind);
        of.map(|(name, _)| *name).collect()
    };
    let mut faults: Vec<String> = are("empty")
        .iter()
        .map(|name| format!("{name} has an empty password"))
        .collect();
    if probed.one("sshd-empty") == Some("yes") {
        faults.push("the SSH server lets empty passwords in".into());
    }
    let with: Vec<_> = are("set").into_iter().collect();
    let observed = match (with.as_slice(), probed.one("sshd-password")) {
        ([], _) => "no account has a password; keys only".into(),
        (with, ssh) => format!(
            "a password is set for {}; SSH {}",
            with.join(", "),
            match ssh {
                Some("no") => "takes keys only",
                Some(_) => "takes passwords too",
                None => "does not tell whether it takes passwords",
            }
        ),
    };
    Verdict::by(
        &faults,
        "no account with an empty password",
        observed,
        "lock the account (passwd -l) or give it a password; the image should not come like this",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_of_processors_are_counted() {
        assert_eq!(count_list("0-3,8"), 5);
        assert_eq!(count_list("0"), 1);
        assert_eq!(count_list(""), 0);
        assert_eq!(count_list("9-3,0-18446744073709551615"), 0);
    }

    proptest! {
        #[test]
        fn no_list_panics(text in "[-0-9,]{0,60}") {
            let _ = count_list(&text);
        }
    }
}
