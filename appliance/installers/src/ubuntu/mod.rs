//! Ubuntu: an autoinstall configuration (version 1) for subiquity, inside of cloud-init's user-data.
//!
//! The installer itself uses DHCP on the NIC that it booted from; netplan's file for the installed system is written at
//! the end. The disks have no names before the installer looked for them: an early command finds them and writes their
//! paths into the configuration, which subiquity reads once more after such commands.

mod netplan;
mod storage;

use rackbar_os_files::network::Base;
use rackbar_os_files::text;
use serde_json::{Value, json};

use crate::error::{For, Result};
use crate::finish::{Finish, ask};
use crate::input::{Install, Url};
use crate::quote::{base64, shell};
use crate::{AnswerFile, Rendered, boot, check, disks, document};

const AT: For = For("autoinstall");

/// A release.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UbuntuRelease {
    /// 22.04.
    Jammy,
    /// 24.04.
    Noble,
}

/// Ubuntu and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ubuntu {
    /// The release; all are told the same.
    pub release: UbuntuRelease,
    /// The live server's ISO, which the installer takes into memory.
    pub iso: Url,
    /// The archive; Ubuntu's own when `None`.
    pub mirror: Option<Url>,
    /// The archive of security updates; `mirror` when `None`.
    pub security: Option<Url>,
    /// Folder below which the installer asks for the name of each step that it begins ([`UBUNTU_STEPS`]) and of what went wrong
    /// (`failed-disks`, `failed`); ends with `/` and holds a token.
    pub steps: Option<Url>,
}

/// The steps that an installer tells of, in order: it has its answers and begins, the system is on the disk and is set up.
pub const UBUNTU_STEPS: [&str; 2] = ["started", "base"];

/// Asks for the name of a step. curl(1) reads the URL from its input: an argument would show its token to every process.
fn teller(steps: &Url) -> String {
    let options = r#"url = "%s%s"\nnoproxy = "*"\nsilent\nmax-time = 20\nretry = 3\noutput = "/dev/null"\n"#;
    format!(
        "printf '{options}' {} \"$1\" | curl --config - || true\n",
        shell(steps.as_str())
    )
}

/// The command that tells of a step, or of a failure.
fn tells(step: &str) -> String {
    format!("sh /run/rackbar/tell {step}")
}

/// Renders user-data and meta-data.
pub(crate) fn render(install: &Install, system: &Ubuntu) -> Result<Rendered> {
    let bases = check::install(AT, install)?;
    if install.packages.iter().any(|package| package.starts_with('@')) {
        return AT.cannot("packages", "groups of packages");
    }
    let private = |path: &str, content: &str| json!({"path": path, "permissions": "0600", "encoding": "b64", "content": base64(content)});
    // Of the installer's own system, in memory: not in its commands, which end up in its log.
    let mut files = vec![
        private("/run/rackbar/finish", finish(install, &bases)?.text()),
        private("/run/rackbar/done", &ask(&install.done)),
    ];
    files.extend(
        system
            .steps
            .as_ref()
            .map(|steps| private("/run/rackbar/tell", &teller(steps))),
    );
    let user_data = json!({"autoinstall": autoinstall(install, system)?, "write_files": files});
    let mut arguments = vec![
        "ip=dhcp".to_owned(),
        boot::bootif(install),
        format!("url={}", system.iso.as_str()),
        "autoinstall".to_owned(),
        format!("ds=nocloud-net;s={}", install.answers.as_str()),
        "cloud-config-url=/dev/null".to_owned(),
    ];
    if !boot::extra(AT, install)?.is_empty() {
        // What stands behind it is the installed system's too.
        arguments.push("---".to_owned());
    }
    let user_data = format!("#cloud-config\n{}", document::yaml(user_data));
    Ok(Rendered {
        files: vec![
            AnswerFile::new("user-data", user_data),
            AnswerFile::new("meta-data", text::meta_data(&install.setup)),
        ],
        boot: boot::linux(AT, install, ["casper/vmlinuz", "casper/initrd"], &arguments)?,
    })
}

