//! SUSE's profiles: as written, well-formed, and with hostile text in them. There is no schema of either that a registry
//! carries.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::{base64, calls, embedded, full, hostile_install, plain, put, run, snapshot};
use proptest::prelude::*;
use rackbar_installers::{Install, NetBoot, Suse, SuseRelease, System, render};
use serde_json::Value;

fn suse(release: SuseRelease) -> System {
    System::Suse(Suse {
        release,
        source: "http://10.0.0.2/mirror/suse/dvd".parse().unwrap(),
        repositories: vec![("update".into(), "http://10.0.0.2/mirror/suse/update".parse().unwrap())],
    })
}

const RELEASES: [SuseRelease; 4] = [
    SuseRelease::Sles15,
    SuseRelease::Leap15,
    SuseRelease::Sles16,
    SuseRelease::Leap16,
];

/// One disk: a mirror is refused.
fn fit(mut install: Install) -> Install {
    install.target = plain().target;
    install
}

fn profile(install: &Install, release: SuseRelease) -> String {
    render(install, &suse(release)).unwrap().files.remove(0).content
}

fn json(content: &str) -> Value {
    serde_json::from_str(content).unwrap()
}

/// The elements of a document as JSON, read by libxml2 by way of Python: name, type, text, children.
fn xml(content: &str) -> Value {
    let reader = r#"
import json, sys, xml.etree.ElementTree as tree
def read(e):
    kind = e.get("{http://www.suse.com/1.0/configns}type", "")
    return [e.tag.split("}")[1], kind, "" if len(e) else (e.text or ""), [read(c) for c in e]]
print(json.dumps(read(tree.fromstring(sys.argv[1].encode()))))
"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("autoinst.xml");
    std::fs::write(&path, content).unwrap();
    run(Command::new("xmllint").args(["--noout", "--nonet"]).arg(&path));
    json(&run(Command::new("/usr/bin/python3").args(["-c", reader, content])))
}

/// The element at a path of names; of several, the one with this number.
fn at<'a>(element: &'a Value, path: &[(&str, usize)]) -> &'a Value {
    path.iter().fold(element, |element, (name, number)| {
        let children = element[3].as_array().unwrap().iter();
        let found = children.filter(|child| child[0] == *name).nth(*number);
        found.unwrap_or_else(|| panic!("no {name} in {element}"))
    })
}

fn said(element: &Value, name: &str) -> String {
    at(element, &[(name, 0)])[2].as_str().unwrap().to_owned()
}

#[test]
fn profiles_are_as_they_were_and_well_formed() {
    for (name, release) in [("sles-15", SuseRelease::Sles15), ("leap-15", SuseRelease::Leap15)] {
        for (kind, install) in [("plain", plain()), ("full", fit(full()))] {
            let content = profile(&install, release);
            xml(&content);
            snapshot(&format!("{name}-{kind}.xml"), &content);
        }
    }
    for (name, release) in [("sles-16", SuseRelease::Sles16), ("leap-16", SuseRelease::Leap16)] {
        for (kind, install) in [("plain", plain()), ("full", fit(full()))] {
            let content = profile(&install, release);
            json(&content);
            snapshot(&format!("{name}-{kind}.json"), &content);
        }
    }
}

#[test]
fn autoyast_gets_bond_vlan_and_addresses() {
    let document = xml(&profile(&fit(full()), SuseRelease::Sles15));
    let interface = |number| {
        at(
            &document,
            &[("networking", 0), ("interfaces", 0), ("interface", number)],
        )
    };
    assert_eq!(said(interface(0), "device"), "mgmt");
    assert_eq!(said(interface(0), "bootproto"), "dhcp");
    assert_eq!(
        (said(interface(1), "device"), said(interface(1), "bootproto")),
        ("port0".into(), "none".into())
    );
    assert_eq!(said(interface(3), "bonding_slave1"), "port1");
    assert_eq!(
        (said(interface(3), "ipaddr"), said(interface(3), "prefixlen")),
        ("10.1.0.5".into(), "24".into())
    );
    assert_eq!(
        (said(interface(4), "etherdevice"), said(interface(4), "vlan_id")),
        ("lan".into(), "20".into())
    );
    let rule = at(&document, &[("networking", 0), ("net-udev", 0), ("rule", 1)]);
    assert_eq!(rule[3][0][2], "port0");
    assert_eq!(rule[3][2][2], "02:00:00:00:00:02");
    let route = at(
        &document,
        &[("networking", 0), ("routing", 0), ("routes", 0), ("route", 0)],
    );
    assert_eq!(
        (said(route, "gateway"), said(route, "device")),
        ("10.1.0.1".into(), "lan".into())
    );
}

#[test]
fn the_found_disk_gets_into_autoyasts_profile() {
    let content = profile(&plain(), SuseRelease::Leap15);
    let document = xml(&content);
    let script = at(
        &document,
        &[("scripts", 0), ("pre-scripts", 0), ("script", 0), ("source", 0)],
    );
    let script = script[2].as_str().unwrap();
    run(Command::new("dash").args(["-n", "-c", script]));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("autoinst.xml"), &content).unwrap();
    let replace = script[script.find("sed \"s|").unwrap()..].replace("/tmp/profile", folder.path().to_str().unwrap());
    run(Command::new("dash").args(["-c", &format!("disk0=/dev/sdx\n{replace}")]));
    let document = xml(&std::fs::read_to_string(folder.path().join("modified.xml")).unwrap());
    let drive = at(&document, &[("partitioning", 0), ("drive", 0)]);
    assert_eq!(said(drive, "device"), "/dev/sdx");
}

