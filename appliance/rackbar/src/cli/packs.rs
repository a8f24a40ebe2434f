//! `rackbar pack ...`

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use rackbar_control::client::Client;
use rackbar_control::operations::{PackDone, PackEntry, PackOrder, PackPick, PackState};
use rackbar_model::Timestamp;
use rackbar_packs::Pack;
use tokio::io::AsyncWriteExt as _;

use super::{Failed, images, output, segment};

/// What to do with data packs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the data packs, and the keys whose packs are taken
    List,
    /// Make a pack of images and of what the caching proxy has stored
    Create(Create),
    /// Put a pack into an appliance
    #[command(after_help = "Examples:\n  rackbar pack import debian-12.pack\n\n\
        The pack is checked while it comes: one that is cut off, changed, or signed by somebody who is not trusted is \
        refused, and nothing of it is kept. A pack on a second stick needs no import: `dd` it there and plug it in.")]
    Import {
        /// The file
        file: PathBuf,
    },
    /// Save a pack as a file
    Export {
        /// Its name
        name: String,
        /// The file; NAME.pack when left out
        file: Option<PathBuf>,
    },
    /// Read a pack through and compare every content with its digest
    #[command(
        after_help = "Examples:\n  rackbar pack verify debian-12\n  rackbar pack verify ./debian-12.pack\n\n\
        With a path (one with a / in it, or that ends in .pack) the file is read here, and no appliance is asked."
    )]
    Verify {
        /// The name of a pack of the appliance, or the path of a file
        name: String,
    },
    /// Remove a pack that was put in or made on the appliance
    Remove {
        /// Its name
        name: String,
    },
}

/// What goes into a new pack.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rackbar pack create debian-12 --image debian-12 --from-cache\n  \
    rackbar cache mode recording; ...; rackbar pack create tools --from-cache --pinned --to tools.pack\n  \
    rackbar pack create updates --from-cache --only mirror:debian/ --used-within 2h\n\n\
    The appliance signs it. Another appliance takes it when its rackbar.toml has the key that `rackbar pack list` shows \
    here under trust in the section [packs]."
)]
pub struct Create {
    /// Its name: lower-case letters, digits, `.`, `_` and `-`
    name: String,
    /// What it is for
    #[arg(long, default_value = "")]
    note: String,
    /// An image of the catalogue; may be given more than once
    #[arg(long, value_name = "NAME")]
    image: Vec<String>,
    /// What the caching proxy has stored
    #[arg(long)]
    from_cache: bool,
    /// Of that, only keys that begin so; may be given more than once
    #[arg(long, value_name = "START", requires = "from_cache")]
    only: Vec<String>,
    /// Of that, only what is pinned, as everything is that was served in the recording mode
    #[arg(long, requires = "from_cache")]
    pinned: bool,
    /// Of that, only what was used within so long, such as 90m or 2h
    #[arg(long, value_name = "TIME", requires = "from_cache", value_parser = duration)]
    used_within: Option<Duration>,
    /// Also save it as this file
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// `30s`, `90m`, `2h`, `1d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write 30s, 90m, 2h or 1d");
    let at = text
        .len()
        .checked_sub(1)
        .filter(|at| text.is_char_boundary(*at))
        .ok_or_else(wrong)?;
    let (number, unit) = text.split_at(at);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).map(Duration::from_secs).ok_or_else(wrong)
}

