//! Firmware settings, boot order, accounts and the rest, against the simulated BMC over the loopback.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod stand;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rackbar_devices::{Applies, BiosKind, BootOption, BootTarget, Capability, Cause, HealthState, Interface};
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

#[tokio::test(flavor = "multi_thread")]
async fn values_the_registry_forbids_are_not_sent() {
    let stand = stand(seat::PowerState::On).await;
    let bmc = stand.client();
    let shown = bmc.bios_attributes().await.unwrap();
    assert_eq!(shown.registry.as_deref(), Some("BiosAttributeRegistry.1.0.0"));
    let rule = shown.attributes["BootRetries"].rule.clone().unwrap();
    assert_eq!(
        rule.kind,
        BiosKind::Number {
            least: Some(0),
            most: Some(10),
            step: None
        }
    );
    for (name, value, words) in [
        ("BootMode", "Legacy", "one of Uefi, Bios"),
        ("BootRetries", "11", "0 to 10"),
        ("QuietBoot", "Yes", "true or false"),
    ] {
        let refused = bmc
            .stage_bios(&wanted(&[(name, value), ("NumLock", "Off")]))
            .await
            .unwrap_err();
        assert!(
            matches!(refused.cause, Cause::NotAllowed(_)) && refused.to_string().contains(words),
            "{refused}"
        );
    }
    assert!(
        !stand
            .bmc
            .state()
            .requests()
            .iter()
            .any(|line| line.starts_with("PATCH")),
        "nothing was sent"
    );
    // Numbers and switches go out as such: the firmware refuses text for them.
    bmc.stage_bios(&wanted(&[("BootRetries", "7"), ("QuietBoot", "true")]))
        .await
        .unwrap();
    // A restart by the guest counts as well as one by the BMC.
    stand.machine.guest_resets();
    let after = bmc.bios_attributes().await.unwrap();
    assert_eq!(
        (after.value("BootRetries"), after.value("QuietBoot")),
        (Some("7"), Some("true"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn redfish_changes_the_boot_order_for_good() {
    let stand = stand(seat::PowerState::On).await;
    let bmc = stand.client();
    let targets = |order: Vec<BootOption>| order.into_iter().map(|option| option.target).collect::<Vec<_>>();
    let before = targets(bmc.boot_order().await.unwrap());
    assert_eq!(before, [BootTarget::Network, BootTarget::Disk, BootTarget::Cd]);
    bmc.set_boot_first(BootTarget::Disk, Some(FirmwareMode::Uefi))
        .await
        .unwrap();
    assert_eq!(
        targets(bmc.boot_order().await.unwrap()),
        [BootTarget::Disk, BootTarget::Network, BootTarget::Cd]
    );
    assert_eq!(stand.machine.boot_order()[0].device, BootDevice::Disk);
    assert_eq!(
        stand.machine.boot_override(),
        None,
        "the order changed, no override was set"
    );
    // A one-time override goes before the order, once.
    bmc.power(PowerAction::Netboot).await.unwrap();
    bmc.power(PowerAction::Reset).await.unwrap();
    let once = BootOverride {
        device: BootDevice::Network,
        once: true,
    };
    assert_eq!(stand.machine.starts(), [Some(once), None]);
    let patches = |path: &str| stand.bmc.state().requests().iter().filter(|line| *line == path).count();
    let sent = patches("PATCH /redfish/v1/Systems/1");
    bmc.set_boot_first(BootTarget::Disk, None).await.unwrap();
    assert_eq!(patches("PATCH /redfish/v1/Systems/1"), sent, "it is so already");
}

#[tokio::test(flavor = "multi_thread")]
async fn ipmi_boots_from_disk_for_good() {
    let stand = stand(seat::PowerState::On).await;
    stand.faults(IPMI_ONLY);
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
    let choice = bmc.choices()[&Capability::BootOrder].clone();
    assert!(
        choice.interface == Interface::Ipmi && choice.reason.contains("404"),
        "{choice:?}"
    );
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

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_new_password_costs_one_failed_login() {
    let stand = stand(seat::PowerState::On).await;
    let bmc = stand.client();
    let wrong = |count| {
        let (bmc, stand) = (&bmc, &stand);
        async move {
            bmc.verify_login("admin", "not-this-one").await.unwrap_err();
            assert_eq!(stand.bmc.state().failures("admin"), count);
        }
    };
    wrong(1).await;
    // The old one still counts, and a good login forgives.
    bmc.close().await;
    bmc.power_state().await.unwrap();
    assert_eq!(stand.bmc.state().failures("admin"), 0);
    wrong(1).await;
    wrong(2).await;
    // A third could lock the account: it is not tried.
    wrong(2).await;
    // Without sessions as well: Basic authentication is one attempt too.
    let bmc = stand.client();
    bmc.power_state().await.unwrap();
    stand.faults(Faults {
        no_sessions: true,
        ..Faults::NONE
    });
    bmc.verify_login("admin", "not-this-one").await.unwrap_err();
    assert_eq!(stand.bmc.state().failures("admin"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_went_stale_is_read_again() {
    let stand = stand(seat::PowerState::On).await;
    let bmc = stand.client();
    stand.faults(Faults {
        stale_etags: 1,
        ..Faults::NONE
    });
    bmc.change_password("admin", "n3w-secret").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_task_is_followed_to_its_end() {
    let stand = stand(seat::PowerState::Off).await;
    let length = Duration::from_millis(300);
    stand.faults(Faults {
        slow_task: Some(length),
        ..Faults::NONE
    });
    let bmc = stand.client();
    let start = Instant::now();
    bmc.power(PowerAction::On).await.unwrap();
    assert!(start.elapsed() >= length, "{:?}", start.elapsed());
    // Settings wait for a reset by design: their task is told, not waited for.
    stand.faults(Faults {
        slow_task: Some(Duration::from_secs(600)),
        ..Faults::NONE
    });
    let staged = bmc.stage_bios(&wanted(&[("NumLock", "Off")])).await.unwrap();
    assert!(
        staged
            .task
            .is_some_and(|task| task.starts_with("/redfish/v1/TaskService/Tasks/"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_free_session_the_password_goes_along() {
    let stand = stand(seat::PowerState::On).await;
    stand.faults(Faults {
        session_limit: Some(0),
        ..Faults::NONE
    });
    let bmc = stand.client();
    assert_eq!(bmc.sensors().await.unwrap().len(), 6);
    assert_eq!(stand.bmc.state().sessions(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn media_go_in_and_out() {
    let stand = stand(seat::PowerState::On).await;
    let bmc = stand.client();
    bmc.insert_media("http://192.0.2.1/rescue.iso").await.unwrap();
    assert_eq!(
        stand.bmc.state().media().as_deref(),
        Some("http://192.0.2.1/rescue.iso")
    );
    bmc.insert_media("http://192.0.2.1/other.iso").await.unwrap();
    assert_eq!(
        stand.bmc.state().media().as_deref(),
        Some("http://192.0.2.1/other.iso"),
        "the first one was taken out"
    );
    let drives = bmc.media().await.unwrap();
    let ours = drives.iter().find(|drive| drive.ours).unwrap();
    assert_eq!(
        (ours.inserted, ours.image.as_deref()),
        (Some(true), Some("http://192.0.2.1/other.iso"))
    );
    bmc.eject_media().await.unwrap();
    bmc.eject_media().await.unwrap();
    assert_eq!(stand.bmc.state().media(), None);
    bmc.set_boot_url("http://192.0.2.1/boot.efi").await.unwrap();
    let boot = bmc.get_boot().await.unwrap();
    assert_eq!(
        (boot.target, boot.once, boot.url.as_deref()),
        (BootTarget::Http, true, Some("http://192.0.2.1/boot.efi"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_read_the_same_sensors() {
    let stand = stand(seat::PowerState::On).await;
    stand.bmc.state().set_reading("CPU1 Temp", 95);
    let redfish = stand.client().sensors().await.unwrap();
    stand.faults(IPMI_ONLY);
    let ipmi = stand.client();
    let mut told = ipmi.sensors().await.unwrap();
    let by_name = |a: &rackbar_devices::Sensor, b: &rackbar_devices::Sensor| a.name.cmp(&b.name);
    let mut seen = redfish;
    seen.sort_by(by_name);
    told.sort_by(by_name);
    assert_eq!(seen, told);
    let hot = told.iter().find(|sensor| sensor.name == "CPU1 Temp").unwrap();
    assert_eq!(
        (hot.reading, hot.unit.as_str(), hot.state),
        (Some(95.0), "Cel", HealthState::Critical)
    );
    let health = ipmi.health().await.unwrap();
    assert_eq!(
        (health.state, health.notes.as_slice()),
        (HealthState::Critical, ["CPU1 Temp: critical".to_owned()].as_slice())
    );
    assert_eq!(ipmi.choices()[&Capability::Sensors].interface, Interface::Ipmi);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_event_log_comes_newest_first() {
    let stand = stand(seat::PowerState::On).await;
    for line in 1..=5 {
        stand.bmc.state().add_entry(&format!("line {line}"));
    }
    let log = stand.client().event_log(3).await.unwrap();
    assert_eq!(log.len(), 3);
    stand.faults(IPMI_ONLY);
    let log = stand.client().event_log(3).await.unwrap();
    assert_eq!(
        log.iter().map(|line| line.id.as_str()).collect::<Vec<_>>(),
        ["6", "5", "4"]
    );
    assert!(log[0].message.contains("System event"), "{}", log[0].message);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_told_and_set_over_ipmi() {
    let stand = stand(seat::PowerState::On).await;
    let bmc = stand.client();
    bmc.power_state().await.unwrap();
    let mut lan = bmc.lan().await.unwrap();
    assert_eq!((lan.mac, lan.prefix, lan.dhcp), (Some(stand::BMC_MAC), 8, false));
    lan.gateway = Some("127.0.0.9".parse().unwrap());
    bmc.set_lan(&lan).await.unwrap();
    assert_eq!(stand.bmc.state().lan().gateway, lan.gateway);
    assert_eq!(
        bmc.choice().unwrap().interface,
        Interface::Redfish,
        "one thing by IPMI does not give Redfish up"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_talks_both_ways_and_is_given_back() {
    let stand = stand(seat::PowerState::On).await;
    let (typed, mut keyboard) = tokio::sync::mpsc::unbounded_channel();
    stand.console.set_input(Some(typed));
    let bmc = stand.client();
    let mut console = bmc.console().await.unwrap();
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, async {
        stand.console.printed(&b"node login: ".repeat(100));
        let mut shown = Vec::new();
        while shown.len() < 1200 {
            shown.extend(console.read().await.unwrap());
        }
        assert_eq!(String::from_utf8(shown).unwrap().matches("node login: ").count(), 100);
        assert!(console.write(b"root\n").await);
        let mut got = Vec::new();
        while got.len() < 5 {
            got.extend(keyboard.recv().await.unwrap());
        }
        assert_eq!(got, b"root\n");
        // Requests go on beside it, and a second console takes the first one's place.
        bmc.power_state().await.unwrap();
        console.close().await;
        let second = bmc.console().await.unwrap();
        let third = bmc.console().await.unwrap();
        assert!(third.write(b"x").await);
        drop(second);
        assert_eq!(keyboard.recv().await.unwrap(), b"x");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_deaf_for_a_while_comes_back() {
    let stand = stand(seat::PowerState::On).await;
    stand.faults(Faults::deaf_for(Duration::from_millis(400)));
    let bmc = stand.client_in_a_hurry();
    let patience = Duration::from_secs(20);
    let state = tokio::time::timeout(patience, async {
        loop {
            match bmc.bios_attributes().await {
                Ok(attributes) => break attributes,
                Err(rackbar_devices::Error {
                    cause: Cause::BackingOff { wait, .. },
                    ..
                }) => tokio::time::sleep(wait).await,
                Err(error) => assert!(matches!(error.cause, Cause::Unreachable(_)), "{error}"),
            }
        }
    });
    assert_eq!(state.await.unwrap().value("NumLock"), Some("On"));
}

#[tokio::test(flavor = "multi_thread")]
async fn redfish_that_fell_silent_is_tried_again_after_a_rest() {
    let stand = stand(seat::PowerState::On).await;
    let bmc = stand.client_in_a_hurry();
    bmc.identify().await.unwrap();
    stand.faults(Faults {
        // A connection that was lost is opened anew once.
        lost: 2,
        ..Faults::NONE
    });
    bmc.power_state().await.unwrap();
    assert_eq!(bmc.choice().unwrap().interface, Interface::Ipmi, "it stood in");
    let turns = bmc.take_turns();
    assert!(
        matches!(turns.as_slice(), [turn] if turn.capability.is_none() && turn.to.interface == Interface::Ipmi),
        "{turns:?}"
    );
    let patience = Duration::from_secs(20);
    let back = tokio::time::timeout(patience, async {
        while bmc.choice().unwrap().interface != Interface::Redfish {
            bmc.power_state().await.unwrap();
        }
    });
    back.await.expect("Redfish is used again");
    let turns: Vec<String> = bmc.take_turns().iter().map(ToString::to_string).collect();
    assert_eq!(
        turns,
        ["BMC: everything that can goes through Redfish from now on: it ranks first and works"]
    );
    assert!(bmc.take_turns().is_empty(), "each is told once");
}
