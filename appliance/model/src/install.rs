//! Words of installing: which disk, how it is emptied, where an image comes from, and who the installed system is.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Digest, DiskBus, MacAddr, Timestamp};

/// One disk, named by what does not change when kernel or cabling order do. Every field that is given must fit, and
/// exactly one disk of the machine may fit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct DiskRef {
    /// Serial number.
    pub serial: Option<String>,
    /// World Wide Name, NVMe EUI-64 or NGUID.
    pub wwn: Option<String>,
    /// Path as udev's by-path writes it.
    pub by_path: Option<String>,
    /// Size in bytes: a disk that was swapped for another in the same slot is not the disk that was planned for.
    pub size_bytes: Option<u64>,
}

impl fmt::Display for DiskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.serial, &self.wwn, &self.by_path) {
            (Some(serial), _, _) => write!(f, "serial {serial}"),
            (None, Some(wwn), _) => write!(f, "WWN {wwn}"),
            (None, None, Some(path)) => f.write_str(path),
            (None, None, None) => f.write_str("a disk without serial, WWN and path"),
        }
    }
}

/// How a disk is emptied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EraseMethod {
    /// Only what names the content: partition tables, file system, RAID and LVM signatures.
    #[default]
    Signatures,
    /// Signatures, then the whole device is discarded (BLKDISCARD). Devices that cannot are an error.
    Discard,
    /// NVMe Sanitize, else NVMe Format with user data erase; ATA SANITIZE or SECURITY ERASE UNIT; SCSI SANITIZE.
    Sanitize,
    /// A cryptographic erase by the device itself.
    Crypto,
    /// Every block overwritten with zeros and read back.
    Overwrite,
}

impl EraseMethod {
    /// The method's name as site files, API and CLI write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Signatures => "signatures",
            Self::Discard => "discard",
            Self::Sanitize => "sanitize",
            Self::Crypto => "crypto",
            Self::Overwrite => "overwrite",
        }
    }
}

/// What shows that a disk was emptied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct EraseEvidence {
    /// The disk.
    pub disk: DiskRef,
    /// Its model.
    pub model: Option<String>,
    /// What was asked for.
    pub asked: EraseMethod,
    /// What was done, step by step, with the device's own answers.
    pub steps: Vec<String>,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
}

/// How an image is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    /// The disk's bytes.
    Raw,
    /// Raw in a Zstandard stream (RFC 8878).
    Zstd,
    /// Raw in an xz stream.
    Xz,
    /// Raw in gzip (RFC 1952).
    Gzip,
    /// QEMU's qcow2, versions 2 and 3, without backing file and encryption.
    Qcow2,
}

/// An image and where the agent gets it. It lies on the appliance's boot HTTP server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct ImageSource {
    /// Its name, for people.
    pub name: String,
    /// `http://` URL; the digest makes it safe.
    pub url: String,
    /// Packing.
    pub format: ImageFormat,
    /// SHA-256 of the file as it is fetched.
    pub sha256: Digest,
    /// Size of the file as it is fetched, in bytes.
    pub bytes: u64,
    /// Size of the unpacked disk image, in bytes, when known.
    pub disk_bytes: Option<u64>,
}

/// A catalogue entry: an image that lies on the appliance.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct ImageEntry {
    /// Its name, such as `debian-12`: lower-case letters, digits, `.`, `_`, `-`; at most 64.
    pub name: String,
    /// Packing.
    pub format: ImageFormat,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Size of the unpacked disk image in bytes, when known.
    pub disk_bytes: Option<u64>,
    /// Architecture as `uname -m` says it.
    pub arch: String,
    /// Where it came from, for people.
    pub source: String,
    /// Licence note.
    pub licence: String,
    /// Account that logs in over SSH.
    pub user: String,
    /// When it was added.
    pub added: Timestamp,
    /// What makes it an installer that is booted from the network, in place of an image that is written to a disk.
    #[serde(default)]
    pub installer: Option<Installer>,
}

/// A program that lies on the appliance for the users' own steps: a static executable for x86-64.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct ProgramEntry {
    /// Its name, as site files write it: lower-case letters, digits, `.`, `_`, `-`; at most 64.
    pub name: String,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// When this content came under this name.
    pub added: Timestamp,
}

/// An installer in the catalogue: an archive or a disc with what boots it, whose parts are served as they lie in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Installer {
    /// What it installs.
    pub system: InstallerSystem,
    /// Release, by the name that its archive knows it by, such as `bookworm`; a disc's version, such as `9.4`.
    pub release: String,
    /// Its Linux kernel.
    pub kernel: InstallerFile,
    /// Its initial RAM file system.
    pub initrd: InstallerFile,
    /// What is on it, of a disc (ISO 9660): all of its files are served to machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disc: Option<InstallerDisc>,
}

