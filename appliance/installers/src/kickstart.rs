//! The Red Hat family: a kickstart file for Anaconda.
//!
//! Disks have stable names in it, and `%pre` stops the install unless each of them is the one disk that the plan chose.
//! Interfaces get their names by `ifname=` on the installer's command line, so that kickstart's own commands can speak
//! of them, and by udev in the installed system.

use std::net::IpAddr;

use rackbar_model::{BondMode, FirmwareMode, OsNetwork, RootTarget};
use rackbar_os_files::network::Base;

use crate::error::{For, Result};
use crate::finish::Finish;
use crate::input::{Account, Install, Url};
use crate::quote::{kickstart, shell};
use crate::{AnswerFile, Rendered, boot, check, disks};

const AT: For = For("kickstart");

/// A member of the family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RedHatKind {
    /// Red Hat Enterprise Linux.
    Rhel,
    /// Rocky Linux.
    Rocky,
    /// AlmaLinux.
    Alma,
    /// CentOS Stream.
    CentosStream,
    /// Fedora.
    Fedora,
}

/// A system of the Red Hat family and where its packages come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedHat {
    /// Which.
    pub kind: RedHatKind,
    /// Major version: 8 to 10, of Fedora 40 to 43.
    pub version: u8,
    /// The installation tree: the folder with `.treeinfo` and `images/`.
    pub tree: Url,
    /// Repositories besides the tree's own, such as AppStream: name and URL. The installed system keeps them, unless the
    /// tree is `near`.
    pub repositories: Vec<(String, Url)>,
    /// The tree of the installer's own image, where that of the packages is another.
    pub stage2: Option<Url>,
    /// Tree and repositories are the appliance's: the installer asks there without the proxy, which is for the installed
    /// system alone. Else it asks for them through the proxy, and for a `stage2` and its answers without it.
    pub near: bool,
    /// Folder below which the installer asks for the name of each step that it begins ([`RED_HAT_STEPS`]) and of what went
    /// wrong ([`FAILURES`]); ends with `/` and holds a token.
    pub steps: Option<Url>,
}

impl RedHat {
    /// The proxy that the installer itself asks through.
    fn proxy(&self, install: &Install) -> Result<Option<Url>> {
        Ok(check::proxy(AT, install)?.filter(|_| !self.near))
    }

    /// Lines of a script that tell of a step. That nobody hears it stops nothing.
    fn tells(&self, step: &str) -> Option<String> {
        let url = shell(&self.steps.as_ref()?.file(step));
        let words = "curl --noproxy '*' --silent --show-error --max-time 20 --retry 3 --output /dev/null";
        Some(format!("{words} {url} || true\n"))
    }

    /// Lines that tell of a failure when the script ends with one.
    fn tells_failure(&self, failure: &str) -> String {
        let tells = self.tells(failure);
        tells.map_or_else(String::new, |tells| {
            format!("rackbar_failed() {{\n{tells}}}\ntrap 'test \"$?\" = 0 || rackbar_failed' EXIT\n")
        })
    }
}

/// The steps that an installer tells of, in order: it has its answers and begins, the disk has its partitions, the packages
/// are on it.
pub const RED_HAT_STEPS: [&str; 3] = ["started", "partitioned", "base"];

/// What an installer tells of that went wrong: it did not find the disks that were planned, the installed system could not be
/// set up, it gave up.
pub const FAILURES: [&str; 3] = ["failed-disks", "failed-setup", "failed"];

