//! Ignition's configurations: as written, as Ignition, NetworkManager and systemd read them, and with hostile text.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{full, hostile_install, plain, run, snapshot};
use proptest::prelude::*;
use rackbar_installers::{Ignition, IgnitionKind, Install, NetBoot, System, ignition_config, render};
use rackbar_model::RootTarget;
use serde_json::Value;

fn fedora() -> Ignition {
    Ignition {
        kind: IgnitionKind::FedoraCoreos,
        version: "42.20250914.3.0".into(),
        source: "http://10.0.0.2/mirror/fcos/42.20250914.3.0/x86_64".parse().unwrap(),
    }
}

fn flatcar() -> Ignition {
    Ignition {
        kind: IgnitionKind::Flatcar,
        version: "4230.2.2".into(),
        source: "http://10.0.0.2/mirror/flatcar/stable/amd64-usr".parse().unwrap(),
    }
}

/// What these systems can be: no packages, no locale, and Flatcar on one disk.
fn fit(mut install: Install, system: &Ignition) -> Install {
    if install.locale == "en_US.UTF-8" {
        install.locale = "C.UTF-8".into();
    }
    if install.packages == ["tmux", "libstdc++6"] {
        install.packages.clear();
    }
    if system.kind == IgnitionKind::Flatcar {
        install.target = plain().target;
    }
    install
}

fn cases() -> Vec<(String, Install, Ignition)> {
    let mut all = Vec::new();
    for (os, system) in [("fcos", fedora()), ("flatcar", flatcar())] {
        for (name, install) in [("plain", plain()), ("full", full())] {
            all.push((format!("{os}-{name}"), fit(install, &system), system.clone()));
        }
    }
    all
}

/// Ignition's own judgement: that it reads it, and that it has nothing to say.
fn ignition_accepts(content: &str) {
    let output = validate(content);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && said.is_empty(), "{said}\n{content}");
}

fn validate(content: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.ign");
    std::fs::write(&path, content).unwrap();
    let mut command = Command::new("ignition-validate");
    command
        .arg(&path)
        .output()
        .expect("ignition-validate of Debian's package ignition")
}

fn parse(content: &str) -> Value {
    serde_json::from_str(content).unwrap()
}

/// Path, mode and content of each file.
fn files(config: &Value) -> Vec<(String, u64, String)> {
    let list = config["storage"]["files"].as_array().unwrap();
    list.iter()
        .map(|file| {
            let source = file["contents"]["source"].as_str().unwrap();
            let data = source.strip_prefix("data:;base64,").unwrap();
            let content = run(Command::new("sh").args(["-c", "printf %s \"$1\" | base64 -d", "sh", data]));
            (
                file["path"].as_str().unwrap().to_owned(),
                file["mode"].as_u64().unwrap(),
                content,
            )
        })
        .collect()
}

fn file(config: &Value, path: &str) -> Option<String> {
    files(config).into_iter().find(|file| file.0 == path).map(|file| file.2)
}

fn unit(config: &Value, name: &str) -> String {
    let units = config["systemd"]["units"].as_array().unwrap();
    let unit = units.iter().find(|unit| unit["name"] == name).unwrap();
    unit["contents"].as_str().unwrap().to_owned()
}

