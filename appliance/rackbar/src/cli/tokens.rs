//! `rackbar token ...` and `rackbar audit`

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use rackbar_control::client::Client;
use rackbar_control::{Role, TokenEntry};
use rackbar_model::{Severity, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{output, segment};

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token; its text is printed once and kept nowhere
    #[command(after_help = "Example:\n  rackbar token create anna --role operator > anna.token")]
    Create {
        /// Who will hold it; stands in the audit trail
        name: String,
        /// What its holder may do
        #[arg(long)]
        role: RoleName,
    },
    /// List the tokens, without their text
    List,
    /// Take a token away; page sessions made with it end
    Revoke {
        /// Whose
        name: String,
    },
}

/// What a token's holder may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleName {
    /// Look at everything, change nothing
    Viewer,
    /// Change the rack
    Operator,
    /// Manage tokens, export and import besides
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Viewer => Self::Viewer,
            RoleName::Operator => Self::Operator,
            RoleName::Admin => Self::Admin,
        }
    }
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    match command {
        Command::Create { name, role } => {
            #[derive(Deserialize)]
            struct New {
                token: String,
            }
            let body = json!({ "name": name, "role": Role::from(*role) });
            let answer = client.post("/api/v1/tokens", &body).await?;
            if as_json {
                return output::json(&serde_json::from_slice::<serde_json::Value>(&answer)?);
            }
            println!("{}", serde_json::from_slice::<New>(&answer)?.token);
            eprintln!("this is the only time it is shown");
            Ok(())
        }
        Command::List => {
            let tokens: Vec<TokenEntry> = client.list("/api/v1/tokens").await?;
            if as_json {
                return output::json(&tokens);
            }
            let mut table = output::table(&["NAME", "ROLE", "MADE", "BY"]);
            for token in &tokens {
                let made = token.made.map(|at| at.to_string()).unwrap_or_default();
                table.add_row([token.name.clone(), token.role.to_string(), made, token.by.clone()]);
            }
            println!("{table}");
            Ok(())
        }
        Command::Revoke { name } => {
            client.delete(&format!("/api/v1/tokens/{}", segment(name))).await?;
            eprintln!("the token {name} is revoked");
            Ok(())
        }
    }
}

/// Which changes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rackbar audit\n  rackbar audit --by anna --limit 1000 --json")]
pub struct Audit {
    /// Only those of this token's holder
    #[arg(long)]
    by: Option<String>,
    /// Only those before this event number
    #[arg(long, value_name = "NUMBER")]
    before: Option<u64>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

#[derive(Serialize, Deserialize)]
struct Change {
    seq: u64,
    at: Timestamp,
    by: String,
    what: String,
    outcome: String,
    ok: bool,
}

/// `rackbar audit`: newest first.
pub async fn audit(client: &Client, options: &Audit, as_json: bool) -> Result<()> {
    #[derive(Deserialize)]
    struct Items {
        items: Vec<Change>,
    }
    let by = options
        .by
        .as_ref()
        .map(|by| format!("&by={}", segment(by)))
        .unwrap_or_default();
    let before = options
        .before
        .map(|number| format!("&before={number}"))
        .unwrap_or_default();
    let changes: Items = client
        .get(&format!("/api/v1/audit?limit={}{by}{before}", options.limit))
        .await?;
    if as_json {
        return output::json(&changes.items);
    }
    let mut table = output::table(&["NUMBER", "WHEN", "WHO", "WHAT", "OUTCOME"]);
    for change in &changes.items {
        let severity = if change.ok { Severity::Info } else { Severity::Warning };
        table.add_row(vec![
            change.seq.to_string().into(),
            change.at.to_string().into(),
            output::plain(&change.by).into(),
            output::plain(&change.what).into(),
            output::severity(output::plain(&change.outcome), severity),
        ]);
    }
    println!("{table}");
    Ok(())
}
