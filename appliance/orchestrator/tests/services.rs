//! Services that systems are told to use: what the hands see of them, and what a run does whose services come late or never.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::life::{Life, Sim};
use common::{until, until_node};
use rackbar_messages::JobId;
use rackbar_model::{NodeId, ServiceStatus, Severity, Timestamp};
use rackbar_orchestrator::Rack;
use rackbar_orchestrator::executor::PlanRequest;
use rackbar_orchestrator::hands::{Appliance, Done, Hands as _, Learned, Reach, System, Task};
use rackbar_plan::{
    Action, ActionId, ActionKind, Layer, Limits, OwnService, Plan, PlanId, Progress, Run, RunId, RunState, ServiceSpec,
    Stand, Target,
};
use rackbar_store::Store;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 10, 0, 1));

fn plan(spec: ServiceSpec) -> Plan {
    let mut plan: Plan = serde_json::from_value(serde_json::json!({
        "id": "test", "made": Timestamp(0), "actions": [], "refused": [], "unchanged": [],
        "inputs": { "site": "00".repeat(32), "nodes": {}, "images": {} },
    }))
    .unwrap();
    plan.id = PlanId("test".into());
    plan.actions.push(Action {
        id: ActionId("network.lan/dns".into()),
        node: None,
        target: Target::Service("network.lan.dns".into()),
        layer: Layer::Clients,
        kind: ActionKind::Service(spec),
        changes: Vec::new(),
        needs: Vec::new(),
        destroys: None,
        reboots: false,
        estimate_seconds: 1,
        reason: "a test".into(),
        limits: Limits { seconds: 60, tries: 1 },
    });
    plan
}

fn spec(service: OwnService, own: Option<IpAddr>, at: &[String]) -> ServiceSpec {
    ServiceSpec {
        service,
        own,
        at: at.to_vec(),
        networks: vec!["lan".into()],
        unasked: false,
    }
}

/// An appliance's hands, and what they say of their progress.
struct Asked {
    hands: Arc<Appliance>,
    rack: Rack,
    told: Arc<Mutex<Vec<String>>>,
}

impl Asked {
    fn new(reach: Reach) -> Self {
        let store = Store::in_memory(Default::default()).unwrap();
        let rack = common::rack(store.clone());
        let reach = Reach {
            look: Duration::from_millis(5),
            ..reach
        };
        let hands = Arc::new(Appliance::new(rack.clone(), store, None, reach).unwrap());
        Self {
            hands,
            rack,
            told: Arc::default(),
        }
    }

    async fn carry_out(&self, spec: ServiceSpec) -> Done {
        let told = self.told.clone();
        let (_give_up, give_up) = watch::channel(false);
        let task = Task {
            run: RunId(1),
            plan: Arc::new(plan(spec)),
            position: 0,
            node: None,
            system: System::default(),
            job: JobId([0; 16]),
            attempt: 1,
            taken_up: false,
            progress: Arc::new(move |progress: Progress| told.lock().unwrap().push(progress.doing)),
            give_up,
        };
        self.hands.carry_out(task).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_our_own_is_waited_for_until_whoever_runs_it_says_that_it_serves() {
    let asked = Asked::new(Reach::default());
    let own = spec(OwnService::Dns, Some(OWN), &[OWN.to_string()]);
    let (rack, told) = (asked.rack.clone(), asked.told.clone());
    let waiting = tokio::spawn(async move { asked.carry_out(own).await });
    let says = |words: &'static str| {
        let told = told.clone();
        async move {
            until(words, || {
                let told = told.lock().unwrap();
                told.iter().any(|line| line.contains(words)).then_some(())
            })
            .await;
        }
    };
    says("the appliance's own dns: not running").await;
    let status = |state: &str, severity| ServiceStatus {
        name: "dns".into(),
        state: state.into(),
        severity,
        since: Timestamp(1),
    };
    rack.set_service(status("port 53 is taken by unbound", Severity::Error));
    says("port 53 is taken by unbound").await;
    // It listens, but on another network.
    rack.set_serving(OwnService::Dns, [[10, 10, 9, 1].into()]);
    rack.set_service(status("answering", Severity::Info));
    says("not serving at 10.10.0.1").await;
    rack.set_serving(OwnService::Dns, [OWN]);
    let done = tokio::time::timeout(common::PATIENCE, waiting).await.unwrap().unwrap();
    assert!(done.result.unwrap().summary.contains("own dns serves at 10.10.0.1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_our_own_that_never_comes_is_named_with_its_reason_and_what_to_do() {
    let asked = Asked::new(Reach {
        service_wait: Duration::from_millis(20),
        ..Reach::default()
    });
    asked.rack.set_service(ServiceStatus {
        name: "ntp".into(),
        state: "the clock is not synchronised yet".into(),
        severity: Severity::Warning,
        since: Timestamp(1),
    });
    asked.rack.set_serving(OwnService::Ntp, [OWN]);
    let done = asked
        .carry_out(spec(OwnService::Ntp, Some(OWN), &[OWN.to_string()]))
        .await;
    let failure = done.result.unwrap_err();
    assert!(failure.again, "it may still come");
    for part in ["own ntp", "10.10.0.1", "the clock is not synchronised yet"] {
        assert!(failure.reason.contains(part), "{failure:?}");
    }
    for part in ["`rackbar service status`", "network.lan.ntp", "plan and commit again"] {
        assert!(failure.advice.contains(part), "{failure:?}");
    }
}

/// Answers every datagram by what `answer` makes of it.
async fn server(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 1_500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&answer(&buffer[..length]), from).await;
        }
    });
    port
}

