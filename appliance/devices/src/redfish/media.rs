//! Virtual media: a CD whose image the BMC fetches from a URL.

use serde_json::{Value, json};

use super::{Redfish, view};
use crate::error::{Cause, Error};

impl Redfish {
    /// The virtual CD drive. Newer firmware has it at the system, older at the manager; some have both, and the
    /// manager's is then the deprecated one.
    async fn drive(&mut self) -> Result<(String, Value), Error> {
        let path = self.system_path().await?;
        let system = self.get(&path).await?;
        let mut owners = vec![system.clone()];
        if let Some(manager) = self.manager_path(&system).await? {
            owners.extend(self.get_if_there(&manager).await?);
        }
        for owner in &owners {
            for drive in self.collection(owner, "/VirtualMedia").await? {
                let kinds = view::strings(&drive, "/MediaTypes").unwrap_or_default();
                if kinds.iter().any(|kind| matches!(kind.as_str(), "CD" | "DVD"))
                    && let Some(path) = view::link(&drive, "")
                {
                    return Ok((path, drive));
                }
            }
        }
        let words = "this BMC has no virtual CD drive, or its licence does not show it".to_owned();
        Err(self.error(format!("GET {path}"), Cause::Unsupported(words)))
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

    async fn shows_media(&mut self, path: &str, wanted: bool) -> Result<(), Error> {
        let drive = self.get(path).await?;
        // Some never tell.
        if drive
            .get("Inserted")
            .and_then(Value::as_bool)
            .is_none_or(|inserted| inserted == wanted)
        {
            return Ok(());
        }
        let what = if wanted {
            "the image in the virtual drive"
        } else {
            "an empty virtual drive"
        }
        .to_owned();
        Err(self.error(
            format!("GET {path}"),
            Cause::NotSeen {
                what,
                after: self.timing.answer,
            },
        ))
    }
}

fn action(drive: &Value, pointer: &str) -> Option<String> {
    view::own_path(drive.pointer(pointer)?.as_str()?)
}
