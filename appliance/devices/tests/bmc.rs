//! The clients against the simulated BMC, over the loopback.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod stand;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rackbar_devices::{
    Attempts, Bmc, BootTarget, Capability, Cause, Credentials, Error, Fingerprint, Interface, Profiles, Timing, probe,
};
use rackbar_model::{FirmwareMode, MacAddr, PowerAction, PowerState, Timestamp};
use rackbar_vrack::bmc::Faults;
use rackbar_vrack::seat::{self, BootDevice, BootOverride, MachinePower};
use stand::{BMC_MAC, IPMI_ONLY, NIC, TIMING, UUID, stand, stand_by};

#[tokio::test(flavor = "multi_thread")]
async fn is_found_without_a_password() {
    let stand = stand(seat::PowerState::Off).await;
    let report = probe(stand.address, TIMING).await;
    assert_eq!(report.speaks(), ["redfish", "ipmi"]);
    let root = report.redfish.unwrap();
    assert_eq!(root.uuid.as_deref(), Some(UUID));
    assert_eq!(report.ipmi.unwrap().rmcp_plus, Some(true));
    let bmc = stand.client();
    bmc.identify().await.unwrap();
    assert_eq!(
        bmc.fingerprint(),
        root.fingerprint,
        "the probe saw the certificate that is pinned later"
    );
    stand.faults(IPMI_ONLY);
    let report = probe(stand.address, TIMING).await;
    assert_eq!(report.speaks(), ["ipmi"]);
    assert!(report.redfish_reason.unwrap().contains("404"));
    stand.faults(Faults {
        deaf: true,
        ..Faults::default()
    });
    let short = Timing {
        answer: Duration::from_millis(300),
        repeat: Duration::from_millis(100),
        ..TIMING
    };
    assert!(!probe(stand.address, short).await.found());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_tell_the_same_identity() {
    let stand = stand(seat::PowerState::On).await;
    let redfish = stand.client();
    let seen = redfish.identify().await.unwrap();
    assert_eq!(
        (seen.mac, seen.nic_macs.as_slice(), seen.power),
        (Some(BMC_MAC), [NIC].as_slice(), PowerState::On)
    );
    assert_eq!(
        (seen.uuid.as_deref(), seen.system_serial.as_deref()),
        (Some(UUID), Some("SN-1"))
    );
    assert_eq!(
        (seen.manufacturer.as_deref(), seen.model.as_deref()),
        (Some("Virtual"), Some("Node"))
    );
    assert_eq!(redfish.choice().unwrap().interface, Interface::Redfish);
    stand.faults(IPMI_ONLY);
    let ipmi = stand.client();
    let told = ipmi.identify().await.unwrap();
    assert_eq!((told.mac, told.uuid, told.power), (seen.mac, seen.uuid, seen.power));
    let choice = ipmi.choice().unwrap();
    assert_eq!(choice.interface, Interface::Ipmi);
    assert!(
        choice.reason.contains("suite 17") && choice.reason.contains("404"),
        "{}",
        choice.reason
    );
}

async fn switches(faults: Faults) {
    let stand = stand(seat::PowerState::Off).await;
    stand.faults(faults);
    let bmc = stand.client();
    assert_eq!(bmc.power_state().await.unwrap(), PowerState::Off);
    let refused = bmc.power(PowerAction::Reset).await.unwrap_err();
    assert!(matches!(refused.cause, Cause::Refused { code: 409, .. }), "{refused}");
    bmc.power(PowerAction::Netboot).await.unwrap();
    let once = BootOverride {
        device: BootDevice::Network,
        once: true,
    };
    assert_eq!(stand.machine.starts(), [Some(once)]);
    bmc.power(PowerAction::On).await.unwrap();
    bmc.power(PowerAction::Reset).await.unwrap();
    bmc.power(PowerAction::Cycle).await.unwrap();
    bmc.power(PowerAction::Shutdown).await.unwrap();
    bmc.power(PowerAction::Off).await.unwrap();
    use seat::PowerAction as Did;
    assert_eq!(
        stand.machine.acts(),
        [Did::On, Did::Reset, Did::PowerCycle, Did::GracefulShutdown]
    );
    assert_eq!(bmc.get_boot().await.unwrap().target, BootTarget::Default);
    bmc.set_boot_once(BootTarget::Disk, Some(FirmwareMode::Bios))
        .await
        .unwrap();
    let boot = bmc.get_boot().await.unwrap();
    assert_eq!(
        (boot.target, boot.once, boot.mode),
        (BootTarget::Disk, true, Some(FirmwareMode::Bios))
    );
    bmc.set_boot_once(BootTarget::Default, None).await.unwrap();
    assert_eq!(stand.machine.boot_override(), None);
    let budget = bmc.budget();
    assert_eq!((budget.in_flight, budget.waiting), (0, 0));
    assert!(budget.done > 10, "{budget:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redfish_switches_power_and_boot_device() {
    switches(Faults::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipmi_switches_power_and_boot_device() {
    switches(IPMI_ONLY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_boot_is_asked_for_in_the_mode_of_the_firmware() {
    for faults in [Faults::NONE, IPMI_ONLY] {
        for mode in [FirmwareMode::Bios, FirmwareMode::Uefi] {
            let stand = stand(seat::PowerState::Off).await;
            stand.faults(faults);
            stand.client().netboot(Some(mode)).await.unwrap();
            assert_eq!(stand.machine.starts().len(), 1);
            assert_eq!(stand.bmc.state().asked_for_uefi(), mode == FirmwareMode::Uefi);
        }
    }
}

/// Two that share a login and have swapped their addresses.
#[tokio::test(flavor = "multi_thread")]
async fn over_ipmi_another_bmc_at_the_address_is_asked_nothing_but_who_it_is() {
    let stand = stand(seat::PowerState::On).await;
    stand.faults(IPMI_ONLY);
    let other = MacAddr([0x52, 0x54, 0, 0, 1, 2]);
    let bmc = stand.client().known_by(Some(other));
    let refused = [
        bmc.power(PowerAction::Off).await.map(drop),
        bmc.set_boot_once(BootTarget::Network, None).await,
        bmc.change_password("admin", "another").await,
        bmc.console().await.map(drop),
        bmc.power_state().await.map(drop),
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert!(
            matches!(&error.cause, Cause::AnotherBmc { meant, told } if *meant == other && told == &[BMC_MAC]),
            "{error}"
        );
        let words = error.to_string();
        assert!(
            words.contains("MAC address 52:54:00:00:01:01, not 52:54:00:00:01:02"),
            "{words}"
        );
    }
    assert_eq!((stand.machine.acts(), stand.machine.boot_override()), (vec![], None));
    assert_eq!(bmc.identify().await.unwrap().mac, Some(BMC_MAC));
    // The one that is meant does as it is told, and so does the first that is seen where nobody says which is meant.
    for meant in [Some(BMC_MAC), None] {
        let bmc = stand.client().known_by(meant);
        bmc.power(PowerAction::Reset).await.unwrap();
    }
    assert_eq!(stand.machine.acts().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sessions_basic_authentication_is_used() {
    switches(Faults {
        no_sessions: true,
        ..Faults::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_used_again_renewed_and_given_back() {
    let stand = stand(seat::PowerState::On).await;
    let bmc = stand.client();
    for _ in 0..3 {
        bmc.power_state().await.unwrap();
    }
    let logins = || {
        stand
            .bmc
            .state()
            .requests()
            .iter()
            .filter(|line| line.starts_with("POST"))
            .count()
    };
    assert_eq!((logins(), stand.bmc.state().sessions()), (1, 1));
    stand.faults(Faults {
        status: Some((401, 1)),
        ..Faults::default()
    });
    bmc.power_state().await.unwrap();
    assert_eq!(
        (logins(), stand.bmc.state().sessions()),
        (2, 1),
        "a lost session is opened anew"
    );
    bmc.close().await;
    assert_eq!(stand.bmc.state().sessions(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_tried_once() {
    let stand = stand(seat::PowerState::On).await;
    let error = stand.client_with("guess", None).power_state().await.unwrap_err();
    assert!(matches!(error.cause, Cause::Unauthorized(_)), "{error}");
    let words = error.to_string();
    assert!(
        words.contains("127.0.0.1") && words.contains("Redfish") && words.contains("POST /redfish/v1/"),
        "{words}"
    );
    assert!(!words.contains("guess"));
    let logins = stand
        .bmc
        .state()
        .requests()
        .iter()
        .filter(|line| line.starts_with("POST"))
        .count();
    assert_eq!(logins, 1, "each try counts towards a lock-out");
    stand.faults(IPMI_ONLY);
    let error = stand.client_with("guess", None).power_state().await.unwrap_err();
    assert_eq!(error.interface, Interface::Ipmi);
    assert!(matches!(error.cause, Cause::Unauthorized(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_two_wrong_passwords_of_an_account_no_third_is_tried_by_either_way() {
    for faults in [Faults::NONE, NO_SESSIONS, IPMI_ONLY] {
        let stand = stand(seat::PowerState::On).await;
        stand.faults(faults);
        let attempts = Arc::new(Attempts::new(Duration::from_secs(600)));
        let client = |password| stand.client_with(password, None).counted_in(&attempts);
        for password in ["guess", "another"] {
            let error = client(password).power_state().await.unwrap_err();
            assert!(matches!(error.cause, Cause::Unauthorized(_)), "{error}");
        }
        let error = client("secret").power_state().await.unwrap_err();
        assert!(matches!(error.cause, Cause::HeldBack { .. }), "{error}");
        let words = error.to_string();
        assert!(
            words.contains("admin had two wrong passwords there within 10 min")
                && words.contains("the next is tried in 10 min"),
            "{words}"
        );
        let held = client("secret").verify_login("admin", "secret").await.unwrap_err();
        assert!(matches!(held.cause, Cause::HeldBack { .. }), "{held}");
        assert!(stand.bmc.state().failures("admin") <= 2);
        // A login that succeeds ends the count, as it does on the BMC.
        let attempts = Arc::new(Attempts::new(Duration::from_secs(600)));
        let client = |password| stand.client_with(password, None).counted_in(&attempts);
        for password in ["guess", "secret", "guess"] {
            let _ = client(password).power_state().await;
        }
        assert_eq!(attempts.wait("admin"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_calls_a_wrong_password_a_bad_request_is_shown_two_and_no_third() {
    let stand = stand(seat::PowerState::On).await;
    stand.faults(Faults {
        bad_login: true,
        ..Faults::NONE
    });
    let attempts = Arc::new(Attempts::new(Duration::from_secs(600)));
    let client = |password| stand.client_with(password, None).counted_in(&attempts);
    let error = client("guess").power_state().await.unwrap_err();
    assert!(matches!(error.cause, Cause::Unauthorized(_)), "{error}");
    let held = client("another").power_state().await.unwrap_err();
    assert!(matches!(held.cause, Cause::HeldBack { .. }), "{held}");
    assert_eq!(stand.bmc.state().failures("admin"), 2);
    // Where a session was refused once, the login that follows is the second.
    let attempts = Arc::new(Attempts::new(Duration::from_secs(600)));
    let client = |password| stand.client_with(password, None).counted_in(&attempts);
    client("secret").power_state().await.unwrap();
    assert_eq!(attempts.wait("admin"), None);
}

const NO_SESSIONS: Faults = Faults {
    no_sessions: true,
    ..Faults::NONE
};

#[tokio::test(flavor = "multi_thread")]
async fn another_certificate_gets_no_password() {
    let stand = stand(seat::PowerState::On).await;
    let pinned = Fingerprint([7; 32]);
    let error = stand
        .client_with("secret", Some(pinned))
        .power_state()
        .await
        .unwrap_err();
    assert!(
        matches!(error.cause, Cause::CertificateChanged { pinned: p, .. } if p == pinned),
        "{error}"
    );
    assert_eq!(stand.bmc.state().requests(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_bmc_is_asked_again_and_then_left_in_peace() {
    let stand = stand(seat::PowerState::On).await;
    let bmc = stand.client();
    bmc.power_state().await.unwrap();
    stand.faults(Faults {
        status: Some((503, 2)),
        ..Faults::default()
    });
    bmc.power_state().await.unwrap();
    stand.faults(Faults {
        status: Some((503, 100)),
        ..Faults::default()
    });
    let error = bmc.power_state().await.unwrap_err();
    assert!(matches!(error.cause, Cause::Refused { code: 503, .. }), "{error}");
    let asked = stand.bmc.state().requests().len();
    let error = bmc.power_state().await.unwrap_err();
    assert!(matches!(error.cause, Cause::BackingOff { .. }), "{error}");
    assert_eq!(stand.bmc.state().requests().len(), asked, "peace is peace");
    assert!(!bmc.budget().peace.is_zero());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_tag_refused_for_ever_says_what_to_do() {
    let stand = stand(seat::PowerState::On).await;
    stand.faults(Faults {
        wrong_etag: true,
        ..Faults::default()
    });
    let error = stand
        .client()
        .set_boot_once(BootTarget::Network, None)
        .await
        .unwrap_err();
    assert!(matches!(error.cause, Cause::Refused { code: 412, .. }), "{error}");
    assert!(error.to_string().contains("etag_broken"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_makes_a_broken_bmc_work() {
    // The maker is one whose shipped profile says etag_broken.
    let stand = stand_by("GIGABYTE", seat::PowerState::On).await;
    stand.faults(Faults {
        wrong_etag: true,
        ..Faults::default()
    });
    let bmc = stand.client();
    bmc.set_boot_once(BootTarget::Network, None).await.unwrap();
    assert_eq!(bmc.verdict().profiles[0].name, "gigabyte");
    assert_eq!(stand.machine.boot_override().unwrap().device, BootDevice::Network);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_queue_up() {
    let stand = stand(seat::PowerState::On).await;
    stand.faults(Faults {
        slow: Duration::from_millis(10),
        ..Faults::default()
    });
    let bmc = Arc::new(stand.client());
    let callers: Vec<_> = (0..12)
        .map(|_| {
            let bmc = Arc::clone(&bmc);
            tokio::spawn(async move { bmc.power_state().await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), PowerState::On);
    }
    assert_eq!(stand.bmc.state().busiest(), 1, "never two requests at once");
    assert_eq!(bmc.budget().done, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_caller_leaves_the_queue_in_order() {
    let stand = stand(seat::PowerState::On).await;
    let bmc = stand.client();
    bmc.power_state().await.unwrap();
    stand.faults(Faults {
        deaf: true,
        ..Faults::default()
    });
    assert!(
        tokio::time::timeout(Duration::from_millis(200), bmc.power_state())
            .await
            .is_err()
    );
    assert_eq!(bmc.budget().in_flight, 0);
    stand.faults(Faults::default());
    assert_eq!(bmc.power_state().await.unwrap(), PowerState::On);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_bmc_is_given_up_in_time() {
    let stand = stand(seat::PowerState::On).await;
    stand.faults(Faults {
        deaf: true,
        ..Faults::default()
    });
    let timing = Timing {
        answer: Duration::from_millis(300),
        repeat: Duration::from_millis(100),
        ..TIMING
    };
    let profiles = Arc::new(Profiles::shipped().unwrap());
    let bmc = Bmc::new(
        stand.address,
        Credentials::new("admin", "secret"),
        None,
        profiles,
        timing,
    );
    let start = Instant::now();
    let error: Error = bmc.power_state().await.unwrap_err();
    assert!(matches!(error.cause, Cause::Unreachable(_)), "{error}");
    // By its own timing: the usual one waits a minute for Redfish alone.
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    // It comes back: after its time of peace it is asked again.
    stand.faults(Faults::default());
    let back = async {
        loop {
            match bmc.power_state().await {
                Ok(state) => return state,
                Err(Error {
                    cause: Cause::BackingOff { wait, .. },
                    ..
                }) => tokio::time::sleep(wait).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(10), back).await.unwrap(),
        PowerState::On
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_is_read_and_set_by_either_way() {
    let stand = stand(seat::PowerState::On).await;
    let state = stand.bmc.state();
    let now = Timestamp(state.clock() * 1000);
    let drift = |clock: Option<Timestamp>| clock.unwrap().0.abs_diff(now.0) / 1000;
    for (way, faults) in [(Interface::Redfish, Faults::NONE), (Interface::Ipmi, IPMI_ONLY)] {
        state.set_faults(faults);
        // As after a year in a warehouse without a battery.
        state.set_clock(now.0 / 1000 - 3 * 365 * 24 * 3600);
        let bmc = stand.client();
        assert!(drift(bmc.clock().await.unwrap()) > 3 * 364 * 24 * 3600);
        bmc.set_clock(now).await.unwrap();
        assert!(drift(bmc.clock().await.unwrap()) < 60, "{way}");
        assert_eq!(bmc.choices()[&Capability::Clock].interface, way);
        assert!(state.clock().abs_diff(now.0 / 1000) < 60);
    }
    state.set_faults(Faults::NONE);
    state.set_follows_ntp(true);
    let refused = stand.client().set_clock(now).await.unwrap_err();
    assert!(matches!(refused.cause, Cause::NotAllowed(_)), "{refused}");
    assert!(refused.to_string().contains("NTP servers of its own"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weak_bmc_is_asked_at_the_pace_of_its_profile_by_either_way() {
    const PAUSE: Duration = Duration::from_millis(40);
    let stand = stand(seat::PowerState::On).await;
    let mut profiles = Profiles::shipped().unwrap();
    let weak = "name='weak'\nsource='seen here'\n[match]\nmanufacturer='virtual'\n[quirks]\nrequest_pause_ms=40\n";
    profiles.add("weak.toml", weak).unwrap();
    let credentials = Credentials::new("admin", "secret");
    let bmc = Arc::new(Bmc::new(stand.address, credentials, None, Arc::new(profiles), TIMING));
    bmc.identify().await.unwrap();
    let start = Instant::now();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let bmc = Arc::clone(&bmc);
            tokio::spawn(async move { bmc.power_state().await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), PowerState::On);
    }
    // A request each, the first of them at once.
    assert!(start.elapsed() >= PAUSE * 7, "{:?}", start.elapsed());
    // Redfish is not asked for this; eight channels and six settings are.
    let start = Instant::now();
    bmc.lan().await.unwrap();
    assert!(start.elapsed() >= PAUSE * 13, "{:?}", start.elapsed());
}
