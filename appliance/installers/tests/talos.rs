//! Talos' machine configurations: as written, as a YAML parser reads them, and with hostile text in them. `talosctl
//! validate` is in no registry.

#![allow(clippy::unwrap_used)]

mod common;

use common::yaml::Reader;
use common::{full, hostile, plain, snapshot};
use proptest::prelude::*;
use rackbar_installers::{
    Install, NetBoot, System, Talos, TalosAuthority, TalosCluster, TalosKind, render, talos_secrets,
};
use rackbar_model::{DiskRef, OsFile, RootTarget, SecretText};

fn authority(name: &str) -> TalosAuthority {
    TalosAuthority {
        certificate: format!("{name}-certificate"),
        key: SecretText(format!("{name}-private")),
    }
}

fn talos(kind: TalosKind) -> Talos {
    let secret = |name: &str| SecretText(format!("{name}-secret"));
    Talos {
        kind,
        cluster: TalosCluster {
            name: "rack".into(),
            endpoint: "https://10.0.0.10:6443".into(),
            id: secret("id"),
            secret: secret("cluster"),
            machine_token: secret("machine"),
            bootstrap_token: secret("bootstrap"),
            secretbox: secret("secretbox"),
            os: authority("os"),
            kubernetes: authority("kubernetes"),
            aggregator: authority("aggregator"),
            etcd: authority("etcd"),
            service_account: secret("account"),
        },
        installer: "10.0.0.2:5000/siderolabs/installer:v1.11.0".into(),
        names: vec!["10.0.0.10".into(), "talos.rack.example".into()],
    }
}

/// What Talos can be: no accounts, SSH, packages, syslog.
fn fit(mut install: Install) -> Install {
    install.target = plain().target;
    install.accounts.clear();
    install.packages.clear();
    install.root_password = None;
    install.setup.ssh_keys.clear();
    install.setup.machine_id.clear();
    install.setup.syslog = None;
    install.setup.timezone = None;
    for file in &mut install.setup.files {
        file.path = "/var/lib/motd".into();
    }
    install
}

fn config(install: &Install, system: &Talos) -> String {
    render(install, &System::Talos(Box::new(system.clone())))
        .unwrap()
        .files
        .remove(0)
        .content
}

#[test]
fn talos_is_as_it_was_and_yaml() {
    let mut reader = Reader::start();
    for (name, kind) in [("controlplane", TalosKind::Controlplane), ("worker", TalosKind::Worker)] {
        let content = config(&fit(full()), &talos(kind));
        let read = reader.read(&content);
        assert_eq!(read["machine"]["type"], name);
        snapshot(&format!("talos-{name}.yaml"), &content);
    }
    snapshot("talos-plain.yaml", &config(&fit(plain()), &talos(TalosKind::Worker)));
}

#[test]
fn a_worker_gets_no_private_key_of_the_cluster() {
    let content = config(&fit(full()), &talos(TalosKind::Worker));
    assert!(
        !content.contains("-private") && !content.contains("secretbox") && !content.contains("account-secret"),
        "{content}"
    );
    let whole = config(&fit(full()), &talos(TalosKind::Controlplane));
    assert_eq!(whole.matches("-private").count(), 4, "{whole}");
    let shown = format!("{:?}", talos(TalosKind::Controlplane));
    assert!(!shown.contains("-private") && !shown.contains("-secret"), "{shown}");
}

