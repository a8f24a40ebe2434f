//! A BMC that takes no login of ours is set up from inside its machine, over KCS, by the code of our agent, and then driven
//! from outside. KCS, Redfish and IPMI are faces of one simulated BMC.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::bmcs::*;
use common::inside::Inside;
use common::*;
use rackbar_model::{Node, PowerAction, PowerState, SecretText};
use rackbar_orchestrator::bmc::BmcDoor as _;
use rackbar_orchestrator::hands::{Appliance, Done, Hands as _, Learned, Reach};
use rackbar_plan::{ActionKind, BmcAddress, BmcNetwork};
use rackbar_vrack::bmc::Loopback;
use rackbar_vrack::seat;

/// A machine with our agent on it, whose BMC has a password that nobody told us.
struct Stage {
    bmc: Loopback,
    watch: Watch,
    inside: Arc<Inside>,
    server: Server,
    node: Arc<Node>,
    agent: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Stage {
    async fn set() -> Self {
        let (bmc, _machine, dir) = simulated(seat::PowerState::On).await;
        let watch = Watch::start(memory(), &bmc, "wrong", TIMING);
        let site = site();
        let server = Server::start(&site, watch.rack.clone(), Duration::from_secs(600)).await;
        let inventory = machine(&[mac(1)], "SN-1", "4c4c4544-0042-4410-8056-b4c04f363132");
        let inside = Arc::new(Inside::of(dir.path().join("kcs"), inventory));
        let (agent, welcome) = boot(&site, &server, &[mac(1)], inside.inventory.clone()).await;
        let agent = tokio::spawn(inside.clone().serve(agent));
        watch.failure("login refused").await;
        let node = watch.rack.node(&welcome.node.to_string()).unwrap();
        Self {
            bmc,
            watch,
            inside,
            server,
            node,
            agent,
            _dir: dir,
        }
    }

    /// One attempt.
    async fn attempt(&self, network: Option<BmcNetwork>, account: Option<&str>) -> Done {
        let store = self.watch.rack.store().clone();
        let hands = Appliance::new(self.watch.rack.clone(), store, None, Reach::default()).unwrap();
        let account = account.map(str::to_owned);
        let (task, _give_up) = task(&self.node, ActionKind::BmcSetUp { network, account });
        hands.carry_out(task).await
    }

    fn login(&self) -> Option<rackbar_store::BmcLogin> {
        self.watch.rack.store().bmc_login(self.node.id).unwrap()
    }

    /// Whoever had an account before has it still.
    async fn admin_is_as_before(&self) {
        let factory = SecretText("secret".into());
        self.watch.devices.open_with(HERE, "admin", &factory).await.unwrap();
    }

    async fn end(self) {
        self.watch.stop().await;
        self.server.stop().await;
        self.agent.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_takes_no_login_of_ours_gets_an_account_from_inside_and_is_driven() {
    let stage = Stage::set().await;
    assert_eq!(stage.watch.rack.node("SN-1").map(|node| node.power), None);
    let done = stage.attempt(None, Some("rackbar")).await;
    assert!(
        done.result.is_ok() && done.learned == [Learned::BmcAccount("rackbar".into())],
        "{done:?}"
    );
    let login = stage.login().unwrap();
    assert!(login.own && login.pending.is_none() && login.proven_at.is_some() && login.current.0.len() == 16);
    // It is watched from now on, without the wait that a refused login brings, and takes orders.
    let rack = &stage.watch.rack;
    rack.power(stage.node.id, PowerAction::Off, "test").await.unwrap();
    until_node(rack, "seen to be off", |node| node.power == PowerState::Off).await;
    let told: Vec<String> = rack
        .events(0, usize::MAX)
        .unwrap()
        .iter()
        .map(|event| event.kind.to_string())
        .collect();
    assert!(told.iter().all(|text| !text.contains(&login.current.0)), "{told:?}");
    assert!(!format!("{done:?}").contains(&login.current.0));
    // Once more changes nothing, and whoever else has an account keeps it.
    assert!(stage.attempt(None, Some("rackbar")).await.result.is_ok());
    assert_eq!(stage.login().unwrap().current, login.current);
    stage.admin_is_as_before().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_network_is_set_from_inside_and_read_back() {
    let stage = Stage::set().await;
    let network = BmcNetwork {
        name: "bmc".into(),
        address: Some(BmcAddress {
            address: Ipv4Addr::LOCALHOST,
            prefix: 24,
            gateway: Some(Ipv4Addr::new(127, 0, 0, 254)),
        }),
        vlan: Some(300),
    };
    // Without an account of ours all that can be shown is that it answers there.
    let done = stage.attempt(Some(network.clone()), None).await;
    let summary = done.result.unwrap().summary;
    assert!(
        summary.contains("answers at 127.0.0.1") && summary.contains("none of our logins"),
        "{summary}"
    );
    let lan = stage.bmc.state().lan();
    assert_eq!(
        (lan.prefix, lan.vlan, lan.gateway),
        (24, Some(300), Some(Ipv4Addr::new(127, 0, 0, 254)))
    );
    let before = stage.bmc.state().entries().len();
    assert!(stage.attempt(Some(network), Some("rackbar")).await.result.is_ok());
    let set = stage.bmc.state().entries().split_off(before);
    assert!(
        set.iter().all(|entry| !entry.message.contains("LAN")),
        "what is as wanted is not touched: {set:?}"
    );
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_after_any_question_the_next_try_ends_it_with_the_same_password() {
    let stage = Stage::set().await;
    let mut made = None;
    for questions in (0..40).step_by(3) {
        stage.inside.left.store(questions, Ordering::SeqCst);
        let done = stage.attempt(None, Some("rackbar")).await;
        let begun = stage.watch.rack.store().bmc_logins().unwrap();
        let [(_, begun)] = begun.as_slice() else {
            panic!("{begun:?}")
        };
        assert_eq!(
            *made.get_or_insert_with(|| begun.current.clone()),
            begun.current,
            "no second password is made"
        );
        match done.result {
            Ok(_) => break,
            Err(failure) => assert!(failure.again && stage.login().is_none(), "{}", failure.reason),
        }
    }
    stage.inside.left.store(u32::MAX, Ordering::SeqCst);
    // The appliance was killed between the login and its record: told over KCS, and proven only now.
    assert!(stage.attempt(None, Some("rackbar")).await.result.is_ok());
    assert_eq!(Some(stage.login().unwrap().current), made);
    assert_eq!(
        stage.bmc.state().failures("rackbar"),
        0,
        "our account came no nearer to its lock-out"
    );
    stage.admin_is_as_before().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_made_for_another_account_is_kept_beside_it() {
    let stage = Stage::set().await;
    let store = stage.watch.rack.store().clone();
    let told = rackbar_store::BmcLogin::told("admin", &SecretText("secret".into()));
    store.save_bmc_login(stage.node.id, &told).unwrap();
    store.begin_bmc_password(stage.node.id, 16).unwrap();
    let rotated = store
        .prove_bmc_password(stage.node.id, rackbar_model::Timestamp(1))
        .unwrap();
    assert!(stage.attempt(None, Some("rackbar")).await.result.is_ok());
    let all = store.bmc_logins().unwrap();
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all.contains(&(format!("{}/admin", stage.node.id), rotated)));
    stage.end().await;
}
