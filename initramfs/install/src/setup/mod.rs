//! The identity of the installed system: who it is, who may log in, its networks, clock, name servers, proxy and log,
//! and the files of its role; written as plain files, and as a NoCloud seed where the image has cloud-init.
//!
//! What the image has decides how a thing is written: systemd-networkd goes before ifupdown, and whichever is used, the
//! other and cloud-init's own network are switched off, so that two never fight over an interface. With neither of them
//! cloud-init gets the network from the seed.

mod again;
mod tree;

use rackbar_messages::{JobFailure, JobReport};
use rackbar_model::{OsSetup, RootTarget};
use rackbar_os_files::network::{self, Base};
use rackbar_os_files::text::{self, Account};
use rackbar_os_files::{BadSetup, again as again_text};

use crate::control::{Control, refuse};
use crate::target::Installed;
use crate::{Machine, Result};
pub(crate) use again::adjust;
use tree::Rights;
pub(crate) use tree::Tree;

/// Folder of a NoCloud seed.
const SEED: &str = "/var/lib/cloud/seed/nocloud";

/// Gives the system on a target its identity.
pub(crate) fn setup(machine: &Machine, target: &RootTarget, setup: &OsSetup, control: &Control) -> Result<JobReport> {
    written(machine, target, control, |tree| apply(tree, setup))
}

/// Changes the system on a target, and tells which files were written.
fn written(
    machine: &Machine,
    target: &RootTarget,
    control: &Control,
    change: impl FnOnce(&mut Tree) -> Result<()>,
) -> Result<JobReport> {
    let installed = Installed::find(machine, target)?;
    control.check()?;
    let mounted = installed.mount(machine)?;
    let mut tree = Tree::open(mounted.path())?;
    change(&mut tree)?;
    let written = tree.written().to_vec();
    // The tree holds the file system's root open, and an open folder keeps it mounted.
    drop(tree);
    mounted.unmount()?;
    Ok(JobReport::SetUp(written))
}

fn bad_setup(bad: BadSetup) -> JobFailure {
    refuse(bad.reason, bad.advice)
}

/// What of the programs that matter here an image has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Image {
    networkd: bool,
    ifupdown: bool,
    cloud_init: bool,
    resolved: bool,
    timesyncd: bool,
    chrony: bool,
    apt: bool,
    dnf: bool,
    zypper: bool,
    rsyslog: bool,
}

impl Image {
    fn look(tree: &Tree) -> Self {
        let any = |paths: &[&str]| paths.iter().any(|path| tree.exists(path));
        Self {
            networkd: any(&["/lib/systemd/systemd-networkd", "/usr/lib/systemd/systemd-networkd"]),
            ifupdown: any(&["/sbin/ifup", "/usr/sbin/ifup"]),
            cloud_init: any(&["/usr/bin/cloud-init", "/usr/local/bin/cloud-init"]),
            resolved: any(&["/lib/systemd/systemd-resolved", "/usr/lib/systemd/systemd-resolved"]),
            timesyncd: any(&["/lib/systemd/systemd-timesyncd", "/usr/lib/systemd/systemd-timesyncd"]),
            chrony: any(&["/usr/sbin/chronyd", "/sbin/chronyd"]),
            apt: any(&["/etc/apt"]),
            dnf: any(&["/etc/dnf/dnf.conf"]),
            zypper: any(&["/etc/zypp/zypp.conf"]),
            rsyslog: any(&["/usr/sbin/rsyslogd", "/sbin/rsyslogd"]),
        }
    }
}

// Where clients read what is written for them, and nothing else is.
const TIMESYNCD: &str = "/etc/systemd/timesyncd.conf.d/rackbar.conf";
const CHRONY_SOURCES: &str = "/etc/chrony/sources.d/rackbar.sources";
const CHRONY_CONF: &str = "/etc/chrony.d/rackbar.conf";
const APT_PROXY: &str = "/etc/apt/apt.conf.d/90rackbar-proxy";
const SYSLOG: &str = "/etc/rsyslog.d/90-rackbar.conf";

/// The zone of a system for which the site wants none.
const UTC: &str = "Etc/UTC";
const PUBLIC: Rights = Rights::root(0o644);
const PRIVATE: Rights = Rights::root(0o600);

