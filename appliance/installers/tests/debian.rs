//! Preseed files: as written, as debconf reads them, and with hostile text in them.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::{base64, calls, embedded, full, hostile_install, plain, put, run, snapshot};
use proptest::prelude::*;
use rackbar_installers::{DEBIAN_STEPS, Debian, DebianRelease, Install, NetBoot, System, render};

fn debian() -> System {
    System::Debian(Debian {
        release: DebianRelease::Bookworm,
        mirror: "http://10.0.0.2/mirror/debian".parse().unwrap(),
        security: Some("http://10.0.0.2/mirror/debian-security".parse().unwrap()),
        steps: Some("http://10.0.0.2/boot/v1/installer/0123abcd/".parse().unwrap()),
    })
}

fn preseed(install: &Install) -> String {
    render(install, &debian()).unwrap().files.remove(0).content
}

/// The questions of a file in order, as `owner question type`.
fn questions(content: &str) -> Vec<String> {
    content
        .lines()
        .map(|line| line.splitn(4, ' ').take(3).collect::<Vec<_>>().join(" "))
        .collect()
}

/// debconf's own reader, with a database of its own: the machine's is locked while anybody reads it.
fn debconf(content: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("preseed.cfg"), content).unwrap();
    let database = |name: &str| format!("Name: {name}\nDriver: File\nFilename: {}\n", at(name));
    let config = format!(
        "Config: config\nTemplates: templates\n\n{}\n{}",
        database("config"),
        database("templates")
    );
    std::fs::write(at("debconf.conf"), config).unwrap();
    let mut command = Command::new("debconf-set-selections");
    command
        .arg("--checkonly")
        .arg(at("preseed.cfg"))
        .env("DEBCONF_SYSTEMRC", at("debconf.conf"));
    command.output().expect("debconf-set-selections").status.success()
}

fn debconf_accepts(content: &str) {
    assert!(debconf(content), "{content}");
    // It also is one that says no.
    assert!(!debconf(&format!("{content}d-i broken\n")));
}

fn script(content: &str) -> String {
    embedded(content, "printf %s '", "'")
}

#[test]
fn preseed_is_as_it_was_and_debconf_accepts_it() {
    for (name, install) in [("plain", plain()), ("full", full())] {
        let content = preseed(&install);
        debconf_accepts(&content);
        let script = script(&content);
        snapshot(&format!("debian-{name}.cfg"), &content);
        snapshot(&format!("debian-{name}.sh"), &script);
    }
}

#[test]
fn commands_of_the_installer_are_shell_that_busybox_reads() {
    for install in [plain(), full()] {
        let content = preseed(&install);
        for question in ["preseed/early_command", "partman/early_command", "preseed/late_command"] {
            let line = content.lines().find(|line| line.contains(question)).unwrap();
            let command = line.split_once(" string ").unwrap().1;
            run(Command::new("busybox").args(["sh", "-n", "-c", command]));
        }
    }
}

/// The second system partition gets the first one's content, whichever of the two partman chose to mount.
#[test]
fn the_system_partition_is_copied_to_the_other_half() {
    let content = preseed(&full());
    let copy = content
        .split_once("&& set -- ")
        .unwrap()
        .1
        .split_once(" && (tries=")
        .unwrap()
        .0;
    for (disks, esp, wanted) in [
        ("/dev/sda /dev/sdb", "/dev/sda1", "if=/dev/sda1 of=/dev/sdb1 bs=1M"),
        ("/dev/sda /dev/sdb", "/dev/sdb1", "if=/dev/sdb1 of=/dev/sda1 bs=1M"),
        (
            "/dev/nvme0n1 /dev/sda",
            "/dev/nvme0n1p1",
            "if=/dev/nvme0n1p1 of=/dev/sda1 bs=1M",
        ),
        (
            "/dev/sda /dev/nvme0n1",
            "/dev/sda1",
            "if=/dev/sda1 of=/dev/nvme0n1p1 bs=1M",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("disks"), disks).unwrap();
        std::fs::write(
            path("mounts"),
            format!("proc /proc proc rw 0 0\n{esp} /target/boot/efi vfat rw 0 0\n"),
        )
        .unwrap();
        let copy = copy
            .replace("/tmp/rackbar-disks", &path("disks"))
            .replace("/proc/mounts", &path("mounts"));
        let stubs = "umount() { :; }; mount() { :; }; dd() { echo \"$@\"; };";
        let said = run(Command::new("busybox").args(["sh", "-c", &format!("{stubs} set -- {copy}")]));
        assert_eq!(said.trim(), wanted);
    }
}

/// What the installer does at its steps: each asks for the step's name and nothing stops when nobody answers.
#[test]
fn the_installer_tells_of_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let content = preseed(&plain()).replace("/usr/lib/", &format!("{}/", folder.path().display()));
    let stub = folder.path().join("wget");
    std::fs::write(&stub, "#!/bin/sh\necho \"$4\"\nexit 1\n").unwrap();
    std::fs::set_permissions(&stub, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let line = content
        .lines()
        .find(|line| line.contains("preseed/early_command"))
        .unwrap();
    let early = line.split_once(" string ").unwrap().1;
    let asked = |command: &str| run(Command::new("sh").args(["-e", "-c", command]).env("PATH", &path));
    let at = |step: &str| format!("http://10.0.0.2/boot/v1/installer/0123abcd/{step}\n");
    let [started, disks, partitioned, base] = DEBIAN_STEPS;
    assert_eq!(asked(early), at(started));
    for (script, step) in [
        ("base-installer.d/01rackbar", partitioned),
        ("post-base-installer.d/99rackbar", base),
    ] {
        let script = folder.path().join(script);
        assert_eq!(asked(script.to_str().unwrap()), at(step));
    }
    let partman = content
        .lines()
        .find(|line| line.contains("partman/early_command"))
        .unwrap();
    assert!(partman.contains(at(disks).trim()));
}

