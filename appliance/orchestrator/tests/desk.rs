//! What machines are told to boot, through the real HTTP service, fetched with curl.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use rackbar_artifacts::Artifacts;
use rackbar_boot::SiteScript;
use rackbar_messages::BootReport;
use rackbar_model::{BootStage, EventKind, Lease, LeaseState, Timestamp};
use rackbar_orchestrator::{Rack, Settings, Unknown};
use rackbar_services::http::{self, HttpConfig, HttpHandle, HttpLimits};
use rackbar_services::{BootDesk as _, Common, LeaseLog as _};
use rackbar_store::{Options, Store};

/// Loopback takes the part of the rack network, so that the script names the server curl asks.
fn loopback(scripts: Vec<SiteScript>) -> Settings {
    let mut settings = settings();
    settings.networks[0].address = Some([127, 0, 0, 1].into());
    settings.networks[0].prefix = 8;
    Settings { scripts, ..settings }
}

struct Http {
    rack: Rack,
    address: SocketAddr,
    handle: HttpHandle,
}

fn serve(settings: Settings) -> Http {
    let rack = rack(Store::in_memory(Options::default()).unwrap());
    rack.configure(settings);
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = HttpConfig {
        listen: vec![address],
        artifacts: Arc::new(Artifacts::new()),
        desk: Arc::new(desk(&rack, address.port())),
        limits: HttpLimits::default(),
    };
    let handle = http::start(config, Common::new(Arc::new(rack.clone()))).unwrap();
    Http { rack, address, handle }
}

impl Http {
    /// Status and script of the machine `n`.
    fn script(&self, n: u8) -> (u16, String) {
        let mac = mac(n).to_string().replace(':', "-");
        let url = format!("http://{}/boot/v1/script.ipxe?mac={mac}", self.address);
        let curl = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "20",
                "--write-out",
                "%{http_code}",
                &url,
            ])
            .output()
            .unwrap();
        let out = String::from_utf8(curl.stdout).unwrap();
        let (body, status) = out.split_at_checked(out.len().saturating_sub(3)).unwrap();
        (status.parse().unwrap(), body.to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_site_s_script_takes_the_place_of_ours_and_can_go_on_to_it() {
    let script = |mac, text: &str| SiteScript::new(mac, text).unwrap();
    let menu = script(
        None,
        "#!ipxe\nmenu Rack\nitem rackbar Inspect\nchoose what && goto ${what}\n",
    );
    let own = script(
        Some(mac(7)),
        "#!ipxe\nchain http://deploy.example/own.ipxe || goto rackbar\n",
    );
    let http = serve(loopback(vec![menu, own]));
    let (status, all) = http.script(1);
    assert_eq!(status, 200, "{all}");
    let begins = format!(
        "#!ipxe\nset rackbar-url http://{}\nset rackbar-mac {}\nmenu Rack\n",
        http.address,
        mac(1)
    );
    assert!(all.starts_with(&begins), "{all}");
    let ours = all.split_once("\nexit\n:rackbar\n").expect("our boot follows").1;
    assert!(ours.contains("rackbar.token=") && ours.contains("\nboot || "), "{ours}");
    assert!(http.script(7).1.contains("chain http://deploy.example/own.ipxe"));
    let (_, again) = http.script(1);
    assert_ne!(all, again, "every script has a token of its own");

    http.rack.configure(loopback(Vec::new()));
    let (status, plain) = http.script(1);
    assert!(status == 200 && plain.starts_with("#!ipxe\n:rackbar\n"), "{plain}");
    until_event(
        &http.rack,
        "it is told",
        |kind| matches!(kind, EventKind::HttpSent { what, status: 200, .. } if what == "script"),
    )
    .await;
    http.handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_the_site_excludes_gets_neither_script() {
    let all = SiteScript::new(None, "#!ipxe\necho hello\n").unwrap();
    let http = serve(Settings {
        unknown: Unknown::Listed(vec![mac(1)]),
        ..loopback(vec![all])
    });
    assert_eq!(http.script(1).0, 200);
    let (status, text) = http.script(2);
    assert!(status == 403 && text.contains("clients.unknown"), "{status} {text}");
    http.handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_gets_no_token_of_another_machine_and_does_not_report_for_it() {
    let http = serve(loopback(Vec::new()));
    let site = site();
    let server = Server::start(&site, http.rack.clone(), Duration::from_secs(600)).await;
    let (_one, first) = boot(&site, &server, &[mac(1)], machine(&[mac(1)], "S1", "u-1")).await;
    let (_two, _) = boot(
        &site,
        &server,
        &[mac(2), mac(3)],
        machine(&[mac(2), mac(3)], "S2", "u-2"),
    )
    .await;
    assert_eq!(http.script(1).0, 200, "nothing is known of the address it asks from");
    let lease = Lease {
        address: Ipv4Addr::LOCALHOST,
        network: "rack".into(),
        mac: mac(2),
        client_id: vec![],
        hostname: None,
        state: LeaseState::Bound,
        expires: Timestamp(u64::MAX),
    };
    http.rack.commit(&[lease]).unwrap();
    let (status, body) = http.script(1);
    assert!(status == 403 && body.contains("another machine"), "{status} {body}");
    // Its own, by whichever of its interfaces, and that of one that nobody knows yet.
    for own in [2, 3, 9] {
        assert_eq!(http.script(own).0, 200, "{own}");
    }
    let report = |n: u8, reason: &str| BootReport {
        version: rackbar_messages::PROTOCOL_VERSION,
        mac: mac(n),
        attempt: 1,
        stage: BootStage::Failed { reason: reason.into() },
    };
    let desk = desk(&http.rack, 80);
    desk.report(report(1, "forged"), Ipv4Addr::LOCALHOST.into());
    desk.report(
        report(2, &format!("real\u{0}{}", "x".repeat(60_000))),
        Ipv4Addr::LOCALHOST.into(),
    );
    let event = until_event(
        &http.rack,
        "the real one",
        |kind| matches!(kind, EventKind::Boot(BootStage::Failed { reason }) if reason.starts_with("real")),
    )
    .await;
    let EventKind::Boot(BootStage::Failed { reason }) = &event.kind else {
        panic!("{event:?}")
    };
    assert!(reason.len() == 256 && reason.starts_with("realx"), "{}", reason.len());
    http.rack.store().flush().unwrap();
    let told = http.rack.timeline(first.node).unwrap();
    assert!(
        !told.iter().any(|event| event.kind.to_string().contains("forged")),
        "{told:?}"
    );
    server.stop().await;
}
