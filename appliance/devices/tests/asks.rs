//! Firmware settings, boot order, accounts and the rest, against the simulated BMC over the loopback.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod stand;

use std::collections::BTreeMap;

use rackbar_devices::{Applies, BootTarget, Capability, Cause, Interface};
use rackbar_model::{FirmwareMode, PowerAction};
use rackbar_vrack::bmc::Faults;
use rackbar_vrack::seat::{self, BootDevice, BootOverride, MachinePower};
use stand::{IPMI_ONLY, stand};

fn wanted(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bios_settings_are_checked_staged_and_in_force_after_a_reset() {
    let stand = stand(seat::PowerState::On).await;
    let bmc = stand.client();
    let before = bmc.bios_attributes().await.unwrap();
    assert_eq!(before.value("SriovGlobalEnable"), Some("Disabled"));
    let refused = bmc
        .stage_bios(&wanted(&[("SriovGlobalEnabled", "Enabled")]))
        .await
        .unwrap_err();
    assert!(matches!(refused.cause, Cause::NotAllowed(_)), "{refused}");
    assert!(
        refused.to_string().contains("did you mean SriovGlobalEnable?"),
        "{refused}"
    );
    assert!(
        !stand
            .bmc
            .state()
            .requests()
            .iter()
            .any(|line| line.starts_with("PATCH")),
        "nothing was sent"
    );

    let staged = bmc
        .stage_bios(&wanted(&[("SriovGlobalEnable", "Enabled"), ("NumLock", "On")]))
        .await
        .unwrap();
    assert_eq!(
        (staged.applies, staged.sent),
        (Applies::OnReset, wanted(&[("SriovGlobalEnable", "Enabled")]))
    );
    assert_eq!(
        bmc.staged_bios().await.unwrap(),
        wanted(&[("SriovGlobalEnable", "Enabled")])
    );
    let again = bmc
        .stage_bios(&wanted(&[("SriovGlobalEnable", "Enabled")]))
        .await
        .unwrap();
    assert_eq!(
        (again.applies, again.sent.len()),
        (Applies::OnReset, 0),
        "it waits already"
    );
    assert_eq!(
        bmc.bios_attributes().await.unwrap().value("SriovGlobalEnable"),
        Some("Disabled")
    );

    bmc.power(PowerAction::Reset).await.unwrap();
    assert_eq!(
        bmc.bios_attributes().await.unwrap().value("SriovGlobalEnable"),
        Some("Enabled")
    );
    assert_eq!(bmc.staged_bios().await.unwrap().len(), 0);
    let again = bmc
        .stage_bios(&wanted(&[("SriovGlobalEnable", "Enabled")]))
        .await
        .unwrap();
    assert_eq!(again.applies, Applies::Already);
    assert_eq!(bmc.choices()[&Capability::Bios].interface, Interface::Redfish);
}

#[tokio::test(flavor = "multi_thread")]
async fn ipmi_has_no_bios_settings_and_says_so() {
    let stand = stand(seat::PowerState::On).await;
    stand.faults(IPMI_ONLY);
    let error = stand.client().bios_attributes().await.unwrap_err();
    assert!(
        matches!(error.cause, Cause::Unsupported(_)) && error.interface == Interface::Redfish,
        "{error}"
    );
}

async fn lasting_boot(faults: Faults, interface: Interface) {
    let stand = stand(seat::PowerState::On).await;
    stand.faults(faults);
    let bmc = stand.client();
    bmc.set_boot_first(BootTarget::Disk, Some(FirmwareMode::Uefi))
        .await
        .unwrap();
    let disk = BootOverride {
        device: BootDevice::Disk,
        once: false,
    };
    assert_eq!(stand.machine.boot_override(), Some(disk));
    bmc.power(PowerAction::Reset).await.unwrap();
    bmc.power(PowerAction::Reset).await.unwrap();
    assert_eq!(stand.machine.starts(), [Some(disk), Some(disk)], "it lasts");
    assert_eq!(bmc.choices()[&Capability::BootOrder].interface, interface);
}

#[tokio::test(flavor = "multi_thread")]
async fn redfish_boots_from_disk_for_good() {
    lasting_boot(Faults::default(), Interface::Redfish).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipmi_boots_from_disk_for_good() {
    lasting_boot(IPMI_ONLY, Interface::Ipmi).await;
}

async fn rotates(faults: Faults) {
    let stand = stand(seat::PowerState::On).await;
    stand.faults(faults);
    let bmc = stand.client();
    bmc.change_password("admin", "n3w-secret").await.unwrap();
    let wrong = bmc.verify_login("admin", "secret").await.unwrap_err();
    assert!(matches!(wrong.cause, Cause::Unauthorized(_)), "{wrong}");
    bmc.verify_login("admin", "n3w-secret").await.unwrap();
    // From now on with the new one, also when the session has to be opened anew.
    bmc.close().await;
    bmc.power_state().await.unwrap();
    let nobody = bmc.change_password("nobody", "x-password").await.unwrap_err();
    assert!(matches!(nobody.cause, Cause::NotAllowed(_)), "{nobody}");
    let long = bmc
        .change_password("admin", "a password of more than twenty bytes")
        .await
        .unwrap_err();
    assert!(
        matches!(long.cause, Cause::NotAllowed(_)) && long.to_string().contains("20"),
        "{long}"
    );
    assert_eq!(
        stand.bmc.state().sessions(),
        usize::from(faults == Faults::default()),
        "sessions are given back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn redfish_changes_a_password_and_proves_it() {
    rotates(Faults::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipmi_changes_a_password_and_proves_it() {
    rotates(IPMI_ONLY).await;
}
