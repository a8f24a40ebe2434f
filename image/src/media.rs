//! All files of `target/image`, out of programs, kernel and packages that are already there.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, write_whole};
use crate::compress;
use crate::contents::{Contents, Sources};
use crate::cpio;
use crate::digest::{sha256, sha256_file};
use crate::disk::{self, DiskSpec};
use crate::iso::{self, IsoSpec};
use crate::kernel::Kernel;
use crate::packs::MediumPack;
use crate::pe::{self, Section};
use crate::sbom::{self, Component};
use crate::sign;

/// Size of the data partition on the shipped disk image, in MiB. A template: the appliance grows it.
pub const DATA_MIB: u64 = 64;

/// The source, in the contents table, of the program that is daemon and command line in one.
const COMMAND: &str = "program:rackbar";

/// The appliance's command line: quiet enough for a text screen on both consoles. The one named last is where PID 1's
/// own lines go: the serial one, which a BMC can show and keep.
const COMMAND_LINE: &str = "rackbar.role=appliance quiet panic=10 console=tty0 console=ttyS0,115200n8";

/// What the media are made of.
#[derive(Debug)]
pub struct Inputs {
    /// Rackbar's version.
    pub version: String,
    /// The bytes behind each `from` of the contents table, the loader among them.
    pub sources: Sources,
    /// The kernel and its modules.
    pub kernel: Kernel,
    /// The parts to list in the bill of materials.
    pub components: Vec<Component>,
    /// Data packs to put onto disk image and ISO.
    pub packs: Vec<Pack>,
    /// Zstandard level, [`compress::LEVEL`] for what ships.
    pub level: i32,
}

/// A data pack that goes onto the media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// Its name, as its index says it.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Who signed it, in hexadecimal: the media's own command line says that this key is trusted.
    pub key: String,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name in the folder.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, as hex.
    pub sha256: String,
}

/// Collects outputs as they are written.
struct Folder<'a> {
    path: &'a Path,
    outputs: Vec<Output>,
}

impl Folder<'_> {
    fn put(&mut self, name: &'static str, purpose: &'static str, content: &[u8]) -> Result<()> {
        write_whole(&self.path.join(name), content)?;
        let size = content.len() as u64;
        self.outputs.push(Output {
            name,
            purpose,
            size,
            sha256: sha256(content),
        });
        Ok(())
    }

    /// Writes a file through `write`, beside its place first, so that nobody sees half of it.
    fn put_large(
        &mut self,
        name: &'static str,
        purpose: &'static str,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let (path, new) = (self.path.join(name), self.path.join(format!("{name}.new")));
        write(&new)?;
        let (sha256, size) = sha256_file(&new)?;
        std::fs::rename(&new, &path).with_context(|| format!("writing {}", path.display()))?;
        self.outputs.push(Output {
            name,
            purpose,
            size,
            sha256,
        });
        Ok(())
    }
}

