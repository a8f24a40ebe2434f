//! `cargo xtask image`: the boot media and everything on them, into `target/image`.
//!
//! Builds our programs, fetches the Debian packages, and hands all of it to `rackbar_image::media`, which knows how
//! media are made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use rackbar_image::cache::Cache;
use rackbar_image::contents::{Contents, Sources};
use rackbar_image::kernel::Kernel;
use rackbar_image::limits::{self, Size};
use rackbar_image::media::{self, Inputs};
use rackbar_image::modules::List;
use rackbar_image::sbom::{Component, Origin};
use rackbar_image::{audit, compress, deb};
use rackbar_packs::Pack;
use serde::Deserialize;

use crate::project::{Project, cargo};
use crate::setup::{self, Need, debian};

/// Target of the programs that run in the image.
const MUSL: &str = "x86_64-unknown-linux-musl";
/// Target of the loader.
const UEFI: &str = "x86_64-unknown-uefi";
/// The loader's package.
const LOADER: &str = "rackbar-loader";
/// Cargo profile of the loader and of what only the appliance runs.
const RELEASE: &str = "release";
/// Cargo profile of what every node holds in memory.
const SMALL: &str = "small";

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Zstandard level: lower is quicker and larger; what ships has the default
    #[arg(long, default_value_t = compress::LEVEL)]
    level: i32,
    /// Put a data pack onto disk image and ISO, whose appliance then trusts its maker: a file, or a name that
    /// `cargo xtask pack` knows; may be given more than once
    #[arg(long, value_name = "NAME|FILE")]
    pack: Vec<String>,
    /// Write the media into FOLDER instead of `target/image`
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

/// Builds what is missing or stale and gives the folder of the media.
pub(crate) fn ensure() -> Result<PathBuf> {
    let built = build(compress::LEVEL, &[], None)?;
    limits::check(&built.sizes)?;
    Ok(built.folder)
}

/// Builds the media and shows what came of it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let built = build(arguments.level, &arguments.pack, arguments.to.as_deref())?;
    println!("{}", table(&built.sizes));
    println!("in {}", built.folder.display());
    limits::check(&built.sizes)
}

/// What a build leaves.
struct Built {
    folder: PathBuf,
    sizes: Vec<Size>,
}

/// Builds the media into `to`, or else into `target/image`.
fn build(level: i32, packs: &[String], to: Option<&Path>) -> Result<Built> {
    setup::ensure(Need::Image)?;
    let packs = packs.iter().map(|name| pack(name)).collect::<Result<_>>()?;
    let project = Project::find()?;
    let own = project.target.join("image");
    std::fs::create_dir_all(&own).with_context(|| format!("creating {}", own.display()))?;
    let folder = to.map_or_else(|| own.clone(), Path::to_owned);
    // Two builds of one checkout at a time would mix their files, wherever they write the media to.
    let lock = std::fs::File::create(project.target.join("image.lock")).context("creating the lock of target/image")?;
    lock.lock().context("waiting for another build of target/image")?;

    let contents = Contents::shipped()?;
    let (kernel_deb, ipxe_deb) = (debian::kernel(&project.cache())?, debian::ipxe(&project.cache())?);
    let mut sources = Sources::new();
    let mut components = Vec::new();
    // One call of Cargo for each: in one for both, the features that the appliance wants of a crate would be compiled
    // into the nodes' programs too.
    for (archive, profile) in [(&contents.base, SMALL), (&contents.appliance, RELEASE)] {
        let packages: Vec<_> = archive.programs().map(|program| program.package).collect();
        compile(&project, MUSL, profile, &packages)?;
        for program in archive.programs() {
            let file = built(&project, MUSL, profile, program.name);
            sources.insert(program.from.to_owned(), read(&file)?);
        }
        components.extend(crates(&project, MUSL, &packages)?);
    }
    compile(&project, UEFI, RELEASE, &[LOADER])?;
    let loader = built(&project, UEFI, RELEASE, &format!("{LOADER}.efi"));
    sources.insert("loader".into(), read(&loader)?);
    components.extend(crates(&project, UEFI, &[LOADER])?);

    let cache = Cache::open(project.cache())?;
    let wanted = contents.ipxe_files();
    for (path, content) in wanted.iter().zip(deb::read_files(&ipxe_deb.path, &wanted)?) {
        sources.insert(format!("ipxe:{path}"), content);
    }
    println!(
        "image: taking kernel and modules from {} {}",
        kernel_deb.name, kernel_deb.version
    );
    let kernel = Kernel::load(&kernel_deb.path, &kernel_deb.sha256, &List::shipped()?, &cache)?;

    components.extend([&kernel_deb, &ipxe_deb].map(|deb| Component {
        origin: Origin::Debian,
        name: deb.name.clone(),
        version: deb.version.clone(),
        sha256: Some(deb.sha256.clone()),
        license: None,
    }));
    println!("image: compressing and writing the media (level {level}; only what changed is compressed again)");
    let node_programs = contents
        .base
        .file
        .iter()
        .filter_map(|file| sources.get(&file.from))
        .map(|bytes| bytes.len() as u64)
        .sum();
    let inputs = Inputs {
        version: env!("CARGO_PKG_VERSION").into(),
        sources,
        kernel,
        components,
        packs,
        level,
    };
    let outputs = media::build(&inputs, &folder, &cache)?;
    audit::folder(&folder, &List::shipped()?).context("looking through the finished image")?;
    Ok(Built {
        folder,
        sizes: limits::sizes(&outputs, node_programs),
    })
}

