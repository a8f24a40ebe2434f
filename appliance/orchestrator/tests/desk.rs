//! What machines are told to boot, through the real HTTP service, fetched with curl.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use common::*;
use rackbar_artifacts::Artifacts;
use rackbar_boot::SiteScript;
use rackbar_model::EventKind;
use rackbar_orchestrator::{Rack, Settings, Unknown};
use rackbar_services::Common;
use rackbar_services::http::{self, HttpConfig, HttpHandle, HttpLimits};
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
