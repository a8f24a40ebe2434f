//! One build: tree, root file system, disk, packed file, and the papers that go with it.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::unistd::Uid;
use rackbar_image::compress;
use rackbar_image::deb;
use rackbar_image::digest::sha256;
use rackbar_image::epoch::SOURCE_DATE_EPOCH;
use rackbar_image::os::recipe::{self, Recipe};
use rackbar_image::os::{disk, grub};
use rackbar_image::sbom::{self, Component, Origin};
use rackbar_model::{ImageEntry, ImageFormat, Timestamp};

use super::{OsImage, sources};
use crate::project::Project;
use crate::setup::debian::{self, Deb};
use crate::step::step;

const MIB: u64 = 1 << 20;

/// Packs twenty times as fast as the level of the boot media, and its files are 10 % larger: an image is sent once per
/// install over a rack's network, and unpacking takes the same time.
const LEVEL: i32 = 3;

/// The root file system may be grown to 4 TiB with its group descriptors in one place: GRUB 2.06 does not know where
/// ext4 puts those of groups beyond (`meta_bg`).
const RESIZE_BLOCKS: u64 = (4 << 40) / 4096;

/// Changes whenever the steps below give other bytes for the same recipe.
const STEPS: &str = "1";

/// Packages that give GRUB.
const GRUB: [&str; 4] = ["grub-pc-bin", "grub-common", "grub-efi-amd64-signed", "shim-signed"];

/// Everything that decides what comes out, and where it goes.
pub(super) struct Job {
    recipe: Recipe,
    sources: String,
    /// Digest of recipe, options and package versions.
    identity: String,
    folder: PathBuf,
    cache: PathBuf,
}

