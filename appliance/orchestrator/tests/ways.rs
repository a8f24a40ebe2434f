//! Boot negotiation that ends at the BMC: it is given our URL and the machine is restarted, or its timeline says why not.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use rackbar_devices::{BootOverride, BootTarget, MediaDrive};
use rackbar_model::{BootWay, EventKind, FirmwareHabit, Lease, LeaseState, Node, PowerAction, PowerState, Timestamp};
use rackbar_orchestrator::bmc::{self, Answer, BmcDoor, BmcError, BootFrom};
use rackbar_orchestrator::ways::{self, Patience};
use rackbar_orchestrator::{BmcSight, Rack, Settings};
use rackbar_services::{EventSink as _, LeaseLog as _};
use rackbar_store::{Options, Store};
use tokio::sync::watch;

const BMC: [u8; 4] = [10, 10, 1, 50];

/// Our disc, where the BMC reaches us.
const DISC: &str = "http://10.10.1.1:8080/boot/v1/loader.iso";

/// A BMC that takes a boot URL, or is too old for it.
#[derive(Default)]
struct Bmc {
    too_old: bool,
    /// Has no virtual drive that can be booted from.
    no_cd: bool,
    image: Mutex<Option<String>>,
    looks: AtomicU32,
    asked: Mutex<Vec<String>>,
}

impl Bmc {
    fn image(&self) -> Option<String> {
        self.image.lock().unwrap().clone()
    }

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

    fn media(&self, _: IpAddr) -> Answer<'_, Vec<MediaDrive>> {
        self.looks.fetch_add(1, Relaxed);
        let image = self.image();
        let drive = MediaDrive {
            id: "Cd".into(),
            kinds: vec!["CD".into()],
            inserted: Some(image.is_some()),
            image,
            ours: true,
        };
        Box::pin(async { Ok(vec![drive]) })
    }

    fn set_media<'a>(&'a self, _: IpAddr, image: Option<&'a str>) -> Answer<'a, ()> {
        *self.image.lock().unwrap() = image.map(str::to_owned);
        let done = image.map_or_else(|| "empty".to_owned(), |image| format!("in {image}"));
        self.asked.lock().unwrap().push(done);
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
            if self.no_cd && from.target == BootTarget::Cd {
                return Err(BmcError::Refused("it boots from no CD".into()));
            }
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
    known_with(bmc, Patience::default()).await
}

