//! A password of its own for a BMC, against the simulated one: whenever the change is interrupted, one of the two
//! passwords works, and the next try ends it.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::bmcs::*;
use common::*;
use rackbar_model::{Node, Timestamp};
use rackbar_orchestrator::bmc::BmcDoor as _;
use rackbar_orchestrator::hands::{Appliance, Done, Hands as _, Learned, Reach};
use rackbar_plan::ActionKind;
use rackbar_store::{BmcLogin, Store};
use rackbar_vrack::bmc::{Faults, Loopback};
use rackbar_vrack::seat;

fn hands(watch: &Watch, store: &Store) -> Appliance {
    Appliance::new(watch.rack.clone(), store.clone(), None, Reach::default()).unwrap()
}

/// One attempt of the change.
async fn change(watch: &Watch, store: &Store, node: &Arc<Node>) -> Done {
    let (task, _give_up) = task(node, ActionKind::RotatePassword);
    hands(watch, store).carry_out(task).await
}

/// One attempt of the change that a plan made at a time was asked for.
async fn change_anew(watch: &Watch, store: &Store, node: &Arc<Node>, made: Timestamp) -> Done {
    let (mut task, _give_up) = task(node, ActionKind::RotatePassword);
    let mut plan = (*task.plan).clone();
    (plan.made, plan.scope.rotate_passwords) = (made, true);
    task.plan = Arc::new(plan);
    hands(watch, store).carry_out(task).await
}

/// The change is over: the BMC has a password of its own, and no other one is kept.
async fn proven(watch: &Watch, store: &Store, node: &Node) {
    let login = store.bmc_login(node.id).unwrap().unwrap();
    assert!(login.own && login.pending.is_none() && login.proven_at.is_some());
    assert_ne!(login.current.0, "secret");
    watch
        .devices
        .verify_login(HERE, &login.user, &login.current)
        .await
        .unwrap();
}

/// One of those that are written down opens the BMC.
async fn not_locked_out(watch: &Watch, store: &Store, node: &Node) {
    let Some(login) = store.bmc_login(node.id).unwrap() else {
        return;
    };
    for password in std::iter::once(&login.current).chain(&login.pending) {
        if watch.devices.verify_login(HERE, &login.user, password).await.is_ok() {
            return;
        }
    }
    panic!("neither password opens the BMC");
}

