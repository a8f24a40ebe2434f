//! The course of an installer as it is told to people, by what the installer is: what each step means, what of its archive it
//! cannot do without, what went wrong, and what to do then.

use rackbar_model::{Installer, InstallerSystem};
use serde::{Deserialize, Serialize};

use crate::installs::Step;

/// Which installer goes its way. Kept with the order, so that it is known after a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Course {
    system: InstallerSystem,
    /// It has all packages on a disc of ours.
    disc: bool,
}

impl Default for Course {
    /// What orders were for before they said so.
    fn default() -> Self {
        let (system, disc) = (InstallerSystem::Debian, false);
        Self { system, disc }
    }
}

impl Course {
    pub(crate) fn of(installer: &Installer) -> Self {
        Self {
            system: installer.system,
            disc: installer.mirror().is_none(),
        }
    }

    const fn is_debian(self) -> bool {
        matches!(self.system, InstallerSystem::Debian)
    }

    /// What a step means, and what the installer does now.
    pub(crate) const fn words(self, step: Step) -> &'static str {
        match (step, self.is_debian()) {
            (Step::Ordered, _) => "the machine is restarted into the installer",
            (Step::Booting, _) => "the machine was given the installer's kernel",
            (Step::Answered, _) => "the installer has its answers",
            (Step::Started, true) => "the installer begins: it fetches what it consists of",
            (Step::Started, false) => "the installer begins: it looks for its disk and partitions it",
            (Step::Disks, _) => "the installer looks for its disk and partitions it",
            (Step::Partitioned, true) => "the disk is partitioned: the base system follows",
            (Step::Partitioned, false) => "the disk is partitioned: the packages follow",
            (Step::Base, true) => "the base system is on the disk: packages and boot program follow",
            (Step::Base, false) => "the packages are on the disk: the system is set up",
            (Step::Finished, _) => "the system is on the disk",
        }
    }

    /// Where it fetches from.
    pub(crate) const fn source(self) -> &'static str {
        if self.disc { "its disc" } else { "its archive" }
    }

    /// True for the name of a package, without which the installer cannot go on.
    pub(crate) fn is_package(self, name: &str) -> bool {
        let endings: &[&str] = match self.system {
            InstallerSystem::Debian | InstallerSystem::Ubuntu => &[".udeb", ".deb"],
            InstallerSystem::Rhel
            | InstallerSystem::Rocky
            | InstallerSystem::Alma
            | InstallerSystem::CentosStream
            | InstallerSystem::Fedora => &[".rpm"],
        };
        endings.iter().any(|ending| name.ends_with(ending))
    }

    /// What to do about an archive or a disc that is not whole.
    pub(crate) fn cure(self) -> String {
        if self.disc {
            return "The disc does not hold it: add the vendor's whole disc to the catalogue and name that in the role; or \
                    install from an image"
                .to_owned();
        }
        format!(
            "Use an archive that is whole: name its URL in rackbar.toml as the upstream of a [[proxy.mirror]] called {}; or \
             install from an image",
            self.system.mirror()
        )
    }

    /// Where a person sees what it waits for.
    pub(crate) const fn look(self) -> &'static str {
        match self.system {
            InstallerSystem::Debian => {
                "look at the machine's console: the installer shows there what it waits for (its log is on the fourth)"
            }
            InstallerSystem::Ubuntu => {
                "look at the machine's console: subiquity shows there what it waits for (its log is in /var/log/installer)"
            }
            InstallerSystem::Rhel
            | InstallerSystem::Rocky
            | InstallerSystem::Alma
            | InstallerSystem::CentosStream
            | InstallerSystem::Fedora => {
                "look at the machine's console: Anaconda shows there what it waits for (its log is /tmp/anaconda.log)"
            }
        }
    }
}

/// What an installer told of that went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Failure {
    /// It did not find the disks that were planned.
    Disks,
    /// The installed system could not be set up.
    Setup,
    /// It gave up.
    GaveUp,
}

impl Failure {
    /// The failure that an installer tells of by this name.
    pub(crate) fn told(name: &str) -> Option<Self> {
        Some(match name {
            "failed-disks" => Self::Disks,
            "failed-setup" => Self::Setup,
            "failed" => Self::GaveUp,
            _ => return None,
        })
    }

    /// What that means.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Disks => "the installer did not find exactly the disks that were planned, and touched none",
            Self::Setup => "the installer could not set up the system that it had put on the disk",
            Self::GaveUp => "the installer gave up",
        }
    }

    /// What to do.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::Disks => "let the machine boot our agent once more, then plan and commit again",
            Self::Setup => {
                "look at the machine's console and at /mnt/sysroot/var/log/rackbar-post.log there; a file of the role may be \
                 what it could not write"
            }
            Self::GaveUp => {
                "look at the machine's console: the installer shows the reason there (Anaconda's log is /tmp/anaconda.log, \
                 subiquity's in /var/log/installer)"
            }
        }
    }

    /// Trying again may help.
    pub(crate) const fn again(self) -> bool {
        matches!(self, Self::GaveUp)
    }
}
