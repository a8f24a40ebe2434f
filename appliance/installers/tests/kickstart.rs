//! Kickstart files: as written, as pykickstart reads them for each version, and with hostile text in them.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write as _;
use std::process::{Command, Stdio};

use common::{KEY, base64, calls, embedded, full, hostile_install, plain, put, python, snapshot};
use proptest::prelude::*;
use rackbar_installers::{Install, NetBoot, RedHat, RedHatKind, System, render};
use rackbar_model::RootTarget;

/// Every member, and how pykickstart calls its syntax.
const SYSTEMS: [(RedHatKind, u8, &str); 16] = [
    (RedHatKind::Rhel, 8, "RHEL8"),
    (RedHatKind::Rhel, 9, "RHEL9"),
    (RedHatKind::Rhel, 10, "RHEL10"),
    (RedHatKind::Rocky, 8, "RHEL8"),
    (RedHatKind::Rocky, 9, "RHEL9"),
    (RedHatKind::Rocky, 10, "RHEL10"),
    (RedHatKind::Alma, 8, "RHEL8"),
    (RedHatKind::Alma, 9, "RHEL9"),
    (RedHatKind::Alma, 10, "RHEL10"),
    (RedHatKind::CentosStream, 8, "RHEL8"),
    (RedHatKind::CentosStream, 9, "RHEL9"),
    (RedHatKind::CentosStream, 10, "RHEL10"),
    (RedHatKind::Fedora, 40, "F40"),
    (RedHatKind::Fedora, 41, "F41"),
    (RedHatKind::Fedora, 42, "F42"),
    (RedHatKind::Fedora, 43, "F43"),
];

fn system(kind: RedHatKind, version: u8) -> System {
    System::RedHat(RedHat {
        kind,
        version,
        tree: "http://10.0.0.2/mirror/rocky/9/BaseOS/x86_64/os".parse().unwrap(),
        repositories: vec![(
            "AppStream".into(),
            "http://10.0.0.2/mirror/rocky/9/AppStream/x86_64/os".parse().unwrap(),
        )],
        stage2: None,
        near: false,
        steps: None,
    })
}

/// As the appliance offers it: from a disc of its own, and the installer tells of its steps.
fn near(kind: RedHatKind, version: u8) -> System {
    let System::RedHat(system) = system(kind, version) else {
        panic!("not of the family")
    };
    System::RedHat(RedHat {
        tree: "http://10.0.0.2/boot/v1/tree/00ff".parse().unwrap(),
        stage2: Some("http://10.0.0.2/boot/v1/tree/11ff".parse().unwrap()),
        near: true,
        steps: Some("http://10.0.0.2/boot/v1/installer/00/".parse().unwrap()),
        ..system
    })
}

fn file(install: &Install, kind: RedHatKind, version: u8) -> String {
    render(install, &system(kind, version)).unwrap().files.remove(0).content
}

fn script(content: &str) -> String {
    embedded(content, "<<'RACKBAR'\n", "\nRACKBAR\n")
}

/// What pykickstart understands: one line of JSON for each file that comes in.
const READER: &str = r#"
import json, sys, warnings
warnings.simplefilter("ignore")
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion
for line in sys.stdin:
    version, text = json.loads(line)
    parser = KickstartParser(makeVersion(version))
    parser.readKickstartFromString(text)
    h = parser.handler
    print(json.dumps({
        "users": [[u.name, u.gecos, u.password, u.isCrypted, u.lock] for u in h.user.userList],
        "keys": [[k.username, k.key] for k in h.sshkey.sshUserList],
        "nets": [[n.device, n.bondslaves, n.vlanid, n.interfacename, n.ip, n.ipv6, n.hostname] for n in h.network.network],
        "disks": h.ignoredisk.onlyuse, "clear": h.clearpart.drives,
        "parts": [[p.mountpoint, p.disk] for p in h.partition.partitions],
        "raids": [[r.mountpoint, r.level, r.members] for r in h.raid.raidList],
        "packages": sorted(h.packages.packageList), "groups": [g.name for g in h.packages.groupList],
        "scripts": [[s.type, s.errorOnFail, s.inChroot] for s in h.scripts],
        "root": [h.rootpw.password, h.rootpw.lock], "append": h.bootloader.appendLine,
    }))
    sys.stdout.flush()
