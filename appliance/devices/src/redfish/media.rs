//! Virtual media: a CD whose image the BMC fetches from a URL.

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Redfish, view};
use crate::MediaDrive;
use crate::error::{Cause, Error};

/// Virtual drives looked at: newer firmware has one per slot.
const DRIVES: usize = 16;

impl Redfish {
    /// The virtual drives. Newer firmware has them at the system, older at the manager; some have both, and the
    /// manager's are then the deprecated ones.
    async fn drives(&mut self) -> Result<Vec<(String, Value)>, Error> {
        let path = self.system_path().await?;
        let system = self.get(&path).await?;
        let mut owners = vec![system.clone()];
        if let Some(manager) = self.manager_path(&system).await? {
            owners.extend(self.get_if_there(&manager).await?);
        }
        for owner in &owners {
            let drives = self.collection_of(owner, "/VirtualMedia", DRIVES).await?;
            let found: Vec<_> = drives
                .into_iter()
                .filter_map(|drive| Some((view::link(&drive, "")?, drive)))
                .collect();
            if found.iter().any(|(_, drive)| is_cd(drive)) {
                return Ok(found);
            }
        }
        let words = "this BMC has no virtual CD drive, or its licence does not show it".to_owned();
        Err(self.error(format!("GET {path}"), Cause::Unsupported(words)))
    }

    /// The virtual CD drive.
    async fn drive(&mut self) -> Result<(String, Value), Error> {
        let mut drives = self.drives().await?.into_iter();
        let missing = || Cause::Unsupported("this BMC has no virtual CD drive".to_owned());
        drives
            .find(|(_, drive)| is_cd(drive))
            .ok_or_else(|| self.error("virtual media", missing()))
    }

    /// All virtual drives, and which of them is ours.
    pub(crate) async fn media(&mut self) -> Result<Vec<MediaDrive>, Error> {
        let drives = self.drives().await?;
        let ours = drives.iter().position(|(_, drive)| is_cd(drive));
        let told = drives.iter().enumerate().map(|(at, (path, drive))| MediaDrive {
            id: view::text(drive, "/Id").unwrap_or_else(|| path.clone()),
            kinds: view::strings(drive, "/MediaTypes").unwrap_or_default(),
            inserted: drive.get("Inserted").and_then(Value::as_bool),
            image: view::text(drive, "/Image"),
            ours: Some(at) == ours,
        });
        Ok(told.collect())
    }

    /// Puts the image at a URL into the virtual CD drive; one that is there already is taken out first.
    pub(crate) async fn insert_media(&mut self, url: &str) -> Result<(), Error> {
        let (path, drive) = self.drive().await?;
        if drive.get("Inserted").and_then(Value::as_bool) == Some(true) {
            if view::text(&drive, "/Image").as_deref() == Some(url) {
                return Ok(());
            }
            self.eject(&path, &drive).await?;
        }
        match action(&drive, "/Actions/#VirtualMedia.InsertMedia/target") {
            // Only what is needed: firmware refuses properties it does not know, and the defaults of DSP2046 are right.
            Some(target) => self.post(&target, &json!({"Image": url})).await?,
            None => self.patch(&path, &json!({"Image": url, "Inserted": true})).await?,
        }
        self.shows_media(&path, true).await
    }

    /// Takes the image out.
    pub(crate) async fn eject_media(&mut self) -> Result<(), Error> {
        let (path, drive) = self.drive().await?;
        if drive.get("Inserted").and_then(Value::as_bool) == Some(false) {
            return Ok(());
        }
        self.eject(&path, &drive).await
    }

    async fn eject(&mut self, path: &str, drive: &Value) -> Result<(), Error> {
        match action(drive, "/Actions/#VirtualMedia.EjectMedia/target") {
            Some(target) => self.post(&target, &json!({})).await?,
            None => self.patch(path, &json!({"Image": null, "Inserted": false})).await?,
        }
        self.shows_media(path, false).await
    }

    /// Waits until the drive shows it: some fetch a first piece of the image before they say that it is in.
    async fn shows_media(&mut self, path: &str, wanted: bool) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            let drive = self.get(path).await?;
            // Some never tell.
            let inserted = drive.get("Inserted").and_then(Value::as_bool);
            if inserted.is_none_or(|inserted| inserted == wanted) {
                return Ok(());
            }
            if start.elapsed() >= self.timing.settle {
                break;
            }
            sleep(self.timing.look).await;
        }
        let what = if wanted {
            "the image in the virtual drive (can the BMC reach its URL?)"
        } else {
            "an empty virtual drive"
        };
        let cause = Cause::NotSeen {
            what: what.to_owned(),
            after: self.timing.settle,
        };
        Err(self.error(format!("GET {path}"), cause))
    }
}

fn is_cd(drive: &Value) -> bool {
    let kinds = view::strings(drive, "/MediaTypes").unwrap_or_default();
    kinds.iter().any(|kind| matches!(kind.as_str(), "CD" | "DVD"))
}

fn action(drive: &Value, pointer: &str) -> Option<String> {
    view::own_path(drive.pointer(pointer)?.as_str()?)
}