#[test]
fn talos_gets_bond_vlan_and_the_one_disk() {
    let machine = Reader::start().read(&config(&fit(full()), &talos(TalosKind::Worker)))["machine"].clone();
    let interfaces = machine["network"]["interfaces"].as_array().unwrap();
    assert_eq!(interfaces[0]["deviceSelector"]["permanentAddr"], "02:00:00:00:00:01");
    assert_eq!(interfaces[0]["dhcp"], true);
    assert_eq!(interfaces[1]["bond"]["deviceSelectors"].as_array().unwrap().len(), 2);
    assert_eq!(interfaces[1]["routes"][0]["gateway"], "10.1.0.1");
    assert_eq!(interfaces[1]["vlans"][0]["vlanId"], 20);
    assert_eq!(interfaces[1]["vlans"][0]["addresses"][0], "2001:db8:20::5/64");
    let selector = &machine["install"]["diskSelector"];
    assert_eq!(
        (&selector["wwid"], &selector["serial"]),
        (&"naa.5000c500a1b2c301".into(), &"SN 0001".into())
    );
    assert_eq!(machine["time"]["servers"][1], "ntp.rack.example");
    assert_eq!(machine["certSANs"][1], "talos.rack.example");
    let NetBoot::Linux {
        kernel, command_line, ..
    } = render(&fit(full()), &System::Talos(Box::new(talos(TalosKind::Worker))))
        .unwrap()
        .boot
    else {
        panic!("no Linux")
    };
    assert_eq!(kernel, "kernel-amd64");
    assert!(
        command_line.contains("talos.config=http://10.0.0.2/boot/v1/answers/0123abcd/config.yaml "),
        "{command_line}"
    );
}

#[test]
fn what_talos_has_no_words_for_is_refused_by_name() {
    let refused = |change: fn(&mut Install)| {
        let mut install = fit(full());
        change(&mut install);
        render(&install, &System::Talos(Box::new(talos(TalosKind::Worker))))
            .unwrap_err()
            .to_string()
    };
    type Change = (fn(&mut Install), &'static str);
    let changes: [Change; 10] = [
        (|install| install.packages = vec!["tmux".into()], "packages"),
        (|install| install.accounts = full().accounts, "accounts"),
        (|install| install.root_password = full().root_password, "root_password"),
        (
            |install| install.setup.ssh_keys = full().setup.ssh_keys,
            "setup.ssh_keys",
        ),
        (
            |install| install.setup.machine_id = full().setup.machine_id,
            "setup.machine_id",
        ),
        (|install| install.setup.syslog = full().setup.syslog, "setup.syslog"),
        (
            |install| install.setup.timezone = full().setup.timezone,
            "setup.timezone",
        ),
        (|install| install.target = full().target, "target"),
        (
            |install| install.setup.files[0].path = "/etc/motd".into(),
            "setup.files[0].path",
        ),
        (
            |install| {
                install.target = RootTarget::Disk(DiskRef {
                    by_path: Some("pci-0000:00:05.0".into()),
                    ..DiskRef::default()
                });
            },
            "target.disks[0]",
        ),
    ];
    for (change, field) in changes {
        let message = refused(change);
        assert!(
            message.starts_with(&format!("talos: {field}: the installer cannot express ")),
            "{message}"
        );
    }
    let mut system = talos(TalosKind::Worker);
    system.cluster.endpoint = "http://10.0.0.10:6443".into();
    let message = render(&fit(full()), &System::Talos(Box::new(system)))
        .unwrap_err()
        .to_string();
    assert!(message.starts_with("talos: cluster.endpoint: "), "{message}");
}

#[test]
fn hostile_text_never_changes_a_talos_config() {
    let reader = std::cell::RefCell::new(Reader::start());
    let model = reader
        .borrow_mut()
        .read(&config(&fit(full()), &talos(TalosKind::Controlplane)));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(128));
    let case = |(texts, which): (Vec<String>, usize)| {
        let mut install = fit(full());
        install.setup.files = vec![OsFile {
            path: format!("/var/{}", texts[0].replace(['/', '\n'], "")),
            content: texts[1].clone(),
            mode: 0o600,
        }];
        let mut system = talos(TalosKind::Controlplane);
        system.cluster.secret = SecretText(texts[2].clone());
        system.cluster.os.certificate = texts[2].clone();
        match which {
            0 => system.names = vec![texts[3].clone()],
            1 => system.cluster.name = texts[3].clone(),
            2 => system.installer = texts[3].clone(),
            3 => system.cluster.endpoint = texts[3].clone(),
            4 => install.setup.domain = Some(texts[3].clone()),
            _ => {}
        }
        let Ok(rendered) = render(&install, &System::Talos(Box::new(system))) else {
            return Ok(());
        };
        let mut read = reader.borrow_mut().read(&rendered.files[0].content);
        prop_assert_eq!(read["machine"]["files"][0]["content"].as_str(), Some(texts[1].as_str()));
        prop_assert_eq!(read["cluster"]["secret"].as_str(), Some(texts[2].as_str()));
        prop_assert_eq!(read["machine"]["ca"]["crt"].as_str(), Some(texts[2].as_str()));
        prop_assert_eq!(
            &read["machine"]["install"]["diskSelector"],
            &model["machine"]["install"]["diskSelector"]
        );
        read["machine"]["files"] = model["machine"]["files"].clone();
        read["machine"]["ca"] = model["machine"]["ca"].clone();
        read["cluster"]["secret"] = model["cluster"]["secret"].clone();
        if which > 4 {
            prop_assert_eq!(read, model.clone());
        }
        Ok(())
    };
    runner
        .run(&(prop::collection::vec(hostile(), 4), 0..12usize), case)
        .unwrap();
}

