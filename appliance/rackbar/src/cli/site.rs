//! `rackbar site ...` and `rackbar rule test`

use std::fs;
use std::io::Read as _;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use rackbar_control::client::Client;
use rackbar_control::operations::{ExpectedMachine, RuleMatch, SiteMistake, count};
use rackbar_model::Severity;
use rackbar_plan::Site;
use serde::Deserialize;
use serde_json::json;

use super::{Failed, output};
use crate::mistakes::mistakes;

/// What to do with the site file.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a site file; says line and field of every mistake, and asks no appliance
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
    /// List the machines that the site file expects: who they are, and what they lack
    #[command(
        after_help = "Examples:\n  rackbar site machines\n  rackbar site machines --json\n\n\
        Exit code 1 when one was never seen, or has less than is expected."
    )]
    Machines,
    /// Say what differs between two site files; asks the appliance only for the one in force
    #[command(after_help = "Examples:\n  rackbar site diff hall-3.toml hall-4.toml\n  \
        rackbar site diff site.toml      # the one in force and this one")]
    Diff {
        /// The older file; with one file alone, the one in force is the older
        before: String,
        /// The newer file
        after: Option<String>,
    },
    /// Print the JSON Schema of the site file; asks no appliance
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

/// Runs those that ask no appliance: a site file is checked where it is written, before there is a rack. `None` for the
/// others.
pub fn alone(command: &Command, as_json: bool) -> Option<Result<()>> {
    match command {
        Command::Check { file } => Some(check(file, as_json)),
        Command::Schema => Some(output::json(&Site::schema())),
        Command::Diff {
            before,
            after: Some(after),
        } => Some(differences(before, after, as_json)),
        Command::Set { .. } | Command::Show | Command::Machines | Command::Diff { after: None, .. } => None,
    }
}

/// Reads a site file of which nothing may be wrong.
fn site(file: &str) -> Result<Site> {
    let problems = match Site::parse(&read(file)?) {
        Ok(site) => return Ok(site),
        Err(problems) => mistakes(problems),
    };
    problems
        .iter()
        .for_each(|mistake| eprintln!("{}", mistake_line(file, mistake)));
    Err(failed(file, problems.len()))
}

fn failed(file: &str, mistakes: usize) -> anyhow::Error {
    Failed(format!("{file} has {}", count(mistakes, "mistake", "mistakes"))).into()
}

fn differences(before: &str, after: &str, as_json: bool) -> Result<()> {
    let differences = rackbar_plan::site::diff(&site(before)?, &site(after)?);
    show_differences(differences.iter().map(ToString::to_string).collect(), as_json)
}

fn show_differences(lines: Vec<String>, as_json: bool) -> Result<()> {
    if as_json {
        return output::json(&lines);
    }
    if lines.is_empty() {
        eprintln!("they mean the same");
    }
    lines.iter().for_each(|line| println!("{}", output::plain(line)));
    Ok(())
}

fn check(file: &str, as_json: bool) -> Result<()> {
    let found = Site::parse(&read(file)?).err().map(mistakes).unwrap_or_default();
    if as_json {
        output::json(&found)?;
    }
    if found.is_empty() {
        eprintln!("{file}: no mistakes");
        return Ok(());
    }
    if !as_json {
        found
            .iter()
            .for_each(|mistake| println!("{}", mistake_line(file, mistake)));
    }
    Err(failed(file, found.len()))
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    match command {
        Command::Set { file } => {
            client.put_text("/api/v1/site", "application/toml", read(file)?).await?;
            eprintln!("{file} is in force; `rackbar plan` shows what it would change");
            Ok(())
        }
        Command::Show => {
            print!("{}", client.get_text("/api/v1/site").await?);
            Ok(())
        }
        Command::Machines => machines(client, as_json).await,
        Command::Diff {
            before: file,
            after: None,
        } => {
            let texts = json!({ "before": null, "after": read(file)? });
            let answer = client.post("/api/v1/site/diff", &texts).await?;
            let lines: Items<String> = serde_json::from_slice(&answer)?;
            show_differences(lines.items, as_json)
        }
        Command::Check { .. } | Command::Schema | Command::Diff { .. } => alone(command, as_json).unwrap_or(Ok(())),
    }
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

/// The machines that the site expects.
pub async fn expected(client: &Client) -> Result<Vec<ExpectedMachine>> {
    client.list("/api/v1/site/machines").await.map_err(Into::into)
}

/// `rackbar site machines`
async fn machines(client: &Client, as_json: bool) -> Result<()> {
    let machines = expected(client).await?;
    let wrong = machines.iter().any(|one| one.node.is_none() || !one.missing.is_empty());
    if as_json {
        output::json(&machines)?;
    } else {
        let mut table = output::table(&["MACHINE", "KNOWN BY", "ROLE", "NODE", "LACKS"]);
        for one in &machines {
            let node = match &one.node {
                Some(node) => output::plain(node).into(),
                None => output::severity("never seen".to_owned(), Severity::Error),
            };
            table.add_row(vec![
                output::plain(&one.name).into(),
                output::plain(&one.known_by).into(),
                output::plain(one.role.as_deref().unwrap_or_default()).into(),
                node,
                output::severity(output::plain(&one.missing.join("; ")), Severity::Error),
            ]);
        }
        println!("{table}");
    }
    if wrong {
        return Err(Failed("the rack is not what the site file expects".into()).into());
    }
    Ok(())
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
