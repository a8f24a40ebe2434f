//! Machines to render answer files for, hostile text to put into them, and the parsers of the vendors.
#![allow(dead_code, clippy::unwrap_used)]

pub mod yaml;

use std::path::PathBuf;
use std::process::Command;

use proptest::prelude::*;
use rackbar_installers::{Account, Install};
use rackbar_model::{BondMode, DiskRef, FirmwareMode, MacAddr, OsFile, OsNetwork, OsSetup, RootTarget, SecretText};

pub const HASH: &str =
    "$6$rackbarsalt$SVtNWWz7hDRJXz3vEiBB3qKFmHKLjPMfj5AbzmT9MkKaaVYZ2ZUsrAbtqlgoH3YHfOtJTx5eW5HFaYnWXmeFY.";
pub const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4yr8DgPGjYJXnLSYKlGIAQxwdzzHVsxp7RJ2mP+gCk ops@rack";

pub fn disk(last: u8) -> DiskRef {
    DiskRef {
        serial: Some(format!("SN {last:04}")),
        wwn: Some(format!("naa.5000c500a1b2c3{last:02x}")),
        by_path: None,
        size_bytes: Some(480 << 30),
    }
}

fn network(name: &str, nics: &[u8], vlan: Option<u16>, address: Option<&str>) -> OsNetwork {
    OsNetwork {
        name: name.to_owned(),
        nics: nics.iter().map(|last| MacAddr([2, 0, 0, 0, 0, *last])).collect(),
        bond: (nics.len() > 1).then_some(BondMode::Lacp),
        vlan,
        mtu: vlan.map(|_| 9000),
        addresses: address.map(str::to_owned).into_iter().collect(),
        gateway: None,
    }
}

/// One disk, BIOS, one NIC with DHCP, keys for root.
pub fn plain() -> Install {
    Install {
        setup: OsSetup {
            hostname: "node-001".into(),
            ssh_keys: vec![KEY.into()],
            networks: vec![network("mgmt", &[1], None, None)],
            ..OsSetup::default()
        },
        target: RootTarget::Disk(disk(1)),
        firmware: FirmwareMode::Bios,
        boot_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        root_password: None,
        accounts: Vec::new(),
        packages: Vec::new(),
        locale: "en_US.UTF-8".into(),
        keyboard: "us".into(),
        kernel_arguments: String::new(),
        answers: "http://10.0.0.2/boot/v1/answers/0123abcd/".parse().unwrap(),
        done: "http://10.0.0.2/boot/v1/installed/0123abcd".parse().unwrap(),
    }
}

/// All that there is: UEFI, a mirror, a bond with VLANs, static addresses of both families, every service, accounts.
pub fn full() -> Install {
    let mut install = plain();
    let setup = &mut install.setup;
    setup.domain = Some("rack.example".into());
    setup.machine_id = "0123456789abcdef0123456789abcdef".into();
    setup.user = "ops".into();
    let mut lan = network("lan", &[2, 3], None, Some("10.1.0.5/24"));
    lan.gateway = Some("10.1.0.1".parse().unwrap());
    let storage = network("storage", &[2, 3], Some(20), Some("2001:db8:20::5/64"));
    setup.networks.extend([lan, storage]);
    setup.dns = vec!["10.1.0.2".parse().unwrap(), "10.1.0.3".parse().unwrap()];
    setup.ntp = vec!["10.1.0.2".into(), "ntp.rack.example".into()];
    setup.proxy = Some("http://10.0.0.2:3128".into());
    setup.syslog = Some("10.0.0.2:514".into());
    setup.timezone = Some("Europe/Berlin".into());
    setup.files = vec![OsFile {
        path: "/etc/motd".into(),
        content: "it's `here`\n".into(),
        mode: 0o644,
    }];
    install.target = RootTarget::Mirror([disk(1), disk(2)]);
    install.firmware = FirmwareMode::Uefi;
    install.root_password = Some(HASH.parse().unwrap());
    install.accounts = vec![Account {
        name: "alice".into(),
        full_name: "Alice O'Hara".into(),
        password: Some(HASH.parse().unwrap()),
        ssh_keys: vec![KEY.into()],
        admin: true,
    }];
    install.packages = vec!["tmux".into(), "libstdc++6".into()];
    install.kernel_arguments = "console=ttyS0,115200".into();
    install
}

/// Text that has broken answer files before.
pub fn hostile() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "'",
        "\"",
        "$(reboot)",
        "`reboot`",
        "\\",
        "#",
        "%end",
        "%post",
        "]]>",
        "<x/>",
        "&amp;",
        "*a",
        "!t",
        "- x",
        ": y",
        "{{ x }}",
        "${HOME}",
        " d-i x string y",
        "no",
        "0x10",
        "~",
        "\u{85}",
        "ä",
        "🦀",
        "%",
        "|",
        ">",
        "@",
        "\t",
        "--- ",
        "\u{feff}",
        "EOF",
        "RACKBAR",
        "\u{2028}",
        "\n",
        "\r",
        "\0",
        "\u{7f}",
    ]);
    let any = any::<char>().prop_map(String::from);
    prop::collection::vec(prop_oneof![4 => known.prop_map(String::from), 1 => any], 1..8)
        .prop_map(|parts| parts.concat())
}

