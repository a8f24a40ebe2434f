//! Windows' files: as written, well-formed, the script for Windows PE run by an engine of JavaScript with a WMI of ours, and
//! with hostile text in them. No reader of Microsoft's is in a registry.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{KEY, disk, full, host_key, hostile, hostile_install, plain, run, snapshot};
use proptest::prelude::*;
use rackbar_installers::{Install, NetBoot, Rendered, System, Windows, WindowsImage, WindowsShare, render};
use rackbar_model::{BondMode, DiskRef, FirmwareMode, RootTarget, SecretText};
use serde_json::{Value, json};

fn windows() -> Windows {
    Windows {
        image: WindowsImage::Name("Windows Server 2022 SERVERSTANDARD".into()),
        product_key: Some("AAAAA-BBBBB-CCCCC-DDDDD-12345".parse().unwrap()),
        language: "en-US".into(),
        source: "http://10.0.0.2/mirror/windows-2022".parse().unwrap(),
        wimboot: "http://10.0.0.2/boot/v1/wimboot".parse().unwrap(),
        share: WindowsShare {
            path: r"\\10.0.0.2\media\windows-2022".into(),
            user: "reader".into(),
            password: SecretText("Only-Reads.1".into()),
        },
        steps: Some("http://10.0.0.2/boot/v1/step/0123abcd/".parse().unwrap()),
    }
}

/// What Windows can be: one disk, no bonds or VLANs, no hashes of passwords, no packages, files or syslog.
fn fit(mut install: Install) -> Install {
    install.target = plain().target;
    install.root_password = None;
    install.packages.clear();
    install.kernel_arguments.clear();
    for account in &mut install.accounts {
        account.password = None;
    }
    let setup = &mut install.setup;
    setup.machine_id.clear();
    setup.files.clear();
    setup.syslog = None;
    for (network, mac) in setup.networks.iter_mut().zip(1..) {
        network.nics.truncate(1);
        network.nics[0].0[5] = mac;
        (network.bond, network.vlan, network.mtu) = (None, None, None);
    }
    install
}

fn rendered(install: &Install, system: &Windows) -> Rendered {
    render(install, &System::Windows(Box::new(system.clone()))).unwrap()
}

fn refused(install: &Install, system: &Windows) -> String {
    let system = System::Windows(Box::new(system.clone()));
    render(install, &system).unwrap_err().to_string()
}

fn file<'a>(rendered: &'a Rendered, name: &str) -> &'a str {
    let file = rendered.files.iter().find(|file| file.name == name).unwrap();
    &file.content
}

/// The elements of a document as JSON, read by expat by way of Python: name, attributes, text, children.
fn xml(content: &str) -> Value {
    let reader = r#"
import json, sys, xml.etree.ElementTree as tree
def read(e):
    return [e.tag, dict(e.attrib), "" if len(e) else (e.text or ""), [read(c) for c in e]]
print(json.dumps(read(tree.parse(sys.argv[1]).getroot())))
"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("autounattend.xml");
    std::fs::write(&path, content).unwrap();
    run(Command::new("xmllint").args(["--noout", "--nonet"]).arg(&path));
    let text = run(Command::new("/usr/bin/python3").args(["-c", reader]).arg(&path));
    serde_json::from_str(&text).unwrap()
}

/// Every text of a document with the path to it, by the names of elements and of passes and components.
fn texts(element: &Value, path: &str, all: &mut Vec<(String, String)>) {
    let name = element[0].as_str().unwrap().split('}').next_back().unwrap();
    let kind = ["name", "pass"].iter().find_map(|key| element[1][key].as_str());
    let path = format!(
        "{path}/{}",
        kind.map_or(name, |kind| kind.trim_start_matches("Microsoft-Windows-"))
    );
    let children = element[3].as_array().unwrap();
    if children.is_empty() {
        all.push((path, element[2].as_str().unwrap().to_owned()));
    } else {
        children.iter().for_each(|child| texts(child, &path, all));
    }
}