/// Renders the kickstart file.
pub(crate) fn render(install: &Install, system: &RedHat) -> Result<Rendered> {
    let bases = check::install(AT, install)?;
    limits(install, system)?;
    let mut file = File::default();
    source(&mut file, install, system)?;
    clock_and_words(&mut file, install, system)?;
    networks(&mut file, install, &bases)?;
    accounts(&mut file, install)?;
    disk(&mut file, install)?;
    packages(&mut file, install);
    scripts(&mut file, install, system, &bases)?;
    let mut arguments = vec![
        format!("inst.ks={}", install.answers.file("ks.cfg")),
        format!("inst.repo={}", system.tree.as_str()),
        boot::bootif(install),
        "ip=dhcp".to_owned(),
        "inst.text".to_owned(),
    ];
    if let Some(stage2) = &system.stage2 {
        arguments.push(format!("inst.stage2={}", stage2.as_str()));
    }
    let ports = bases.iter().flat_map(|base| &base.ports);
    arguments.extend(ports.map(|port| format!("ifname={}:{}", port.name, port.mac)));
    // Where the installer's own image is another's, it and the answers come straight from the appliance.
    if let Some(proxy) = system.proxy(install)?.filter(|_| system.stage2.is_none()) {
        arguments.push(format!("inst.proxy={}", proxy.as_str()));
    }
    let files = ["images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"];
    Ok(Rendered {
        files: vec![AnswerFile::new("ks.cfg", file.0)],
        boot: boot::linux(AT, install, files, &arguments)?,
    })
}

fn limits(install: &Install, system: &RedHat) -> Result<()> {
    let known = match system.kind {
        RedHatKind::Fedora => 40..=43,
        _ => 8..=10,
    };
    if !known.contains(&system.version) {
        let reason = format!("version {} is not known", system.version);
        return Err(AT.error("version", reason, "use 8, 9 or 10, of Fedora 40 to 43"));
    }
    let own = install.accounts.iter().filter_map(|account| account.password.as_ref());
    // The libxcrypt of version 8 is older than yescrypt; such a password would never fit.
    if system.version == 8
        && install
            .root_password
            .iter()
            .chain(own)
            .any(|hash| hash.is_one_of(&["y"]))
    {
        let advice = "make the hash with SHA-512 ($6$)";
        return Err(AT.error("password", "version 8 knows no yescrypt ($y$)", advice));
    }
    for (index, network) in install.setup.networks.iter().enumerate() {
        for v6 in [false, true] {
            if network
                .addresses
                .iter()
                .filter(|address| address.contains(':') == v6)
                .count()
                > 1
            {
                let field = format!("setup.networks[{index}].addresses");
                return AT.cannot(field, "more than one address of a family on an interface");
            }
        }
        if network.name.contains('.') {
            let reason = "Anaconda takes a name with `.` for a VLAN of its own making";
            return Err(AT.error(
                format!("setup.networks[{index}].name"),
                reason,
                "use letters, digits, - and _",
            ));
        }
    }
    for (index, (name, _)) in system.repositories.iter().enumerate() {
        let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        check::demand(
            AT,
            good,
            &format!("repositories[{index}]"),
            "its name is no name of a repository",
        )?;
    }
    Ok(())
}

/// The file as it grows.
#[derive(Default)]
struct File(String);

impl File {
    /// A command with its options, which are quoted already.
    fn command(&mut self, name: &str, options: &[String]) {
        self.0.push_str(name);
        for option in options {
            self.0.push(' ');
            self.0.push_str(option);
        }
        self.0.push('\n');
    }

    /// A section, whose lines hold nothing that begins with `%`.
    fn section(&mut self, head: &str, lines: &str) {
        self.0.push_str(&format!("\n{head}\n{}\n%end\n", lines.trim_end()));
    }
}

/// `--name=value`, quoted where it must be.
fn option(name: &str, value: &str) -> Result<String> {
    Ok(format!("--{name}={}", kickstart(AT, name, value)?))
}

fn source(file: &mut File, install: &Install, system: &RedHat) -> Result<()> {
    let proxy = match system.proxy(install)? {
        Some(proxy) => vec![option("proxy", proxy.as_str())?],
        None => Vec::new(),
    };
    file.0.push_str("text\nreboot\n");
    file.command(
        "url",
        &[vec![option("url", system.tree.as_str())?], proxy.clone()].concat(),
    );
    for (name, url) in &system.repositories {
        let mut options = vec![option("name", name)?, option("baseurl", url.as_str())?];
        if !system.near {
            options.push("--install".to_owned());
        }
        file.command("repo", &[options, proxy.clone()].concat());
    }
    Ok(())
}

