//! What the timeline of a netbooted machine has to tell, in order, and that nothing in it takes long without a reason.

use anyhow::{Context, Result, ensure};
use rackbar_model::{BootStage, EventKind};

use crate::api::Worded;

/// A step of a boot: how it is called, and which event it is.
type Step = (&'static str, fn(&EventKind) -> bool);

/// Every way of booting begins with these.
const DHCP: [Step; 4] = [
    ("a DHCPDISCOVER", |kind| matches!(kind, EventKind::DhcpDiscover { .. })),
    ("an offer", |kind| matches!(kind, EventKind::DhcpOffer { .. })),
    ("a DHCPREQUEST", |kind| matches!(kind, EventKind::DhcpRequest { .. })),
    ("an acknowledged lease", |kind| {
        matches!(kind, EventKind::DhcpAck { address: Some(_), .. })
    }),
];

/// iPXE says nothing itself: what it fetches tells where it is.
const IPXE: [Step; 2] = [
    ("the script", |kind| sent(kind, "script")),
    ("the kernel sent", |kind| sent(kind, "vmlinuz")),
];

const TFTP: [Step; 2] = [
    (
        "our loader asked for by TFTP",
        |kind| matches!(kind, EventKind::TftpRequest { file, .. } if file.ends_with("loader.efi")),
    ),
    (
        "our loader sent by TFTP",
        |kind| matches!(kind, EventKind::TftpDone { file, .. } if file.ends_with("loader.efi")),
    ),
];

const HTTP: [Step; 1] = [("our loader sent over HTTP", |kind| sent(kind, "loader.efi"))];

const LOADER: [Step; 4] = [
    ("the loader started", |kind| {
        matches!(kind, EventKind::Boot(BootStage::LoaderStarted { .. }))
    }),
    ("the manifest verified", |kind| {
        matches!(kind, EventKind::Boot(BootStage::ManifestVerified))
    }),
    ("a file verified", |kind| {
        matches!(kind, EventKind::Boot(BootStage::FileVerified { .. }))
    }),
    ("the kernel about to start", |kind| {
        matches!(kind, EventKind::Boot(BootStage::StartingKernel))
    }),
];

const AGENT: [Step; 3] = [
    ("the agent started", |kind| {
        matches!(kind, EventKind::Boot(BootStage::AgentStarted { .. }))
    }),
    ("the agent connected", |kind| matches!(kind, EventKind::AgentUp { .. })),
    ("the inventory", |kind| matches!(kind, EventKind::Facts { .. })),
];

/// How a machine of a rack comes to its agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// iPXE in the adapter's ROM, told a script.
    Ipxe,
    /// UEFI PXE: our loader by TFTP.
    Pxe,
    /// UEFI HTTP Boot: our loader over HTTP.
    HttpBoot,
}

fn sent(kind: &EventKind, file: &str) -> bool {
    matches!(kind, EventKind::HttpSent { what, status: 200, .. } if what == file)
}

/// Checks a timeline: every step of this way is told, each after the one before, up to the state that says discovered.
///
/// # Errors
/// Names the step that is missing or out of its place, and shows the timeline.
pub fn all_told(timeline: &[Worded], way: Way) -> Result<()> {
    let middle: &[&[Step]] = match way {
        Way::Ipxe => &[&IPXE],
        Way::Pxe => &[&TFTP, &LOADER],
        Way::HttpBoot => &[&HTTP, &LOADER],
    };
    let steps = DHCP.iter().chain(middle.iter().copied().flatten()).chain(&AGENT);
    let mut rest = timeline;
    for (name, is_it) in steps {
        let at = rest.iter().position(|item| is_it(&item.event.kind));
        let at = at.with_context(|| format!("{name} is not told in its place:\n{}", in_words(timeline)))?;
        rest = rest.get(at + 1..).unwrap_or_default();
    }
    discovered_at(timeline)?;
    Ok(())
}

