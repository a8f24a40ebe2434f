//! A machine whose first tries were lost on the way: what its own count of seconds tells.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test's words may")]

mod rig;

use rackbar_model::EventKind;
use rig::*;

/// Seconds told as lost since the last look.
fn late(rig: &mut Rig) -> Vec<u16> {
    let seconds = |kind| match kind {
        EventKind::AskedLate { seconds } => Some(seconds),
        _ => None,
    };
    rig.told().into_iter().filter_map(seconds).collect()
}

#[test]
fn a_machine_that_was_not_heard_for_half_a_minute_is_told_once() {
    for client in [Client::edk2(mac(1)), Client::ipxe(mac(1)), Client::old_rom(mac(1))] {
        let mut rig = Rig::own();
        rig.hear(&client.discover_after(31));
        assert_eq!(late(&mut rig), [31]);
        rig.wait(4000);
        rig.hear(&client.discover_after(35));
        assert_eq!(late(&mut rig), [0; 0], "a retry of one that was heard");
    }
}

#[test]
fn a_machine_that_we_let_wait_is_not_late() {
    let mut rig = Rig::own();
    rig.hear(&Client::edk2(mac(1)).xid(1).discover_after(0));
    rig.wait(12_000);
    // Another transaction of the same tries.
    rig.hear(&Client::edk2(mac(1)).xid(2).discover_after(12));
    assert_eq!(late(&mut rig), [0; 0]);
    // Its next boot, behind a port that blocks.
    rig.wait(300_000);
    rig.hear(&Client::edk2(mac(1)).xid(3).discover_after(28));
    assert_eq!(late(&mut rig), [28]);
}

#[test]
fn counts_that_cannot_be_right_and_systems_that_do_not_boot_are_left_out() {
    let mut rig = Rig::own();
    rig.hear(&Client::edk2(mac(1)).discover_after(7));
    rig.hear(&Client::edk2(mac(2)).discover_after(0x0400));
    rig.hear(&Client::dhclient(mac(3)).discover_after(31));
    assert_eq!(late(&mut rig), [0; 0]);
}
