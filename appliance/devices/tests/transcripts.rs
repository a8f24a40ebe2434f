//! The Redfish client against controllers in the shapes of five makers, played from transcripts written by hand from the
//! standards and from published reports. They show how the client behaves, not that any firmware does.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod player;

use std::collections::BTreeMap;

use player::Player;
use rackbar_devices::{Applies, BootTarget, Capability, Cause, Interface};
use rackbar_model::{FirmwareMode, PowerAction};

fn wanted(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dells_shape_is_played() {
    let player = Player::story("dell").await;
    let bmc = player.client();
    let settings = wanted(&[("ProcVirtualization", "Disabled"), ("BootSeqRetryCount", "3")]);
    let refused = bmc
        .stage_bios(&wanted(&[("BootSeqRetryCount", "9")]))
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("0 to 5"),
        "the registry of the other version was read: {refused}"
    );
    let staged = bmc.stage_bios(&settings).await.unwrap();
    assert_eq!((staged.applies, staged.sent), (Applies::OnReset, settings));
    assert_eq!(
        staged.task.as_deref(),
        Some("/redfish/v1/TaskService/Tasks/JID_000000000001")
    );
    bmc.set_boot_first(BootTarget::Disk, Some(FirmwareMode::Uefi))
        .await
        .unwrap();
    player.finished();
    let logins = player
        .asked()
        .iter()
        .filter(|line| line.contains("POST") && line.contains("Sessions"))
        .count();
    assert_eq!(logins, 1, "a full house is not asked again and again");
}

#[tokio::test(flavor = "multi_thread")]
async fn hpes_shape_is_played() {
    let player = Player::story("hpe").await;
    let bmc = player.client();
    let shown = bmc.bios_attributes().await.unwrap();
    assert!(
        shown.attributes["WorkloadProfile"].rule.is_some(),
        "the English registry was found"
    );
    bmc.set_boot_url("http://192.0.2.1/boot.efi").await.unwrap();
    assert_eq!(bmc.verdict().profiles[0].name, "hpe");
    player.finished();
}

#[tokio::test(flavor = "multi_thread")]
async fn lenovos_shape_is_played() {
    let player = Player::story("lenovo").await;
    let bmc = player.client();
    bmc.set_boot_first(BootTarget::Network, None).await.unwrap();
    player.finished();
    // Nothing in its order is a CD, and its override does not last: said so, nothing sent.
    let error = bmc.set_boot_first(BootTarget::Cd, None).await.unwrap_err();
    assert!(
        matches!(error.cause, Cause::Unsupported(_)) && error.to_string().contains("debian"),
        "{error}"
    );
    player.finished();
}

#[tokio::test(flavor = "multi_thread")]
async fn supermicros_shape_is_played() {
    let player = Player::story("supermicro").await;
    let bmc = player.client();
    bmc.set_boot_first(BootTarget::Disk, Some(FirmwareMode::Uefi))
        .await
        .unwrap();
    assert_eq!(bmc.choices()[&Capability::BootOrder].interface, Interface::Redfish);
    let error = bmc.bios_attributes().await.unwrap_err();
    assert!(matches!(error.cause, Cause::Unsupported(_)), "{error}");
    let error = bmc.power(PowerAction::Reset).await.unwrap_err();
    assert!(error.to_string().contains("Power supply does not answer."), "{error}");
    player.finished();
}

#[tokio::test(flavor = "multi_thread")]
async fn openbmcs_shape_is_played() {
    let player = Player::story("openbmc").await;
    let bmc = player.client();
    bmc.power(PowerAction::On).await.unwrap();
    let short = bmc.change_password("admin", "short").await.unwrap_err();
    assert!(matches!(short.cause, Cause::NotAllowed(_)), "{short}");
    let simple = bmc.change_password("admin", "password1").await.unwrap_err();
    assert!(matches!(simple.cause, Cause::Refused { code: 400, .. }), "{simple}");
    assert!(
        simple.to_string().contains("dictionary word") && !simple.to_string().contains("password1"),
        "{simple}"
    );
    player.finished();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_has_to_be_changed_is_and_what_is_forbidden_is_no_wrong_password() {
    let player = Player::story("expired").await;
    let bmc = player.client();
    let first = bmc.identify().await.unwrap_err();
    let account = Some("/redfish/v1/AccountService/Accounts/1".to_owned());
    assert_eq!(first.cause, Cause::PasswordChangeRequired { account }, "{first}");
    assert!(
        bmc.wants_another_password() && first.to_string().contains("wants another password"),
        "{first}"
    );
    bmc.change_password("admin", "a-new-secret").await.unwrap();
    bmc.verify_login("admin", "a-new-secret").await.unwrap();
    let identity = bmc.identify().await.unwrap();
    assert_eq!(identity.system_serial.as_deref(), Some("S1"));
    assert!(identity.nic_macs.is_empty() && !bmc.wants_another_password());
    let off = bmc.power(PowerAction::Off).await.unwrap_err();
    assert!(
        matches!(&off.cause, Cause::Forbidden(words) if words.contains("insufficient privileges")),
        "{off}"
    );
    player.finished();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_log_of_links_the_newest_are_fetched() {
    let player = Player::story("linkedlog").await;
    let log = player.client().event_log(2).await.unwrap();
    let ids: Vec<_> = log.iter().map(|line| line.id.as_str()).collect();
    assert_eq!(ids, ["4", "3"]);
    assert!(
        !player.asked().iter().any(|line| line.ends_with("/Entries/2")),
        "each line is a request"
    );
    player.finished();
}