impl Installer {
    /// The proxy's mirror that it fetches packages from; `None` when they are on its disc.
    pub fn mirror(&self) -> Option<&'static str> {
        let whole = self.disc.as_ref().is_some_and(|disc| !disc.repositories.is_empty());
        (!whole).then(|| self.system.mirror())
    }

    /// What an archive of apt's calls the release.
    pub fn suite(&self) -> &str {
        match (self.system, self.release.as_str()) {
            (InstallerSystem::Ubuntu, "22.04") => "jammy",
            (InstallerSystem::Ubuntu, _) => "noble",
            (_, release) => release,
        }
    }

    /// Of the Red Hat family the folder with `.treeinfo` in that mirror, for x86-64: by the version's first number, as
    /// publishers lay it out. Nothing of Debian's and Ubuntu's.
    pub fn tree(&self) -> String {
        let major = self.release.split('.').next().unwrap_or_default();
        match self.system {
            InstallerSystem::Debian | InstallerSystem::Ubuntu => String::new(),
            InstallerSystem::Fedora => format!("releases/{major}/Everything/x86_64/os"),
            InstallerSystem::CentosStream => format!("{major}-stream/BaseOS/x86_64/os"),
            InstallerSystem::Rhel | InstallerSystem::Rocky | InstallerSystem::Alma => {
                format!("{major}/BaseOS/x86_64/os")
            }
        }
    }
}

/// What an installer's disc holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct InstallerDisc {
    /// Its folders that hold packages with their index, such as `BaseOS`; `.` is the disc itself. None: it only boots, and
    /// packages come from elsewhere.
    pub repositories: Vec<String>,
}

/// What an installer installs, and so which answers it understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum InstallerSystem {
    /// Debian, by debian-installer.
    Debian,
    /// Red Hat Enterprise Linux, by Anaconda, as all that follow.
    Rhel,
    /// Rocky Linux.
    Rocky,
    /// AlmaLinux.
    Alma,
    /// CentOS Stream.
    CentosStream,
    /// Fedora.
    Fedora,
    /// Ubuntu Server, by subiquity.
    Ubuntu,
}

impl InstallerSystem {
    /// What the proxy's mirror of its packages is called.
    pub const fn mirror(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Rhel => "rhel",
            Self::Rocky => "rocky",
            Self::Alma => "alma",
            Self::CentosStream => "centos-stream",
            Self::Fedora => "fedora",
            Self::Ubuntu => "ubuntu",
        }
    }

    /// Of the places that hold its packages, the first that it can ask itself: debian-installer speaks `http` alone.
    pub fn asks(self, places: &[String]) -> Option<&str> {
        let can = |url: &&String| self != Self::Debian || url.starts_with("http://");
        places.iter().find(can).map(String::as_str)
    }

    /// Its name, for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Debian => "Debian",
            Self::Rhel => "Red Hat Enterprise Linux",
            Self::Rocky => "Rocky Linux",
            Self::Alma => "AlmaLinux",
            Self::CentosStream => "CentOS Stream",
            Self::Fedora => "Fedora",
            Self::Ubuntu => "Ubuntu",
        }
    }
}

/// A member of an installer's archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct InstallerFile {
    /// SHA-256 of its content.
    pub sha256: Digest,
    /// Where its content begins in the archive, in bytes.
    pub offset: u64,
    /// Size of its content in bytes.
    pub bytes: u64,
}

/// What was installed on a machine, and how its system is known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Installed {
    /// Name of the image in the catalogue.
    pub image: String,
    /// SHA-256 of the image's file as it was fetched.
    pub sha256: Digest,
    /// Where it lies.
    pub target: RootTarget,
    /// Host name it was given; empty until it was given one.
    #[serde(default)]
    pub hostname: String,
    /// Account that logs in over SSH.
    #[serde(default)]
    pub user: String,
    /// Public part of the host key it was given, as OpenSSH writes it; empty until it was given one.
    #[serde(default)]
    pub host_key: String,
    /// It answered with its host key.
    #[serde(default)]
    pub proved: bool,
    /// When the image was written.
    pub at: Timestamp,
    /// The run that wrote it.
    pub run: u64,
}

/// Where an installed system lives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RootTarget {
    /// One disk.
    Disk(DiskRef),
    /// Two disks with the same content; the root partition is Linux md RAID1, metadata 1.0, so that firmware and boot
    /// programs read each half as a plain file system.
    Mirror([DiskRef; 2]),
}

impl RootTarget {
    /// The disks, one or two.
    pub fn disks(&self) -> &[DiskRef] {
        match self {
            Self::Disk(disk) => core::slice::from_ref(disk),
            Self::Mirror(disks) => disks,
        }
    }
}

