//! A disc of the Red Hat family from the catalogue to the installed machine: the real executor, hands, desk and boot HTTP
//! service, and a simulated machine that boots, fetches its answers once, its packages from the disc, and tells its steps as
//! its kickstart file says. No Anaconda runs here.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;
#[path = "common/installing.rs"]
mod installing;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::*;
use installing::{Given, LONG, Stage, argument, booted, fetch, is_local_disk, leased};
use rackbar_model::{Digest, FirmwareMode};
use rackbar_plan::{RunId, Stand};
use rackbar_trust::sha256;

const SITE: &str = r#"
version = 1
[network.rack]
subnet = "127.0.0.0/8"
[role.worker]
os = "rocky-9"
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
const PACKAGE: &str = "BaseOS/Packages/l/libstdc++-11.4.1-3.el9~1.x86_64.rpm";

/// A disc as the vendor's: with packages, or such as only boots.
fn disc(packages: bool) -> Vec<u8> {
    let sum = |content: &[u8]| Digest(sha256(content));
    let treeinfo = format!(
        "[general]\nfamily = Rocky Linux\nversion = 9.4\narch = x86_64\n[checksums]\nimages/pxeboot/vmlinuz = sha256:{}\n\
         images/pxeboot/initrd.img = sha256:{}\n[stage2]\nmainimage = images/install.img\n[variant-BaseOS]\n\
         repository = BaseOS\n",
        sum(KERNEL),
        sum(INITRD)
    );
    let mut files = vec![
        ("images/pxeboot/vmlinuz", KERNEL),
        ("images/pxeboot/initrd.img", INITRD),
        ("images/install.img", &b"the installer proper"[..]),
    ];
    if packages {
        files.extend([
            (".treeinfo", treeinfo.as_bytes()),
            ("BaseOS/repodata/repomd.xml", b"<repomd/>"),
            (PACKAGE, b"0123456789"),
        ]);
    }
    installing::disc("Rocky-9-4-x86_64-dvd", &files)
}

async fn begun(folder: &Path, site: &str, disc: &[u8], patience: [Duration; 2]) -> Stage {
    let given = Given {
        packed: false,
        site,
        name: "rocky-9",
        content: disc,
        firmware: FirmwareMode::Uefi,
    };
    Stage::on(folder, given, None, patience).await
}

/// Runs the scripts of a section as Anaconda does, as far as they ask for something. Gives their exit status.
fn section(kickstart: &str, head: &str) -> Option<i32> {
    let lines = kickstart.split_once(&format!("\n{head}")).unwrap().1;
    let lines = lines.split_once('\n').unwrap().1.split_once("\n%end").unwrap().0;
    let shell = Command::new("sh").args(["-c", lines]).output().unwrap();
    shell.status.code()
}

/// Why the installation failed, once it has.
async fn failed(stage: &Stage, run: RunId) -> String {
    until("the action has failed", || {
        let run = stage.executor.run(run)?;
        run.actions.iter().find_map(|(id, stand)| match stand {
            _ if !id.0.ends_with("os.install") => None,
            Stand::Failed { reason, advice, .. } => Some(format!("{reason}; {advice}")),
            Stand::Again { reason, .. } => Some(reason.clone()),
            _ => None,
        })
    })
    .await
}

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
}

