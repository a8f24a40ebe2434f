//! What an installer is told. Words of the rack's model where it has them; here only what images do not need.

use std::fmt;
use std::str::FromStr;

use rackbar_model::{FirmwareMode, MacAddr, OsSetup, RootTarget};

/// All that an installer must know of one machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Install {
    /// Who the installed system is.
    pub setup: OsSetup,
    /// The disk, or the two of a mirror. No other one is touched.
    pub target: RootTarget,
    /// Firmware that will start it.
    pub firmware: FirmwareMode,
    /// The NIC that the machine boots from. The installer itself uses this one alone, with DHCP.
    pub boot_mac: MacAddr,
    /// Root's password; root has none when `None`.
    pub root_password: Option<CryptHash>,
    /// Accounts besides root. The one of `setup.user` need not be here: it is made with `setup.ssh_keys`.
    pub accounts: Vec<Account>,
    /// Packages besides what the system needs.
    pub packages: Vec<String>,
    /// Locale, such as `en_GB.UTF-8`.
    pub locale: String,
    /// Keyboard layout as XKB calls it, such as `gb`.
    pub keyboard: String,
    /// Arguments for the kernels of installer and installed system, such as `console=ttyS1,115200`.
    pub kernel_arguments: String,
    /// Folder that the machine fetches its answer files from; ends with `/`. Holds a token.
    pub answers: Url,
    /// What the installer asks for when it has done its work. Holds a token.
    pub done: Url,
}

/// An account of the installed system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// Its name, as `useradd` takes it.
    pub name: String,
    /// The person's name.
    pub full_name: String,
    /// Password; it cannot be logged in to with one when `None`.
    pub password: Option<CryptHash>,
    /// OpenSSH public keys that may log in.
    pub ssh_keys: Vec<String>,
    /// May become root with `sudo`, without a password where it has none.
    pub admin: bool,
}

/// A password as crypt(5) has it: yescrypt, SHA-512, SHA-256 or bcrypt. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct CryptHash(String);

impl CryptHash {
    /// The hash. What it may hold is `$`, `.`, `/`, `=`, `,`, letters and digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True when it was made with one of these methods, such as `6` for SHA-512.
    pub(crate) fn is_one_of(&self, methods: &[&str]) -> bool {
        self.0.split('$').nth(1).is_some_and(|method| methods.contains(&method))
    }
}

impl fmt::Debug for CryptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// Text that is no password hash. Does not say it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this is no password hash of crypt(5) with $y$, $6$, $5$ or $2b$; `mkpasswd` makes one")]
pub struct BadHash;

impl FromStr for CryptHash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, BadHash> {
        // MD5 and DES, which crypt(5) also knows, are guessed in hours.
        let known = ["$y$", "$6$", "$5$", "$2b$"]
            .iter()
            .any(|method| text.starts_with(method));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"$./=,".contains(&b);
        let parts = text.split('$').count();
        if known && parts >= 4 && (30..=384).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadHash)
        }
    }
}

/// An `http` or `https` URL without characters that shells, kernels or answer files read as their own. `Debug` shows
/// only where it leads, because the rest may hold a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True when it is not encrypted.
    pub fn is_http(&self) -> bool {
        self.0.starts_with("http://")
    }

    /// A file in this folder.
    pub(crate) fn file(&self, name: &str) -> String {
        format!("{}{name}", self.0)
    }

    /// Host with port, and path from its `/` on (which may be missing).
    pub(crate) fn parts(&self) -> (&str, &str) {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({}/..)", self.parts().0)
    }
}

/// Text that is no URL that an installer can be given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "this is no http:// or https:// URL with a host and only letters, digits and -._~:/?[]@&=+,% in it (no user name, no #)"
)]
pub struct BadUrl;

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?[]@&=+,%".contains(&b);
        let host = rest.map(|rest| rest.split(['/', '?']).next().unwrap_or_default());
        // Credentials in a URL end up in logs and process lists.
        let good = host.is_some_and(|host| !host.is_empty() && !host.contains(['@', '%', '&', '=', '+', ',']));
        if good && text.len() <= 1024 && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadUrl)
        }
    }
}
