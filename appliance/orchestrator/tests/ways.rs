//! Boot negotiation that ends at the BMC: it is given our URL and the machine is restarted, or its timeline says why not.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use common::*;
use rackbar_devices::{BootOverride, BootTarget};
use rackbar_model::{BootWay, EventKind, Lease, LeaseState, Node, PowerAction, PowerState, Timestamp};
use rackbar_orchestrator::bmc::{self, Answer, BmcDoor, BmcError, BootFrom};
use rackbar_orchestrator::{BmcSight, Rack, ways};
use rackbar_services::{EventSink as _, LeaseLog as _};
use rackbar_store::{Options, Store};
use tokio::sync::watch;

const BMC: [u8; 4] = [10, 10, 1, 50];

/// A BMC that takes a boot URL, or is too old for it.
#[derive(Default)]
struct Bmc {
    too_old: bool,
    asked: Mutex<Vec<String>>,
}

impl Bmc {
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl BmcDoor for Bmc {
    fn look(&self, _: IpAddr) -> Answer<'_, BmcSight> {
        let sight = BmcSight {
            speaks: vec!["redfish".into()],
            mac: Some(mac(101)),
            nic_macs: vec![mac(1)],
            serial: Some("S1".into()),
            power: PowerState::On,
            ..BmcSight::default()
        };
        Box::pin(async { Ok(sight) })
    }

    fn power(&self, _: IpAddr) -> Answer<'_, PowerState> {
        Box::pin(async { Ok(PowerState::On) })
    }

    fn act(&self, _: IpAddr, action: PowerAction) -> Answer<'_, ()> {
        self.asked.lock().unwrap().push(format!("{action:?}"));
        Box::pin(async { Ok(()) })
    }

    fn boot_override(&self, _: IpAddr) -> Answer<'_, BootOverride> {
        Box::pin(async {
            Ok(BootOverride {
                target: BootTarget::Http,
                once: true,
                mode: None,
                url: None,
            })
        })
    }

    fn boot_once<'a>(&'a self, _: IpAddr, from: &'a BootFrom) -> Answer<'a, ()> {
        Box::pin(async move {
            if self.too_old {
                return Err(BmcError::Refused("it has no HttpBootUri".into()));
            }
            let url = from.url.clone().unwrap_or_default();
            self.asked.lock().unwrap().push(format!("{:?} {url}", from.target));
            Ok(())
        })
    }
}

/// A rack whose one machine is known by its BMC.
async fn known(bmc: Arc<Bmc>) -> (Rack, Arc<Node>, watch::Sender<bool>) {
    let rack = rack(Store::in_memory(Options::default()).unwrap());
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(bmc::run(rack.clone(), bmc, stopped.clone()));
    tokio::spawn(ways::run(rack.clone(), 8080, stopped));
    rack.event(Some(mac(101)), discover("bmc"));
    let lease = Lease {
        address: BMC.into(),
        network: "bmc".into(),
        mac: mac(101),
        client_id: vec![],
        hostname: None,
        state: LeaseState::Bound,
        expires: Timestamp(u64::MAX),
    };
    rack.commit(&[lease]).unwrap();
    let node = until_node(&rack, "found by its BMC", |node| node.bmc_address == Some(BMC.into())).await;
    (rack, node, stop)
}

fn given_up(to: BootWay) -> EventKind {
    EventKind::WayChanged {
        from: BootWay::Proxy,
        to,
        reason: "2 proxy offers and no request".into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firmware_that_takes_no_offer_is_given_our_url_by_its_bmc_and_restarted() {
    let bmc = Arc::new(Bmc::default());
    let (rack, _node, _stop) = known(bmc.clone()).await;
    rack.event(Some(mac(1)), given_up(BootWay::FullDhcp));
    rack.event(Some(mac(1)), given_up(BootWay::RedfishUrl));
    let asked = until("both asked", || Some(bmc.asked()).filter(|asked| asked.len() >= 2)).await;
    assert_eq!(asked, ["Http http://10.10.0.1:8080/boot/v1/loader.efi", "Reset"]);
    until_event(
        &rack,
        "who asked",
        |kind| matches!(kind, EventKind::PowerRequested { by, .. } if by == "boot negotiation"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_cannot_and_a_machine_at_work_are_left_alone_and_told() {
    let bmc = Arc::new(Bmc {
        too_old: true,
        ..Bmc::default()
    });
    let (rack, _node, _stop) = known(bmc.clone()).await;
    rack.event(Some(mac(1)), given_up(BootWay::RedfishUrl));
    let says = |words: &'static str| move |kind: &EventKind| matches!(kind, EventKind::Note { text, .. } if text.contains(words));
    until_event(&rack, "why not", says("it has no HttpBootUri")).await;
    assert_eq!(bmc.asked(), Vec::<String>::new(), "not restarted either");

    let bmc = Arc::new(Bmc::default());
    let (rack, _node, _stop) = known(bmc.clone()).await;
    let site = site();
    let server = Server::start(&site, rack.clone(), std::time::Duration::from_secs(60)).await;
    let (_agent, _) = boot(&site, &server, &[mac(1)], machine(&[mac(1)], "S1", "u-1")).await;
    rack.event(Some(mac(1)), given_up(BootWay::RedfishUrl));
    until_event(&rack, "why not", says("its work is not to be broken off")).await;
    assert_eq!(bmc.asked(), Vec::<String>::new());
    server.stop().await;
}
