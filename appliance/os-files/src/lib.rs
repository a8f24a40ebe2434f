//! Who an installed system is, in the words of the programs that read it there: host names, networks for
//! systemd-networkd, ifupdown and cloud-init, clock, name servers, keys, sources of packages. Pure: texts from one [`OsSetup`], for whoever
//! puts them on a disk, be it our agent on a written image or the answer file of an installer.
//!
//! [`OsSetup`]: rackbar_model::OsSetup

pub mod again;
pub mod apt;
pub mod git;
pub mod network;
pub mod rpm;
pub mod text;

/// A value of a setup that cannot be written down.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}; {advice}")]
pub struct BadSetup {
    /// What is wrong, with the value or network that it is about.
    pub reason: String,
    /// What to do.
    pub advice: String,
}

impl BadSetup {
    fn new(reason: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            advice: advice.into(),
        }
    }
}

/// Whether a name can be part of a file's name, and certificates are a text in ASCII armor.
///
/// # Errors
/// When not.
fn named_with_keys(name: &str, keys: &str) -> Result<()> {
    named(name)?;
    if !keys.trim_start().starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----") || keys.contains('\0') {
        return Err(BadSetup::new(
            format!("repository {name}: its certificates are not in ASCII armor"),
            "write what `gpg --armor --export KEY` prints",
        ));
    }
    Ok(())
}

/// Whether a name can be part of a file's name.
///
/// # Errors
/// When not.
fn named(name: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(BadSetup::new(
            format!("{name:?} is no name of a repository"),
            "correct it in the site",
        ));
    }
    Ok(())
}

/// What could be written down, or why not.
pub type Result<T> = std::result::Result<T, BadSetup>;