fn discovered_at(timeline: &[Worded]) -> Result<usize> {
    let up = timeline
        .iter()
        .position(|item| matches!(item.event.kind, EventKind::AgentUp { .. }));
    let discovered = timeline
        .iter()
        .position(|item| matches!(&item.event.kind, EventKind::StateChanged { to, .. } if to == "discovered"));
    let discovered = discovered.with_context(|| format!("never discovered:\n{}", in_words(timeline)))?;
    ensure!(
        up.is_some_and(|up| up < discovered),
        "discovered before its agent was up:\n{}",
        in_words(timeline)
    );
    Ok(discovered)
}

/// How many per cent of a boot may pass without a word between two entries.
fn allowed(before: &EventKind, after: &EventKind) -> u64 {
    let of_agent = match after {
        EventKind::DhcpDiscover { user_class, .. } => user_class.as_deref() == Some("rackbar-agent"),
        EventKind::Boot(BootStage::AgentStarted { .. }) => true,
        _ => false,
    };
    match before {
        // Firmware hands over, and the kernel unpacks itself before its clock runs: 32 to 41 % of four machines at once.
        EventKind::Boot(BootStage::StartingKernel) | EventKind::HttpSent { .. } if of_agent => 60,
        // EDK2 collects offers for four seconds, whatever the pace of the machine: 10 to 12 % of four at once.
        EventKind::DhcpOffer { .. } if matches!(after, EventKind::DhcpRequest { .. }) => 40,
        // Nothing else was seen to take 8 %.
        _ => 25,
    }
}

/// Checks that between the first DHCP packet and discovered nothing takes a quarter of the whole that no later entry
/// accounts for, but for the two silences of firmware that are known: a share, so that a machine that emulates slowly is
/// measured by its own pace.
///
/// # Errors
/// Names the entry that the silence is before, and shows the timeline.
pub fn no_silence(timeline: &[Worded]) -> Result<()> {
    let first = timeline
        .iter()
        .position(|item| matches!(item.event.kind, EventKind::DhcpDiscover { .. }))
        .context("no DHCP packet is told")?;
    let boot = timeline.get(first..=discovered_at(timeline)?).unwrap_or_default();
    let at = |item: &Worded| item.event.at.0;
    let (Some(begin), Some(end)) = (boot.first().map(at), boot.last().map(at)) else {
        anyhow::bail!("discovered before the first DHCP packet:\n{}", in_words(timeline));
    };
    let whole = end.saturating_sub(begin);
    for (index, before) in boot.iter().enumerate() {
        let Some((after, later)) = boot.get(index + 1..).and_then(<[_]>::split_first) else {
            break;
        };
        // What a later entry says it took reaches back over those in between: an agent's kernel starts before it asks for an
        // address.
        let reaches = |item: &Worded| at(item).saturating_sub(accounted(&item.event.kind));
        let told_from = later.iter().map(reaches).fold(reaches(after), u64::min);
        let silence = told_from.min(at(after)).saturating_sub(at(before));
        ensure!(
            silence.saturating_mul(100) <= whole.saturating_mul(allowed(&before.event.kind, &after.event.kind)),
            "{silence} of {whole} ms before {:?} are not explained:\n{}",
            after.text,
            in_words(timeline)
        );
    }
    Ok(())
}

/// Milliseconds that an entry says what it tells of took.
fn accounted(kind: &EventKind) -> u64 {
    match kind {
        EventKind::TftpDone { millis, .. }
        | EventKind::HttpSent { millis, .. }
        | EventKind::Boot(BootStage::FileVerified { millis, .. }) => *millis,
        EventKind::Boot(BootStage::AgentStarted { uptime_millis }) => *uptime_millis,
        _ => 0,
    }
}

