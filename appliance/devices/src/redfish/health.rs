//! Sensors, event logs and health over Redfish.

use serde_json::Value;

use super::{Redfish, view};
use crate::error::{Cause, Error};
use crate::{Health, HealthState, LogLine, Sensor};

/// Chassis looked at: enclosures with many list the server's own first.
const CHASSIS: usize = 8;
/// Sensors read at most: each may be a request of its own.
const SENSORS: usize = 256;
/// Pages of a log read at most.
const PAGES: usize = 32;

impl Redfish {
    async fn chassis(&mut self) -> Result<Vec<Value>, Error> {
        let path = self.system_path().await?;
        let system = self.get(&path).await?;
        let mut paths: Vec<String> = (0..CHASSIS)
            .map_while(|at| view::link(&system, &format!("/Links/Chassis/{at}")))
            .collect();
        if paths.is_empty() {
            let root = self.root().await?;
            let all = view::link(&root, "/Chassis").unwrap_or_else(|| "/redfish/v1/Chassis".to_owned());
            paths = self
                .get_if_there(&all)
                .await?
                .map(|all| view::members(&all))
                .unwrap_or_default();
        }
        let mut found = Vec::new();
        for path in paths.iter().take(CHASSIS) {
            found.extend(self.get_if_there(path).await?);
        }
        Ok(found)
    }

    /// The older `Thermal` and `Power` resources tell all in two requests; the `Sensors` that replaced them (2020.4)
    /// are one request each, and asked where the older are gone.
    pub(crate) async fn sensors(&mut self) -> Result<Vec<Sensor>, Error> {
        let mut found = Vec::new();
        for chassis in self.chassis().await? {
            let before = found.len();
            for (link, lists) in [
                (
                    "/Thermal",
                    [("Temperatures", "ReadingCelsius", "Cel"), ("Fans", "Reading", "RPM")],
                ),
                (
                    "/Power",
                    [
                        ("Voltages", "ReadingVolts", "V"),
                        ("PowerControl", "PowerConsumedWatts", "W"),
                    ],
                ),
            ] {
                let Some(path) = view::link(&chassis, link) else {
                    continue;
                };
                let Some(resource) = self.get_if_there(&path).await? else {
                    continue;
                };
                for (list, key, unit) in lists {
                    let entries = resource.get(list).and_then(Value::as_array).into_iter().flatten();
                    found.extend(entries.filter_map(|entry| older(entry, key, unit)));
                }
            }
            if found.len() == before {
                let sensors = self.collection_of(&chassis, "/Sensors", SENSORS).await?;
                found.extend(sensors.iter().filter_map(newer));
            }
        }
        if found.is_empty() {
            let words = "this BMC shows no sensors over Redfish".to_owned();
            return Err(self.error("sensors", Cause::Unsupported(words)));
        }
        Ok(found)
    }

    /// The latest lines of the event logs, newest first.
    pub(crate) async fn event_log(&mut self, limit: usize) -> Result<Vec<LogLine>, Error> {
        let path = self.system_path().await?;
        let system = self.get(&path).await?;
        let mut owners = vec![system.clone()];
        if let Some(manager) = self.manager_path(&system).await? {
            owners.extend(self.get_if_there(&manager).await?);
        }
        owners.extend(self.chassis().await?);
        let mut services = Vec::new();
        for owner in &owners {
            services.extend(self.collection(owner, "/LogServices").await?);
        }
        // The hardware's log is what is asked for; audit trails and debug logs hold thousands of lines of logins.
        let hardware = |service: &&Value| {
            let id = view::text(service, "/Id").unwrap_or_default().to_lowercase();
            let kind = view::text(service, "/LogEntryType").unwrap_or_default();
            kind == "SEL"
                || ["sel", "iml", "eventlog", "log1", "log", "standardlog", "platformlog"].contains(&id.as_str())
        };
        let chosen: Vec<Value> = match services.iter().filter(hardware).cloned().collect::<Vec<_>>() {
            none if none.is_empty() => services,
            some => some,
        };
        if chosen.is_empty() {
            let words = "this BMC has no log services".to_owned();
            return Err(self.error("event log", Cause::Unsupported(words)));
        }
        let mut seen = std::collections::BTreeSet::new();
        let mut lines = Vec::new();
        for service in &chosen {
            // The same log hangs below system and manager on some.
            if let Some(path) = view::link(service, "/Entries").filter(|path| seen.insert(path.clone())) {
                lines.extend(self.entries(path, limit).await?);
            }
        }
        lines.sort_by(|a, b| b.time.cmp(&a.time));
        lines.truncate(limit);
        Ok(lines)
    }