fn settings(answers: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    texts(&xml(answers), "", &mut all);
    all
}

fn said<'a>(settings: &'a [(String, String)], path: &str) -> Vec<&'a str> {
    let found = settings.iter().filter(|(name, _)| name.ends_with(path));
    found.map(|(_, text)| text.as_str()).collect()
}

fn decoded(text: &str) -> String {
    run(Command::new("sh").args(["-c", "printf %s \"$1\" | base64 -d", "sh", text]))
}

/// The script that the answer file carries.
fn script(answers: &str) -> String {
    decoded(said(&settings(answers), "/unattend/Rackbar")[0])
}

/// The calls of the script, each a list of words as PowerShell reads them. `'` ends a word unless it is there twice, and
/// whatever is no plain word, word in quotes, list or call of `Text` is not taken.
fn calls(script: &str) -> Vec<Vec<String>> {
    let body = script.split_once("function Work {\n").unwrap().1;
    let body = body.split_once("\n}\nfunction Failed {\n").unwrap().0;
    body.lines().map(|line| words(line.trim())).collect()
}

fn words(line: &str) -> Vec<String> {
    assert!(line.is_ascii(), "{line}");
    let mut words: Vec<String> = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        if let Some(text) = rest.strip_prefix("(Text '") {
            let (encoded, after) = text.split_once("')").unwrap();
            words.push(decoded(encoded));
            rest = after;
        } else if let Some(mut text) = rest.strip_prefix('\'') {
            let mut word = String::new();
            loop {
                let (part, after) = text.split_once('\'').unwrap();
                word.push_str(part);
                text = after;
                let Some(more) = text.strip_prefix('\'') else { break };
                word.push('\'');
                text = more;
            }
            words.push(word);
            rest = text;
        } else {
            let end = rest.find([' ', '\'']).unwrap_or(rest.len()).max(1);
            let (word, after) = rest.split_at(end);
            let plain = |c: char| c.is_ascii_alphanumeric() || "$=-@(),".contains(c);
            assert!(word.trim().chars().all(plain), "{line}");
            words.push(word.to_owned());
            rest = after;
        }
        rest = rest.trim_start_matches(' ');
    }
    words
}

fn call<'a>(calls: &'a [Vec<String>], name: &str) -> Vec<&'a [String]> {
    let found = calls.iter().filter(|call| call[0] == name);
    found.map(|call| &call[1..]).collect()
}

/// Runs the script for Windows PE where WMI has these disks. The answer file that it wrote, or what it said.
fn find(rendered: &Rendered, disks: &Value) -> Result<String, String> {
    let engine = r#"
var fs = require("fs"), folder = process.argv[1], disks = JSON.parse(process.argv[2]);
function at(path) { return folder + "/" + path.replace(/^X:\\/, "").replace(/\\/g, "_"); }
function GetObject(name) {
  if (name !== "winmgmts:\\\\.\\root\\cimv2") { throw new Error(name); }
  return { ExecQuery: function (query) { if (!/ FROM Win32_DiskDrive$/.test(query)) { throw new Error(query); } return disks; } };
}
function Enumerator(list) {
  var next = 0;
  this.atEnd = function () { return next >= list.length; };
  this.item = function () { return list[next]; };
  this.moveNext = function () { next += 1; };
}
function ActiveXObject() {
  this.OpenTextFile = function (path) {
    return { ReadAll: function () { return fs.readFileSync(at(path), "latin1"); }, Close: function () {} };
  };
  this.CreateTextFile = function (path) {
    return { Write: function (text) { fs.writeFileSync(at(path), text, "latin1"); }, Close: function () {} };
  };
}
var WScript = { Echo: function (text) { console.log(text); }, Quit: function (code) { process.exit(code); } };
"#;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(
        at("Windows_System32_autounattend.xml"),
        file(rendered, "autounattend.xml"),
    )
    .unwrap();
    let program = format!("{engine}{}", file(rendered, "rackbar.js"));
    let output = Command::new("node")
        .args(["-e", &program])
        .args([Path::new("--"), folder.path()])
        .arg(disks.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    let written = std::fs::read_to_string(at("rackbar.xml")).ok();
    match (output.status.code(), written) {
        (Some(0), Some(answers)) => Ok(answers),
        (Some(1), None) => Err(text),
        other => panic!("{other:?}: {text}"),
    }
}