/// A file, by the way it is written; `None` for the name of a pack.
pub fn file_named(name: &str) -> Option<&Path> {
    (name.contains('/') || Path::new(name).extension().is_some_and(|end| end == "pack")).then(|| Path::new(name))
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    match command {
        Command::List => list(client, as_json).await,
        Command::Create(options) => create(client, options, as_json).await,
        Command::Import { file } => import(client, file, as_json).await,
        Command::Export { name, file } => {
            let usual = PathBuf::from(format!("{name}.pack"));
            export(client, name, file.as_ref().unwrap_or(&usual)).await
        }
        Command::Verify { name } => order(client, &PackOrder::Verify { name: name.clone() }, as_json).await,
        Command::Remove { name } => {
            client.delete(&format!("/api/v1/packs/{}", segment(name))).await?;
            eprintln!("data pack {name} is removed");
            Ok(())
        }
    }
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let state: PackState = client.get("/api/v1/packs").await?;
    if as_json {
        return output::json(&state);
    }
    let mut table = output::table(&["NAME", "MB", "IMAGES", "ANSWERS", "MADE", "BY", "FOR", "WHERE", "STATE"]);
    for pack in &state.packs {
        table.add_row(vec![
            output::plain(&pack.name),
            pack.bytes.div_ceil(1_000_000).to_string(),
            output::plain(&pack.images.join(", ")),
            pack.answers.to_string(),
            if pack.bytes > 0 {
                pack.made.to_string()
            } else {
                String::new()
            },
            output::plain(&pack.by),
            output::plain(&pack.note),
            output::plain(&pack.place),
            pack.why_not
                .as_ref()
                .map_or_else(|| "in use".to_owned(), |why| output::plain(why)),
        ]);
    }
    println!("{table}");
    println!("packs signed by these keys are taken:");
    for one in &state.trusted {
        println!("  {}  {}", one.key, output::plain(&one.why));
    }
    Ok(())
}

async fn order(client: &Client, order: &PackOrder, as_json: bool) -> Result<()> {
    let waiting = ProgressBar::new_spinner().with_message("the appliance reads and writes");
    waiting.enable_steady_tick(Duration::from_millis(200));
    let answer = client.post("/api/v1/packs", order).await;
    waiting.finish_and_clear();
    let done: PackDone = serde_json::from_slice(&answer?)?;
    if as_json {
        return output::json(&done);
    }
    eprintln!("{}", output::plain(&done.done));
    Ok(())
}

async fn create(client: &Client, options: &Create, as_json: bool) -> Result<()> {
    if options.image.is_empty() && !options.from_cache {
        bail!(
            "nothing would be in it: name an image with --image, or take what the proxy has stored with --from-cache"
        );
    }
    let ago = |within: Duration| {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(u64::try_from(now.saturating_sub(within).as_millis()).unwrap_or(0))
    };
    let cached = options.from_cache.then(|| PackPick {
        only: options.only.clone(),
        pinned: options.pinned,
        used_since: options.used_within.map(ago),
    });
    let wanted = PackOrder::Create {
        name: options.name.clone(),
        note: options.note.clone(),
        images: options.image.clone(),
        cached,
    };
    order(client, &wanted, as_json).await?;
    match &options.to {
        Some(file) => export(client, &options.name, file).await,
        None => Ok(()),
    }
}

/// Saves what the proxy has stored as a pack in a file, and keeps none on the appliance.
///
/// # Errors
/// When the file's name is none of a pack, or exists as one on the appliance, and what making and saving one may fail at.
pub async fn export_cache(client: &Client, file: &Path, pinned: bool, only: Vec<String>, as_json: bool) -> Result<()> {
    let name = file
        .file_stem()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
        .to_owned();
    let state: PackState = client.get("/api/v1/packs").await?;
    if state.packs.iter().any(|pack| pack.name == name) {
        bail!(
            "the appliance has a data pack {name:?} already: name the file otherwise, or save that one with `rackbar pack export`"
        );
    }
    let options = Create {
        name: name.clone(),
        note: "what the caching proxy had stored".into(),
        image: Vec::new(),
        from_cache: true,
        only,
        pinned,
        used_within: None,
        to: Some(file.to_owned()),
    };
    let made = create(client, &options, as_json).await;
    // Whether it could be saved or not: nobody asked for one on the appliance.
    let removed = client.delete(&format!("/api/v1/packs/{}", segment(&name))).await;
    made?;
    removed.map(drop).map_err(Into::into)
}

