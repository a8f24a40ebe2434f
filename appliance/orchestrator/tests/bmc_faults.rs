//! Every hand at a BMC against every fault of one, the fault beginning at each of the requests that the hand sends: it ends
//! well, or in an error that says which machine, what was asked, what happened and what to do, and what must not happen
//! twice does not. When the fault is over, the next try ends it.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::PATIENCE;
use common::bmcs::*;
use rackbar_devices::{BootTarget, Timing};
use rackbar_model::{Node, PowerAction};
use rackbar_orchestrator::bmc::BmcDoor as _;
use rackbar_orchestrator::hands::{Appliance, Done, Hands as _, Reach};
use rackbar_orchestrator::{Devices, PowerError, Rack};
use rackbar_plan::ActionKind;
use rackbar_store::Store;
use rackbar_vrack::bmc::{Faults, Loopback, Pretend};
use rackbar_vrack::seat::{self, BootDevice, BootOverride, MachinePower as _};
use tokio::sync::Semaphore;

const IMAGE: &str = "http://192.0.2.1/rescue.iso";
const LOADER: &str = "http://192.0.2.1/loader.efi";
/// More requests than any hand sends.
const MOST: u32 = 60;

/// Stories at a time: they mostly wait, and must not make each other late.
const AT_ONCE: usize = 16;