/// The end is told until it is heard: a machine whose end nobody heard of would be installed anew.
#[test]
fn the_installer_tells_its_end_until_it_is_heard() {
    for (heard_at, ends_well) in [(1, true), (3, true), (1_000, false)] {
        let folder = tempfile::tempdir().unwrap();
        let (tries, stub) = (folder.path().join("tries"), folder.path().join("wget"));
        let counts = format!(
            "#!/bin/sh\necho x >> {tries}\n[ $(wc -l < {tries}) -ge {heard_at} ]\n",
            tries = tries.display()
        );
        std::fs::write(&stub, counts).unwrap();
        std::fs::set_permissions(&stub, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let content = preseed(&plain());
        let line = content.lines().find(|line| line.contains("preseed/late_command"));
        let (_, asks) = line.unwrap().split_once(" && (tries=").unwrap();
        // Everything before it may fail, and then nothing is told.
        for (before, told) in [("true", true), ("false", false)] {
            std::fs::write(&tries, "").unwrap();
            let command = format!("sleep() {{ :; }}; {before} && (tries={asks} && echo well");
            let shell = Command::new("sh")
                .args(["-c", &command])
                .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
                .output();
            let said = String::from_utf8(shell.unwrap().stdout).unwrap();
            assert_eq!(said.trim() == "well", ends_well && told, "{command}");
            let asked = std::fs::read_to_string(&tries).unwrap().lines().count();
            assert_eq!(asked, if told { heard_at.min(60) } else { 0 }, "{command}");
        }
    }
}

#[test]
fn what_debian_installer_cannot_do_is_refused_by_name() {
    let refused = |change: fn(&mut Install)| {
        let mut install = full();
        change(&mut install);
        render(&install, &debian()).unwrap_err().to_string()
    };
    let message = refused(|install| install.done = "https://10.0.0.2/done".parse().unwrap());
    assert!(message.starts_with("debian-installer: done: "), "{message}");
    assert!(refused(|install| install.packages = vec!["@core".into()]).contains("packages"));
    assert!(refused(|install| install.packages = vec!["tmux; reboot".into()]).contains("packages[0]"));
    assert!(refused(|install| install.accounts[0].name = "root".into()).contains("accounts[0].name"));
    assert!(refused(|install| install.setup.files[0].path = "/etc/../x".into()).contains("setup.files[0].path"));
    assert!(refused(|install| install.setup.files[0].content = "x".repeat(200_000)).contains("setup.files"));
    assert!(refused(|install| install.kernel_arguments = "a\nb".into()).contains("kernel_arguments"));
    assert!(
        refused(|install| install.target = rackbar_model::RootTarget::Disk(Default::default()))
            .contains("target.disks[0]")
    );
    assert!(refused(|install| install.setup.ssh_host_key.0 = "no key".into()).contains("setup"));
}

#[test]
fn the_installer_is_told_where_its_answers_are_and_nothing_of_it_is_logged() {
    let rendered = render(&full(), &debian()).unwrap();
    let NetBoot::Linux {
        kernel, command_line, ..
    } = &rendered.boot
    else {
        panic!("{:?}", rendered.boot)
    };
    assert_eq!(kernel, "debian-installer/amd64/linux");
    assert_eq!(
        command_line,
        "auto=true priority=critical url=http://10.0.0.2/boot/v1/answers/0123abcd/preseed.cfg interface=auto \
         BOOTIF=01-02-00-00-00-00-01 netcfg/no_default_route=true netcfg/get_nameservers=10.1.0.2 \
         hostname=node-001 domain=rack.example console=ttyS0,115200"
    );
    let shown = format!("{rendered:?}{:?}", full());
    assert!(!shown.contains("0123abcd") && !shown.contains("$6$"), "{shown}");
}

#[test]
fn a_host_key_goes_to_the_new_system_and_stays_private() {
    let mut install = full();
    install.setup.ssh_host_key = common::host_key();
    let calls = calls(&script(&preseed(&install)));
    let key = calls
        .iter()
        .find(|call| call[0] == "put" && call[2] == "/etc/ssh/ssh_host_ed25519_key")
        .unwrap();
    assert_eq!(
        (key[1].as_str(), key[3].as_str()),
        ("0600", base64(&install.setup.ssh_host_key.0).as_str())
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn hostile_text_never_changes_a_preseed_file(install in hostile_install()) {
        let Ok(rendered) = render(&install, &debian()) else { return Ok(()) };
        let content = &rendered.files[0].content;
        let mut model = full();
        model.target = install.target.clone();
        prop_assert_eq!(questions(content), questions(&preseed(&model)));
        debconf_accepts(content);
        let calls = calls(&script(content));
        let file = &install.setup.files[0];
        let wanted = base64(&file.content);
        prop_assert_eq!(put(&calls, &file.path), Some(wanted.as_str()));
        let account = calls.iter().find(|call| call[0] == "account" && call[1] == "alice").unwrap();
        prop_assert_eq!(&account[2], &install.accounts[0].full_name);
        let keys = calls.iter().find(|call| call[0] == "keys" && call[1] == "ops").unwrap();
        prop_assert_eq!(&keys[2], &base64(&format!("{}\n", install.setup.ssh_keys[0].trim())));
    }
}
