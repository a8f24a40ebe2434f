//! The support bundle: one file with what somebody elsewhere needs to understand what happened here, and no secret.

mod redact;

use std::io::Write as _;
use std::path::Path;

use rackbar_control::operations::Refused;
use rackbar_model::{Node, Timestamp};
use rackbar_orchestrator::{Executor, Rack};
use rackbar_services::capture::Captures;
use rackbar_services::syslog::{LogStore, Start};
use rackbar_store::Table;
use rackbar_syslog::Filter;
use serde::Serialize;
use serde_json::{Value, json};
use structured_zstd::encoding::{CompressionLevel, StreamingEncoder};

use super::keep::Keep;
use super::webhooks::HookDoor;
use redact::{Secrets, Sweep};

/// Newest events that go in.
const EVENTS: usize = 20_000;
/// Newest events of each machine.
const TIMELINE: usize = 400;
/// Newest messages that machines logged.
const LOG_LINES: usize = 10_000;
/// Bytes from the end of each of our own logs.
const LOG_TAIL: u64 = 1 << 20;
/// Machines that go in one by one; of a larger rack the list has the rest.
const NODES: usize = 2_000;
/// Newest runs.
const RUNS: usize = 8;
/// Bytes of the bundle at most.
const LARGEST: usize = 256 << 20;

/// What a person finds first.
const README: &str = "This is a support bundle of a Rackbar appliance.

about.json        version, site, kernel, memory, how secrets are locked
config/           rackbar.toml and the site file as JSON, without secrets and without people's own texts
services.json     services and how they do; leases.json, webhooks.json
events.jsonl      the newest events, one a line, as the API gives them
nodes.json        all machines; nodes/NAME.json each with its inventory, nodes/NAME.timeline.txt what happened to it
runs/             the newest runs: plan, and how each action stands
logs/             the appliance's own logs; machines.jsonl: what machines sent
captures/         recent.pcapng: the newest boot packets of the rack interfaces, for Wireshark; captures that lie in the
                  data folder

Fields that hold secrets, and texts of people's own (files, scripts, kernel arguments), are masked as [redacted]. Then every
file was swept for each secret that the appliance knows: passwords of BMCs, tokens, keys, secrets of webhooks and of tools.
Of packets only what tells of a boot is kept (ARP, LLDP, DHCP, ICMP, DNS names, requests of TFTP); what files, HTTP, TLS and
SSH carry is cut off behind the headers, so no boot token is in them. What serial consoles printed is not in it, as people type passwords there. Names, addresses and serial numbers are in it. Look
through it before you give it away.
";

/// Where everything is.
pub(super) struct Support<'a> {
    pub(super) keep: &'a Keep,
    pub(super) executor: &'a Executor,
    pub(super) rack: &'a Rack,
    pub(super) logs: Option<&'a LogStore>,
    pub(super) hooks: &'a HookDoor,
    pub(super) captures: &'a Captures,
}

type Encoder = StreamingEncoder<Vec<u8>>;

/// The archive while it is written.
struct Bundle {
    tar: tar::Builder<Encoder>,
    sweep: Sweep,
    at: u64,
}

impl Bundle {
    fn add(&mut self, name: &str, content: &[u8]) -> Result<(), Refused> {
        let content = self.sweep.clean(content);
        self.whole(name, &content)
    }

    /// A file whose secrets are out already.
    fn whole(&mut self, name: &str, content: &[u8]) -> Result<(), Refused> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.at);
        let added = self
            .tar
            .append_data(&mut header, format!("rackbar-support/{name}"), content);
        added.map_err(|error| internal(&error))?;
        if self.tar.get_ref().get_ref().len() > LARGEST {
            return Err(Refused::Internal(format!(
                "the bundle grew beyond {} MiB",
                LARGEST >> 20
            )));
        }
        Ok(())
    }

    fn json(&mut self, name: &str, value: &impl Serialize) -> Result<(), Refused> {
        let mut text = serde_json::to_vec_pretty(value).map_err(|error| internal(&error))?;
        text.push(b'\n');
        self.add(name, &text)
    }
}

fn internal(error: &dyn std::fmt::Display) -> Refused {
    Refused::Internal(format!("the bundle could not be made: {error}"))
}