/// The file of a tree with options of curl's.
fn curl(url: &str, options: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "20"])
        .args(options)
        .arg(url)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_booted_and_fed_from_a_disc_in_a_data_pack() {
    let folder = tempfile::tempdir().unwrap();
    let disc = disc(true);
    let given = Given {
        packed: true,
        site: SITE,
        name: "rocky-9",
        content: &disc,
        firmware: FirmwareMode::Uefi,
    };
    let stage = Stage::on(folder.path(), given, None, LONG).await;
    stage.committed().await;
    leased(&stage);
    let script = stage.script(1);
    assert!(booted(&script) == [(200, KERNEL.to_vec()), (200, INITRD.to_vec())]);
    let tree = argument(&script, "inst.repo").to_owned();
    assert_eq!(
        curl(&format!("{tree}/{}", PACKAGE.replace('+', "%2B")), &["--range", "3-5"]),
        "345"
    );
    assert_eq!(
        curl(&format!("{tree}/images/install.img"), &["--range", "-6"]),
        "proper"
    );
    let (status, kickstart) = fetch("127.0.0.1", argument(&script, "inst.ks"));
    assert_eq!(status, 200);
    says(
        &String::from_utf8(kickstart).unwrap(),
        &[&format!("url --url={tree}\n")],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_installed_from_a_disc_and_nobody_else_gets_its_answers() {
    let folder = tempfile::tempdir().unwrap();
    let disc = disc(true);
    let stage = begun(folder.path(), SITE, &disc, LONG).await;
    let (node, run) = stage.committed().await;
    leased(&stage);
    assert!(
        stage.script(2).contains("rackbar.token="),
        "another machine gets our agent"
    );
    let script = stage.script(1);
    assert!(booted(&script) == [(200, KERNEL.to_vec()), (200, INITRD.to_vec())]);
    for content in [KERNEL, INITRD] {
        assert!(script.contains(&Digest(sha256(content)).to_string()), "{script}");
    }
    // The tree is the disc's, and nothing but the disc's.
    let tree = argument(&script, "inst.repo").to_owned();
    assert_eq!(
        tree,
        format!("http://{}/boot/v1/tree/{}", stage.address, Digest(sha256(&disc)))
    );
    assert!(
        !script.contains("inst.stage2=") && !script.contains("inst.proxy="),
        "{script}"
    );
    assert!(curl(&format!("{tree}/.treeinfo"), &[]).contains("family = Rocky Linux"));
    let package = format!("{tree}/{}", PACKAGE.replace('+', "%2B"));
    assert_eq!(curl(&package, &["--range", "3-5"]), "345");
    assert_eq!(
        curl(&format!("{tree}/images//install.img"), &["--range", "-6"]),
        "proper"
    );
    let head = curl(&package, &["--head"]);
    says(
        &head,
        &["200 OK", "Content-Length: 10", "Accept-Ranges: bytes", "ETag: "],
    );
    for path in [
        "images",
        "../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "rocky-9.json",
        "",
    ] {
        let url = format!("{tree}/{path}");
        let status = curl(&url, &["--path-as-is", "-o", "/dev/null", "-w", "%{http_code}"]);
        assert_eq!(status, "404", "{path}");
    }
    // The answers go to the machine, once.
    let url = argument(&script, "inst.ks").to_owned();
    assert_eq!(url.rsplit('/').next(), Some("ks.cfg"));
    let told = |step: &str| url.replace("ks.cfg", step);
    assert_eq!(fetch("127.0.0.8", &url).0, 403, "an address of nobody's");
    assert_eq!(fetch("127.0.0.1", &told("started")).0, 403, "it has no answers yet");
    let (status, kickstart) = fetch("127.0.0.1", &url);
    assert_eq!(status, 200);
    let kickstart = String::from_utf8(kickstart).unwrap();
    says(
        &kickstart,
        &[&format!("url --url={tree}\n"), "/boot/efi", "openssh-server"],
    );
    assert_eq!(fetch("127.0.0.8", &url).0, 409);
    assert!(
        stage.script(1).contains("rackbar.token="),
        "interrupted, it would get our agent"
    );
    // Its course. The disk that was planned is not in the machine that runs this test: the guard is not run.
    let before = kickstart.replace("rackbar_disk() {\n", "exit 0\nrackbar_disk() {\n");
    assert_eq!(section(&before, "%pre "), Some(0));
    stage.noted("the installer begins: it looks for its disk").await;
    assert_eq!(fetch("127.0.0.1", &url).0, 409, "it has begun with them");
    assert_eq!(fetch("127.0.0.8", &told("failed")).0, 403, "told by somebody else");
    assert_eq!(section(&kickstart, "%pre-install"), Some(0));
    stage.noted("the disk is partitioned: the packages follow").await;
    assert_eq!(curl(&package, &[]), "0123456789");
    assert_eq!(section(&kickstart, "%post --nochroot --interpreter"), Some(0));
    stage.noted("the packages are on the disk").await;
    assert_eq!(section(&kickstart, "%post --nochroot --erroronfail"), Some(0));
    assert!(is_local_disk(&stage.script(1)));
    until_node(&stage.rack, "ready", |node| node.state.name() == "ready").await;
    assert_eq!(fetch("127.0.0.1", &url).0, 404, "the action is over");
    let shown = stage.rack.node(&node.to_string()).unwrap();
    assert_eq!(shown.installed.as_ref().unwrap().image, "rocky-9");
    let ended = stage.executor.run(run).unwrap();
    let actions = format!("{:?}", ended.actions);
    says(&actions, &["1 requests to its disc went through us"]);
    let events = format!("{:?}", stage.timeline(node));
    let token = url.split('/').rev().nth(1).unwrap();
    assert!(!format!("{events}{ended:?}").contains(token));
    assert!(
        !events.contains("libstdc++"),
        "a machine fetches hundreds of packages: they are no events"
    );
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disc_that_lacks_a_package_and_an_installer_that_fails_end_in_words() {
    let disc = disc(true);
    let short = [Duration::from_secs(600), Duration::from_secs(1)];
    let folder = tempfile::tempdir().unwrap();
    let first = begun(folder.path(), SITE, &disc, short).await;
    let (_, run) = first.committed().await;
    let script = first.script(1);
    let (_, kickstart) = fetch("127.0.0.1", argument(&script, "inst.ks"));
    let kickstart = String::from_utf8(kickstart).unwrap();
    let tree = argument(&script, "inst.repo");
    assert_eq!(
        fetch("127.0.0.1", &format!("{tree}/images/updates.img")).0,
        404,
        "asked for, and not needed"
    );
    assert_eq!(
        fetch("127.0.0.1", &format!("{tree}/AppStream/Packages/r/rsyslog-8.rpm")).0,
        404
    );
    says(
        &failed(&first, run).await,
        &["its disc did not give rsyslog-8.rpm (HTTP 404", "vendor's whole disc"],
    );
    first.end().await;
    // The disk that was planned is not in the machine that runs this test: the guard says so.
    let folder = tempfile::tempdir().unwrap();
    let second = begun(folder.path(), SITE, &disc, LONG).await;
    let (node, run) = second.committed().await;
    let (_, other) = fetch("127.0.0.1", argument(&second.script(1), "inst.ks"));
    let other = String::from_utf8(other).unwrap();
    assert_ne!(other, kickstart);
    assert_eq!(section(&other, "%pre "), Some(1));
    section(&other, "%onerror");
    says(
        &failed(&second, run).await,
        &[
            "did not find exactly the disks that were planned",
            "touched none",
            "plan and commit again",
        ],
    );
    assert!(second.rack.node(&node.to_string()).unwrap().installed.is_none());
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disc_that_only_boots_installs_from_the_proxy_s_mirror() {
    let site = SITE.replace(
        "\"127.0.0.0/8\"\n",
        "\"127.0.0.0/8\"\nproxy = \"http://127.0.0.1:3128\"\n",
    );
    let folder = tempfile::tempdir().unwrap();
    let disc = disc(false);
    let stage = begun(folder.path(), &site, &disc, LONG).await;
    stage.committed().await;
    let script = stage.script(1);
    let mirror = "http://127.0.0.1:3128/mirror/rocky/9/BaseOS/x86_64/os";
    assert_eq!(argument(&script, "inst.repo"), mirror);
    let tree = argument(&script, "inst.stage2");
    assert!(
        tree.ends_with(&format!("/boot/v1/tree/{}", Digest(sha256(&disc)))),
        "{tree}"
    );
    assert_eq!(curl(&format!("{tree}/images/install.img"), &[]), "the installer proper");
    let (_, kickstart) = fetch("127.0.0.1", argument(&script, "inst.ks"));
    let kickstart = String::from_utf8(kickstart).unwrap();
    let app_stream = mirror.replace("BaseOS", "AppStream");
    says(
        &kickstart,
        &[
            &format!("url --url={mirror}\n"),
            &format!("repo --name=AppStream --baseurl={app_stream}\n"),
        ],
    );
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disc_that_only_boots_fetches_packages_alone_through_a_proxy_of_others() {
    let proxy = "http://127.0.0.2:3129";
    let said = format!("\"127.0.0.0/8\"\nproxy = \"{proxy}\"\nunasked = [\"proxy\"]\n");
    let site = SITE.replace("\"127.0.0.0/8\"\n", &said);
    let folder = tempfile::tempdir().unwrap();
    let stage = begun(folder.path(), &site, &disc(false), LONG).await;
    stage.committed().await;
    let script = stage.script(1);
    let archive = "http://upstream.example/rocky/9/BaseOS/x86_64/os";
    assert_eq!(argument(&script, "inst.repo"), archive);
    assert!(argument(&script, "inst.stage2").contains("/boot/v1/tree/"));
    assert!(
        !script.contains("inst.proxy"),
        "answers would be asked for by the proxy: {script}"
    );
    let (_, kickstart) = fetch("127.0.0.1", argument(&script, "inst.ks"));
    let kickstart = String::from_utf8(kickstart).unwrap();
    let app_stream = archive.replace("BaseOS", "AppStream");
    says(
        &kickstart,
        &[
            &format!("url --url={archive} --proxy={proxy}\n"),
            &format!("repo --name=AppStream --baseurl={app_stream} --install --proxy={proxy}\n"),
            "curl --noproxy '*'",
        ],
    );
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installer_goes_on_from_its_disc_through_a_restart_of_the_appliance() {
    let (folder, disc) = (tempfile::tempdir().unwrap(), disc(true));
    let given = Given {
        packed: false,
        site: SITE,
        name: "rocky-9",
        content: &disc,
        firmware: FirmwareMode::Bios,
    };
    let before = Stage::on(folder.path(), given, None, LONG).await;
    before.committed().await;
    let script = before.script(1);
    let url = argument(&script, "inst.ks").to_owned();
    assert_eq!(fetch("127.0.0.1", &url).0, 200);
    let address = before.address;
    before.rack.store().flush().unwrap();
    before.end().await;
    let stage = Stage::on(folder.path(), given, Some(address), LONG).await;
    let package = format!("{}/{PACKAGE}", argument(&script, "inst.repo"));
    assert_eq!(curl(&package, &["--range", "9-"]), "9");
    let step = |name: &str| fetch("127.0.0.1", &url.replace("ks.cfg", name)).0;
    assert_eq!(step("partitioned"), 200);
    // Still in the words of this installer.
    stage.noted("the disk is partitioned: the packages follow").await;
    assert_eq!(step("finished"), 200);
    until_node(&stage.rack, "ready", |node| node.state.name() == "ready").await;
    stage.end().await;
}
