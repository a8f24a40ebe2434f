//! A configuration as it grows. The specification is that of Ignition 3.3.0; `overwrite` because the image may have a
//! file there.

use std::collections::BTreeMap;

use rackbar_model::OsFile;
use rackbar_os_files::network::{Base, links, networkd};
use rackbar_os_files::text;
use serde_json::{Value, json};

use super::{AT, IgnitionKind};
use crate::error::Result;
use crate::input::{Account, CryptHash, Install};
use crate::quote::{base64, shell};
use crate::{boot, check, document, network_manager};

/// Folders that are no part of what is kept, or that are the image's.
const FORBIDDEN: [&str; 10] = ["usr", "bin", "sbin", "lib", "lib64", "run", "tmp", "dev", "proc", "sys"];

#[derive(Default)]
pub(super) struct Config {
    files: BTreeMap<String, Value>,
    links: BTreeMap<String, Value>,
    users: Vec<Value>,
    units: Vec<Value>,
    arguments: Vec<String>,
    pub(super) disks: Vec<Value>,
    pub(super) raid: Vec<Value>,
    pub(super) filesystems: Vec<Value>,
}

impl Config {
    /// A file; one that was there before goes.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &str) {
        let source = format!("data:;base64,{}", base64(content));
        self.links.remove(path);
        self.files.insert(
            path.to_owned(),
            json!({"path": path, "mode": mode, "overwrite": true, "contents": {"source": source}}),
        );
    }

    fn link(&mut self, path: &str, target: &str) {
        self.links.insert(
            path.to_owned(),
            json!({"path": path, "target": target, "overwrite": true}),
        );
    }

    /// A unit of systemd that is started with the system.
    pub(super) fn unit(&mut self, name: &str, description: &str, service: &str) {
        let contents = format!(
            "[Unit]\nDescription={description}\nWants=network-online.target\nAfter=network-online.target\n\n[Service]\n\
             {service}\n[Install]\nWantedBy=multi-user.target\n"
        );
        self.units
            .push(json!({"name": name, "enabled": true, "contents": contents}));
    }

    pub(super) fn identity(&mut self, install: &Install) -> Result<()> {
        let setup = &install.setup;
        let name = match &setup.domain {
            Some(domain) => format!("{}.{domain}", setup.hostname),
            None => setup.hostname.clone(),
        };
        self.file("/etc/hostname", 0o644, &format!("{name}\n"));
        if let Some(zone) = &setup.timezone {
            self.link("/etc/localtime", &format!("../usr/share/zoneinfo/{zone}"));
        }
        if install.keyboard != "us" {
            self.file("/etc/vconsole.conf", 0o644, &format!("KEYMAP={}\n", install.keyboard));
        }
        if !setup.machine_id.is_empty() {
            // Not as a file: systemd enables units at what it takes for the first start, which is one without such a file.
            self.arguments.push(format!("systemd.machine_id={}", setup.machine_id));
        }
        let extra = boot::extra(AT, install)?;
        self.arguments.extend(extra.split_ascii_whitespace().map(str::to_owned));
        if !setup.ssh_host_key.0.is_empty() {
            let public = text::public_key(&setup.ssh_host_key.0, &setup.hostname).map_err(|bad| AT.setup(bad))?;
            self.file("/etc/ssh/ssh_host_ed25519_key", 0o600, &setup.ssh_host_key.0);
            self.file("/etc/ssh/ssh_host_ed25519_key.pub", 0o644, &public);
        }
        let root = check::root_keys(install);
        if install.root_password.is_some() || !root.is_empty() {
            self.user("root", "", install.root_password.as_ref(), root);
        }
        for account in check::everybody(install) {
            let Account {
                name,
                full_name,
                password,
                ssh_keys,
                admin,
            } = account;
            self.user(&name, &full_name, password.as_ref(), &ssh_keys);
            if admin {
                let how = if password.is_some() { "ALL" } else { "NOPASSWD: ALL" };
                let rule = format!("{name} ALL=(ALL:ALL) {how}\n");
                self.file(&format!("/etc/sudoers.d/90-rackbar-{name}"), 0o440, &rule);
            }
        }
        Ok(())
    }

    fn user(&mut self, name: &str, full_name: &str, password: Option<&CryptHash>, keys: &[String]) {
        let keys: Vec<&str> = keys.iter().map(|key| key.trim()).collect();
        let mut user = json!({"name": name, "sshAuthorizedKeys": keys});
        if !full_name.is_empty() {
            user["gecos"] = full_name.into();
        }
        if let Some(hash) = password {
            user["passwordHash"] = hash.as_str().into();
        }
        self.users.push(user);
    }

    /// Names by MAC address, and what has them. What is physical is also matched by its MAC address, because an
    /// interface that the initramfs used may keep the kernel's name for this start.
    pub(super) fn network(&mut self, install: &Install, kind: IgnitionKind, bases: &[Base]) -> Result<()> {
        match kind {
            IgnitionKind::FedoraCoreos => {
                for (name, content) in links(bases) {
                    self.file(&format!("/etc/systemd/network/{name}"), 0o644, &content);
                }
                for (name, content) in network_manager::keyfiles(&install.setup, bases) {
                    let path = format!("/etc/NetworkManager/system-connections/{name}");
                    self.file(&path, 0o600, &content);
                }
            }
            IgnitionKind::Flatcar => {
                let ports = || bases.iter().flat_map(|base| &base.ports);
                for (name, content) in networkd(&install.setup, bases) {
                    let port = ports().find(|port| content.starts_with(&format!("[Match]\nName={}\n", port.name)));
                    let content = match port {
                        Some(port) => content.replacen(
                            &format!("Name={}\n", port.name),
                            &format!("PermanentMACAddress={}\nType=ether\n", port.mac),
                            1,
                        ),
                        None => content,
                    };
                    self.file(&format!("/etc/systemd/network/{name}"), 0o644, &content);
                }
            }
        }
        Ok(())
    }

    /// Clock, proxy and log.
    pub(super) fn clients(&mut self, install: &Install, kind: IgnitionKind) -> Result<()> {
        let setup = &install.setup;
        if !setup.ntp.is_empty() {
            match kind {
                IgnitionKind::FedoraCoreos => {
                    let rest = "driftfile /var/lib/chrony/drift\nmakestep 1.0 3\nrtcsync\nlogdir /var/log/chrony\n";
                    self.file("/etc/chrony.conf", 0o644, &(text::chrony(setup) + rest));
                }
                IgnitionKind::Flatcar => {
                    let content = format!("[Time]\nNTP={}\n", setup.ntp.join(" "));
                    self.file("/etc/systemd/timesyncd.conf.d/90-rackbar.conf", 0o644, &content);
                }
            }
        }
        if let Some(proxy) = check::proxy(AT, install)? {
            let domain = setup.domain.as_ref().map_or(String::new(), |name| format!(",.{name}"));
            let values = [
                ("http_proxy", proxy.as_str().to_owned()),
                ("https_proxy", proxy.as_str().to_owned()),
                ("no_proxy", format!("localhost,127.0.0.1,::1{domain}")),
            ];
            // A percent sign is a specifier there.
            let units = values
                .each_ref()
                .map(|(name, value)| format!("\"{name}={}\"", value.replace('%', "%%")));
            let content = format!("[Manager]\nDefaultEnvironment={}\n", units.join(" "));
            self.file("/etc/systemd/system.conf.d/90-rackbar.conf", 0o644, &content);
            let lines = values.map(|(name, value)| format!("export {name}={}\n", shell(&value)));
            self.file("/etc/profile.d/rackbar-proxy.sh", 0o644, &lines.concat());
        }
        if let Some((host, port)) = setup.syslog.as_deref().and_then(|server| server.rsplit_once(':')) {
            let host = host.trim_matches(['[', ']']);
            // Neither system brings a syslog client; both bring util-linux.
            let service = format!(
                "ExecStart=/bin/sh -c 'journalctl --follow --boot --lines=all --output=short-iso --no-hostname | logger \
                 --server={host} --port={port} --udp --tag=journal'\nRestart=always\nRestartSec=5\n"
            );
            self.unit(
                "rackbar-syslog.service",
                "The journal, to the rack's syslog server",
                &service,
            );
        }
        Ok(())
    }

    /// Files of the role, last, so that they win over ours.
    pub(super) fn role_files(&mut self, install: &Install) -> Result<()> {
        for (index, file) in install.setup.files.iter().enumerate() {
            let field = |name: &str| format!("setup.files[{index}].{name}");
            let OsFile { path, content, mode } = file;
            let top = path.split('/').nth(1).unwrap_or_default();
            if FORBIDDEN.contains(&top) {
                return AT.cannot(
                    field("path"),
                    "a file there: it is the image's, or gone at the next start",
                );
            }
            if *mode > 0o777 {
                return AT.cannot(
                    field("mode"),
                    "set-user-ID, set-group-ID or sticky bits before its version 3.4",
                );
            }
            let own = path.starts_with("/etc/systemd/system/rackbar-") || path == "/etc/machine-id";
            check::demand(AT, !own, &field("path"), "Rackbar itself sees to that")?;
            let inside = |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
            let folder = self
                .files
                .keys()
                .chain(self.links.keys())
                .any(|other| inside(path, other) || inside(other, path));
            check::demand(AT, !folder, &field("path"), "one file would be a folder of another")?;
            self.file(path, *mode, content);
        }
        Ok(())
    }

    pub(super) fn text(self) -> String {
        let list = |map: BTreeMap<String, Value>| map.into_values().collect::<Vec<_>>();
        let mut storage = json!({"files": list(self.files)});
        let parts = [
            ("links", list(self.links)),
            ("disks", self.disks),
            ("raid", self.raid),
            ("filesystems", self.filesystems),
        ];
        for (name, values) in parts.into_iter().filter(|(_, values)| !values.is_empty()) {
            storage[name] = values.into();
        }
        let mut all = json!({"ignition": {"version": "3.3.0"}, "storage": storage});
        if !self.users.is_empty() {
            all["passwd"] = json!({"users": self.users});
        }
        if !self.units.is_empty() {
            all["systemd"] = json!({"units": self.units});
        }
        if !self.arguments.is_empty() {
            all["kernelArguments"] = json!({"shouldExist": self.arguments});
        }
        document::json(all)
    }
}
