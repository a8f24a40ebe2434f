//! `rackbar repository ...`

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use rackbar_control::client::Client;
use rackbar_control::operations::{RepositoryCheck, RepositoryDone, RepositoryEntry};
use rackbar_model::{RepositoryKind, Severity, Timestamp};

use super::{output, segment};

/// How often it is asked how far a fetch is.
const LOOK: Duration = Duration::from_millis(300);

/// What to do with repositories.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the repositories of the site file, and what each is locked to
    List,
    /// Show one with its lock
    Show {
        /// Its name in the site file
        name: String,
    },
    /// Lock a repository to the state that its origin has now
    #[command(
        after_help = "Examples:\n  rackbar repository lock ours\n  rackbar repository lock ours --fetch\n\n\
        Its InRelease, or the repomd.xml of RPM packages, must be signed by a certificate that the site file names; of a Git repository the \
        commit is fetched with its history, and every object of it verified. Machines whose role names the repository get \
        this state from the appliance until it is locked again, whatever its origin has; plans that were made before are stale.\n\n\
        With --fetch it is refused when the cache has no room for all packages. The command follows until all are kept, and the \
        appliance goes on when it is interrupted; doing it again goes on where it ended. With --json every state is a line."
    )]
    Lock {
        /// Its name in the site file
        name: String,
        /// Fetch all of its packages too and keep them, so that what the origin deletes later is still to be had
        #[arg(long)]
        fetch: bool,
    },
    /// Take a lock back: machines can get nothing from the repository until it is locked again
    Unlock {
        /// Its name
        name: String,
    },
    /// Say whether the origin has another state by now, and what a new lock would bring; changes nothing
    Check {
        /// Its name in the site file
        name: String,
    },
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    let at = |name: &str, what: &str| format!("/api/v1/repositories/{}{what}", segment(name));
    match command {
        Command::List => list(client, as_json).await,
        Command::Show { name } => {
            let entry: RepositoryEntry = client.get(&at(name, "")).await?;
            if as_json {
                return output::json(&entry);
            }
            show(&entry);
            Ok(())
        }
        Command::Lock { name, fetch: false } => {
            done(&client.put(&at(name, "/lock"), &serde_json::json!({})).await?, as_json)
        }
        Command::Lock { name, fetch: true } => {
            let answer = client
                .put(&at(name, "/lock?fetch=true"), &serde_json::json!({}))
                .await?;
            if !as_json {
                done(&answer, as_json)?;
            }
            follow(client, &at(name, ""), as_json).await
        }
        Command::Unlock { name } => {
            client.delete(&at(name, "/lock")).await?;
            eprintln!("repository {name} is not locked any more");
            Ok(())
        }
        Command::Check { name } => {
            let check: RepositoryCheck = client.get(&at(name, "/check")).await?;
            if as_json {
                return output::json(&check);
            }
            println!("{}", output::plain(&check.words));
            Ok(())
        }
    }
}

/// Follows the fetch of all packages to its end.
async fn follow(client: &Client, at: &str, as_json: bool) -> Result<()> {
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "{wide_bar} {bytes} of {total_bytes}, {msg}",
    )?);
    let mut last = None;
    loop {
        let entry: RepositoryEntry = client.get(at).await?;
        let fetch = entry
            .fetch
            .context("the appliance was started anew or the lock taken back; do it again")?;
        if as_json && last.as_ref() != Some(&fetch) {
            println!("{}", serde_json::to_string(&fetch)?);
        }
        bar.set_length(fetch.bytes);
        bar.set_position(fetch.kept_bytes);
        bar.set_message(format!("{} of {} files", fetch.kept, fetch.files));
        if !fetch.running {
            bar.finish_and_clear();
            if let Some(trouble) = &fetch.trouble {
                bail!(
                    "{} of {} files are kept, and fetching the others ended: {}; do it again to go on",
                    fetch.kept,
                    fetch.files,
                    output::plain(trouble)
                );
            }
            eprintln!("all {} files are kept, whatever becomes of its origin", fetch.files);
            return Ok(());
        }
        last = Some(fetch);
        tokio::time::sleep(LOOK).await;
    }
}

