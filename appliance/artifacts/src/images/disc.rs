//! An installer's disc of the Red Hat family or of Ubuntu Server: which system it installs, where kernel and initial RAM file system lie, and
//! whether packages are on it.
//!
//! `.treeinfo` (productmd) says all of that, with SHA-256 of what is booted. Discs that only boot are made without one: of
//! them the volume's name must say which system it is. Ubuntu's say it in `.disk/info`. The bytes come from outside: nothing is trusted.

use std::collections::HashMap;

use rackbar_boot_media::tree::{DiscError, ReadAt as _, Tree};
use rackbar_model::{Digest, Installer, InstallerDisc, InstallerFile, InstallerSystem};

use super::detect::DetectError;
use super::installer::part;
use super::window::Window;

/// Says what a disc holds.
const TREEINFO: &str = ".treeinfo";
/// It has some kilobytes.
const LONGEST_TREEINFO: u64 = 256 << 10;
/// Where Anaconda's own kernel and initial RAM file system lie when nothing else is said.
const KERNEL: &str = "images/pxeboot/vmlinuz";
const INITRD: &str = "images/pxeboot/initrd.img";
/// Says what an Ubuntu disc is: `Ubuntu-Server 24.04.2 LTS "Noble Numbat" - Release amd64 (20250217)`.
const DISK_INFO: &str = ".disk/info";
const UBUNTU_KERNEL: &str = "casper/vmlinuz";
const UBUNTU_INITRD: &str = "casper/initrd";
/// The installer proper.
const STAGE2: &str = "images/install.img";
/// The one architecture that we serve.
const ARCH: &str = "x86_64";
/// Index of a folder of packages.
const INDEX: &str = "repodata/repomd.xml";

const UNKNOWN: &str = "it is an ISO 9660 disc without an installer that is known here. Looked for were .treeinfo of Red Hat \
                       Enterprise Linux, Rocky Linux, AlmaLinux, CentOS Stream or Fedora, or images/pxeboot/vmlinuz and \
                       images/install.img with a volume name such as Rocky-9-4-x86_64-dvd, or .disk/info of Ubuntu-Server. For \
                       other systems use the \
                       vendor's cloud or disk image";

fn unusable(words: impl Into<String>) -> DetectError {
    DetectError::Disc(words.into())
}

/// The installer on a disc; `None` when the file is no disc.
///
/// # Errors
/// When it is a disc that is not usable, with what is wrong.
pub(super) fn find(content: &Window<'_>) -> Result<Option<Installer>, DetectError> {
    let tree = match Tree::read(content, content.bytes()) {
        Ok(tree) => tree,
        Err(DiscError::NoDisc) => return Ok(None),
        Err(DiscError::Read(error)) => return Err(error.into()),
        Err(error) => return Err(unusable(format!("it is an ISO 9660 disc, and {error}"))),
    };
    let disc = Disc { content, tree };
    let found = match (disc.text(TREEINFO)?, disc.text(DISK_INFO)?) {
        (Some(text), _) => disc.told(&TreeInfo::read(&text)),
        (None, Some(info)) => disc.ubuntu(&info),
        (None, None) => disc.labelled(),
    };
    found.map(Some)
}

struct Disc<'a> {
    content: &'a Window<'a>,
    tree: Tree,
}

