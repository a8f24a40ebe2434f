//! ESXi's files: as written, its script by the shell that it has, and with hostile text in them. VMware's own reader is
//! in no registry.

#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use common::{full, hostile, plain, run, snapshot};
use proptest::prelude::*;
use rackbar_installers::{Esxi, Install, NetBoot, System, render};
use rackbar_model::BondMode;

const BOOT_CFG: &str = "bootstate=0\ntitle=Loading ESXi installer\ntimeout=5\nprefix=\nkernel=/b.b00\nkernelopt=runweasel cdromBoot\n\
modules=/jumpstrt.gz --- /useropts.gz --- /features.gz\nbuild=8.0.3-0.0.24022510\nupdated=0\n";

fn esxi() -> Esxi {
    Esxi {
        source: "http://10.0.0.2/mirror/esxi-8".parse().unwrap(),
        boot_cfg: BOOT_CFG.into(),
    }
}

/// What ESXi can be: no accounts, packages, files; bonds without LACP.
fn fit(mut install: Install) -> Install {
    install.target = plain().target;
    install.accounts.clear();
    install.packages.clear();
    install.root_password = full().root_password;
    install.setup.user = String::new();
    install.setup.machine_id.clear();
    install.setup.files.clear();
    install.setup.proxy = None;
    install.setup.timezone = None;
    for network in &mut install.setup.networks {
        network.bond = network.bond.map(|_| BondMode::ActiveBackup);
    }
    install
}

fn answers(install: &Install, system: &Esxi) -> [String; 2] {
    let files = render(install, &System::Esxi(system.clone())).unwrap().files;
    assert_eq!((files[0].name, files[1].name), ("ks.cfg", "boot.cfg"));
    [files[0].content.clone(), files[1].content.clone()]
}