/// Writes everything into `folder`, `SHA256SUMS` last, and tells what was written.
pub fn build(inputs: &Inputs, folder: &Path, cache: &Cache) -> Result<Vec<Output>> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let mut out = Folder {
        path: folder,
        outputs: Vec::new(),
    };
    let contents = Contents::shipped()?;
    let loader = inputs.sources.get("loader").context("no loader was built")?;
    let vmlinuz = &inputs.kernel.image;

    // Two frames one behind the other, which the kernel unpacks in turn: the modules' frame stays as it is, and in the
    // cache, while the programs change.
    let programs = [
        contents.base.cpio(&inputs.sources)?,
        contents.appliance.cpio(&inputs.sources)?,
    ];
    let [modules, base, appliance] = frames(
        [&inputs.kernel.modules, &programs[0], &programs[1]],
        inputs.level,
        cache,
    )?;
    let base = [modules, base].concat();
    let command_line = command_line(&inputs.packs);
    let efi = unified(loader, vmlinuz, (&base, &appliance), &command_line, &inputs.version)?;
    let packs: Vec<_> = inputs.packs.iter().map(Pack::on_medium).collect();

    out.put("vmlinuz", "kernel, for nodes and for iPXE", vmlinuz)?;
    out.put(
        "base.cpio.zst",
        "initramfs of every machine: init, agent, modules",
        &base,
    )?;
    out.put("appliance.cpio.zst", "what the appliance has on top", &appliance)?;
    out.put(
        "nodeboot.cpio",
        "kernel and base again, for an appliance started by iPXE",
        &node_boot(vmlinuz, &base),
    )?;
    out.put("loader.efi", "UEFI boot loader of the nodes", loader)?;
    out.put("rackbar.efi", "the whole appliance as one UEFI program (UKI)", &efi)?;
    out.put_large("rackbar.img", "the appliance as a disk or USB stick (GPT)", |path| {
        disk::write(
            &DiskSpec {
                efi: &efi,
                config: None,
                packs: &packs,
                data_mib: DATA_MIB,
            },
            path,
        )
    })?;
    out.put_large("rackbar.iso", "the appliance as a CD or USB stick", |path| {
        iso::write(
            &IsoSpec {
                efi: &efi,
                config: None,
                packs: &packs,
            },
            path,
        )
    })?;
    let program = inputs.sources.get(COMMAND).context("no command line was built")?;
    out.put_large(
        "rackbar",
        "the command line, for any Linux on x86-64 (static)",
        |path| {
            write_whole(path, program)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
                .with_context(|| format!("making {} a program", path.display()))
        },
    )?;
    let bill = sbom::cyclonedx(&inputs.version, &inputs.components);
    out.put(
        "rackbar.cdx.json",
        "what all this is made of (CycloneDX)",
        bill.as_bytes(),
    )?;
    let sums: String = out
        .outputs
        .iter()
        .map(|output| format!("{}  {}\n", output.sha256, output.name))
        .collect();
    sign::withdraw(folder, &sums)?;
    out.put("SHA256SUMS", "digests of the files above", sums.as_bytes())?;
    Ok(out.outputs)
}

/// Compresses each into a frame of its own, all at once: a frame is made by one processor, and the largest takes it half a minute.
fn frames(contents: [&[u8]; 3], level: i32, cache: &Cache) -> Result<[Vec<u8>; 3]> {
    std::thread::scope(|scope| {
        let [one, two, three] = contents.map(|content| scope.spawn(move || compress::zstd(content, level, cache)));
        let end = |frame: std::thread::ScopedJoinHandle<'_, Result<Vec<u8>>>| {
            frame
                .join()
                .unwrap_or_else(|_| bail!("the thread that compresses ended"))
        };
        Ok([end(one)?, end(two)?, end(three)?])
    })
}

impl Pack {
    fn on_medium(&self) -> MediumPack<'_> {
        MediumPack {
            name: &self.name,
            path: &self.path,
        }
    }
}

/// The appliance's command line on media with these packs: whoever signed them is trusted by who boots the media.
fn command_line(packs: &[Pack]) -> String {
    let keys: std::collections::BTreeSet<_> = packs.iter().map(|pack| &pack.key).collect();
    keys.iter().fold(COMMAND_LINE.to_owned(), |line, key| {
        format!("{line} rackbar.pack_key={key}")
    })
}

/// Sections the loader finds in itself, as ARCHITECTURE.md's "Loader" says.
fn unified(
    loader: &[u8],
    kernel: &[u8],
    (base, appliance): (&[u8], &[u8]),
    command_line: &str,
    version: &str,
) -> Result<Vec<u8>> {
    let release = format!("ID=rackbar\nNAME=Rackbar\nPRETTY_NAME=\"Rackbar {version}\"\nVERSION_ID={version}\n");
    pe::append(
        loader,
        &[
            Section {
                name: ".osrel",
                content: release.as_bytes(),
            },
            Section {
                name: ".cmdline",
                content: command_line.as_bytes(),
            },
            Section {
                name: ".linux",
                content: kernel,
            },
            Section {
                name: ".initrd",
                content: base,
            },
            Section {
                name: ".initrd2",
                content: appliance,
            },
        ],
    )
    .context("adding kernel and initramfs to the loader")
}

/// The boot files of a node as an archive, for an appliance that was not started by our loader. Uncompressed: both
/// parts are compressed already.
fn node_boot(kernel: &[u8], base: &[u8]) -> Vec<u8> {
    let mut writer = cpio::Writer::new();
    writer.file("boot/vmlinuz", 0o644, kernel);
    writer.file("boot/base.cpio.zst", 0o644, base);
    writer.finish()
}