impl Disc<'_> {
    /// The text of a file that says what the disc is.
    fn text(&self, path: &str) -> Result<Option<String>, DetectError> {
        let Some(place) = self.tree.get(path) else {
            return Ok(None);
        };
        if place.bytes > LONGEST_TREEINFO {
            return Err(unusable(format!("its {path} is larger than one is (256 KiB)")));
        }
        let mut text = vec![0; usize::try_from(place.bytes).unwrap_or_default()];
        self.content.fill_at(&mut text, place.offset)?;
        let text = String::from_utf8(text).map_err(|_| unusable(format!("its {path} is no text")))?;
        Ok(Some(text))
    }

    /// By what `.disk/info` says. Such a disc carries MD5 only, which proves nothing.
    fn ubuntu(&self, info: &str) -> Result<Installer, DetectError> {
        let words: Vec<&str> = info.split_ascii_whitespace().collect();
        let shown = shown(info.trim());
        let [name @ "Ubuntu-Server", version, ..] = words.as_slice() else {
            return Err(unusable(format!("its .disk/info names {shown:?}. {UNKNOWN}")));
        };
        let release = version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        if !words.contains(&"amd64") || !matches!(release.as_str(), "22.04" | "24.04") {
            return Err(unusable(format!(
                "its .disk/info names {shown:?}; of {name} there are answers for 22.04 and 24.04, amd64"
            )));
        }
        Ok(Installer {
            system: InstallerSystem::Ubuntu,
            release,
            kernel: self.part(UBUNTU_KERNEL)?,
            initrd: self.part(UBUNTU_INITRD)?,
            disc: Some(InstallerDisc {
                repositories: Vec::new(),
            }),
        })
    }

    /// By what `.treeinfo` says.
    fn told(&self, info: &TreeInfo) -> Result<Installer, DetectError> {
        let any = |places: [(&str, &str); 2]| places.into_iter().find_map(|(section, key)| info.get(section, key));
        let family = any([("general", "family"), ("release", "name")]).unwrap_or_default();
        let version = any([("release", "version"), ("general", "version")]).unwrap_or_default();
        let arch = any([("general", "arch"), ("tree", "arch")]).unwrap_or_default();
        let system = system_of(family).ok_or_else(|| {
            let family = shown(family);
            unusable(format!("its .treeinfo names the system {family:?}. {UNKNOWN}"))
        })?;
        if arch != ARCH {
            let arch = shown(arch);
            return Err(unusable(format!("it is for {arch:?}; machines here are {ARCH}")));
        }
        let images = format!("images-{ARCH}");
        let path = |section: &str, key: &str, usual| info.get(section, key).unwrap_or(usual).to_owned();
        let (kernel, initrd) = (path(&images, "kernel", KERNEL), path(&images, "initrd", INITRD));
        let stage2 = path("stage2", "mainimage", STAGE2);
        let disc = InstallerDisc {
            repositories: self.repositories(info),
        };
        let installer = self.installer(system, version, [&kernel, &initrd], disc)?;
        for (path, found) in [(&kernel, installer.kernel), (&initrd, installer.initrd)] {
            proven(info, path, found)?;
        }
        proven(info, &stage2, self.part(&stage2)?)?;
        Ok(installer)
    }

    /// By the volume's name.
    fn labelled(&self) -> Result<Installer, DetectError> {
        let there = [KERNEL, INITRD, STAGE2]
            .iter()
            .all(|path| self.tree.get(path).is_some());
        let (system, version) = release_of(self.tree.label())
            .filter(|_| there)
            .ok_or_else(|| unusable(UNKNOWN))?;
        let repositories = Vec::new();
        self.installer(system, &version, [KERNEL, INITRD], InstallerDisc { repositories })
    }

    fn installer(
        &self,
        system: InstallerSystem,
        version: &str,
        [kernel, initrd]: [&str; 2],
        disc: InstallerDisc,
    ) -> Result<Installer, DetectError> {
        let major = version.split('.').next().and_then(|major| major.parse::<u8>().ok());
        let digits = version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let known = match system {
            InstallerSystem::Fedora => 40..=43,
            _ => 8..=10,
        };
        if !digits || version.len() > 16 || !major.is_some_and(|major| known.contains(&major)) {
            let (name, version) = (system.words(), shown(version));
            return Err(unusable(format!(
                "it installs {name} {version:?}, and there are answers for {} to {}",
                known.start(),
                known.end()
            )));
        }
        Ok(Installer {
            system,
            release: version.to_owned(),
            kernel: self.part(kernel)?,
            initrd: self.part(initrd)?,
            disc: Some(disc),
        })
    }

    /// Folders of packages: what the variants name, and the disc itself, where there is an index.
    fn repositories(&self, info: &TreeInfo) -> Vec<String> {
        let named = info
            .sections("variant-")
            .filter_map(|section| info.get(section, "repository"));
        let mut all: Vec<String> = named
            .chain(["."])
            .map(|path| path.trim_matches('/').to_owned())
            .filter(|path| {
                let index = if path == "." {
                    INDEX.to_owned()
                } else {
                    format!("{path}/{INDEX}")
                };
                self.tree.get(&index).is_some()
            })
            .collect();
        all.sort();
        all.dedup();
        all
    }

    fn part(&self, path: &str) -> Result<InstallerFile, DetectError> {
        let place = self.tree.get(path).ok_or_else(|| {
            let path = shown(path);
            unusable(format!("it has no {path}, which its installer is booted with"))
        })?;
        part(self.content, (place.offset, place.bytes))
    }
}

