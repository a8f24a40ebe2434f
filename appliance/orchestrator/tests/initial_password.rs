//! A BMC as it comes from its maker, which wants another password before anything else: it is told, or given one of its own
//! where the site wants that, and whenever that is interrupted one of the two works.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use common::bmcs::*;
use common::*;
use rackbar_model::EventKind;
use rackbar_orchestrator::bmc::BmcDoor as _;
use rackbar_orchestrator::{Options, Rack, Settings};
use rackbar_store::{BmcLogin, Store};
use rackbar_vrack::bmc::{Faults, Loopback};
use rackbar_vrack::seat;

const AS_MADE: Faults = Faults {
    must_change: true,
    ..Faults::NONE
};

/// An appliance that replaces such passwords.
fn replacing(store: Store, bmc: &Loopback) -> Watch {
    let settings = Settings {
        replace_initial_passwords: true,
        ..settings()
    };
    let options = Options {
        settings,
        ..Options::default()
    };
    Watch::with(Rack::start(store, options).unwrap(), bmc, "secret", TIMING)
}

/// Waits until the BMC is found and the password that is kept for it is proven, and gives that.
async fn own(watch: &Watch, store: &Store) -> BmcLogin {
    let node = watch.found().await;
    let proven = || {
        let login = store.bmc_login(node.id).unwrap()?;
        (login.own && login.pending.is_none() && login.proven_at.is_some()).then_some(login)
    };
    let login = until("its password is proven", proven).await;
    assert_ne!(login.current.0, "secret");
    assert_eq!(store.bmc_login(mac(101)).unwrap(), None, "it is the machine's now");
    let proof = watch.devices.verify_login(HERE, &login.user, &login.current).await;
    assert_eq!(proof, Ok(()));
    login
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_wants_another_password_is_told_and_left_alone() {
    let (bmc, _machine, _dir) = simulated(seat::PowerState::Off).await;
    bmc.state().set_faults(AS_MADE);
    let store = memory();
    let watch = Watch::start(store.clone(), &bmc, "secret", TIMING);
    watch.lease();
    let told = watch.failure("wants another password").await;
    assert!(told.contains("bmc.replace_initial_passwords"), "{told}");
    assert!(bmc.state().faults().must_change, "nobody asked for a change");
    assert_eq!(store.bmc_logins().unwrap(), []);
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_wants_another_password_gets_its_own_before_its_machine_is_known() {
    let (bmc, machine, _dir) = simulated(seat::PowerState::Off).await;
    bmc.state().set_faults(AS_MADE);
    let store = memory();
    let watch = replacing(store.clone(), &bmc);
    watch.lease();
    let login = own(&watch, &store).await;
    assert_eq!(login.user, "admin");
    let noted = |kind: &EventKind| matches!(kind, EventKind::Note { text, .. } if text.contains("one of its own now"));
    let event = until_event(&watch.rack, "the change is told", noted).await;
    assert!(!event.kind.to_string().contains(&login.current.0), "{}", event.kind);
    assert!(machine.acts().is_empty(), "{:?}", machine.acts());
    watch.stop().await;
    // It is known by that password from now on, by an appliance that is told the maker's.
    let watch = replacing(store.clone(), &bmc);
    watch.lease();
    assert_eq!(own(&watch, &store).await.current, login.current);
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_after_any_request_an_initial_password_is_replaced_by_the_next_appliance() {
    // So many requests go well; of the next one the answer is kept back, and the appliance ends.
    for well in 0.. {
        let (bmc, _machine, _dir) = simulated(seat::PowerState::Off).await;
        bmc.state().set_faults(Faults {
            after: well,
            lost: 1,
            ..AS_MADE
        });
        let store = memory();
        let watch = replacing(store.clone(), &bmc);
        watch.lease();
        let ended = || {
            let all = store.bmc_logins().unwrap();
            let over = all.iter().any(|(_, login)| login.own && login.pending.is_none());
            (over || bmc.state().faults().lost == 0).then_some(over)
        };
        let over = until("the answer is kept back, or all is over", ended).await;
        watch.stop().await;
        bmc.state().set_faults(Faults {
            must_change: bmc.state().faults().must_change,
            ..Faults::NONE
        });
        let watch = replacing(store.clone(), &bmc);
        watch.lease();
        own(&watch, &store).await;
        watch.stop().await;
        if over {
            assert!(well > 5, "it took more requests than {well}");
            return;
        }
    }
}