fn drive(index: u32, serial: Option<&str>, bytes: u64) -> Value {
    // As Windows counts: whole cylinders.
    let cylinder = 255 * 63 * 512;
    let size = (bytes / cylinder * cylinder).to_string();
    json!({"Index": index, "SerialNumber": serial, "Size": size, "BytesPerSector": 512})
}

#[test]
fn windows_is_as_it_was_and_well_formed() {
    let mut least = windows();
    (least.image, least.product_key, least.steps) = (WindowsImage::Index(2), None, None);
    for (name, install, system) in [("plain", plain(), least), ("full", fit(full()), windows())] {
        let rendered = rendered(&install, &system);
        for (file, end) in rendered.files.iter().zip(["xml", "ini", "cmd", "js"]) {
            snapshot(&format!("windows-{name}.{end}"), &file.content);
        }
        let script = script(file(&rendered, "autounattend.xml"));
        snapshot(&format!("windows-{name}.ps1"), &script);
        let NetBoot::Ipxe { script, files } = &rendered.boot else {
            panic!("{:?}", rendered.boot)
        };
        snapshot(&format!("windows-{name}.ipxe"), script);
        assert_eq!(files, &["boot/bcd", "boot/boot.sdi", "sources/boot.wim"]);
        assert!(!format!("{rendered:?} {system:?}").contains("0123abcd"));
        assert!(!format!("{system:?}").contains("Only-Reads") && !format!("{system:?}").contains("BBBBB"));
    }
}

#[test]
fn setup_gets_disk_image_key_and_clock() {
    let answers = |install: &Install| settings(file(&rendered(install, &windows()), "autounattend.xml"));
    let uefi = answers(&fit(full()));
    for (path, wanted) in [
        ("/DiskID", &["RACKBAR_DISK0", "RACKBAR_DISK0"][..]),
        ("/CreatePartition/Type", &["EFI", "MSR", "Primary"]),
        ("/ModifyPartition/Format", &["FAT32", "NTFS"]),
        ("/InstallTo/PartitionID", &["3"]),
        ("/MetaData/Key", &["/IMAGE/NAME"]),
        ("/MetaData/Value", &["Windows Server 2022 SERVERSTANDARD"]),
        ("/ProductKey/Key", &["AAAAA-BBBBB-CCCCC-DDDDD-12345"]),
        ("/ComputerName", &["node-001"]),
        ("/TimeZone", &["W. Europe Standard Time"]),
        ("/PlainText", &["false"]),
    ] {
        assert_eq!(said(&uefi, path), wanted, "{path}");
    }
    for command in said(&uefi, "/RunSynchronousCommand/Path") {
        assert!(command.len() <= 255, "{}: {command}", command.len());
    }
    let mut install = fit(full());
    install.firmware = FirmwareMode::Bios;
    let bios = answers(&install);
    assert_eq!(said(&bios, "/CreatePartition/Type"), ["Primary", "Primary"]);
    assert_eq!(said(&bios, "/ModifyPartition/Active"), ["true"]);
    assert_eq!(said(&bios, "/InstallTo/PartitionID"), ["2"]);
}

