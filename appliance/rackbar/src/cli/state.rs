//! `rackbar export`, `rackbar import`, `rackbar handoff`

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use rackbar_control::client::Client;
use serde_json::{Value, json};

use super::{handoff, output};

/// Save the whole state.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rackbar export rackbar.state --passphrase-file pass.txt\n\n\
    The file holds everything, keys and passwords included, sealed with the passphrase: without it nobody opens the file."
)]
pub struct Export {
    /// The file; must not exist
    file: PathBuf,
    /// File that holds the passphrase, at least twelve characters
    #[arg(long, value_name = "FILE")]
    passphrase_file: PathBuf,
}

/// Put a saved state in.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rackbar import rackbar.state --passphrase-file pass.txt\n\n\
    It takes the place of everything this appliance knows, and the appliance starts anew with it. What was there before \
    is kept beside it."
)]
pub struct Import {
    /// The file
    file: PathBuf,
    /// File that holds the passphrase
    #[arg(long, value_name = "FILE")]
    passphrase_file: PathBuf,
}

/// Hand the rack over.
#[derive(Debug, Subcommand)]
pub enum Handoff {
    /// Be an Ansible inventory script
    #[command(
        after_help = "Examples:\n  rackbar handoff ansible --list\n  rackbar handoff ansible --host storage-1\n\n\
        For Ansible itself, a script of two lines is the inventory:\n  #!/bin/sh\n  exec rackbar handoff ansible \"$@\""
    )]
    Ansible(Ansible),
    /// Classify nodes, give facts and sign certificates for Puppet
    #[command(subcommand)]
    Puppet(handoff::Puppet),
    /// List what can be shown for which tool
    List,
    /// Print the rack or a node in the words of a tool
    Show(handoff::Show),
    /// Make a one-time secret by which an installed machine enrols itself at a tool
    Enrol(handoff::EnrolOptions),
    /// List the one-time secrets and what became of them
    Enrolments,
    /// Take a one-time secret back
    Revoke(handoff::EnrolOptions),
}

/// What Ansible asks for.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Ansible {
    /// The whole inventory
    #[arg(long)]
    list: bool,
    /// The variables of one machine
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

/// The passphrase in a file; `-` is standard input. Never an argument: those are seen by every process.
pub(super) fn passphrase(file: &Path) -> Result<String> {
    let from = || format!("reading the passphrase from {}", file.display());
    let text = if file == Path::new("-") {
        if std::io::stdin().is_terminal() {
            eprint!("Passphrase (it is shown as you type): ");
        }
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).with_context(from)?;
        line
    } else {
        fs::read_to_string(file).with_context(from)?
    };
    let text = text.trim_end_matches(['\n', '\r']);
    ensure!(
        text.is_ascii() && !text.is_empty(),
        "the passphrase must be ASCII and not empty"
    );
    Ok(text.to_owned())
}

/// `rackbar export`
pub async fn export(client: &Client, options: &Export) -> Result<()> {
    let passphrase = passphrase(&options.passphrase_file)?;
    let sealed = client
        .post("/api/v1/export", &json!({ "passphrase": passphrase }))
        .await?;
    save(&options.file, &sealed, "sealed")
}

/// Writes a file that must be new, readable by its owner alone.
pub(super) fn save(path: &Path, sealed: &[u8], how: &str) -> Result<()> {
    let place = path.display();
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("making {place}"))?;
    file.write_all(sealed)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {place}"))?;
    eprintln!("{place}: {} bytes, {how}", sealed.len());
    Ok(())
}

/// `rackbar import`
pub async fn import(client: &Client, options: &Import) -> Result<()> {
    let passphrase = passphrase(&options.passphrase_file)?;
    let file = fs::read(&options.file).with_context(|| format!("reading {}", options.file.display()))?;
    let answer = client.import(file, &passphrase).await?;
    let answer: Value = serde_json::from_slice(&answer)?;
    eprintln!("{}", output::plain(answer["taken"].as_str().unwrap_or("taken")));
    Ok(())
}

/// `rackbar handoff`
pub async fn hand_off(client: &Client, command: &Handoff, as_json: bool) -> Result<()> {
    match command {
        Handoff::Ansible(asked) => ansible(client, asked).await,
        Handoff::Puppet(command) => handoff::puppet(client, command).await,
        Handoff::List => handoff::list(client, as_json).await,
        Handoff::Show(options) => handoff::show(client, options).await,
        Handoff::Enrol(options) => handoff::enrol(client, options).await,
        Handoff::Enrolments => handoff::enrolments(client, as_json).await,
        Handoff::Revoke(options) => handoff::revoke(client, options).await,
    }
}

async fn ansible(client: &Client, asked: &Ansible) -> Result<()> {
    let inventory: Value = client.get("/api/v1/handoff/ansible").await?;
    match &asked.host {
        None => output::json(&inventory),
        // Ansible wants an empty object for a host it does not find.
        Some(host) => output::json(
            inventory
                .pointer("/_meta/hostvars")
                .and_then(|vars| vars.get(host))
                .unwrap_or(&json!({})),
        ),
    }
}
