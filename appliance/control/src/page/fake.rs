//! A rack office with fixed answers for the page's tests: one plan of one machine and a service, and its run half way.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::ready;
use rackbar_model::{Digest, NodeId, Timestamp};
use rackbar_plan::site::RunLimits;
use rackbar_plan::{
    Action, ActionId, ActionKind, Attempt, Change, Inputs, Layer, Limits, Outcome, OwnService, Plan, PlanId, Progress,
    Run, RunId, RunState, ServiceSpec, Stand, Target,
};

use crate::operations::{
    AccountEntry, AccountList, Answer, BootAgain, BootControl, BootRequest, BootServer, BootState, BootWaiter,
    CatalogueEntry, Condition, Consent, ExpectedMachine, HardwareLog, HardwareLogLine, ImagePin, ImageRefresh,
    MediaDrive, MediaList, Operations, Order, PackEntry, PackState, PlanRequest, RefreshState, Refused, RuleMatch,
    RuleTry, SensorList, SensorReading, SiteMistake, StorageDisk, StorageOrder, StorageState,
};

/// What a hostile machine could call itself or its disk.
pub(super) const HOSTILE: &str = "<script>alert(1)</script>";

/// Answers from memory; what was asked of it is kept.
#[derive(Default)]
pub(super) struct Office {
    pub(super) site: Mutex<String>,
    pub(super) node: Mutex<Option<(NodeId, String)>>,
    pub(super) asked: Mutex<Vec<String>>,
    pub(super) stale: Mutex<bool>,
}

fn action(node: NodeId, kind: ActionKind, layer: Layer, needs: &[&str], destroys: Option<String>) -> Action {
    Action {
        id: ActionId(format!("node-001/{}", kind.name())),
        node: Some(node),
        target: Target::Node(node),
        layer,
        changes: vec![Change {
            what: "root disk".into(),
            observed: Some(HOSTILE.into()),
            wanted: "debian-12".into(),
        }],
        needs: needs.iter().map(|need| ActionId(format!("node-001/{need}"))).collect(),
        destroys,
        reboots: false,
        estimate_seconds: 60,
        reason: format!("the role wants it {HOSTILE}"),
        limits: Limits { seconds: 60, tries: 3 },
        kind,
    }
}

/// A service that the machine's checks need, at a place with a hostile name.
fn service() -> Action {
    let at = format!("10.20.0.2 {HOSTILE}");
    Action {
        id: ActionId("network.lan/dns".into()),
        node: None,
        target: Target::Service("network.lan.dns".into()),
        layer: Layer::Clients,
        kind: ActionKind::Service(ServiceSpec {
            service: OwnService::Dns,
            own: None,
            at: vec![at.clone()],
            networks: vec!["lan".into()],
            unasked: false,
        }),
        changes: vec![Change {
            what: "dns service".into(),
            observed: Some(format!("missing when it was last asked {HOSTILE}")),
            wanted: format!("external at {at}"),
        }],
        needs: Vec::new(),
        destroys: None,
        reboots: false,
        estimate_seconds: 1,
        reason: format!("systems on network lan ask {at} for names"),
        limits: Limits { seconds: 60, tries: 6 },
    }
}

/// A plan that empties the machine's disk, with a serial number that a hostile disk shows.
pub(super) fn plan(node: NodeId) -> Plan {
    let erase = ActionKind::Erase {
        disks: Vec::new(),
        method: rackbar_model::EraseMethod::Signatures,
    };
    let mut verify = action(
        node,
        ActionKind::Verify { checks: Vec::new() },
        Layer::System,
        &["disk.erase"],
        None,
    );
    verify.needs.push(service().id);
    let loses = format!("/dev/sda, serial {HOSTILE}, 20 GB");
    Plan {
        id: PlanId("0123456789ab".into()),
        made: Timestamp(1_700_000_000_000),
        inputs: Inputs::of(Digest([0; 32])),
        actions: vec![
            service(),
            action(
                node,
                ActionKind::Agent { fresh: false },
                Layer::Infrastructure,
                &[],
                None,
            ),
            action(node, erase, Layer::System, &["agent"], Some(loses)),
            verify,
        ],
        refused: Vec::new(),
        unchanged: Vec::new(),
        left_out: vec![rackbar_plan::Refusal {
            node,
            name: "node-002".into(),
            reason: format!("it is in maintenance {HOSTILE}"),
        }],
        scope: Default::default(),
        limits: RunLimits {
            at_once: Some(24),
            kinds: [("os.write".to_owned(), 4), (HOSTILE.to_owned(), 2)].into(),
        },
    }
}

