//! `cargo xtask setup`: what the verbs need beyond Rust itself, as one table, and how to get it.
//!
//! Only Debian packages need root. Without root the exact command is printed and the verb stops; nothing is
//! half-installed. Other verbs call [`ensure`](fn@ensure) with their own [`Need`], which costs two quick questions when
//! everything is there.

pub(crate) mod debian;
mod python;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Uid;

use crate::project::cargo;

/// What a verb is about to do. One per verb that needs anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Need {
    /// Build the programs and media (`image`).
    Image,
    /// Run the virtual rack (`rack`).
    Rack,
    /// Run the tests (`test`).
    Test,
    /// Check the source (`check`).
    Check,
    /// Measure against other programs (`bench`).
    Bench,
    /// Build images of operating systems for the nodes (`os-image`).
    OsImage,
    /// Fuzz with coverage counters (`fuzz`, and `test` as a part of it).
    Fuzz,
}

impl Need {
    const ALL: [Need; 7] = [
        Need::Image,
        Need::Rack,
        Need::Test,
        Need::Check,
        Need::Bench,
        Need::OsImage,
        Need::Fuzz,
    ];
}

/// A Debian package, who needs it, and why.
struct Package {
    name: &'static str,
    needs: &'static [Need],
    why: &'static str,
}

/// Shorthand for a row of [`PACKAGES`].
const fn package(name: &'static str, needs: &'static [Need], why: &'static str) -> Package {
    Package { name, needs, why }
}

use Need::{Bench, Check, Fuzz, Image, OsImage, Rack, Test};

