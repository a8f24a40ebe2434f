//! `rackbar export`, `rackbar import`, `rackbar handoff`

use std::fs;
use std::io::{IsTerminal as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use rackbar_control::client::Client;
use rackbar_control::operations::{ExportSizes, count};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::kept::Kept;
use super::{handoff, images, output};

/// Save the whole state.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rackbar export rackbar.state --passphrase-file pass.txt\n  \
    rackbar export nightly.state --passphrase-file pass.txt --without-images\n\n\
    The file holds everything: keys and passwords, sealed with the passphrase, without which nobody opens the file; the \
    users' programs; the images of the catalogue; data packs that were put in; and what the caching proxy has stored. How \
    large that is is said before anything is written. A data pack on a medium of its own moves with that medium."
)]
pub struct Export {
    /// The file; must not exist
    file: PathBuf,
    /// File that holds the passphrase, at least twelve characters
    #[arg(long, value_name = "FILE")]
    passphrase_file: PathBuf,
    /// Leave the images of the catalogue and data packs out, which are most of the file
    #[arg(long)]
    without_images: bool,
    /// Leave out what the caching proxy has stored, but for its list of pins
    #[arg(long)]
    without_cache: bool,
}

/// Put a saved state in.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rackbar import rackbar.state --passphrase-file pass.txt\n\n\
    It takes the place of everything this appliance knows, and the appliance starts anew with it. What was there before \
    is kept beside it. Programs, images, data packs and stored answers of the proxy join those that are here, in the \
    place of those with the same names. \
    A file that is damaged, cut off or does not fit changes nothing."
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
        For Ansible itself, a script of two lines is the inventory:\n  #!/bin/sh\n  exec rackbar handoff ansible --kept \"$@\""
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
pub struct Ansible {
    /// The whole inventory
    #[arg(long, required_unless_present = "host", conflicts_with = "host")]
    list: bool,
    /// The variables of one machine
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    #[command(flatten)]
    kept: Kept,
}

/// The passphrase in a file; `-` is standard input.
pub(super) fn passphrase(file: &Path) -> Result<String> {
    secret(file, "passphrase")
}

/// What is secret, in a file; `-` is standard input. Never an argument: those are seen by every process.
pub(super) fn secret(file: &Path, what: &str) -> Result<String> {
    let from = || format!("reading the {what} from {}", file.display());
    let text = if file == Path::new("-") {
        if std::io::stdin().is_terminal() {
            eprint!("The {what} (it is shown as you type): ");
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
        "the {what} must be ASCII and not empty"
    );
    Ok(text.to_owned())
}

/// `rackbar export`
pub async fn export(client: &Client, options: &Export) -> Result<()> {
    let passphrase = passphrase(&options.passphrase_file)?;
    let (images, cache) = (!options.without_images, !options.without_cache);
    let sizes: ExportSizes = client.get("/api/v1/export").await?;
    tell(&sizes, images, cache);
    let wanted = json!({ "passphrase": passphrase, "images": images, "cache": cache });
    let mut pieces = client.post_for_pieces("/api/v1/export", &wanted).await?;
    let place = options.file.display();
    let mut file = tokio::fs::File::from_std(new_file(&options.file)?);
    let along = [
        (true, sizes.program_bytes),
        (images, sizes.image_bytes),
        (images, sizes.pack_bytes),
        (cache, sizes.answer_bytes),
    ];
    let along = along.iter().filter(|(wanted, _)| *wanted);
    let saving = images::bar(along.fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes)), "saving");
    let saved = async {
        let mut bytes = 0u64;
        while let Some(piece) = pieces.try_next().await? {
            file.write_all(&piece)
                .await
                .with_context(|| format!("writing {place}"))?;
            bytes = bytes.saturating_add(piece.len() as u64);
            saving.set_position(bytes);
        }
        file.sync_all().await.with_context(|| format!("writing {place}"))?;
        anyhow::Ok(bytes)
    };
    let saved = saved.await;
    saving.finish_and_clear();
    match saved {
        Ok(bytes) => {
            eprintln!("{place}: {bytes} bytes, sealed");
            Ok(())
        }
        Err(error) => {
            // A part of a state is of no use to anybody.
            let _ = fs::remove_file(&options.file);
            Err(error.context("the state was not saved; the appliance's log says more"))
        }
    }
}

/// Says what will come.
fn tell(sizes: &ExportSizes, images: bool, cache: bool) {
    let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
    let part = |number: u64, one, many, bytes| {
        let number = count(usize::try_from(number).unwrap_or(usize::MAX), one, many);
        format!("{number} ({} MB)", megabytes(bytes))
    };
    let parts = [
        (true, part(sizes.programs, "program", "programs", sizes.program_bytes)),
        (images, part(sizes.images, "image", "images", sizes.image_bytes)),
        (images, part(sizes.packs, "data pack", "data packs", sizes.pack_bytes)),
        (
            cache,
            part(sizes.answers, "stored answer", "stored answers", sizes.answer_bytes),
        ),
    ];
    let those = |wanted: bool| {
        let some = parts.iter().filter(|(there, _)| *there == wanted);
        some.map(|(_, words)| words.as_str()).collect::<Vec<_>>().join(", ")
    };
    let (store, with, without) = (megabytes(sizes.store_bytes), those(true), those(false));
    let leaving = if without.is_empty() {
        String::new()
    } else {
        format!("; left out: {without}")
    };
    eprintln!("the state (at most {store} MB) with {with}{leaving}");
    if images && cache {
        eprintln!("--without-images leaves images and data packs out, --without-cache the stored answers");
    }
    if !sizes.packs_elsewhere.is_empty() {
        let names: Vec<_> = sizes.packs_elsewhere.iter().map(|name| output::plain(name)).collect();
        eprintln!(
            "not in it, since they lie on media of their own: the data packs {}; move those media too, or put the packs in \
             here first (`rackbar pack import`)",
            names.join(", ")
        );
    }
}

/// Makes a file that must be new, readable by its owner alone.
pub(super) fn new_file(path: &Path) -> Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(path);
    made.with_context(|| format!("making {}", path.display()))
}

/// Writes a file that must be new, readable by its owner alone.
pub(super) fn save(path: &Path, sealed: &[u8], how: &str) -> Result<()> {
    let place = path.display();
    let mut file = new_file(path)?;
    file.write_all(sealed)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {place}"))?;
    eprintln!("{place}: {} bytes, {how}", sealed.len());
    Ok(())
}

/// `rackbar import`
pub async fn import(client: &Client, options: &Import) -> Result<()> {
    let passphrase = passphrase(&options.passphrase_file)?;
    let reading = || format!("reading {}", options.file.display());
    let mut file = fs::File::open(&options.file).with_context(reading)?;
    let bytes = file.metadata().with_context(reading)?.len();
    // What is no state file at all, or a newer one, is said before anything is sent.
    let info = rackbar_store::look_at_export(&mut file)?;
    let size = bytes.div_ceil(1_000_000);
    eprintln!(
        "the state of {}, saved by Rackbar {}, {size} MB",
        info.at,
        output::plain(&info.appliance)
    );
    file.rewind().with_context(reading)?;
    let sending = images::bar(bytes, "sending");
    let end = sending.clone();
    let body = images::read_on(tokio::fs::File::from_std(file), sending);
    let answer = client.import(body, bytes, &passphrase).await;
    end.finish_and_clear();
    let answer = answer?;
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
    let inventory: Value = serde_json::from_str(&asked.kept.get(client, "/api/v1/handoff/ansible").await?)?;
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
