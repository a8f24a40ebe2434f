//! Simulated BMCs on the loopback, and an appliance that watches one.
#![allow(missing_docs, reason = "words of tests")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rackbar_devices::{Credentials, Profiles, Timing};
use rackbar_messages::JobId;
use rackbar_model::{Digest, EventKind, Lease, LeaseState, MacAddr, Node, PowerState, Timestamp};
use rackbar_orchestrator::hands::{System, Task};
use rackbar_orchestrator::{Devices, Rack, bmc};
use rackbar_plan::{Action, ActionId, ActionKind, Inputs, Layer, Limits, Plan, PlanId, RunId, Scope, Target};
use rackbar_services::LeaseLog as _;
use rackbar_store::{Options, Store};
use rackbar_vrack::bmc::{Faults, Loopback, LoopbackConfig, Pretend};
use rackbar_vrack::console::Console;
use rackbar_vrack::seat::{self, Identity};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{mac, rack, until_event, until_node};

pub const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub const TIMING: Timing = Timing {
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(10),
    repeat: Duration::from_millis(300),
    tries: 2,
    settle: Duration::from_secs(10),
    look: Duration::from_millis(20),
    wrong_passwords: Duration::from_secs(600),
};

pub const IMPATIENT: Timing = Timing {
    connect: Duration::from_millis(300),
    answer: Duration::from_millis(300),
    ..TIMING
};

pub const DEAF: Faults = Faults {
    deaf: true,
    ..Faults::NONE
};

/// A simulated BMC with user `admin`, password `secret` and the MAC address `mac(101)`.
pub async fn simulated(state: seat::PowerState) -> (Loopback, Arc<Pretend>, tempfile::TempDir) {
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
        kcs_socket: Some(dir.path().join("kcs")),
    };
    (Loopback::start(config).await.unwrap(), machine, dir)
}

pub fn admin(password: &str) -> Vec<Credentials> {
    vec![Credentials::new("admin", password)]
}

/// An appliance that watches one BMC.
pub struct Watch {
    pub rack: Rack,
    pub devices: Arc<Devices>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Watch {
    pub fn start(store: Store, bmc: &Loopback, password: &str, timing: Timing) -> Self {
        Self::with(rack(store), bmc, password, timing)
    }

    /// The same for an appliance that is there already.
    pub fn with(rack: Rack, bmc: &Loopback, password: &str, timing: Timing) -> Self {
        Self::every(Duration::from_secs(30), rack, bmc, password, timing)
    }

    /// The same that looks at the BMC so often.
    pub fn every(poll: Duration, rack: Rack, bmc: &Loopback, password: &str, timing: Timing) -> Self {
        let profiles = Profiles::shipped().unwrap();
        let store = rack.store().clone();
        let devices = Devices::new(admin(password), profiles, store)
            .on_ports(bmc.https().port(), bmc.ipmi().port())
            .with_timing(timing)
            .of(&rack);
        let devices = Arc::new(devices);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(bmc::run_every(poll, rack.clone(), devices.clone(), stopped));
        Self {
            rack,
            devices,
            stop,
            task,
        }
    }

    /// The BMC gets its address from us, anew or once more.
    pub fn lease(&self) {
        self.lease_to(mac(101));
    }

    /// A BMC with this MAC address gets it.
    pub fn lease_to(&self, mac: MacAddr) {
        let lease = Lease {
            address: Ipv4Addr::LOCALHOST,
            network: "bmc".into(),
            mac,
            client_id: vec![],
            hostname: None,
            state: LeaseState::Bound,
            expires: Timestamp(u64::MAX),
        };
        self.rack.commit(&[lease]).unwrap();
    }

    pub async fn found(&self) -> Arc<rackbar_model::Node> {
        until_node(&self.rack, "found by its BMC", |node| {
            node.bmc_address == Some(HERE) && node.power != PowerState::Unknown
        })
        .await
    }

    /// What was told of a failure.
    pub async fn failure(&self, with: &str) -> String {
        let event = until_event(
            &self.rack,
            with,
            |kind| matches!(kind, EventKind::BmcFailed { reason, .. } if reason.contains(with)),
        )
        .await;
        event.kind.to_string()
    }

    pub async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }
}

pub fn memory() -> Store {
    Store::in_memory(Options::default()).unwrap()
}

/// One attempt of an action at a node's BMC. Giving up is told through the second.
pub fn task(node: &Arc<Node>, kind: ActionKind) -> (Task, watch::Sender<bool>) {
    let action = Action {
        id: ActionId(format!("node-001/{}", kind.name())),
        node: Some(node.id),
        target: Target::Bmc(node.id),
        layer: Layer::Infrastructure,
        kind,
        changes: Vec::new(),
        needs: Vec::new(),
        destroys: None,
        reboots: false,
        estimate_seconds: 1,
        reason: "a test".into(),
        limits: Limits { seconds: 60, tries: 1 },
    };
    let inputs = Inputs {
        site: Digest([0; 32]),
        nodes: BTreeMap::new(),
        images: BTreeMap::new(),
        programs: BTreeMap::new(),
        repositories: BTreeMap::new(),
        services: BTreeMap::new(),
    };
    let plan = Plan {
        id: PlanId("test".into()),
        made: Timestamp(0),
        inputs,
        actions: vec![action],
        refused: Vec::new(),
        unchanged: Vec::new(),
        left_out: Vec::new(),
        scope: Scope::default(),
        limits: Default::default(),
    };
    let (give_up, told) = watch::channel(false);
    let task = Task {
        run: RunId(1),
        plan: Arc::new(plan),
        position: 0,
        node: Some(node.clone()),
        system: System::default(),
        job: JobId([1; 16]),
        attempt: 1,
        taken_up: false,
        progress: Arc::new(|_| ()),
        give_up: told,
    };
    (task, give_up)
}