fn clock_and_words(file: &mut File, install: &Install, system: &RedHat) -> Result<()> {
    let setup = &install.setup;
    file.command("lang", &[kickstart(AT, "locale", &install.locale)?]);
    file.command("keyboard", &[option("xlayouts", &install.keyboard)?]);
    let zone = kickstart(AT, "timezone", setup.timezone.as_deref().unwrap_or("Etc/UTC"))?;
    let mut zone = vec![zone, "--utc".to_owned()];
    if system.version == 8 {
        if !setup.ntp.is_empty() {
            zone.push(option("ntpservers", &setup.ntp.join(","))?);
        }
        file.command("timezone", &zone);
    } else {
        file.command("timezone", &zone);
        for server in &setup.ntp {
            file.command("timesource", &[option("ntp-server", server)?]);
        }
    }
    file.0
        .push_str("firstboot --disable\nselinux --enforcing\nfirewall --enabled --service=ssh\n");
    let services = if setup.syslog.is_some() { "sshd,rsyslog" } else { "sshd" };
    file.command("services", &[format!("--enabled={services}")]);
    file.command("skipx", &[]);
    Ok(())
}

fn networks(file: &mut File, install: &Install, bases: &[Base]) -> Result<()> {
    let setup = &install.setup;
    // Not now: the installer stays on the NIC that it booted from, whatever the switch makes of a bond so far.
    let up = ["--onboot=yes".to_owned(), "--no-activate".to_owned()];
    for base in bases {
        let mut options = vec![format!("--device={}", base.name)];
        if let Some(mode) = base.bond {
            let ports: Vec<&str> = base.ports.iter().map(|port| port.name.as_str()).collect();
            let mode = match mode {
                BondMode::Lacp => "mode=802.3ad,lacp_rate=fast,xmit_hash_policy=layer3+4,miimon=100",
                BondMode::ActiveBackup => "mode=active-backup,miimon=100",
            };
            options.extend([
                format!("--bondslaves={}", ports.join(",")),
                format!("--bondopts={mode}"),
            ]);
        }
        options.extend(base.mtu.map(|mtu| format!("--mtu={mtu}")));
        match &base.untagged {
            Some(network) => options.extend(addresses(install, network)),
            None => options.extend(["--noipv4".to_owned(), "--noipv6".to_owned()]),
        }
        options.extend(up.clone());
        file.command("network", &options);
        for network in &base.tagged {
            let mut options = vec![
                format!("--device={}", base.name),
                format!("--vlanid={}", network.vlan.unwrap_or_default()),
                format!("--interfacename={}", network.name),
            ];
            options.extend(network.mtu.map(|mtu| format!("--mtu={mtu}")));
            options.extend(addresses(install, network));
            options.extend(up.clone());
            file.command("network", &options);
        }
    }
    let name = match &setup.domain {
        Some(domain) => format!("{}.{domain}", setup.hostname),
        None => setup.hostname.clone(),
    };
    file.command("network", &[option("hostname", &name)?]);
    Ok(())
}

fn addresses(install: &Install, network: &OsNetwork) -> Vec<String> {
    let mut options = Vec::new();
    let find = |v6: bool| network.addresses.iter().find(|address| address.contains(':') == v6);
    match find(false) {
        Some(address) => {
            let (ip, prefix) = address.split_once('/').unwrap_or((address, "32"));
            let mask = format!("--netmask={}", netmask(prefix));
            options.extend(["--bootproto=static".to_owned(), format!("--ip={ip}"), mask]);
        }
        None if network.addresses.is_empty() => options.push("--bootproto=dhcp".to_owned()),
        None => options.push("--noipv4".to_owned()),
    }
    match find(true) {
        Some(address) => options.push(format!("--ipv6={address}")),
        None if network.addresses.is_empty() => options.push("--ipv6=auto".to_owned()),
        None => options.push("--noipv6".to_owned()),
    }
    match network.gateway {
        Some(IpAddr::V4(gateway)) => options.push(format!("--gateway={gateway}")),
        Some(IpAddr::V6(gateway)) => options.push(format!("--ipv6gateway={gateway}")),
        None if network.addresses.is_empty() => {}
        None => options.push("--nodefroute".to_owned()),
    }
    if !install.setup.dns.is_empty() {
        let servers: Vec<String> = install.setup.dns.iter().map(ToString::to_string).collect();
        options.push(format!("--nameserver={}", servers.join(",")));
    }
    options
}

