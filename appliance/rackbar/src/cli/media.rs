//! `rackbar media ...`: what was downloaded, before it is written to a stick.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use rackbar_artifacts::release;
use rackbar_upstream::MinisignKey;
use serde_json::json;

use super::{Failed, output};

/// What to do with downloaded media.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check downloaded media offline: that their maker signed them, and that nothing of them is changed or missing
    Check(Check),
}

/// What to check, and by whose key.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rackbar media check . --key RWQ...\n  rackbar media check rackbar.iso --key release.pub\n\n\
    Asks no appliance. SHA256SUMS and SHA256SUMS.minisig must lie beside the media. Take the key from elsewhere than the \
    media: the rackbar-release.pub beside them is as good as they are. The same without this program: \
    minisign -Vm SHA256SUMS -P KEY && sha256sum -c SHA256SUMS. Exit code 1 when anything is not as it was signed."
)]
pub struct Check {
    /// The folder with all of a release, or one file of it
    path: PathBuf,
    /// Its maker's public key, as the line of letters or as a file
    #[arg(long, value_name = "KEY|FILE")]
    key: String,
}

/// Runs one of them; none needs an appliance.
pub fn run(command: &Command, as_json: bool) -> Result<()> {
    let Command::Check(options) = command;
    let checked = release::check(&options.path, &key(&options.key)?)?;
    let differences: Vec<_> = checked.differences.iter().map(ToString::to_string).collect();
    if as_json {
        output::json(&json!({ "signed_as": checked.said, "good": checked.good, "differences": differences }))?;
    } else {
        for name in &checked.good {
            println!("{}: ok", output::plain(name));
        }
        for difference in &differences {
            println!("{}", output::plain(difference));
        }
    }
    if !differences.is_empty() {
        bail!(Failed(format!(
            "the list is genuine ({}), and {} of what is here is not as it says; get that anew, and write none of it to a stick",
            output::plain(&checked.said),
            differences.len()
        )));
    }
    eprintln!(
        "signed with the trusted key, and unchanged: {}",
        output::plain(&checked.said)
    );
    Ok(())
}

/// The key itself, or the file that has it.
fn key(text: &str) -> Result<MinisignKey> {
    let file = Path::new(text);
    if file.is_file() {
        let content = std::fs::read_to_string(file).with_context(|| format!("reading the key in {text}"))?;
        return content.parse().with_context(|| format!("the key in {text}"));
    }
    text.parse()
        .with_context(|| format!("key {text:?}, which is no file here either"))
}
