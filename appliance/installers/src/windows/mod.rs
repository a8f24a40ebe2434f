//! Windows Server 2019, 2022 and 2025: `autounattend.xml`, and Windows PE started by wimboot.
//!
//! ```text
//!  iPXE: wimboot, boot.wim ─▶ Windows PE: rackbar.cmd ─▶ Setup from a share ─▶ Windows: SetupComplete.cmd
//!        and our files                    finds the disk, writes                         runs rackbar.ps1: accounts,
//!                                         its number into the answers                    network, sshd; tells the end
//! ```
//! Setup knows disks by number alone, and numbers change from start to start; so a script asks WMI for serial numbers before
//! Setup starts. Where `boot.wim` lacks WMI or JScript, Setup never starts. What WMI cannot tell a disk by is refused.
//! Windows has no hashes of passwords that it would take: accounts have SSH keys alone.

mod answers;
mod finish;
mod preinstall;
mod words;
mod xml;

use std::fmt;
use std::str::FromStr;

use rackbar_model::{DiskRef, FirmwareMode, RootTarget, SecretText};

use crate::check::{self, demand, everybody, root_keys};
use crate::error::{For, Result};
use crate::input::{Account, Install, Url};
use crate::{AnswerFile, Rendered};

const AT: For = For("windows");

/// The steps that Windows tells of before it is done: it starts from its disk.
pub const STEPS: [&str; 1] = ["base"];

/// Windows Server and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Windows {
    /// Which image of the medium's `install.wim`.
    pub image: WindowsImage,
    /// The key: one's own, or the one that Microsoft publishes for clients of a KMS. Media for evaluation need none.
    pub product_key: Option<ProductKey>,
    /// Language of the medium, such as `en-US`; a medium has one.
    pub language: String,
    /// The folder with the medium's files for iPXE.
    pub source: Url,
    /// The boot loader `wimboot`.
    pub wimboot: Url,
    /// The same folder for Setup, which reads gigabytes at random places and knows no HTTP.
    pub share: WindowsShare,
    /// Folder below which Windows asks for the name of each step that it begins ([`STEPS`]) and of what went wrong
    /// ([`FAILURES`](crate::FAILURES)); ends with `/` and holds a token.
    pub steps: Option<Url>,
}

/// An image of `install.wim`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WindowsImage {
    /// By its number, from 1.
    Index(u32),
    /// By its name, such as `Windows Server 2022 SERVERSTANDARDCORE`.
    Name(String),
}

/// An SMB share. Windows PE has the account's password in memory, and gets it by way of iPXE: it should be able to read
/// the share and nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowsShare {
    /// `\\server\share`, with folders behind where need be.
    pub path: String,
    /// An account that may read there.
    pub user: String,
    /// Its password.
    pub password: SecretText,
}

/// A product key: five groups of five letters and digits. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ProductKey(String);

impl ProductKey {
    /// The key, with its dashes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ProductKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// Text that is no product key. Does not say it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this is no product key: five groups of five capital letters and digits with dashes between them")]
pub struct BadProductKey;

impl FromStr for ProductKey {
    type Err = BadProductKey;

    fn from_str(text: &str) -> std::result::Result<Self, BadProductKey> {
        let groups: Vec<&str> = text.split('-').collect();
        let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit();
        let good = |group: &&str| group.len() == 5 && group.bytes().all(plain);
        if groups.len() == 5 && groups.iter().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadProductKey)
        }
    }
}

/// Renders the answer file and what Windows PE runs.
pub(crate) fn render(install: &Install, system: &Windows) -> Result<Rendered> {
    let bases = check::install(AT, install)?;
    limits(install)?;
    accounts(install)?;
    networks(install)?;
    source(system)?;
    let disk = disk(install)?;
    let script = finish::script(install, system, &bases)?;
    let answers = answers::file(install, system, &script)?;
    let mut files = vec![AnswerFile::new("autounattend.xml", answers)];
    files.extend(preinstall::files(system, disk));
    let boot = preinstall::boot(install, system, &files);
    Ok(Rendered { files, boot })
}