/// Every Debian package any verb needs.
const PACKAGES: &[Package] = &[
    package(
        "gcc",
        &[Image, Rack, Test, Check, Bench, Fuzz],
        "links programs and compiles the C in ring",
    ),
    package(
        "libc6-dev",
        &[Image, Rack, Test, Check, Bench, Fuzz],
        "headers for the C in ring",
    ),
    package(
        "ca-certificates",
        &[Image, Rack, Test, Check, Bench, OsImage, Fuzz],
        "lets cargo and apt verify HTTPS servers",
    ),
    package("g++", &[Test, Fuzz], "compiles libFuzzer, which is C++"),
    package(
        "qemu-system-x86",
        &[Rack, Test],
        "runs the machines of the virtual rack",
    ),
    package("ovmf", &[Rack, Test], "UEFI firmware of the virtual machines"),
    package("seabios", &[Rack, Test], "BIOS firmware of the virtual machines"),
    package("ipxe-qemu", &[Rack, Test], "network boot ROMs of the virtual machines"),
    package(
        "ipxe",
        &[Rack, Test],
        "network boot programs that foreign servers hand out in tests",
    ),
    package("tcpdump", &[Test], "independent reader of captures"),
    package(
        "tshark",
        &[Test],
        "Wireshark's reader of captures with what happened beside the packets",
    ),
    package("swtpm", &[Rack, Test], "TPMs of the virtual machines"),
    package("ipmitool", &[Test], "independent client for the simulated BMCs"),
    package("isc-dhcp-client", &[Test], "independent DHCP client"),
    package("isc-dhcp-relay", &[Test], "independent DHCP relay"),
    package("udhcpc", &[Test], "independent DHCP client"),
    package("tftp-hpa", &[Test], "independent TFTP client"),
    package(
        "atftp",
        &[Test, Bench],
        "independent TFTP client with block sizes and windows",
    ),
    package("openssh-server", &[Test], "independent SSH server"),
    package(
        "puppet-agent",
        &[Test],
        "independent reader of what Puppet is given, and maker of certificate requests",
    ),
    package(
        "puppetserver",
        &[Test],
        "Puppet's own server, at which machines enrol by what we gave them",
    ),
    package("facter", &[Test], "independent reader of facts"),
    package("ohai", &[Test], "whose shape our attributes have"),
    package("minisign", &[Test], "independent checker of the signature of a release"),
    package("openssl", &[Test], "independent maker of certificate requests"),
    package(
        "gnupg",
        &[Test],
        "independent maker of the keys and signatures that refreshes are judged by",
    ),
    package("rpm", &[Test], "independent maker and installer of RPM packages"),
    package("git", &[Test], "independent server and client of Git repositories"),
    package(
        "createrepo-c",
        &[Test],
        "independent maker of repositories of RPM packages",
    ),
    package("dnf", &[Test], "independent client of repositories of RPM packages"),
    package("zypper", &[Test], "independent client of repositories of RPM packages"),
    package("python3-ceph-common", &[Test], "Ceph's own reader of specifications"),
    package("python3-yaml", &[Test], "YAML for Ceph's reader"),
    package("python3-venv", &[Test], "a folder of its own for Salt"),
    package("ansible-core", &[Test], "independent reader of the Ansible inventory"),
    package("curl", &[Test, Bench], "independent HTTP client"),
    package(
        "iproute2",
        &[Test, Bench],
        "network namespaces for tests with real sockets",
    ),
    package("qemu-utils", &[Test], "independent writer of qcow2 images"),
    package("xfsprogs", &[Test], "independent maker and checker of XFS"),
    package("mdadm", &[Test], "independent reader of software RAID"),
    package("debconf", &[Test], "independent reader of preseed files"),
    package("busybox", &[Test], "the shell of Debian's installer"),
    package("ignition", &[Test], "independent reader of Ignition's configurations"),
    package("gir1.2-nm-1.0", &[Test], "NetworkManager's own reader of connections"),
    package("python3-gi", &[Test], "calls NetworkManager's reader"),
    package("systemd", &[Test], "independent reader of units"),
    package("cloud-init", &[Test], "independent reader of user-data"),
    package("netplan.io", &[Test], "independent reader of its own files"),
    package("libxml2-utils", &[Test], "independent reader of XML"),
    package(
        "nodejs",
        &[Test],
        "runs the script that Windows PE gets, with a WMI of our own",
    ),
    package("openssh-client", &[Test], "independent maker of SSH keys"),
    package("xz-utils", &[Test], "independent compressor"),
    package("chromium", &[Test], "a browser to look at the page with"),
    package("chromium-driver", &[Test], "drives the browser"),
    package("gdisk", &[Test], "independent reader of GPT"),
    package("dosfstools", &[Test], "independent checker of FAT"),
    package("mtools", &[Test], "independent reader of FAT"),
    package(
        "e2fsprogs",
        &[Test, OsImage],
        "independent checker of ext4; makes the nodes' root file system",
    ),
    package("xorriso", &[Test], "independent reader of ISO 9660"),
    package("cpio", &[Test], "independent reader of cpio archives"),
    package("zstd", &[Test], "independent decompressor"),
    package("binutils", &[Test], "independent reader of PE files"),
    package(
        "dnsmasq-base",
        &[Test, Bench],
        "foreign DHCP server, and a peer to measure against",
    ),
    package("bind9-dnsutils", &[Test], "DNS client (dig)"),
    package(
        "unbound",
        &[Test, Bench],
        "resolver to forward to, and a peer to measure against",
    ),
    package(
        "chrony",
        &[Test, Bench],
        "NTP client and server, and a peer to measure against",
    ),
    package("rsyslog", &[Test], "syslog client that forwards"),
    package("bsdutils", &[Test], "syslog client (logger)"),
    package("dnsperf", &[Bench], "load of DNS queries"),
    package("tftpd-hpa", &[Bench], "TFTP server to measure against"),
    package("nginx-light", &[Bench], "HTTP server and cache to measure against"),
    package(
        "squid",
        &[Test, Bench],
        "proxy behind which ours works, and to measure against",
    ),
    package("apt-cacher-ng", &[Bench], "caching proxy to measure against"),
    package(
        "mmdebstrap",
        &[OsImage],
        "unpacks and configures Debian packages into a folder",
    ),
    package("uidmap", &[OsImage], "lets mmdebstrap work without root"),
    package(
        "fakeroot",
        &[OsImage],
        "lets files of the nodes' system belong to its root",
    ),
    package(
        "debian-archive-keyring",
        &[OsImage],
        "keys that Debian's packages are signed with",
    ),
    package("libdevmapper1.02.1", &[OsImage], "library of GRUB's image maker"),
];

