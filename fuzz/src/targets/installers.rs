//! What comes with an installer's medium.

use rackbar_installers::{Esxi, Install, NetBoot, System, render};
use rackbar_model::{DiskRef, FirmwareMode, MacAddr, OsNetwork, OsSetup, RootTarget};

const HASH: &str =
    "$6$rackbarsalt$SVtNWWz7hDRJXz3vEiBB3qKFmHKLjPMfj5AbzmT9MkKaaVYZ2ZUsrAbtqlgoH3YHfOtJTx5eW5HFaYnWXmeFY.";

/// A medium's `boot.cfg` is refused, or nothing but the medium's own files is fetched from where we say.
pub(super) fn esxi_boot_cfg(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(system) = system(text) else { return };
    let Some(install) = install() else { return };
    let Ok(rendered) = render(&install, &system) else {
        return;
    };
    let NetBoot::Ipxe { files, .. } = &rendered.boot else {
        panic!("no iPXE")
    };
    for file in files {
        assert!(
            !file.starts_with('/') && file.split('/').all(|part| part != ".."),
            "{file} is outside of the medium"
        );
    }
    let boot_cfg = rendered.files.last().map_or("", |file| file.content.as_str());
    let prefixes = boot_cfg.lines().filter(|line| line.trim_start().starts_with("prefix="));
    assert_eq!(prefixes.count(), 1, "{boot_cfg}");
    assert!(boot_cfg.contains(" ks=http://10.0.0.2/a/ks.cfg ") || boot_cfg.contains("=ks=http://10.0.0.2/a/ks.cfg "));
}

/// A file of Talos' secrets is refused, or none of them is empty.
pub(super) fn talos_secrets(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(cluster) = rackbar_installers::talos_secrets(text) else {
        return;
    };
    let all = [&cluster.id, &cluster.secret, &cluster.os.key, &cluster.service_account];
    assert!(all.iter().all(|secret| !secret.0.is_empty()));
}

fn system(text: &str) -> Option<System> {
    Some(System::Esxi(Esxi {
        source: "http://10.0.0.2/esxi".parse().ok()?,
        boot_cfg: text.to_owned(),
    }))
}

fn install() -> Option<Install> {
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let network = OsNetwork {
        name: "mgmt".into(),
        nics: vec![mac],
        bond: None,
        vlan: None,
        mtu: None,
        addresses: Vec::new(),
        gateway: None,
    };
    Some(Install {
        setup: OsSetup {
            hostname: "node-001".into(),
            networks: vec![network],
            ..OsSetup::default()
        },
        target: RootTarget::Disk(DiskRef {
            wwn: Some("naa.5000c500a1b2c301".into()),
            ..DiskRef::default()
        }),
        firmware: FirmwareMode::Uefi,
        boot_mac: mac,
        root_password: Some(HASH.parse().ok()?),
        accounts: Vec::new(),
        packages: Vec::new(),
        locale: "C".into(),
        keyboard: "us".into(),
        kernel_arguments: String::new(),
        answers: "http://10.0.0.2/a/".parse().ok()?,
        done: "http://10.0.0.2/done".parse().ok()?,
    })
}
