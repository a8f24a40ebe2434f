//! The systems by name, what the installer of each needs to be told besides the machine, and what it takes.

use rackbar_installers::{
    Debian, DebianRelease, Esxi, Ignition, IgnitionKind, RedHat, RedHatKind, Suse, SuseRelease, System, Talos,
    TalosKind, Ubuntu, UbuntuRelease, Url, Windows, WindowsImage, WindowsShare, talos_secrets,
};

use super::url;
use super::{AnswersError, AnswersRequest, WindowsOptions};

/// Every system that answers are rendered for.
pub const SYSTEMS: [&str; 32] = [
    "debian-12",
    "debian-13",
    "ubuntu-22.04",
    "ubuntu-24.04",
    "rhel-8",
    "rhel-9",
    "rhel-10",
    "rocky-8",
    "rocky-9",
    "rocky-10",
    "alma-8",
    "alma-9",
    "alma-10",
    "centos-stream-8",
    "centos-stream-9",
    "centos-stream-10",
    "fedora-40",
    "fedora-41",
    "fedora-42",
    "fedora-43",
    "fedora-coreos",
    "flatcar",
    "sles-15",
    "sles-16",
    "leap-15",
    "leap-16",
    "talos",
    "esxi-7",
    "esxi-8",
    "windows-server-2019",
    "windows-server-2022",
    "windows-server-2025",
];

/// Systems that one renderer makes the answers of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    Debian(DebianRelease),
    Ubuntu(UbuntuRelease),
    RedHat(RedHatKind, u8),
    Ignition(IgnitionKind),
    Suse(SuseRelease),
    Talos,
    Esxi,
    Windows,
}

impl Family {
    pub(super) const fn locale(self) -> &'static str {
        match self {
            Self::Ignition(_) => "C.UTF-8",
            Self::Debian(_)
            | Self::Ubuntu(_)
            | Self::RedHat(..)
            | Self::Suse(_)
            | Self::Talos
            | Self::Esxi
            | Self::Windows => "en_US.UTF-8",
        }
    }

    /// Fields of a request that only some take, which this one does.
    const fn takes(self) -> &'static [&'static str] {
        match self {
            Self::Debian(_) => &["mirror", "security"],
            Self::Ubuntu(_) => &["mirror", "security", "iso"],
            Self::RedHat(..) | Self::Suse(_) => &["mirror", "repositories"],
            Self::Ignition(_) => &["mirror", "release"],
            Self::Talos => &["talos"],
            Self::Esxi => &["mirror", "esxi_boot_cfg"],
            Self::Windows => &["mirror", "windows"],
        }
    }
}

/// The family of a system by its name.
pub(super) fn family(name: &str) -> Result<Family, AnswersError> {
    let unknown = || {
        let text = format!(
            "system: {name:?} is none that answers are made for; these are: {}",
            SYSTEMS.join(", ")
        );
        AnswersError::Invalid(text)
    };
    if !SYSTEMS.contains(&name) {
        return Err(unknown());
    }
    let (kind, version) = name.rsplit_once('-').unwrap_or((name, ""));
    let red_hat = |kind| version.parse().ok().map(|version| Family::RedHat(kind, version));
    let family = match (kind, version) {
        ("debian", "12") => Some(Family::Debian(DebianRelease::Bookworm)),
        ("debian", _) => Some(Family::Debian(DebianRelease::Trixie)),
        ("ubuntu", "22.04") => Some(Family::Ubuntu(UbuntuRelease::Jammy)),
        ("ubuntu", _) => Some(Family::Ubuntu(UbuntuRelease::Noble)),
        ("fedora", "coreos") => Some(Family::Ignition(IgnitionKind::FedoraCoreos)),
        ("flatcar", _) => Some(Family::Ignition(IgnitionKind::Flatcar)),
        ("rhel", _) => red_hat(RedHatKind::Rhel),
        ("rocky", _) => red_hat(RedHatKind::Rocky),
        ("alma", _) => red_hat(RedHatKind::Alma),
        ("centos-stream", _) => red_hat(RedHatKind::CentosStream),
        ("fedora", _) => red_hat(RedHatKind::Fedora),
        ("sles", "15") => Some(Family::Suse(SuseRelease::Sles15)),
        ("sles", _) => Some(Family::Suse(SuseRelease::Sles16)),
        ("leap", "15") => Some(Family::Suse(SuseRelease::Leap15)),
        ("leap", _) => Some(Family::Suse(SuseRelease::Leap16)),
        ("talos", _) => Some(Family::Talos),
        ("esxi", _) => Some(Family::Esxi),
        ("windows-server", _) => Some(Family::Windows),
        _ => None,
    };
    family.ok_or_else(unknown)
}

