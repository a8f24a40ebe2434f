//! The checks over a real SSH server, on the machine the tests run on: every probe is a script a real shell takes.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../ssh/tests/sshd/mod.rs"]
mod sshd;

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rackbar_model::{CheckResult, CheckStatus, Inventory, OsNetwork, RootTarget, Timestamp};
use rackbar_ssh::Session;
use rackbar_verify::{Asked, Context, OverSsh, Peer, Reach, capabilities, run};

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// What is true of this machine, as if it were wanted.
fn truth() -> Context {
    let mut context = Context::default();
    let setup = &mut context.wanted.setup;
    let name = read("/proc/sys/kernel/hostname");
    setup.hostname = name.split('.').next().unwrap().to_owned();
    setup.machine_id = read("/etc/machine-id");
    setup.networks = vec![OsNetwork {
        name: "lo".into(),
        nics: Vec::new(),
        bond: None,
        vlan: None,
        mtu: read("/sys/class/net/lo/mtu").parse().ok().or(Some(u16::MAX)),
        addresses: vec!["127.0.0.1/32".into()],
        gateway: None,
    }];
    context.wanted.names = vec!["localhost".into()];
    context.wanted.target = Some(RootTarget::Disk(rackbar_model::DiskRef {
        serial: Some("no such disk".into()),
        ..rackbar_model::DiskRef::default()
    }));
    context.wanted.peers = vec![Peer {
        name: "self".into(),
        address: IpAddr::from([127, 0, 0, 1]),
        mtu: Some(1500),
    }];
    let mut inventory = Inventory::default();
    let total = read("/proc/meminfo")
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>();
    inventory.memory.total_bytes = total.unwrap() * 1024;
    inventory.cpu.threads = 1;
    context.seen.inventory = Some(inventory);
    context
}

fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

fn of<'a>(results: &'a [CheckResult], id: &str) -> &'a CheckResult {
    results.iter().find(|result| result.id == id).unwrap()
}

#[tokio::test]
async fn checks_see_a_real_system_over_ssh() {
    let sshd = sshd::Sshd::start();
    let limit = Duration::from_secs(60);
    let session = Session::connect(sshd.addr, &sshd.user, &sshd.key, &sshd.host.public, limit)
        .await
        .unwrap();
    let reach = OverSsh {
        session: &session,
        clock: &now,
    };
    let mut context = truth();
    let results = run(&context, &[], &reach).await;
    for result in &results {
        eprintln!(
            "{:?} {} {} | {}",
            result.status, result.id, result.observed, result.advice
        );
    }
    // Nobody had it exercised.
    let all = capabilities().checks.iter().filter(|check| check.how != "agent");
    assert_eq!(results.len(), all.count());
    for id in [
        "os.identity",
        "memory.total",
        "cpu.threads",
        "net.addresses",
        "dns.resolve",
        "time.sync",
    ] {
        assert_eq!(
            of(&results, id).status,
            CheckStatus::Passed,
            "{id}: {:?}",
            of(&results, id)
        );
    }
    // The disk that is wanted is not there, and the answer names what is.
    let layout = of(&results, "disk.layout");
    assert_eq!(layout.status, CheckStatus::Failed, "{layout:?}");
    assert!(layout.observed.contains("serial no such disk"), "{layout:?}");
    assert_eq!(of(&results, "firmware.bios").status, CheckStatus::Skipped);

    // The same system, when something else is wanted.
    context.wanted.setup.hostname = "somebody-else".into();
    context.wanted.names = vec!["does-not-exist.invalid".into()];
    context.wanted.setup.networks[0].addresses = vec!["203.0.113.77/24".into()];
    if let Some(inventory) = &mut context.seen.inventory {
        inventory.memory.total_bytes *= 2;
        inventory.cpu.threads = u16::MAX;
    }
    let results = run(&context, &[], &reach).await;
    for id in [
        "os.identity",
        "memory.total",
        "cpu.threads",
        "net.addresses",
        "dns.resolve",
    ] {
        let result = of(&results, id);
        assert_eq!(result.status, CheckStatus::Failed, "{id}: {result:?}");
        assert!(!result.advice.is_empty() && !result.wanted.is_empty());
    }
    assert!(of(&results, "os.identity").observed.contains("the host name is"));
}

/// A node that cannot be reached.
struct Deaf;

impl Reach for Deaf {
    fn ask<'a>(&'a self, _: &'a str, _: &'a str, _: Duration) -> Asked<'a> {
        Box::pin(async { Err("it is deaf".into()) })
    }

    fn now(&self) -> Timestamp {
        Timestamp(7)
    }
}

#[tokio::test]
async fn a_deaf_node_fails_and_an_unknown_check_too() {
    let ids = ["time.sync".to_owned(), "time.snyc".to_owned()];
    let results = run(&truth(), &ids, &Deaf).await;
    assert_eq!(
        results.iter().map(|result| result.status).collect::<Vec<_>>(),
        [CheckStatus::Failed; 2]
    );
    assert_eq!(results[0].observed, "it is deaf");
    assert!(results[1].advice.contains("time.snyc"));
}
