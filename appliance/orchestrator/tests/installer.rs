//! An installer of the catalogue from the plan to the installed machine: the real executor, hands, desk and boot HTTP
//! service, and a machine that fetches and does what it is told.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;
#[path = "common/installing.rs"]
mod installing;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::*;
use installing::{Given, LONG, Stage, argument, fetch, is_local_disk};
use rackbar_model::{FirmwareMode, Lease, LeaseState, Timestamp};
use rackbar_plan::Stand;
use rackbar_services::LeaseLog as _;

const SITE: &str = r#"
version = 1
[network.rack]
subnet = "127.0.0.0/8"
addresses = "127.0.1.20-127.0.1.60"
proxy = "http://127.0.0.1:3128"
[role.worker]
os = "debian-12-installer"
[[role.worker.network]]
name = "mgmt"
network = "rack"
nics = ["boot"]
[[rule]]
name = "all"
when = "true"
role = "worker"
"#;

const KERNEL: &[u8] = &[0x4b; 3_000_000];
const INITRD: &[u8] = &[0x49; 70_000];

async fn begun(folder: &Path, address: Option<SocketAddr>, patience: [Duration; 2]) -> Stage {
    let given = Given {
        packed: false,
        site: SITE,
        name: "debian-12-installer",
        content: &netboot(KERNEL, INITRD),
        firmware: FirmwareMode::Bios,
    };
    Stage::on(folder, given, address, patience).await
}

fn answer<'a>(preseed: &'a str, question: &str) -> &'a str {
    let line = preseed.lines().find(|line| line.contains(question)).unwrap();
    line.split_once(" string ").unwrap().1
}