/// Its run: the service missing, one action done, one half way, one waiting.
pub(super) fn run(node: NodeId) -> Run {
    let plan = plan(node);
    let stands = [
        Stand::Again {
            tries: 2,
            reason: format!("dns is not there: no answer {HOSTILE}"),
            due: Timestamp(1_700_000_009_000),
        },
        Stand::Done {
            outcome: Outcome {
                summary: HOSTILE.into(),
                details: vec![HOSTILE.into()],
                nothing_to_do: false,
            },
            tries: 1,
            at: Timestamp(1_700_000_001_000),
        },
        Stand::Running(Attempt {
            number: 1,
            job: "0".repeat(32),
            began: Timestamp(1_700_000_002_000),
            progress: Some(Progress {
                doing: HOSTILE.into(),
                done: 43,
                total: 100,
            }),
        }),
        Stand::Waiting,
    ];
    let ids = plan.actions.iter().map(|action| action.id.clone());
    Run {
        id: RunId(1),
        actions: ids.zip(stands).collect(),
        plan: Arc::new(plan),
        by: "admin".into(),
        began: Timestamp(1_700_000_000_500),
        ended: None,
        state: RunState::Going,
        cancelled: Default::default(),
        excluded: Default::default(),
        takes: Default::default(),
        superseded: Default::default(),
        held: false,
    }
}

impl Office {
    fn node(&self) -> (NodeId, String) {
        self.node.lock().unwrap().clone().unwrap()
    }

    fn ask(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

impl Operations for Office {
    fn storage(&self) -> Answer<'_, StorageState> {
        let disk = |name: &str, holds: &[&str], refusal: Option<&str>| StorageDisk {
            name: name.into(),
            model: Some(HOSTILE.into()),
            serial: Some(format!("{name}-serial")),
            size_bytes: 480_000_000_000,
            holds: holds.iter().map(ToString::to_string).collect(),
            refusal: refusal.map(Into::into),
            needs_consent: !holds.is_empty() && refusal.is_none(),
            ..StorageDisk::default()
        };
        let state = StorageState {
            volatile: true,
            words: "in memory".into(),
            failed: None,
            disks: vec![
                disk("sda", &["partition 1 (ext4)"], Some("sda is in use")),
                disk("sdb", &["partition 1 (ntfs)"], None),
                disk("sdc", &[], None),
            ],
        };
        ready(Ok(state)).boxed()
    }

    fn boot_control(&self) -> Answer<'_, BootControl> {
        let server = |name: &str, waiting| BootServer {
            name: name.into(),
            taken: 1024,
            limit: 1024,
            waiting,
            full: 77,
        };
        let waiter = |server: &str, node: Option<&str>| BootWaiter {
            server: server.into(),
            client: "10.0.0.9:2070".parse().unwrap(),
            mac: None,
            node: node.map(str::to_owned),
            seconds: (server == "tftp").then_some(12),
        };
        let control = BootControl {
            servers: vec![server("tftp", 2), server("http", 1)],
            waiting: vec![
                waiter("tftp", Some("node-003")),
                waiter("tftp", None),
                waiter("http", Some("node-005")),
            ],
            again: vec![BootAgain {
                client: [10, 0, 0, 7].into(),
                mac: None,
                node: Some("node-004".into()),
                what: "vmlinuz".into(),
                times: 5,
                seconds: 3,
                pause: 16,
            }],
        };
        ready(Ok(control)).boxed()
    }

