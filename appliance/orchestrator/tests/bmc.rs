//! Stories of BMCs: the watcher and the real way to them, against the simulated BMC on the loopback.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::time::Duration;

use common::bmcs::*;
use common::*;
use rackbar_devices::{Fingerprint, Timing};
use rackbar_model::{EventKind, PowerAction, PowerState};
use rackbar_orchestrator::bmc::BmcDoor as _;
use rackbar_orchestrator::{PowerError, PowerWay};
use rackbar_verify::BootFirst;
use rackbar_vrack::bmc::{Faults, Loopback};
use rackbar_vrack::seat;

/// Logins that were tried.
fn logins(bmc: &Loopback) -> usize {
    let requests = bmc.state().requests();
    requests
        .iter()
        .filter(|one| one.starts_with("POST ") && one.contains("Sessions"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_is_found_identified_and_switches_its_machine() {
    let (bmc, machine, _dir) = simulated(seat::PowerState::Off).await;
    let watch = Watch::start(memory(), &bmc, "secret", TIMING);
    watch.lease();
    let node = watch.found().await;
    assert_eq!(node.power, PowerState::Off);
    assert_eq!(node.macs, [mac(1)], "the NIC its BMC told of");
    let power = |action| watch.rack.power_way(node.id, action, "test");
    assert_eq!(power(PowerAction::On).await, Ok(PowerWay::Bmc));
    assert_eq!(watch.rack.node(&node.name).unwrap().power, PowerState::On);
    assert_eq!(power(PowerAction::Off).await, Ok(PowerWay::Bmc));
    assert_eq!(watch.rack.node(&node.name).unwrap().power, PowerState::Off);
    assert_eq!(machine.acts().len(), 2, "{:?}", machine.acts());
    watch.stop().await;
}

/// BMCs without TLS that share a login: nothing else tells them apart.
const IPMI_ONLY: Faults = Faults {
    no_redfish: true,
    ..Faults::NONE
};

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_another_bmc_was_given_does_not_lead_to_its_machine() {
    let (bmc, machine, _dir) = simulated(seat::PowerState::On).await;
    bmc.state().set_faults(IPMI_ONLY);
    let watch = Watch::start(memory(), &bmc, "secret", TIMING);
    watch.lease();
    let node = watch.found().await;
    // Whoever is there now does not say who it is yet.
    bmc.state().set_faults(DEAF);
    watch.lease_to(mac(102));
    assert_eq!(watch.rack.node(&node.name).unwrap().bmc_address, None);
    let refused = watch.rack.power(node.id, PowerAction::Off, "test").await;
    assert_eq!(refused, Err(PowerError::NoBmc(node.name.clone())));
    // A renewal takes nothing: asked anew who it is, it says that it is the old one.
    bmc.state().set_faults(IPMI_ONLY);
    until("asked anew who it is", || {
        watch.lease_to(mac(102));
        let node = watch.rack.node(&node.name).unwrap();
        (node.bmc_address == Some(HERE)).then_some(())
    })
    .await;
    watch.lease_to(mac(102));
    assert_eq!(watch.rack.node(&node.name).unwrap().bmc_address, Some(HERE));
    assert_eq!(machine.acts(), []);
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_ipmi_the_bmc_of_another_machine_gets_no_order() {
    let (bmc, machine, _dir) = simulated(seat::PowerState::On).await;
    bmc.state().set_faults(IPMI_ONLY);
    let watch = Watch::start(memory(), &bmc, "secret", TIMING);
    // The one that is meant has moved, and nobody has seen it yet.
    watch.devices.introduce(HERE, mac(102));
    let refused = watch.devices.act(HERE, PowerAction::Off).await;
    let words = refused.unwrap_err().to_string();
    assert!(
        words.contains("another BMC answers there") && words.contains("nothing was asked"),
        "{words}"
    );
    assert_eq!(machine.acts(), []);
    watch.devices.introduce(HERE, mac(101));
    watch.devices.act(HERE, PowerAction::Off).await.unwrap();
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_tried_once_and_told_and_a_right_one_is_taken_at_once() {
    let (bmc, _machine, _dir) = simulated(seat::PowerState::Off).await;
    let watch = Watch::start(memory(), &bmc, "wrong", TIMING);
    watch.lease();
    let told = watch.failure("login refused").await;
    assert!(told.contains("left alone for 10 minutes"), "{told}");
    let tried = logins(&bmc);
    assert!((1..=2).contains(&tried), "{tried} logins");
    // A renewed lease is no new password. That the watcher took it in is seen by the next thing it does.
    watch.lease();
    watch.devices.set_credentials(admin("secret"), Vec::new());
    watch.found().await;
    assert_eq!(logins(&bmc), tried + 1, "{:?}", bmc.state().requests());
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_count_on_after_a_restart_of_the_appliance() {
    let (bmc, _machine, _dir) = simulated(seat::PowerState::Off).await;
    let store = memory();
    for (life, password) in ["first", "second", "third", "fourth"].into_iter().enumerate() {
        let watch = Watch::start(store.clone(), &bmc, password, TIMING);
        watch.devices.introduce(HERE, mac(101));
        let refused = watch.devices.power(HERE).await.unwrap_err().to_string();
        assert_eq!(refused.contains("two wrong passwords"), life >= 2, "{life}: {refused}");
        watch.stop().await;
        store.flush().unwrap();
    }
    assert_eq!(logins(&bmc), 2, "{:?}", bmc.state().requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_more_passwords_than_may_be_tried_each_has_its_turn() {
    let (bmc, _machine, _dir) = simulated(seat::PowerState::On).await;
    let timing = Timing {
        wrong_passwords: Duration::from_secs(4),
        ..TIMING
    };
    let watch = Watch::start(memory(), &bmc, "first", timing);
    let all = ["first", "second", "secret"]
        .iter()
        .flat_map(|one| admin(one))
        .collect();
    watch.devices.set_credentials(all, Vec::new());
    watch.lease();
    let told = watch.failure("admin had two wrong passwords there").await;
    assert!(told.contains("the next is tried in"), "{told}");
    assert_eq!(logins(&bmc), 2, "a third wrong one locks many an account");
    // A person is held back as the watcher is, and then the one comes first that was not tried.
    let held = watch.devices.power(HERE).await.unwrap_err().to_string();
    assert!(held.contains("two wrong passwords"), "{held}");
    let power = tokio::time::timeout(PATIENCE, async {
        loop {
            match watch.devices.power(HERE).await {
                Ok(power) => return power,
                Err(error) => assert!(error.to_string().contains("two wrong passwords"), "{error}"),
            }
        }
    });
    assert_eq!(power.await, Ok(PowerState::On));
    assert_eq!(logins(&bmc), 3, "{:?}", bmc.state().requests());
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_bmc_is_told_after_three_tries_and_found_when_it_hears() {
    let (bmc, _machine, _dir) = simulated(seat::PowerState::On).await;
    bmc.state().set_faults(DEAF);
    let watch = Watch::start(memory(), &bmc, "secret", IMPATIENT);
    watch.lease();
    let told = watch.failure("asked three times").await;
    assert!(told.contains("neither Redfish nor IPMI answers"), "{told}");
    assert!(watch.rack.nodes().is_empty());
    bmc.state().set_faults(Faults::default());
    until("found after its next lease", || {
        watch.lease();
        (!watch.rack.nodes().is_empty()).then_some(())
    })
    .await;
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeline_tells_why_ipmi_stands_in_for_redfish_and_that_redfish_is_back() {
    let (bmc, _machine, _dir) = simulated(seat::PowerState::On).await;
    let timing = Timing {
        answer: Duration::from_millis(500),
        settle: Duration::from_millis(300),
        ..TIMING
    };
    let watch = Watch::start(memory(), &bmc, "secret", timing);
    watch.lease();
    let node = watch.found().await;
    bmc.state().set_faults(Faults {
        // A connection that was lost is opened anew once.
        lost: 2,
        ..Faults::NONE
    });
    let told = |words: &str| {
        let mut events = watch.rack.events(0, usize::MAX).unwrap().into_iter();
        let is = |kind: &EventKind| matches!(kind, EventKind::Note { text, .. } if text.contains(words));
        events.find(|event| event.node == Some(node.id) && is(&event.kind))
    };
    let patience = Duration::from_secs(20);
    let both = tokio::time::timeout(patience, async {
        loop {
            watch.devices.power(HERE).await.unwrap();
            let fell = told("everything that can goes through IPMI from now on: suite 17; Redfish: ");
            if let (Some(fell), Some(back)) = (fell, told("goes through Redfish from now on")) {
                break fell.seq < back.seq;
            }
        }
    });
    let both = both.await;
    let events = watch.rack.events(0, usize::MAX).unwrap();
    assert_eq!(both, Ok(true), "{events:#?}");
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bmc_boots_first_is_read_by_either_way() {
    for faults in [Faults::NONE, IPMI_ONLY] {
        let (bmc, _machine, _dir) = simulated(seat::PowerState::On).await;
        bmc.state().set_faults(faults);
        let watch = Watch::start(memory(), &bmc, "secret", TIMING);
        watch.lease();
        watch.found().await;
        let before = watch.devices.boots_first(HERE).await.unwrap();
        assert!(!matches!(before, Some(BootFirst::Disk(_))), "{before:?}");
        watch.devices.boot_disk_first(HERE, false).await.unwrap();
        let after = watch.devices.boots_first(HERE).await.unwrap();
        assert!(matches!(after, Some(BootFirst::Disk(_))), "{after:?}");
        watch.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_is_busy_starting_is_found_when_it_is_done() {
    let (bmc, _machine, _dir) = simulated(seat::PowerState::On).await;
    bmc.state().set_faults(Faults {
        status: Some((503, u32::MAX)),
        ..Faults::default()
    });
    let watch = Watch::start(memory(), &bmc, "secret", TIMING);
    watch.lease();
    until("asked while it was busy", || {
        (bmc.state().requests().len() > 1).then_some(())
    })
    .await;
    bmc.state().set_faults(Faults::default());
    watch.found().await;
    let refused = |kind: &EventKind| matches!(kind, EventKind::BmcFailed { reason, .. } if reason.contains("login"));
    let events = watch.rack.events(0, usize::MAX).unwrap();
    assert!(!events.iter().any(|event| refused(&event.kind)), "busy is no refusal");
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_refused_also_after_a_restart_until_an_operator_accepts_it() {
    let store = memory();
    let (first, _machine, _dir) = simulated(seat::PowerState::On).await;
    let watch = Watch::start(store.clone(), &first, "secret", TIMING);
    watch.lease();
    let node = watch.found().await;
    watch.stop().await;
    drop(first);
    store.flush().unwrap();

    let (second, _machine, _dir) = simulated(seat::PowerState::On).await;
    let watch = Watch::start(store, &second, "secret", TIMING);
    let told = watch.failure("certificate changed").await;
    assert_eq!(logins(&second), 0, "no password is shown to a stranger");
    assert_eq!(watch.rack.node(&node.name).unwrap().power, PowerState::Unknown);
    let refused = watch.rack.power(node.id, PowerAction::Off, "test").await;
    assert!(matches!(refused, Err(PowerError::Refused { .. })), "{refused:?}");
    let accept = told.split("accept_certificates = [\"").nth(1).expect("what to do");
    let accept: Fingerprint = accept.split('"').next().unwrap().parse().unwrap();
    watch.devices.set_credentials(admin("secret"), vec![accept]);
    assert_eq!(watch.found().await.id, node.id);
    // Once accepted it is the one to be; the line in the file may go.
    watch.devices.set_credentials(admin("secret"), Vec::new());
    watch.rack.power(node.id, PowerAction::Off, "test").await.unwrap();
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_of_a_bmc_that_is_off_is_set_and_told() {
    let (bmc, _machine, _dir) = simulated(seat::PowerState::Off).await;
    let right = bmc.state().clock();
    bmc.state().set_clock(right - 7_530);
    let watch = Watch::every(Duration::from_millis(100), rack(memory()), &bmc, "secret", TIMING);
    watch.lease();
    let told = until_event(
        &watch.rack,
        "that its clock was set",
        |kind| matches!(kind, EventKind::Note { text, .. } if text.contains("the clock of its BMC")),
    )
    .await;
    assert!(
        told.kind.to_string().contains("was 2 h 5 min behind; it was set"),
        "{}",
        told.kind
    );
    assert!(bmc.state().clock().abs_diff(right) < 60);
    watch.stop().await;

    // One that follows servers of its own is told and left alone.
    bmc.state().set_clock(right + 7_530);
    bmc.state().set_follows_ntp(true);
    let watch = Watch::every(Duration::from_millis(100), rack(memory()), &bmc, "secret", TIMING);
    watch.lease();
    let told = until_event(
        &watch.rack,
        "that its clock is off",
        |kind| matches!(kind, EventKind::Note { text, .. } if text.contains("could not be set")),
    )
    .await;
    assert!(
        told.kind.to_string().contains("NTP servers of its own"),
        "{}",
        told.kind
    );
    assert!(bmc.state().clock() > right + 7_000);
    watch.stop().await;
}
