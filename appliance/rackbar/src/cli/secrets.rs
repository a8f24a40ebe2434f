//! `rackbar secrets ...` and `rackbar unlock`

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use rackbar_control::client::Client;
use rackbar_control::operations::SecretsLock;
use serde_json::json;

use super::{output, state};

/// What to do with the stored passwords and keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show how they are locked
    Show,
    /// Put them behind a passphrase, or behind another one
    #[command(after_help = "Example:\n  rackbar secrets passphrase --passphrase-file pass.txt\n\n\
        From then on the appliance waits after every start, and serves no machine, until somebody types the passphrase on \
        its console or gives it with `rackbar unlock`. There is no way back into the secrets without it: make an export.")]
    Passphrase {
        /// File that holds the passphrase, at least twelve characters; `-` reads it from standard input
        #[arg(long, value_name = "FILE")]
        passphrase_file: PathBuf,
    },
    /// Take the passphrase away: the key lies in a file on the appliance's disk again
    KeyFile,
    /// Save every BMC account as one sealed file, for the day the appliance is lost
    #[command(
        after_help = "Example:\n  rackbar secrets break-glass bmc.sealed --passphrase-file pass.txt\n\n\
        `rackbar secrets read` opens it without any appliance. Save it again after passwords were changed."
    )]
    BreakGlass {
        /// The file; must not exist
        file: PathBuf,
        /// File that holds the passphrase, at least twelve characters; `-` reads it from standard input
        #[arg(long, value_name = "FILE")]
        passphrase_file: PathBuf,
    },
    /// Open a file of BMC accounts and print it; asks no appliance
    Read(Read),
}

/// Which file of BMC accounts.
#[derive(Debug, Args)]
pub struct Read {
    /// The file
    file: PathBuf,
    /// File that holds the passphrase; `-` reads it from standard input
    #[arg(long, value_name = "FILE")]
    passphrase_file: PathBuf,
}

/// Where the daemon waits, and with what.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rackbar unlock --passphrase-file -\n\n\
    Only on the appliance itself: while it is locked, its own TLS key is too. Its console screen asks by itself.")]
pub struct Unlock {
    /// File that holds the passphrase; `-` reads it from standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    passphrase_file: PathBuf,
    /// The daemon's run folder
    #[arg(long, value_name = "FOLDER", default_value = "/run/rackbar")]
    run: PathBuf,
}

/// `rackbar unlock`
pub async fn unlock(options: &Unlock) -> Result<()> {
    let passphrase = state::passphrase(&options.passphrase_file)?;
    crate::daemon::unlock(&options.run.join(crate::daemon::UNLOCK), &passphrase).await?;
    eprintln!("the secrets are open; the appliance starts");
    Ok(())
}

/// `rackbar secrets read`
pub fn read(options: &Read, as_json: bool) -> Result<()> {
    let passphrase = state::passphrase(&options.passphrase_file)?;
    let place = options.file.display();
    let file = fs::read(&options.file).with_context(|| format!("reading {place}"))?;
    let logins = rackbar_store::read_bmc_logins(&file, &passphrase).with_context(|| place.to_string())?;
    if as_json {
        let all: Vec<_> = logins
            .iter()
            .map(|(node, login)| {
                let passwords: Vec<_> = login.candidates().map(|password| &password.0).collect();
                json!({ "node": node, "user": login.user, "passwords": passwords })
            })
            .collect();
        return output::json(&all);
    }
    let mut table = output::table(&["NODE", "USER", "PASSWORD", "OR, WHEN A CHANGE BROKE OFF"]);
    for (node, login) in &logins {
        let mut passwords = login.candidates().map(|password| password.0.as_str());
        let first = passwords.next().unwrap_or_default();
        table.add_row([node, &*login.user, first, passwords.next().unwrap_or_default()]);
    }
    println!("{table}");
    Ok(())
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    let answer = match command {
        Command::Show => client.get("/api/v1/secrets").await?,
        Command::Passphrase { passphrase_file } => {
            let body = json!({ "passphrase": state::passphrase(passphrase_file)? });
            let answer = client.put("/api/v1/secrets/passphrase", &body).await?;
            serde_json::from_slice(&answer)?
        }
        Command::KeyFile => {
            client.delete("/api/v1/secrets/passphrase").await?;
            client.get("/api/v1/secrets").await?
        }
        Command::BreakGlass { file, passphrase_file } => {
            let body = json!({ "passphrase": state::passphrase(passphrase_file)? });
            let sealed = client.post("/api/v1/secrets/bmc-logins", &body).await?;
            return state::save(file, &sealed, "sealed");
        }
        Command::Read(options) => return read(options, as_json),
    };
    let lock: SecretsLock = answer;
    if as_json {
        return output::json(&lock);
    }
    println!("{}: {}", lock.lock.replace('_', " "), output::plain(&lock.words));
    Ok(())
}
