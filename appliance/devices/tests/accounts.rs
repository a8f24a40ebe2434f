//! Accounts of a BMC over both ways and in both shapes of Redfish's collection: against the simulated BMC, and against
//! transcripts of controllers.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod player;
mod stand;

use player::Player;
use rackbar_devices::{AccountChange, AccountRole, Bmc, BmcAccount, Capability, Cause, Error, Interface, NewAccount};
use rackbar_ipmi::{Privilege, Secret};
use rackbar_vrack::bmc::{Account, Faults};
use rackbar_vrack::seat;
use stand::{IPMI_ONLY, Stand, stand};

const PASSWORD: &str = "Pass-word.9x";

/// A collection of fixed slots.
const SLOTS: Faults = Faults {
    fixed_slots: true,
    ..Faults::NONE
};

fn new(name: &str, role: AccountRole) -> AccountChange {
    AccountChange::Add(NewAccount::new(name, role, PASSWORD).unwrap())
}

fn enable(name: &str, on: bool) -> AccountChange {
    AccountChange::Enable {
        name: name.to_owned(),
        on,
    }
}

fn remove(name: &str) -> AccountChange {
    AccountChange::Remove(name.to_owned())
}

async fn shown(bmc: &Bmc, name: &str) -> Option<BmcAccount> {
    let accounts = bmc.accounts().await.unwrap();
    accounts.into_iter().find(|one| one.name == name)
}

async fn refused(bmc: &Bmc, change: AccountChange) -> Error {
    bmc.change_account(&change).await.unwrap_err()
}

/// Requests over Redfish that change something, without sessions.
fn changes(stand: &Stand) -> Vec<String> {
    let requests = stand.bmc.state().requests();
    let changes = requests.into_iter().filter(|line| !line.starts_with("GET"));
    changes.filter(|line| !line.contains("Sessions")).collect()
}

