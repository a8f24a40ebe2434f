//! Ubuntu Server's disc from the catalogue to the installed machine: the real executor, hands, desk and boot HTTP service, and
//! a simulated machine that boots, takes its whole disc, fetches its answers once and tells its steps. No subiquity runs here.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;
#[path = "common/installing.rs"]
mod installing;

use common::*;
use installing::{Given, LONG, Stage, argument, booted, fetch, is_local_disk, leased};
use rackbar_model::{Digest, FirmwareMode};
use rackbar_plan::Stand;
use rackbar_trust::sha256;

const SITE: &str = r#"
version = 1
[network.rack]
subnet = "127.0.0.0/8"
proxy = "http://127.0.0.1:3128"
[role.worker]
os = "ubuntu-24.04"
[[role.worker.network]]
name = "mgmt"
network = "rack"
nics = ["boot"]
[[rule]]
name = "all"
when = "true"
role = "worker"
"#;

const KERNEL: &[u8] = &[0x4b; 300_000];
const INITRD: &[u8] = &[0x49; 70_000];

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_installed_by_subiquity_and_nobody_else_gets_its_answers() {
    let folder = tempfile::tempdir().unwrap();
    let info = "Ubuntu-Server 24.04.2 LTS \"Noble Numbat\" - Release amd64 (20250217)\n";
    let files = [
        (".disk/info", info.as_bytes()),
        ("casper/vmlinuz", KERNEL),
        ("casper/initrd", INITRD),
    ];
    let disc = installing::disc("Ubuntu-Server 24.04.2 LTS amd64", &files);
    let given = Given {
        packed: false,
        site: SITE,
        name: "ubuntu-24.04",
        content: &disc,
        firmware: FirmwareMode::Bios,
    };
    let stage = Stage::on(folder.path(), given, None, LONG).await;
    let (node, run) = stage.committed().await;
    leased(&stage);
    let script = stage.script(1);
    assert!(booted(&script) == [(200, KERNEL.to_vec()), (200, INITRD.to_vec())]);
    // casper takes a disc whose name ends in `.iso`.
    let iso = argument(&script, "url");
    let digest = Digest(sha256(&disc)).to_string();
    assert!(iso.contains(&digest) && iso.ends_with(".iso"), "{iso}");
    assert!(fetch("127.0.0.1", iso) == (200, disc));
    let base = argument(&script, "ds")
        .strip_prefix("nocloud-net;s=")
        .unwrap()
        .to_owned();
    let ask = |from: &str, name: &str| fetch(from, &format!("{base}{name}"));
    // Whose it is may be asked for again, the answers may not.
    assert_eq!(ask("127.0.0.8", "meta-data").0, 403, "an address of nobody's");
    for _ in 0..2 {
        let (status, meta) = ask("127.0.0.1", "meta-data");
        assert_eq!(status, 200);
        assert!(String::from_utf8(meta).unwrap().contains("instance-id"));
    }
    assert_eq!(ask("127.0.0.1", "vendor-data").0, 404);
    assert_eq!(ask("127.0.0.8", "user-data").0, 403);
    let (status, answers) = ask("127.0.0.1", "user-data");
    assert_eq!(status, 200);
    let answers = String::from_utf8(answers).unwrap();
    assert!(
        answers.starts_with("#cloud-config\n") && answers.contains("/mirror/ubuntu"),
        "{answers}"
    );
    assert!(
        answers.contains("/run/rackbar/tell") && !answers.contains("PRIVATE KEY"),
        "{answers}"
    );
    assert_eq!(ask("127.0.0.1", "started").0, 200);
    stage.noted("the installer begins: it looks for its disk").await;
    assert_eq!(ask("127.0.0.1", "user-data").0, 409, "it has begun with them");
    assert_eq!(ask("127.0.0.8", "base").0, 403, "told by somebody else");
    assert_eq!(ask("127.0.0.1", "base").0, 200);
    assert_eq!(ask("127.0.0.1", "finished").0, 200);
    assert!(is_local_disk(&stage.script(1)));
    until_node(&stage.rack, "ready", |node| node.state.name() == "ready").await;
    assert_eq!(ask("127.0.0.1", "meta-data").0, 404, "the action is over");
    let shown = stage.rack.node(&node.to_string()).unwrap();
    assert_eq!(shown.installed.as_ref().unwrap().image, "ubuntu-24.04");
    let ended = stage.executor.run(run).unwrap();
    let done = |stand: &Stand| matches!(stand, Stand::Done { .. });
    assert!(ended.actions.values().all(done), "{:#?}", ended.actions);
    stage.end().await;
}
