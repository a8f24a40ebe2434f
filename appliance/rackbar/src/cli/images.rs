//! `rackbar os ...`

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use futures_util::stream::unfold;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rackbar_control::client::Client;
use rackbar_control::operations::{Body, CatalogueEntry, ImagePin, ImageStanding, ImageStandingDone, RetiredImage};
use rackbar_model::{Digest, ImageEntry};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt as _;

use super::{answers, output, refresh, segment};

/// Bytes read and sent at once.
const PIECE: usize = 256 << 10;

/// What to do with operating systems.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the operating systems that can be installed
    List,
    /// Put a disk image or an installer into the catalogue
    #[command(
        after_help = "Examples:\n  rackbar os add debian-12.raw.zst --name debian-12 --user debian\n  \
        rackbar os add noble-server.img --name ubuntu-24.04 --source cloud-images.ubuntu.com\n\n\
        Raw, qcow2, or raw in zstd, xz or gzip; told from the content. Debian's installer: its netboot.tar.gz, unpacked \
        with gunzip.\n\
        rackbar os add netboot.tar --name debian-12-installer\n\
        The Red Hat family's installers and Ubuntu Server's: the vendor's ISO, a DVD with its packages or one that only \
        boots.\n\
        rackbar os add Rocky-9.4-x86_64-dvd.iso --name rocky-9\n\n\
        The file's SHA-256 is taken before it is sent \
        and compared there; a file that came wrong is refused."
    )]
    Add {
        /// The file
        file: PathBuf,
        /// Name in the catalogue
        #[arg(long)]
        name: String,
        /// Account that logs in over SSH
        #[arg(long)]
        user: Option<String>,
        /// Architecture as `uname -m` says it; x86_64 when left out
        #[arg(long)]
        arch: Option<String>,
        /// Where it came from, for people
        #[arg(long)]
        source: Option<String>,
        /// Licence note
        #[arg(long)]
        licence: Option<String>,
        /// File that says where newer ones are had from and who signs them; see `rackbar os refresh --help`
        #[arg(long, value_name = "FILE.toml")]
        upstream: Option<PathBuf>,
    },
    /// Look for a newer one where it is had from, and put it in its place when its publisher signed it
    #[command(
        after_help = "Examples:\n  rackbar os refresh ubuntu-24.04 --upstream ubuntu.toml\n  rackbar os refresh ubuntu-24.04\n\n\
        ubuntu.toml:\n  kind = \"sums\"\n  sums = \"https://cloud-images.example/noble/current/SHA256SUMS\"\n  \
        signature = \"https://cloud-images.example/noble/current/SHA256SUMS.gpg\"\n  \
        file = \"noble-server-cloudimg-amd64.img\"\n  keys = '''\n  -----BEGIN PGP PUBLIC KEY BLOCK-----\n  ...\n  '''\n\n\
        Without `signature` the list must be signed in the clear. `kind = \"debian-installer\"` has `archive` and `suite` in \
        place of `sums`, `signature` and `file`.\n\
        Nothing changes unless all is proven; runs that have begun end with the old one."
    )]
    Refresh {
        /// Its name
        name: String,
        /// File that says where it is had from, from now on
        #[arg(long, value_name = "FILE.toml")]
        upstream: Option<PathBuf>,
    },
    /// Keep one as it is, whatever its publisher offers
    #[command(after_help = "Examples:\n  rackbar os pin debian-12\n  rackbar os pin debian-12 --undo")]
    Pin {
        /// Its name
        name: String,
        /// Let it be refreshed again
        #[arg(long)]
        undo: bool,
    },
    /// Let no new plan take one; runs that have begun go on, and machines that have it keep it
    #[command(
        after_help = "Examples:\n  rackbar os retire debian-11 --instead debian-12\n  rackbar os retire debian-11 --undo\n\n\
        A plan that would install it is refused, with the role that asks for it and what to take instead."
    )]
    Retire {
        /// Its name
        name: String,
        /// The one that takes its place
        #[arg(long, value_name = "NAME", conflicts_with = "undo")]
        instead: Option<String>,
        /// Let new plans take it again
        #[arg(long)]
        undo: bool,
    },
    /// Render what the installer of a system needs to install a machine by its role, for a boot server or medium of your own
    Answers(Box<answers::Options>),
    /// Take one out of the catalogue
    Remove {
        /// Its name
        name: String,
    },
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    match command {
        Command::List => list(client, as_json).await,
        Command::Answers(options) => answers::run(client, options, as_json).await,
        Command::Remove { name } => {
            client.delete(&format!("/api/v1/images/{}", segment(name))).await?;
            eprintln!("{name} is out of the catalogue");
            Ok(())
        }
        Command::Retire { name, instead, undo } => {
            let standing = ImageStanding {
                retired: !undo,
                instead: instead.clone(),
            };
            change(client, name, "standing", &standing, as_json).await
        }
        Command::Pin { name, undo } => change(client, name, "pin", &ImagePin { pinned: !undo }, as_json).await,
        Command::Refresh { name, upstream } => refresh::run(client, name, upstream.as_deref(), as_json).await,
        Command::Add {
            file,
            name,
            user,
            arch,
            source,
            licence,
            upstream,
        } => {
            // Read first: a mistake in it is told before gigabytes are sent.
            let upstream = upstream.as_deref().map(refresh::read).transpose()?;
            let facts = [("user", user), ("arch", arch), ("source", source), ("licence", licence)];
            let query: Vec<String> = facts
                .iter()
                .filter_map(|(key, value)| Some(format!("{key}={}", segment(value.as_ref()?))))
                .collect();
            let path = format!("/api/v1/images/{}?{}", segment(name), query.join("&"));
            let entry: ImageEntry = send(client, file, &path).await?;
            if let Some(upstream) = &upstream {
                refresh::set(client, name, upstream).await?;
            }
            if as_json {
                return output::json(&entry);
            }
            eprintln!("{} is in the catalogue, SHA-256 {}", entry.name, entry.sha256);
            Ok(())
        }
    }
}