"#;

/// A running reader: starting Python for each case would take most of the time.
struct Reader(std::process::Child, std::io::BufReader<std::process::ChildStdout>);

impl Reader {
    fn start() -> Self {
        let mut command = Command::new(python("python"));
        let mut child = command
            .args(["-c", READER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        Self(child, output)
    }

    fn read(&mut self, version: &str, text: &str) -> serde_json::Value {
        use std::io::BufRead as _;
        let line = serde_json::to_string(&(version, text)).unwrap();
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        self.1.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: pykickstart refused\n{text}"))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn ksvalidator_accepts_every_member_and_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ks.cfg");
    for (kind, version, syntax) in SYSTEMS {
        let validate = || {
            let output = Command::new(python("ksvalidator"))
                .args(["--version", syntax])
                .arg(&path)
                .output()
                .unwrap();
            let said = [output.stdout, output.stderr].concat();
            (output.status.success(), String::from_utf8(said).unwrap())
        };
        let whole = file(&full(), kind, version);
        let without: String = whole
            .lines()
            .filter(|line| !line.contains("--vlanid="))
            .map(|line| format!("{line}\n"))
            .collect();
        let told = render(&plain(), &near(kind, version)).unwrap().files.remove(0).content;
        for content in [file(&plain(), kind, version), told, without] {
            std::fs::write(&path, content).unwrap();
            let (good, said) = validate();
            assert!(good && !said.to_lowercase().contains("deprecat"), "{syntax}: {said}");
        }
        // pykickstart warns of a VLAN beside its own parent, which is how Anaconda's documentation writes it. Of that alone.
        std::fs::write(&path, whole).unwrap();
        let (_, said) = validate();
        let others = said
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("Checking kickstart file "));
        let others: Vec<&str> = others
            .filter(|line| !line.contains("the name lan has already been defined"))
            .collect();
        assert!(others.is_empty(), "{syntax}: {said}");
    }
    std::fs::write(&path, "part / --nonsense\n").unwrap();
    let refused = Command::new(python("ksvalidator"))
        .args(["--version", "RHEL9"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(!refused.status.success());
}

#[test]
fn kickstart_is_as_it_was() {
    for (name, install) in [("plain", plain()), ("full", full())] {
        let content = file(&install, RedHatKind::Rocky, 9);
        snapshot(&format!("rocky-9-{name}.sh"), &script(&content));
        snapshot(&format!("rocky-9-{name}.cfg"), &content);
    }
    let told = render(&full(), &near(RedHatKind::Rocky, 9)).unwrap().files.remove(0);
    snapshot("rocky-9-near.cfg", &told.content);
    snapshot("rhel-8-full.cfg", &file(&full(), RedHatKind::Rhel, 8));
    snapshot("fedora-43-full.cfg", &file(&full(), RedHatKind::Fedora, 43));
}

#[test]
fn only_the_chosen_disks_are_used_and_the_install_stops_when_they_are_others() {
    let mut reader = Reader::start();
    let content = file(&full(), RedHatKind::Rocky, 9);
    let read = reader.read("RHEL9", &content);
    let both = serde_json::json!(["disk/by-id/wwn-0x5000c500a1b2c301", "disk/by-id/wwn-0x5000c500a1b2c302"]);
    assert_eq!((&read["disks"], &read["clear"]), (&both, &both));
    assert_eq!(read["raids"].as_array().unwrap().len(), 3);
    let parts = read["parts"].as_array().unwrap();
    assert!(
        parts.len() == 6 && parts.iter().all(|part| both.as_array().unwrap().contains(&part[1])),
        "{parts:?}"
    );
    // The names' own check, against a made-up /dev.
    let mut install = plain();
    install.target = RootTarget::Disk(rackbar_model::DiskRef {
        serial: Some("SN 1".into()),
        ..Default::default()
    });
    let content = file(&install, RedHatKind::Rocky, 9);
    let check = content
        .split_once("for name in ")
        .unwrap()
        .1
        .split_once("\n%end")
        .unwrap()
        .0;
    for (links, good) in [
        (&[("ata-X_SN_1", "sda")][..], true),
        (&[("ata-X_SN_1", "sdb")], false),
        (&[], false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        std::fs::create_dir_all(folder.path().join("dev/disk/by-id")).unwrap();
        for disk in ["sda", "sdb"] {
            std::fs::write(folder.path().join("dev").join(disk), "").unwrap();
        }
        for (name, disk) in links {
            std::os::unix::fs::symlink(format!("../../{disk}"), folder.path().join("dev/disk/by-id").join(name))
                .unwrap();
        }
        let script = format!(
            "disk0={root}/dev/sda\nfor name in {}",
            check.replace("/dev/'", &format!("{root}/dev/'"))
        );
        let output = Command::new("dash").args(["-c", &script]).output().unwrap();
        assert_eq!(
            output.status.success(),
            good,
            "{links:?} {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn bond_vlan_and_both_families_are_all_there() {
    let read = Reader::start().read("RHEL9", &file(&full(), RedHatKind::Rocky, 9));
    let nets = read["nets"].as_array().unwrap();
    assert_eq!(nets.len(), 4, "{nets:?}");
    assert_eq!(
        (&nets[1][0], &nets[1][1], &nets[1][4]),
        (&"lan".into(), &"port0,port1".into(), &"10.1.0.5".into())
    );
    assert_eq!(
        (&nets[2][2], &nets[2][3], &nets[2][5]),
        (&"20".into(), &"storage".into(), &"2001:db8:20::5/64".into())
    );
    assert_eq!(nets[3][6], "node-001.rack.example");
    let NetBoot::Linux { command_line, .. } = render(&full(), &system(RedHatKind::Rocky, 9)).unwrap().boot else {
        panic!("no Linux")
    };
    for word in [
        "ifname=mgmt:02:00:00:00:00:01",
        "ifname=port1:02:00:00:00:00:03",
        "inst.proxy=http://10.0.0.2:3128",
    ] {
        assert!(
            command_line.split(' ').any(|argument| argument == word),
            "{command_line}"
        );
    }
}

/// The script of a section, as Anaconda would run it, with a `curl` that only writes down what it is asked for.
fn run_section(content: &str, head: &str, end: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let asked = folder.path().join("asked");
    let curl = format!(
        "#!/bin/sh\nfor last; do :; done\necho \"$last\" >> {}\nexit 7\n",
        asked.display()
    );
    std::fs::write(folder.path().join("curl"), curl).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path().join("curl"), mode).unwrap();
    let section = content.split_once(&format!("\n{head}")).unwrap().1;
    let lines = section.split_once('\n').unwrap().1.split_once("\n%end").unwrap().0;
    let lines = lines.split_once("rackbar_disk()").map_or(lines, |(lines, _)| lines);
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let script = format!("{lines}\n{end}");
    let status = Command::new("dash")
        .args(["-c", &script])
        .env("PATH", path)
        .status()
        .unwrap();
    (status.success(), std::fs::read_to_string(asked).unwrap_or_default())
}

#[test]
fn the_installer_tells_of_every_step_and_of_what_goes_wrong() {
    let rendered = render(&plain(), &near(RedHatKind::Rocky, 9)).unwrap();
    let content = &rendered.files[0].content;
    let url = |step: &str| format!("http://10.0.0.2/boot/v1/installer/00/{step}\n");
    // Nobody hears: the install goes on.
    let pre = |end| run_section(content, "%pre --erroronfail", end);
    assert_eq!(pre("true"), (true, url("started")));
    assert_eq!(pre("exit 1"), (false, url("started") + &url("failed-disks")));
    for (section, step) in [
        ("%pre-install", "partitioned"),
        ("%post --nochroot --i", "base"),
        ("%onerror", "failed"),
    ] {
        assert_eq!(run_section(content, section, "true"), (true, url(step)), "{section}");
    }
    let post = content.split_once("%post --erroronfail").unwrap().1;
    assert!(post.contains("failed-setup'"), "{post}");
    let NetBoot::Linux { command_line, .. } = &rendered.boot else {
        panic!("no Linux")
    };
    for word in [
        "inst.repo=http://10.0.0.2/boot/v1/tree/00ff",
        "inst.stage2=http://10.0.0.2/boot/v1/tree/11ff",
    ] {
        assert!(
            command_line.split(' ').any(|argument| argument == word),
            "{command_line}"
        );
    }
    // Trees of the appliance are asked without its proxy, and forgotten afterwards.
    let full = render(&full(), &near(RedHatKind::Rocky, 9)).unwrap();
    assert!(!format!("{:?}", full.boot).contains("inst.proxy"));
    let content = &full.files[0].content;
    assert!(
        !content.contains("--proxy=") && !content.contains("--install"),
        "{content}"
    );
    assert!(
        script(content).contains("http://10.0.0.2:3128"),
        "the installed system has the proxy"
    );
}

#[test]
fn what_anaconda_cannot_do_is_refused_by_name() {
    let refused = |version: u8, change: fn(&mut Install)| {
        let mut install = full();
        change(&mut install);
        render(&install, &system(RedHatKind::Rhel, version))
            .unwrap_err()
            .to_string()
    };
    let two =
        |install: &mut Install| install.setup.networks[0].addresses = vec!["10.0.0.5/24".into(), "10.0.0.6/24".into()];
    assert!(
        refused(9, two).starts_with("kickstart: setup.networks[0].addresses: "),
        "{}",
        refused(9, two)
    );
    let yescrypt = |install: &mut Install| {
        install.accounts[0].password = Some(
            "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"
                .parse()
                .unwrap(),
        );
    };
    assert!(refused(8, yescrypt).contains("yescrypt"));
    assert!(refused(11, |_| ()).contains("version"));
}

#[test]
fn hostile_text_never_changes_a_kickstart_file() {
    let mut reader = Reader::start();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(96));
    let reader = std::cell::RefCell::new(&mut reader);
    let case = |install: Install| {
        let Ok(rendered) = render(&install, &system(RedHatKind::Rocky, 9)) else {
            return Ok(());
        };
        let content = &rendered.files[0].content;
        let mut model = full();
        model.target = install.target.clone();
        let mut reader = reader.borrow_mut();
        let model = reader.read("RHEL9", &file(&model, RedHatKind::Rocky, 9));
        let read = reader.read("RHEL9", content);
        for part in ["disks", "clear", "parts", "raids", "scripts", "root"] {
            prop_assert_eq!(&read[part], &model[part]);
        }
        let alice = &install.accounts[0];
        prop_assert_eq!(&read["users"][1][0], "alice");
        prop_assert_eq!(read["users"][1][1].as_str().unwrap(), alice.full_name.as_str());
        prop_assert_eq!(read["users"].as_array().unwrap().len(), 2);
        let keys = read["keys"].as_array().unwrap();
        prop_assert_eq!(keys.len(), 2);
        prop_assert_eq!(keys[0][1].as_str().unwrap(), install.setup.ssh_keys[0].trim());
        prop_assert_eq!(keys[1][1].as_str().unwrap(), alice.ssh_keys[0].trim());
        prop_assert!(keys[0][1].as_str().unwrap().starts_with(KEY));
        let calls = calls(&script(content));
        let wanted = base64(&install.setup.files[0].content);
        prop_assert_eq!(put(&calls, &install.setup.files[0].path), Some(wanted.as_str()));
        Ok(())
    };
    runner.run(&hostile_install(), case).unwrap();
}