/// The system with all that its installer needs of the request.
pub(super) fn system(family: Family, request: &AnswersRequest) -> Result<System, AnswersError> {
    takes(family, request)?;
    let asked = Asked(request);
    Ok(match family {
        Family::Debian(release) => System::Debian(Debian {
            release,
            mirror: asked.mirror("the archive, such as http://deb.example.org/debian")?,
            security: asked.url("security", request.security.as_ref())?,
            steps: None,
        }),
        Family::Ubuntu(release) => System::Ubuntu(Ubuntu {
            release,
            iso: asked.iso()?,
            mirror: asked.url("mirror", request.mirror.as_ref())?,
            security: asked.url("security", request.security.as_ref())?,
            steps: None,
        }),
        Family::RedHat(kind, version) => System::RedHat(RedHat {
            kind,
            version,
            tree: asked.mirror("the installation tree, the folder with images/ and .treeinfo")?,
            repositories: asked.repositories()?,
            stage2: None,
            near: false,
            steps: None,
        }),
        Family::Ignition(kind) => System::Ignition(Ignition {
            kind,
            version: asked.release()?,
            source: asked.mirror(match kind {
                IgnitionKind::FedoraCoreos => "the folder with the release's live kernel, initramfs and rootfs",
                IgnitionKind::Flatcar => "the folder that holds a folder of images for each release",
            })?,
        }),
        Family::Suse(release) => System::Suse(Suse {
            release,
            source: asked.mirror("the installation repository, the folder with boot/x86_64/")?,
            repositories: asked.repositories()?,
        }),
        Family::Talos => System::Talos(Box::new(asked.talos()?)),
        Family::Esxi => System::Esxi(Esxi {
            source: asked.mirror("the folder with the files of the ISO")?,
            boot_cfg: asked.boot_cfg()?,
        }),
        Family::Windows => System::Windows(Box::new(asked.windows()?)),
    })
}

/// What one system has no use for is refused: it was meant for something.
fn takes(family: Family, request: &AnswersRequest) -> Result<(), AnswersError> {
    let given = [
        ("mirror", request.mirror.is_some()),
        ("security", request.security.is_some()),
        ("iso", request.iso.is_some()),
        ("repositories", !request.repositories.is_empty()),
        ("release", request.release.is_some()),
        ("talos", request.talos.is_some()),
        ("esxi_boot_cfg", request.esxi_boot_cfg.is_some()),
        ("windows", request.windows.is_some()),
    ];
    let own = family.takes();
    let Some((field, _)) = given.iter().find(|(field, given)| *given && !own.contains(field)) else {
        return Ok(());
    };
    let system = &request.system;
    let own = own.join(", ");
    Err(AnswersError::Invalid(format!(
        "{field}: {system} has no use for it; of its own it takes {own}"
    )))
}

struct Asked<'a>(&'a AnswersRequest);

