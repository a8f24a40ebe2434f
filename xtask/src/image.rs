//! `cargo xtask image`: the boot media and everything on them, into `target/image`.

use anyhow::{Context, Result};

use crate::project::Project;
use crate::setup::{self, Need};

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// Builds what is missing or stale and gives the folder of the media.
pub(crate) fn ensure() -> Result<std::path::PathBuf> {
    run(&Arguments {})?;
    Ok(Project::find()?.target.join("image"))
}

/// Builds the media.
pub(crate) fn run(_arguments: &Arguments) -> Result<()> {
    setup::ensure(Need::Image)?;
    let project = Project::find()?;
    let folder = project.target.join("image");
    std::fs::create_dir_all(project.cache()).with_context(|| format!("creating {}", project.cache().display()))?;
    println!("image: {} from {}", folder.display(), project.root.display());
    Ok(())
}