/// Rust targets, who needs them, and why.
const TARGETS: &[Package] = &[
    package(
        "x86_64-unknown-linux-musl",
        &[Image, Rack, Test],
        "static programs of the image",
    ),
    package("x86_64-unknown-uefi", &[Image, Rack, Test], "the boot loader"),
];

/// Cargo subcommands, who needs them, and why.
const TOOLS: &[Package] = &[package(
    "cargo-deny",
    &[Check],
    "licences, advisories and banned crates",
)];

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only what these verbs need; without any, what all of them need
    verbs: Vec<Need>,
}

/// Installs what is missing and says what is there.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let needs = if arguments.verbs.is_empty() {
        &Need::ALL[..]
    } else {
        &arguments.verbs
    };
    for need in needs {
        ensure(*need)?;
    }
    println!("setup: everything is in place for {needs:?}");
    Ok(())
}

/// Makes sure that everything one verb needs is installed: installs it when that is possible, otherwise fails with
/// the command that would.
pub(crate) fn ensure(need: Need) -> Result<()> {
    debian_packages(need)?;
    rust_targets(need)?;
    cargo_tools(need)?;
    python::packages(need)
}

/// Rows of a table that one verb needs.
fn rows(table: &'static [Package], need: Need) -> impl Iterator<Item = &'static Package> {
    table.iter().filter(move |row| row.needs.contains(&need))
}

/// Says what is about to be installed, and why.
fn announce(kind: &str, missing: &[&Package]) {
    for row in missing {
        println!("setup: {kind} {} is missing: {}", row.name, row.why);
    }
}

fn debian_packages(need: Need) -> Result<()> {
    // Installing may take away: qemu-utils of the backports conflicts with bookworm's qemu-system-x86, and comes back in
    // bookworm's version in the second round.
    for _ in 0..2 {
        missing_packages(need)?;
    }
    Ok(())
}

fn missing_packages(need: Need) -> Result<()> {
    let wanted: Vec<_> = rows(PACKAGES, need).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let installed = installed_packages(wanted.iter().map(|row| row.name))?;
    let missing: Vec<_> = wanted.into_iter().filter(|row| !installed.contains(row.name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    announce("Debian package", &missing);
    let names: Vec<_> = missing.iter().map(|row| row.name).collect();
    let quiet = || QUIET.iter().filter(|quiet| names.contains(&quiet.package));
    let off: String = quiet().map(Quiet::command).collect();
    ensure!(
        Uid::effective().is_root(),
        "Debian packages are missing and only root can install them; run:\n  \
         {off}sudo apt-get update && sudo apt-get install -y --no-install-recommends {}",
        names.join(" ")
    );
    quiet().try_for_each(Quiet::keep)?;
    apt_install(&names)
}

/// A package that the tests want a program of, and that would otherwise act on this machine by itself.
struct Quiet {
    package: &'static str,
    /// While this is there it does nothing: a link to `/dev/null` in the place of a unit of systemd's, else a file.
    off: &'static str,
    unit: bool,
    what: &'static str,
}

const QUIET: [Quiet; 2] = [
    Quiet {
        package: "cloud-init",
        off: "/etc/cloud/cloud-init.disabled",
        unit: false,
        what: "cloud-init is wanted for its checker alone, and would set this machine up at its next start",
    },
    Quiet {
        package: "puppetserver",
        off: "/etc/systemd/system/puppetserver.service",
        unit: true,
        what: "puppetserver is wanted for servers of the tests, and would serve this machine's network",
    },
];

impl Quiet {
    /// What keeps it off, for a shell, with an `&&` behind it.
    fn command(&self) -> String {
        let folder = Path::new(self.off).parent().unwrap_or(Path::new("/")).display();
        let make = if self.unit { "ln -sfn /dev/null" } else { "touch" };
        format!("sudo mkdir -p {folder} && sudo {make} {} && ", self.off)
    }

    /// Keeps it off; what is there already stays.
    fn keep(&self) -> Result<()> {
        let path = Path::new(self.off);
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        println!("setup: {}; {} keeps it off", self.what, self.off);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| match self.unit {
            true => std::os::unix::fs::symlink("/dev/null", path),
            false => std::fs::write(path, "cargo xtask setup keeps this off.\n"),
        })
        .with_context(|| format!("making {}", self.off))
    }
}

/// Of `names`, those dpkg has installed.
fn installed_packages<'a>(names: impl Iterator<Item = &'a str>) -> Result<BTreeSet<String>> {
    // dpkg-query fails when it does not know one of the names, but still lists the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"])
        .args(names)
        .output()
        .context("running dpkg-query; Rackbar is built on Debian 12 or a system like it")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .map(str::to_owned)
        .collect())
}

