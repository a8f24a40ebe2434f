//! What the screen shows, gathered from the API, the kernel and the log files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rackbar_control::client::Client;
use rackbar_model::{Event, Node, ServiceStatus, Severity};
use serde::Deserialize;

/// Where init keeps what the kernel and the services say.
const LOG_FOLDER: &str = "/run/log";
/// The first admin token beside the daemon's socket, until somebody has written it down.
const TOKEN_FILE: &str = "admin-token";
/// Bytes read from the end of a log.
const LOG_TAIL: usize = 64 << 10;

/// What is in front.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Status,
    Log,
    Token,
    ConfirmRestart,
    ConfirmOff,
    /// The daemon waits for the passphrase of the stored secrets.
    Locked,
}

/// The appliance, as the API tells it.
#[derive(Deserialize, Default)]
pub(super) struct Appliance {
    pub(super) site: String,
    pub(super) version: String,
    pub(super) fingerprint: String,
    pub(super) volatile: bool,
}

/// An event, worded.
pub(super) struct Line {
    pub(super) time: String,
    pub(super) text: String,
    pub(super) severity: Severity,
}

/// Everything on the screen.
pub(super) struct Screen {
    pub(super) view: View,
    pub(super) appliance: Option<Appliance>,
    /// Why there is none.
    pub(super) trouble: String,
    pub(super) addresses: Vec<String>,
    pub(super) states: BTreeMap<&'static str, usize>,
    pub(super) services: Vec<ServiceStatus>,
    pub(super) events: Vec<Line>,
    pub(super) token: Option<String>,
    token_file: PathBuf,
    pub(super) log_name: String,
    pub(super) log: Vec<String>,
    /// The passphrase as far as it is typed; shown as stars.
    pub(super) typed: String,
    /// Lines scrolled up from the end of the log.
    pub(super) scrolled: usize,
}

#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
}

impl Screen {
    /// An empty screen of the daemon behind this socket.
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            view: View::Status,
            appliance: None,
            trouble: "the daemon is starting".to_owned(),
            addresses: Vec::new(),
            states: BTreeMap::new(),
            services: Vec::new(),
            events: Vec::new(),
            token: None,
            token_file: socket.with_file_name(TOKEN_FILE),
            log_name: "kernel".to_owned(),
            log: Vec::new(),
            typed: String::new(),
            scrolled: 0,
        }
    }

    /// Looks at everything again.
    pub(super) async fn refresh(&mut self, client: &Client, unlock: &Path) {
        match (self.view, unlock.exists()) {
            (View::Status, true) => {
                self.trouble.clear();
                self.view = View::Locked;
            }
            (View::Locked, false) => {
                self.trouble = "the daemon is starting".to_owned();
                self.typed.clear();
                self.view = View::Status;
            }
            _ => {}
        }
        if self.view == View::Locked {
            self.addresses = addresses();
            return;
        }
        self.addresses = addresses();
        self.token = fs::read_to_string(&self.token_file)
            .ok()
            .map(|text| text.trim().to_owned());
        if self.view == View::Log {
            self.log = tail(&PathBuf::from(LOG_FOLDER).join(&self.log_name));
        }
        if let Err(error) = self.ask(client).await {
            self.appliance = None;
            self.trouble = error.to_string();
        }
    }

    async fn ask(&mut self, client: &Client) -> Result<(), rackbar_control::client::ClientError> {
        let nodes: Vec<Node> = client.list("/api/v1/nodes").await?;
        let services: Page<ServiceStatus> = client.get("/api/v1/services").await?;
        let events: Page<Event> = client.get("/api/v1/events?limit=20").await?;
        self.appliance = Some(client.get("/api/v1").await?);
        self.states.clear();
        nodes
            .iter()
            .for_each(|node| *self.states.entry(node.state.name()).or_default() += 1);
        self.services = services.items;
        let names: BTreeMap<_, _> = nodes.iter().map(|node| (node.id, node.name.as_str())).collect();
        self.events = events.items.iter().map(|event| line(event, &names)).collect();
        Ok(())
    }

    /// The token has been written down: forget it.
    pub(super) fn put_token_away(&mut self) {
        match fs::remove_file(&self.token_file) {
            Ok(()) => self.token = None,
            Err(error) => self.trouble = format!("{}: {error}", self.token_file.display()),
        }
    }

    pub(super) fn scroll(&mut self, lines: isize) -> View {
        self.scrolled = self
            .scrolled
            .saturating_add_signed(-lines)
            .min(self.log.len().saturating_sub(1));
        View::Log
    }

    /// Shows the next log of the folder.
    pub(super) fn next_log(&mut self) -> View {
        let mut names: Vec<String> = fs::read_dir(LOG_FOLDER)
            .map(|entries| {
                entries
                    .flatten()
                    .filter_map(|entry| entry.file_name().into_string().ok())
                    .collect()
            })
            .unwrap_or_default();
        names.sort();
        let next = names
            .iter()
            .position(|name| *name == self.log_name)
            .map_or(0, |at| at + 1);
        if let Some(name) = names.get(next).or(names.first()) {
            self.log_name = name.clone();
            self.log = tail(&PathBuf::from(LOG_FOLDER).join(name));
        }
        self.scrolled = 0;
        View::Log
    }
}

fn line(event: &Event, names: &BTreeMap<rackbar_model::NodeId, &str>) -> Line {
    let about = event.node.and_then(|id| names.get(&id).map(|name| (*name).to_owned()));
    let about = about.or_else(|| event.mac.map(|mac| mac.to_string()));
    let at = event.at.to_string();
    let text = match about {
        Some(about) => format!("{about}: {}", event.kind),
        None => event.kind.to_string(),
    };
    Line {
        time: at.get(11..19).unwrap_or_default().to_owned(),
        // Nodes put words on this screen; they do not get to move the cursor.
        text: text.chars().filter(|c| !c.is_control()).collect(),
        severity: event.kind.severity(),
    }
}

/// Our addresses, without loopback and link-local ones.
fn addresses() -> Vec<String> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for interface in interfaces {
        let Some(address) = interface
            .address
            .as_ref()
            .and_then(|a| a.as_sockaddr_in().map(|a| a.ip()))
        else {
            continue;
        };
        if !address.is_loopback() {
            found.push(format!("{address} on {}", interface.interface_name));
        }
    }
    found
}

fn tail(path: &std::path::Path) -> Vec<String> {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL)..]).into_owned();
    text.lines()
        .map(|line| line.chars().filter(|c| !c.is_control()).collect())
        .collect()
}