#[test]
fn setup_gets_the_one_disk_that_was_planned_for_and_else_never_starts() {
    let gib = 1u64 << 30;
    let disks = json!([
        drive(0, Some("SN 0001 "), 480 * gib),
        drive(1, None, 0),
        drive(2, Some("0025_385B_0123_4567."), 960 * gib),
        drive(3, Some("TWICE"), 100 * gib),
        drive(4, Some("TWICE"), 200 * gib),
    ]);
    let of = |serial: Option<&str>, wwn: Option<&str>, gibs: Option<u64>| DiskRef {
        serial: serial.map(str::to_owned),
        wwn: wwn.map(str::to_owned),
        by_path: None,
        size_bytes: gibs.map(|gibs| gibs * gib),
    };
    let nvme = Some("eui.0025385b01234567");
    for (disk, wanted) in [
        (disk(1), Some("0")),
        (of(None, nvme, None), Some("2")),
        // Windows has another serial number of it than Linux.
        (of(Some("S4X9NF0M"), nvme, Some(960)), Some("2")),
        (of(Some("TWICE"), None, Some(200)), Some("4")),
        (of(Some("TWICE"), None, None), None),
        (of(Some("SN 0001"), None, Some(481)), None),
        (of(Some("SN 0001"), None, Some(479)), None),
        (of(Some("SN 0009"), None, None), None),
        (of(Some("sn 0001"), None, None), None),
    ] {
        let mut install = fit(full());
        install.target = RootTarget::Disk(disk.clone());
        let rendered = rendered(&install, &windows());
        match (find(&rendered, &disks), wanted) {
            (Ok(answers), Some(number)) => {
                let marked = file(&rendered, "autounattend.xml");
                assert_eq!(answers, marked.replace("RACKBAR_DISK0", number));
                assert_eq!(said(&settings(&answers), "/DiskID"), [number, number]);
            }
            (Err(said), None) => assert!(
                said.contains(
                    "disks are the one that was planned for; nothing is touched:\r\n  disk 0, serial number SN0001,"
                ),
                "{said}"
            ),
            (found, _) => panic!("{disk:?}: {found:?}"),
        }
    }
}

#[test]
fn the_script_for_windows_pe_has_only_words_of_its_old_engine() {
    let script = rendered(&fit(full()), &windows());
    for young in [
        "let ",
        "const ",
        "=>",
        "`",
        ".trim(",
        ".indexOf(",
        ".forEach(",
        ".map(",
        "JSON",
    ] {
        let code = file(&script, "rackbar.js")
            .lines()
            .filter(|line| !line.starts_with("//"));
        assert!(!code.collect::<String>().contains(young), "{young}");
    }
}

#[test]
fn the_first_start_sets_up_accounts_network_and_sshd() {
    let mut install = fit(full());
    install.setup.ssh_host_key = host_key();
    install.setup.networks[2].mtu = Some(1400);
    let rendered = rendered(&install, &windows());
    let calls = calls(&script(file(&rendered, "autounattend.xml")));
    let wanted = |name: &str, all: &[&[&str]]| assert_eq!(call(&calls, name), all, "{calls:?}");
    wanted("Account", &[&["ops", ""], &["alice", "Alice O'Hara"]]);
    wanted(
        "$nic",
        &[
            &["=", "Nic", "02-00-00-00-00-01", "mgmt"],
            &["=", "Nic", "02-00-00-00-00-02", "lan"],
            &["=", "Nic", "02-00-00-00-00-03", "storage"],
        ],
    );
    wanted(
        "Address",
        &[&["$nic", "10.1.0.5", "24"], &["$nic", "2001:db8:20::5", "64"]],
    );
    wanted("Gateway", &[&["$nic", "10.1.0.1"]]);
    wanted("Mtu", &[&["$nic", "1400"]]);
    wanted("Domain", &[&["rack.example"]]);
    wanted("Clock", &[&["10.1.0.2,0x8 ntp.rack.example,0x8"]]);
    wanted("Proxy", &[&["10.0.0.2:3128"]]);
    assert_eq!(call(&calls, "Resolvers")[0][2..], ["10.1.0.2", ",", "10.1.0.3", ")"]);
    assert_eq!(decoded(&call(&calls, "HostKey")[0][0]), install.setup.ssh_host_key.0);
    assert_eq!(decoded(&call(&calls, "Keys")[0][0]), format!("{KEY}\n"));
    // The password that the answer file has is the first thing to go, and the end is told last.
    assert_eq!(calls[0], ["Administrator"]);
    let told = |name: &str| decoded(&call(&calls, name)[0][0]);
    assert!(told("Tell").starts_with("url = \"http://10.0.0.2/boot/v1/step/0123abcd/base\"\n"));
    assert!(told("Done").starts_with("url = \"http://10.0.0.2/boot/v1/installed/0123abcd\"\nnoproxy = \"*\"\n"));
    assert_eq!(calls.last().unwrap()[0], "Done");
}