fn told(bmc: &Loopback, store: &Store, node: &Node) {
    assert_eq!(bmc.state().failures("admin"), 0, "no failed login is left behind");
    let login = BmcLogin::told("admin", &rackbar_model::SecretText("secret".into()));
    store.save_bmc_login(node.id, &login).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_its_own_is_changed_again_when_that_is_asked_for_and_once_only() {
    let (bmc, _machine, _dir) = simulated(seat::PowerState::Off).await;
    let store = memory();
    let watch = Watch::start(store.clone(), &bmc, "secret", TIMING);
    watch.lease();
    let node = watch.found().await;
    assert!(change(&watch, &store, &node).await.result.is_ok());
    let first = store.bmc_login(node.id).unwrap().unwrap();
    let made = Timestamp(first.changed_at.unwrap().0 + 1);
    // So that what is changed now is younger than the plan.
    until("the clock has gone on", || {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        (now.as_millis() > u128::from(made.0)).then_some(())
    })
    .await;
    let done = change_anew(&watch, &store, &node, made).await;
    assert!(done.result.is_ok_and(|outcome| !outcome.nothing_to_do));
    proven(&watch, &store, &node).await;
    let second = store.bmc_login(node.id).unwrap().unwrap();
    assert_ne!(first.current, second.current);
    assert!(watch.devices.verify_login(HERE, "admin", &first.current).await.is_err());
    watch
        .devices
        .verify_login(HERE, "admin", &second.current)
        .await
        .unwrap();
    // The same action once more, as after a kill of the appliance: it was done.
    let again = change_anew(&watch, &store, &node, made).await;
    assert!(again.result.is_ok_and(|outcome| outcome.nothing_to_do));
    assert_eq!(store.bmc_login(node.id).unwrap().unwrap().current, second.current);
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_is_changed_proven_and_then_left_alone() {
    let (bmc, _machine, _dir) = simulated(seat::PowerState::Off).await;
    let store = memory();
    let watch = Watch::start(store.clone(), &bmc, "secret", TIMING);
    watch.lease();
    let node = watch.found().await;
    let done = change(&watch, &store, &node).await;
    assert!(
        done.result.is_ok() && done.learned == [Learned::PasswordRotated],
        "{done:?}"
    );
    proven(&watch, &store, &node).await;
    let before = store.bmc_login(node.id).unwrap();
    let again = change(&watch, &store, &node).await;
    assert!(again.result.is_ok_and(|outcome| outcome.nothing_to_do));
    assert_eq!(store.bmc_login(node.id).unwrap(), before);
    let old = rackbar_model::SecretText("secret".into());
    assert!(
        watch.devices.verify_login(HERE, "admin", &old).await.is_err(),
        "the old one is gone"
    );
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_between_any_two_steps_it_is_ended_by_the_next_try() {
    for step in ["written down", "told to the BMC"] {
        let (bmc, _machine, _dir) = simulated(seat::PowerState::Off).await;
        let store = memory();
        let watch = Watch::start(store.clone(), &bmc, "secret", TIMING);
        watch.lease();
        let node = watch.found().await;
        told(&bmc, &store, &node);
        let login = store.begin_bmc_password(node.id, 16).unwrap();
        let pending = login.pending.clone().unwrap();
        if step == "told to the BMC" {
            watch.devices.change_password(HERE, "admin", &pending).await.unwrap();
        }
        // The appliance is another one afterwards, and knows what is on its disk.
        watch.stop().await;
        let watch = Watch::start(store.clone(), &bmc, "secret", TIMING);
        watch.lease();
        let node = watch.found().await;
        let done = change(&watch, &store, &node).await;
        assert!(done.result.is_ok(), "{step}: {done:?}");
        proven(&watch, &store, &node).await;
        let login = store.bmc_login(node.id).unwrap().unwrap();
        assert!(login.current == pending, "{step}: no third password was made");
        watch.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_at_any_moment_one_of_the_two_passwords_works() {
    let (bmc, _machine, _dir) = simulated(seat::PowerState::Off).await;
    bmc.state().set_faults(Faults {
        slow: Duration::from_millis(15),
        ..Faults::NONE
    });
    let store = memory();
    let watch = Watch::start(store.clone(), &bmc, "secret", TIMING);
    watch.lease();
    let node = watch.found().await;
    let (mut wait, deadline) = (Duration::from_millis(5), Instant::now() + PATIENCE);
    loop {
        let one = tokio::time::timeout(wait, change(&watch, &store, &node)).await;
        not_locked_out(&watch, &store, &node).await;
        if let Ok(Ok(_)) = one.map(|done| done.result) {
            break;
        }
        assert!(Instant::now() < deadline, "it never ended");
        wait += Duration::from_millis(12);
    }
    proven(&watch, &store, &node).await;
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_is_busy_deaf_or_forgetful_keeps_us_waiting_and_not_out() {
    let busy = |status, times| Faults {
        status: Some((status, times)),
        ..Faults::NONE
    };
    let faults = [
        ("503", busy(503, 6)),
        ("401 once", busy(401, 1)),
        ("deaf for a while", Faults::deaf_for(Duration::from_secs(2))),
        (
            "a stale entity tag",
            Faults {
                stale_etags: 1,
                ..Faults::NONE
            },
        ),
    ];
    for (name, faults) in faults {
        let (bmc, _machine, _dir) = simulated(seat::PowerState::Off).await;
        let store = memory();
        let watch = Watch::start(store.clone(), &bmc, "secret", IMPATIENT);
        watch.lease();
        let node = watch.found().await;
        bmc.state().set_faults(faults);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match change(&watch, &store, &node).await.result {
                Ok(_) => break,
                // What the run does with it: it is tried again while that is of use.
                Err(failure) => assert!(failure.again && Instant::now() < deadline, "{name}: {}", failure.reason),
            }
        }
        proven(&watch, &store, &node).await;
        watch.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_refuses_the_change_keeps_its_old_password_and_so_do_we() {
    let (bmc, _machine, _dir) = simulated(seat::PowerState::Off).await;
    let store = memory();
    let watch = Watch::start(store.clone(), &bmc, "secret", TIMING);
    watch.lease();
    let node = watch.found().await;
    bmc.state().set_faults(Faults {
        wrong_etag: true,
        ..Faults::NONE
    });
    let failure = change(&watch, &store, &node).await.result.unwrap_err();
    assert!(
        !failure.again && failure.reason.contains("etag_broken"),
        "{}",
        failure.reason
    );
    let login = store.bmc_login(node.id).unwrap().unwrap();
    assert!(login.pending.is_none() && !login.own && login.current.0 == "secret");
    // Once the firmware is mended, the next run ends it.
    bmc.state().set_faults(Faults::NONE);
    assert!(change(&watch, &store, &node).await.result.is_ok());
    proven(&watch, &store, &node).await;
    watch.stop().await;
}