/// Runs the script of the first start with an `esxcli` that says how it was called and has three NICs.
fn first_start(kickstart: &str) -> (String, String) {
    let script = kickstart.split_once("%firstboot --interpreter=busybox\n").unwrap().1;
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("authorized_keys");
    std::fs::write(&keys, "").unwrap();
    let tool = "#!/bin/sh\nif [ \"$*\" = 'network nic list' ]; then\n  for n in 0 1 2; do echo \"vmnic$n  0000:02:0$n.0  ntg3  Up  Up  1000  Full  \
        02:00:00:00:00:0$((n+1))  1500  NIC\"; done\nelse echo \"$*\"; fi\n";
    for name in ["esxcli", "vim-cmd"] {
        let path = folder.path().join(name);
        std::fs::write(&path, tool).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = script.replace("/etc/ssh/keys-root/authorized_keys", keys.to_str().unwrap());
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let said = run(Command::new("/bin/busybox")
        .args(["sh", "-euc", &script])
        .env("PATH", path));
    (said, std::fs::read_to_string(keys).unwrap())
}

#[test]
fn esxi_is_as_it_was_and_busybox_runs_its_script() {
    for (name, install) in [("plain", fit(plain())), ("full", fit(full()))] {
        let [kickstart, boot_cfg] = answers(&install, &esxi());
        snapshot(&format!("esxi-{name}.cfg"), &kickstart);
        snapshot(&format!("esxi-{name}-boot.cfg"), &boot_cfg);
        snapshot(&format!("esxi-{name}-first.txt"), &first_start(&kickstart).0);
    }
}

#[test]
fn the_first_start_knows_nics_by_mac_address() {
    let [kickstart, _] = answers(&fit(full()), &esxi());
    let (said, keys) = first_start(&kickstart);
    for line in [
        "network vswitch standard uplink add --uplink-name=vmnic1 --vswitch-name=vSwitch1",
        "network vswitch standard policy failover set --vswitch-name=vSwitch1 --active-uplinks=vmnic1 --standby-uplinks=vmnic2",
        "network vswitch standard portgroup set --portgroup-name=storage --vlan-id=20",
        "network ip interface ipv4 set --interface-name=vmk1 --type=static --ipv4=10.1.0.5 --netmask=255.255.255.0",
        "network ip interface ipv6 address add --interface-name=vmk2 --ipv6=2001:db8:20::5/64",
        "system ntp set --server=10.1.0.2 --server=ntp.rack.example --enabled=true",
        "system syslog config set --loghost=udp://10.0.0.2:514",
    ] {
        assert!(said.lines().any(|other| other == line), "{line}\n{said}");
    }
    assert_eq!(keys, format!("{}\n", common::KEY));
}

#[test]
fn the_loader_gets_every_file_by_url() {
    let rendered = render(&fit(full()), &System::Esxi(esxi())).unwrap();
    let NetBoot::Ipxe { script, files } = &rendered.boot else {
        panic!("{:?}", rendered.boot)
    };
    assert_eq!(
        script,
        "#!ipxe\nkernel http://10.0.0.2/mirror/esxi-8/efi/boot/bootx64.efi -c http://10.0.0.2/boot/v1/answers/0123abcd/boot.cfg\nboot\n"
    );
    assert_eq!(
        files,
        &[
            "efi/boot/bootx64.efi",
            "b.b00",
            "jumpstrt.gz",
            "useropts.gz",
            "features.gz"
        ]
    );
    let boot_cfg = &rendered.files[1].content;
    assert!(boot_cfg.starts_with("prefix=http://10.0.0.2/mirror/esxi-8\n") && boot_cfg.matches("prefix=").count() == 1);
    assert!(
        boot_cfg.contains("\nmodules=jumpstrt.gz --- useropts.gz --- features.gz\n"),
        "{boot_cfg}"
    );
    assert!(boot_cfg.contains(
        "\nkernelopt=runweasel ks=http://10.0.0.2/boot/v1/answers/0123abcd/ks.cfg netdevice=02:00:00:00:00:01 "
    ));
    assert!(!format!("{rendered:?}").contains("0123abcd"));
}

#[test]
fn what_esxi_cannot_do_is_refused_by_name() {
    type Change = (fn(&mut Install), &'static str);
    let changes: [Change; 12] = [
        (|install| install.locale = "de_DE.UTF-8".into(), "locale"),
        (|install| install.packages = vec!["tmux".into()], "packages"),
        (|install| install.accounts = full().accounts, "accounts"),
        (|install| install.setup.user = "ops".into(), "setup.user"),
        (|install| install.setup.files = full().setup.files, "setup.files"),
        (|install| install.setup.proxy = full().setup.proxy, "setup.proxy"),
        (|install| install.target = full().target, "target"),
        (|install| install.root_password = None, "root_password"),
        (
            |install| install.done = "https://10.0.0.2/done".parse().unwrap(),
            "done",
        ),
        (|install| install.setup.networks[1].bond = Some(BondMode::Lacp), "setup"),
        (|install| install.setup.networks.clear(), "setup.networks"),
        (
            |install| install.setup.networks[0].addresses = vec!["2001:db8::5/64".into()],
            "setup.networks",
        ),
    ];
    for (change, field) in changes {
        let mut install = fit(full());
        change(&mut install);
        let message = render(&install, &System::Esxi(esxi())).unwrap_err().to_string();
        assert!(message.starts_with(&format!("esxi: {field}")), "{message}");
    }
    for text in [
        "",
        "kernel=/../x\nmodules=/a\nkernelopt=b\n",
        "nonsense\n",
        "kernel=/b\nkernelopt=\u{e4}\nmodules=/c\n",
    ] {
        let system = Esxi {
            boot_cfg: text.into(),
            ..esxi()
        };
        let message = render(&fit(full()), &System::Esxi(system)).unwrap_err().to_string();
        assert!(message.starts_with("esxi: boot_cfg: "), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn hostile_text_never_changes_an_esxi_file(texts in prop::collection::vec(hostile(), 3), which in 0..8usize) {
        let mut install = fit(full());
        let mut system = esxi();
        install.setup.ssh_keys = vec![format!("{} {}", common::KEY, texts[0])];
        match which {
            0 => install.setup.domain = Some(texts[1].clone()),
            1 => install.setup.ntp = vec![texts[1].clone()],
            2 => install.setup.syslog = Some(texts[1].clone()),
            3 => install.kernel_arguments = texts[1].clone(),
            4 => system.boot_cfg = BOOT_CFG.replace("Loading", &texts[1].replace(['\n', '\r'], "")),
            5 => install.setup.networks[0].name = texts[1].clone(),
            _ => {}
        }
        let Ok(rendered) = render(&install, &System::Esxi(system)) else { return Ok(()) };
        let model = answers(&fit(full()), &esxi());
        let heads = |text: &str| text.lines().take_while(|line| *line != "%firstboot --interpreter=busybox")
            .map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
        prop_assert_eq!(heads(&rendered.files[0].content), heads(&model[0]));
        let sections = |text: &str| text.lines().filter(|line| line.starts_with('%')).map(str::to_owned).collect::<Vec<_>>();
        prop_assert_eq!(sections(&rendered.files[0].content), sections(&model[0]));
        let names = |text: &str| text.lines().map(|line| line.split('=').next().unwrap().to_owned()).collect::<Vec<_>>();
        prop_assert_eq!(names(&rendered.files[1].content), names(&model[1]));
        let (_, keys) = first_start(&rendered.files[0].content);
        prop_assert_eq!(keys, format!("{}\n", install.setup.ssh_keys[0].trim()));
    }

    #[test]
    fn a_boot_cfg_leads_nowhere_but_to_the_medium(lines in prop::collection::vec(boot_cfg_line(), 0..8)) {
        let system = Esxi { boot_cfg: lines.concat(), ..esxi() };
        let Ok(rendered) = render(&fit(full()), &System::Esxi(system)) else { return Ok(()) };
        let NetBoot::Ipxe { files, .. } = &rendered.boot else { panic!("{:?}", rendered.boot) };
        for file in files {
            prop_assert!(!file.starts_with('/') && !file.contains(':') && !file.split('/').any(|part| part == ".."), "{}", file);
        }
        let content = &rendered.files[1].content;
        prop_assert_eq!(content.lines().filter(|line| line.trim().starts_with("prefix=")).count(), 1, "{}", content);
        for line in content.lines().filter(|line| line.starts_with("kernelopt=")) {
            prop_assert_eq!(line.matches("ks=").count(), 1, "{}", line);
        }
    }
}

fn boot_cfg_line() -> impl Strategy<Value = String> {
    let known = [
        "kernel=/b.b00\n",
        "modules=/a.v00 --- /b.v00\n",
        "kernelopt=runweasel cdromBoot\r\n",
        "kernelopt=ks=http://elsewhere/ks.cfg\n",
        "prefix=http://elsewhere/\n",
        " prefix =x\n",
        "kernel=../../x\n",
        "modules=http://elsewhere/x --- /c\n",
        "title=a=b\n",
        "\rprefix=y\n",
    ];
    let known = prop::sample::select(known.map(str::to_owned).to_vec());
    let broken = hostile().prop_map(|text| format!("modules={text}\n"));
    prop_oneof![6 => known, 1 => broken]
}
