//! BIOS attributes: the `Bios` resource, its registry, and the settings resource that takes effect with a reset.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Redfish, view};
use crate::bios::{self, Applies, BiosAttributes, Rules, Staged};
use crate::error::{Cause, Error};

/// Registry files looked into before the search is given up.
const CANDIDATES: usize = 4;

impl Redfish {
    async fn bios(&mut self) -> Result<(String, Value), Error> {
        let path = self.system_path().await?;
        let system = self.get(&path).await?;
        // Spelt in lower case, and with the older word for links, by firmware from before the schema.
        let link = ["/Bios", "/bios", "/Oem/Hp/links/BIOS", "/Oem/Hpe/Links/Bios"]
            .iter()
            .find_map(|pointer| view::link(&system, pointer));
        let Some(path) = link.or_else(|| self.quirks.bios.clone()) else {
            let words = "this BMC shows no BIOS attributes over Redfish".to_owned();
            return Err(self.error(format!("GET {path}"), Cause::Unsupported(words)));
        };
        let bios = self.get(&path).await?;
        if bios::table(&bios).is_none() {
            let words =
                "its Bios resource has no attributes; many machines show them only after a first boot".to_owned();
            return Err(self.error(format!("GET {path}"), Cause::Unsupported(words)));
        }
        Ok((path, bios))
    }

    /// The attribute registry that a `Bios` resource names. Firmware names versions it does not serve, so the nearest
    /// name will do; without one, values are taken at their present types.
    async fn rules(&mut self, path: &str, bios: &Value) -> Result<(Option<String>, Rules), Error> {
        let name = view::text(bios, "/AttributeRegistry");
        let wanted = name.clone().unwrap_or_default();
        if let Some((known, rules)) = &self.rules
            && *known == wanted
        {
            return Ok((name, rules.clone()));
        }
        let mut found = Rules::new();
        for uri in self.registry_files(path, &wanted).await? {
            let Some(file) = self.get_if_here(&uri).await? else {
                continue;
            };
            found = bios::rules(&file);
            if !found.is_empty() {
                break;
            }
        }
        self.rules = Some((wanted, found.clone()));
        Ok((name, found))
    }

    /// A part of a registry. Some firmware keeps registries at its maker's, where we do not go.
    async fn get_if_here(&mut self, path: &str) -> Result<Option<Value>, Error> {
        match self.get_if_there(path).await {
            Err(Error {
                cause: Cause::Elsewhere(_),
                ..
            }) => Ok(None),
            other => other,
        }
    }

    async fn registry_files(&mut self, bios: &str, wanted: &str) -> Result<Vec<String>, Error> {
        let root = self.root().await?;
        let all = view::link(&root, "/Registries").unwrap_or_else(|| "/redfish/v1/Registries".to_owned());
        let members = self
            .get_if_here(&all)
            .await?
            .map(|all| view::members(&all))
            .unwrap_or_default();
        let stem = |name: &str| {
            let last = name
                .trim_end_matches('/')
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_lowercase();
            last.split('.').next().unwrap_or_default().to_owned()
        };
        let exact = |path: &String| {
            !path
                .to_lowercase()
                .trim_end_matches('/')
                .ends_with(&wanted.to_lowercase())
        };
        let mut fitting: Vec<String> = members
            .into_iter()
            .filter(|path| !wanted.is_empty() && stem(path) == stem(wanted))
            .collect();
        fitting.sort_by_key(exact);
        let mut files = Vec::new();
        for path in fitting.iter().take(CANDIDATES) {
            let Some(file) = self.get_if_here(path).await? else {
                continue;
            };
            files.extend(locations(&file));
        }
        // Where it is served although no registry file says so.
        files.push(format!("{}/BiosRegistry", bios.trim_end_matches('/')));
        Ok(files)
    }

    pub(crate) async fn bios_attributes(&mut self) -> Result<BiosAttributes, Error> {
        let (path, bios) = self.bios().await?;
        let (registry, rules) = self.rules(&path, &bios).await?;
        Ok(BiosAttributes {
            registry,
            attributes: bios::attributes(&bios, &rules),
            messages: messages(&bios),
        })
    }

    /// Where changes go: the settings object, or the resource itself where there is none.
    fn settings(&self, path: &str, bios: &Value) -> String {
        view::link(bios, "/@Redfish.Settings/SettingsObject")
            .or_else(|| view::link(bios, "/links/Settings"))
            .or_else(|| {
                self.quirks
                    .bios_settings
                    .as_ref()
                    .map(|end| format!("{}/{end}", path.trim_end_matches('/')))
            })
            .unwrap_or_else(|| path.to_owned())
    }

