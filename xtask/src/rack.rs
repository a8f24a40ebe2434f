//! `cargo xtask rack`: a virtual rack with the appliance in it, from power-on to the last machine ready
//! (discovered, where nothing is installed).
//!
//! The first terminal starts and watches it; a second one reaches it with `rack console`, `power`, `capture`, `cut`,
//! `forget`, `list`, `down`. Everything about racks themselves is in `rackbar_vrack`; this verb builds the medium, follows the
//! API and shows what happens.

mod follow;
mod live;
mod ready;
mod remote;
mod view;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::project::Project;
use crate::setup::{self, Need};

/// Options of the verb.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    remote: Option<remote::Verb>,
    #[command(flatten)]
    start: Start,
}

/// Options of starting a rack.
#[derive(Debug, clap::Args)]
struct Start {
    /// A rack of tests/racks by name, or a rack file
    #[arg(default_value = "demo")]
    rack: String,
    /// Only the first so many nodes
    #[arg(long)]
    nodes: Option<usize>,
    /// Take the media from this folder instead of building them
    #[arg(long, value_name = "FOLDER")]
    image: Option<PathBuf>,
    /// Leave logs, captures and disks behind
    #[arg(long)]
    keep: bool,
    /// Stop when all machines are discovered: install nothing
    #[arg(long)]
    discover: bool,
    /// End when all machines are ready (or discovered, when nothing is installed): success if they are in time
    #[arg(long)]
    headless: bool,
    /// Seconds until a headless run counts as failed
    #[arg(long, default_value_t = 1500, value_name = "SECONDS")]
    deadline: u64,
}

/// Starts a rack, or talks to one that runs.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let project = Project::find()?;
    let registry = remote::Registry::new(&project);
    if let Some(verb) = &arguments.remote {
        let runtime = runtime()?;
        let outcome = runtime.block_on(remote::run(verb, &registry));
        // A thread may be waiting for a key that nobody will press any more.
        runtime.shutdown_background();
        return outcome;
    }
    setup::ensure(Need::Rack)?;
    let path = rack_file(&project, &arguments.start.rack)?;
    let file = rackbar_vrack::rack::RackFile::load(&path)?;
    let image = match &arguments.start.image {
        Some(folder) => folder.clone(),
        None => crate::image::ensure()?,
    };
    let wanted = match ready::site_file(&path) {
        Some(site) if !arguments.start.discover => Some(ready::Wanted {
            site: std::fs::read_to_string(&site).with_context(|| format!("reading {}", site.display()))?,
            image: rack_image(&project)?,
            reports: project.target.join("reports"),
        }),
        _ => None,
    };
    let runtime = runtime()?;
    let outcome = runtime.block_on(live::run(file, &image, wanted.as_ref(), &registry, &arguments.start));
    // Threads that still hold a console or a capture must not hold the terminal.
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

/// The image that the shipped sites install.
fn rack_image(project: &Project) -> Result<rackbar_scenarios::install::Image> {
    let built = crate::os_image::ensure_built(project, &crate::os_image::Arguments::default())?;
    Ok(rackbar_scenarios::install::Image {
        name: built.entry.name,
        path: built.path,
        sha256: built.entry.sha256,
        user: built.entry.user.clone(),
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
}

/// The path of a rack file by name or path.
fn rack_file(project: &Project, name: &str) -> Result<PathBuf> {
    let folder = project.root.join("tests/racks");
    let shipped = folder.join(format!("{name}.toml"));
    if shipped.exists() {
        return Ok(shipped);
    }
    let path = PathBuf::from(name);
    if path.is_file() {
        return Ok(path);
    }
    let entries = std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut names: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    bail!(
        "there is no rack `{name}` and no such file; racks that ship: {}",
        names.join(", ")
    );
}
