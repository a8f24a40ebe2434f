//! Rounds of the executor, one at a time and at a time that the test says: nothing drives it but these.

mod refused;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rackbar_model::{
    Adopted, Disk, EraseMethod, EventKind, Inventory, MacAddr, MachineReport, Nic, NodeId, NodeState, RunningSystem,
    SecretText, Timestamp,
};
use rackbar_plan::engine::{Bounds, Failure};
use rackbar_plan::site::Enrol;
use rackbar_plan::{Action, ActionId, ActionKind, Attempt, Limits, Plan, Run, RunId, Stand, Target};
use rackbar_store::{Options, Store, Table};
use rackbar_trust::SigningKey;

use super::driver::Message;
use super::memory::NodeWork;
use super::{Executor, NodeError, OrderError, Parts, RunOrder, SETTINGS_LOOK, memory};
use crate::adopt::{AdoptError, Found, key_place};
use crate::enrolments::Enrolments;
use crate::hands::{Done, Hands, Task, Working};
use crate::rack::{locked, now};
use crate::{Rack, Settings, rack, settings};

const PRINT: &str = "SHA256:own";

/// They begin what they are told, and nothing of it ends.
struct Busy;

impl Hands for Busy {
    fn carry_out(&self, _task: Task) -> Working<'_> {
        Box::pin(std::future::pending())
    }
}

/// An appliance that does nothing by itself.
struct Bench {
    rack: Rack,
    store: Store,
    bounds: Bounds,
    executor: Executor,
    _inbox: Receiver<Message>,
}

fn open(rack: &Rack, store: &Store, bounds: &Bounds) -> (Executor, Receiver<Message>) {
    let parts = Parts {
        hands: Arc::new(Busy),
        images: None,
        programs: None,
        services: [].into(),
        bounds: bounds.clone(),
        settings_look: SETTINGS_LOOK,
        signer: Arc::new(SigningKey::generate().unwrap().0),
        site_name: "test".into(),
        put_in: false,
    };
    Executor::open(rack.clone(), store.clone(), parts).unwrap()
}

impl Bench {
    fn new(bounds: Bounds) -> Self {
        let store = Store::in_memory(Options::default()).unwrap();
        let rack = Rack::start(store.clone(), rack::Options::default()).unwrap();
        let (executor, inbox) = open(&rack, &store, &bounds);
        Self {
            rack,
            store,
            bounds,
            executor,
            _inbox: inbox,
        }
    }

    /// The appliance ends and starts anew; what the rack shows stays.
    fn again(&mut self) {
        (self.executor, self._inbox) = open(&self.rack, &self.store, &self.bounds);
    }

    /// A machine that discovery knows.
    fn machine(&self, number: u8) -> NodeId {
        let taken = self
            .rack
            .take_machine(None, hardware(number), [10, 10, 0, number].into());
        taken.unwrap().node
    }

    /// A run of such actions, each of a node's.
    fn begin(&self, actions: &[(NodeId, ActionKind)]) -> RunId {
        let mut book = locked(&self.executor.inner.book);
        let plan = Arc::new(plan(actions));
        let takes = super::takeover::taken(&book, &plan);
        let run = self.executor.inner.begin_run(&mut book, plan, "anna", takes, None);
        run.unwrap()
    }

    /// What is under way, with its job numbers.
    fn under_way(&self) -> BTreeMap<String, Attempt> {
        let mut found = BTreeMap::new();
        for run in self.executor.runs() {
            for (id, stand) in &run.actions {
                if let Stand::Running(attempt) = stand {
                    found.insert(format!("{} {id}", run.id), attempt.clone());
                }
            }
        }
        found
    }

    /// One of what a run has under way ends.
    fn end(&self, run: RunId, result: Result<(), Failure>, at: Timestamp) {
        let stands = self.executor.run(run).unwrap();
        let (action, attempt) = running(&stands).unwrap();
        let done = match result {
            Ok(()) => Done::well("done"),
            Err(failure) => Done::failed(failure.reason, failure.advice, failure.again),
        };
        let job = attempt.job;
        self.executor
            .inner
            .turn(vec![Message::Ended { run, action, job, done }], at);
    }

