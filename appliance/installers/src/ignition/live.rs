//! What the system in memory is told: look for the disk, write the image there, tell us, start from it.

use super::config::Config;
use super::{Ignition, IgnitionKind};
use crate::AnswerFile;
use crate::disks;
use crate::finish::ask;
use crate::input::Install;
use crate::quote::shell;

pub(super) fn config(install: &Install, system: &Ignition, installed: &str) -> AnswerFile {
    let write = match system.kind {
        // The image is part of what runs.
        IgnitionKind::FedoraCoreos => {
            "coreos-installer install --offline --ignition-file /etc/rackbar/system.ign \"$disk0\"\n".to_owned()
        }
        // Checked with the key that the program has in itself.
        IgnitionKind::Flatcar => format!(
            "flatcar-install -d \"$disk0\" -V {} -b {} -o '' -i /etc/rackbar/system.ign\n",
            shell(&system.version),
            shell(system.source.as_str())
        ),
    };
    let script = format!(
        "#!/bin/sh\nset -eu\n{}{write}curl --config /etc/rackbar/done\nsystemctl --no-block reboot\n",
        disks::guard(&install.target)
    );
    let mut live = Config::default();
    live.file("/etc/rackbar/install", 0o600, &script);
    live.file("/etc/rackbar/done", 0o600, &ask(&install.done));
    live.file("/etc/rackbar/system.ign", 0o600, installed);
    let service = "Type=oneshot\nExecStart=/bin/sh /etc/rackbar/install\nStandardOutput=journal+console\n\
                   StandardError=journal+console\n";
    live.unit("rackbar-install.service", "Install this machine", service);
    AnswerFile::new("live.ign", live.text())
}
