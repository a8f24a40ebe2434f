//! Autoinstall configurations: as written, as cloud-init and netplan read them, and with hostile text in them.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Command, Output};

use common::yaml::Reader;
use common::{base64, calls, full, hostile_install, plain, put, run, snapshot};
use proptest::prelude::*;
use rackbar_installers::{Install, NetBoot, System, Ubuntu, UbuntuRelease, render};
use rackbar_model::FirmwareMode;
use serde_json::Value;

fn ubuntu() -> System {
    System::Ubuntu(Ubuntu {
        release: UbuntuRelease::Noble,
        iso: "http://10.0.0.2/mirror/ubuntu-24.04-live-server-amd64.iso"
            .parse()
            .unwrap(),
        mirror: Some("http://10.0.0.2/mirror/ubuntu".parse().unwrap()),
        security: None,
        steps: None,
    })
}

/// As the appliance offers it: the installer tells of its steps.
fn telling() -> System {
    let System::Ubuntu(system) = ubuntu() else {
        panic!("not Ubuntu")
    };
    System::Ubuntu(Ubuntu {
        steps: Some("http://10.0.0.2/boot/v1/installer/00/".parse().unwrap()),
        ..system
    })
}

fn user_data(install: &Install) -> String {
    let rendered = render(install, &ubuntu()).unwrap();
    assert_eq!(
        (rendered.files[0].name, rendered.files[1].name),
        ("user-data", "meta-data")
    );
    rendered.files[0].content.clone()
}

/// What the installer's own system gets as a file.
fn written(config: &Value, path: &str) -> String {
    let list = config["write_files"].as_array().unwrap();
    let file = list.iter().find(|file| file["path"] == path).unwrap();
    assert_eq!(
        (&file["permissions"], &file["encoding"]),
        (&"0600".into(), &"b64".into())
    );
    decode(file["content"].as_str().unwrap())
}

fn decode(text: &str) -> String {
    run(Command::new("sh").args(["-c", "printf %s \"$1\" | base64 -d", "sh", text]))
}

/// netplan's files that the script writes.
fn netplan_files(calls: &[Vec<String>]) -> Vec<(String, String)> {
    let files = calls.iter().filter_map(|call| {
        let name = call.get(2)?.strip_prefix("/etc/netplan/")?;
        assert_eq!(call[1], "0600");
        Some((name.to_owned(), decode(&call[3])))
    });
    files.collect()
}

fn schema(content: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("user-data");
    std::fs::write(&path, content).unwrap();
    Command::new("cloud-init")
        .args(["schema", "--config-file"])
        .arg(&path)
        .output()
        .unwrap()
}

/// netplan's generator: the units that it makes of the files.
fn netplan(files: &[(String, String)]) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let etc = folder.path().join("etc/netplan");
    std::fs::create_dir_all(&etc).unwrap();
    for (name, content) in files {
        std::fs::write(etc.join(name), content).unwrap();
        std::fs::set_permissions(etc.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let mut command = Command::new("netplan");
    command.args(["generate", "--root-dir"]).arg(folder.path());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}\n{files:?}");
    folder
}

#[test]
fn autoinstall_is_as_it_was_and_cloud_init_and_netplan_accept_it() {
    let mut reader = Reader::start();
    let mut mirror = plain();
    mirror.target = full().target;
    for (name, install) in [("plain", plain()), ("full", full()), ("bios-mirror", mirror)] {
        let content = user_data(&install);
        let output = schema(&content);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(
            output.status.success() && said.contains("Valid") && !said.contains("deprecat"),
            "{said}"
        );
        let config = reader.read(&content);
        let script = written(&config, "/run/rackbar/finish");
        let plan = netplan_files(&calls(&script));
        netplan(&plan);
        snapshot(&format!("ubuntu-{name}.yaml"), &content);
        for (file, content) in plan {
            snapshot(&format!("ubuntu-{name}-{file}"), &content);
        }
        snapshot(&format!("ubuntu-{name}.sh"), &script);
    }
    // They also say no.
    assert!(!schema("#cloud-config\nwrite_files: 3\n").status.success());
}