/// A data pack for the media, read through: one that is damaged is better found here than in a data hall.
fn pack(name: &str) -> Result<media::Pack> {
    let path = if Path::new(name).is_file() {
        PathBuf::from(name)
    } else {
        crate::pack::ensure_made(name)?
    };
    println!("image: checking data pack {}", path.display());
    let checked = Pack::verify_any(&path, |_| {}).with_context(|| path.display().to_string())?;
    Ok(media::Pack {
        name: checked.index.name,
        path,
        key: checked.key.to_string(),
    })
}

/// Compiles packages for a target, in a target folder of its own: its flags differ from a plain `cargo build`'s, and
/// in one folder each would throw away the other's work.
fn compile(project: &Project, target: &str, profile: &str, packages: &[&str]) -> Result<()> {
    println!("image: compiling {} for {target}", packages.join(", "));
    let flags = toml::Value::from(rust_flags(project, target)?);
    let status = cargo()
        .args(["build", "--profile", profile, "--locked", "--target", target])
        .args(packages.iter().flat_map(|package| ["-p", package]))
        .arg("--config")
        .arg(format!("target.{target}.rustflags={flags}"))
        .arg("--target-dir")
        .arg(programs_folder(project))
        // The C in ring writes file names into its error reports.
        .env(format!("CFLAGS_{}", target.replace('-', "_")), c_flags(project)?)
        // A checkout may lie in a folder with a space in its name: the flags are quoted as for a shell.
        .env("CC_SHELL_ESCAPED_FLAGS", "1")
        // Flags from outside would replace ours and change the programs.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(&project.root)
        .status()
        .context("running cargo build")?;
    ensure!(
        status.success(),
        "compiling for {target} failed; the compiler's words are above"
    );
    Ok(())
}

fn programs_folder(project: &Project) -> PathBuf {
    project.target.join("programs")
}

fn built(project: &Project, target: &str, profile: &str, file: &str) -> PathBuf {
    programs_folder(project).join(target).join(profile).join(file)
}

/// Folders of this machine that would otherwise be written into the programs, and what stands there instead.
fn remapped(project: &Project) -> Result<Vec<(PathBuf, &'static str)>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let home = home.context("neither CARGO_HOME nor a home folder is known")?;
    // Later rules win, so the more particular ones stand last.
    Ok(vec![
        (home, "/cargo"),
        (project.root.clone(), "/rackbar"),
        (programs_folder(project), "/target"),
    ])
}

fn rust_flags(project: &Project, target: &str) -> Result<Vec<String>> {
    let remapped = remapped(project)?;
    let mut flags: Vec<_> = remapped
        .iter()
        .map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display()))
        .collect();
    if target == MUSL {
        // Every node holds these programs in memory. LLVM's linker, which comes with Rust, keeps functions of the same
        // code once and packs the table of addresses that a position-independent program corrects when it starts.
        flags.push("-Clinker=rust-lld".into());
        flags.push("-Clink-arg=--icf=all".into());
        flags.push("-Clink-arg=--pack-dyn-relocs=relr".into());
        // Nothing unwinds a program that ends at its first panic.
        flags.push("-Cforce-unwind-tables=no".into());
    }
    if target == UEFI {
        // Otherwise the linker stamps the wall clock into the header.
        flags.push("-Clink-arg=/Brepro".into());
        // And so that no debug record remains, whose identity depends on where the objects lay.
        flags.push("-Clink-arg=/DEBUG:NONE".into());
    }
    Ok(flags)
}

fn c_flags(project: &Project) -> Result<String> {
    let remapped = remapped(project)?;
    let flags = remapped.iter().map(|(path, name)| {
        format!(
            "'-ffile-prefix-map={}={name}'",
            path.display().to_string().replace('\'', "'\\''")
        )
    });
    Ok(flags.collect::<Vec<_>>().join(" "))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// Digests that `Cargo.lock` holds.
#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// The crates that end up in these programs: no build scripts, macros, tests, nor features nobody switched on.
fn crates(project: &Project, target: &str, packages: &[&str]) -> Result<Vec<Component>> {
    let output = cargo()
        .args([
            "tree",
            "--locked",
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "--no-dedupe",
        ])
        .args(["--target", target, "--format", "{p}|{l}"])
        .args(packages.iter().flat_map(|package| ["-p", package]))
        .current_dir(&project.root)
        .output()
        .context("running cargo tree")?;
    ensure!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let lock = std::fs::read_to_string(project.root.join("Cargo.lock")).context("reading Cargo.lock")?;
    let lock: Lock = toml::from_str(&lock).context("reading Cargo.lock")?;
    let digests: BTreeMap<_, _> = lock
        .package
        .into_iter()
        .map(|package| ((package.name, package.version), package.checksum))
        .collect();
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| {
        let (package, license) = line.split_once('|')?;
        let (name, version) = package.split_once(" v")?;
        let version = version.split(' ').next()?;
        Some((name.to_owned(), version.to_owned(), license.trim_end_matches(" (*)")))
    });
    let components = lines.map(|(name, version, license)| Component {
        origin: Origin::Cargo,
        sha256: digests.get(&(name.clone(), version.clone())).cloned().flatten(),
        license: (!license.is_empty()).then(|| license.to_owned()),
        name,
        version,
    });
    Ok(components.collect())
}

/// The closing table.
fn table(sizes: &[Size]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["file", "size", "limit", "", "purpose"]);
    for size in sizes {
        let verdict = match size.most {
            None => "",
            Some(_) if size.fits() => "ok",
            Some(_) => "TOO LARGE",
        };
        table.add_row([
            size.name,
            &limits::human(size.bytes),
            &size.most.map(limits::human).unwrap_or_default(),
            verdict,
            size.purpose,
        ]);
    }
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