/// `255.255.255.0` of `24`.
fn netmask(prefix: &str) -> std::net::Ipv4Addr {
    let prefix: u32 = prefix.parse().unwrap_or(32);
    u32::MAX.checked_shl(32u32.saturating_sub(prefix)).unwrap_or(0).into()
}

fn accounts(file: &mut File, install: &Install) -> Result<()> {
    match &install.root_password {
        Some(hash) => {
            let hash = kickstart(AT, "root_password", hash.as_str())?;
            file.command("rootpw", &["--iscrypted".to_owned(), hash]);
        }
        None => file.command("rootpw", &["--lock".to_owned()]),
    }
    for key in check::root_keys(install) {
        let key = kickstart(AT, "setup.ssh_keys", key.trim())?;
        file.command("sshkey", &["--username=root".to_owned(), key]);
    }
    for account in check::everybody(install) {
        let Account {
            name,
            full_name,
            password,
            ssh_keys,
            admin: _,
        } = account;
        let mut options = vec![format!("--name={name}")];
        if !full_name.is_empty() {
            options.push(option("gecos", &full_name)?);
        }
        match password {
            Some(hash) => options.extend(["--iscrypted".to_owned(), option("password", hash.as_str())?]),
            None => options.push("--lock".to_owned()),
        }
        file.command("user", &options);
        for key in ssh_keys {
            let key = kickstart(AT, "ssh_keys", key.trim())?;
            file.command("sshkey", &[format!("--username={name}"), key]);
        }
    }
    Ok(())
}

fn disk(file: &mut File, install: &Install) -> Result<()> {
    let disks = install.target.disks().iter().enumerate();
    let names = disks.map(|(index, disk)| kickstart(AT, &format!("target.disks[{index}]"), &disks::stable(disk)));
    let names: Vec<String> = names.collect::<Result<_>>()?;
    let all = names.join(",");
    let arguments = boot::extra(AT, install)?;
    file.command("zerombr", &[]);
    file.command("ignoredisk", &[format!("--only-use={all}")]);
    let label = "--all --initlabel --disklabel=gpt".to_owned();
    file.command("clearpart", &[label, format!("--drives={all}")]);
    let first = names.first().cloned().unwrap_or_default();
    let mut bootloader = vec!["--location=mbr".to_owned(), format!("--boot-drive={first}")];
    if !arguments.is_empty() {
        bootloader.push(option("append", &arguments)?);
    }
    file.command("bootloader", &bootloader);
    let uefi = install.firmware == FirmwareMode::Uefi;
    match &install.target {
        RootTarget::Disk(_) => {
            let on = format!("--ondisk={all}");
            let start = if uefi {
                "/boot/efi --fstype=efi --size=600"
            } else {
                "biosboot --fstype=biosboot --size=1"
            };
            for part in [
                start,
                "/boot --fstype=xfs --size=1024",
                "/ --fstype=xfs --size=8192 --grow",
            ] {
                file.command("part", &[part.to_owned(), on.clone()]);
            }
        }
        RootTarget::Mirror(_) => mirror(file, &names, uefi),
    }
    Ok(())
}