/// Writes everything into a tree.
fn apply(tree: &mut Tree, setup: &OsSetup) -> Result<()> {
    let (image, bases) = looked_at(tree, setup)?;
    names(tree, setup)?;
    networks(tree, setup, &bases, image)?;
    services(tree, setup, image)?;
    access(tree, setup, Keys::Ours)?;
    if image.cloud_init {
        seed(tree, setup, &bases)?;
    }
    files(tree, setup)?;
    labels(tree)
}

/// What there is to give an identity to, and its interfaces.
fn looked_at(tree: &Tree, setup: &OsSetup) -> Result<(Image, Vec<Base>)> {
    text::check(setup).map_err(bad_setup)?;
    if !tree.exists("/etc/passwd") {
        return Err(refuse(
            "the root file system has no /etc/passwd: it is no installed system",
            "look whether the image's root partition is its last one",
        ));
    }
    let bases = network::arrange(setup).map_err(bad_setup)?;
    Ok((Image::look(tree), bases))
}

/// The files of the role.
fn files(tree: &mut Tree, setup: &OsSetup) -> Result<()> {
    let mut all = setup.files.iter();
    all.try_for_each(|file| tree.write(&file.path, &file.content, Rights::root(file.mode & 0o7777)))
}

/// Has SELinux label the file system at its first start, where the image has it in use. What was written here has no labels, as
/// they are known to the image's own policy alone; sshd would not be let to its keys.
fn labels(tree: &mut Tree) -> Result<()> {
    let config = tree.read("/etc/selinux/config").unwrap_or_default();
    if text::selinux(&config) {
        // What stands in it are options of fixfiles(8): also files that have a label they were given by hand.
        tree.write("/.autorelabel", "-F\n", PUBLIC)?;
    }
    Ok(())
}

fn names(tree: &mut Tree, setup: &OsSetup) -> Result<()> {
    tree.write("/etc/hostname", &format!("{}\n", setup.hostname), PUBLIC)?;
    let old = tree.read("/etc/hosts").unwrap_or_default();
    tree.write("/etc/hosts", &text::hosts(setup, &old), PUBLIC)?;
    if !setup.machine_id.is_empty() {
        tree.write(
            "/etc/machine-id",
            &format!("{}\n", setup.machine_id),
            Rights::root(0o444),
        )?;
        // Where D-Bus keeps a copy of its own, it is the image's.
        if tree.remove("/var/lib/dbus/machine-id")? {
            tree.link("/var/lib/dbus/machine-id", "/etc/machine-id")?;
        }
    }
    zone(tree, setup)
}

/// The wanted time zone, or else UTC, whatever the image came with. Left as it is where the image has no zones: it then never
/// had another.
fn zone(tree: &mut Tree, setup: &OsSetup) -> Result<()> {
    match &setup.timezone {
        Some(zone) => timezone(tree, zone),
        None if tree.exists(&format!("/usr/share/zoneinfo/{UTC}")) => timezone(tree, UTC),
        None => Ok(()),
    }
}

fn timezone(tree: &mut Tree, zone: &str) -> Result<()> {
    let file = format!("/usr/share/zoneinfo/{zone}");
    if !tree.exists(&file) {
        return Err(refuse(
            format!("the image has no time zone {zone}"),
            "correct the time zone, or add tzdata to the image",
        ));
    }
    tree.link("/etc/localtime", &format!("..{file}"))?;
    tree.write("/etc/timezone", &format!("{zone}\n"), PUBLIC)
}