#[test]
fn ignition_is_as_it_was_and_ignition_validate_has_nothing_to_say() {
    for (name, install, system) in cases() {
        let rendered = render(&install, &System::Ignition(system.clone())).unwrap();
        let names: Vec<&str> = rendered.files.iter().map(|file| file.name).collect();
        assert_eq!(names, ["live.ign", "system.ign"]);
        let [live, installed] = [0, 1].map(|index| rendered.files[index].content.clone());
        ignition_accepts(&live);
        ignition_accepts(&installed);
        assert_eq!(
            file(&parse(&live), "/etc/rackbar/system.ign").as_deref(),
            Some(installed.as_str())
        );
        assert_eq!(ignition_config(&install, &system).unwrap().content, installed);
        snapshot(&format!("{name}.ign"), &readable(&installed));
        snapshot(
            &format!("{name}-install.sh"),
            &file(&parse(&live), "/etc/rackbar/install").unwrap(),
        );
    }
    // It also is one that says no.
    assert!(
        !validate(r#"{"ignition": {"version": "3.3.0"}, "storage": {"files": [{"path": "x"}]}}"#)
            .status
            .success()
    );
}

/// The configuration with the files' content as text, for people.
fn readable(content: &str) -> String {
    let mut config = parse(content);
    let contents = files(&config);
    for (index, (_, mode, content)) in contents.into_iter().enumerate() {
        let file = &mut config["storage"]["files"][index];
        file["contents"] = content.lines().map(str::to_owned).collect::<Vec<_>>().into();
        file["mode"] = format!("{mode:04o}").into();
    }
    config.sort_all_objects();
    serde_json::to_string_pretty(&config).unwrap() + "\n"
}

/// NetworkManager's library: reads each file of a list, checks it, and writes what it understood.
const NETWORK_MANAGER: &str = r#"
import json, sys, gi
gi.require_version("NM", "1.0")
from gi.repository import GLib, NM
read = []
def handler(*arguments):
    sys.exit("NetworkManager warns: " + str(arguments))
for text in json.loads(sys.argv[1]):
    file = GLib.KeyFile()
    file.load_from_data(text, len(text.encode()), GLib.KeyFileFlags.NONE)
    connection = NM.keyfile_read(file, "/", NM.KeyfileHandlerFlags.NONE, handler, None)
    assert connection.verify() and connection.normalize(None)
    read.append(NM.keyfile_write(connection, NM.KeyfileHandlerFlags.NONE, None, None).to_data()[0])
print(json.dumps(read))
"#;

fn network_manager(files: &[&str]) -> Output {
    let list = serde_json::to_string(files).unwrap();
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", NETWORK_MANAGER, &list]).output().unwrap()
}

#[test]
fn network_manager_reads_every_connection() {
    for (_, install, system) in cases() {
        let config = parse(&ignition_config(&install, &system).unwrap().content);
        let all = files(&config);
        let keyfiles: Vec<_> = all
            .iter()
            .filter(|file| file.0.contains("/system-connections/"))
            .collect();
        assert_eq!(keyfiles.is_empty(), system.kind == IgnitionKind::Flatcar);
        assert!(keyfiles.iter().all(|file| file.1 == 0o600));
        let texts: Vec<&str> = keyfiles.iter().map(|file| file.2.as_str()).collect();
        let output = network_manager(&texts);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(read.len(), texts.len());
        for (ours, theirs) in texts.iter().zip(&read) {
            for line in ours.lines().filter(|line| line.contains('=')) {
                // A value that it did not understand would be missing.
                assert!(
                    theirs.lines().any(|other| same(line, other)),
                    "{line}\n{ours}\n{theirs}"
                );
            }
        }
    }
    assert!(
        !network_manager(&["[connection]\nid=a\nuuid=x\ntype=vlan\n"])
            .status
            .success()
    );
}

/// NetworkManager writes MAC addresses in capitals and the gateway behind the first address.
fn same(ours: &str, theirs: &str) -> bool {
    let gateway = ours
        .strip_prefix("gateway=")
        .is_some_and(|gateway| theirs.ends_with(&format!(",{gateway}")));
    gateway || theirs.eq_ignore_ascii_case(ours) || theirs.starts_with(&format!("{ours},"))
}

#[test]
fn systemd_reads_every_unit() {
    for (_, install, system) in cases() {
        let rendered = render(&install, &System::Ignition(system)).unwrap();
        for answer in &rendered.files {
            let config = parse(&answer.content);
            for unit in config["systemd"]["units"].as_array().into_iter().flatten() {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join(unit["name"].as_str().unwrap());
                std::fs::write(&path, unit["contents"].as_str().unwrap()).unwrap();
                let output = Command::new("systemd-analyze")
                    .arg("verify")
                    .arg(&path)
                    .output()
                    .unwrap();
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                let about = said
                    .lines()
                    .filter(|line| line.contains("rackbar-"))
                    .collect::<Vec<_>>();
                assert!(output.status.success() && about.is_empty(), "{said}");
            }
        }
    }
}

/// Programs in a folder of their own, each of which says how it was called and ends as it is told.
fn stubs(folder: &Path, programs: &[(&str, i32)]) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    for (name, code) in programs {
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho {name} \"$@\"\nexit {code}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    format!("{}:/usr/bin:/bin", folder.display())
}

#[test]
fn we_are_told_and_the_machine_restarts_only_when_the_image_is_written() {
    let wanted = |system: &Ignition| match system.kind {
        IgnitionKind::FedoraCoreos => {
            "coreos-installer install --offline --ignition-file /etc/rackbar/system.ign /dev/sdx".to_owned()
        }
        IgnitionKind::Flatcar => "flatcar-install -d /dev/sdx -V 4230.2.2 -b \
            http://10.0.0.2/mirror/flatcar/stable/amd64-usr -o  -i /etc/rackbar/system.ign"
            .to_owned(),
    };
    for (_, install, system) in cases() {
        let rendered = render(&install, &System::Ignition(system.clone())).unwrap();
        let script = file(&parse(&rendered.files[0].content), "/etc/rackbar/install").unwrap();
        run(Command::new("dash").args(["-n", "-c", &script]));
        let end = script.rsplit_once("done;\n").unwrap().1;
        for code in [0, 1] {
            let folder = tempfile::tempdir().unwrap();
            let programs = [
                ("coreos-installer", code),
                ("flatcar-install", code),
                ("curl", 0),
                ("systemctl", 0),
            ];
            let path = stubs(folder.path(), &programs);
            let script = format!("set -eu\ndisk0=/dev/sdx\n{end}");
            let output = Command::new("/bin/sh")
                .args(["-c", &script])
                .env("PATH", path)
                .output()
                .unwrap();
            let rest = ["curl --config /etc/rackbar/done", "systemctl --no-block reboot"];
            let mut lines = vec![wanted(&system)];
            lines.extend(rest.iter().take(if code == 0 { 2 } else { 0 }).map(ToString::to_string));
            assert_eq!(
                String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(),
                lines
            );
        }
    }
}

#[test]
fn the_token_is_in_no_argument_and_no_file_that_others_read() {
    for (_, install, system) in cases() {
        let rendered = render(&install, &System::Ignition(system)).unwrap();
        let live = parse(&rendered.files[0].content);
        let holders: Vec<_> = files(&live)
            .into_iter()
            .filter(|file| file.2.contains("0123abcd"))
            .collect();
        assert_eq!(holders.len(), 1, "{holders:?}");
        assert_eq!((holders[0].0.as_str(), holders[0].1), ("/etc/rackbar/done", 0o600));
        assert!(!unit(&live, "rackbar-install.service").contains("0123abcd"));
        assert!(!rendered.files[1].content.contains("0123abcd"));
        assert!(!format!("{rendered:?}").contains("0123abcd"));
    }
}

#[test]
fn the_journal_goes_to_the_syslog_server() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    let mut install = fit(full(), &fedora());
    install.setup.syslog = Some(socket.local_addr().unwrap().to_string());
    let config = parse(&ignition_config(&install, &fedora()).unwrap().content);
    let unit = unit(&config, "rackbar-syslog.service");
    let command = unit
        .split_once("ExecStart=/bin/sh -c '")
        .unwrap()
        .1
        .split_once("'\n")
        .unwrap()
        .0;
    let folder = tempfile::tempdir().unwrap();
    let path = stubs(folder.path(), &[("journalctl", 0)]);
    run(Command::new("/bin/sh").args(["-c", command]).env("PATH", path));
    let mut packet = [0; 2048];
    let (length, _) = socket.recv_from(&mut packet).unwrap();
    let text = String::from_utf8_lossy(&packet[..length]).into_owned();
    assert!(text.starts_with("<13>") && text.contains("journal"), "{text}");
    assert!(text.contains("journalctl --follow --boot --lines=all"), "{text}");
}

