//! What an operating-system image is made of, from `data/os/<name>.toml`: packages, files, units.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::digest::{sha256, uuid};
use crate::epoch::SOURCE_DATE_EPOCH;

/// The recipe of Debian 12.
pub const DEBIAN_12: &str = include_str!("../../data/os/debian-12.toml");
/// What is added to it for an image with cloud-init.
pub const DEBIAN_12_CLOUD_INIT: &str = include_str!("../../data/os/debian-12-cloud-init.toml");
/// GRUB's menu, with `@ROOT@` for the root file system's UUID.
const GRUB_CFG: &str = include_str!("../../data/os/grub.cfg");

/// A recipe.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The image's name.
    pub name: String,
    /// Code name of the release.
    pub suite: String,
    /// Architecture as `uname -m` says it.
    pub arch: String,
    /// Account that logs in.
    pub user: String,
    /// Licence note.
    pub licence: String,
    /// Packages, besides the essential ones and the kernel.
    pub packages: Vec<String>,
    /// Kernel packages by what they are for.
    pub kernels: BTreeMap<String, String>,
    /// What stays out of packages.
    pub leave_out: LeaveOut,
    /// Units.
    pub units: Units,
    /// Files of our own.
    pub file: Vec<RecipeFile>,
}

/// What makes another image of a recipe.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    name: String,
    user: String,
    packages: Vec<String>,
    enable: Vec<String>,
}

/// Patterns for dpkg's path-exclude.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaveOut {
    /// Patterns of files that only people read.
    pub docs: Vec<String>,
    /// Exceptions from them.
    pub keep: Vec<String>,
    /// Folders of kernel modules, below `kernel/`.
    pub modules: Vec<String>,
}

/// Units switched off and on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Units {
    /// Never started.
    pub mask: Vec<String>,
    /// Started at boot.
    pub enable: Vec<String>,
}

/// A file of our own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeFile {
    /// Path without a leading slash.
    pub path: String,
    /// Permission bits.
    #[serde(default = "readable")]
    pub mode: u32,
    /// Content; one newline in front is for the table's sake and taken off.
    pub content: String,
}

fn readable() -> u32 {
    0o644
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// When the table has other fields than those above.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context("reading the recipe of an operating-system image")
    }

    /// This recipe with a variant's name, account, and further packages and units.
    ///
    /// # Errors
    /// When the variant's table has other fields than those.
    pub fn varied(mut self, text: &str) -> Result<Self> {
        let variant: Variant = toml::from_str(text).context("reading a variant of an operating-system image")?;
        self.name = variant.name;
        self.user = variant.user;
        self.packages.extend(variant.packages);
        self.units.enable.extend(variant.enable);
        Ok(self)
    }

    /// Options of dpkg, one per line of its configuration.
    pub fn dpkg_options(&self) -> Vec<String> {
        let LeaveOut { docs, keep, modules } = &self.leave_out;
        let excluded = docs.iter().map(|pattern| format!("path-exclude={pattern}"));
        let included = keep.iter().map(|pattern| format!("path-include={pattern}"));
        // Before and after the merge of /usr into one.
        let modules = modules
            .iter()
            .flat_map(|folder| ["", "/usr"].map(|root| format!("path-exclude={root}/lib/modules/*/kernel/{folder}/*")));
        excluded.chain(included).chain(modules).collect()
    }

    /// Our own files as a tar archive, owned by root, with the one time stamp all our outputs have.
    ///
    /// # Errors
    /// When a path is too long for the format.
    pub fn overlay(&self, root_uuid: &str, esp_serial: u32) -> Result<Vec<u8>> {
        let fstab = format!(
            "# Grown to its partition's end at boot. The EFI partition is mounted when somebody asks for it.\n\
             UUID={root_uuid} / ext4 defaults,errors=remount-ro,x-systemd.growfs 0 1\n\
             UUID={:04X}-{:04X} /boot/efi vfat umask=0077,noauto 0 0\n",
            esp_serial >> 16,
            esp_serial & 0xFFFF
        );
        let menu = GRUB_CFG.replace("@ROOT@", root_uuid);
        let mut archive = tar::Builder::new(Vec::new());
        for file in &self.file {
            let content = file.content.strip_prefix('\n').unwrap_or(&file.content);
            append(&mut archive, &file.path, file.mode, content)?;
        }
        append(&mut archive, "etc/fstab", 0o644, &fstab)?;
        append(&mut archive, "boot/grub/grub.cfg", 0o644, &menu)?;
        append(&mut archive, "boot/efi/.keep", 0o644, "")?;
        archive.into_inner().context("finishing the archive of our own files")
    }

    /// What is done to the finished tree, as a shell script of one line whose first argument is the tree.
    pub fn finish_script(&self) -> String {
        let mask = format!("chroot . systemctl mask --quiet {}", self.units.mask.join(" "));
        let enable = format!("chroot . systemctl enable --quiet {}", self.units.enable.join(" "));
        [
            "set -eu",
            "cd \"$1\"",
            &mask,
            &enable,
            // What must differ between machines is made by them or written by the appliance.
            "rm -f etc/ssh/ssh_host_* var/lib/dbus/machine-id var/lib/systemd/random-seed boot/efi/.keep",
            ": > etc/machine-id",
            "echo unconfigured > etc/hostname",
            "ln -sf ../run/systemd/resolve/stub-resolv.conf etc/resolv.conf",
            // What the build needed of apt stays with the build; what stays out of packages stays out of updates.
            "rm -f etc/apt/apt.conf.d/99mmdebstrap",
            "mv etc/dpkg/dpkg.cfg.d/99mmdebstrap etc/dpkg/dpkg.cfg.d/lean",
            // The kernel package's links must be there: GRUB's menu names them.
            "test -e vmlinuz && test -e initrd.img",
            "rm -rf var/lib/apt/lists/* var/cache/apt/*.bin var/cache/debconf/*-old var/log/*.log var/log/apt/*",
            "rm -f var/lib/dpkg/*-old",
            // Says that caches fit /usr, so that the first boot does not make them all again.
            "touch etc/.updated var/.updated",
        ]
        .join("; ")
    }

    /// UUID of the root file system, in text. Images of other content have other ones.
    pub fn root_uuid(&self, content: &str) -> String {
        text_uuid(uuid(&format!("{} root {content}", self.name)))
    }
}

