//! Agama's JSON profile. What Agama would do to its own network at once is not in it: the installer stays on the NIC
//! that it booted from.

use rackbar_os_files::network::Base;
use serde_json::{Value, json};

use super::{Suse, SuseRelease, done, full_name, limits, packages};
use crate::error::{For, Result};
use crate::finish::Finish;
use crate::input::Install;
use crate::{AnswerFile, Rendered, boot, check, disks, document, network_manager};

const AT: For = For("agama");

pub(super) fn render(install: &Install, system: &Suse) -> Result<Rendered> {
    let bases = check::install(AT, install)?;
    limits(AT, install, system)?;
    let setup = &install.setup;
    let sources: Vec<Value> = setup
        .ntp
        .iter()
        .map(|server| json!({"type": "server", "address": server, "iburst": true}))
        .collect();
    let repositories: Vec<Value> = system
        .repositories
        .iter()
        .map(|(name, url)| json!({"alias": name, "url": url.as_str()}))
        .collect();
    let post = post(install, &bases)?;
    let mut profile = json!({
        "product": {"id": product(system)},
        "hostname": {"static": full_name(install)},
        "l10n": {"locale": install.locale, "keymap": install.keyboard,
            "timezone": setup.timezone.as_deref().unwrap_or("Etc/UTC")},
        "software": {"packages": packages(install), "extraRepositories": repositories},
        "bootloader": {"extraKernelParams": boot::extra(AT, install)?},
        "storage": storage(install)?,
        "scripts": {"pre": [{"name": "rackbar-disks.sh", "content": guard(install)}], "post": post},
    });
    if !sources.is_empty() {
        profile["ntp"] = json!({"sources": sources});
    }
    if let Some(proxy) = check::proxy(AT, install)? {
        profile["proxy"] = json!({"enabled": true, "httpProxy": proxy.as_str(), "httpsProxy": proxy.as_str(),
            "noProxy": "localhost,127.0.0.1,::1"});
    }
    people(&mut profile, install);
    let base = system.source.as_str().trim_end_matches('/');
    let arguments = [
        format!("root=live:{base}/LiveOS/squashfs.img"),
        format!("inst.auto={}", install.answers.file("profile.json")),
        format!("inst.install_url={base}"),
        "inst.finish=reboot".to_owned(),
        "ip=dhcp".to_owned(),
        "rd.neednet=1".to_owned(),
        boot::bootif(install),
    ];
    let files = ["boot/x86_64/loader/linux", "boot/x86_64/loader/initrd"];
    Ok(Rendered {
        files: vec![AnswerFile::new("profile.json", document::json(profile))],
        boot: boot::linux(AT, install, files, &arguments)?,
    })
}

/// What is run when the system is there.
fn post(install: &Install, bases: &[Base]) -> Result<Vec<Value>> {
    let mut finish = Finish::new();
    finish.accounts(install);
    finish.identity(AT, install)?;
    finish.names(bases);
    for (name, content) in network_manager::keyfiles(&install.setup, bases) {
        let path = format!("/etc/NetworkManager/system-connections/{name}");
        finish.file(&path, 0o600, &content);
    }
    finish.role_files(install);
    let mut post = Vec::new();
    if !bases.is_empty() {
        // The installer's own network is not the system's.
        let content = "#!/bin/sh\nrm -f /etc/NetworkManager/system-connections/*\n";
        post.push(json!({"name": "rackbar-network.sh", "chroot": true, "content": content}));
    }
    let here = format!("#!/bin/sh\nset -eu\n{}", finish.here());
    post.push(json!({"name": "rackbar-finish.sh", "chroot": true, "content": here}));
    post.push(json!({"name": "rackbar-done.sh", "chroot": false, "content": done(install)}));
    Ok(post)
}

fn product(system: &Suse) -> &'static str {
    match system.release {
        SuseRelease::Leap16 | SuseRelease::Leap15 => "openSUSE_Leap",
        SuseRelease::Sles16 | SuseRelease::Sles15 => "SLES",
    }
}

/// Root and the first account, without one of which Agama begins nothing. All accounts are made at the end.
fn people(profile: &mut Value, install: &Install) {
    let keys = |keys: &[String]| keys.iter().map(|key| key.trim().to_owned()).collect::<Vec<_>>();
    let mut root = json!({"sshPublicKeys": keys(check::root_keys(install))});
    if let Some(hash) = &install.root_password {
        root["password"] = hash.as_str().into();
        root["hashedPassword"] = true.into();
    }
    profile["root"] = root;
    if let Some(first) = check::everybody(install).first() {
        // `*` is the hash of no password.
        let password = first.password.as_ref().map_or("*", |hash| hash.as_str());
        profile["user"] = json!({"userName": first.name, "fullName": first.full_name, "password": password,
            "hashedPassword": true, "sshPublicKeys": keys(&first.ssh_keys)});
    }
}

fn storage(install: &Install) -> Result<Value> {
    let disk = install.target.disks().first().map(disks::stable).unwrap_or_default();
    if disk.contains('*') {
        return AT.cannot(
            "target.disks[0]",
            "a disk of which only the serial number is known: it needs the WWN or the path",
        );
    }
    // Agama adds what the firmware starts from, on the same disk.
    Ok(json!({
        "boot": {"configure": true, "device": "system"},
        "drives": [{
            "search": {"condition": {"name": format!("/dev/{disk}")}, "ifNotFound": "error"},
            "alias": "system",
            "ptableType": "gpt",
            "partitions": [
                {"search": "*", "delete": true},
                {"filesystem": {"path": "/", "type": "ext4"}, "size": {"min": "8 GiB"}},
            ],
        }],
    }))
}

/// Agama goes on behind a script that failed, so this one never ends then.
fn guard(install: &Install) -> String {
    format!(
        "#!/bin/sh\n(\n{})\nif [ \"$?\" != 0 ]; then\n  echo 'rackbar: the install stops here' > /dev/console\n  \
         while :; do sleep 3600; done\nfi\n",
        disks::guard(&install.target)
    )
}