fn limits(install: &Install) -> Result<()> {
    let setup = &install.setup;
    let left: [(&str, bool, &str); 6] = [
        ("packages", install.packages.is_empty(), "packages"),
        (
            "setup.files",
            setup.files.is_empty(),
            "files with paths and permission bits of Linux",
        ),
        (
            "setup.machine_id",
            setup.machine_id.is_empty(),
            "a machine ID: it makes its own",
        ),
        (
            "setup.syslog",
            setup.syslog.is_none(),
            "a syslog server: Windows has no client",
        ),
        (
            "kernel_arguments",
            install.kernel_arguments.trim().is_empty(),
            "arguments of a kernel",
        ),
        (
            "root_password",
            install.root_password.is_none(),
            "a hash of a password: Windows takes plain ones alone; it has SSH keys instead",
        ),
    ];
    if let Some((field, _, what)) = left.into_iter().find(|(_, good, _)| !good) {
        return AT.cannot(field, what);
    }
    let name = &setup.hostname;
    let length = "it is longer than the 15 characters that NetBIOS has for a computer's name";
    demand(AT, name.len() <= 15, "setup.hostname", length)?;
    let number = name.bytes().all(|b| b.is_ascii_digit());
    let dash = name.ends_with('-');
    let what = "Windows takes no computer's name of digits alone or with a dash at its end";
    demand(AT, !number && !dash, "setup.hostname", what)?;
    proxy(install).map(|_| ())
}

fn accounts(install: &Install) -> Result<()> {
    for (index, account) in install.accounts.iter().enumerate() {
        let field = |name: &str| format!("accounts[{index}].{name}");
        if account.password.is_some() {
            return AT.cannot(
                field("password"),
                "a hash of a password: Windows takes plain ones alone",
            );
        }
        if !account.admin {
            let what = "the keys of an account that is no administrator: its folder for them is made when it logs in";
            return AT.cannot(field("admin"), what);
        }
        self::account(install, &field("name"), account)?;
    }
    let user = everybody(install);
    if let Some(user) = user.iter().find(|account| account.name == install.setup.user) {
        account(install, "setup.user", user)?;
    }
    let what = "there is no key, and nobody could log in";
    demand(AT, !keys(install).is_empty(), "setup.ssh_keys", what)
}

fn account(install: &Install, field: &str, account: &Account) -> Result<()> {
    let name = account.name.as_str();
    let what = "it is longer than the 20 characters that Windows has for an account's name";
    demand(AT, name.len() <= 20, field, what)?;
    let own = [
        "administrator",
        "guest",
        "defaultaccount",
        "wdagutilityaccount",
        "system",
        "none",
    ];
    let what = "it is the name of an account that Windows has already";
    demand(AT, !own.contains(&name), field, what)?;
    let computer = name.eq_ignore_ascii_case(&install.setup.hostname);
    demand(
        AT,
        !computer,
        field,
        "it is the computer's name too, which Windows refuses",
    )
}

fn networks(install: &Install) -> Result<()> {
    for (index, network) in install.setup.networks.iter().enumerate() {
        let field = |name: &str| format!("setup.networks[{index}].{name}");
        if network.vlan.is_some() {
            return AT.cannot(
                field("vlan"),
                "VLANs: Windows has them in drivers and teams, not for an interface",
            );
        }
        if network.bond.is_some() {
            return AT.cannot(
                field("bond"),
                "bonds: Microsoft takes teams of interfaces out of Windows",
            );
        }
        if network.mtu.is_some_and(|mtu| mtu > 1500) {
            let what = "an MTU beyond 1500: how great a frame may be is a setting of each driver's own";
            return AT.cannot(field("mtu"), what);
        }
        let what = "Windows takes none below 1280";
        demand(AT, network.mtu.is_none_or(|mtu| mtu >= 1280), &field("mtu"), what)?;
    }
    Ok(())
}