fn autoinstall(install: &Install, system: &Ubuntu) -> Result<Value> {
    let setup = &install.setup;
    let passwords = install.root_password.is_some() || install.accounts.iter().any(|a| a.password.is_some());
    let mut packages = vec!["curl", "sudo", "systemd-timesyncd"];
    if setup.syslog.is_some() {
        packages.push("rsyslog");
    }
    packages.extend(install.packages.iter().map(String::as_str));
    let mut all = json!({
        "version": 1,
        "early-commands": [early(install, system)],
        "refresh-installer": {"update": false},
        "locale": install.locale,
        "keyboard": {"layout": install.keyboard},
        "timezone": setup.timezone.as_deref().unwrap_or("Etc/UTC"),
        "network": {"version": 2, "ethernets": {"rackbar0": {
            "match": {"macaddress": install.boot_mac.to_string()}, "dhcp4": true,
        }}},
        "apt": apt(system),
        "storage": storage::storage(install),
        // Whose presence says that nobody is to be asked for an account: they are made by the script at the end.
        "user-data": {"users": [], "disable_root": false, "hostname": setup.hostname, "preserve_hostname": true,
            "manage_etc_hosts": false, "ssh_deletekeys": setup.ssh_host_key.0.is_empty()},
        "ssh": {"install-server": true, "allow-pw": passwords},
        "packages": packages,
        "late-commands": late(install, system),
        "shutdown": "reboot",
    });
    if system.steps.is_some() {
        all["error-commands"] = json!([tells("failed")]);
    }
    if let Some(proxy) = check::proxy(AT, install)? {
        all["proxy"] = proxy.as_str().into();
    }
    Ok(all)
}

/// Finds the disks and puts their paths where the configuration has names of ours.
fn early(install: &Install, system: &Ubuntu) -> String {
    let mut script = String::new();
    if system.steps.is_some() {
        let [started, _] = UBUNTU_STEPS;
        let failed = tells("failed-disks");
        script = format!("{};\ntrap 'test \"$?\" = 0 || {failed}' EXIT;\n", tells(started));
    }
    script.push_str(&disks::find(&install.target));
    for (index, _) in install.target.disks().iter().enumerate() {
        let name = storage::placeholder(index);
        script.push_str(&format!(
            "sed -i \"s|{name}|$disk{index}|g\" /autoinstall.yaml || exit 1;\n"
        ));
    }
    script
}

fn apt(system: &Ubuntu) -> Value {
    // An archive that fails is told, not passed by for what lies on the ISO.
    let mut apt = json!({"preserve_sources_list": false, "geoip": false, "fallback": "abort"});
    let archive = |url: &Url| json!([{"arches": ["default"], "uri": url.as_str()}]);
    if let Some(mirror) = &system.mirror {
        apt["primary"] = archive(mirror);
    }
    if let Some(security) = system.security.as_ref().or(system.mirror.as_ref()) {
        apt["security"] = archive(security);
    }
    apt
}

fn late(install: &Install, system: &Ubuntu) -> Vec<String> {
    let [_, base] = UBUNTU_STEPS;
    let mut commands: Vec<String> = system.steps.iter().map(|_| tells(base)).collect();
    if !install.setup.networks.is_empty() {
        // The installer's own network is not the system's.
        commands
            .push("rm -f /target/etc/netplan/*.yaml /target/etc/cloud/cloud.cfg.d/90-installer-network.cfg".to_owned());
    }
    commands.extend(
        [
            "install -m 0600 /run/rackbar/finish /target/etc/rackbar-finish",
            "curtin in-target --target=/target -- sh /etc/rackbar-finish",
            "rm -f /target/etc/rackbar-finish",
            "curl --config /run/rackbar/done",
        ]
        .map(str::to_owned),
    );
    commands
}

fn finish(install: &Install, bases: &[Base]) -> Result<Finish> {
    let setup = &install.setup;
    let mut script = Finish::new();
    script.accounts(install);
    script.identity(AT, install)?;
    script.file("/etc/hostname", 0o644, &format!("{}\n", setup.hostname));
    script.file("/etc/hosts", 0o644, &text::hosts(setup, ""));
    if !bases.is_empty() {
        for (name, content) in netplan::files(setup, bases) {
            script.file(&format!("/etc/netplan/{name}"), 0o600, &content);
        }
        let content = "network: {config: disabled}\n";
        script.file("/etc/cloud/cloud.cfg.d/99-rackbar-network.cfg", 0o644, content);
    }
    if !setup.ntp.is_empty() {
        let content = format!("[Time]\nNTP={}\n", setup.ntp.join(" "));
        script.file("/etc/systemd/timesyncd.conf.d/rackbar.conf", 0o644, &content);
    }
    script.role_files(install);
    Ok(script)
}
