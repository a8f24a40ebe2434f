//! `rackbar site ...` and `rackbar rule test`

use std::fs;
use std::io::Read as _;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use rackbar_control::client::Client;
use rackbar_control::operations::{RuleMatch, SiteMistake};
use rackbar_model::Severity;
use serde::Deserialize;
use serde_json::json;

use super::{Failed, output};

/// What to do with the site file.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a site file; says line and field of every mistake
    #[command(after_help = "Example:\n  rackbar site check site.toml\n\nExit code 1 when there are mistakes.")]
    Check {
        /// The file; `-` reads standard input
        file: String,
    },
    /// Put a site file in force; nothing happens to any machine before a plan is committed
    #[command(after_help = "Example:\n  rackbar site set site.toml && rackbar plan")]
    Set {
        /// The file; `-` reads standard input
        file: String,
    },
    /// Print the site file in force
    #[command(after_help = "Example:\n  rackbar site show > site.toml")]
    Show,
    /// Say what differs between two site files
    #[command(after_help = "Examples:\n  rackbar site diff hall-3.toml hall-4.toml\n  \
        rackbar site diff site.toml      # the one in force and this one")]
    Diff {
        /// The older file; with one file alone, the one in force is the older
        before: String,
        /// The newer file
        after: Option<String>,
    },
    /// Print the JSON Schema of the site file
    #[command(after_help = "Example:\n  rackbar site schema > site.schema.json")]
    Schema,
}

/// What to do with rules.
#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// Say which rule fits which machine, and why
    #[command(after_help = "Examples:\n  rackbar rule test\n  rackbar rule test --site new.toml --why")]
    Test {
        /// Rules of this file instead of those in force
        #[arg(long, value_name = "FILE")]
        site: Option<String>,
        /// Show every rule that was tried
        #[arg(long)]
        why: bool,
    },
}

#[derive(Deserialize)]
struct Items<T> {
    items: Vec<T>,
}

fn read(file: &str) -> Result<String> {
    if file != "-" {
        return fs::read_to_string(file).with_context(|| format!("reading {file}"));
    }
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .read_to_string(&mut text)
        .context("reading standard input")?;
    Ok(text)
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    match command {
        Command::Check { file } => check(client, file, as_json).await,
        Command::Set { file } => {
            client.put_text("/api/v1/site", "application/toml", read(file)?).await?;
            eprintln!("{file} is in force; `rackbar plan` shows what it would change");
            Ok(())
        }
        Command::Show => {
            print!("{}", client.get_text("/api/v1/site").await?);
            Ok(())
        }
        Command::Diff { before, after } => {
            let (before, after) = match after {
                Some(after) => (Some(read(before)?), read(after)?),
                None => (None, read(before)?),
            };
            let answer = client
                .post("/api/v1/site/diff", &json!({ "before": before, "after": after }))
                .await?;
            let lines: Items<String> = serde_json::from_slice(&answer)?;
            if as_json {
                return output::json(&lines.items);
            }
            if lines.items.is_empty() {
                eprintln!("they mean the same");
            }
            lines.items.iter().for_each(|line| println!("{}", output::plain(line)));
            Ok(())
        }
        Command::Schema => {
            let schema: serde_json::Value = client.get("/api/v1/site/schema").await?;
            output::json(&schema)
        }
    }
}

async fn check(client: &Client, file: &str, as_json: bool) -> Result<()> {
    #[derive(Deserialize)]
    struct Checked {
        mistakes: Vec<SiteMistake>,
    }
    let answer = client
        .post_text("/api/v1/site/check", "application/toml", read(file)?)
        .await?;
    let checked: Checked = serde_json::from_slice(&answer)?;
    if as_json {
        output::json(&checked.mistakes)?;
    }
    if checked.mistakes.is_empty() {
        eprintln!("{file}: no mistakes");
        return Ok(());
    }
    if !as_json {
        checked
            .mistakes
            .iter()
            .for_each(|mistake| println!("{}", mistake_line(file, mistake)));
    }
    Err(Failed(format!("{file} has {} mistakes", checked.mistakes.len())).into())
}

/// As compilers print, so that editors jump to the place.
pub fn mistake_line(file: &str, mistake: &SiteMistake) -> String {
    let field = if mistake.field.is_empty() {
        String::new()
    } else {
        format!("{}: ", mistake.field)
    };
    let hint = mistake
        .suggestion
        .as_ref()
        .map(|s| format!(" ({s})"))
        .unwrap_or_default();
    output::plain(&format!(
        "{file}:{}:{}: {field}{}{hint}",
        mistake.line, mistake.column, mistake.message
    ))
}

/// Runs `rackbar rule ...`.
pub async fn rules(client: &Client, command: &RuleCommand, as_json: bool) -> Result<()> {
    let RuleCommand::Test { site, why } = command;
    let text = site.as_deref().map(read).transpose()?.unwrap_or_default();
    let answer = client
        .post_text("/api/v1/site/rules/test", "application/toml", text)
        .await?;
    let matches: Items<RuleMatch> = serde_json::from_slice(&answer)?;
    if as_json {
        return output::json(&matches.items);
    }
    let mut table = output::table(&["NODE", "RULE", "ROLE", "NAME", "WHY"]);
    for one in &matches.items {
        let severity = if one.rule.is_some() {
            Severity::Info
        } else {
            Severity::Warning
        };
        let rule = one.rule.clone().unwrap_or_else(|| "none fits".into());
        let reason = one.tried.iter().rfind(|tried| tried.fits || one.rule.is_none());
        table.add_row(vec![
            output::plain(&one.node).into(),
            output::severity(output::plain(&rule), severity),
            output::plain(one.role.as_deref().unwrap_or_default()).into(),
            output::plain(one.name.as_deref().unwrap_or_default()).into(),
            output::plain(reason.map(|tried| tried.why.as_str()).unwrap_or_default()).into(),
        ]);
    }
    println!("{table}");
    if *why {
        for one in &matches.items {
            println!("\n{}", output::plain(&one.node));
            for tried in &one.tried {
                let word = if tried.fits { "fits" } else { "does not fit" };
                println!("  {} {word}: {}", output::plain(&tried.rule), output::plain(&tried.why));
            }
        }
    }
    Ok(())
}
