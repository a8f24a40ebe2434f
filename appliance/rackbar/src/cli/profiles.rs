//! `rackbar profile ...`

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use rackbar_control::client::Client;
use rackbar_control::operations::{HardwareProfile, ProfileSignature, ProfileToSign};

use super::output;

/// What to do with hardware profiles.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the hardware profiles, who signed them, and why one is not in force
    List,
    /// Sign a hardware profile with the appliance's key
    #[command(after_help = "Example:\n  rackbar profile sign hw-profiles/ours.toml\n\n\
        The signature goes into a file beside it, ours.toml.sig; both belong into a folder hw-profiles. Another appliance \
        takes the profile when its rackbar.toml has the key under trust in the section [packs]. After a change the profile \
        is not in force until it is signed again, or its signature is removed.")]
    Sign {
        /// The profile
        file: PathBuf,
    },
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    match command {
        Command::List => list(client, as_json).await,
        Command::Sign { file } => sign(client, file, as_json).await,
    }
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let profiles: Vec<HardwareProfile> = client.list("/api/v1/hardware-profiles").await?;
    if as_json {
        return output::json(&profiles);
    }
    let mut table = output::table(&["NAME", "WHERE", "SIGNED BY", "STATE", "FOUND AT"]);
    for profile in &profiles {
        table.add_row(vec![
            output::plain(&profile.name),
            output::plain(&profile.place),
            signer(profile),
            profile
                .why_not
                .as_ref()
                .map_or_else(|| "in force".to_owned(), |why| output::plain(why)),
            output::plain(&profile.source),
        ]);
    }
    println!("{table}");
    Ok(())
}

fn signer(profile: &HardwareProfile) -> String {
    match (&profile.key, &profile.signer) {
        (Some(key), Some(why)) => format!("{} ({})", key.get(..16).unwrap_or(key), output::plain(why)),
        _ if profile.place == "shipped" => "Rackbar".into(),
        _ => "nobody".into(),
    }
}

async fn sign(client: &Client, file: &Path, as_json: bool) -> Result<()> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {shown}"))?;
    let answer = client
        .post("/api/v1/hardware-profiles/sign", &ProfileToSign { text })
        .await?;
    let signed: ProfileSignature = serde_json::from_slice(&answer).context("the appliance's answer")?;
    let mut beside = file.as_os_str().to_owned();
    beside.push(".sig");
    let beside = PathBuf::from(beside);
    std::fs::write(&beside, &signed.signature).with_context(|| format!("writing {}", beside.display()))?;
    if as_json {
        return output::json(&signed);
    }
    eprintln!(
        "{}: hardware profile {} is signed by {}",
        beside.display(),
        output::plain(&signed.name),
        signed.key
    );
    Ok(())
}