/// Who the installed system is: one typed model, written as a NoCloud seed and as plain files.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct OsSetup {
    /// Host name, without domain.
    pub hostname: String,
    /// DNS domain.
    pub domain: Option<String>,
    /// Content of `/etc/machine-id`: 32 hexadecimal digits. Derived from the node's identity and the install, so that
    /// two installs never share one.
    pub machine_id: String,
    /// Account that the keys are for; `root` when empty.
    pub user: String,
    /// OpenSSH public keys that may log in.
    pub ssh_keys: Vec<String>,
    /// The host's own Ed25519 key in OpenSSH's private key format, made by the appliance so that it knows the host it
    /// talks to. Empty: the system makes its own. Plans leave it empty; it is filled in when the work is given out.
    pub ssh_host_key: SecretText,
    /// Network interfaces.
    pub networks: Vec<OsNetwork>,
    /// Addresses of DNS servers.
    #[cfg_attr(feature = "utoipa", schema(value_type = Vec<String>))]
    pub dns: Vec<IpAddr>,
    /// NTP servers, names or addresses.
    pub ntp: Vec<String>,
    /// URL of the HTTP proxy for packages.
    pub proxy: Option<String>,
    /// Where logs go: `host:port` of a syslog server over UDP.
    pub syslog: Option<String>,
    /// Time zone, such as `Europe/Berlin`; UTC when `None`.
    pub timezone: Option<String>,
    /// Files of the role.
    pub files: Vec<OsFile>,
}

/// Text that no log and no `Debug` shows.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct SecretText(pub String);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { ".." })
    }
}

/// One interface of the installed system, named by what it is for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct OsNetwork {
    /// Its name by function, such as `mgmt` or `storage`; at most 15 bytes, as the kernel wants it.
    pub name: String,
    /// The physical interfaces it uses: one, or the members of its bond. More than one without `bond` is an error.
    pub nics: Vec<MacAddr>,
    /// How several interfaces are one.
    pub bond: Option<BondMode>,
    /// 802.1Q VLAN ID carried tagged on it.
    pub vlan: Option<u16>,
    /// MTU in bytes, when not the standard 1500.
    pub mtu: Option<u16>,
    /// Static addresses with prefix length, such as `10.10.0.50/24`. Empty: DHCP.
    pub addresses: Vec<String>,
    /// Default gateway. At most one network has one per address family.
    #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
    pub gateway: Option<IpAddr>,
}

/// Bonding modes (Linux bonding driver; 802.3ad is LACP of IEEE 802.1AX).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub enum BondMode {
    /// LACP; the switch must be configured for it.
    #[serde(rename = "802.3ad")]
    Lacp,
    /// One active at a time.
    #[serde(rename = "active-backup")]
    ActiveBackup,
}

/// A file of the installed system. Its content may be a secret, so it is not shown among debugging words.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct OsFile {
    /// Absolute path.
    pub path: String,
    /// Content.
    pub content: String,
    /// Permission bits, such as `0o644`.
    pub mode: u32,
}

impl fmt::Debug for OsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, content, mode } = self;
        write!(f, "{path} ({} bytes, mode {mode:o})", content.len())
    }
}

/// What an agent saw of a firmware boot entry (UEFI 2.10 section 3.1.3).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct BootEntry {
    /// The number of `Boot####`.
    pub number: u16,
    /// Its description.
    pub description: String,
    /// True when it is active.
    pub active: bool,
    /// What it starts: `disk`, `network` or other words, as far as the device path tells.
    pub kind: String,
}

/// An asked-for burn-in: how many seconds each part is exercised; 0 leaves it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct BurnIn {
    /// All processors.
    pub cpu_seconds: u32,
    /// As much memory as is free but for 128 MiB.
    pub memory_seconds: u32,
    /// Reads of every disk; never writes.
    pub disk_seconds: u32,
}

/// The bus and media a disk intent may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DiskMedia {
    /// Does not rotate.
    Ssd,
    /// Rotates.
    Hdd,
}

/// Which disk a role wants for its root. Every field that is given narrows the choice.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DiskIntent {
    /// `smallest` or `largest` of those that are left, when several are. Disks of the same size stay ambiguous.
    pub pick: Option<DiskPick>,
    /// Kind of medium.
    pub media: Option<DiskMedia>,
    /// Bus.
    pub bus: Option<DiskBus>,
    /// Least size in GiB.
    pub min_gib: Option<u64>,
    /// Greatest size in GiB.
    pub max_gib: Option<u64>,
    /// Serial number.
    pub serial: Option<String>,
    /// World Wide Name.
    pub wwn: Option<String>,
    /// Text that the model must contain, in any case.
    pub model: Option<String>,
    /// Path as udev's by-path writes it.
    pub by_path: Option<String>,
}

/// Which of several fitting disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DiskPick {
    /// The smallest.
    Smallest,
    /// The largest.
    Largest,
}