impl Support<'_> {
    /// The bundle, a tar archive compressed with Zstandard. Waits for the disk.
    pub(super) fn bundle(&self) -> Result<Vec<u8>, Refused> {
        let mut secrets = Secrets::default();
        let config = self.config(&mut secrets);
        let site = self.site(&mut secrets);
        let runs = self.runs(&mut secrets);
        let kernel = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let kernel = redact::command_line(&mut secrets, &kernel);
        self.known(&mut secrets)?;
        let now = super::keep::now();
        let mut bundle = Bundle {
            tar: tar::Builder::new(StreamingEncoder::new(Vec::new(), CompressionLevel::Fastest)),
            sweep: secrets.sweep().map_err(Refused::Internal)?,
            at: now.0 / 1_000,
        };
        bundle.add("README.txt", README.as_bytes())?;
        bundle.json("about.json", &self.about(now, &kernel))?;
        bundle.json("config/rackbar.json", &config)?;
        bundle.json("config/site.json", &site)?;
        bundle.json("services.json", &self.rack.services())?;
        bundle.json("leases.json", &self.rack.leases())?;
        bundle.json("webhooks.json", &self.hooks.list()?)?;
        bundle.json("repositories.json", &*self.executor.repositories())?;
        for (name, run) in &runs {
            bundle.json(&format!("runs/{name}.json"), run)?;
        }
        self.events(&mut bundle)?;
        self.nodes(&mut bundle)?;
        self.own_logs(&mut bundle)?;
        self.captures(&mut bundle)?;
        self.machine_logs(&mut bundle)?;
        let encoder = bundle.tar.into_inner().map_err(|error| internal(&error))?;
        encoder.finish().map_err(|error| internal(&error))
    }

    fn about(&self, now: Timestamp, kernel: &str) -> Value {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "made": now,
            "kernel": read("/proc/version"),
            "command_line": kernel,
            "uptime": read("/proc/uptime"),
            "load": read("/proc/loadavg"),
            "memory": read("/proc/meminfo").lines().take(8).collect::<Vec<_>>(),
            "mounts": read("/proc/mounts").lines().collect::<Vec<_>>(),
            "secrets": self.keep.lock().map(|lock| lock.lock).unwrap_or_default(),
            "store": self.keep.store.trouble().map(|error| error.to_string()),
            "last_event": self.rack.last_seq(),
        })
    }

    /// `rackbar.toml` as it is now.
    fn config(&self, secrets: &mut Secrets) -> Value {
        let text = match std::fs::read_to_string(&self.keep.config) {
            Ok(text) => text,
            Err(error) => return json!({ "missing": error.to_string() }),
        };
        let mut value = masked(secrets, &text);
        // A file that a password is in lies beside it, or where its path says.
        let mut files = Vec::new();
        password_files(&value, &mut files);
        for file in files {
            let path = self.keep.config.with_file_name(&file);
            if let Ok(content) = std::fs::read(path) {
                secrets.add(&content);
            }
        }
        if let Value::Object(fields) = &mut value {
            fields.insert("bytes".into(), text.len().into());
        }
        value
    }

    fn site(&self, secrets: &mut Secrets) -> Value {
        match self.executor.site() {
            Some(site) => {
                json!({ "by": site.by, "since": site.since, "site": masked(secrets, &site.text) })
            }
            None => json!({ "missing": "no site is in force" }),
        }
    }

    fn runs(&self, secrets: &mut Secrets) -> Vec<(u64, Value)> {
        let runs = self.executor.runs();
        let newest = runs.iter().rev().take(RUNS);
        let run = |run: &std::sync::Arc<rackbar_plan::Run>| {
            let mut json = serde_json::to_value(&**run).unwrap_or_default();
            secrets.mask(&mut json);
            (run.id.0, json)
        };
        newest.map(run).collect()
    }

    /// Every secret that the store and the run folder hold.
    fn known(&self, secrets: &mut Secrets) -> Result<(), Refused> {
        let stored = self.keep.store.list(Table::Secrets);
        for (_, value) in stored.map_err(|error| internal(&error))? {
            secrets.add_stored(&value);
        }
        if let Ok(token) = std::fs::read(self.keep.run.join("admin-token")) {
            secrets.add(&token);
        }
        Ok(())
    }

    fn events(&self, bundle: &mut Bundle) -> Result<(), Refused> {
        let after = self.rack.last_seq().saturating_sub(EVENTS as u64);
        let events = self.rack.events(after, EVENTS).map_err(|error| internal(&error))?;
        bundle.add("events.jsonl", &lines(&events))
    }

    fn nodes(&self, bundle: &mut Bundle) -> Result<(), Refused> {
        let nodes = self.rack.nodes();
        let short = |node: &std::sync::Arc<Node>| {
            json!({ "id": node.id, "name": node.name, "state": node.state, "role": node.role, "power": node.power,
                "address": node.address, "bmc_address": node.bmc_address, "macs": node.macs, "verdict": node.verdict,
                "drift": node.drift, "last_seen": node.last_seen })
        };
        bundle.json("nodes.json", &nodes.iter().map(short).collect::<Vec<_>>())?;
        for node in nodes.iter().take(NODES) {
            bundle.json(&format!("nodes/{}.json", node.name), &**node)?;
            let events = self.rack.timeline(node.id).map_err(|error| internal(&error))?;
            let mut text = format!("{}: {}\n", node.name, node.verdict);
            for event in events.iter().skip(events.len().saturating_sub(TIMELINE)) {
                text.push_str(&format!("{} {}\n", event.at, event.kind));
            }
            bundle.add(&format!("nodes/{}.timeline.txt", node.name), text.as_bytes())?;
        }
        Ok(())
    }

    /// What init keeps of services and kernel beside the run folder.
    fn own_logs(&self, bundle: &mut Bundle) -> Result<(), Refused> {
        each_file(&self.keep.run.with_file_name("log"), &mut |name, path| {
            bundle.add(&format!("logs/{name}"), &tail(path))
        })
    }

    fn captures(&self, bundle: &mut Bundle) -> Result<(), Refused> {
        // Without it where none are kept, which the configuration in the bundle says.
        if let Ok(file) = self.captures.recent(None, None) {
            bundle.whole("captures/recent.pcapng", &bundle.sweep.blotted(&file))?;
        }
        each_file(&self.keep.folder.join("captures"), &mut |name, path| {
            bundle.add(&format!("captures/{name}"), &tail(path))
        })
    }

    fn machine_logs(&self, bundle: &mut Bundle) -> Result<(), Refused> {
        let Some(logs) = self.logs else { return Ok(()) };
        let all = Filter {
            sources: None,
            level: None,
            since: None,
            grep: None,
        };
        let records = logs
            .search(&all, Start::Before(None), LOG_LINES)
            .map_err(|error| internal(&error))?
            .records;
        let line = |record: &rackbar_syslog::Record| {
            json!({ "seq": record.seq, "at": Timestamp(record.at), "from": record.source.to_string(),
                "severity": record.level.to_string(), "host": record.host, "program": record.program,
                "text": record.text })
        };
        bundle.add(
            "logs/machines.jsonl",
            &lines(&records.iter().map(line).collect::<Vec<_>>()),
        )
    }
}