    fn work(&self, node: NodeId) -> NodeWork {
        locked(&self.executor.inner.book)
            .work
            .get(&node)
            .cloned()
            .unwrap_or_default()
    }

    fn on_disk(&self, node: NodeId) -> NodeWork {
        memory::load(&self.store)
            .unwrap()
            .work
            .remove(&node)
            .unwrap_or_default()
    }

    fn adopt(&self, recognised: Option<NodeId>, number: u8) -> Result<NodeId, AdoptError> {
        let report = MachineReport {
            inventory: hardware(number),
            system: RunningSystem::default(),
        };
        let adopted = Adopted {
            system: RunningSystem::default(),
            user: "root".into(),
            address: [10, 10, 0, number].into(),
            port: 22,
            host_key: "ssh-ed25519 AAAA".into(),
            trusted_on_first_use: false,
            own_key: Some(PRINT.into()),
            by: "anna".into(),
            at: now(),
        };
        let found = Found {
            recognised,
            name: None,
            report,
            adopted,
            key: Some(SecretText("secret".into())),
        };
        self.executor.adopt(found, "anna").map(|node| node.id)
    }

    fn has_key(&self) -> bool {
        self.store.flush().unwrap();
        self.store.get(Table::Secrets, &key_place(PRINT)).unwrap().is_some()
    }

    fn state(&self, node: NodeId) -> &'static str {
        self.rack.node_by_id(node).unwrap().state.name()
    }
}

fn running(run: &Run) -> Option<(ActionId, Attempt)> {
    let mut all = run.actions.iter();
    all.find_map(|(id, stand)| match stand {
        Stand::Running(attempt) => Some((id.clone(), attempt.clone())),
        _ => None,
    })
}

fn hardware(number: u8) -> Inventory {
    let mut inventory = Inventory::default();
    inventory.system.serial = Some(format!("SN{number}"));
    inventory.nics.push(Nic {
        mac: MacAddr([0x52, 0x54, 0, 0, 0, number]),
        ..Nic::default()
    });
    inventory.disks.push(Disk {
        name: "vda".into(),
        size_bytes: 20 << 30,
        ..Disk::default()
    });
    inventory
}

fn plan(actions: &[(NodeId, ActionKind)]) -> Plan {
    let mut plan = super::left::unknown_plan(RunId(1));
    let one = plan.actions.remove(0);
    for (number, (node, kind)) in actions.iter().enumerate() {
        plan.actions.push(Action {
            id: ActionId(format!("{number}/{}", kind.name())),
            node: Some(*node),
            target: Target::Node(*node),
            kind: kind.clone(),
            limits: Limits {
                seconds: 3_600,
                tries: 5,
            },
            ..one.clone()
        });
    }
    plan
}

const fn agent() -> ActionKind {
    ActionKind::Agent { fresh: true }
}