#[test]
fn a_mirror_is_made_of_both_disks_and_of_no_other() {
    let config = parse(&ignition_config(&fit(full(), &fedora()), &fedora()).unwrap().content);
    let devices: Vec<&Value> = config["storage"]["disks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| &d["device"])
        .collect();
    assert_eq!(
        devices,
        [
            "/dev/disk/by-id/wwn-0x5000c500a1b2c301",
            "/dev/disk/by-id/wwn-0x5000c500a1b2c302"
        ]
    );
    let raid = config["storage"]["raid"].as_array().unwrap();
    assert!(raid.len() == 2 && raid.iter().all(|raid| raid["devices"].as_array().unwrap().len() == 2));
    // One disk is laid out by the image, and Ignition is told of none.
    let one = parse(&ignition_config(&fit(plain(), &fedora()), &fedora()).unwrap().content);
    assert!(one["storage"]["disks"].is_null());
}

#[test]
fn physical_interfaces_are_matched_by_mac_address() {
    let config = parse(&ignition_config(&fit(full(), &flatcar()), &flatcar()).unwrap().content);
    for (name, mac) in [("40-mgmt", 1), ("30-port0", 2), ("30-port1", 3)] {
        let content = file(&config, &format!("/etc/systemd/network/{name}.network")).unwrap();
        let head = format!("[Match]\nPermanentMACAddress=02:00:00:00:00:0{mac}\nType=ether\n");
        assert!(content.starts_with(&head), "{content}");
    }
    let bond = file(&config, "/etc/systemd/network/40-lan.network").unwrap();
    assert!(
        bond.starts_with("[Match]\nName=lan\n") && bond.contains("VLAN=storage\n"),
        "{bond}"
    );
}

#[test]
fn the_system_in_memory_is_told_where_its_configuration_is() {
    let command_line = |system: Ignition| {
        let install = fit(full(), &system);
        match render(&install, &System::Ignition(system)).unwrap().boot {
            NetBoot::Linux {
                kernel,
                initrds,
                command_line,
            } => format!("{kernel} {} {command_line}", initrds.join(" ")),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        command_line(fedora()),
        "fedora-coreos-42.20250914.3.0-live-kernel.x86_64 fedora-coreos-42.20250914.3.0-live-initramfs.x86_64.img \
         ignition.firstboot ignition.platform.id=metal \
         ignition.config.url=http://10.0.0.2/boot/v1/answers/0123abcd/live.ign \
         coreos.live.rootfs_url=http://10.0.0.2/mirror/fcos/42.20250914.3.0/x86_64/fedora-coreos-42.20250914.3.0-live-rootfs.x86_64.img \
         ifname=rackbar0:02:00:00:00:00:01 ip=rackbar0:dhcp rd.neednet=1 console=ttyS0,115200"
    );
    assert_eq!(
        command_line(flatcar()),
        "4230.2.2/flatcar_production_pxe.vmlinuz 4230.2.2/flatcar_production_pxe_image.cpio.gz flatcar.first_boot=1 \
         ignition.config.url=http://10.0.0.2/boot/v1/answers/0123abcd/live.ign BOOTIF=01-02-00-00-00-00-01 \
         console=ttyS0,115200"
    );
}

#[test]
fn what_ignition_cannot_do_is_refused_by_name() {
    let refused = |system: Ignition, change: fn(&mut Install)| {
        let mut install = fit(full(), &system);
        change(&mut install);
        ignition_config(&install, &system).unwrap_err().to_string()
    };
    let message = refused(fedora(), |install| install.packages = vec!["tmux".into()]);
    assert!(
        message.starts_with("ignition: packages: the installer cannot express packages"),
        "{message}"
    );
    assert!(refused(fedora(), |install| install.locale = "de_DE.UTF-8".into()).contains("locale"));
    assert!(refused(flatcar(), |install| install.keyboard = "gb".into()).contains("keyboard"));
    assert!(refused(flatcar(), |install| install.target = full().target).contains("target"));
    let only_serial = |install: &mut Install| {
        let mut target = full().target;
        if let RootTarget::Mirror(both) = &mut target {
            both[1].wwn = None;
        }
        install.target = target;
    };
    assert!(refused(fedora(), only_serial).contains("target.disks[1]"));
    for path in [
        "/usr/bin/x",
        "/bin/x",
        "/tmp/x",
        "/etc/machine-id",
        "/etc/systemd/system/rackbar-syslog.service",
        "/etc/hostname/x",
    ] {
        let mut install = fit(full(), &fedora());
        install.setup.files[0].path = path.into();
        let message = ignition_config(&install, &fedora()).unwrap_err().to_string();
        assert!(message.contains("setup.files[0].path"), "{message}");
    }
    assert!(refused(fedora(), |install| install.setup.files[0].mode = 0o4755).contains("setup.files[0].mode"));
    let no_ipv6 = |install: &mut Install| {
        install.setup.networks = plain().setup.networks;
        install.setup.networks[0].addresses = vec!["10.0.0.5/24".into()];
        install.setup.dns = vec!["2001:db8::53".parse().unwrap()];
    };
    assert!(refused(fedora(), no_ipv6).contains("setup.dns[0]"));
    let mut system = fedora();
    system.version = "stable/../x".into();
    assert!(refused(system, |_| ()).contains("version"));
}

/// A role that brings a file which we write too gets its own.
#[test]
fn a_file_of_the_role_wins() {
    let mut install = fit(full(), &fedora());
    install.setup.files[0].path = "/etc/localtime".into();
    let content = ignition_config(&install, &fedora()).unwrap().content;
    ignition_accepts(&content);
    let config = parse(&content);
    assert!(config["storage"]["links"].is_null());
    assert_eq!(file(&config, "/etc/localtime").as_deref(), Some("it's `here`\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_text_never_changes_an_ignition_config(install in hostile_install(), which in any::<bool>()) {
        let system = if which { fedora() } else { flatcar() };
        let install = fit(install, &system);
        let Ok(rendered) = render(&install, &System::Ignition(system.clone())) else { return Ok(()) };
        let installed = &rendered.files[1].content;
        ignition_accepts(installed);
        ignition_accepts(&rendered.files[0].content);
        let mut model = fit(full(), &system);
        model.target = install.target.clone();
        let model = parse(&ignition_config(&model, &system).unwrap().content);
        let config = parse(installed);
        for part in ["disks", "raid", "filesystems"] {
            prop_assert_eq!(&config["storage"][part], &model["storage"][part]);
        }
        let users = config["passwd"]["users"].as_array().unwrap();
        prop_assert_eq!(users.len(), 3);
        let alice = users.iter().find(|user| user["name"] == "alice").unwrap();
        let account = &install.accounts[0];
        prop_assert_eq!(alice["gecos"].as_str().unwrap_or_default(), account.full_name.as_str());
        prop_assert_eq!(alice["sshAuthorizedKeys"][0].as_str().unwrap(), account.ssh_keys[0].trim());
        let role = &install.setup.files[0];
        prop_assert_eq!(file(&config, &role.path), Some(role.content.clone()));
        prop_assert!(files(&config).len() <= files(&model).len() + 1);
        prop_assert_eq!(config["systemd"]["units"].as_array().unwrap().len(), 1);
    }
}