/// A TOML file as JSON, without what is nobody else's. One that cannot be read is not shown at all.
fn masked(secrets: &mut Secrets, text: &str) -> Value {
    let Ok(value) = toml::from_str::<toml::Value>(text) else {
        return json!({ "unreadable": "it is no TOML, so nothing of it can be told from a secret" });
    };
    let mut json = serde_json::to_value(value).unwrap_or_default();
    secrets.mask(&mut json);
    json
}

fn password_files(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(file) if name == "password_file" => found.push(file.clone()),
                    _ => password_files(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|one| password_files(one, found)),
        _ => {}
    }
}

fn lines<T: Serialize>(items: &[T]) -> Vec<u8> {
    let mut out = Vec::new();
    for json in items.iter().filter_map(|item| serde_json::to_vec(item).ok()) {
        let _ = out.write_all(&json);
        out.push(b'\n');
    }
    out
}

/// Each plain file in a folder, by name; a file in its place is one.
fn each_file(place: &Path, give: &mut dyn FnMut(&str, &Path) -> Result<(), Refused>) -> Result<(), Refused> {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    if place.is_file() {
        return name(place).map_or(Ok(()), |name| give(&name, place));
    }
    let Ok(entries) = std::fs::read_dir(place) else {
        return Ok(());
    };
    let mut paths: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    for path in paths {
        if let Some(name) = name(&path) {
            give(&name, &path)?;
        }
    }
    Ok(())
}

/// The end of a file; empty when it cannot be read.
fn tail(path: &Path) -> Vec<u8> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    read().unwrap_or_default()
}
