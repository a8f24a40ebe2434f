//! `cargo xtask sign`: signs what `cargo xtask image` wrote, so that who downloads it can check it with minisign and sha256sum.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use rackbar_image::sign::{self, ReleaseKey};

use crate::project::Project;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The secret key's file, in minisign's format and without a passphrase; only its owner may read it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Make that key first; a file that is there is never replaced
    #[arg(long)]
    make_key: bool,
    /// Sign the media in FOLDER instead of `target/image`
    #[arg(long = "in", value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Signs, and says how to check.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folder = match &arguments.folder {
        Some(folder) => folder.clone(),
        None => Project::find()?.target.join("image"),
    };
    ensure!(
        folder.is_dir(),
        "{} is no folder; `cargo xtask image` makes the media",
        folder.display()
    );
    let key = if arguments.make_key {
        let key = ReleaseKey::make(&arguments.key)?;
        println!(
            "sign: {} is a new secret key; keep a copy where no network reaches, nobody can make it again",
            arguments.key.display()
        );
        key
    } else {
        ReleaseKey::read(&arguments.key)?
    };
    let said = sign::folder(&folder, &key)?;
    println!("sign: {said} in {} is signed by {}", folder.display(), key.public());
    println!(
        "check it with: minisign -Vm SHA256SUMS -P {} && sha256sum -c SHA256SUMS",
        key.public()
    );
    Ok(())
}