/// What is found has the digest that `.treeinfo` tells; discs that tell none for it are taken.
fn proven(info: &TreeInfo, path: &str, found: InstallerFile) -> Result<(), DetectError> {
    let Some(told) = info
        .get("checksums", path)
        .and_then(|told| told.strip_prefix("sha256:"))
    else {
        return Ok(());
    };
    if told.parse::<Digest>().ok() == Some(found.sha256) {
        return Ok(());
    }
    Err(unusable(format!(
        "its {} has SHA-256 {}, and its .treeinfo says {}: it came damaged; fetch it again",
        shown(path),
        found.sha256,
        shown(told)
    )))
}

/// The system that `.treeinfo` calls so; Rocky's smaller disc is `Rocky Linux Minimal`.
fn system_of(family: &str) -> Option<InstallerSystem> {
    use InstallerSystem::{Alma, CentosStream, Fedora, Rhel, Rocky};
    let all = [Rhel, Rocky, Alma, CentosStream, Fedora];
    all.into_iter().find(|system| family.starts_with(system.words()))
}

/// System and version of a volume's name: `Rocky-9-4-x86_64-dvd`, `RHEL-9-4-0-BaseOS-x86_64`, `Fedora-S-dvd-x86_64-40`.
fn release_of(label: &str) -> Option<(InstallerSystem, String)> {
    use InstallerSystem::{Alma, CentosStream, Fedora, Rhel, Rocky};
    let all = [
        ("RHEL-", Rhel),
        ("Rocky-", Rocky),
        ("AlmaLinux-", Alma),
        ("CentOS-Stream-", CentosStream),
        ("Fedora-", Fedora),
    ];
    let (rest, system) = all
        .iter()
        .find_map(|(name, system)| Some((label.strip_prefix(name)?, *system)))?;
    let number = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    let words = || rest.split('-');
    if !words().any(|word| word == ARCH) {
        return None;
    }
    let version = match system {
        // What follows is the number of the compose.
        Fedora | CentosStream => words().find(number)?.to_owned(),
        _ => words().take_while(number).take(2).collect::<Vec<_>>().join("."),
    };
    Some((system, version))
}

/// A word from a disc as it may stand in a message: short, printable.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// Sections of keys and values; of a key that comes twice the last counts.
struct TreeInfo(HashMap<String, HashMap<String, String>>);

impl TreeInfo {
    fn read(text: &str) -> Self {
        let (mut sections, mut current) = (HashMap::<String, HashMap<String, String>>::new(), String::new());
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                current = name.to_owned();
            } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with([';', '#'])) {
                let section = sections.entry(current.clone()).or_default();
                section.insert(key.trim().to_owned(), value.trim().to_owned());
            }
        }
        Self(sections)
    }

    fn get(&self, section: &str, key: &str) -> Option<&str> {
        let value = self.0.get(section)?.get(key)?.as_str();
        (!value.is_empty()).then_some(value)
    }

    fn sections(&self, prefix: &str) -> impl Iterator<Item = &str> {
        self.0
            .keys()
            .map(String::as_str)
            .filter(move |name| name.starts_with(prefix))
    }
}