impl Asked<'_> {
    /// The refusal for what is missing.
    fn missing(&self, field: &str, option: &str, what: &str) -> AnswersError {
        AnswersError::Invalid(format!("{} needs {field} ({option}): {what}", self.0.system))
    }

    fn url(&self, field: &str, text: Option<&String>) -> Result<Option<Url>, AnswersError> {
        text.map(|text| url(field, text)).transpose()
    }

    fn mirror(&self, what: &str) -> Result<Url, AnswersError> {
        let given = self.url("mirror", self.0.mirror.as_ref())?;
        given.ok_or_else(|| self.missing("mirror", "--mirror URL", what))
    }

    fn iso(&self) -> Result<Url, AnswersError> {
        let given = self.url("iso", self.0.iso.as_ref())?;
        given.ok_or_else(|| self.missing("iso", "--iso URL", "the live server's ISO, whose name ends in .iso"))
    }

    fn release(&self) -> Result<String, AnswersError> {
        let what = "the release, such as 42.20250914.3.0 or 4230.2.2";
        let given = self.0.release.clone();
        given.ok_or_else(|| self.missing("release", "--release R", what))
    }

    fn boot_cfg(&self) -> Result<String, AnswersError> {
        let given = self.0.esxi_boot_cfg.clone();
        given.ok_or_else(|| {
            self.missing(
                "esxi_boot_cfg",
                "--esxi-boot-cfg FILE",
                "the boot.cfg of the ISO as it is",
            )
        })
    }

    fn repositories(&self) -> Result<Vec<(String, Url)>, AnswersError> {
        let one = |text: &String| {
            let wrong = || AnswersError::Invalid(format!("repositories: {text:?} is no NAME=URL"));
            let (name, place) = text.split_once('=').ok_or_else(wrong)?;
            Ok((name.to_owned(), url(&format!("repositories: {name}"), place)?))
        };
        self.0.repositories.iter().map(one).collect()
    }

    fn talos(&self) -> Result<Talos, AnswersError> {
        let what = "the cluster, its endpoint, the installer's image and its secrets (--talos-cluster, --talos-endpoint, \
                    --talos-installer)";
        let given = self.0.talos.as_ref();
        let given = given.ok_or_else(|| self.missing("talos", "--talos-secrets FILE", what))?;
        let cluster = talos_secrets(&given.secrets.0);
        let mut cluster = cluster.map_err(|bad| AnswersError::Invalid(format!("talos.secrets: {bad}")))?;
        cluster.name.clone_from(&given.cluster);
        cluster.endpoint.clone_from(&given.endpoint);
        Ok(Talos {
            kind: match given.control_plane {
                true => TalosKind::Controlplane,
                false => TalosKind::Worker,
            },
            cluster,
            installer: given.installer.clone(),
            names: given.names.clone(),
        })
    }

    fn windows(&self) -> Result<Windows, AnswersError> {
        let what = "the image of install.wim, wimboot, and the share with the medium (--windows-image, --wimboot, \
                    --windows-share, --share-user)";
        let given = self.0.windows.as_ref();
        let given: &WindowsOptions =
            given.ok_or_else(|| self.missing("windows", "--share-password-file FILE", what))?;
        let key = given.product_key.as_ref().map(|key| {
            let parsed = key.0.trim().parse();
            parsed.map_err(|bad| AnswersError::Invalid(format!("windows.product_key: {bad}")))
        });
        Ok(Windows {
            image: match given.image.parse() {
                Ok(index) => WindowsImage::Index(index),
                Err(_) => WindowsImage::Name(given.image.clone()),
            },
            product_key: key.transpose()?,
            language: given.language.clone().unwrap_or_else(|| "en-US".to_owned()),
            source: self.mirror("the folder with the medium's files for iPXE")?,
            wimboot: url("windows.wimboot", &given.wimboot)?,
            share: WindowsShare {
                path: given.share.clone(),
                user: given.share_user.clone(),
                password: given.share_password.clone(),
            },
            steps: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_of_a_family_and_no_other_is() {
        for name in SYSTEMS {
            assert!(family(name).is_ok(), "{name}");
        }
        assert_eq!(family("rocky-9"), Ok(Family::RedHat(RedHatKind::Rocky, 9)));
        assert_eq!(family("fedora-42"), Ok(Family::RedHat(RedHatKind::Fedora, 42)));
        for name in ["", "debian", "debian-11", "rocky-7", "talos-1", "esxi"] {
            let Err(AnswersError::Invalid(words)) = family(name) else {
                panic!("{name}")
            };
            assert!(words.contains("windows-server-2025"), "{words}");
        }
    }
}
