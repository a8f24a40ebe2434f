//! Debian: a preseed file for debian-installer.
//!
//! The installer itself uses DHCP on the NIC that netbooted. Bonds, VLANs and addresses are the installed system's, as
//! systemd-networkd reads them, written at the end.

use rackbar_model::{FirmwareMode, RootTarget};
use rackbar_os_files::network::{Base, networkd};

use crate::error::{For, Result};
use crate::finish::{Finish, ask_again};
use crate::input::{Install, Url};
use crate::quote::{preseed, shell};
use crate::{AnswerFile, Rendered, boot, check, disks};

const AT: For = For("debian-installer");

/// Longest argument that Linux lets a program have, with room for what stands around the script.
const LONGEST_SCRIPT: usize = 120 * 1024;

/// A release.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DebianRelease {
    /// 12.
    Bookworm,
    /// 13.
    Trixie,
}

impl DebianRelease {
    /// Its name in the archive.
    pub const fn codename(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

/// Debian and where its packages come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Debian {
    /// The release.
    pub release: DebianRelease,
    /// The archive; `http`, because debian-installer's wget knows no other.
    pub mirror: Url,
    /// The archive of security updates. Without one the installed system has no such source.
    pub security: Option<Url>,
    /// Folder below which the installer asks for the name of each step that it begins ([`STEPS`]); ends with `/` and holds
    /// a token.
    pub steps: Option<Url>,
}

/// The steps that an installer tells of, in order: it has its answers and begins, it has what it consists of and looks for
/// its disk, the disk has its partitions, the base system is on it.
pub const STEPS: [&str; 4] = ["started", "disks", "partitioned", "base"];

/// Renders the preseed file.
pub(crate) fn render(install: &Install, debian: &Debian) -> Result<Rendered> {
    let bases = check::install(AT, install)?;
    limits(install, debian)?;
    let mut file = Preseed::default();
    if let Some(steps) = &debian.steps {
        file.set("preseed/early_command", "string", &tells(steps))?;
    }
    locale_and_names(&mut file, install)?;
    archive(&mut file, install, debian)?;
    accounts_and_clock(&mut file, install)?;
    disk(&mut file, install, debian)?;
    packages(&mut file, install)?;
    end(&mut file, install, &bases)?;
    let setup = &install.setup;
    let arguments = [
        "auto=true".to_owned(),
        "priority=critical".to_owned(),
        format!("url={}", install.answers.file("preseed.cfg")),
        "interface=auto".to_owned(),
        boot::bootif(install),
        // A rack without an uplink has no default route. The installer asks about that before it has its answers, and at any
        // priority; all it needs is on the rack's own network.
        "netcfg/no_default_route=true".to_owned(),
        format!("netcfg/get_nameservers={}", name_server(install)),
        format!("hostname={}", setup.hostname),
        format!("domain={}", setup.domain.as_deref().unwrap_or_default()),
    ];
    let files = ["debian-installer/amd64/linux", "debian-installer/amd64/initrd.gz"];
    Ok(Rendered {
        files: vec![AnswerFile::new("preseed.cfg", file.0)],
        boot: boot::linux(AT, install, files, &arguments)?,
    })
}

/// A name server for the installer alone, which asks a person for one where DHCP tells of none: one of the system's, else
/// whoever gives the answers, which needs no names.
fn name_server(install: &Install) -> String {
    let (host, _) = install.answers.parts();
    let bare = host.split(':').next().unwrap_or_default();
    let first = install.setup.dns.iter().find(|address| address.is_ipv4());
    first.map_or_else(|| bare.to_owned(), ToString::to_string)
}

fn limits(install: &Install, debian: &Debian) -> Result<()> {
    let only_http = "give one that begins with http://";
    for (field, url) in [
        ("answers", Some(&install.answers)),
        ("done", Some(&install.done)),
        ("mirror", Some(&debian.mirror)),
        ("security", debian.security.as_ref()),
        ("steps", debian.steps.as_ref()),
    ] {
        if url.is_some_and(|url| !url.is_http()) {
            return Err(AT.error(field, "debian-installer fetches over http only", only_http));
        }
    }
    if install.packages.iter().any(|package| package.starts_with('@')) {
        return AT.cannot("packages", "groups of packages");
    }
    Ok(())
}

/// The file as it grows.
#[derive(Default)]
struct Preseed(String);

impl Preseed {
    fn add(&mut self, owner: &str, question: &str, kind: &str, value: &str) -> Result<()> {
        self.0.push_str(&preseed(AT, owner, question, kind, value)?);
        Ok(())
    }