/// Every part of the system lies on both halves. Anaconda gives the RAID1 of the EFI system partition metadata 1.0, at
/// its end, so that firmware reads each half as a plain file system.
fn mirror(file: &mut File, names: &[String], uefi: bool) {
    for (half, name) in names.iter().enumerate() {
        let on = format!("--ondisk={name}");
        let start = if uefi {
            format!("raid.0{half} --size=600")
        } else {
            "biosboot --fstype=biosboot --size=1".to_owned()
        };
        for part in [
            start,
            format!("raid.1{half} --size=1024"),
            format!("raid.2{half} --size=8192 --grow"),
        ] {
            file.command("part", &[part, on.clone()]);
        }
    }
    if uefi {
        file.0
            .push_str("raid /boot/efi --device=efi --level=RAID1 --fstype=efi raid.00 raid.01\n");
    }
    file.0
        .push_str("raid /boot --device=boot --level=RAID1 --fstype=xfs raid.10 raid.11\n");
    file.0
        .push_str("raid / --device=root --level=RAID1 --fstype=xfs raid.20 raid.21\n");
}

fn packages(file: &mut File, install: &Install) {
    let mut lines = String::from("@core\nchrony\ncurl\nopenssh-server\nsudo\n");
    if install.setup.syslog.is_some() {
        lines.push_str("rsyslog\n");
    }
    for package in &install.packages {
        lines.push_str(&format!("{package}\n"));
    }
    file.section("%packages", &lines);
}

fn scripts(file: &mut File, install: &Install, system: &RedHat, bases: &[Base]) -> Result<()> {
    let [started, partitioned, base] = RED_HAT_STEPS.map(|step| system.tells(step));
    let [bad_disks, bad_setup, gave_up] = FAILURES;
    let before = started.unwrap_or_default() + &system.tells_failure(bad_disks);
    file.section(
        "%pre --erroronfail --interpreter=/bin/sh --log=/tmp/rackbar-pre.log",
        &format!("{before}{}", disks::guard(&install.target)),
    );
    let told = [
        ("%pre-install", partitioned),
        ("%onerror", system.tells(gave_up)),
        ("%post --nochroot", base),
    ];
    for (section, lines) in told {
        if let Some(lines) = lines {
            file.section(&format!("{section} --interpreter=/bin/sh"), &lines);
        }
    }
    let finish = finish(install, bases)?;
    let head = "%post --erroronfail --interpreter=/bin/sh --log=/var/log/rackbar-post.log";
    let script = format!("{}set -eu\n{}", system.tells_failure(bad_setup), finish.here());
    file.section(head, &script);
    let done = shell(install.done.as_str());
    let ask = format!("curl --noproxy '*' --fail --silent --show-error --retry 5 --output /dev/null {done}");
    file.section("%post --nochroot --erroronfail --interpreter=/bin/sh", &ask);
    Ok(())
}

/// What is done in the installed system.
fn finish(install: &Install, bases: &[Base]) -> Result<Finish> {
    let mut script = Finish::new();
    script.admins(install);
    script.identity(AT, install)?;
    script.names(bases);
    if let Some(domain) = &install.setup.domain {
        let content = format!("[global-dns]\nsearches={domain}\n");
        script.file("/etc/NetworkManager/conf.d/90-rackbar.conf", 0o644, &content);
    }
    if let Some(proxy) = check::proxy(AT, install)? {
        script.lines("sed -i '/^proxy=/d' /etc/dnf/dnf.conf");
        script.lines(&format!(
            "printf 'proxy=%s\\n' {} >> /etc/dnf/dnf.conf",
            shell(proxy.as_str())
        ));
    }
    script.role_files(install);
    // Files that we wrote have no labels yet.
    script.lines("if [ -x /usr/sbin/restorecon ]; then /usr/sbin/restorecon -RF /etc /root; fi");
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_become_masks() {
        for (prefix, mask) in [
            ("0", "0.0.0.0"),
            ("1", "128.0.0.0"),
            ("24", "255.255.255.0"),
            ("32", "255.255.255.255"),
        ] {
            assert_eq!(netmask(prefix).to_string(), mask);
        }
    }
}