impl Job {
    /// Asks apt what there is.
    pub(super) fn new(project: &Project, recipe: Recipe) -> Result<Self> {
        let names: Vec<_> = recipe.packages.iter().map(String::as_str).chain(GRUB).collect();
        let identity = recipe::identity(&[
            STEPS,
            recipe::DEBIAN_12,
            &recipe.name,
            &recipe.suite,
            &recipe.finish_script(),
            &debian::versions(&names)?,
        ]);
        let folder = project.target.join("os");
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Self {
            sources: sources::lines(&recipe.suite)?,
            identity,
            folder,
            cache: project.cache(),
            recipe,
        })
    }

    fn output(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", self.recipe.name))
    }

    /// The bill of materials.
    pub(super) fn bill(&self) -> PathBuf {
        self.output("cdx.json")
    }

    /// The image, when it was built from the same.
    pub(super) fn present(&self) -> Result<Option<OsImage>> {
        let (path, record) = (self.output("img.zst"), self.output("json"));
        let same = std::fs::read_to_string(self.output("identity")).is_ok_and(|identity| identity == self.identity);
        if !same || !path.exists() || !record.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&record).with_context(|| format!("reading {}", record.display()))?;
        let entry: ImageEntry = serde_json::from_str(&text).with_context(|| format!("reading {}", record.display()))?;
        let whole = std::fs::metadata(&path)?.len() == entry.bytes;
        Ok(whole.then_some(OsImage { path, entry }))
    }

    /// Builds it. What takes long says so.
    pub(super) fn build(&self) -> Result<OsImage> {
        // Beside the result: there is room for an image, and a rename stays a rename.
        let work = tempfile::tempdir_in(&self.folder).context("creating a folder to build in")?;
        let work = work.path();
        let root_uuid = self.recipe.root_uuid(&self.identity);
        let debs: Vec<Deb> = GRUB
            .iter()
            .map(|name| debian::fetch(name, &self.cache))
            .collect::<Result<_>>()?;
        let tree = work.join("tree.tar");
        self.tree(work, &root_uuid, &tree)?;
        let root = work.join("root.ext4");
        self.file_system(work, &tree, &root_uuid, &root)?;
        let raw = work.join("disk.img");
        self.disk(work, &debs, &root, &root_uuid, &raw)?;
        std::fs::remove_file(&root)?;
        let entry = self.pack(&raw)?;
        self.papers(&tree, &debs, &entry)?;
        Ok(OsImage {
            path: self.output("img.zst"),
            entry,
        })
    }

    /// The tree, as an archive: apt downloads and checks, dpkg unpacks and configures, in a folder of its own.
    fn tree(&self, work: &Path, root_uuid: &str, tree: &Path) -> Result<()> {
        let overlay = work.join("overlay.tar");
        std::fs::write(&overlay, self.recipe.overlay(root_uuid, self.esp_serial())?)?;
        let list = work.join("rack.list");
        std::fs::write(&list, &self.sources)?;
        let mode = if Uid::effective().is_root() { "root" } else { "unshare" };
        let mut command = Command::new("mmdebstrap");
        command
            .args(["--variant=minbase", "--format=tar", "--mode", mode])
            .arg(format!("--include={}", self.recipe.packages.join(",")))
            .arg("--aptopt=APT::Install-Recommends \"false\"")
            .args(sources::proxies()?.iter().map(|option| format!("--aptopt={option}")))
            .args(
                self.recipe
                    .dpkg_options()
                    .iter()
                    .map(|option| format!("--dpkgopt={option}")),
            )
            .arg(format!("--essential-hook=tar-in {} /", overlay.display()))
            .arg(format!("--customize-hook={}", self.recipe.finish_script()))
            .arg(&self.recipe.suite)
            .arg(tree)
            .arg(&list)
            .env("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH.to_string())
            .env("LC_ALL", "C");
        step("Debian packages into a tree (some minutes)", &mut command)
    }

    /// ext4 of the tree. fakeroot keeps the owners when we are nobody special.
    fn file_system(&self, work: &Path, tree: &Path, root_uuid: &str, root: &Path) -> Result<()> {
        let size = file_system_size(tree)?;
        File::create(root)?.set_len(size)?;
        let unpacked = work.join("tree");
        std::fs::create_dir(&unpacked)?;
        let script = format!(
            "set -e; tar -x --numeric-owner -p -f \"$1\" -C \"$2\"; \
             mke2fs -q -F -t ext4 -b 4096 -m 1 -L root -U {root_uuid} -J size=32 -O ^metadata_csum_seed \
             -E hash_seed={root_uuid},resize={RESIZE_BLOCKS},lazy_itable_init=0,lazy_journal_init=0 -d \"$2\" \"$3\"; \
             e2fsck -f -n \"$3\" >/dev/null; rm -rf \"$2\""
        );
        let mut command = if Uid::effective().is_root() {
            Command::new("sh")
        } else {
            let mut command = Command::new("fakeroot");
            command.arg("sh");
            command
        };
        command
            .args(["-c", &script, "sh"])
            .args([tree, &unpacked, root])
            .env("E2FSPROGS_FAKE_TIME", SOURCE_DATE_EPOCH.to_string());
        with_sbin(&mut command);
        step(&format!("root file system, {} MiB", size / MIB), &mut command)
    }

    fn esp_serial(&self) -> u32 {
        disk::esp_serial(&self.recipe.name)
    }

    /// The disk: partitions, GRUB, EFI partition, root.
    fn disk(&self, work: &Path, debs: &[Deb], root: &Path, root_uuid: &str, raw: &Path) -> Result<()> {
        let [pc, common, efi, shim] = debs else {
            unreachable!("four packages were asked for")
        };
        let modules = work.join("i386-pc");
        std::fs::create_dir(&modules)?;
        deb::for_each_file(&pc.path, |path, reader| {
            if let Some(name) = path.strip_prefix("usr/lib/grub/i386-pc/") {
                std::io::copy(reader, &mut File::create(modules.join(name))?)?;
            }
            Ok(())
        })?;
        let maker = work.join("grub-mkimage");
        let program = deb::read_files(&common.path, &["usr/bin/grub-mkimage"])?;
        write_program(&maker, &program.concat())?;
        let (config, core) = (work.join("load.cfg"), work.join("core.img"));
        std::fs::write(&config, grub::embedded_config(root_uuid))?;
        let mut command = Command::new(&maker);
        command
            .args(["-O", "i386-pc", "-p", "/boot/grub", "-d"])
            .arg(&modules)
            .arg("-c")
            .arg(&config)
            .arg("-o")
            .arg(&core)
            .args(grub::CORE_MODULES);
        step("GRUB for BIOS", &mut command)?;
        let efi = deb::read_files(&efi.path, &["usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"])?.concat();
        let shim = deb::read_files(&shim.path, &["usr/lib/shim/shimx64.efi.signed"])?.concat();
        disk::write(
            &disk::OsDisk {
                identity: &self.recipe.name,
                boot_img: &std::fs::read(modules.join("boot.img"))?,
                core_img: &std::fs::read(&core)?,
                shim: &shim,
                grub_efi: &efi,
                root_uuid,
                root,
            },
            raw,
        )
    }

    /// Packs the disk and puts it in its place.
    fn pack(&self, raw: &Path) -> Result<ImageEntry> {
        let content = std::fs::read(raw)?;
        println!(
            "== packing {} MiB and unpacking it again to compare",
            content.len() as u64 / MIB
        );
        let packed = compress::zstd_once(&content, LEVEL)?;
        let path = self.output("img.zst");
        // The old identity no longer holds from here on.
        let _ = std::fs::remove_file(self.output("identity"));
        let new = self.output("img.zst.new");
        std::fs::write(&new, &packed)
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(ImageEntry {
            name: self.recipe.name.clone(),
            format: ImageFormat::Zstd,
            sha256: sha256(&packed).parse().context("our own digest")?,
            bytes: packed.len() as u64,
            disk_bytes: Some(content.len() as u64),
            arch: self.recipe.arch.clone(),
            source: format!(
                "Debian {}, built from its packages by cargo xtask os-image",
                self.recipe.suite
            ),
            licence: self.recipe.licence.clone(),
            user: self.recipe.user.clone(),
            added: Timestamp(SOURCE_DATE_EPOCH * 1000),
            installer: None,
        })
    }

    /// Record, bill of materials, and last the identity, which says that all is there.
    fn papers(&self, tree: &Path, debs: &[Deb], entry: &ImageEntry) -> Result<()> {
        let installed = recipe::installed(&dpkg_status(tree)?);
        ensure!(!installed.is_empty(), "the tree has no installed packages");
        let mut components: Vec<_> = installed
            .into_iter()
            .map(|(name, version)| Component {
                origin: Origin::Debian,
                name,
                version,
                sha256: None,
                license: None,
            })
            .collect();
        components.extend(
            debs.iter()
                .filter(|deb| deb.name != "grub-common")
                .map(|deb| Component {
                    origin: Origin::Debian,
                    name: deb.name.clone(),
                    version: deb.version.clone(),
                    sha256: Some(deb.sha256.clone()),
                    license: None,
                }),
        );
        std::fs::write(self.bill(), sbom::cyclonedx(&entry.name, &components))?;
        std::fs::write(self.output("json"), serde_json::to_string_pretty(entry)? + "\n")?;
        std::fs::write(self.output("identity"), &self.identity).context("writing the image's identity")
    }
}

/// Room for the files, whole blocks each, and a quarter more for the first boot; the rest of a disk is added there.
fn file_system_size(tree: &Path) -> Result<u64> {
    let mut archive = tar::Archive::new(BufReader::new(File::open(tree)?));
    let (mut bytes, mut files) = (0u64, 0u64);
    for entry in archive.entries()? {
        bytes += entry?.size().next_multiple_of(4096);
        files += 1;
    }
    // An inode has 256 bytes, and there are twice as many as are used; the journal and reserved descriptors come on top.
    let size = bytes + bytes / 4 + files * 512 + 96 * MIB;
    Ok(size.next_multiple_of(16 * MIB))
}

fn dpkg_status(tree: &Path) -> Result<String> {
    let mut archive = tar::Archive::new(BufReader::new(File::open(tree)?));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.ends_with("var/lib/dpkg/status") {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            return Ok(text);
        }
    }
    anyhow::bail!("the tree has no var/lib/dpkg/status")
}

fn write_program(path: &Path, content: &[u8]) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, content)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("making {} executable", path.display()))
}

/// mke2fs lies where an ordinary user's path does not lead.
fn with_sbin(command: &mut Command) {
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
}