const QUICK: Timing = Timing {
    answer: Duration::from_millis(1_000),
    repeat: Duration::from_millis(150),
    settle: Duration::from_millis(1_500),
    // A BMC that says 401 to whatever it is shown has its patience in other stories.
    wrong_passwords: Duration::from_millis(1),
    ..TIMING
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hand {
    On,
    Off,
    Shutdown,
    Reset,
    BootOnce,
    BootUrl,
    BootFirst,
    Bios,
    Password,
    MediaIn,
    MediaOut,
    Sensors,
    Log,
}

const HANDS: [Hand; 13] = [
    Hand::On,
    Hand::Off,
    Hand::Shutdown,
    Hand::Reset,
    Hand::BootOnce,
    Hand::BootUrl,
    Hand::BootFirst,
    Hand::Bios,
    Hand::Password,
    Hand::MediaIn,
    Hand::MediaOut,
    Hand::Sensors,
    Hand::Log,
];

/// A fault, and what may come of it.
struct Case {
    name: &'static str,
    fault: Faults,
    /// The hand gets through by itself.
    harmless: bool,
}

fn cases() -> Vec<Case> {
    let none = Faults::NONE;
    let case = |name, harmless, fault| Case { name, fault, harmless };
    vec![
        case(
            "503 with Retry-After",
            true,
            Faults {
                status: Some((503, 1)),
                retry_after: 1,
                ..none
            },
        ),
        case(
            "503 for ever",
            false,
            Faults {
                status: Some((503, u32::MAX)),
                ..none
            },
        ),
        case(
            "401 as the session ends",
            true,
            Faults {
                status: Some((401, 1)),
                ..none
            },
        ),
        case(
            "401 for ever",
            false,
            Faults {
                status: Some((401, u32::MAX)),
                ..none
            },
        ),
        case("an entity tag that went stale", true, Faults { stale_etags: 1, ..none }),
        case(
            "entity tags that are never taken",
            false,
            Faults {
                wrong_etag: true,
                ..none
            },
        ),
        case(
            "a task that takes a moment",
            true,
            Faults {
                slow_task: Some(Duration::from_millis(200)),
                ..none
            },
        ),
        case(
            "a task without end",
            false,
            Faults {
                slow_task: Some(Duration::from_secs(3_600)),
                ..none
            },
        ),
        case(
            "deaf for a while",
            false,
            Faults {
                deaf_next: Some(Duration::from_millis(1_200)),
                ..none
            },
        ),
        case("an answer that is lost", false, Faults { lost: 1, ..none }),
        case(
            "sent on to another place",
            true,
            Faults {
                moved: Some(("", 1)),
                ..none
            },
        ),
        case(
            "sent on to another server",
            false,
            Faults {
                moved: Some(("https://192.0.2.9", u32::MAX)),
                ..none
            },
        ),
    ]
}

/// How an attempt ended: what went wrong, and whether another may help.
type Ended = Result<(), (String, bool)>;

/// One BMC and the appliance that works it.
struct Stand {
    hand: Hand,
    bmc: Loopback,
    machine: Arc<Pretend>,
    store: Store,
    rack: Rack,
    devices: Arc<Devices>,
    node: Arc<Node>,
    _dir: tempfile::TempDir,
}

impl Stand {
    async fn of(hand: Hand) -> Self {
        let (bmc, machine, dir) = simulated(seat::PowerState::On).await;
        let store = memory();
        let watch = Watch::start(store.clone(), &bmc, "secret", QUICK);
        watch.lease();
        let node = watch.found().await;
        let (rack, devices) = (watch.rack.clone(), watch.devices.clone());
        // Nobody else asks this BMC from now on.
        watch.stop().await;
        Self {
            hand,
            bmc,
            machine,
            store,
            rack,
            devices,
            node,
            _dir: dir,
        }
    }

    /// As it is before the hand begins: well, known, with a session, and not as the hand wants it.
    async fn ready(&self) {
        self.bmc.state().set_faults(Faults::NONE);
        self.devices.set_credentials(admin("secret"), Vec::new());
        self.devices.look(HERE).await.unwrap();
        self.machine.set_boot_override(None).await.unwrap();
        let on = self.hand != Hand::On;
        let power = if on {
            seat::PowerAction::On
        } else {
            seat::PowerAction::ForceOff
        };
        self.machine.act(power).await.unwrap();
        let order = [BootDevice::Network, BootDevice::Disk, BootDevice::Cdrom];
        let order = order.map(|device| seat::BootEntry { device, at: 0 });
        self.machine.set_boot_order(order.to_vec()).await.unwrap();
        let media = (self.hand == Hand::MediaOut).then_some(IMAGE);
        if matches!(self.hand, Hand::MediaIn | Hand::MediaOut) {
            self.devices.set_media(HERE, media).await.unwrap();
        }
    }

    /// One attempt.
    async fn work(&self) -> Ended {
        let id = self.node.id;
        let power = |action| self.rack.power(id, action, "test");
        match self.hand {
            Hand::On => self.told(power(PowerAction::On).await),
            Hand::Off => self.told(power(PowerAction::Off).await),
            Hand::Shutdown => self.told(power(PowerAction::Shutdown).await),
            Hand::Reset => self.told(power(PowerAction::Reset).await),
            Hand::BootOnce => self.told(self.rack.boot_once(id, BootTarget::Cd, None).await),
            Hand::BootUrl => self.told(self.rack.boot_once(id, BootTarget::Http, Some(LOADER.into())).await),
            Hand::BootFirst => {
                let done = self.devices.boot_disk_first(HERE, true).await;
                done.map_err(|error| {
                    assert!(error.to_string().contains("BMC 127.0.0.1"), "{error}");
                    (error.to_string(), true)
                })
            }
            Hand::Bios => done(
                self.carry_out(ActionKind::BiosSettings { attributes: settings() })
                    .await,
            ),
            Hand::Password => done(self.carry_out(ActionKind::RotatePassword).await),
            Hand::MediaIn => self.told(self.rack.set_virtual_media(id, Some(IMAGE)).await),
            Hand::MediaOut => self.told(self.rack.set_virtual_media(id, None).await),
            Hand::Sensors => self.told(self.rack.sensors(id).await.map(|told| assert_eq!(told.what.len(), 6))),
            Hand::Log => self.told(
                self.rack
                    .event_log(id, 10)
                    .await
                    .map(|told| assert!(!told.what.is_empty())),
            ),
        }
    }

    async fn carry_out(&self, kind: ActionKind) -> Done {
        let hands = Appliance::new(self.rack.clone(), self.store.clone(), None, Reach::default()).unwrap();
        let (task, _give_up) = task(&self.node, kind);
        hands.carry_out(task).await
    }

    /// An error says which machine, where its BMC is, what was asked, what happened, and what to do.
    fn told<T>(&self, result: Result<T, PowerError>) -> Ended {
        let Err(error) = result else { return Ok(()) };
        let words = error.to_string();
        let (PowerError::Refused {
            action, reason, advice, ..
        }
        | PowerError::NotSent {
            action, reason, advice, ..
        }
        | PowerError::Failed {
            action, reason, advice, ..
        }) = error
        else {
            panic!("{words}");
        };
        for part in [self.node.name.as_str(), "127.0.0.1", &action, &reason, advice] {
            assert!(!part.is_empty() && words.contains(part), "{part:?} in {words}");
        }
        Err((words, true))
    }

    fn acts(&self, wanted: &[seat::PowerAction]) -> usize {
        self.machine.acts().iter().filter(|act| wanted.contains(act)).count()
    }

    /// What must not happen twice, counted.
    fn counted(&self) -> usize {
        match self.hand {
            Hand::Reset => self.acts(&[seat::PowerAction::Reset, seat::PowerAction::PowerCycle]),
            Hand::Shutdown => self.acts(&[seat::PowerAction::GracefulShutdown]),
            _ => 0,
        }
    }

    /// True when it is as the hand wanted it.
    async fn is_done(&self) -> bool {
        // By the best way there is: IPMI, which may have stood in, knows no URL.
        if self.hand == Hand::BootUrl {
            self.devices.set_credentials(admin("secret"), Vec::new());
        }
        let at = |device, once| Some(BootOverride { device, once });
        match self.hand {
            Hand::On => self.machine.state() == seat::PowerState::On,
            Hand::Off => self.machine.state() == seat::PowerState::Off,
            Hand::Shutdown | Hand::Reset | Hand::Sensors | Hand::Log => true,
            Hand::BootOnce => self.machine.boot_override() == at(BootDevice::Cdrom, true),
            Hand::BootUrl => self.devices.boot_override(HERE).await.unwrap().url.as_deref() == Some(LOADER),
            Hand::BootFirst => {
                self.machine.boot_order()[0].device == BootDevice::Disk
                    || self.machine.boot_override() == at(BootDevice::Disk, false)
            }
            Hand::Bios => {
                self.machine.guest_resets();
                self.bmc.state().bios("NumLock") == Some("Off".into())
            }
            Hand::Password => {
                let login = self.store.bmc_login(self.node.id).unwrap().unwrap();
                let open = self
                    .devices
                    .verify_login(HERE, &login.user, &login.current)
                    .await
                    .is_ok();
                login.own && login.pending.is_none() && open
            }
            Hand::MediaIn => self.bmc.state().media().as_deref() == Some(IMAGE),
            Hand::MediaOut => self.bmc.state().media().is_none(),
        }
    }

    fn logins(&self) -> usize {
        let requests = self.bmc.state().requests();
        let login = |line: &&String| line.starts_with("POST") && line.ends_with("/Sessions");
        requests.iter().filter(login).count()
    }
}

fn settings() -> BTreeMap<String, String> {
    BTreeMap::from([("NumLock".to_owned(), "Off".to_owned())])
}

fn done(done: Done) -> Ended {
    done.result.map(drop).map_err(|failure| {
        assert!(!failure.reason.is_empty() && !failure.advice.is_empty(), "{failure:?}");
        (format!("{}; {}", failure.reason, failure.advice), failure.again)
    })
}

/// One hand, one fault, beginning after so many requests. False when the hand was through before.
async fn met(stand: &Stand, case: &Case, after: u32) -> bool {
    stand.ready().await;
    let (counted, logins) = (stand.counted(), stand.logins());
    let state = stand.bmc.state();
    state.set_faults(Faults { after, ..case.fault });
    let ended = stand.work().await;
    let now = state.faults();
    let hit = now.after == 0 && now != case.fault;
    let once = stand.counted() - counted;
    let tried = stand.logins() - logins;
    let told = format!("{:?}, {}, after {after} requests: {ended:?}", stand.hand, case.name);
    assert!(once <= 1, "done {once} times: {told}");
    // A busy BMC looks at no password.
    let busy = matches!(case.fault.status, Some((503, _)));
    assert!(tried <= if busy { 8 } else { 3 }, "{tried} logins: {told}");
    assert_eq!(state.failures("admin"), 0, "{told}");
    // To who proves a password it looks as a wrong one does, which is not tried again of our own accord.
    let no_proof = stand.hand == Hand::Password && matches!(case.fault.status, Some((401, _)));
    if (case.harmless && !no_proof) || (!hit && !is_lasting(&case.fault)) {
        assert!(ended.is_ok(), "{told}");
    }
    state.set_faults(Faults::NONE);
    let needs_once = matches!(stand.hand, Hand::Reset | Hand::Shutdown);
    if needs_once {
        assert!(ended.is_err() || once == 1, "it was not done: {told}");
    } else {
        finish(stand, ended, &told).await;
    }
    hit
}

/// A fault that is there until it is taken away, and changes by no request.
fn is_lasting(fault: &Faults) -> bool {
    fault.wrong_etag || fault.slow_task.is_some()
}

/// The fault is over: what is tried again ends well.
async fn finish(stand: &Stand, mut ended: Ended, told: &str) {
    let deadline = Instant::now() + PATIENCE;
    while let Err((words, _)) = &ended {
        assert!(Instant::now() < deadline, "no end: {words}: {told}");
        ended = stand.work().await;
    }
    assert!(stand.is_done().await, "not as wanted: {told}");
}

async fn hand_meets(hand: Hand, case: Case) {
    let mut stand = Stand::of(hand).await;
    let mut hits = 0;
    for after in 0..MOST {
        let hit = met(&stand, &case, after).await;
        if !hit {
            break;
        }
        hits += 1;
        if matches!(hand, Hand::Password | Hand::Bios) {
            // What was changed stays: the next one meets a machine as it was.
            stand = Stand::of(hand).await;
        }
    }
    let by_patch = case.fault.stale_etags > 0 || is_lasting(&case.fault);
    assert!(hits > 0 || by_patch, "{hand:?} never met: {}", case.name);
    assert!(hits < MOST, "{hand:?} sends no end of requests: {}", case.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hand_meets_every_fault_of_a_bmc() {
    let mut all = tokio::task::JoinSet::new();
    let turn = Arc::new(Semaphore::new(AT_ONCE));
    for hand in HANDS {
        for case in cases() {
            let turn = turn.clone();
            all.spawn(async move {
                let _turn = turn.acquire().await.unwrap();
                hand_meets(hand, case).await;
            });
        }
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
}
