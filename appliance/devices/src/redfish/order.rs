//! The lasting boot order: `BootOrder` with its boot options, a lasting override where there is none; HTTP boot.

use rackbar_model::FirmwareMode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::http::Reply;
use super::{Redfish, view};
use crate::error::{Cause, Error};
use crate::{BootOption, BootTarget};

impl Redfish {
    pub(crate) async fn boot_order(&mut self) -> Result<Vec<BootOption>, Error> {
        let path = self.system_path().await?;
        let system = self.get(&path).await?;
        self.options(&path, &system).await
    }

    /// The boot options in the order the firmware tries them.
    async fn options(&mut self, path: &str, system: &Value) -> Result<Vec<BootOption>, Error> {
        let Some(order) = view::strings(system, "/Boot/BootOrder") else {
            let words = "this BMC shows no boot order".to_owned();
            return Err(self.error(format!("GET {path}"), Cause::Unsupported(words)));
        };
        let known = self.collection(system, "/Boot/BootOptions").await?;
        let by_id = |id: &String| {
            let option = known.iter().find(|option| {
                let named = |key| view::text(option, key).is_some_and(|name| name == *id);
                named("/BootOptionReference") || named("/Id")
            });
            view::boot_option(id, option.unwrap_or(&Value::Null))
        };
        Ok(order.iter().map(by_id).collect())
    }

    /// Puts what boots from `target` first for good, and reads it back.
    pub(crate) async fn set_boot_first(
        &mut self,
        target: &BootTarget,
        mode: Option<FirmwareMode>,
    ) -> Result<(), Error> {
        let path = self.system_path().await?;
        let system = self.get(&path).await?;
        let options = match self.options(&path, &system).await {
            Ok(options) => options,
            Err(Error {
                cause: Cause::Unsupported(_),
                ..
            }) => Vec::new(),
            Err(error) => return Err(error),
        };
        let (first, rest): (Vec<_>, Vec<_>) = options.iter().partition(|o| o.target == *target && o.enabled);
        if first.is_empty() || self.quirks.boot_order_refused {
            return self.lasting_override(&path, target, mode, &options).await;
        }
        let order: Vec<&str> = first.iter().chain(&rest).map(|option| option.id.as_str()).collect();
        if options
            .iter()
            .map(|option| option.id.as_str())
            .eq(order.iter().copied())
        {
            return Ok(());
        }
        self.send_order(&path, &system, &order).await
    }

    async fn send_order(&mut self, path: &str, system: &Value, order: &[&str]) -> Result<(), Error> {
        let pending = view::link(system, "/@Redfish.Settings/SettingsObject");
        let body = json!({"Boot": {"BootOrder": order}});
        // The order is a setting of the firmware: where the system has a settings object, that is where it goes, and
        // some firmware takes it at the system alone.
        let places = match &pending {
            Some(pending) if self.quirks.boot_order_at_settings => vec![pending.as_str()],
            Some(pending) => vec![path, pending.as_str()],
            None => vec![path],
        };
        let mut refused = None;
        for place in &places {
            match self.patch_only(place, &body).await {
                Ok(reply) => {
                    refused = None;
                    if self.order_shows(path, pending.as_deref(), order, &reply).await? {
                        return Ok(());
                    }
                }
                Err(
                    error @ Error {
                        cause: Cause::Refused { .. } | Cause::Unsupported(_),
                        ..
                    },
                ) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or_else(|| {
            let what = format!("the boot order {}", order.join(", "));
            self.error(
                format!("PATCH {path}"),
                Cause::NotSeen {
                    what,
                    after: self.timing.answer,
                },
            )
        }))
    }

    /// True when the order shows after a change. A task of it may end with the next reset only, so it is not waited for,
    /// but looked beside until the order shows.
    async fn order_shows(
        &mut self,
        path: &str,
        pending: Option<&str>,
        order: &[&str],
        reply: &Reply,
    ) -> Result<bool, Error> {
        let task = self.glance(&format!("PATCH {path}"), reply).await?;
        let start = Instant::now();
        loop {
            if self.shows_order(path, pending, order).await? {
                return Ok(true);
            }
            if task.is_none() || start.elapsed() >= self.timing.settle {
                return Ok(false);
            }
            sleep(self.timing.look).await;
        }
    }

    /// True when the order is in force, or waits for the next reset.
    async fn shows_order(&mut self, path: &str, pending: Option<&str>, order: &[&str]) -> Result<bool, Error> {
        for place in [Some(path), pending].into_iter().flatten() {
            let shown = self.get_if_there(place).await?.unwrap_or_default();
            let shown = view::strings(&shown, "/Boot/BootOrder").unwrap_or_default();
            if shown.iter().map(String::as_str).eq(order.iter().copied()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `Continuous`, where there is no order to change or nothing of that kind in it.
    async fn lasting_override(
        &mut self,
        path: &str,
        target: &BootTarget,
        mode: Option<FirmwareMode>,
        options: &[BootOption],
    ) -> Result<(), Error> {
        let system = self.get(path).await?;
        let lasts = view::strings(&system, "/Boot/BootSourceOverrideEnabled@Redfish.AllowableValues");
        if lasts.is_some_and(|lasts| !lasts.iter().any(|word| word == "Continuous")) {
            let names: Vec<_> = options.iter().map(|option| option.name.as_str()).collect();
            let words = format!(
                "no boot option boots from {target} (there are: {}), and this BMC's override is for one boot only",
                names.join(", ")
            );
            return Err(self.error(format!("PATCH {path}"), Cause::Unsupported(words)));
        }
        self.set_override(target, mode, "Continuous", None).await?;
        let shown = self.get_boot().await?;
        if shown.target == *target && !shown.once {
            return Ok(());
        }
        let what = format!(
            "a lasting override to {target} (it shows {}, once: {})",
            shown.target, shown.once
        );
        Err(self.error(
            format!("PATCH {path}"),
            Cause::NotSeen {
                what,
                after: self.timing.answer,
            },
        ))
    }

    /// The next boot fetches this URL by UEFI HTTP boot.
    pub(crate) async fn set_boot_url(&mut self, url: &str) -> Result<(), Error> {
        if let Some(setting) = self.quirks.http_boot_setting.clone() {
            self.stage_bios(&[(setting, url.to_owned())].into()).await?;
            return self
                .set_override(&BootTarget::Http, Some(FirmwareMode::Uefi), "Once", None)
                .await;
        }
        let path = self.system_path().await?;
        let system = self.get(&path).await?;
        if system.pointer("/Boot/HttpBootUri").is_none() {
            let words = "this BMC takes no URL for HTTP boot".to_owned();
            return Err(self.error(format!("PATCH {path}"), Cause::Unsupported(words)));
        }
        self.set_override(&BootTarget::Http, Some(FirmwareMode::Uefi), "Once", Some(url))
            .await
    }
}