/// Puts a word about an image, and says what was done.
async fn change(client: &Client, name: &str, what: &str, word: &impl Serialize, as_json: bool) -> Result<()> {
    let path = format!("/api/v1/images/{}/{what}", segment(name));
    let answer = client.put(&path, word).await?;
    let answer: ImageStandingDone = serde_json::from_slice(&answer).context("the appliance's answer")?;
    if as_json {
        return output::json(&answer);
    }
    eprintln!("{}", answer.done);
    Ok(())
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let images: Vec<CatalogueEntry> = client.list("/api/v1/images").await?;
    if as_json {
        return output::json(&images);
    }
    let mut table = output::table(&[
        "NAME", "FORMAT", "MB", "ARCH", "USER", "SOURCE", "LICENCE", "ADDED", "PACK", "RETIRED", "PINNED", "OFFLINE",
        "SHA-256",
    ]);
    for CatalogueEntry {
        image,
        pack,
        retired,
        pinned,
        offline,
        ..
    } in &images
    {
        table.add_row(vec![
            image.name.clone(),
            match &image.installer {
                Some(installer) => format!("installer ({})", installer.release),
                None => format!("{:?}", image.format).to_lowercase(),
            },
            (image.bytes / 1_000_000).to_string(),
            output::plain(&image.arch),
            output::plain(&image.user),
            output::plain(&image.source),
            output::plain(&image.licence),
            image.added.to_string(),
            output::plain(pack.as_deref().unwrap_or_default()),
            match retired {
                None => String::new(),
                Some(RetiredImage { instead: None, .. }) => "yes".to_owned(),
                Some(RetiredImage {
                    instead: Some(instead), ..
                }) => format!("take {}", output::plain(instead)),
            },
            pinned.map_or_else(String::new, |_| "yes".to_owned()),
            offline.to_string(),
            image.sha256.to_string().chars().take(16).collect(),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// A bar on standard error when that is a terminal.
pub(super) fn bar(bytes: u64, what: &'static str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(bytes), target)
        .with_style(style)
        .with_message(what)
}

/// Sends a file to `path` with its SHA-256, and reads the answer.
pub(super) async fn send<T: DeserializeOwned>(client: &Client, file: &Path, path: &str) -> Result<T> {
    let shown = file.display().to_string();
    let reading = |error| anyhow::Error::new(error).context(format!("reading {shown}"));
    let bytes = std::fs::metadata(file).map_err(reading)?.len();
    let owned = file.to_owned();
    let sha256 = tokio::task::spawn_blocking(move || digest(&owned, bytes))
        .await?
        .map_err(reading)?;
    let opened = tokio::fs::File::open(file).await.map_err(reading)?;
    let sending = bar(bytes, "sending");
    let end = sending.clone();
    let body = read_on(opened, sending);
    let answer = client.put_stream(path, body, bytes, sha256).await?;
    end.finish_and_clear();
    serde_json::from_slice(&answer).context("the appliance's answer")
}

/// A file from where it stands, read while it is sent.
pub(super) fn read_on(file: tokio::fs::File, sending: ProgressBar) -> Body {
    Box::pin(unfold((file, sending), |(mut file, sending)| async {
        let mut piece = vec![0; PIECE];
        match file.read(&mut piece).await {
            Ok(0) => None,
            Ok(length) => {
                piece.truncate(length);
                sending.inc(length as u64);
                Some((Ok(piece.into()), (file, sending)))
            }
            Err(error) => Some((Err(error), (file, sending))),
        }
    }))
}

/// The file's SHA-256, read piece by piece.
fn digest(file: &Path, bytes: u64) -> std::io::Result<Digest> {
    let mut file = std::fs::File::open(file)?;
    let reading = bar(bytes, "reading");
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut piece = vec![0; PIECE];
    loop {
        let length = file.read(&mut piece)?;
        let Some(read) = piece.get(..length).filter(|read| !read.is_empty()) else {
            break;
        };
        hash.update(read);
        reading.inc(length as u64);
    }
    reading.finish_and_clear();
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    Ok(Digest(out))
}