/// Puts the pack in a file into the appliance.
///
/// # Errors
/// When the file is no whole pack, or the appliance does not take it.
pub async fn import(client: &Client, file: &Path, as_json: bool) -> Result<()> {
    let shown = file.display().to_string();
    // What is no pack, or cut off, is said before anything is sent.
    let pack = Pack::look(file).with_context(|| shown.clone())?;
    let opened = tokio::fs::File::open(file).await.with_context(|| shown.clone())?;
    let sending = images::bar(pack.total, "sending");
    let end = sending.clone();
    let body = images::read_on(opened, sending);
    let path = format!("/api/v1/packs/{}", segment(&pack.index.name));
    let answer = client.put_pieces(&path, body, pack.total).await;
    end.finish_and_clear();
    let entry: PackEntry = serde_json::from_slice(&answer?).context("the appliance's answer")?;
    if as_json {
        return output::json(&entry);
    }
    let state = entry
        .why_not
        .as_ref()
        .map_or("in use".into(), |why| format!("not in use: {}", output::plain(why)));
    eprintln!("data pack {} is put in, {state}", entry.name);
    Ok(())
}

async fn export(client: &Client, name: &str, file: &Path) -> Result<()> {
    let shown = file.display().to_string();
    let part = file.with_extension("part");
    let mut pieces = client.pieces(&format!("/api/v1/packs/{}", segment(name))).await?;
    let mut out = tokio::fs::File::create(&part)
        .await
        .with_context(|| part.display().to_string())?;
    let saving = ProgressBar::new_spinner().with_message("saving");
    while let Some(piece) = pieces.next().await {
        out.write_all(&piece).await.with_context(|| shown.clone())?;
        saving.inc(piece.len() as u64);
    }
    out.sync_all().await.with_context(|| shown.clone())?;
    saving.finish_and_clear();
    let checking = part.clone();
    // A connection that broke off leaves less than the head announces.
    let checked = tokio::task::spawn_blocking(move || Pack::look(&checking)).await?;
    if let Err(error) = checked {
        let _ = std::fs::remove_file(&part);
        return Err(anyhow::Error::new(error).context("what came is not the whole pack; try again"));
    }
    std::fs::rename(&part, file).with_context(|| shown.clone())?;
    eprintln!("{shown} is data pack {name}");
    Ok(())
}

/// Reads the pack in a file through, here.
///
/// # Errors
/// When it cannot be read, or is not as it should be.
pub fn verify_file(file: &Path, as_json: bool) -> Result<()> {
    let shown = file.display().to_string();
    let total = Pack::look(file)
        .map_err(|error| Failed(format!("{shown}: {error}")))
        .map_err(anyhow::Error::new)?
        .total;
    let reading = images::bar(total, "reading");
    let checked = Pack::verify_any(file, |seen| reading.set_position(seen));
    reading.finish_and_clear();
    let checked = checked.map_err(|error| anyhow::Error::new(Failed(format!("{shown}: {error}"))))?;
    let index = &checked.index;
    if as_json {
        return output::json(&serde_json::json!({
            "name": index.name, "bytes": checked.total, "key": checked.key.to_string(), "by": index.by,
            "made": index.made, "note": index.note, "answers": index.answers.len(),
            "images": index.images.iter().map(|image| &image.name).collect::<Vec<_>>(),
        }));
    }
    let images: Vec<_> = index.images.iter().map(|image| image.name.as_str()).collect();
    println!("{shown} is data pack {}, whole, {} bytes", index.name, checked.total);
    println!(
        "made {} by {}, signed by {}",
        index.made,
        output::plain(&index.by),
        checked.key
    );
    println!("images: {}; stored answers: {}", images.join(", "), index.answers.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit_and_nothing_else() {
        assert_eq!(duration("90m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
        for wrong in [
            "",
            "h",
            "2",
            "2x",
            "-1h",
            "2µ",
            "99999999999999999999d",
            "999999999999999999d",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