#[test]
fn agama_uses_the_chosen_disk_and_goes_no_further_without_it() {
    let profile = json(&profile(&plain(), SuseRelease::Sles16));
    let drives = profile["storage"]["drives"].as_array().unwrap();
    assert_eq!(drives.len(), 1);
    let search = &drives[0]["search"];
    assert_eq!(search["condition"]["name"], "/dev/disk/by-id/wwn-0x5000c500a1b2c301");
    assert_eq!(search["ifNotFound"], "error");
    // Made-up disks: none fits, so the script says so and never ends.
    let guard = profile["scripts"]["pre"][0]["content"].as_str().unwrap();
    let guard = guard
        .replace("/sys/block", "/nowhere")
        .replace("/dev/console", "/dev/stdout");
    let guard = guard.replace("sleep 3600", "echo waits; exit 7");
    for shell in ["dash", "bash"] {
        let output = Command::new(shell).args(["-c", &guard]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(7), "{text}");
        assert_eq!(text, "rackbar: the install stops here\nwaits\n");
    }
    let good = "#!/bin/sh\n(\ntrue\n)".to_owned() + guard.split_once("\n)").unwrap().1;
    assert!(Command::new("dash").args(["-c", &good]).status().unwrap().success());
}

#[test]
fn what_suse_installers_cannot_do_is_refused_by_name() {
    for release in RELEASES {
        let refused = |change: fn(&mut Install)| {
            let mut install = fit(full());
            change(&mut install);
            render(&install, &suse(release)).unwrap_err().to_string()
        };
        let message = refused(|install| install.target = full().target);
        assert!(
            message.contains(": target: the installer cannot express a mirror"),
            "{message}"
        );
        assert!(refused(|install| install.packages = vec!["@core".into()]).contains("packages"));
        if matches!(release, SuseRelease::Sles15 | SuseRelease::Leap15) {
            let two = |install: &mut Install| {
                install.setup.networks[1].addresses = vec!["10.0.0.5/24".into(), "10.0.0.6/24".into()];
            };
            assert!(refused(two).starts_with("autoyast: setup.networks[1].addresses: "));
        }
    }
    let mut install = plain();
    install.target = rackbar_model::RootTarget::Disk(rackbar_model::DiskRef {
        serial: Some("S".into()),
        ..Default::default()
    });
    let message = render(&install, &suse(SuseRelease::Leap16)).unwrap_err().to_string();
    assert!(message.starts_with("agama: target.disks[0]: "), "{message}");
}

#[test]
fn the_installers_are_told_where_their_answers_are() {
    for (release, words) in [
        (
            SuseRelease::Sles16,
            &[
                "inst.auto=http://10.0.0.2/boot/v1/answers/0123abcd/profile.json",
                "inst.finish=reboot",
            ],
        ),
        (
            SuseRelease::Leap15,
            &[
                "autoyast=http://10.0.0.2/boot/v1/answers/0123abcd/autoinst.xml",
                "netsetup=dhcp",
            ],
        ),
    ] {
        let rendered = render(&fit(full()), &suse(release)).unwrap();
        let NetBoot::Linux { command_line, .. } = &rendered.boot else {
            panic!("{:?}", rendered.boot)
        };
        for word in words {
            assert!(command_line.split(' ').any(|other| other == *word), "{command_line}");
        }
        assert!(!format!("{rendered:?}").contains("0123abcd"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn hostile_text_never_changes_a_suse_profile(install in hostile_install(), which in 0..4usize) {
        let (release, install) = (RELEASES[which], fit(install));
        let Ok(rendered) = render(&install, &suse(release)) else { return Ok(()) };
        let content = &rendered.files[0].content;
        let model = profile(&fit(full()), release);
        let here = if matches!(release, SuseRelease::Sles15 | SuseRelease::Leap15) {
            let (read, model) = (xml(content), xml(&model));
            prop_assert_eq!(at(&read, &[("partitioning", 0)]), at(&model, &[("partitioning", 0)]));
            prop_assert_eq!(names(&read), names(&model));
            at(&read, &[("scripts", 0), ("chroot-scripts", 0), ("script", 0), ("source", 0)])[2].as_str().unwrap().to_owned()
        } else {
            let (read, model) = (json(content), json(&model));
            prop_assert_eq!(&read["storage"], &model["storage"]);
            prop_assert_eq!(read.as_object().unwrap().len(), model.as_object().unwrap().len());
            read["scripts"]["post"][1]["content"].as_str().unwrap().to_owned()
        };
        let calls = calls(&embedded(&here, "<<'RACKBAR'\n", "\nRACKBAR\n"));
        let role = &install.setup.files[0];
        let wanted = base64(&role.content);
        prop_assert_eq!(put(&calls, &role.path), Some(wanted.as_str()));
        let account = calls.iter().find(|call| call[0] == "account" && call[1] == "alice").unwrap();
        prop_assert_eq!(&account[2], &install.accounts[0].full_name);
    }
}

fn names(element: &Value) -> Vec<String> {
    let children = element[3].as_array().unwrap();
    children
        .iter()
        .map(|child| child[0].as_str().unwrap().to_owned())
        .collect()
}
