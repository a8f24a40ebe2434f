//! Answer files of installers, from one typed model of a machine: [`Install`]. Pure: no clock, file or socket.
//!
//! ```text
//!  OsSetup (who it is), RootTarget (which disks)     ┐
//!  accounts, packages, passwords as hashes           ├─ Install ─┐
//!  URLs with a token: answers, done                  ┘           ├─▶ render ─▶ Rendered: files, and how to boot
//!  Debian, RedHat, ... with version and mirror         System ───┘
//! ```
//! Three promises. No value from outside changes the structure of a file: each format is written by a library, or by
//! quoting that is tried with hostile text and the vendor's own parser. What an installer has no words for is an error
//! that names the field; nothing is left out. The installer finds the disks that the plan chose by everything that is
//! known of them, and stops when not exactly one fits.

mod boot;
mod check;
mod debian;
mod disks;
mod document;
mod error;
mod esxi;
mod finish;
mod ignition;
mod input;
mod kickstart;
mod network_manager;
mod quote;
mod suse;
mod talos;
mod ubuntu;
mod windows;

pub use boot::NetBoot;
pub use debian::{Debian, DebianRelease, STEPS as DEBIAN_STEPS};
pub use error::{RenderError, Result};
pub use esxi::Esxi;
pub use ignition::{Ignition, IgnitionKind, ignition_config};
pub use input::{Account, BadHash, BadUrl, CryptHash, Install, Url};
pub use kickstart::{FAILURES, RED_HAT_STEPS, RedHat, RedHatKind};
pub use suse::{Suse, SuseRelease};
pub use talos::{BadTalosSecrets, Talos, TalosAuthority, TalosCluster, TalosKind, talos_secrets};
pub use ubuntu::{UBUNTU_STEPS, Ubuntu, UbuntuRelease};
pub use windows::{BadProductKey, ProductKey, STEPS as WINDOWS_STEPS, Windows, WindowsImage, WindowsShare};

/// An operating system that has an installer, and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum System {
    /// Debian, by preseed.
    Debian(Debian),
    /// The Red Hat family, by kickstart.
    RedHat(RedHat),
    /// Fedora CoreOS and Flatcar, by Ignition.
    Ignition(Ignition),
    /// Ubuntu, by autoinstall.
    Ubuntu(Ubuntu),
    /// SUSE, by Agama or AutoYaST.
    Suse(Suse),
    /// Talos Linux, by a machine configuration.
    Talos(Box<Talos>),
    /// VMware ESXi, by kickstart.
    Esxi(Esxi),
    /// Windows Server, by an answer file of Windows Setup.
    Windows(Box<Windows>),
}

/// What a machine needs to install itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rendered {
    /// Files that the machine fetches below [`Install::answers`].
    pub files: Vec<AnswerFile>,
    /// How its installer is started.
    pub boot: NetBoot,
}

/// One answer file. It holds password hashes, keys and tokens: only the machine it was made for may have it. `Debug`
/// does not show its content.
#[derive(Clone, PartialEq, Eq)]
pub struct AnswerFile {
    /// Its name, which the installer asks for.
    pub name: &'static str,
    /// Its content.
    pub content: String,
}

impl AnswerFile {
    fn new(name: &'static str, content: String) -> Self {
        Self { name, content }
    }
}

impl std::fmt::Debug for AnswerFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerFile")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Renders the answer files of one machine.
///
/// # Errors
/// Names the field that is no such value, or that this installer cannot express. Nothing is rendered then.
pub fn render(install: &Install, system: &System) -> Result<Rendered> {
    match system {
        System::Debian(debian) => debian::render(install, debian),
        System::RedHat(system) => kickstart::render(install, system),
        System::Ignition(system) => ignition::render(install, system),
        System::Ubuntu(system) => ubuntu::render(install, system),
        System::Suse(system) => suse::render(install, system),
        System::Talos(system) => talos::render(install, system),
        System::Esxi(system) => esxi::render(install, system),
        System::Windows(system) => windows::render(install, system),
    }
}