    async fn entries(&mut self, path: String, limit: usize) -> Result<Vec<LogLine>, Error> {
        let mut next = Some(path);
        let (mut lines, mut links) = (Vec::new(), Vec::new());
        let mut pages = std::collections::BTreeSet::new();
        for _ in 0..PAGES {
            // A page that leads to one before it is the last.
            let Some(path) = next.take().filter(|path| pages.insert(path.clone())) else {
                break;
            };
            let Some(page) = self.get_if_there(&path).await? else {
                break;
            };
            let members = page
                .get("Members")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            for member in members {
                // Members are the entries themselves, or links to them.
                match view::link(&member, "") {
                    Some(path) if member.get("Message").is_none() && member.get("Created").is_none() => {
                        links.push(path);
                    }
                    _ => lines.extend(line(&member)),
                }
            }
            next = view::next_page(&page);
        }
        lines.extend(self.linked(links, limit).await?);
        Ok(lines)
    }

    /// Entries that are one request each: the newest `limit` of them. Some list the newest first, some last; the two at
    /// the ends tell.
    async fn linked(&mut self, mut links: Vec<String>, limit: usize) -> Result<Vec<LogLine>, Error> {
        if links.len() > limit
            && let (Some(first), Some(last)) = (links.first().cloned(), links.last().cloned())
        {
            let first = self.get_if_there(&first).await?.as_ref().and_then(line);
            let last = self.get_if_there(&last).await?.as_ref().and_then(line);
            if first.and_then(|one| one.time) < last.and_then(|one| one.time) {
                links.reverse();
            }
            links.truncate(limit);
        }
        let mut lines = Vec::new();
        for path in links {
            lines.extend(self.get_if_there(&path).await?.as_ref().and_then(line));
        }
        Ok(lines)
    }

    /// The BMC's own verdict on the system, itself and the chassis.
    pub(crate) async fn health(&mut self) -> Result<Health, Error> {
        let path = self.system_path().await?;
        let system = self.get(&path).await?;
        let mut parts = vec![("the system".to_owned(), system.clone())];
        for (name, pointer) in [("processors", "/ProcessorSummary"), ("memory", "/MemorySummary")] {
            parts.extend(system.pointer(pointer).map(|part| (name.to_owned(), part.clone())));
        }
        if let Some(manager) = self.manager_path(&system).await? {
            parts.extend(
                self.get_if_there(&manager)
                    .await?
                    .map(|manager| ("the BMC".to_owned(), manager)),
            );
        }
        for chassis in self.chassis().await? {
            let name = view::text(&chassis, "/Name").unwrap_or_else(|| "chassis".to_owned());
            parts.push((name, chassis));
        }
        let mut health = Health::default();
        for (name, part) in parts {
            let state = status(&part);
            health.state = health.state.max(state);
            if state > HealthState::Ok {
                health.notes.push(format!("{name}: {state}"));
            }
        }
        Ok(health)
    }
}

/// Health of a resource with what is below it, where the BMC sums that up.
fn status(resource: &Value) -> HealthState {
    let word = view::text(resource, "/Status/HealthRollup").or_else(|| view::text(resource, "/Status/Health"));
    word.map_or(HealthState::Unknown, |word| health(&word))
}

fn health(word: &str) -> HealthState {
    match word.to_lowercase().as_str() {
        "ok" | "informational" => HealthState::Ok,
        "warning" => HealthState::Warning,
        "critical" | "fatal" => HealthState::Critical,
        _ => HealthState::Unknown,
    }
}

fn older(entry: &Value, key: &str, unit: &str) -> Option<Sensor> {
    let absent =
        view::text(entry, "/Status/State").is_some_and(|state| matches!(state.as_str(), "Absent" | "Disabled"));
    let fan = if key == "Reading" { "ReadingRPM" } else { key };
    let reading = entry.get(key).or_else(|| entry.get(fan)).and_then(Value::as_f64);
    let unit = match view::text(entry, "/ReadingUnits").as_deref() {
        Some("Percent") => "%",
        _ => unit,
    };
    Some(Sensor {
        // `FanName` is what fans were called before the schema's version 1.1.
        name: view::text(entry, "/Name").or_else(|| view::text(entry, "/FanName"))?,
        reading: reading.filter(|_| !absent),
        unit: unit.to_owned(),
        state: if absent { HealthState::Unknown } else { status(entry) },
    })
}

fn newer(sensor: &Value) -> Option<Sensor> {
    Some(Sensor {
        name: view::text(sensor, "/Name").or_else(|| view::text(sensor, "/Id"))?,
        reading: sensor.get("Reading").and_then(Value::as_f64),
        unit: view::text(sensor, "/ReadingUnits").unwrap_or_default(),
        state: status(sensor),
    })
}

fn line(entry: &Value) -> Option<LogLine> {
    Some(LogLine {
        time: view::text(entry, "/Created"),
        severity: view::text(entry, "/Severity").map_or(HealthState::Unknown, |word| health(&word)),
        message: view::text(entry, "/Message").or_else(|| view::text(entry, "/Name"))?,
        id: view::text(entry, "/Id").unwrap_or_default(),
    })
}