#[test]
fn subiquity_tells_of_every_step_and_of_what_goes_wrong_and_no_argument_has_the_token() {
    let content = render(&plain(), &telling()).unwrap().files.remove(0).content;
    assert!(schema(&content).status.success());
    let config = Reader::start().read(&content);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    // A curl that writes down what it was asked for, and that nobody heard.
    let curl = format!(
        "#!/bin/sh\necho \"$@\" >> {0}/arguments\ngrep ^url >> {0}/asked\nexit 7\n",
        folder.path().display()
    );
    std::fs::write(at("curl"), curl).unwrap();
    std::fs::set_permissions(at("curl"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(at("tell"), written(&config, "/run/rackbar/tell")).unwrap();
    let tell = |command: &str, end: &str| {
        let _ = std::fs::remove_file(at("asked"));
        let command = command.split_once("rackbar_disk()").map_or(command, |(begin, _)| begin);
        let script = format!("{}\n{end}", command.replace("/run/rackbar/tell", &at("tell")));
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        let status = Command::new("dash")
            .args(["-c", &script])
            .env("PATH", path)
            .status()
            .unwrap();
        (
            status.success(),
            std::fs::read_to_string(at("asked")).unwrap_or_default(),
        )
    };
    let url = |step: &str| format!("url = \"http://10.0.0.2/boot/v1/installer/00/{step}\"\n");
    let install = &config["autoinstall"];
    let early = install["early-commands"][0].as_str().unwrap();
    assert_eq!(tell(early, "true"), (true, url("started")));
    assert_eq!(tell(early, "exit 1"), (false, url("started") + &url("failed-disks")));
    assert_eq!(
        tell(install["late-commands"][0].as_str().unwrap(), "true"),
        (true, url("base"))
    );
    assert_eq!(
        tell(install["error-commands"][0].as_str().unwrap(), "true"),
        (true, url("failed"))
    );
    let arguments = std::fs::read_to_string(at("arguments")).unwrap();
    assert!(!arguments.contains("http"), "{arguments}");
    assert!(
        !install.to_string().contains("/installer/00/"),
        "commands end up in a log"
    );
}

#[test]
fn netplan_gives_networkd_bond_vlan_and_both_families() {
    let config = Reader::start().read(&user_data(&full()));
    let folder = netplan(&netplan_files(&calls(&written(&config, "/run/rackbar/finish"))));
    let read = |name: &str| {
        let path = folder
            .path()
            .join("run/systemd/network")
            .join(format!("10-netplan-{name}"));
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let has = |name: &str, lines: &[&str]| {
        let text = read(name);
        for line in lines {
            let times = text.lines().filter(|other| other == line).count();
            assert_eq!(times, 1, "{name}: {line}\n{text}");
        }
    };
    has("mgmt.link", &["PermanentMACAddress=02:00:00:00:00:01", "Name=mgmt"]);
    has("mgmt.network", &["DHCP=yes", "ClientIdentifier=mac"]);
    has("port1.network", &["Bond=lan", "LinkLocalAddressing=no"]);
    has(
        "lan.netdev",
        &[
            "Kind=bond",
            "Mode=802.3ad",
            "LACPTransmitRate=fast",
            "TransmitHashPolicy=layer3+4",
        ],
    );
    has(
        "lan.network",
        &[
            "Address=10.1.0.5/24",
            "Gateway=10.1.0.1",
            "DNS=10.1.0.2",
            "Domains=rack.example",
            "VLAN=storage",
        ],
    );
    has("storage.netdev", &["Kind=vlan", "Id=20", "MTUBytes=9000"]);
    has("storage.network", &["Address=2001:db8:20::5/64"]);
}

/// Each action stands on others that came before it, and only the found disks are written to.
#[test]
fn storage_stands_on_the_found_disks() {
    let mut reader = Reader::start();
    let mut machines = Vec::new();
    for firmware in [FirmwareMode::Bios, FirmwareMode::Uefi] {
        for target in [plain().target, full().target] {
            let mut install = plain();
            install.firmware = firmware;
            install.target = target;
            machines.push(install);
        }
    }
    for install in machines {
        let config = reader.read(&user_data(&install));
        let storage = &config["autoinstall"]["storage"];
        let mut ids: Vec<&str> = Vec::new();
        let mut grub = 0;
        for action in storage["config"].as_array().unwrap() {
            let others = [&action["device"], &action["volume"]];
            let members = action["devices"].as_array().into_iter().flatten();
            for other in others.into_iter().filter(|other| !other.is_null()).chain(members) {
                assert!(ids.contains(&other.as_str().unwrap()), "{action}");
            }
            if action["type"] == "disk" {
                assert!(action["path"].as_str().unwrap().starts_with("RACKBAR_DISK"), "{action}");
            }
            grub += i32::from(action["grub_device"] == true);
            ids.push(action["id"].as_str().unwrap());
        }
        let disks = install.target.disks().len();
        assert_eq!(grub as usize, disks, "{storage}");
        assert_eq!(ids.contains(&"md0"), disks == 2);
        assert_eq!(ids.contains(&"esp-mount"), install.firmware == FirmwareMode::Uefi);
    }
}

#[test]
fn paths_of_the_found_disks_get_into_the_configuration() {
    let config = Reader::start().read(&user_data(&full()));
    let early = config["autoinstall"]["early-commands"][0].as_str().unwrap();
    run(Command::new("dash").args(["-n", "-c", early]));
    let replace = &early[early.find("sed -i").unwrap()..];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("autoinstall.yaml");
    std::fs::write(&path, config["autoinstall"]["storage"].to_string()).unwrap();
    let script = format!(
        "disk0=/dev/sdb disk1=/dev/nvme0n1; {}",
        replace.replace("/autoinstall.yaml", path.to_str().unwrap())
    );
    run(Command::new("dash").args(["-c", &script]));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("\"path\":\"/dev/sdb\"") && text.contains("\"path\":\"/dev/nvme0n1\""),
        "{text}"
    );
    assert!(!text.contains("RACKBAR"), "{text}");
}

#[test]
fn the_installer_is_told_where_its_answers_are_and_no_command_has_a_secret() {
    let rendered = render(&full(), &ubuntu()).unwrap();
    let NetBoot::Linux {
        kernel, command_line, ..
    } = &rendered.boot
    else {
        panic!("{:?}", rendered.boot)
    };
    assert_eq!(kernel, "casper/vmlinuz");
    assert_eq!(
        command_line,
        "ip=dhcp BOOTIF=01-02-00-00-00-00-01 url=http://10.0.0.2/mirror/ubuntu-24.04-live-server-amd64.iso autoinstall \
         ds=nocloud-net;s=http://10.0.0.2/boot/v1/answers/0123abcd/ cloud-config-url=/dev/null --- console=ttyS0,115200"
    );
    let config = Reader::start().read(&rendered.files[0].content);
    let public = config["autoinstall"].to_string();
    assert!(!public.contains("0123abcd") && !public.contains("$6$"), "{public}");
    assert!(written(&config, "/run/rackbar/done").contains("0123abcd"));
    assert!(!format!("{rendered:?}").contains("0123abcd"));
}

/// The order at the end: the system is finished, its script is gone, and then we are told; or nothing is told.
#[test]
fn we_are_told_last_and_only_when_the_rest_worked() {
    let config = Reader::start().read(&user_data(&full()));
    let late: Vec<&str> = config["autoinstall"]["late-commands"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c.as_str().unwrap())
        .collect();
    assert_eq!(late.last(), Some(&"curl --config /run/rackbar/done"));
    let done = written(&config, "/run/rackbar/done");
    // curl's own reader of such files, asked for a port that nobody listens at.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("done");
    let here = done
        .replace("http://10.0.0.2/", &format!("http://{closed}/"))
        .replace("retry = 30", "retry = 0");
    std::fs::write(&path, here).unwrap();
    let output = Command::new("curl").arg("--config").arg(&path).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(7),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn what_autoinstall_cannot_do_is_refused_by_name() {
    let refused = |change: fn(&mut Install)| {
        let mut install = full();
        change(&mut install);
        render(&install, &ubuntu()).unwrap_err().to_string()
    };
    let message = refused(|install| install.packages = vec!["@core".into()]);
    assert!(
        message.starts_with("autoinstall: packages: the installer cannot express groups"),
        "{message}"
    );
    assert!(refused(|install| install.setup.hostname = "a b".into()).contains("host name"));
    assert!(refused(|install| install.setup.files[0].path = "x".into()).contains("setup.files[0].path"));
}

#[test]
fn hostile_text_never_changes_an_autoinstall_file() {
    let reader = std::cell::RefCell::new(Reader::start());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(64));
    let case = |install: Install| {
        let Ok(rendered) = render(&install, &ubuntu()) else {
            return Ok(());
        };
        let mut model = full();
        model.target = install.target.clone();
        let mut reader = reader.borrow_mut();
        // The reader also asks cloud-init's schema.
        let read = reader.read(&rendered.files[0].content);
        let model = reader.read(&user_data(&model));
        prop_assert_eq!(&read["autoinstall"]["storage"], &model["autoinstall"]["storage"]);
        prop_assert_eq!(
            &read["autoinstall"]["late-commands"],
            &model["autoinstall"]["late-commands"]
        );
        prop_assert_eq!(keys(&read), keys(&model));
        prop_assert_eq!(keys(&read["autoinstall"]), keys(&model["autoinstall"]));
        let calls = calls(&written(&read, "/run/rackbar/finish"));
        let role = &install.setup.files[0];
        let wanted = base64(&role.content);
        prop_assert_eq!(put(&calls, &role.path), Some(wanted.as_str()));
        let account = calls
            .iter()
            .find(|call| call[0] == "account" && call[1] == "alice")
            .unwrap();
        prop_assert_eq!(&account[2], &install.accounts[0].full_name);
        Ok(())
    };
    runner.run(&hostile_install(), case).unwrap();
}

fn keys(value: &Value) -> Vec<String> {
    value.as_object().unwrap().keys().cloned().collect()
}
