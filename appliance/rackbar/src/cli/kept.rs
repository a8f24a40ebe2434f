//! What an appliance said the last time, for tools that go on when it cannot be asked: after the rack is brought up it may be
//! carried away.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use clap::Args;
use rackbar_control::client::{Client, ClientError};
use rackbar_model::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

/// Whether an answer is kept and used again.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Kept {
    /// Keep the answer in a file only you can read, and print it again when the appliance cannot be reached
    #[arg(long)]
    kept: bool,
}

/// An answer as it is kept.
#[derive(Serialize, Deserialize)]
struct Answer {
    at: Timestamp,
    from: String,
    path: String,
    text: String,
}

impl Kept {
    /// What the appliance says at `path`; when it cannot be reached, and keeping is wanted, what it said the last time, which
    /// standard error then tells. An appliance that refuses is heard.
    pub(super) async fn get(self, client: &Client, path: &str) -> Result<String> {
        let said = client.get_text(path).await;
        if !self.kept {
            return Ok(said?);
        }
        let from = client.place();
        match said {
            Ok(text) => {
                let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let at = Timestamp(u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
                let (path, text) = (path.to_owned(), text);
                let answer = Answer { at, from, path, text };
                // The answer is there: that it could not be kept must not take it away.
                if let Err(error) = keep(&answer) {
                    eprintln!("rackbar: the answer is not kept: {error:#}");
                }
                Ok(answer.text)
            }
            Err(error @ ClientError::Unreachable { .. }) => {
                let Some(answer) = read(&from, path).context("reading what it said before")? else {
                    return Err(error).context("nothing that it said before is kept here");
                };
                eprintln!("rackbar: {error}; this is what it said at {}", answer.at);
                Ok(answer.text)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Where an answer of an appliance lies: by a digest, since neither its name nor the path need be names of files.
fn place(from: &str, path: &str) -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let base = base.context("neither XDG_CACHE_HOME nor HOME is set, so there is nowhere to keep it")?;
    let name = Digest(rackbar_trust::sha256(format!("{from}\n{path}").as_bytes()));
    Ok(base.join("rackbar/kept").join(format!("{name}.json")))
}

/// Keeps an answer. Two that keep at the same time leave one of the two whole.
fn keep(answer: &Answer) -> Result<()> {
    let path = place(&answer.from, &answer.path)?;
    let folder = path.parent().context("it has no folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&new);
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&new);
    let mut file = file.with_context(|| new.display().to_string())?;
    file.write_all(&serde_json::to_vec(answer)?)?;
    file.sync_all()?;
    fs::rename(&new, &path).with_context(|| path.display().to_string())
}

fn read(from: &str, path: &str) -> Result<Option<Answer>> {
    let file = place(from, path)?;
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    };
    let answer: Answer = serde_json::from_slice(&text).with_context(|| file.display().to_string())?;
    Ok(Some(answer).filter(|answer| answer.from == from && answer.path == path))
}