fn in_words(timeline: &[Worded]) -> String {
    let begin = timeline.first().map_or(0, |item| item.event.at.0);
    let line = |item: &Worded| format!("{:>8} ms  {}", item.event.at.0.saturating_sub(begin), item.text);
    timeline.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use rackbar_model::{Event, Timestamp};

    use super::*;

    fn told(kinds: Vec<(u64, EventKind)>) -> Vec<Worded> {
        let worded = |(at, kind): (u64, EventKind)| Worded {
            text: format!("{kind:?}"),
            event: Event {
                seq: 0,
                at: Timestamp(at),
                node: None,
                mac: None,
                kind,
            },
        };
        kinds.into_iter().map(worded).collect()
    }

    fn http(what: &str, millis: u64) -> EventKind {
        EventKind::HttpSent {
            what: what.into(),
            client: [192, 0, 2, 9].into(),
            status: 200,
            bytes: 1,
            millis,
        }
    }

    fn a_boot() -> Vec<(u64, EventKind)> {
        let address = Some([192, 0, 2, 9].into());
        let discover = EventKind::DhcpDiscover {
            network: "rack".into(),
            arch: None,
            vendor_class: None,
            user_class: None,
            relay: None,
            circuit_id: None,
            remote_id: None,
        };
        let offer = EventKind::DhcpOffer {
            address,
            way: None,
            boot_file: None,
        };
        let ack = EventKind::DhcpAck {
            address,
            lease_seconds: None,
            boot_file: None,
        };
        let up = EventKind::AgentUp {
            address: [192, 0, 2, 9].into(),
            again: false,
        };
        let discovered = EventKind::StateChanged {
            from: "inspecting".into(),
            to: "discovered".into(),
            reason: String::new(),
        };
        let started = EventKind::Boot(BootStage::AgentStarted { uptime_millis: 700 });
        vec![
            (0, discover),
            (1, offer),
            (2, EventKind::DhcpRequest { address, server: None }),
            (3, ack),
            (10, http("script", 1)),
            (100, http("vmlinuz", 80)),
            (900, started),
            (901, up),
            (950, EventKind::Facts { changed: Vec::new() }),
            (1000, discovered),
        ]
    }

    #[test]
    fn a_step_that_is_missing_or_out_of_its_place_is_named() {
        assert!(all_told(&told(a_boot()), Way::Ipxe).is_ok());
        assert!(all_told(&told(a_boot()), Way::Pxe).is_err());
        for gone in 0..a_boot().len() {
            let mut kinds = a_boot();
            kinds.remove(gone);
            assert!(all_told(&told(kinds), Way::Ipxe).is_err(), "without {gone}");
        }
        let mut swapped = a_boot();
        swapped.swap(4, 5);
        assert!(all_told(&told(swapped), Way::Ipxe).is_err());
    }

    #[test]
    fn a_gap_counts_only_as_far_as_nothing_accounts_for_it() {
        assert!(no_silence(&told(a_boot())).is_ok());
        let mut unexplained = a_boot();
        unexplained[6].1 = EventKind::Boot(BootStage::AgentStarted { uptime_millis: 100 });
        let error = no_silence(&told(unexplained)).expect_err("700 of 1000 ms");
        assert!(error.to_string().starts_with("700 of 1000 ms"), "{error}");
        // So much is a kernel's start, and nothing else: not a script that is sent late, nor a request after its offer.
        let late = |at: usize, by: u64| {
            let mut kinds = a_boot();
            kinds.iter_mut().skip(at).for_each(|(when, _)| *when += by);
            no_silence(&told(kinds)).map_err(|error| error.to_string())
        };
        assert!(late(6, 1000).is_ok(), "a kernel's start: {:?}", late(6, 1000));
        assert!(late(6, 2000).is_err(), "{:?}", late(6, 2000));
        assert!(late(2, 600).is_ok(), "an offer before a request: {:?}", late(2, 600));
        assert!(late(2, 700).is_err(), "{:?}", late(2, 700));
        for at in [1, 3, 4, 5, 7, 8, 9] {
            assert!(late(at, 400).is_err(), "a silence before {at}: {:?}", late(at, 400));
        }
        // The agent asks for its address before it says how long its kernel has run.
        let mut between = a_boot();
        between.insert(6, (899, between[2].1.clone()));
        assert!(no_silence(&told(between)).is_ok());
    }
}
