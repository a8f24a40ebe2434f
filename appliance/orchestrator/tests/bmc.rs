//! Stories of BMCs: the watcher and the real way to them, against the simulated BMC on the loopback.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use common::*;
use rackbar_devices::{Credentials, Fingerprint, Profiles, Timing};
use rackbar_model::{EventKind, Lease, LeaseState, PowerAction, PowerState, Timestamp};
use rackbar_orchestrator::{Devices, PowerError, PowerWay, Rack, bmc};
use rackbar_services::LeaseLog as _;
use rackbar_store::{Options, Store};
use rackbar_vrack::bmc::{Faults, Loopback, LoopbackConfig, Pretend};
use rackbar_vrack::console::Console;
use rackbar_vrack::seat::{self, Identity};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const TIMING: Timing = Timing {
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(10),
    repeat: Duration::from_millis(300),
    tries: 2,
    settle: Duration::from_secs(10),
    look: Duration::from_millis(20),
};

const IMPATIENT: Timing = Timing {
    connect: Duration::from_millis(300),
    answer: Duration::from_millis(300),
    ..TIMING
};

const DEAF: Faults = Faults {
    deaf: true,
    ..Faults::NONE
};

/// A simulated BMC with user `admin`, password `secret` and the MAC address `mac(101)`.
async fn simulated(state: seat::PowerState) -> (Loopback, Arc<Pretend>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let machine = Arc::new(Pretend::new(state));
    let config = LoopbackConfig {
        power: machine.clone(),
        console: Console::new(&dir.path().join("serial.log")).unwrap(),
        identity: Identity {
            manufacturer: "Virtual".into(),
            product: "Node".into(),
            serial: "SN-1".into(),
            uuid: "4c4c4544-0042-4410-8056-b4c04f363132".into(),
            board_serial: "B-1".into(),
            asset_tag: "A-1".into(),
            firmware_version: "1".into(),
        },
        nics: vec![mac(1)],
        mac: mac(101),
        username: "admin".into(),
        password: "secret".into(),
        kcs_socket: None,
    };
    (Loopback::start(config).await.unwrap(), machine, dir)
}

fn admin(password: &str) -> Vec<Credentials> {
    vec![Credentials::new("admin", password)]
}

/// An appliance that watches one BMC.
struct Watch {
    rack: Rack,
    devices: Arc<Devices>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Watch {
    fn start(store: Store, bmc: &Loopback, password: &str, timing: Timing) -> Self {
        let profiles = Profiles::shipped().unwrap();
        let devices = Devices::new(admin(password), profiles, store.clone())
            .on_ports(bmc.https().port(), bmc.ipmi().port())
            .with_timing(timing);
        let (rack, devices) = (rack(store), Arc::new(devices));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(bmc::run(rack.clone(), devices.clone(), stopped));
        Self {
            rack,
            devices,
            stop,
            task,
        }
    }

    /// The BMC gets its address from us, anew or once more.
    fn lease(&self) {
        let lease = Lease {
            address: Ipv4Addr::LOCALHOST,
            network: "bmc".into(),
            mac: mac(101),
            client_id: vec![],
            hostname: None,
            state: LeaseState::Bound,
            expires: Timestamp(u64::MAX),
        };
        self.rack.commit(&[lease]).unwrap();
    }

    async fn found(&self) -> Arc<rackbar_model::Node> {
        until_node(&self.rack, "found by its BMC", |node| {
            node.bmc_address == Some(HERE) && node.power != PowerState::Unknown
        })
        .await
    }

    /// What was told of a failure.
    async fn failure(&self, with: &str) -> String {
        let event = until_event(
            &self.rack,
            with,
            |kind| matches!(kind, EventKind::BmcFailed { reason, .. } if reason.contains(with)),
        )
        .await;
        event.kind.to_string()
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }
}

fn memory() -> Store {
    Store::in_memory(Options::default()).unwrap()
}

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
