//! Accounts on a machine's BMC, against the simulated one: those that Rackbar uses there, or is about to use, are nobody's
//! to disable or remove.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use common::bmcs::*;
use rackbar_devices::{AccountChange, AccountRole, NewAccount};
use rackbar_orchestrator::PowerError;
use rackbar_vrack::seat;

fn add(name: &str) -> AccountChange {
    AccountChange::Add(NewAccount::new(name, AccountRole::Administrator, "Pass-word.9x").unwrap())
}

fn away(name: &str) -> [AccountChange; 2] {
    let name = name.to_owned();
    let disable = AccountChange::Enable {
        name: name.clone(),
        on: false,
    };
    [disable, AccountChange::Remove(name)]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_rackbar_uses_or_is_about_to_use_stays() {
    let (bmc, _machine, _dir) = simulated(seat::PowerState::Off).await;
    let store = memory();
    let watch = Watch::start(store.clone(), &bmc, "secret", TIMING);
    watch.lease();
    let node = watch.found().await;
    for name in ["next", "guest"] {
        let told = watch.rack.change_bmc_account(node.id, &add(name)).await.unwrap();
        assert!(told.what.iter().any(|one| one.name == name && one.enabled), "{told:?}");
    }
    // Written down for this BMC, by the first step of an account of our own: the BMC may have it already.
    store.begin_bmc_account(node.id, "next", 16).unwrap();
    let asked = bmc.state().requests().len();
    for change in away("next").into_iter().chain(away("Admin")) {
        let refused = watch.rack.change_bmc_account(node.id, &change).await.unwrap_err();
        assert!(matches!(&refused, PowerError::Kept { .. }), "{refused}");
        assert!(refused.to_string().contains("Rackbar logs in with it"), "{refused}");
    }
    let changes = bmc.state().requests().split_off(asked);
    assert!(!changes.iter().any(|line| line.contains("Accounts")), "{changes:?}");
    for change in away("guest") {
        watch.rack.change_bmc_account(node.id, &change).await.unwrap();
    }
    let left = watch.rack.bmc_accounts(node.id).await.unwrap();
    let names: Vec<_> = left.what.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["admin", "next"]);
    watch.stop().await;
}