/// A change, and the field that it makes Windows refuse.
type Change = (fn(&mut Install), &'static str);

fn all_refused(changes: &[Change]) {
    for (change, field) in changes {
        let mut install = fit(full());
        change(&mut install);
        let message = refused(&install, &windows());
        assert!(message.starts_with(&format!("windows: {field}: ")), "{message}");
    }
}

#[test]
fn what_windows_cannot_do_is_refused_by_name() {
    all_refused(&[
        (|install| install.target = full().target, "target"),
        (|install| install.packages = vec!["tmux".into()], "packages"),
        (|install| install.setup.files = full().setup.files, "setup.files"),
        (
            |install| install.setup.machine_id = full().setup.machine_id,
            "setup.machine_id",
        ),
        (|install| install.setup.syslog = full().setup.syslog, "setup.syslog"),
        (|install| install.kernel_arguments = "quiet".into(), "kernel_arguments"),
        (|install| install.root_password = full().root_password, "root_password"),
        (|install| install.accounts = full().accounts, "accounts[0].password"),
        (|install| install.accounts[0].admin = false, "accounts[0].admin"),
        (
            |install| install.accounts[0].name = "administrator".into(),
            "accounts[0].name",
        ),
        (
            |install| install.setup.user = "a23456789012345678901".into(),
            "setup.user",
        ),
        (
            |install| install.setup.hostname = "node-0001-rack-01".into(),
            "setup.hostname",
        ),
        (|install| install.setup.hostname = "ops".into(), "setup.user"),
    ]);
}

#[test]
fn what_windows_cannot_say_of_clock_network_and_disk_is_refused_by_name() {
    all_refused(&[
        (
            |install| install.setup.proxy = Some("https://10.0.0.2:3128".into()),
            "setup.proxy",
        ),
        (
            |install| install.setup.timezone = Some("Europe/Atlantis".into()),
            "setup.timezone",
        ),
        (|install| install.locale = "sr_RS@latin".into(), "locale"),
        (|install| install.keyboard = "dvorak".into(), "keyboard"),
        (
            |install| install.setup.networks[1].vlan = Some(20),
            "setup.networks[1].vlan",
        ),
        (
            |install| install.setup.networks[2].mtu = Some(9000),
            "setup.networks[2].mtu",
        ),
        (
            |install| {
                install.setup.networks[0]
                    .nics
                    .push(rackbar_model::MacAddr([2, 0, 0, 0, 0, 9]));
                install.setup.networks[0].bond = Some(BondMode::ActiveBackup);
            },
            "setup.networks[0].bond",
        ),
        (
            |install| {
                install.setup.ssh_keys.clear();
                install.accounts.clear();
            },
            "setup.ssh_keys",
        ),
        (
            |install| {
                install.firmware = FirmwareMode::Bios;
                install.target = RootTarget::Disk(DiskRef {
                    size_bytes: Some(4 << 40),
                    ..disk(1)
                });
            },
            "target.disks[0].size_bytes",
        ),
    ]);
}

#[test]
fn a_medium_share_or_disk_that_setup_cannot_be_told_of_is_refused_by_name() {
    let only = |wwn: Option<&str>, by_path: Option<&str>| DiskRef {
        wwn: wwn.map(str::to_owned),
        by_path: by_path.map(str::to_owned),
        ..DiskRef::default()
    };
    for (disk, field) in [
        (only(Some("naa.5000c500a1b2c301"), None), "wwn"),
        (only(Some("eui.0025"), None), "wwn"),
        (only(None, Some("pci-0000:00:05.0")), "by_path"),
    ] {
        let mut install = fit(full());
        install.target = RootTarget::Disk(disk);
        let message = refused(&install, &windows());
        assert!(
            message.starts_with(&format!("windows: target.disks[0].{field}: ")),
            "{message}"
        );
    }
    type Change = (fn(&mut Windows), &'static str);
    let changes: [Change; 9] = [
        (|system| system.image = WindowsImage::Index(0), "image"),
        (|system| system.image = WindowsImage::Name("\u{e4}".into()), "image"),
        (|system| system.language = "english".into(), "language"),
        (|system| system.share.path = r"\\server".into(), "share.path"),
        (|system| system.share.path = r"\\server\a b".into(), "share.path"),
        (|system| system.share.user = "a\"b".into(), "share.user"),
        (|system| system.share.password.0.clear(), "share.password"),
        (|system| system.share.password.0 = "a%PATH%".into(), "share.password"),
        (|system| system.share.password.0 = "*".into(), "share.password"),
    ];
    for (change, field) in changes {
        let mut system = windows();
        change(&mut system);
        let message = refused(&fit(full()), &system);
        assert!(message.starts_with(&format!("windows: {field}: ")), "{message}");
        assert!(!message.contains("PATH"), "{message}");
    }
    for text in [
        "",
        "AAAAA-BBBBB",
        "AAAAA-BBBBB-CCCCC-DDDDD-1234\u{e4}",
        "aaaaa-bbbbb-ccccc-ddddd-eeeee",
    ] {
        assert!(text.parse::<rackbar_installers::ProductKey>().is_err(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_text_never_changes_a_windows_file(install in hostile_install(), more in hostile(), which in 0..12usize) {
        let install = fit(install);
        let mut system = windows();
        match which {
            0 => system.image = WindowsImage::Name(more),
            1 => system.share.path = format!(r"\\server\{more}"),
            2 => system.share.user = format!("a{more}"),
            3 => system.share.password.0 = format!("a{more}"),
            4 => system.language = more,
            _ => {}
        }
        let Ok(rendered) = render(&install, &System::Windows(Box::new(system.clone()))) else { return Ok(()) };
        let model = self::rendered(&fit(full()), &windows());
        let [answers, others] = [&rendered, &model].map(|rendered| settings(file(rendered, "autounattend.xml")));
        let names = |all: &[(String, String)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        prop_assert_eq!(names(&answers), names(&others));
        prop_assert!(file(&rendered, "autounattend.xml").is_ascii());
        if let WindowsImage::Name(name) = &system.image {
            prop_assert_eq!(said(&answers, "/MetaData/Value"), vec![name.as_str()]);
        }
        let scripts = [&rendered, &model].map(|rendered| script(file(rendered, "autounattend.xml")));
        prop_assert_eq!(scripts[0].lines().count(), scripts[1].lines().count());
        let [calls, others] = scripts.map(|script| calls(&script));
        let heads = |calls: &[Vec<String>]| calls.iter().map(|call| call[0].clone()).collect::<Vec<_>>();
        prop_assert_eq!(heads(&calls), heads(&others));
        let account = call(&calls, "Account")[1];
        prop_assert_eq!(account, ["alice".to_owned(), install.accounts[0].full_name.clone()]);
        let keys = decoded(&call(&calls, "Keys")[0][0]);
        let first = install.setup.ssh_keys[0].trim();
        prop_assert_eq!(keys.lines().next(), Some(first));
        prop_assert!(keys.lines().all(|line| line.starts_with("ssh-ed25519 ")), "{}", keys);
        let shares = |rendered: &Rendered| file(rendered, "rackbar.cmd").lines()
            .map(|line| line.split('"').step_by(2).collect::<String>()).collect::<Vec<_>>();
        prop_assert_eq!(shares(&rendered), shares(&model));
        prop_assert_eq!(file(&rendered, "rackbar.js"), file(&model, "rackbar.js"));
    }
}