/// As `talosctl gen secrets` writes it.
const SECRETS: &str = "cluster:
    id: aWQ=
    secret: c2VjcmV0
secrets:
    bootstraptoken: abcdef.0123456789abcdef
    secretboxencryptionsecret: Ym94
trustdinfo:
    token: ghijkl.fedcba9876543210
certs:
    etcd:
        crt: ZXRjZA==
        key: ZXRjZC1rZXk=
    k8s:
        crt: azhz
        key: azhzLWtleQ==
    k8saggregator:
        crt: YWdn
        key: YWdnLWtleQ==
    k8sserviceaccount:
        key: c2E=
    os:
        crt: b3M=
        key: b3Mta2V5
";

#[test]
fn secrets_are_read_as_talosctl_writes_them_and_what_is_missing_is_named() {
    let cluster = talos_secrets(SECRETS).unwrap();
    let read = [
        &cluster.id.0,
        &cluster.secret.0,
        &cluster.machine_token.0,
        &cluster.bootstrap_token.0,
        &cluster.secretbox.0,
        &cluster.service_account.0,
        &cluster.os.certificate,
        &cluster.kubernetes.key.0,
        &cluster.aggregator.key.0,
        &cluster.etcd.certificate,
    ];
    let wanted = [
        "aWQ=",
        "c2VjcmV0",
        "ghijkl.fedcba9876543210",
        "abcdef.0123456789abcdef",
        "Ym94",
        "c2E=",
        "b3M=",
        "azhzLWtleQ==",
        "YWdnLWtleQ==",
        "ZXRjZA==",
    ];
    assert_eq!(read.map(String::as_str), wanted);
    let quoted = SECRETS.replace("id: aWQ=", "id: \"aWQ=\" ");
    assert_eq!(talos_secrets(&quoted), Ok(cluster));
    let said = |text: &str| talos_secrets(text).unwrap_err().to_string();
    assert!(said("").contains("it has no cluster.id"), "{}", said(""));
    let without = SECRETS.replace("        key: b3Mta2V5\n", "");
    assert!(said(&without).contains("it has no certs.os.key"), "{}", said(&without));
    let twice = SECRETS.replace("    secret: c2VjcmV0\n", "    id: c2VjcmV0\n");
    assert!(said(&twice).contains("line 3: "), "{}", said(&twice));
    for (line, hidden) in [
        ("    id: <hidden>", "hidden"),
        ("    id: |hidden", "hidden"),
        ("id", "id\n"),
    ] {
        let text = SECRETS.replace("    id: aWQ=", line);
        let said = said(&text);
        assert!(said.contains("line 2: ") && !said.contains(hidden), "{said}");
    }
    assert!(said(&" ".repeat(300 << 10)).contains("256 KiB"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn secrets_that_are_none_are_refused_and_not_said_again(text in ".{0,200}", at in 0..20usize) {
        let lines: Vec<&str> = SECRETS.lines().collect();
        let mut all = lines.clone();
        all.insert(at, &text);
        // Either it changes nothing that is read, or it is refused.
        let _ = talos_secrets(&all.join("\n"));
        prop_assert!(talos_secrets(&text).is_err());
    }
}
