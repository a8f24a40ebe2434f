//! Appliances that were booted once and saved, to be continued by every story that does not tell of the appliance's boot.
//!
//! What is saved is an appliance alone in its rack: no machine and no BMC was ever seen, so a story begins as after a
//! real boot. The folder's name holds the digest of the medium and of the configuration, so a change of either is booted
//! anew. What differs from a boot: the appliance's clock goes on from the moment it was saved, as after a virtual
//! machine's pause.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rackbar_vrack::machine::Snapshot;
use rackbar_vrack::rack::{Medium, Rack, RackFile, RackOptions};
use ring::digest::{Context as Digest, SHA256};

use crate::{SERVING, Stage, eventually, media, site};

/// Older ones are made anew: the appliance's clock would be too far behind for certificates made today.
const OLDEST: Duration = Duration::from_secs(6 * 3600);
/// How many are kept: a saved appliance takes some hundred MiB.
const KEPT: usize = 6;

/// A saved appliance.
pub(crate) struct Saved {
    /// Its state.
    pub(crate) snapshot: Snapshot,
    /// The API token its configuration holds the digest of.
    pub(crate) token: String,
}

/// The saved appliance of a rack with this configuration; boots and saves one when there is none. `None` when its
/// devices cannot be saved, so that it must be booted.
pub(crate) async fn saved(file: &RackFile, change: &impl Fn(String) -> String) -> Result<Option<Saved>> {
    // QEMU has no way to save a USB stick's or a CD's medium being changed; only disks are worth it.
    if file.appliance.medium != Medium::Disk {
        return Ok(None);
    }
    let media = media()?;
    let all = media.join("snapshots");
    fs::create_dir_all(&all).with_context(|| format!("creating {}", all.display()))?;
    let folder = all.join(key(&media, file, change).await?);
    // Two test programs at a time would save over each other.
    let lock = File::create(folder.with_extension("lock")).context("creating the lock of a snapshot")?;
    lock.lock()
        .context("waiting for another run that saves this appliance")?;
    let token_file = folder.join("token");
    if !is_fresh(&token_file) {
        let _ = fs::remove_dir_all(&folder);
        let stage = Stage::set_with(alone(file), change).await?;
        stage.start_appliance().await?;
        let ready = || async {
            match stage.api.ready().await {
                Ok(words) if words.starts_with("ready") => Ok(()),
                other => Err(other),
            }
        };
        eventually("all services are well", SERVING, ready).await?;
        let saved = stage.appliance.machine.save(&folder).await;
        saved.context("saving the appliance")?;
        let token = stage.api.token().to_owned();
        stage.end().await;
        // Last: without it the folder counts as unfinished.
        fs::write(&token_file, token).context("writing the snapshot's token")?;
        forget_old(&all);
    }
    let token = fs::read_to_string(&token_file).context("reading the snapshot's token")?;
    Ok(Some(Saved {
        snapshot: Snapshot::at(folder),
        token,
    }))
}

/// What the saved state depends on.
async fn key(media: &Path, file: &RackFile, change: impl Fn(String) -> String) -> Result<String> {
    let rack = Rack::build(alone(file), RackOptions::default()).await?;
    let configuration = change(site::configuration(&rack, "the token is another each time"));
    let program = media.join("rackbar.efi");
    let mut digest = Digest::new(&SHA256);
    digest.update(&fs::read(&program).with_context(|| format!("reading {}", program.display()))?);
    digest.update(configuration.as_bytes());
    digest.update(format!("{:?} {:?}", file.appliance, file.foreign_dhcp).as_bytes());
    let mut name = site::hex(digest.finish().as_ref());
    name.truncate(32);
    Ok(name)
}

/// The rack without its machines.
fn alone(file: &RackFile) -> RackFile {
    RackFile {
        nodes: Vec::new(),
        ..file.clone()
    }
}

fn age(path: &Path) -> Option<Duration> {
    let written = fs::metadata(path).ok()?.modified().ok()?;
    SystemTime::now().duration_since(written).ok()
}

fn is_fresh(token: &Path) -> bool {
    age(token).is_some_and(|age| age < OLDEST)
}

/// Removes all but the newest.
fn forget_old(all: &Path) {
    let Ok(entries) = fs::read_dir(all) else { return };
    let mut folders: Vec<(Duration, PathBuf)> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter_map(|path| Some((age(&path.join("token"))?, path)))
        .collect();
    folders.sort();
    for (_, folder) in folders.into_iter().skip(KEPT) {
        // It is only a copy: what cannot be removed now is removed by the next run.
        let _ = fs::remove_dir_all(folder);
    }
}