/// From a BMC with one administrator to one with another operator, and back.
async fn comes_and_goes(faults: Faults, way: Interface) {
    let stand = stand(seat::PowerState::On).await;
    stand.faults(faults);
    let bmc = stand.client();
    let first = bmc.accounts().await.unwrap();
    assert_eq!(first.len(), 1, "empty slots are no accounts: {first:?}");
    assert_eq!(
        (first[0].name.as_str(), first[0].id.as_str(), first[0].ours),
        ("admin", "2", true)
    );
    assert_eq!((&first[0].role, first[0].enabled), (&AccountRole::Administrator, true));

    bmc.change_account(&new("anna", AccountRole::Operator)).await.unwrap();
    let anna = shown(&bmc, "anna").await.unwrap();
    assert_eq!(
        (&anna.role, anna.enabled, anna.ours),
        (&AccountRole::Operator, true, false)
    );
    assert_eq!(anna.locked, (way == Interface::Redfish).then_some(false));
    let slot = anna.id.parse().unwrap();
    assert!(slot >= 2, "the first slot is nobody's: {anna:?}");
    let kept = stand.bmc.state().account(slot).unwrap();
    assert!(kept.password.matches(PASSWORD.as_bytes()) && kept.privilege == Privilege::Operator);
    let again = refused(&bmc, new("Anna", AccountRole::Operator)).await;
    assert!(
        matches!(again.cause, Cause::NotAllowed(_)) && again.to_string().contains("already"),
        "{again}"
    );

    bmc.change_account(&enable("anna", false)).await.unwrap();
    assert!(!shown(&bmc, "anna").await.unwrap().enabled);
    assert!(!stand.bmc.state().account(slot).unwrap().enabled);
    let before = changes(&stand).len();
    bmc.change_account(&enable("anna", false)).await.unwrap();
    assert_eq!(changes(&stand).len(), before, "what is so already is no change");
    bmc.change_account(&enable("anna", true)).await.unwrap();
    assert!(shown(&bmc, "anna").await.unwrap().enabled);

    bmc.change_account(&remove("anna")).await.unwrap();
    assert_eq!(bmc.accounts().await.unwrap(), first);
    assert!(stand.bmc.state().account(slot).is_none());
    let gone = refused(&bmc, remove("anna")).await;
    assert!(
        matches!(gone.cause, Cause::NotAllowed(_)) && gone.to_string().contains("no account anna"),
        "{gone}"
    );
    assert_eq!(bmc.choices()[&Capability::Accounts].interface, way);
    bmc.close().await;
    assert_eq!(stand.bmc.state().sessions(), 0, "that of the proof is given back too");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_redfish_an_account_comes_and_goes() {
    comes_and_goes(Faults::NONE, Interface::Redfish).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_fixed_slots_an_account_comes_and_goes() {
    comes_and_goes(SLOTS, Interface::Redfish).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_entity_tags_an_account_comes_and_goes() {
    let no_etags = true;
    comes_and_goes(
        Faults {
            no_etags,
            ..Faults::NONE
        },
        Interface::Redfish,
    )
    .await;
    comes_and_goes(Faults { no_etags, ..SLOTS }, Interface::Redfish).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_ipmi_an_account_comes_and_goes() {
    comes_and_goes(IPMI_ONLY, Interface::Ipmi).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_password_is_tested_over_ipmi_the_new_account_logs_in() {
    let no_password_test = true;
    comes_and_goes(
        Faults {
            no_password_test,
            ..IPMI_ONLY
        },
        Interface::Ipmi,
    )
    .await;
    let stand = stand(seat::PowerState::On).await;
    stand.faults(Faults {
        no_password_test,
        ..IPMI_ONLY
    });
    let bmc = stand.client();
    bmc.change_account(&new("viewer", AccountRole::ReadOnly)).await.unwrap();
    assert_eq!(shown(&bmc, "viewer").await.unwrap().role, AccountRole::ReadOnly);
}

/// Our own account and the last administrator stay, whoever asks, and the BMC does not hear of it.
async fn stays(faults: Faults) {
    let stand = stand(seat::PowerState::On).await;
    stand.faults(faults);
    let bmc = stand.client();
    bmc.change_account(&new("second", AccountRole::Administrator))
        .await
        .unwrap();
    let before = changes(&stand).len();
    for change in [enable("admin", false), remove("admin"), remove("ADMIN")] {
        let error = refused(&bmc, change).await;
        assert!(matches!(error.cause, Cause::NotAllowed(_)), "{error}");
        assert!(error.to_string().contains("Rackbar itself logs in as admin"), "{error}");
    }
    assert_eq!(changes(&stand).len(), before, "nothing was sent");
    // With another administrator beside it, one may go.
    bmc.change_account(&remove("second")).await.unwrap();
    assert!(stand.bmc.state().account(2).is_some_and(|admin| admin.enabled));
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_account_is_neither_disabled_nor_removed() {
    stays(Faults::NONE).await;
    stays(SLOTS).await;
    stays(IPMI_ONLY).await;
}

/// An account whose password is not the one that was given is not told as made, and does not stay.
async fn is_taken_back(faults: Faults) {
    let stand = stand(seat::PowerState::On).await;
    stand.faults(Faults {
        spoils_passwords: true,
        ..faults
    });
    let bmc = stand.client();
    let error = refused(&bmc, new("anna", AccountRole::Operator)).await;
    let words = error.to_string();
    assert!(matches!(error.cause, Cause::Refused { code: 409, .. }), "{words}");
    assert!(words.contains("again") && !words.contains(PASSWORD), "{words}");
    assert_eq!(shown(&bmc, "anna").await, None, "{words}");
    assert!(
        stand.bmc.state().failures("admin") == 0,
        "our own account is not what was tried"
    );
    stand.faults(faults);
    bmc.change_account(&new("anna", AccountRole::Operator)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_does_not_prove_itself_is_taken_away_again() {
    is_taken_back(Faults::NONE).await;
    is_taken_back(SLOTS).await;
    is_taken_back(IPMI_ONLY).await;
    is_taken_back(Faults {
        no_password_test: true,
        ..IPMI_ONLY
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_bmc_and_a_forbidden_password_are_told_before_anything_is_sent() {
    for faults in [Faults::NONE, SLOTS, IPMI_ONLY] {
        let stand = stand(seat::PowerState::On).await;
        stand.faults(faults);
        let bmc = stand.client();
        let long = NewAccount::new("anna", AccountRole::ReadOnly, "more-than-twenty-characters").unwrap();
        let error = refused(&bmc, AccountChange::Add(long)).await;
        assert!(
            matches!(error.cause, Cause::NotAllowed(_)) && error.to_string().contains("20"),
            "{error}"
        );
        // Slot 1 stays nobody's.
        for slot in 2..=10 {
            let taken = Account {
                name: format!("user{slot}"),
                password: Secret::new(b"whatever").unwrap(),
                enabled: true,
                privilege: Privilege::User,
            };
            if slot > 2 {
                stand.bmc.state().set_account(slot, taken);
            }
        }
        assert_eq!(bmc.accounts().await.unwrap().len(), 9);
        let before = changes(&stand);
        let error = refused(&bmc, new("anna", AccountRole::ReadOnly)).await;
        assert!(!error.to_string().contains(PASSWORD), "{error}");
        if faults == IPMI_ONLY {
            assert!(error.to_string().contains("in use"), "{error}");
        }
        assert!(shown(&bmc, "anna").await.is_none(), "{error}");
        if faults == SLOTS {
            // What is left is the reserved slot, and this BMC says no to that.
            let sent: Vec<_> = changes(&stand).split_off(before.len());
            assert_eq!(sent, ["PATCH /redfish/v1/AccountService/Accounts/1"], "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_account_whose_answer_got_lost_is_looked_for_and_has_to_prove_itself() {
    let stand = stand(seat::PowerState::On).await;
    let bmc = stand.client_in_a_hurry();
    // As many requests as a look takes go well before the POST; its answer is lost.
    bmc.identify().await.unwrap();
    let looked = stand.bmc.state().requests().len();
    bmc.accounts().await.unwrap();
    let look = stand.bmc.state().requests().len() - looked;
    assert!(look > 3, "{look}");
    stand.faults(Faults {
        after: u32::try_from(look).unwrap(),
        lost: 1,
        ..Faults::NONE
    });
    bmc.change_account(&new("anna", AccountRole::Operator)).await.unwrap();
    assert_eq!(stand.bmc.state().faults().lost, 0, "an answer was lost");
    let posts = stand.bmc.state().requests();
    let posts = posts
        .iter()
        .filter(|line| line.starts_with("POST") && line.ends_with("Accounts"));
    assert_eq!(posts.count(), 1, "it was not asked for twice");
    assert!(shown(&bmc, "anna").await.unwrap().enabled);
}

#[tokio::test(flavor = "multi_thread")]
async fn dells_slots_are_filled_and_emptied_with_the_tag_of_what_was_read() {
    let player = Player::story("dell-accounts").await;
    let bmc = player.client();
    bmc.change_account(&new("anna", AccountRole::Operator)).await.unwrap();
    let accounts = bmc.accounts().await.unwrap();
    let names: Vec<_> = accounts
        .iter()
        .map(|one| (one.id.as_str(), one.name.as_str()))
        .collect();
    assert_eq!(names, [("2", "admin"), ("3", "anna")]);
    bmc.change_account(&remove("anna")).await.unwrap();
    player.finished();
}

#[tokio::test(flavor = "multi_thread")]
async fn openbmcs_accounts_come_by_post_and_go_by_delete_without_tags() {
    let player = Player::story("openbmc-accounts").await;
    let bmc = player.client();
    bmc.change_account(&new("anna", AccountRole::ReadOnly)).await.unwrap();
    bmc.change_account(&enable("anna", false)).await.unwrap();
    bmc.change_account(&remove("anna")).await.unwrap();
    // It lists an administrator of another name that is locked: ours is then the last one, under any spelling.
    let error = refused(&bmc, remove("Admin")).await;
    assert!(error.to_string().contains("Rackbar itself"), "{error}");
    player.finished();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_lists_accounts_without_end_is_not_believed() {
    let player = Player::story("endless-accounts").await;
    let bmc = player.client();
    let error = bmc.accounts().await.unwrap_err();
    assert!(
        matches!(error.cause, Cause::Malformed(_)) && error.to_string().contains("64"),
        "{error}"
    );
    assert!(player.asked().len() < 40, "{:?}", player.asked());
}