fn append<W: Write>(archive: &mut tar::Builder<W>, path: &str, mode: u32, content: &str) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(SOURCE_DATE_EPOCH);
    header.set_cksum();
    let named = format!("./{path}");
    archive
        .append_data(&mut header, named, content.as_bytes())
        .with_context(|| format!("adding {path}"))
}

fn text_uuid(id: [u8; 16]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut text = String::with_capacity(36);
    for (at, digit) in hex.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

/// Name and version of every installed package, from dpkg's status file.
pub fn installed(status: &str) -> Vec<(String, String)> {
    let mut packages = Vec::new();
    for stanza in status.split("\n\n") {
        let field = |key: &str| stanza.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        if let (Some(name), Some(version), Some("install ok installed")) =
            (field("Package:"), field("Version:"), field("Status:"))
        {
            packages.push((name.to_owned(), version.to_owned()));
        }
    }
    packages
}

/// Digest of everything an image is made of: the recipe, GRUB's menu, the options given, and package versions.
pub fn identity(parts: &[&str]) -> String {
    let mut all = String::from(GRUB_CFG);
    for part in parts {
        all.push('\0');
        all.push_str(part);
    }
    sha256(all.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_recipe_is_whole() {
        let recipe = Recipe::parse(DEBIAN_12).unwrap();
        assert_eq!(recipe.name, "debian-12");
        assert!(recipe.kernels.contains_key("generic"));
        let uuid = recipe.root_uuid("x");
        assert_ne!(uuid, recipe.root_uuid("y"));
        let overlay = recipe.overlay(&uuid, 0x1234_ABCD).unwrap();
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(&overlay[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
            files.insert(entry.path().unwrap().to_string_lossy().into_owned(), content);
        }
        assert!(files["etc/fstab"].contains("UUID=1234-ABCD /boot/efi"), "{files:?}");
        assert!(files["boot/grub/grub.cfg"].contains(&format!("root=UUID={uuid} ro")));
        assert!(files["etc/initramfs-tools/hooks/zz-lean"].starts_with("#!/bin/sh\n"));
        assert_eq!(uuid.len(), 36);
    }

    #[test]
    fn the_variant_with_cloud_init_is_the_same_and_more() {
        let base = Recipe::parse(DEBIAN_12).unwrap();
        let varied = Recipe::parse(DEBIAN_12).unwrap().varied(DEBIAN_12_CLOUD_INIT).unwrap();
        assert_eq!(
            (varied.name.as_str(), varied.user.as_str()),
            ("debian-12-cloud-init", "debian")
        );
        assert!(varied.packages.starts_with(&base.packages) && varied.packages.contains(&"cloud-init".to_owned()));
        assert!(varied.finish_script().contains("cloud-init-local.service"));
        assert!(Recipe::parse(DEBIAN_12).unwrap().varied("name = 1").is_err());
    }

    #[test]
    fn reads_dpkgs_status() {
        let status = "Package: a\nStatus: install ok installed\nVersion: 1:2-3\n\nPackage: b\nStatus: deinstall ok \
                      config-files\nVersion: 9\n\nPackage: c\nVersion: 4\nStatus: install ok installed\n";
        let expected = [("a", "1:2-3"), ("c", "4")].map(|(name, version)| (name.to_owned(), version.to_owned()));
        assert_eq!(installed(status), expected);
    }
}