/// Installs packages, refreshing apt's lists once when they do not know all of them or are too old to fetch from.
fn apt_install(names: &[&str]) -> Result<()> {
    if !apt_knows(names)? {
        apt_update()?;
    }
    if install_once(names)? {
        return Ok(());
    }
    println!("setup: the package lists may be old; refreshing them and trying once more");
    apt_update()?;
    ensure!(
        install_once(names)?,
        "apt-get could not install {}; its own words are above",
        names.join(" ")
    );
    Ok(())
}

fn install_once(names: &[&str]) -> Result<bool> {
    let status = Command::new("apt-get")
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(names)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .context("running apt-get install")?;
    Ok(status.success())
}

/// Whether apt's lists hold all of `names`.
fn apt_knows(names: &[&str]) -> Result<bool> {
    let output = Command::new("apt-cache")
        .arg("show")
        .args(names)
        .output()
        .context("running apt-cache")?;
    Ok(output.status.success())
}

/// Refreshes apt's lists; root only.
fn apt_update() -> Result<()> {
    println!("setup: apt-get update");
    let status = Command::new("apt-get")
        .args(["update", "-q"])
        .status()
        .context("running apt-get update")?;
    ensure!(status.success(), "apt-get update failed; its own words are above");
    Ok(())
}

fn rust_targets(need: Need) -> Result<()> {
    let wanted: Vec<_> = rows(TARGETS, need).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .context("running rustc")?;
    ensure!(
        output.status.success(),
        "rustc: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let rustlib = sysroot.join("lib/rustlib");
    let missing: Vec<_> = wanted
        .into_iter()
        .filter(|row| !rustlib.join(row.name).join("lib").is_dir())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    announce("Rust target", &missing);
    let names: Vec<_> = missing.iter().map(|row| row.name).collect();
    match Command::new("rustup").args(["target", "add"]).args(&names).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => bail!("rustup target add {} failed; its own words are above", names.join(" ")),
        Err(error) => bail!(
            "Rust targets {} are missing from {} and rustup cannot be run ({error}); install them the way this \
             toolchain was installed",
            names.join(", "),
            rustlib.display()
        ),
    }
}

fn cargo_tools(need: Need) -> Result<()> {
    let mut missing = Vec::new();
    for row in rows(TOOLS, need) {
        let found = Command::new(row.name)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success());
        if !found {
            missing.push(row);
        }
    }
    announce("cargo tool", &missing);
    for row in missing {
        let status = cargo()
            // Unoptimized: it works for seconds, and builds for two minutes otherwise.
            .args(["install", "--locked", "--debug", row.name])
            .status()
            .context("running cargo install")?;
        ensure!(
            status.success(),
            "cargo install --locked {} failed; its own words are above",
            row.name
        );
    }
    Ok(())
}
