//! Fedora CoreOS and Flatcar: an Ignition configuration of version 3.3.0, without Butane.
//!
//! ```text
//!  netboot ─▶ system in memory, told by live.ign ─▶ looks for the disks, writes the image with system.ign, tells us
//!          ─▶ first start from disk: Ignition in the initramfs does what system.ign says, once
//! ```
//! Both are systems whose `/usr` is an image: there are no packages to choose, and nothing can be written there.

mod config;
mod live;
mod storage;

use rackbar_model::RootTarget;
use rackbar_os_files::network::Base;

use crate::error::{For, Result};
use crate::input::{Install, Url};
use crate::{AnswerFile, Rendered, boot, check};

const AT: For = For("ignition");

/// A system that Ignition sets up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IgnitionKind {
    /// Fedora CoreOS.
    FedoraCoreos,
    /// Flatcar Container Linux.
    Flatcar,
}

/// A system that Ignition sets up, and where its image comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ignition {
    /// Which.
    pub kind: IgnitionKind,
    /// Its release, such as `42.20250914.3.0` or `4230.2.2`.
    pub version: String,
    /// Of Fedora CoreOS the folder with the release's files, of Flatcar the folder that holds a folder for each release.
    pub source: Url,
}

/// Renders the configurations of the installer and of the installed system.
pub(crate) fn render(install: &Install, system: &Ignition) -> Result<Rendered> {
    let installed = ignition_config(install, system)?;
    let live = live::config(install, system, &installed.content);
    let version = &system.version;
    let url = format!("ignition.config.url={}", install.answers.file("live.ign"));
    let boot = match system.kind {
        IgnitionKind::FedoraCoreos => {
            let name = |what: &str| format!("fedora-coreos-{version}-live-{what}");
            // Up to 41 the kernel's name was another.
            let old = version.split('.').next().and_then(|major| major.parse::<u32>().ok()) < Some(42);
            let kernel = name(if old { "kernel-x86_64" } else { "kernel.x86_64" });
            let rootfs = name("rootfs.x86_64.img");
            let arguments = [
                "ignition.firstboot".to_owned(),
                "ignition.platform.id=metal".to_owned(),
                url,
                format!(
                    "coreos.live.rootfs_url={}/{rootfs}",
                    system.source.as_str().trim_end_matches('/')
                ),
                // This NIC alone: another may lead to a network that answers too.
                format!("ifname=rackbar0:{}", install.boot_mac),
                "ip=rackbar0:dhcp".to_owned(),
                "rd.neednet=1".to_owned(),
            ];
            boot::linux(AT, install, [&kernel, &name("initramfs.x86_64.img")], &arguments)?
        }
        IgnitionKind::Flatcar => {
            let name = |what: &str| format!("{version}/flatcar_production_{what}");
            let arguments = ["flatcar.first_boot=1".to_owned(), url, boot::bootif(install)];
            boot::linux(
                AT,
                install,
                [&name("pxe.vmlinuz"), &name("pxe_image.cpio.gz")],
                &arguments,
            )?
        }
    };
    Ok(Rendered {
        files: vec![live, installed],
        boot,
    })
}

/// The configuration of the installed system alone, `system.ign`, for who brings it to the machine in another way.
///
/// # Errors
/// Names the field that is no such value, or that Ignition cannot express.
pub fn ignition_config(install: &Install, system: &Ignition) -> Result<AnswerFile> {
    let bases = check::install(AT, install)?;
    limits(install, system, &bases)?;
    let mut config = config::Config::default();
    config.identity(install)?;
    config.network(install, system.kind, &bases)?;
    config.clients(install, system.kind)?;
    config.role_files(install)?;
    storage::disks(&mut config, install)?;
    Ok(AnswerFile::new("system.ign", config.text()))
}

fn limits(install: &Install, system: &Ignition, bases: &[Base]) -> Result<()> {
    let version = !system.version.is_empty()
        && (system.version.split('.')).all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    check::demand(AT, version, "version", "it is no release such as 42.20250914.3.0")?;
    if !install.packages.is_empty() {
        return AT.cannot(
            "packages",
            "packages: the system is an image without any to choose from",
        );
    }
    let plain = matches!(install.locale.as_str(), "C" | "C.UTF-8" | "POSIX");
    if !plain {
        return AT.cannot("locale", "a locale: these systems bring C.UTF-8 and no other");
    }
    if system.kind == IgnitionKind::Flatcar {
        if install.keyboard != "us" {
            return AT.cannot("keyboard", "a keyboard layout for Flatcar, which brings `us`");
        }
        if matches!(install.target, RootTarget::Mirror(_)) {
            return AT.cannot(
                "target",
                "a mirror for Flatcar, whose system partitions lie on one disk",
            );
        }
    }
    let families = |v6: bool| {
        let mut all = bases
            .iter()
            .flat_map(|base| base.untagged.iter().chain(&base.tagged))
            .filter(|network| network.addresses.is_empty() || network.addresses.iter().any(|a| a.contains(':') == v6));
        all.next().is_some()
    };
    for (index, server) in install.setup.dns.iter().enumerate() {
        let reached = system.kind == IgnitionKind::Flatcar || bases.is_empty() || families(server.is_ipv6());
        let what = "no network has addresses of its family, and NetworkManager asks it over none then";
        check::demand(AT, reached, &format!("setup.dns[{index}]"), what)?;
    }
    Ok(())
}