fn source(system: &Windows) -> Result<()> {
    let good = match &system.image {
        WindowsImage::Index(index) => (1..=999).contains(index),
        WindowsImage::Name(name) => {
            !name.trim().is_empty() && name.len() <= 255 && name.bytes().all(|b| (b' '..=b'~').contains(&b))
        }
    };
    demand(AT, good, "image", "it is neither a number from 1 nor a name in ASCII")?;
    let language = &system.language;
    let good = language.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && language.contains('-');
    demand(AT, good, "language", "it is no language of Windows, such as en-US")?;
    let share = &system.share;
    // All three stand in a line of cmd, which has no quoting that holds.
    let plain = |text: &str, more: &[u8]| {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        first && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    let parts: Vec<&str> = share.path.strip_prefix(r"\\").unwrap_or_default().split('\\').collect();
    let good = parts.len() >= 2 && share.path.len() <= 200 && parts.iter().all(|part| plain(part, b"._-$"));
    let what = r"it is no \\server\share of letters, digits and ._-$";
    demand(AT, good, "share.path", what)?;
    let good = plain(&share.user, b"._-") && share.user.len() <= 64;
    demand(
        AT,
        good,
        "share.user",
        "it has other characters than letters, digits and ._-",
    )?;
    let good = plain(&share.password.0, b"._~+@#:=-") && share.password.0.len() <= 127;
    let what = "it is empty, does not begin with a letter or digit, or has other characters than those and ._~+@#:=-";
    demand(AT, good, "share.password", what)
}

/// The disk, when WMI has something to know it by.
fn disk(install: &Install) -> Result<&DiskRef> {
    let RootTarget::Disk(disk) = &install.target else {
        return AT.cannot("target", "a mirror");
    };
    if disk.serial.is_none() && eui(disk).is_none() {
        let field = if disk.wwn.is_some() { "wwn" } else { "by_path" };
        let what = "a disk without a serial number: WMI has neither path nor WWN but an NVMe disk's EUI-64";
        return AT.cannot(format!("target.disks[0].{field}"), what);
    }
    let mbr = install.firmware == FirmwareMode::Bios && disk.size_bytes.is_some_and(|bytes| bytes > 2 << 40);
    if mbr {
        let what = "more than 2 TiB of a disk under BIOS, where Windows starts from MBR alone";
        return AT.cannot("target.disks[0].size_bytes", what);
    }
    Ok(disk)
}

/// An NVMe disk's EUI-64 or NGUID as Windows has it for a serial number: `0025_385B_0123_4567.`
fn eui(disk: &DiskRef) -> Option<String> {
    let digits = disk.wwn.as_deref()?.strip_prefix("eui.")?;
    let good = matches!(digits.len(), 16 | 32) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let upper: Vec<char> = digits.to_ascii_uppercase().chars().collect();
    let groups: Vec<String> = upper.chunks(4).map(|group| group.iter().collect()).collect();
    good.then(|| groups.join("_") + ".")
}

/// The proxy as `host:port`, which is all that Windows has words for.
fn proxy(install: &Install) -> Result<Option<String>> {
    let Some(url) = check::proxy(AT, install)? else {
        return Ok(None);
    };
    let (host, path) = url.parts();
    if !url.is_http() || !matches!(path, "" | "/") {
        return AT.cannot("setup.proxy", "a proxy but by http://host:port");
    }
    let port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(Some(if port { host.to_owned() } else { format!("{host}:80") }))
}

/// Keys of all administrators, each once.
fn keys(install: &Install) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let accounts = everybody(install);
    let keys = accounts.iter().flat_map(|account| &account.ssh_keys);
    for key in root_keys(install).iter().chain(keys) {
        let key = key.trim().to_owned();
        if !all.contains(&key) {
            all.push(key);
        }
    }
    all
}
