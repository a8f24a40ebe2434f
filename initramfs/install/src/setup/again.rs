//! Another identity in the place of one that a system was given before: its keys, the settings of its clients, its time zone and
//! its files. Its name, networks, host key and machine ID stay, and so does all that others wrote.

use rackbar_messages::JobReport;
use rackbar_model::{OsSetup, RootTarget};
use rackbar_os_files::network::{self, Base};
use rackbar_os_files::{again, text};

use super::tree::Tree;
use super::{
    APT_PROXY, CHRONY_CONF, CHRONY_SOURCES, Image, Keys, PUBLIC, SEED, SYSLOG, TIMESYNCD, access, files, labels,
    looked_at, services, written, zone,
};
use crate::control::{Control, refuse};
use crate::{Machine, Result};

/// Changes what the system on a target was given; `gone` are files of its that are not to be there any more.
pub(crate) fn adjust(
    machine: &Machine,
    target: &RootTarget,
    setup: &OsSetup,
    gone: &[String],
    control: &Control,
) -> Result<JobReport> {
    written(machine, target, control, |tree| apply(tree, setup, gone))
}

pub(super) fn apply(tree: &mut Tree, setup: &OsSetup, gone: &[String]) -> Result<()> {
    let (image, bases) = looked_at(tree, setup)?;
    resolvers(tree, setup, &bases, image)?;
    withdraw(tree, setup, image)?;
    services(tree, setup, image)?;
    access(tree, setup, Keys::AndOthers)?;
    zone(tree, setup)?;
    for path in gone {
        tree.remove(path)?;
    }
    files(tree, setup)?;
    labels(tree)
}

/// Name servers are part of the networks, of which nothing else changes here. A file that somebody took away says that another
/// program has the network now. A network that cloud-init set up at the first start is not read again from its seed.
fn resolvers(tree: &mut Tree, setup: &OsSetup, bases: &[Base], image: Image) -> Result<()> {
    let mut told = |path: &str, wanted: &str, anew: fn(&str, &str) -> String| {
        let Some(old) = tree.read(path) else { return Ok(()) };
        let new = anew(&old, wanted);
        if new == old {
            Ok(())
        } else {
            tree.write(path, &new, PUBLIC)
        }
    };
    if bases.is_empty() {
        return Ok(());
    }
    if image.networkd {
        return network::networkd(setup, bases)
            .iter()
            .filter(|(name, _)| name.ends_with(".network"))
            .try_for_each(|(name, wanted)| told(&format!("/etc/systemd/network/{name}"), wanted, again::networkd));
    }
    if image.ifupdown {
        return told(
            "/etc/network/interfaces",
            &network::interfaces(setup, bases),
            again::interfaces,
        );
    }
    let seed = tree.read(&format!("{SEED}/network-config"));
    if seed.is_none_or(|seed| again::same_resolvers(&seed, &network::cloud_init(setup, bases))) {
        return Ok(());
    }
    Err(refuse(
        "name servers are part of the network that cloud-init set up at the system's first start, and it reads them no more",
        "plan with --reinstall, or put the name servers of the site file back and change them in the system by a step",
    ))
}

/// Takes back what is not wanted any more; what is, is written over.
fn withdraw(tree: &mut Tree, setup: &OsSetup, image: Image) -> Result<()> {
    if setup.ntp.is_empty() {
        for path in [TIMESYNCD, CHRONY_SOURCES, CHRONY_CONF] {
            tree.remove(path)?;
        }
    }
    if setup.syslog.is_none() {
        tree.remove(SYSLOG)?;
    }
    if setup.proxy.is_none() {
        tree.remove(APT_PROXY)?;
        if image.dnf {
            let old = tree.read("/etc/dnf/dnf.conf").unwrap_or_default();
            tree.write("/etc/dnf/dnf.conf", &text::without_dnf_proxy(&old), PUBLIC)?;
        }
        if image.zypper {
            let old = tree.read("/etc/sysconfig/proxy").unwrap_or_default();
            tree.write("/etc/sysconfig/proxy", &text::without_sysconfig_proxy(&old), PUBLIC)?;
        }
    }
    Ok(())
}
