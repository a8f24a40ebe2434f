//! `rackbar registration ...`

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use rackbar_control::client::Client;
use rackbar_control::operations::{RegistrationState, RegistrationToken};
use rackbar_model::Severity;

use super::{output, state};

/// What to do with registrations.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the machines whose services are registered, and what stands in the way of the rest
    List,
    /// Give the token that the registry wants
    #[command(after_help = "Examples:\n  rackbar registration token --file consul.token\n  \
        vault read -field=token consul/creds/rackbar | rackbar registration token --file -\n  \
        rackbar registration token --forget\n\n\
        Needs the role admin. The token is sealed in the appliance's store and sent to the URL of [handoff.consul] only.")]
    Token {
        /// File that holds the token; `-` reads it from standard input
        #[arg(long, value_name = "FILE", required_unless_present = "forget")]
        file: Option<PathBuf>,
        /// Forget the token
        #[arg(long, conflicts_with = "file")]
        forget: bool,
    },
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    match command {
        Command::List => list(client, as_json).await,
        Command::Token { file, .. } => {
            let token = file.as_ref().map(|file| state::secret(file, "token")).transpose()?;
            client
                .put("/api/v1/registrations/token", &RegistrationToken { token })
                .await?;
            Ok(())
        }
    }
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let state: RegistrationState = client.get("/api/v1/registrations").await?;
    if as_json {
        return output::json(&state);
    }
    let mut table = output::table(&["NODE", "SERVICES", "REGISTRY", "STATE"]);
    for entry in &state.items {
        let (words, severity) = match (&entry.trouble, entry.wanted) {
            (Some(trouble), true) => (output::plain(trouble), Severity::Warning),
            (Some(trouble), false) => (format!("not taken out: {}", output::plain(trouble)), Severity::Warning),
            (None, true) => ("registered".to_owned(), Severity::Info),
            (None, false) => ("being taken out".to_owned(), Severity::Info),
        };
        table.add_row(vec![
            output::plain(&entry.node).into(),
            output::plain(&entry.services.join(", ")).into(),
            output::plain(&entry.url).into(),
            output::severity(words, severity),
        ]);
    }
    println!("{table}");
    match (&state.url, &state.trouble) {
        (None, _) => eprintln!("the site has no [handoff.consul]: nothing is registered"),
        (Some(url), Some(trouble)) => eprintln!("{}: {}", output::plain(url), output::plain(trouble)),
        (Some(_), None) => {}
    }
    Ok(())
}