fn erase() -> ActionKind {
    ActionKind::Erase {
        disks: Vec::new(),
        method: EraseMethod::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_lengthens_no_pause_of_a_run_that_nobody_orders_anything_of() {
    let pause = 100;
    let bench = Bench::new(Bounds {
        first_pause: pause,
        ..Bounds::default()
    });
    let run = bench.begin(&[(bench.machine(1), agent())]);
    let failure = Failure {
        again: true,
        ..Failure::default()
    };
    bench.end(run, Err(failure), now());
    assert!(bench.under_way().is_empty());
    // Two hours back: what was due in a moment is due in a moment.
    let back = Timestamp(now().0 - 2 * 3_600_000);
    bench.executor.inner.turn(Vec::new(), back);
    let wait = bench.executor.inner.next_wait(back);
    assert!(wait <= Duration::from_millis(pause), "{wait:?}");
    bench.executor.inner.turn(Vec::new(), back.plus(pause + 50));
    let under_way = bench.under_way();
    let numbers: Vec<u32> = under_way.values().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [2], "{under_way:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_begins_no_more_than_the_limits_allow_with_what_was_under_way() {
    let mut bench = Bench::new(Bounds {
        at_once: 4,
        ..Bounds::default()
    });
    let machines = |from: u8| -> Vec<(NodeId, ActionKind)> {
        let numbers = from..from + 6;
        numbers.map(|number| (bench.machine(number), agent())).collect()
    };
    let (one, two) = (bench.begin(&machines(1)), bench.begin(&machines(11)));
    // The second run gets room as that of the first becomes free.
    for _ in 0..3 {
        bench.end(one, Ok(()), now());
    }
    let before = bench.under_way();
    let of = |run: RunId| {
        before
            .keys()
            .filter(|name| name.starts_with(&format!("{run} ")))
            .count()
    };
    assert_eq!((of(one), of(two)), (2, 2), "{before:?}");
    for _ in 0..2 {
        bench.again();
        assert_eq!(bench.under_way(), before, "the same, and nothing besides");
    }
    bench.end(two, Ok(()), now());
    assert_eq!(bench.under_way().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_of_one_machine_begin_at_the_next_end_of_a_run_that_holds_all_the_room() {
    let bench = Bench::new(Bounds {
        at_once: 4,
        ..Bounds::default()
    });
    let machines: Vec<(NodeId, ActionKind)> = (1..40).map(|number| (bench.machine(number), agent())).collect();
    let large = bench.begin(&machines);
    let small = bench.begin(&[(bench.machine(50), agent())]);
    assert_eq!(running(&bench.executor.run(small).unwrap()), None);
    bench.end(large, Ok(()), now());
    assert!(running(&bench.executor.run(small).unwrap()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_to_be_written_of_a_machine_does_not_undo_its_adoption() {
    let bench = Bench::new(Bounds::default());
    let node = bench.machine(1);
    locked(&bench.executor.inner.book).work(node, |work| work.bmc_account = Some("ours".into()));
    assert!(!bench.executor.is_written());
    assert_eq!(bench.adopt(Some(node), 1).unwrap(), node);
    bench.executor.inner.turn(Vec::new(), now());
    let kept = bench.on_disk(node);
    assert!(kept.adopted.is_some() && kept.bmc_account.is_some(), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_an_adopted_system_lets_in_is_there_until_its_end_is_written_down() {
    let bench = Bench::new(Bounds::default());
    let node = bench.adopt(None, 1).unwrap();
    assert!(bench.has_key());
    let plan = Arc::new(plan(&[(node, erase())]));
    let inner = &bench.executor.inner;
    {
        let mut book = locked(&inner.book);
        let run = Run::new(RunId(1), plan, "anna", now());
        let engine = super::Engine::within(run, inner.bounds.clone(), book.room.clone()).unwrap();
        book.live.insert(RunId(1), super::Live::new(engine, None));
        // The disk has not said yes yet.
        book.begin(now());
        book.prepare();
    }
    assert!(bench.has_key() && bench.on_disk(node).adopted.is_some());
    inner.turn(Vec::new(), now());
    assert!(bench.on_disk(node).adopted.is_none());
    assert!(!bench.has_key(), "it is kept for nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_discovery_found_while_it_was_looked_at_is_asked_about_and_never_forgotten() {
    let bench = Bench::new(Bounds::default());
    let node = bench.machine(1);
    let run = bench.begin(&[(node, agent())]);
    let refused = bench.adopt(None, 1).unwrap_err();
    assert!(
        matches!(&refused, AdoptError::InTheWay(why) if why.contains("run 1 works on")),
        "{refused}"
    );
    assert_eq!(bench.work(node).adopted, None);
    assert!(!bench.has_key());
    bench.executor.order(run, RunOrder::Cancel, "anna").unwrap();
    let other = bench.machine(2);
    bench.store.close();
    for (number, left) in [(2, Some(other)), (3, None)] {
        let error = bench.adopt(None, number).unwrap_err();
        assert!(matches!(error, AdoptError::Store(_)), "{error}");
        assert!(!error.to_string().contains("nothing was recorded"), "{error}");
        let nodes = bench.rack.nodes();
        let found = nodes
            .iter()
            .find(|node| node.macs == [MacAddr([0x52, 0x54, 0, 0, 0, number])]);
        assert_eq!(found.map(|node| node.id), left, "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_left_does_not_say_where_machines_of_others_stand() {
    let mut bench = Bench::new(Bounds::default());
    let (both, mine, sold) = (bench.machine(1), bench.machine(2), bench.machine(3));
    let left = bench.begin(&[(both, agent()), (mine, agent()), (sold, agent())]);
    // The first and the last are done with it; it goes on with the other.
    for action in ["0/agent.restart", "2/agent.restart"] {
        let run = bench.executor.run(left).unwrap();
        let Some(Stand::Running(attempt)) = run.actions.get(&ActionId(action.into())) else {
            panic!("{:?}", run.actions);
        };
        let (action, job, done) = (ActionId(action.into()), attempt.job.clone(), Done::well("done"));
        let ended = Message::Ended {
            run: left,
            action,
            job,
            done,
        };
        bench.executor.inner.turn(vec![ended], now());
    }
    let other = bench.begin(&[(both, agent())]);
    bench.rack.hold(sold, NodeState::HandedOver, "sold");
    let stands = [both, mine, sold].map(|node| bench.state(node));
    assert_eq!(stands, ["provisioning", "provisioning", "handed_over"]);
    let key = format!("run/{:016x}/do/1/agent.restart", left.0);
    bench
        .store
        .put(Table::Work, key.as_bytes(), b"{\"of a later form\":1}")
        .unwrap();
    bench.again();
    assert!(bench.executor.run(left).unwrap().ended.is_some());
    assert!(running(&bench.executor.run(other).unwrap()).is_some());
    let stands = [both, mine, sold].map(|node| bench.state(node));
    assert_eq!(stands, ["provisioning", "discovered", "handed_over"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_up_only_to_be_given_up_takes_no_recovered_machine_from_its_disk() {
    let mut bench = Bench::new(Bounds::default());
    let node = bench.adopt(None, 1).unwrap();
    assert!(bench.work(node).boots_disk);
    bench.begin(&[(node, agent())]);
    assert!(!bench.work(node).boots_disk);
    bench.executor.recover(node, "anna").unwrap();
    assert!(bench.work(node).boots_disk);
    bench.again();
    assert_eq!(bench.under_way().len(), 1, "it is taken up");
    let work = bench.work(node);
    assert!(work.boots_disk && work.adopted.is_some() && bench.on_disk(node).boots_disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_appliance_and_adopted_systems_have_is_known_to_the_planner() {
    let bench = Bench::new(Bounds::default());
    let network = |name: &str, role, last| settings::Network {
        name: name.into(),
        role,
        address: Some([10, 10, last, 1].into()),
        prefix: 24,
        subnet: None,
    };
    bench.rack.configure(Settings {
        networks: vec![
            network("rack", settings::Role::Rack, 0),
            network("bmc", settings::Role::Bmc, 1),
            network("out", settings::Role::Uplink, 2),
        ],
        ..Settings::default()
    });
    let adopted = bench.adopt(None, 77).unwrap();
    let other = bench.machine(78);
    let facts = bench.executor.inner.facts(&locked(&bench.executor.inner.book));
    let address = |a: u8, b: u8| IpAddr::from([10, 10, a, b]);
    // Systems are told of services at the first two alone.
    assert_eq!(facts.appliance, [address(0, 1), address(1, 1)]);
    let nodes = facts.nodes.iter();
    let answered: BTreeMap<_, _> = nodes.map(|facts| (facts.node.id, facts.adopted_address)).collect();
    let wanted = [(adopted, Some(address(0, 77))), (other, None)].into();
    assert_eq!((facts.taken, answered), ([address(2, 1)].into(), wanted));
}
