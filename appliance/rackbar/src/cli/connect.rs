//! Which appliance, and how to prove oneself to it: options, then environment, then the remembered login, then the
//! socket file when this is the appliance itself.

use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rackbar_control::client::{Client, Endpoint};
use rackbar_model::Digest;
use serde::{Deserialize, Serialize};

use super::Global;

/// The daemon's socket file in the running image.
pub const SOCKET: &str = "/run/rackbar/api.sock";

/// Remember an appliance.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rackbar login --endpoint 10.10.0.1 --fingerprint 3f1c... --token-file -\n\n\
    The fingerprint and, once, the admin token are on the appliance's console. The token is read from the file or \
    from standard input, never from an argument, and kept in a file only you can read."
)]
pub struct Login {}

/// What `login` remembers.
#[derive(Serialize, Deserialize)]
struct Remembered {
    endpoint: String,
    fingerprint: String,
    token: String,
}

fn remembered_path() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(base.join("rackbar/login.toml"))
}

fn remembered() -> Result<Option<Remembered>> {
    let Some(path) = remembered_path() else { return Ok(None) };
    match fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text)
            .map(Some)
            .with_context(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Where the options and everything else lead.
pub fn endpoint(global: &Global) -> Result<Endpoint> {
    if global.endpoint.is_none() && Path::new(SOCKET).exists() {
        return Ok(Endpoint::Socket(SOCKET.into()));
    }
    let remembered = remembered()?;
    let part = |option: &Option<String>, kept: fn(&Remembered) -> &String| {
        option.clone().or_else(|| remembered.as_ref().map(kept).cloned())
    };
    let (Some(authority), Some(fingerprint)) = (
        part(&global.endpoint, |r| &r.endpoint),
        part(&global.fingerprint, |r| &r.fingerprint),
    ) else {
        bail!(
            "which appliance? Give --endpoint and --fingerprint (both are on its console), or run `rackbar login` once"
        );
    };
    let pin: Digest = fingerprint
        .trim()
        .parse()
        .with_context(|| format!("fingerprint `{fingerprint}`"))?;
    let token = match &global.token_file {
        Some(file) => read_token(file)?,
        None => match remembered {
            Some(kept) if kept.endpoint == authority => kept.token,
            _ => bail!("no token for {authority}: give --token-file, or run `rackbar login` once"),
        },
    };
    Ok(Endpoint::Https { authority, pin, token })
}

fn read_token(file: &str) -> Result<String> {
    let mut text = String::new();
    if file == "-" {
        if std::io::stdin().is_terminal() {
            eprint!("Token: ");
        }
        std::io::stdin()
            .lock()
            .take(4096)
            .read_to_string(&mut text)
            .context("reading the token")?;
        text.truncate(text.find('\n').unwrap_or(text.len()));
    } else {
        text = fs::read_to_string(file).with_context(|| format!("reading the token from {file}"))?;
    }
    let token = text.trim();
    ensure!(!token.is_empty(), "the token is empty");
    Ok(token.to_owned())
}

/// Checks that the appliance answers to the token, then remembers both.
pub async fn log_in(global: &Global, _login: &Login) -> Result<()> {
    #[derive(Deserialize)]
    struct Appliance {
        site: String,
        version: String,
    }
    ensure!(
        global.endpoint.is_some() && global.fingerprint.is_some(),
        "login needs --endpoint and --fingerprint"
    );
    let file = global.token_file.clone().unwrap_or_else(|| "-".to_owned());
    let (authority, fingerprint) = (
        global.endpoint.clone().unwrap_or_default(),
        global.fingerprint.clone().unwrap_or_default(),
    );
    let pin: Digest = fingerprint
        .trim()
        .parse()
        .with_context(|| format!("fingerprint `{fingerprint}`"))?;
    let token = read_token(&file)?;
    let client = Client::new(Endpoint::Https {
        authority: authority.clone(),
        pin,
        token: token.clone(),
    })?;
    let appliance: Appliance = client.get("/api/v1").await?;
    let path = remembered_path().context("neither XDG_CONFIG_HOME nor HOME is set, so there is nowhere to remember")?;
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let text = toml::to_string(&Remembered {
        endpoint: authority,
        fingerprint,
        token,
    })?;
    // Removed first, so that the mode below counts even when an older file was readable by others.
    let _ = fs::remove_file(&path);
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    out.write_all(text.as_bytes())?;
    eprintln!(
        "{}, Rackbar {}: remembered in {}",
        appliance.site,
        appliance.version,
        path.display()
    );
    Ok(())
}
