//! `rackbar webhook ...`

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use rackbar_control::client::Client;
use rackbar_control::operations::{WebhookEntry, WebhookSecret};
use rackbar_model::Severity;

use super::{output, segment, state};

/// What to do with webhooks.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the webhooks of rackbar.toml, and how far each receiver was told
    List,
    /// Give a webhook the secret that its messages are signed with
    #[command(after_help = "Examples:\n  rackbar webhook secret chat > chat.secret\n      \
        makes a random one and prints it, once\n  \
        rackbar webhook secret chat --secret-file chat.secret\n      takes the receiver's\n\n\
        Needs the role admin. The receiver checks the header webhook-signature as the Standard Webhooks specification says.")]
    Secret {
        /// The webhook's name
        name: String,
        /// File that holds the secret, at least 16 bytes of text, or `whsec_` and base64; `-` reads it from standard input
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    match command {
        Command::List => list(client, as_json).await,
        Command::Secret { name, secret_file } => {
            let secret = secret_file.as_ref().map(|file| state::passphrase(file)).transpose()?;
            let made = secret.is_none();
            let path = format!("/api/v1/webhooks/{}/secret", segment(name));
            let answer = client.put(&path, &WebhookSecret { secret }).await?;
            let answer: WebhookSecret = serde_json::from_slice(&answer)?;
            if as_json {
                return output::json(&answer);
            }
            if made {
                println!("{}", answer.secret.unwrap_or_default());
                eprintln!("this is the only time it is shown");
            } else {
                eprintln!("messages to {name} are signed with it from now on");
            }
            Ok(())
        }
    }
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let hooks: Vec<WebhookEntry> = client.list("/api/v1/webhooks").await?;
    if as_json {
        return output::json(&hooks);
    }
    let mut table = output::table(&[
        "NAME",
        "TO",
        "EVENTS",
        "FROM",
        "SIGNED",
        "BEHIND",
        "PASSED OVER",
        "STATE",
    ]);
    for hook in &hooks {
        let events = match hook.events.as_slice() {
            [] => "all".to_owned(),
            some => some.join(", "),
        };
        let (state, severity) = match (&hook.trouble, hook.heard) {
            (Some(trouble), _) => (output::plain(trouble), Severity::Warning),
            (None, Some(at)) => (format!("heard {at}"), Severity::Info),
            (None, None) => ("nothing told yet".to_owned(), Severity::Info),
        };
        table.add_row(vec![
            hook.name.clone().into(),
            output::plain(&hook.to).into(),
            output::plain(&events).into(),
            format!("{:?}", hook.severity).to_lowercase().into(),
            if hook.signed { "yes" } else { "no" }.into(),
            hook.behind.to_string().into(),
            hook.passed_over.to_string().into(),
            output::severity(state, severity),
        ]);
    }
    println!("{table}");
    Ok(())
}
