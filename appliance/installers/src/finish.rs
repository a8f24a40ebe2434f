//! The script that runs as root inside the new system at the end of an install: what an installer's answer file has no
//! words for. Every value from outside is either in base64 or in single quotes.

use rackbar_os_files::network::{Base, links};
use rackbar_os_files::text;

use crate::check::{everybody, root_keys};
use crate::error::{For, Result};
use crate::input::{Install, Url};
use crate::quote::{base64, shell};

const HEAD: &str = r#"#!/bin/sh
set -eu
umask 022
put() {
  mkdir -p "$(dirname "$2")"
  (umask 077; printf %s "$3" | base64 -d > "$2")
  chmod "$1" "$2"
}
account() {
  getent passwd "$1" > /dev/null || useradd -m -s /bin/bash -c "$2" "$1"
  printf '%s:%s\n' "$1" "$3" | chpasswd -e
}
keys() {
  home="$(getent passwd "$1" | cut -d: -f6)"
  group="$(id -gn "$1")"
  mkdir -p "$home/.ssh"
  printf %s "$2" | base64 -d > "$home/.ssh/authorized_keys"
  chmod 0700 "$home/.ssh"
  chmod 0600 "$home/.ssh/authorized_keys"
  chown -R "$1:$group" "$home/.ssh"
}
"#;

/// A configuration file of curl(1) that asks for a URL: an argument would show its token to every process.
pub(crate) fn ask(url: &Url) -> String {
    format!(
        "url = \"{}\"\nnoproxy = \"*\"\ngloboff\nfail\nsilent\nshow-error\nretry = 30\nretry-connrefused\noutput = \"/dev/null\"\n",
        url.as_str()
    )
}

/// Asks for a URL with busybox's wget, which tries once by itself, until it is heard; ends the shell when it never is. An
/// appliance that starts anew or waits for its disk answers a minute later.
pub(crate) fn ask_again(url: &Url) -> String {
    format!(
        "tries=0; until wget -q -O /dev/null {}; do tries=$((tries+1)); [ $tries -lt 60 ] || exit 1; sleep 5; done",
        shell(url.as_str())
    )
}

/// The script as it grows.
pub(crate) struct Finish(String);

impl Finish {
    pub(crate) fn new() -> Self {
        Self(HEAD.to_owned())
    }

    /// A file of the new system.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &str) {
        self.0
            .push_str(&format!("put {mode:04o} {} '{}'\n", shell(path), base64(content)));
    }

    /// Lines of our own, without any value from outside.
    pub(crate) fn lines(&mut self, lines: &str) {
        self.0.push_str(lines);
        self.0.push('\n');
    }

    /// Accounts, their passwords, and what admins may.
    pub(crate) fn accounts(&mut self, install: &Install) {
        for account in everybody(install) {
            let hash = account.password.as_ref().map_or("*", |hash| hash.as_str());
            let words = [account.name.as_str(), &account.full_name, hash].map(shell).join(" ");
            self.0.push_str(&format!("account {words}\n"));
            self.keys_of(&account.name, &account.ssh_keys);
        }
        self.admins(install);
        self.keys_of("root", root_keys(install));
    }

    /// Who may become root.
    pub(crate) fn admins(&mut self, install: &Install) {
        for account in everybody(install).iter().filter(|account| account.admin) {
            let how = if account.password.is_some() {
                "ALL"
            } else {
                "NOPASSWD: ALL"
            };
            let rule = format!("{} ALL=(ALL:ALL) {how}\n", account.name);
            self.file(&format!("/etc/sudoers.d/90-rackbar-{}", account.name), 0o440, &rule);
        }
    }

    fn keys_of(&mut self, user: &str, keys: &[String]) {
        if keys.is_empty() {
            return;
        }
        let text: String = keys.iter().map(|key| format!("{}\n", key.trim())).collect();
        self.0.push_str(&format!("keys {} '{}'\n", shell(user), base64(text)));
    }

    /// Machine ID, host key and log: the same on every Linux.
    pub(crate) fn identity(&mut self, at: For, install: &Install) -> Result<()> {
        let setup = &install.setup;
        if !setup.machine_id.is_empty() {
            self.file("/etc/machine-id", 0o444, &format!("{}\n", setup.machine_id));
        }
        if !setup.ssh_host_key.0.is_empty() {
            let public = text::public_key(&setup.ssh_host_key.0, &setup.hostname).map_err(|bad| at.setup(bad))?;
            self.file("/etc/ssh/ssh_host_ed25519_key", 0o600, &setup.ssh_host_key.0);
            self.file("/etc/ssh/ssh_host_ed25519_key.pub", 0o644, &public);
        }
        if let Some(server) = &setup.syslog {
            self.file("/etc/rsyslog.d/90-rackbar.conf", 0o644, &format!("*.* @{server}\n"));
        }
        Ok(())
    }

    /// Names of the interfaces by MAC address, as systemd-udevd reads them.
    pub(crate) fn names(&mut self, bases: &[Base]) {
        for (name, content) in links(bases) {
            self.file(&format!("/etc/systemd/network/{name}"), 0o644, &content);
        }
    }

    /// Files of the role, last, so that they win over ours.
    pub(crate) fn role_files(&mut self, install: &Install) {
        for file in &install.setup.files {
            self.file(&file.path, file.mode, &file.content);
        }
    }

    /// Shell lines that run the script and leave nothing of it behind, for files that have lines.
    pub(crate) fn here(&self) -> String {
        let encoded = base64(&self.0);
        let mut lines = String::from("umask 077\nbase64 -d > /etc/rackbar-finish <<'RACKBAR'\n");
        for chunk in encoded.as_bytes().chunks(76) {
            lines.push_str(&String::from_utf8_lossy(chunk));
            lines.push('\n');
        }
        lines + "RACKBAR\nsh /etc/rackbar-finish\nrm -f /etc/rackbar-finish\n"
    }

    /// The whole script.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The whole script in base64.
    pub(crate) fn encoded(&self) -> String {
        base64(&self.0)
    }
}