async fn known_with(bmc: Arc<Bmc>, patience: Patience) -> (Rack, Arc<Node>, watch::Sender<bool>) {
    let rack = rack(Store::in_memory(Options::default()).unwrap());
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(bmc::run(rack.clone(), bmc, stopped.clone()));
    tokio::spawn(ways::run(rack.clone(), 8080, patience, stopped));
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
async fn a_bmc_is_given_what_the_site_boots_in_place_of_our_loader() {
    let bmc = Arc::new(Bmc::default());
    let (rack, _node, _stop) = known(bmc.clone()).await;
    rack.configure(Settings {
        uefi_url: Some("http://{server}:8080/boot/v1/snponly.efi".into()),
        ..settings()
    });
    rack.event(Some(mac(1)), given_up(BootWay::RedfishUrl));
    let asked = until("both asked", || Some(bmc.asked()).filter(|asked| asked.len() >= 2)).await;
    assert_eq!(asked, ["Http http://10.10.0.1:8080/boot/v1/snponly.efi", "Reset"]);
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

/// What DHCP records when it decides for virtual media.
fn led_by_disc(rack: &Rack) {
    learnt(rack, BootWay::VirtualMedia, false);
}

fn learnt(rack: &Rack, way: BootWay, proven: bool) {
    let habit = FirmwareHabit {
        mac: mac(1),
        arch: None,
        way,
        proven,
        given_up: vec![BootWay::Proxy],
        reason: None,
        seen: Timestamp(0),
    };
    rack.record_firmware(mac(1), Some(&habit));
}

/// The machine boots: its agent connects.
async fn boots(rack: &Rack) {
    let site = site();
    let server = Server::start(&site, rack.clone(), Duration::from_secs(60)).await;
    let _agent = boot(&site, &server, &[mac(1)], machine(&[mac(1)], "S1", "u-1")).await;
    until_node(rack, "its agent connected", |node| node.agent_connected).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_media_lead_a_machine_to_our_disc_and_it_is_taken_out_once_it_booted() {
    let bmc = Arc::new(Bmc::default());
    let (rack, _node, _stop) = known(bmc.clone()).await;
    led_by_disc(&rack);
    rack.event(Some(mac(1)), given_up(BootWay::VirtualMedia));
    let asked = until("restarted", || Some(bmc.asked()).filter(|asked| asked.len() >= 3)).await;
    assert_eq!(asked, [format!("in {DISC}"), "Cd ".to_owned(), "Reset".to_owned()]);
    boots(&rack).await;
    until("the drive is empty", || bmc.image().is_none().then_some(())).await;
    until_event(
        &rack,
        "it is told",
        |kind| matches!(kind, EventKind::Note { text, .. } if text == "virtual CD drive: empty"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disc_of_somebody_else_stays_in_and_one_that_led_nowhere_goes() {
    let says = |words: &'static str| move |kind: &EventKind| matches!(kind, EventKind::Note { text, .. } if text.contains(words));
    let soon = Patience {
        disc: Duration::from_millis(20),
        rest: Duration::from_secs(600),
        again: Duration::from_millis(5),
    };
    // Somebody put another one in while the machine was to boot from ours.
    let bmc = Arc::new(Bmc::default());
    let (rack, _node, _stop) = known(bmc.clone()).await;
    led_by_disc(&rack);
    rack.event(Some(mac(1)), given_up(BootWay::VirtualMedia));
    until("restarted", || Some(bmc.asked()).filter(|asked| asked.len() >= 3)).await;
    *bmc.image.lock().unwrap() = Some("http://192.0.2.9/rescue.iso".into());
    // What the first look led to is over when the second comes.
    for _ in 0..2 {
        let before = bmc.looks.load(Relaxed);
        boots(&rack).await;
        until("the drive is looked at", || {
            (bmc.looks.load(Relaxed) > before).then_some(())
        })
        .await;
    }
    assert_eq!(bmc.image().as_deref(), Some("http://192.0.2.9/rescue.iso"));

    let bmc = Arc::new(Bmc::default());
    let (rack, _node, _stop) = known_with(bmc.clone(), soon).await;
    rack.event(Some(mac(1)), given_up(BootWay::VirtualMedia));
    until_event(&rack, "that it did not boot", says("has not booted from our disc")).await;
    assert_eq!(bmc.image(), None);

    let bmc = Arc::new(Bmc {
        no_cd: true,
        ..Bmc::default()
    });
    let (rack, _node, _stop) = known_with(bmc.clone(), soon).await;
    rack.event(Some(mac(1)), given_up(BootWay::VirtualMedia));
    until_event(&rack, "why not", says("could not be given our disc")).await;
    until("taken out again", || bmc.image().is_none().then_some(())).await;
    assert!(!bmc.asked().contains(&"Reset".to_owned()), "not restarted either");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_its_bmc_led_before_is_led_again_at_its_first_question() {
    let bmc = Arc::new(Bmc::default());
    let (rack, _node, _stop) = known(bmc.clone()).await;
    // What was learnt while the site allowed it counts no more.
    learnt(&rack, BootWay::VirtualMedia, true);
    rack.event(Some(mac(1)), discover("rack"));
    until_event(
        &rack,
        "heard",
        |kind| matches!(kind, EventKind::DhcpDiscover { network, .. } if network == "rack"),
    )
    .await;
    rack.configure(Settings {
        ways: vec![BootWay::RedfishUrl],
        ..settings()
    });
    // A way that never led anywhere, or that needs no BMC, is no reason.
    learnt(&rack, BootWay::RedfishUrl, false);
    rack.event(Some(mac(1)), discover("rack"));
    learnt(&rack, BootWay::FullDhcp, true);
    rack.event(Some(mac(1)), discover("rack"));
    learnt(&rack, BootWay::RedfishUrl, true);
    rack.event(Some(mac(1)), discover("rack"));
    // What the boot by the URL asks itself is not another one.
    rack.event(Some(mac(1)), discover("rack"));
    until_event(
        &rack,
        "why",
        |kind| matches!(kind, EventKind::Note { text, .. } if text.contains("as before")),
    )
    .await;
    rack.event(Some(mac(1)), given_up(BootWay::VirtualMedia));
    let asked = until("both ways", || Some(bmc.asked()).filter(|asked| asked.len() >= 5)).await;
    let times = |what: &str| asked.iter().filter(|one| one.starts_with(what)).count();
    assert_eq!((times("Http "), times("Cd "), times("Reset")), (1, 1, 2), "{asked:?}");
}