fn done(answer: &[u8], as_json: bool) -> Result<()> {
    let answer: RepositoryDone = serde_json::from_slice(answer).context("the appliance's answer")?;
    if as_json {
        return output::json(&answer);
    }
    eprintln!("{}", output::plain(&answer.done));
    Ok(())
}

/// As the site file has it.
fn kind(kind: RepositoryKind) -> &'static str {
    match kind {
        RepositoryKind::Deb => "deb",
        RepositoryKind::Rpm => "rpm",
        RepositoryKind::Git => "git",
    }
}

fn date(seconds: u64) -> String {
    Timestamp(seconds.saturating_mul(1000)).to_string()
}

/// How it stands, and how bad that is.
fn state(entry: &RepositoryEntry) -> (String, Severity) {
    match (&entry.lock, &entry.differs, entry.in_site) {
        (None, ..) => ("not locked".to_owned(), Severity::Warning),
        (Some(_), Some(what), _) => (format!("lock it again: its {what} changed"), Severity::Warning),
        (Some(_), None, false) => ("locked, not in the site file".to_owned(), Severity::Warning),
        (Some(lock), None, true) if lock.kind == RepositoryKind::Git => {
            let commit = lock
                .revision
                .as_deref()
                .and_then(|commit| commit.get(..12))
                .unwrap_or_default();
            (format!("locked to {commit} of {}", date(lock.date)), Severity::Info)
        }
        (Some(lock), None, true) => (format!("locked to {}", date(lock.date)), Severity::Info),
    }
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let all: Vec<RepositoryEntry> = client.list("/api/v1/repositories").await?;
    if as_json {
        return output::json(&all);
    }
    let mut table = output::table(&["NAME", "KIND", "URL", "SUITE/REF", "ROLES", "PACKAGES", "STATE"]);
    for entry in &all {
        let (words, severity) = state(entry);
        let packages = entry.lock.as_ref().map(|lock| lock.packages.to_string());
        table.add_row(vec![
            entry.name.clone().into(),
            kind(entry.kind).into(),
            output::plain(&entry.url).into(),
            entry.reference.as_ref().unwrap_or(&entry.suite).clone().into(),
            entry.roles.join(", ").into(),
            packages.unwrap_or_default().into(),
            output::severity(output::plain(&words), severity),
        ]);
    }
    println!("{table}");
    Ok(())
}

fn show(entry: &RepositoryEntry) {
    let line = |what: &str, text: &str| println!("{what:<14}{}", output::plain(text));
    line("name", &entry.name);
    line("url", &entry.url);
    line("kind", kind(entry.kind));
    if entry.kind == RepositoryKind::Deb {
        line("suite", &entry.suite);
    }
    entry.reference.iter().for_each(|reference| line("ref", reference));
    entry.keys.iter().for_each(|key| line("may sign", key));
    line("roles", &entry.roles.join(", "));
    line("state", &state(entry).0);
    let Some(lock) = &entry.lock else { return };
    let signed = match lock.kind {
        RepositoryKind::Deb => {
            line("components", &lock.components.join(", "));
            line("architectures", &lock.architectures.join(", "));
            "InRelease"
        }
        RepositoryKind::Rpm => {
            line("revision", lock.revision.as_deref().unwrap_or("none"));
            "repomd.xml"
        }
        RepositoryKind::Git => {
            line("commit", lock.revision.as_deref().unwrap_or("none"));
            line("made", &date(lock.date));
            "names"
        }
    };
    let counted = if lock.kind == RepositoryKind::Git {
        "commits"
    } else {
        "packages"
    };
    line(counted, &lock.packages.to_string());
    line(signed, &lock.release.to_string());
    if !lock.signer.is_empty() {
        line("signed by", &lock.signer);
    }
    line("locked", &format!("{} by {}", lock.locked, lock.by));
    if let Some(fetch) = &entry.fetch {
        let state = if fetch.running { ", being fetched" } else { "" };
        line("kept", &format!("{} of {} files{state}", fetch.kept, fetch.files));
        fetch.trouble.iter().for_each(|trouble| line("trouble", trouble));
    }
    for index in &lock.indexes {
        line(
            if lock.kind == RepositoryKind::Git {
                "file"
            } else {
                "list"
            },
            &format!("{} {} ({} bytes)", index.sha256, index.path, index.bytes),
        );
    }
}