fn networks(tree: &mut Tree, setup: &OsSetup, bases: &[Base], image: Image) -> Result<()> {
    if bases.is_empty() {
        return Ok(());
    }
    if image.networkd {
        for (name, content) in network::networkd(setup, bases) {
            tree.write(&format!("/etc/systemd/network/{name}"), &content, PUBLIC)?;
        }
        enable(tree, "systemd-networkd.service", "multi-user.target.wants")?;
        enable(tree, "systemd-networkd.socket", "sockets.target.wants")?;
        if image.ifupdown {
            tree.write("/etc/network/interfaces", "auto lo\niface lo inet loopback\n", PUBLIC)?;
            empty(tree, "/etc/network/interfaces.d")?;
        }
    } else if image.ifupdown {
        for (name, content) in network::links(bases) {
            tree.write(&format!("/etc/systemd/network/{name}"), &content, PUBLIC)?;
        }
        tree.write("/etc/network/interfaces", &network::interfaces(setup, bases), PUBLIC)?;
        empty(tree, "/etc/network/interfaces.d")?;
    } else if !image.cloud_init {
        return Err(refuse(
            "the image has neither systemd-networkd nor ifupdown nor cloud-init: its network cannot be set up",
            "add one of them to the image",
        ));
    }
    if image.networkd || image.ifupdown {
        // What netplan left in the image would be a second opinion on the same interfaces.
        empty(tree, "/etc/netplan")?;
        if image.cloud_init {
            tree.write(
                "/etc/cloud/cloud.cfg.d/99-rackbar-network.cfg",
                "network: {config: disabled}\n",
                PUBLIC,
            )?;
        }
    }
    Ok(())
}

/// Removes the files of a folder.
fn empty(tree: &mut Tree, folder: &str) -> Result<()> {
    for name in tree.names(folder) {
        tree.remove(&format!("{folder}/{name}"))?;
    }
    Ok(())
}

/// Starts a unit at boot, as `systemctl enable` would.
fn enable(tree: &mut Tree, unit: &str, wants: &str) -> Result<()> {
    enable_as(tree, unit, &format!("{wants}/{unit}"))
}

/// Links a unit that the image has to a name below `/etc/systemd/system`.
fn enable_as(tree: &mut Tree, unit: &str, name: &str) -> Result<()> {
    let paths = [
        format!("/lib/systemd/system/{unit}"),
        format!("/usr/lib/systemd/system/{unit}"),
    ];
    match paths.iter().find(|path| tree.exists(path)) {
        Some(path) => tree.link(&format!("/etc/systemd/system/{name}"), path),
        None => Ok(()),
    }
}

fn services(tree: &mut Tree, setup: &OsSetup, image: Image) -> Result<()> {
    if image.resolved {
        enable(tree, "systemd-resolved.service", "multi-user.target.wants")?;
        tree.link("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")?;
    } else if !setup.dns.is_empty() {
        tree.write("/etc/resolv.conf", &text::resolv_conf(setup), PUBLIC)?;
    }
    if !setup.ntp.is_empty() {
        time(tree, setup, image)?;
    }
    if let Some(proxy) = &setup.proxy {
        packages(tree, proxy, image)?;
    }
    if let Some(server) = &setup.syslog {
        if !image.rsyslog {
            return Err(refuse(
                "the image has no rsyslog, and journald alone sends nothing to a syslog server",
                "add rsyslog to the image, or leave the syslog server out",
            ));
        }
        tree.write(SYSLOG, &format!("*.* @{server}\n"), PUBLIC)?;
        // An image may have it without starting it. Its socket, to which journald hands messages on, asks for the alias.
        enable(tree, "rsyslog.service", "multi-user.target.wants")?;
        enable_as(tree, "rsyslog.service", "syslog.service")?;
    }
    Ok(())
}

/// Tells the clients of time of their servers.
fn time(tree: &mut Tree, setup: &OsSetup, image: Image) -> Result<()> {
    if image.chrony {
        chrony(tree, setup)?;
    }
    if image.timesyncd {
        let content = format!("[Time]\nNTP={}\n", setup.ntp.join(" "));
        tree.write(TIMESYNCD, &content, PUBLIC)?;
        if !image.chrony {
            enable(tree, "systemd-timesyncd.service", "sysinit.target.wants")?;
        }
    }
    Ok(())
}

/// Debian's chrony reads a folder of sources. That of others reads one file and what that includes, which as it is shipped is
/// nothing.
fn chrony(tree: &mut Tree, setup: &OsSetup) -> Result<()> {
    if tree.exists("/etc/chrony") {
        return tree.write(CHRONY_SOURCES, &text::chrony(setup), PUBLIC);
    }
    tree.write(CHRONY_CONF, &text::chrony(setup), PUBLIC)?;
    let old = tree.read("/etc/chrony.conf").unwrap_or_default();
    tree.write("/etc/chrony.conf", &text::chrony_conf(&old), PUBLIC)
}

