//! Boot documents over TLS, with a real client: what HTTPS boot gets, and what a machine that does not trust us is told.

#![allow(clippy::unwrap_used, reason = "a helper of tests: a panic is the failure")]

mod common;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

use common::tls;
use rackbar_artifacts::Artifacts;
use rackbar_control::{Handle, serve_boot};
use rackbar_messages::BootReport;
use rackbar_model::{EventKind, MacAddr};
use rackbar_services::http::Documents;
use rackbar_services::{BootDesk, BootReply, Common, EventSink};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

/// A desk that knows one script.
struct Desk;

impl BootDesk for Desk {
    fn script(&self, mac: MacAddr, _: IpAddr) -> BootReply {
        let body = format!("#!ipxe\n# {mac}\n").into();
        BootReply::Bytes {
            content_type: "text/plain",
            body,
        }
    }

    fn manifest(&self, _: MacAddr, _: [u8; 16], _: IpAddr) -> BootReply {
        BootReply::Refused {
            status: 403,
            text: "not for you".into(),
        }
    }

    fn report(&self, _: BootReport, _: IpAddr) {}
}

#[derive(Default)]
struct Seen(Mutex<Vec<(Option<MacAddr>, EventKind)>>);

impl EventSink for Seen {
    fn event(&self, mac: Option<MacAddr>, kind: EventKind) {
        self.0.lock().unwrap().push((mac, kind));
    }
}

struct Server {
    common: Common,
    handle: Handle,
    authority: PathBuf,
}

async fn serving(loader: &[u8], folder: &Path) -> (Server, Arc<Seen>) {
    let artifacts = Artifacts::new();
    let file = folder.join("loader.efi");
    std::fs::write(&file, loader).unwrap();
    artifacts.add_file("loader.efi", &file).unwrap();
    artifacts.add_bytes("boot-ca.cer", &b"der"[..]).unwrap();
    let seen = Arc::new(Seen::default());
    let common = Common::new(seen.clone());
    let documents = Documents::new(Arc::new(artifacts), Arc::new(Desk), common.clone());
    let (tls, _, ca) = tls();
    let authority = folder.join("ca.pem");
    std::fs::write(&authority, ca).unwrap();
    let handle = serve_boot("127.0.0.1:0".parse().unwrap(), tls, documents)
        .await
        .unwrap();
    let server = Server {
        common,
        handle,
        authority,
    };
    (server, seen)
}

async fn curl(server: &Server, trusting: bool, path: &str, more: &[&str]) -> Output {
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20"]);
    if trusting {
        curl.arg("--cacert").arg(&server.authority);
    }
    curl.args(more)
        .arg(format!("https://{}{path}", server.handle.addresses()[0]));
    curl.output().await.expect("curl is installed by cargo xtask setup")
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_gets_boot_documents_over_tls_without_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let loader: Vec<u8> = (0..700_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let (server, seen) = serving(&loader, folder.path()).await;
    let whole = curl(&server, true, "/boot/v1/loader.efi", &[]).await;
    assert!(whole.stdout == loader, "{} bytes, {whole:?}", whole.stdout.len());
    let part = curl(&server, true, "/boot/v1/loader.efi", &["--range", "699990-"]).await;
    assert_eq!(part.stdout, &loader[699_990..]);
    let head = curl(&server, true, "/boot/v1/loader.efi", &["--head"]).await;
    let head = String::from_utf8_lossy(&head.stdout).to_lowercase();
    assert!(
        head.contains("content-length: 700000") && head.contains("application/efi"),
        "{head}"
    );
    let ca = curl(&server, true, "/boot/v1/boot-ca.cer", &[]).await;
    assert_eq!(ca.stdout, b"der");
    let script = curl(&server, true, "/boot/v1/script.ipxe?mac=52-54-00-00-00-01", &[]).await;
    assert!(script.stdout.starts_with(b"#!ipxe"), "{script:?}");
    let refused = curl(
        &server,
        true,
        "/boot/v1/../api/v1/nodes",
        &["--path-as-is", "-w", "%{http_code}"],
    )
    .await;
    let refused = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(refused.ends_with("404") || refused.ends_with("401"), "{refused}");
    let told = seen.0.lock().unwrap();
    let sent = told.iter().any(|(mac, kind)| {
        matches!(kind, EventKind::HttpSent { what, status: 200, bytes: 700_000, .. } if what == "loader.efi")
            && mac.is_none_or(|mac| mac == MAC)
    });
    assert!(sent, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_boots_over_tls_at_an_address_on_an_uplink() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _) = serving(b"loader", folder.path()).await;
    server.common.outside.set(vec![server.handle.addresses()[0].ip()]);
    let refused = curl(&server, true, "/boot/v1/loader.efi", &[]).await;
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    server.common.outside.set(Vec::new());
    assert_eq!(curl(&server, true, "/boot/v1/loader.efi", &[]).await.stdout, b"loader");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_does_not_trust_the_site_has_it_in_its_timeline() {
    let folder = tempfile::tempdir().unwrap();
    let (server, seen) = serving(b"loader", folder.path()).await;
    // Nobody known is behind the address: nothing to tell of.
    assert!(!curl(&server, false, "/boot/v1/loader.efi", &[]).await.status.success());
    // A script's URL names the machine.
    let script = curl(&server, true, "/boot/v1/script.ipxe?mac=52-54-00-00-00-01", &[]).await;
    assert!(script.status.success(), "{script:?}");
    assert!(!curl(&server, false, "/boot/v1/loader.efi", &[]).await.status.success());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let words = loop {
        let notes: Vec<String> = seen
            .0
            .lock()
            .unwrap()
            .iter()
            .filter_map(|(mac, kind)| match kind {
                EventKind::Note { text, .. } if *mac == Some(MAC) => Some(text.clone()),
                _ => None,
            })
            .collect();
        if !notes.is_empty() {
            break notes;
        }
        assert!(std::time::Instant::now() < end, "nothing was told");
        tokio::task::yield_now().await;
    };
    assert_eq!(words.len(), 1, "{words:?}");
    assert!(
        words[0].contains("UnknownCA") && words[0].contains("boot-ca.cer"),
        "{words:?}"
    );
}