    /// A question of the installer's own.
    fn set(&mut self, question: &str, kind: &str, value: &str) -> Result<()> {
        self.add("d-i", question, kind, value)
    }

    /// Questions that are answered with yes or no.
    fn flags(&mut self, questions: &[(&str, bool)]) -> Result<()> {
        for (question, yes) in questions {
            self.set(question, "boolean", if *yes { "true" } else { "false" })?;
        }
        Ok(())
    }
}

fn locale_and_names(file: &mut Preseed, install: &Install) -> Result<()> {
    let setup = &install.setup;
    let domain = setup.domain.as_deref().unwrap_or_default();
    file.set("debian-installer/locale", "string", &install.locale)?;
    file.set("keyboard-configuration/xkb-keymap", "select", &install.keyboard)?;
    file.set("netcfg/choose_interface", "select", "auto")?;
    file.set("netcfg/get_hostname", "string", &setup.hostname)?;
    // What DHCP says of the name does not count.
    file.set("netcfg/hostname", "string", &setup.hostname)?;
    file.set("netcfg/get_domain", "string", domain)?;
    file.flags(&[("hw-detect/load_firmware", false), ("hw-detect/load_media", false)])
}

fn archive(file: &mut Preseed, install: &Install, debian: &Debian) -> Result<()> {
    let (host, path) = debian.mirror.parts();
    file.set("mirror/country", "string", "manual")?;
    file.set("mirror/protocol", "select", "http")?;
    file.set("mirror/http/hostname", "string", host)?;
    file.set(
        "mirror/http/directory",
        "string",
        if path.is_empty() { "/" } else { path },
    )?;
    file.set("mirror/suite", "string", debian.release.codename())?;
    let proxy = check::proxy(AT, install)?;
    file.set(
        "mirror/http/proxy",
        "string",
        proxy.as_ref().map_or("", |proxy| proxy.as_str()),
    )?;
    file.flags(&[
        ("apt-setup/cdrom/set-first", false),
        ("apt-setup/cdrom/set-next", false),
        ("apt-setup/disable-cdrom-entries", true),
    ])?;
    let services = if debian.security.is_some() {
        "security, updates"
    } else {
        "updates"
    };
    file.set("apt-setup/services-select", "multiselect", services)?;
    if let Some(security) = &debian.security {
        let (host, path) = security.parts();
        file.set("apt-setup/security_host", "string", host)?;
        file.set(
            "apt-setup/security_path",
            "string",
            if path.is_empty() { "/" } else { path },
        )?;
    }
    Ok(())
}

fn accounts_and_clock(file: &mut Preseed, install: &Install) -> Result<()> {
    // Accounts are made by the script at the end: the installer knows one and no keys.
    file.flags(&[("passwd/root-login", true), ("passwd/make-user", false)])?;
    // `!` is how user-setup is told that root has no password.
    let root = install.root_password.as_ref().map_or("!", |hash| hash.as_str());
    file.set("passwd/root-password-crypted", "password", root)?;
    let setup = &install.setup;
    file.flags(&[("clock-setup/utc", true), ("clock-setup/ntp", !setup.ntp.is_empty())])?;
    if let Some(server) = setup.ntp.first() {
        file.set("clock-setup/ntp-server", "string", server)?;
    }
    file.set("time/zone", "string", setup.timezone.as_deref().unwrap_or("Etc/UTC"))
}

/// What lies on the disk: an EFI system partition or a place for GRUB, and the root file system.
fn recipe(firmware: FirmwareMode, mirror: bool) -> String {
    let first = match firmware {
        FirmwareMode::Uefi => "538 538 538 fat32 $iflabel{ gpt } $primary{ } method{ efi } format{ } .",
        FirmwareMode::Bios => "1 1 1 free $iflabel{ gpt } $primary{ } method{ biosgrub } .",
    };
    let root = if mirror {
        "2048 4096 -1 raid $primary{ } $lvmignore{ } method{ raid } raidid{ 1 } ."
    } else {
        "2048 4096 -1 ext4 $primary{ } method{ format } format{ } use_filesystem{ } filesystem{ ext4 } mountpoint{ / } ."
    };
    format!("rackbar :: {first} {root}")
}

/// Asks for one step's name. That nobody hears it stops nothing.
fn tell(steps: &Url, step: &str) -> String {
    format!("wget -q -O /dev/null {} || true", shell(&steps.file(step)))
}

/// Tells that it begins, and leaves scripts where the installer runs what lies in front of and behind the base system.
fn tells(steps: &Url) -> String {
    let [started, _, partitioned, base] = STEPS;
    let script = |folder: &str, name: &str, step: &str| {
        let line = shell(&tell(steps, step));
        format!("mkdir -p {folder}; {{ echo '#!/bin/sh'; echo {line}; }} > {folder}/{name}; chmod 0755 {folder}/{name}")
    };
    [
        tell(steps, started),
        script("/usr/lib/base-installer.d", "01rackbar", partitioned),
        script("/usr/lib/post-base-installer.d", "99rackbar", base),
    ]
    .join("; ")
}

fn disk(file: &mut Preseed, install: &Install, debian: &Debian) -> Result<()> {
    let mirror = matches!(install.target, RootTarget::Mirror(_));
    file.set("partman/early_command", "string", &early(install, debian))?;
    file.set("partman-auto/method", "string", if mirror { "raid" } else { "regular" })?;
    file.set("partman-auto/choose_recipe", "select", "rackbar")?;
    file.set(
        "partman-auto/expert_recipe",
        "string",
        &recipe(install.firmware, mirror),
    )?;
    if mirror {
        file.set("partman-auto-raid/recipe", "string", "1 2 0 ext4 / raidid=1 .")?;
        file.set("mdadm/boot_degraded", "boolean", "true")?;
    }
    file.set("partman-partitioning/default_label", "string", "gpt")?;
    file.set("partman/choose_partition", "select", "finish")?;
    file.set("partman/mount_style", "select", "uuid")?;
    file.flags(&[
        ("partman-basicfilesystems/no_swap", false),
        ("partman-efi/non_efi_system", true),
        ("partman-lvm/device_remove_lvm", true),
        ("partman-md/device_remove_md", true),
        ("partman-lvm/confirm", true),
        ("partman-lvm/confirm_nooverwrite", true),
        ("partman-md/confirm", true),
        ("partman-md/confirm_nooverwrite", true),
        ("partman-partitioning/confirm_write_new_label", true),
        ("partman/confirm", true),
        ("partman/confirm_nooverwrite", true),
        ("grub-installer/only_debian", true),
        ("grub-installer/with_other_os", false),
        // A machine whose firmware forgot its boot entries starts all the same.
        (
            "grub-installer/force-efi-extra-removable",
            install.firmware == FirmwareMode::Uefi,
        ),
    ])?;
    let arguments = boot::extra(AT, install)?;
    file.set("debian-installer/add-kernel-opts", "string", &arguments)
}

/// Finds the disks when the installer has its drivers, and tells partman and GRUB what they are called today.
fn early(install: &Install, debian: &Debian) -> String {
    let told = debian
        .steps
        .as_ref()
        .map(|steps| tell(steps, "disks") + "; ")
        .unwrap_or_default();
    let all = match install.target {
        RootTarget::Disk(_) => "$disk0",
        RootTarget::Mirror(_) => "$disk0 $disk1",
    };
    let find = disks::one_line(&disks::find(&install.target));
    let tell = |question: &str| format!("debconf-set {question} \"{all}\" || exit 1;");
    format!(
        "{told}{find} echo \"{all}\" > /tmp/rackbar-disks; {} {}",
        tell("partman-auto/disk"),
        tell("grub-installer/bootdev")
    )
}

fn packages(file: &mut Preseed, install: &Install) -> Result<()> {
    let setup = &install.setup;
    let mut all = vec!["ca-certificates", "openssh-server", "sudo", "systemd-timesyncd"];
    if setup.syslog.is_some() {
        all.push("rsyslog");
    }
    all.extend(install.packages.iter().map(String::as_str));
    file.add("tasksel", "tasksel/first", "multiselect", "standard")?;
    file.set("pkgsel/include", "string", &all.join(" "))?;
    file.set("pkgsel/upgrade", "select", "full-upgrade")?;
    file.add(
        "popularity-contest",
        "popularity-contest/participate",
        "boolean",
        "false",
    )
}

fn end(file: &mut Preseed, install: &Install, bases: &[Base]) -> Result<()> {
    let script = finish(install, bases)?.encoded();
    if script.len() > LONGEST_SCRIPT {
        let reason = format!(
            "what is written at the end has {} bytes, and the installer takes {LONGEST_SCRIPT}",
            script.len()
        );
        return Err(AT.error(
            "setup.files",
            reason,
            "make the role's files smaller, or fetch them in a step",
        ));
    }
    let mut commands = vec![
        // It holds password hashes and a host key: nobody else may read it while it is there.
        format!("(umask 077 && printf %s '{script}' | chroot /target base64 -d > /target/etc/rackbar-finish)"),
        "in-target sh /etc/rackbar-finish".to_owned(),
        "rm -f /target/etc/rackbar-finish".to_owned(),
    ];
    if !bases.is_empty() {
        // Last, because it takes over the name servers of the new system, where it does not run yet.
        commands.insert(0, "apt-install systemd-resolved".to_owned());
    }
    if install.firmware == FirmwareMode::Uefi && matches!(install.target, RootTarget::Mirror(_)) {
        commands.push(SECOND_ESP.to_owned());
    }
    commands.push(format!("({})", ask_again(&install.done)));
    file.set("preseed/late_command", "string", &commands.join(" && "))?;
    file.set("finish-install/reboot_in_progress", "note", "")?;
    file.flags(&[
        ("debian-installer/exit/halt", false),
        ("debian-installer/exit/poweroff", false),
    ])
}

/// partman formats a system partition on each half and fills one. The other gets the same content, so that the firmware
/// starts the machine from either.
const SECOND_ESP: &str = "set -- $(cat /tmp/rackbar-disks) \
&& esp=$(grep ' /target/boot/efi ' /proc/mounts | cut -d ' ' -f 1) \
&& case $esp in $1*) from=$1; to=$2;; $2*) from=$2; to=$1;; *) false;; esac \
&& number=${esp#$from} && case $to in *[0-9]) number=p${number#p};; *) number=${number#p};; esac \
&& umount /target/boot/efi && dd if=$esp of=$to$number bs=1M && mount $esp /target/boot/efi";

fn finish(install: &Install, bases: &[Base]) -> Result<Finish> {
    let setup = &install.setup;
    let mut script = Finish::new();
    script.accounts(install);
    script.identity(AT, install)?;
    if !bases.is_empty() {
        for (name, content) in networkd(setup, bases) {
            script.file(&format!("/etc/systemd/network/{name}"), 0o644, &content);
        }
        script.file("/etc/network/interfaces", 0o644, "auto lo\niface lo inet loopback\n");
        script.lines("systemctl enable systemd-networkd.service systemd-resolved.service");
        // Interfaces get their names where the drivers are loaded.
        script.lines("update-initramfs -u");
    }
    if !setup.ntp.is_empty() {
        let content = format!("[Time]\nNTP={}\n", setup.ntp.join(" "));
        script.file("/etc/systemd/timesyncd.conf.d/rackbar.conf", 0o644, &content);
    }
    script.role_files(install);
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_the_disk_follows_firmware_and_mirror() {
        assert!(recipe(FirmwareMode::Uefi, false).contains("method{ efi }"));
        assert!(recipe(FirmwareMode::Bios, false).contains("method{ biosgrub }"));
        assert!(recipe(FirmwareMode::Bios, true).ends_with("method{ raid } raidid{ 1 } ."));
        assert!(!recipe(FirmwareMode::Uefi, true).contains("mountpoint"));
    }
}