/// Tells the package managers there are of the proxy.
fn packages(tree: &mut Tree, proxy: &str, image: Image) -> Result<()> {
    if image.apt {
        let content = format!("Acquire::http::Proxy \"{proxy}\";\nAcquire::https::Proxy \"{proxy}\";\n");
        tree.write(APT_PROXY, &content, PUBLIC)?;
    }
    if image.dnf {
        let old = tree.read("/etc/dnf/dnf.conf").unwrap_or_default();
        tree.write("/etc/dnf/dnf.conf", &text::dnf(&old, proxy), PUBLIC)?;
    }
    if image.zypper {
        let old = tree.read("/etc/sysconfig/proxy").unwrap_or_default();
        tree.write("/etc/sysconfig/proxy", &text::sysconfig_proxy(&old, proxy), PUBLIC)?;
    }
    Ok(())
}

/// What of the keys that are there is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// Nothing: they are the image's.
    Ours,
    /// Those of others.
    AndOthers,
}

/// Keys of those who log in, and of the host itself.
fn access(tree: &mut Tree, setup: &OsSetup, keep: Keys) -> Result<()> {
    if !setup.ssh_keys.is_empty() {
        let user = if setup.user.is_empty() { "root" } else { &setup.user };
        let passwd = tree.read("/etc/passwd").unwrap_or_default();
        match Account::find(&passwd, user) {
            Some(account) => {
                let rights = |mode| Rights {
                    mode,
                    uid: account.uid,
                    gid: account.gid,
                };
                let path = format!("{}/.ssh/authorized_keys", account.home);
                let keys = match tree.read(&path).filter(|_| keep == Keys::AndOthers) {
                    Some(old) => {
                        let seed = tree.read(&format!("{SEED}/user-data"));
                        again_text::authorized_keys_in(&old, seed.as_deref(), &setup.ssh_keys).map_err(bad_setup)?
                    }
                    None => again_text::authorized_keys(&setup.ssh_keys),
                };
                tree.write(&path, &keys, rights(0o600))?;
            }
            // cloud-init makes its account at the first boot, with the keys of the seed.
            None if tree.exists("/usr/bin/cloud-init") => {}
            None => {
                return Err(refuse(
                    format!("the image has no account {user}"),
                    "name an account that the image has, or root",
                ));
            }
        }
    }
    if !setup.ssh_host_key.0.is_empty() {
        let public = text::public_key(&setup.ssh_host_key.0, &setup.hostname).map_err(bad_setup)?;
        tree.write("/etc/ssh/ssh_host_ed25519_key", &setup.ssh_host_key.0, PRIVATE)?;
        tree.write("/etc/ssh/ssh_host_ed25519_key.pub", &public, PUBLIC)?;
        if keep == Keys::Ours {
            // Keys that lie in an image are known to whoever has the image, and every machine would have the same.
            for kind in ["rsa", "ecdsa", "dsa"] {
                let file = format!("/etc/ssh/ssh_host_{kind}_key");
                tree.remove(&file)?;
                tree.remove(&format!("{file}.pub"))?;
            }
        }
    }
    Ok(())
}

fn seed(tree: &mut Tree, setup: &OsSetup, bases: &[Base]) -> Result<()> {
    tree.write(&format!("{SEED}/meta-data"), &text::meta_data(setup), PUBLIC)?;
    tree.write(&format!("{SEED}/user-data"), &text::user_data(setup), PRIVATE)?;
    if !bases.is_empty() {
        tree.write(
            &format!("{SEED}/network-config"),
            &network::cloud_init(setup, bases),
            PUBLIC,
        )?;
    }
    // Without this it asks the network for a data source first, for minutes, and believes whoever answers.
    tree.write(
        "/etc/cloud/cloud.cfg.d/99-rackbar.cfg",
        "datasource_list: [NoCloud, None]\n",
        PUBLIC,
    )
}

#[cfg(test)]
mod tests;