    fn use_disk(&self, order: StorageOrder, by: &str) -> Answer<'_, String> {
        self.ask(format!("{} {:?} by {by}", order.disk, order.destroy));
        let answer = match order.destroy {
            None if order.disk == "sdb" => Err(Refused::Conflict("sdb is not empty".into())),
            _ => Ok(format!("{} is prepared", order.disk)),
        };
        ready(answer).boxed()
    }

    fn site(&self) -> Answer<'_, String> {
        ready(Ok(self.site.lock().unwrap().clone())).boxed()
    }

    fn check_site(&self, text: String) -> Answer<'_, Vec<SiteMistake>> {
        let mistake = SiteMistake {
            line: 3,
            column: 1,
            field: "role.x.disc".into(),
            message: format!("unknown key {HOSTILE}"),
            suggestion: Some("did you mean `disk`?".into()),
        };
        let mistakes = if text.contains("disc") {
            vec![mistake]
        } else {
            Vec::new()
        };
        ready(Ok(mistakes)).boxed()
    }

    fn set_site(&self, text: String, by: &str) -> Answer<'_, ()> {
        let by = by.to_owned();
        async move {
            let mistakes = self.check_site(text.clone()).await?;
            if !mistakes.is_empty() {
                return Err(Refused::Mistakes(mistakes));
            }
            self.ask(format!("site by {by}"));
            *self.site.lock().unwrap() = text;
            Ok(())
        }
        .boxed()
    }

    fn expected(&self) -> Answer<'_, Vec<ExpectedMachine>> {
        let unseen = ExpectedMachine {
            name: format!("db-9{HOSTILE}"),
            ..ExpectedMachine::default()
        };
        futures_util::future::ready(Ok(vec![unseen])).boxed()
    }

    fn test_rules(&self, _: Option<String>) -> Answer<'_, Vec<RuleMatch>> {
        let one = RuleMatch {
            node: self.node().1,
            rule: Some("all".into()),
            role: Some(HOSTILE.into()),
            name: None,
            tried: vec![RuleTry {
                rule: "all".into(),
                fits: true,
                why: HOSTILE.into(),
            }],
        };
        ready(Ok(vec![one])).boxed()
    }

    fn plan(&self, request: PlanRequest) -> Answer<'_, Arc<Plan>> {
        let burn_in = request
            .burn_in
            .map(|one| [one.cpu_seconds, one.memory_seconds, one.disk_seconds]);
        let burn_in = burn_in.map_or_else(String::new, |seconds| format!(" burn-in {seconds:?}"));
        self.ask(format!(
            "plan {:?} reinstall {}{burn_in}",
            request.nodes, request.reinstall
        ));
        ready(Ok(Arc::new(plan(self.node().0)))).boxed()
    }

    fn plan_by_id(&self, id: &str) -> Answer<'_, Arc<Plan>> {
        let plan = plan(self.node().0);
        let found = if plan.id.0 == id {
            Ok(Arc::new(plan))
        } else {
            Err(Refused::NotFound(format!("there is no plan {id}")))
        };
        ready(found).boxed()
    }

    fn commit(&self, id: &str, consent: Vec<String>, by: &str) -> Answer<'_, Arc<Run>> {
        let (node, name) = self.node();
        let answer = if *self.stale.lock().unwrap() {
            Err(Refused::Stale(vec![format!(
                "the disks of {name} are others {HOSTILE}"
            )]))
        } else if consent == [name.clone()] {
            self.ask(format!("commit {id} by {by}"));
            Ok(Arc::new(run(node)))
        } else {
            let loses = vec![HOSTILE.to_owned()];
            Err(Refused::Consent(vec![Consent { node: name, loses }]))
        };
        ready(answer).boxed()
    }

    fn runs(&self) -> Answer<'_, Vec<Arc<Run>>> {
        ready(Ok(vec![Arc::new(run(self.node().0))])).boxed()
    }

    fn run(&self, id: u64) -> Answer<'_, Arc<Run>> {
        let found = match id {
            1 => Ok(Arc::new(run(self.node().0))),
            _ => Err(Refused::NotFound(format!("there is no run {id}"))),
        };
        ready(found).boxed()
    }

    fn order(&self, id: u64, order: Order, by: &str) -> Answer<'_, ()> {
        self.ask(format!("{} {id} by {by}", order.name()));
        ready(Ok(())).boxed()
    }

    fn sensors(&self, node: &str) -> Answer<'_, SensorList> {
        self.ask(format!("sensors of {node}"));
        let sensor = |name: &str, reading, state| SensorReading {
            name: name.into(),
            reading,
            unit: "Cel".into(),
            state,
        };
        ready(Ok(SensorList {
            node: self.node().1,
            bmc: "10.20.0.100".into(),
            way: "IPMI".into(),
            why: format!("Redfish: {HOSTILE}"),
            state: Condition::Critical,
            items: vec![
                sensor(HOSTILE, Some(95.0), Condition::Critical),
                sensor("FAN1", None, Condition::Unknown),
            ],
        }))
        .boxed()
    }

    fn accounts(&self, node: &str) -> Answer<'_, AccountList> {
        self.ask(format!("accounts of {node}"));
        let account = |id: &str, name: &str, enabled, locked| AccountEntry {
            id: id.into(),
            name: name.into(),
            role: "operator".into(),
            enabled,
            locked,
            ours: id == "2",
        };
        ready(Ok(AccountList {
            node: self.node().1,
            bmc: "10.20.0.100".into(),
            way: "Redfish".into(),
            why: HOSTILE.into(),
            items: vec![
                account("2", "admin", true, Some(false)),
                account("3", HOSTILE, true, Some(true)),
                account("4", "guest", false, None),
            ],
        }))
        .boxed()
    }

    fn hardware_log(&self, _: &str, limit: u16) -> Answer<'_, HardwareLog> {
        let line = HardwareLogLine {
            time: None,
            severity: Condition::Warning,
            message: format!("one of {limit} {HOSTILE}"),
            id: "17".into(),
        };
        ready(Ok(HardwareLog {
            node: self.node().1,
            bmc: "10.20.0.100".into(),
            way: "Redfish".into(),
            why: "it ranks first and works".into(),
            items: vec![line],
        }))
        .boxed()
    }

    fn media(&self, _: &str) -> Answer<'_, MediaList> {
        let drive = MediaDrive {
            id: "Cd".into(),
            kinds: vec!["CD".into(), "DVD".into()],
            inserted: Some(true),
            image: Some(HOSTILE.into()),
            ours: true,
        };
        ready(Ok(MediaList {
            node: self.node().1,
            bmc: "10.20.0.100".into(),
            items: vec![drive],
        }))
        .boxed()
    }

    fn set_media(&self, node: &str, image: Option<String>) -> Answer<'_, MediaList> {
        self.ask(format!("media {image:?}"));
        self.media(node)
    }

    fn boot(&self, _: &str) -> Answer<'_, BootState> {
        ready(Err(Refused::Device(format!("the BMC failed {HOSTILE}")))).boxed()
    }

    fn set_boot(&self, node: &str, request: BootRequest, by: &str) -> Answer<'_, BootState> {
        let BootRequest { from, url, restart } = request;
        self.ask(format!("boot {} {url:?} {restart} by {by}", from.name()));
        let state = BootState {
            node: node.into(),
            bmc: String::new(),
            from: from.name().into(),
            once: true,
            url,
        };
        ready(Ok(state)).boxed()
    }

    fn images(&self) -> Answer<'_, Vec<CatalogueEntry>> {
        let image = serde_json::from_value(serde_json::json!({
            "name": "debian-11", "format": "raw", "sha256": "00".repeat(32), "bytes": 512, "disk_bytes": 512, "arch": "x86_64",
            "source": HOSTILE, "licence": HOSTILE, "user": "root", "added": rackbar_model::Timestamp(0),
            "retired": {"since": rackbar_model::Timestamp(0), "instead": HOSTILE},
            "offline": "no", "offline_lacks": "cannot reach",
            "upstream": {"kind": "sums", "sums": HOSTILE, "file": HOSTILE, "keys": HOSTILE},
        }));
        ready(Ok(vec![image.unwrap()])).boxed()
    }

    fn programs(&self) -> Answer<'_, Vec<rackbar_model::ProgramEntry>> {
        let entry = |name: &str| rackbar_model::ProgramEntry {
            name: name.into(),
            sha256: rackbar_model::Digest([0x5a; 32]),
            bytes: 3 << 20,
            added: rackbar_model::Timestamp(0),
        };
        ready(Ok(vec![entry("node-setup"), entry(HOSTILE)])).boxed()
    }

    fn remove_program(&self, name: &str) -> Answer<'_, ()> {
        self.ask(format!("remove program {name}"));
        ready(Ok(())).boxed()
    }

    fn set_image_standing(&self, name: &str, standing: crate::operations::ImageStanding) -> Answer<'_, String> {
        self.ask(format!("{name} {standing:?}"));
        ready(Ok(String::new())).boxed()
    }

    fn image_refresh(&self, name: &str) -> Answer<'_, ImageRefresh> {
        let refresh = ImageRefresh {
            image: name.into(),
            state: RefreshState::Fetching,
            words: format!("fetching {HOSTILE}"),
            bytes: 40,
            total: Some(100),
            began: rackbar_model::Timestamp(0),
            ended: None,
        };
        ready(Ok(refresh)).boxed()
    }

    fn refresh_image(&self, name: &str) -> Answer<'_, ImageRefresh> {
        self.ask(format!("refresh {name}"));
        self.image_refresh(name)
    }

    fn pin_image(&self, name: &str, pin: ImagePin) -> Answer<'_, String> {
        self.ask(format!("{name} {pin:?}"));
        ready(Ok(String::new())).boxed()
    }

    fn packs(&self) -> Answer<'_, PackState> {
        let pack = PackEntry {
            name: "debian-12".into(),
            note: HOSTILE.into(),
            by: HOSTILE.into(),
            why_not: Some(HOSTILE.into()),
            answers: 3,
            ..PackEntry::default()
        };
        let packs = vec![pack];
        ready(Ok(PackState {
            packs,
            ..PackState::default()
        }))
        .boxed()
    }
}