/// Runs a command of the answers as the installer does, with its wget, and its folder of scripts somewhere else.
fn run(command: &str, scripts: &Path) {
    let wget = scripts.join("wget");
    if !wget.exists() {
        std::os::unix::fs::symlink("/bin/busybox", &wget).unwrap();
    }
    let command = command.replace("/usr/lib/", &format!("{}/", scripts.display()));
    let path = format!("{}:/usr/bin:/bin", scripts.display());
    let status = Command::new("sh")
        .args(["-e", "-c", &command])
        .env("PATH", path)
        .status();
    assert!(status.unwrap().success(), "{command}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_installed_by_its_installer_and_nobody_else_gets_its_answers() {
    let folder = tempfile::tempdir().unwrap();
    let stage = begun(folder.path(), None, LONG).await;
    let (node, run_id) = stage.committed().await;
    // Another machine gets our agent, this one its installer: files by digest out of the archive.
    assert!(stage.script(2).contains("rackbar.token="));
    let script = stage.script(1);
    assert!(!script.contains("rackbar.token="), "{script}");
    let files = script.lines().filter(|line| line.contains("/boot/v1/files/"));
    let files: Vec<Vec<u8>> = files
        .map(|line| line.split(' ').find(|word| word.starts_with("http://")).unwrap())
        .map(|url| fetch("127.0.0.1", url))
        .map(|(status, body)| (status == 200).then_some(body).unwrap())
        .collect();
    assert!(files[0] == KERNEL && files[1] == INITRD);
    let (url, bootif) = (argument(&script, "url"), argument(&script, "BOOTIF"));
    assert_eq!(bootif, format!("01-{}", mac(1).to_string().replace(':', "-")));
    assert_eq!(
        (argument(&script, "auto"), argument(&script, "console")),
        ("true", "ttyS0,115200")
    );
    let token = url.split('/').rev().nth(1).unwrap().to_owned();
    assert_eq!((token.len(), url.rsplit('/').next()), (64, Some("preseed.cfg")));
    // Not to an address that another machine has, then once.
    let lease = Lease {
        address: [127, 0, 0, 9].into(),
        network: "rack".into(),
        mac: mac(2),
        client_id: Vec::new(),
        hostname: None,
        state: LeaseState::Bound,
        expires: Timestamp(u64::MAX / 2),
    };
    stage.rack.commit(std::slice::from_ref(&lease)).unwrap();
    assert_eq!(fetch("127.0.0.9", url).0, 403);
    let own = Lease {
        address: [127, 0, 0, 1].into(),
        mac: mac(1),
        ..lease
    };
    stage.rack.commit(&[own]).unwrap();
    assert_eq!(fetch("127.0.0.8", url).0, 403, "an address of nobody's");
    let told = |step: &str| format!("/boot/v1/installer/{token}/{step}");
    assert_eq!(stage.get("127.0.0.1", &told("started")).0, 403, "it has no answers yet");
    let (status, preseed) = fetch("127.0.0.1", url);
    assert_eq!(status, 200);
    assert_eq!(fetch("127.0.0.8", url).0, 409, "given out");
    assert_eq!(
        fetch("127.0.0.1", url).0,
        200,
        "the same machine, whose answer may have been lost"
    );
    assert_eq!(
        stage
            .get(
                "127.0.0.1",
                &format!("/boot/v1/installer/{}/preseed.cfg", "0".repeat(64))
            )
            .0,
        404
    );
    let preseed = String::from_utf8(preseed).unwrap();
    assert_eq!(answer(&preseed, "mirror/http/hostname"), "127.0.0.1:3128");
    assert_eq!(answer(&preseed, "mirror/http/directory"), "/mirror/debian");
    // Interrupted, the machine would get our agent and not the answers a second time.
    assert!(stage.script(1).contains("rackbar.token="));
    // The installer's course, by the commands of its answers.
    let scripts = tempfile::tempdir().unwrap();
    run(answer(&preseed, "preseed/early_command"), scripts.path());
    stage.noted("the installer begins").await;
    assert_eq!(fetch("127.0.0.1", url).0, 409, "it has begun with them");
    let udeb = "/mirror/debian/pool/main/n/nano/nano-udeb_7.2_amd64.udeb";
    stage
        .rack
        .archive_answered([127, 0, 0, 1].into(), "/mirror/debian/dists/bookworm/Release", 200);
    stage
        .rack
        .archive_answered([127, 0, 0, 7].into(), "/mirror/debian/other.udeb", 404);
    stage.rack.archive_answered([127, 0, 0, 1].into(), udeb, 404);
    stage.noted("nano-udeb_7.2_amd64.udeb (HTTP 404").await;
    assert_eq!(stage.get("127.0.0.8", &told("disks")).0, 403, "told by somebody else");
    assert_eq!(stage.get("127.0.0.1", &told("disks")).0, 200);
    run("/usr/lib/base-installer.d/01rackbar", scripts.path());
    stage.noted("the disk is partitioned").await;
    run("/usr/lib/post-base-installer.d/99rackbar", scripts.path());
    let late = answer(&preseed, "preseed/late_command");
    run(late.rsplit_once(" && ").unwrap().1, scripts.path());
    // It restarts at once, and finds its disk whatever its firmware asks.
    assert!(is_local_disk(&stage.script(1)));
    until_node(&stage.rack, "ready", |node| node.state.name() == "ready").await;
    assert!(is_local_disk(&stage.script(1)));
    assert_eq!(fetch("127.0.0.1", url).0, 404, "the action is over");
    let shown = stage.rack.node(&node.to_string()).unwrap();
    let installed = shown.installed.as_ref().unwrap();
    assert!(installed.host_key.starts_with("ssh-ed25519 ") && installed.proved);
    assert_eq!(
        (installed.image.as_str(), installed.user.as_str()),
        ("debian-12-installer", "root")
    );
    // Its address is its own: no later plan gives it to another, and it keeps it.
    let given = [(node, vec![[127, 0, 1, 20].into()])];
    assert_eq!(stage.executor.given_addresses(), given);
    let run = stage.executor.run(run_id).unwrap();
    assert!(
        run.actions.values().all(|stand| matches!(stand, Stand::Done { .. })),
        "{:#?}",
        run.actions
    );
    let events = format!("{:?}", stage.timeline(node));
    for word in [
        "the machine was given the installer's kernel",
        "the installer has its answers, at 127.0.0.1",
        "127.0.0.8 asked for the installer's answers and was refused",
        "127.0.0.9 asked for the installer's answers and was refused",
        "base system is on the disk",
        "the system is on the disk",
        "installer preseed.cfg",
    ] {
        assert!(events.contains(word), "no {word:?} in {events}");
    }
    let everything = format!("{events}{:?}{run:?}", stage.rack.events(0, usize::MAX).unwrap());
    assert!(!everything.contains(&token) && !everything.contains("PRIVATE KEY"));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_of_others_the_archive_itself_is_asked_and_the_steps_are_heard() {
    let folder = tempfile::tempdir().unwrap();
    let site = SITE.replace(
        "proxy = \"http://127.0.0.1:3128\"",
        "proxy = \"http://127.0.0.2:3129\"\nunasked = [\"proxy\"]",
    );
    let given = Given {
        site: &site,
        name: "debian-12-installer",
        packed: false,
        content: &netboot(KERNEL, INITRD),
        firmware: FirmwareMode::Bios,
    };
    let stage = Stage::on(folder.path(), given, None, LONG).await;
    stage.committed().await;
    let script = stage.script(1);
    let (status, preseed) = fetch("127.0.0.1", argument(&script, "url"));
    let preseed = String::from_utf8(preseed).unwrap();
    assert_eq!(status, 200);
    assert_eq!(answer(&preseed, "mirror/http/hostname"), "upstream.example");
    assert_eq!(answer(&preseed, "mirror/http/directory"), "/debian");
    assert_eq!(answer(&preseed, "mirror/http/proxy"), "http://127.0.0.2:3129");
    assert!(!preseed.contains("/mirror/debian"), "{preseed}");
    let scripts = tempfile::tempdir().unwrap();
    run(answer(&preseed, "preseed/early_command"), scripts.path());
    stage.noted("the installer begins").await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installer_that_hangs_or_whose_archive_is_not_whole_ends_in_words() {
    for (patience, missing) in [
        ([Duration::from_secs(600), Duration::from_secs(1)], true),
        ([Duration::from_secs(6), Duration::from_secs(600)], false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let stage = begun(folder.path(), None, patience).await;
        let (node, run_id) = stage.committed().await;
        let script = stage.script(1);
        let (_, preseed) = fetch("127.0.0.1", argument(&script, "url"));
        let scripts = tempfile::tempdir().unwrap();
        let preseed = String::from_utf8(preseed).unwrap();
        run(answer(&preseed, "preseed/early_command"), scripts.path());
        if missing {
            let udeb = "/mirror/debian/pool/main/p/partman/partman-base_1_amd64.udeb";
            stage.rack.archive_answered([127, 0, 0, 1].into(), udeb, 404);
        }
        let failed = until("the action has failed", || {
            let run = stage.executor.run(run_id)?;
            run.actions.iter().find_map(|(id, stand)| match stand {
                _ if !id.0.ends_with("os.install") => None,
                Stand::Failed { reason, advice, .. } => Some(format!("{reason}; {advice}")),
                Stand::Again { reason, .. } => Some(reason.clone()),
                _ => None,
            })
        })
        .await;
        let words: &[&str] = if missing {
            &[
                "partman-base_1_amd64.udeb (HTTP 404",
                "[[proxy.mirror]]",
                "it fetches what it consists of",
            ]
        } else {
            &[
                "nothing was heard of the installer for",
                "it fetches what it consists of",
            ]
        };
        for word in words {
            assert!(failed.contains(word), "no {word:?} in {failed}");
        }
        let shown = stage.rack.node(&node.to_string()).unwrap();
        assert!(shown.installed.is_none());
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installer_goes_on_through_a_restart_of_the_appliance() {
    let folder = tempfile::tempdir().unwrap();
    let stage = begun(folder.path(), None, LONG).await;
    let (_, _) = stage.committed().await;
    let script = stage.script(1);
    let url = argument(&script, "url").to_owned();
    assert_eq!(fetch("127.0.0.1", &url).0, 200);
    let address = stage.address;
    stage.rack.store().flush().unwrap();
    stage.end().await;
    let stage = begun(folder.path(), Some(address), LONG).await;
    let step = |name: &str| fetch("127.0.0.1", &url.replace("preseed.cfg", name)).0;
    assert_ne!(fetch("127.0.0.8", &url).0, 200);
    assert_eq!([step("started"), step("base"), step("finished")], [200; 3]);
    until_node(&stage.rack, "ready", |node| node.state.name() == "ready").await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installer_that_has_finished_says_so_until_that_is_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let stage = begun(folder.path(), None, LONG).await;
    let (node, _) = stage.committed().await;
    let script = stage.script(1);
    let url = argument(&script, "url").to_owned();
    assert_eq!(fetch("127.0.0.1", &url).0, 200);
    let address = stage.address;
    let step = |name: &str| fetch("127.0.0.1", &url.replace("preseed.cfg", name)).0;
    assert_eq!(step("base"), 200);
    stage.rack.store().flush().unwrap();
    stage.rack.store().cut_power_after(0);
    assert_eq!(step("finished"), 503, "a status that curl tries again after");
    assert!(
        !is_local_disk(&stage.script(1)),
        "nothing counts that a power cut would undo"
    );
    stage.end().await;
    let stage = begun(folder.path(), Some(address), LONG).await;
    let shown = stage.rack.node(&node.to_string()).unwrap();
    assert!(shown.installed.is_none());
    assert_eq!(step("finished"), 200);
    until_node(&stage.rack, "ready", |node| node.state.name() == "ready").await;
    stage.end().await;
}
