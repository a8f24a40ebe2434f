//! `cargo xtask os-image NAME`: a disk image of an operating system for the nodes, from Debian packages, without root.
//!
//! mmdebstrap makes the tree as a tar archive (apt checks every signature), mke2fs makes the root file system of it,
//! and `rackbar_image::os` makes the bootable disk. The result is kept until the recipe or a package of it changes.
//! `debian-12-installer` is no image: kernel and initial RAM file system of debian-installer, out of Debian's package.

mod build;
mod installer;
pub(crate) mod sources;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rackbar_image::os::recipe::{self, Recipe};
use rackbar_model::ImageEntry;

use crate::project::Project;
use crate::setup::{self, Need};

/// Options of the verb; by default the image that the virtual rack installs.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Which image
    #[arg(value_parser = ["debian-12", CLOUD_INIT, INSTALLER], default_value = "debian-12")]
    name: String,
    /// Take packages of this release instead of the recipe's; the machine's apt must know it
    #[arg(long)]
    suite: Option<String>,
    /// `generic` has the drivers of real servers, `cloud` only those of virtual machines
    #[arg(long, default_value = "generic")]
    kernel: String,
    /// Build even when the image that is there is up to date
    #[arg(long)]
    again: bool,
}

/// An image that is ready to be given to an appliance.
#[derive(Debug, Clone)]
pub(crate) struct OsImage {
    /// The file: a disk image in one Zstandard frame.
    pub(crate) path: PathBuf,
    /// What the appliance is told about it; also in the `.json` beside it.
    pub(crate) entry: ImageEntry,
}

/// Builds the image and says where it is.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let image = ensure_built(&Project::find()?, arguments)?;
    let OsImage { path, entry } = &image;
    println!(
        "{}: {:.0} MiB, {:.0} MiB unpacked, SHA-256 {}",
        path.display(),
        entry.bytes as f64 / 1_048_576.0,
        entry.disk_bytes.unwrap_or(0) as f64 / 1_048_576.0,
        entry.sha256
    );
    Ok(())
}

/// The image whose identity is a NoCloud seed.
const CLOUD_INIT: &str = "debian-12-cloud-init";

impl Arguments {
    /// The image with the drivers of virtual machines only.
    pub(crate) fn light() -> Self {
        Self {
            kernel: "cloud".into(),
            ..Self::default()
        }
    }

    /// The image with cloud-init and those drivers.
    pub(crate) fn cloud_init() -> Self {
        Self {
            name: CLOUD_INIT.into(),
            ..Self::light()
        }
    }

    /// These, as words of the command line.
    pub(crate) fn words(&self) -> Vec<String> {
        vec![
            "os-image".into(),
            self.name.clone(),
            "--kernel".into(),
            self.kernel.clone(),
        ]
    }
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            name: "debian-12".into(),
            suite: None,
            kernel: "generic".into(),
            again: false,
        }
    }
}

/// Debian's installer.
const INSTALLER: &str = "debian-12-installer";

/// Gives Debian's installer, out of the package that apt has of it.
pub(crate) fn ensure_installer(project: &Project) -> Result<OsImage> {
    installer::ensure(project, INSTALLER)
}

/// Gives the image, building it when there is none of this recipe and these package versions.
pub(crate) fn ensure_built(project: &Project, arguments: &Arguments) -> Result<OsImage> {
    setup::ensure(Need::OsImage)?;
    if arguments.name == INSTALLER {
        return ensure_installer(project);
    }
    let mut recipe = Recipe::parse(recipe::DEBIAN_12)?;
    if arguments.name == CLOUD_INIT {
        recipe = recipe.varied(recipe::DEBIAN_12_CLOUD_INIT)?;
    }
    let kernel = recipe
        .kernels
        .get(&arguments.kernel)
        .with_context(|| {
            format!(
                "no kernel {:?}: the recipe has {:?}",
                arguments.kernel,
                recipe.kernels.keys()
            )
        })?
        .clone();
    recipe.packages.push(kernel);
    if arguments.kernel != "generic" {
        recipe.name = format!("{}-{}", recipe.name, arguments.kernel);
    }
    if let Some(suite) = &arguments.suite {
        recipe.suite.clone_from(suite);
        recipe.name = format!("{}-{suite}", recipe.name);
    }
    let job = build::Job::new(project, recipe)?;
    if !arguments.again
        && let Some(image) = job.present()?
    {
        return Ok(image);
    }
    let image = job.build()?;
    ensure!(
        image.entry.bytes <= LARGEST,
        "{} has {} MiB; more than {} would make every install slower: look at the packages in {}",
        image.path.display(),
        image.entry.bytes >> 20,
        LARGEST >> 20,
        job.bill().display()
    );
    Ok(image)
}

/// What an image may have, packed.
const LARGEST: u64 = 250 << 20;