/// An install with hostile text wherever text is free. `None` in the second place: text that some field refuses.
pub fn hostile_install() -> impl Strategy<Value = Install> {
    let texts = prop::collection::vec(hostile(), 7);
    (texts, any::<bool>(), 0..16usize).prop_map(|(texts, plain_target, which)| {
        let mut install = full();
        if plain_target {
            install.target = RootTarget::Disk(disk(1));
        }
        let line = |text: &str| {
            text.chars()
                .filter(|c| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}'))
                .collect::<String>()
        };
        let account = &mut install.accounts[0];
        account.full_name = line(&texts[0]).replace(':', "");
        account.ssh_keys = vec![format!("{KEY} {}", line(&texts[1]))];
        install.setup.ssh_keys = vec![format!("{KEY}{}", line(&texts[2]))];
        install.setup.files = vec![OsFile {
            path: format!("/etc/x{}", line(&texts[3]).replace('/', "")),
            content: texts[4].clone(),
            mode: 0o600,
        }];
        // One field more, unfiltered: either it is refused or it does no harm.
        let text = texts[5].clone();
        match which {
            0 => install.setup.hostname = text,
            1 => install.packages = vec![text],
            2 => install.locale = text,
            3 => install.setup.ntp = vec![text],
            4 => install.kernel_arguments = text,
            5 => install.setup.timezone = Some(text),
            6 => install.setup.syslog = Some(text),
            7 => install.accounts[0].full_name = text,
            _ => {}
        }
        install
    })
}

/// A host key of OpenSSH's own making.
pub fn host_key() -> SecretText {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    run(Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&path));
    SecretText(std::fs::read_to_string(path).unwrap())
}

/// Runs a program that `cargo xtask setup` installs; it must succeed. What it wrote to its output.
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; run `cargo xtask setup test`"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{errors}");
    text
}

/// A program of the Python environment that `cargo xtask setup` makes.
pub fn python(program: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().find(|folder| folder.join("venv/bin").is_dir());
    let target = target.expect("no folder venv beside the test; run `cargo xtask setup test`");
    target.join("venv/bin").join(program)
}

/// Compares with a file under `tests/snapshots`, or writes it when `RACKBAR_BLESS` is set.
pub fn snapshot(name: &str, content: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots")
        .join(name);
    if std::env::var_os("RACKBAR_BLESS").is_some() {
        std::fs::write(&path, content).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        content == wanted,
        "{name} changed; look at it and set RACKBAR_BLESS=1 to take it:\n{content}"
    );
}

/// Finds the script in base64 between two marks.
pub fn embedded(content: &str, before: &str, after: &str) -> String {
    let text = content.split_once(before).unwrap().1.split_once(after).unwrap().0;
    let text: String = text.split_whitespace().collect();
    let output = run(Command::new("sh").args(["-c", "printf %s \"$1\" | base64 -d", "sh", &text]));
    assert!(output.starts_with("#!/bin/sh"), "{output}");
    output
}

/// Runs the calls of a finishing script with functions that only say what they were given: each call a list of words.
pub fn calls(script: &str) -> Vec<Vec<String>> {
    let body = script
        .split_once("\n}\nkeys() {")
        .unwrap()
        .1
        .split_once("\n}\n")
        .unwrap()
        .1;
    let say = |name: &str| format!("{name}() {{ printf '%s\\0' {name} \"$@\"; printf '\\001\\0'; }}\n");
    let heads: String = [
        "put",
        "account",
        "keys",
        "systemctl",
        "update_initramfs",
        "update-ca-trust",
    ]
    .map(|name| if name.contains('-') { String::new() } else { say(name) })
    .concat();
    let whole = format!("{heads}{}", body.replace("update-initramfs -u", "update_initramfs"));
    for shell in ["dash", "bash"] {
        run(Command::new(shell).args(["-n", "-c", script]));
        let _ = shell;
    }
    let output = Command::new("dash").args(["-c", &whole]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = text.split_terminator('\0').collect();
    words
        .split(|word| *word == "\u{1}")
        .filter(|call| !call.is_empty())
        .map(|call| call.iter().map(ToString::to_string).collect())
        .collect()
}

/// The content of the file that a finishing script puts at `path`.
pub fn put<'a>(calls: &'a [Vec<String>], path: &str) -> Option<&'a str> {
    calls
        .iter()
        .rfind(|call| call[0] == "put" && call[2] == path)
        .map(|call| call[3].as_str())
}

/// Base64 as coreutils writes it.
pub fn base64(text: &str) -> String {
    use std::io::Write as _;
    let mut child = Command::new("base64")
        .arg("-w0")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}