    pub(crate) async fn stage_bios(&mut self, wanted: &BTreeMap<String, String>) -> Result<Staged, Error> {
        let (path, bios) = self.bios().await?;
        let (_, rules) = self.rules(&path, &bios).await?;
        let present = bios::attributes(&bios, &rules);
        let typed = bios::check(&present, &rules, wanted)
            .map_err(|words| self.error("BIOS attributes", Cause::NotAllowed(words)))?;
        let settings = self.settings(&path, &bios);
        let pending = self.pending(&settings, &path).await?;
        let counts = |name: &String| {
            pending
                .get(name)
                .or_else(|| present.get(name))
                .map(|a| a.value.as_str())
        };
        let differing: Map<String, Value> = typed
            .into_iter()
            .filter(|(name, _)| counts(name) != wanted.get(name).map(String::as_str))
            .collect();
        let sent: BTreeMap<String, String> = wanted
            .iter()
            .filter(|(name, _)| differing.contains_key(*name))
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect();
        // What already waits for the reset needs no second request, but it does need the reset.
        let waits = wanted
            .iter()
            .any(|(name, value)| present.get(name).is_none_or(|a| a.value != *value));
        if differing.is_empty() {
            let applies = if waits { Applies::OnReset } else { Applies::Already };
            return Ok(Staged {
                sent,
                applies,
                task: None,
            });
        }
        let task = self.send_bios(&settings, &bios, differing).await?;
        let applies = if settings == path {
            Applies::Immediately
        } else {
            Applies::OnReset
        };
        // A resource without a settings object either takes effect at once or, mostly, with the reset: it shows.
        let applies = match applies {
            Applies::Immediately if !self.bios_is(wanted).await? => Applies::OnReset,
            other => other,
        };
        Ok(Staged { sent, applies, task })
    }

    async fn send_bios(
        &mut self,
        settings: &str,
        bios: &Value,
        values: Map<String, Value>,
    ) -> Result<Option<String>, Error> {
        let name = format!("PATCH {settings}");
        let mut body = if bios::is_flat(bios) {
            Value::Object(values)
        } else {
            json!({"Attributes": values})
        };
        let times = view::strings(bios, "/@Redfish.Settings/SupportedApplyTimes").unwrap_or_default();
        // Named only where there is a choice: firmware that knows one time refuses to be told it.
        if times.len() > 1
            && times.iter().any(|time| time == "OnReset")
            && let Some(map) = body.as_object_mut()
        {
            map.insert("@Redfish.SettingsApplyTime".to_owned(), json!({"ApplyTime": "OnReset"}));
        }
        let reply = self.patch_only(settings, &body).await?;
        self.glance(&name, &reply).await
    }

    async fn bios_is(&mut self, wanted: &BTreeMap<String, String>) -> Result<bool, Error> {
        let (_, bios) = self.bios().await?;
        let present = bios::attributes(&bios, &Rules::new());
        Ok(wanted
            .iter()
            .all(|(name, value)| present.get(name).is_some_and(|a| a.value == *value)))
    }

    async fn pending(&mut self, settings: &str, path: &str) -> Result<BTreeMap<String, bios::BiosAttribute>, Error> {
        if settings == path {
            return Ok(BTreeMap::new());
        }
        let waiting = self.get_if_there(settings).await?.unwrap_or_default();
        Ok(bios::attributes(&waiting, &Rules::new()))
    }

    /// What waits for the next reset: settings resources list all values or only the changed ones, so the difference
    /// is what counts.
    pub(crate) async fn staged_bios(&mut self) -> Result<BTreeMap<String, String>, Error> {
        let (path, bios) = self.bios().await?;
        let present = bios::attributes(&bios, &Rules::new());
        let settings = self.settings(&path, &bios);
        let pending = self.pending(&settings, &path).await?;
        Ok(pending
            .into_iter()
            .filter(|(name, waiting)| present.get(name).is_some_and(|now| now.value != waiting.value))
            .map(|(name, waiting)| (name, waiting.value))
            .collect())
    }
}

/// Where a registry file is, English first. The link is a string, or an object in firmware from before the schema.
fn locations(file: &Value) -> Vec<String> {
    let all = file.get("Location").and_then(Value::as_array);
    let mut found: Vec<(bool, String)> = all
        .into_iter()
        .flatten()
        .filter_map(|place| {
            let uri = view::text(place, "/Uri").or_else(|| view::text(place, "/Uri/extref"))?;
            let english = view::text(place, "/Language").is_none_or(|language| language.starts_with("en"));
            Some((!english, view::own_path(&uri)?))
        })
        .collect();
    found.sort_by_key(|(foreign, _)| *foreign);
    found.into_iter().map(|(_, uri)| uri).collect()
}

/// What was said of the last change taken over, without the good news.
fn messages(bios: &Value) -> Vec<String> {
    let all = bios.pointer("/@Redfish.Settings/Messages").and_then(Value::as_array);
    let bad = |message: &&Value| view::text(message, "/Severity").is_none_or(|severity| severity != "OK");
    all.into_iter()
        .flatten()
        .filter(bad)
        .filter_map(|message| view::text(message, "/Message"))
        .collect()
}