/// A port on which nobody listens, over UDP and TCP.
fn closed() -> u16 {
    let held = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    held.local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn name_servers_of_others_are_asked_and_one_that_answers_is_enough() {
    // The first answer is somebody else's and does not count.
    let port = server(|question| {
        let mut answer = question.to_vec();
        if let Some(flags) = answer.get_mut(2) {
            *flags |= 0x80;
        }
        answer
    })
    .await;
    let asked = Asked::new(Reach {
        dns_port: port,
        ..Reach::default()
    });
    let servers = ["127.0.0.1".to_owned(), "127.9.9.9".to_owned()];
    let done = asked.carry_out(spec(OwnService::Dns, None, &servers)).await;
    let outcome = done.result.unwrap();
    assert!(outcome.summary.contains("dns is there at 127.0.0.1"), "{outcome:?}");
    assert!(
        outcome.details.iter().any(|line| line.starts_with("127.9.9.9: ")),
        "{outcome:?}"
    );
    assert!(matches!(&done.learned[..], [Learned::Service(seen)] if seen.serves));

    let nobody = Asked::new(Reach {
        dns_port: closed(),
        ..Reach::default()
    });
    let done = nobody.carry_out(spec(OwnService::Dns, None, &servers[..1])).await;
    let failure = done.result.unwrap_err();
    assert!(
        failure.reason.contains("127.0.0.1: nothing listens there"),
        "{failure:?}"
    );
    assert!(matches!(&done.learned[..], [Learned::Service(seen)] if !seen.serves));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_server_of_others_must_follow_a_clock_and_what_is_no_answer_is_not_taken_for_one() {
    let answers = |stratum: u8, leap: rackbar_ntp::Leap| {
        move |question: &[u8]| {
            let mut packet = rackbar_ntp::Packet::read(question).unwrap();
            packet.origin = packet.transmit;
            packet.mode = rackbar_ntp::Mode::Server;
            (packet.stratum, packet.leap) = (stratum, leap);
            (packet.receive, packet.transmit) = (rackbar_ntp::Stamp(9 << 32), rackbar_ntp::Stamp(9 << 32));
            packet.write().to_vec()
        }
    };
    let ask = async |port: u16| {
        let asked = Asked::new(Reach {
            ntp_port: port,
            ..Reach::default()
        });
        asked
            .carry_out(spec(OwnService::Ntp, None, &["localhost".to_owned()]))
            .await
            .result
    };
    let good = ask(server(answers(2, rackbar_ntp::Leap::None)).await).await.unwrap();
    assert!(good.details[0].contains("stratum 2"), "{good:?}");
    let lost = ask(server(answers(0, rackbar_ntp::Leap::Unsynchronised)).await)
        .await
        .unwrap_err();
    assert!(lost.reason.contains("its clock follows nobody"), "{lost:?}");
    let echo = ask(server(<[u8]>::to_vec).await).await.unwrap_err();
    assert!(
        echo.reason.contains("no answer within"),
        "an echo was taken for an answer: {echo:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_others_that_drops_our_questions_is_refused_with_what_to_do_or_left_unasked() {
    // It is there, for others: what we send arrives and is not answered.
    let firewall = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let asked = Asked::new(Reach {
        dns_port: firewall.local_addr().unwrap().port(),
        ..Reach::default()
    });
    let dns = spec(OwnService::Dns, None, &["127.0.0.1".to_owned()]);
    let failure = asked.carry_out(dns.clone()).await.result.unwrap_err();
    assert!(
        failure.again && failure.reason.contains("no answer within 5 s"),
        "{failure:?}"
    );
    for part in [
        "firewall",
        "unasked = [\"dns\"]",
        "network.lan",
        "checks on the systems",
    ] {
        assert!(failure.advice.contains(part), "no {part}: {failure:?}");
    }
    let mut question = [0; 64];
    while firewall.try_recv(&mut question).is_ok() {}

    let told = ServiceSpec { unasked: true, ..dns };
    let done = asked.carry_out(told.clone()).await;
    let summary = done.result.unwrap().summary;
    assert!(
        summary.contains("dns at 127.0.0.1 is not asked from here, as the site says"),
        "{summary}"
    );
    assert!(done.learned.is_empty(), "it was not seen to serve");
    assert!(firewall.try_recv(&mut question).is_err(), "nothing was sent");
    let log = ServiceSpec {
        service: OwnService::Syslog,
        ..told
    };
    let summary = asked.carry_out(log).await.result.unwrap().summary;
    assert!(summary.contains("lost unseen"), "{summary}");
    // A host that says no is no firewall, and hears nothing of one.
    let closed = Asked::new(Reach {
        dns_port: closed(),
        ..Reach::default()
    });
    let dns = spec(OwnService::Dns, None, &["127.0.0.1".to_owned()]);
    let failure = closed.carry_out(dns).await.result.unwrap_err();
    assert!(!failure.advice.contains("firewall"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_and_a_log_collector_of_others_are_there_when_something_listens() {
    let asked = Asked::new(Reach::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap();
    let ask = async |service, at: String| asked.carry_out(spec(service, None, &[at])).await.result;
    let proxy = |address: SocketAddr| format!("http://{address}");
    assert!(ask(OwnService::Proxy, proxy(open)).await.is_ok());
    let gone = SocketAddr::from(([127, 0, 0, 1], closed()));
    let failure = ask(OwnService::Proxy, proxy(gone)).await.unwrap_err();
    assert!(failure.reason.contains("nothing listens there"), "{failure:?}");
    let unknown = ask(OwnService::Proxy, "http://no-such-host.invalid:3128".into())
        .await
        .unwrap();
    assert!(unknown.summary.contains("could not be asked from here"), "{unknown:?}");

    let over_tcp = ask(OwnService::Syslog, open.to_string()).await.unwrap();
    assert!(over_tcp.details[0].contains("takes connections"), "{over_tcp:?}");
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let over_udp = ask(OwnService::Syslog, socket.local_addr().unwrap().to_string())
        .await
        .unwrap();
    assert!(over_udp.details[0].contains("nobody confirms"), "{over_udp:?}");
    let failure = ask(OwnService::Syslog, gone.to_string()).await.unwrap_err();
    assert!(failure.reason.contains("nothing listens there"), "{failure:?}");
}

const SITE: &str = r##"
version = 1
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f test"]
[network.rack]
subnet = "10.10.0.0/24"
dns = ["10.10.0.7"]
[role.worker]
os = "debian-12"
network = [{ name = "lan", network = "rack", nics = ["boot"] }]
[[rule]]
name = "all"
when = "true"
role = "worker"
"##;

async fn committed(life: &Life) -> RunId {
    life.executor.set_site(SITE, "anna").unwrap();
    until_node(&life.rack, "it has its role", |node| node.role.is_some()).await;
    let plan = life.executor.plan(&PlanRequest::default()).unwrap();
    assert!(plan.refused.is_empty(), "{plan:#?}");
    assert_eq!(plan.actions[0].id.0, "network.rack/dns");
    assert_eq!(plan.actions[0].changes[0].observed, None);
    let name = life.rack.nodes()[0].name.clone();
    life.executor.commit(&plan.id, &[name], "test").unwrap()
}

fn stand<'r>(run: &'r Run, action: &str) -> &'r Stand {
    &run.actions[&ActionId(action.into())]
}

async fn run_where(life: &Life, run: RunId, what: &str, holds: impl Fn(&Run) -> bool) -> Arc<Run> {
    until(what, || life.executor.run(run).filter(|run| holds(run))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_a_service_that_is_down_and_goes_on_when_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    *sim.missing.lock().unwrap() = Some("dns is not there: 10.10.0.7: no answer");
    let run = committed(&life).await;
    // The machine is installed meanwhile, and its checks wait.
    let waiting = run_where(&life, run, "all but the checks is done", |run| {
        let reachable = stand(run, "node-001/os.reachable");
        matches!(reachable, Stand::Done { .. }) && matches!(stand(run, "network.rack/dns"), Stand::Again { .. })
    })
    .await;
    let Stand::Again { reason, .. } = stand(&waiting, "network.rack/dns") else {
        unreachable!()
    };
    assert!(reason.contains("10.10.0.7: no answer"), "{reason}");
    assert_eq!(stand(&waiting, "node-001/verify"), &Stand::Waiting);
    assert_eq!(waiting.state, RunState::Going);
    *sim.missing.lock().unwrap() = None;
    let ended = run_where(&life, run, "the run has ended", |run| run.ended.is_some()).await;
    assert_eq!(ended.state, RunState::Done, "{:?}", ended.actions);
    assert_eq!(life.state(node), "ready");
    life.kill().await;
}

fn failed(life: &Life, node: NodeId) -> bool {
    life.rack.node(&node.to_string()).unwrap().state.name() == "failed"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_service_never_comes_fails_by_the_name_of_the_service_and_no_machine_does() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    *sim.fail.lock().unwrap() = Some("service.dns");
    let run = committed(&life).await;
    let ended = run_where(&life, run, "the run has ended", |run| run.ended.is_some()).await;
    assert_eq!(ended.state, RunState::Failed);
    let Stand::Failed { reason, advice, .. } = stand(&ended, "network.rack/dns") else {
        panic!("{:?}", ended.actions)
    };
    assert_eq!((reason.as_str(), advice.as_str()), ("it broke", "mend it"));
    let Stand::Skipped { reason } = stand(&ended, "node-001/verify") else {
        panic!("{:?}", ended.actions)
    };
    assert!(
        reason.contains("network.rack/dns") && reason.contains("it broke"),
        "{reason}"
    );
    let failures = ended
        .actions
        .values()
        .filter(|stand| matches!(stand, Stand::Failed { .. }));
    assert_eq!(failures.count(), 1, "{:?}", ended.actions);
    assert!(!failed(&life, node), "nothing is wrong with the machine");

    // It is back: what is left is the checks, and they need it again.
    *sim.fail.lock().unwrap() = None;
    let plan = life.executor.plan(&PlanRequest::default()).unwrap();
    let ids: Vec<&str> = plan.actions.iter().map(|action| action.id.0.as_str()).collect();
    assert!(
        ids.starts_with(&["network.rack/dns"]) && ids.ends_with(&["node-001/verify"]),
        "{ids:?}"
    );
    assert!(!ids.contains(&"node-001/os.write"), "{ids:?}");
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_saw_of_a_service_is_what_the_next_plan_shows_and_a_cancelled_run_ends() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    *sim.missing.lock().unwrap() = Some("no answer");
    let run = committed(&life).await;
    run_where(&life, run, "it was asked", |run| {
        matches!(stand(run, "network.rack/dns"), Stand::Again { .. })
    })
    .await;
    // Nothing that needs it is left: nobody waits for it any more.
    life.executor.recover(node, "anna").unwrap();
    let ended = run_where(&life, run, "the run has ended", |run| run.ended.is_some()).await;
    let Stand::Skipped { reason } = stand(&ended, "network.rack/dns") else {
        panic!("{:?}", ended.actions)
    };
    assert!(reason.contains("nothing that needs it is left"), "{reason}");
    let plan = life.executor.plan(&PlanRequest::default()).unwrap();
    let dns = plan
        .actions
        .iter()
        .find(|action| action.id.0 == "network.rack/dns")
        .unwrap();
    assert_eq!(dns.changes[0].observed.as_deref(), Some("no answer"));
    assert_eq!(dns.changes[0].wanted, "external at 10.10.0.7");
    life.kill().await;
}
