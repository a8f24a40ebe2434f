//! Stories of machines that are off, and of those that boot from their own disk.

use alloc::vec::Vec;

use rackbar_model::{BootStage, EventKind, PowerState};

use super::tests::{Story, ack, agent_up, at, discover, facts, http, power, up_to_loader, with};
use super::*;

fn asked(action: &str) -> EventKind {
    EventKind::PowerRequested {
        action: action.into(),
        by: "admin".into(),
    }
}

fn off() -> EventKind {
    EventKind::PowerChanged {
        from: PowerState::On,
        to: PowerState::Off,
    }
}

fn lost() -> EventKind {
    EventKind::AgentLost {
        reason: "reset by peer".into(),
    }
}

/// The DHCP client of an operating system: no architecture, no boot class.
fn system() -> EventKind {
    EventKind::DhcpDiscover {
        network: "rack".into(),
        arch: None,
        vendor_class: None,
        user_class: None,
        relay: None,
        circuit_id: None,
        remote_id: None,
    }
}

fn discovered() -> Vec<(f64, EventKind)> {
    with(up_to_loader(), &[(9.0, agent_up()), (10.0, facts())])
}

fn sent() -> Vec<(f64, EventKind)> {
    with(up_to_loader(), &[(6.0, EventKind::Boot(BootStage::LocalDisk))])
}

pub(super) fn stories() -> Vec<Story> {
    use Severity::{Info, Warning};
    let shut = [(50.0, asked("shutdown")), (55.0, lost()), (58.0, off()), (58.5, lost())];
    [
        (
            "switched_off",
            with(discovered(), &shut),
            178.0,
            "switched off 120 s ago: shutdown asked by admin",
            Info,
        ),
        (
            "switched_off",
            with(discovered(), &[(50.0, asked("off")), (51.0, off())]),
            56.0,
            "switched off by admin 5.0 s ago",
            Info,
        ),
        (
            "switched_off",
            with(discovered(), &[(51.0, off())]),
            56.0,
            "went off 5.0 s ago, and nobody asked",
            Info,
        ),
        (
            "switched_off",
            [(0.0, power(PowerState::Off))].to_vec(),
            2.0,
            "it is off, says its BMC",
            Info,
        ),
        (
            "switching_off",
            with(discovered(), &shut[..2]),
            200.0,
            "power shutdown asked by admin 150 s ago; it was not seen off yet",
            Warning,
        ),
        (
            "sent_to_disk",
            sent(),
            11.0,
            "sent back to its firmware 5.0 s ago",
            Info,
        ),
        (
            "system_runs",
            with(sent(), &[(30.0, system()), (31.0, ack())]),
            40.0,
            "booted its disk: the system on it asked for an address 9.0 s ago, 25.0 s after",
            Info,
        ),
        (
            "system_runs",
            with(
                discovered(),
                &[(60.0, power(PowerState::On)), (90.0, system()), (91.0, ack())],
            ),
            100.0,
            "runs the system on its disk",
            Info,
        ),
    ]
    .to_vec()
}

#[test]
fn what_runs_is_not_off() {
    let on = with(
        discovered(),
        &[(50.0, asked("off")), (51.0, off()), (60.0, discover(None))],
    );
    assert_eq!(at(&on, 61.0).stage, Stage::Dhcp);
    let refused = with(discovered(), &[(50.0, asked("off")), (70.0, agent_up())]);
    assert_eq!(at(&refused, 71.0).stage, Stage::Discovered);
}

#[test]
fn a_request_for_off_of_a_machine_that_is_off_changes_nothing() {
    let twice = with(discovered(), &[(51.0, off()), (60.0, asked("off"))]);
    assert!(at(&twice, 61.0).text.contains("went off"), "{}", at(&twice, 61.0).text);
}

#[test]
fn a_system_that_had_a_lease_begins_with_a_request() {
    let again = with(sent(), &[(30.0, ack())]);
    assert!(
        at(&again, 31.0).text.contains("booted its disk"),
        "{}",
        at(&again, 31.0).text
    );
}

#[test]
fn an_agent_after_a_disk_boot_is_told_of() {
    let back = with(
        sent(),
        &[
            (400.0, discover(None)),
            (410.0, http("vmlinuz", 200)),
            (420.0, agent_up()),
        ],
    );
    assert_eq!(at(&back, 421.0).stage, Stage::Agent);
    assert_eq!(at(&back[..back.len() - 2], 401.0).stage, Stage::Dhcp);
}

#[test]
fn a_stranger_that_is_left_alone_is_no_system_of_ours() {
    let ignored = EventKind::ClientIgnored {
        reason: "unknown machine".into(),
    };
    let verdict = at(&[(0.0, system()), (0.1, ignored)], 5.0);
    assert!(verdict.text.contains("left alone"), "{}", verdict.text);
}
