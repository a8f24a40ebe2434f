//! `rackbar program ...`

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use rackbar_control::client::Client;
use rackbar_model::ProgramEntry;

use super::images::send;
use super::{output, segment};

/// What to do with programs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the programs that steps of the site file can run
    List,
    /// Put a program in, or another in its place
    #[command(
        after_help = "Examples:\n  rackbar program add ./node-setup\n  rackbar program add target/x86_64-unknown-linux-musl/release/node-setup --name setup\n\n\
        A static executable for x86-64 Linux, at most 64 MiB: Go with CGO_ENABLED=0, Rust for the target \
        x86_64-unknown-linux-musl, C with -static. What is linked dynamically is refused. A step of the site file runs it:\n\n  \
        [[role.worker.step]]\n  name = \"setup\"\n  program = \"node-setup\"\n  arguments = [\"--verbose\"]\n\n\
        Runs that have begun keep the program that they were committed with."
    )]
    Add {
        /// The file
        file: PathBuf,
        /// Name for site files; the file's own when left out
        #[arg(long)]
        name: Option<String>,
    },
    /// Take a program out; refused while a run names it
    Remove {
        /// Its name
        name: String,
    },
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    match command {
        Command::List => list(client, as_json).await,
        Command::Remove { name } => {
            client.delete(&format!("/api/v1/programs/{}", segment(name))).await?;
            eprintln!("program {name} is taken out");
            Ok(())
        }
        Command::Add { file, name } => {
            let name = match name {
                Some(name) => name,
                None => own_name(file)?,
            };
            let path = format!("/api/v1/programs/{}", segment(name));
            let entry: ProgramEntry = send(client, file, &path).await?;
            if as_json {
                return output::json(&entry);
            }
            eprintln!("program {} is here, SHA-256 {}", entry.name, entry.sha256);
            Ok(())
        }
    }
}

/// The name of a file, without its folder.
fn own_name(file: &Path) -> Result<&str> {
    let name = file.file_name().and_then(|name| name.to_str());
    name.with_context(|| {
        format!(
            "{} has no name that could be a program's; give one with --name",
            file.display()
        )
    })
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let programs: Vec<ProgramEntry> = client.list("/api/v1/programs").await?;
    if as_json {
        return output::json(&programs);
    }
    let mut table = output::table(&["NAME", "KB", "ADDED", "SHA-256"]);
    for program in &programs {
        table.add_row(vec![
            program.name.clone(),
            program.bytes.div_ceil(1000).to_string(),
            program.added.to_string(),
            program.sha256.to_string().chars().take(16).collect(),
        ]);
    }
    println!("{table}");
    Ok(())
}
