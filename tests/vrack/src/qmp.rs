//! QEMU's control socket (QMP, docs/interop/qmp-spec.rst): one JSON object per line.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, oneshot};

use crate::switch::{Tasks, locked};

/// QEMU answers in a millisecond; on a machine with many guests and few cores it may take long.
const ANSWER: Duration = Duration::from_secs(120);
const EVENTS: usize = 256;

/// Something QEMU reports on its own.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its name, such as `SHUTDOWN`, `RESET`, `STOP`.
    pub name: String,
    /// Its data, an empty object when it has none.
    pub data: Value,
}

/// Commands on the way: the answer of each goes back to who asked.
type Pending = Mutex<HashMap<u64, oneshot::Sender<Result<Value, String>>>>;

/// A connection to one QEMU.
pub struct Qmp {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    pending: Arc<Pending>,
    next: AtomicU64,
    events: broadcast::Sender<Event>,
    _tasks: Tasks,
}

impl Qmp {
    /// Connects as soon as the socket exists, and negotiates.
    ///
    /// # Errors
    /// When no QEMU answered there within 30 s, or it speaks something else.
    pub async fn connect(socket: &Path) -> io::Result<Self> {
        let connecting = async {
            loop {
                match UnixStream::connect(socket).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let what = || format!("no QEMU answered at {}", socket.display());
        let stream = tokio::time::timeout(ANSWER, connecting)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, what()))?;
        let (reader, writer) = stream.into_split();
        let pending = Arc::new(Pending::default());
        let events = broadcast::Sender::new(EVENTS);
        let tasks = Tasks::default();
        tasks.spawn(read(BufReader::new(reader), Arc::clone(&pending), events.clone()));
        let qmp = Self {
            writer: tokio::sync::Mutex::new(writer),
            pending,
            next: AtomicU64::new(0),
            events,
            _tasks: tasks,
        };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returned.
    ///
    /// # Errors
    /// QEMU's own description of what it refused, or that it went away.
    pub async fn execute(&self, command: &str, arguments: Value) -> io::Result<Value> {
        let id = self.next.fetch_add(1, Relaxed);
        let (sender, answer) = oneshot::channel();
        locked(&self.pending).insert(id, sender);
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        self.writer.lock().await.write_all(line.as_bytes()).await?;
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(refusal))) => Err(io::Error::other(format!("QEMU refused {command}: {refusal}"))),
            Ok(Err(_)) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                format!("QEMU ended during {command}"),
            )),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("QEMU did not answer {command}"),
            )),
        }
    }

    /// Everything QEMU reports from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Lets the guest run (after `-S` or [`Qmp::stop`]).
    ///
    /// # Errors
    /// As [`Qmp::execute`]; the same for all that follow.
    pub async fn cont(&self) -> io::Result<()> {
        self.plain("cont").await
    }

    /// Pauses the guest.
    pub async fn stop(&self) -> io::Result<()> {
        self.plain("stop").await
    }

    /// Pulls the reset line.
    pub async fn system_reset(&self) -> io::Result<()> {
        self.plain("system_reset").await
    }

    /// Presses the power button.
    pub async fn system_powerdown(&self) -> io::Result<()> {
        self.plain("system_powerdown").await
    }

    /// Sends a non-maskable interrupt to all processors, as the button of that name does.
    pub async fn inject_nmi(&self) -> io::Result<()> {
        self.plain("inject-nmi").await
    }

    /// Ends the process. QEMU may be gone before its answer arrives, which is what was wanted.
    pub async fn quit(&self) -> io::Result<()> {
        match self.plain("quit").await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
            other => other,
        }
    }

    /// QEMU's run state: `running`, `paused`, `shutdown`, `prelaunch`, ...
    pub async fn status(&self) -> io::Result<String> {
        let answer = self.execute("query-status", json!({})).await?;
        Ok(answer
            .get("status")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned())
    }

    /// Raises or drops the carrier of a NIC, by its device or netdev id.
    pub async fn set_link(&self, name: &str, up: bool) -> io::Result<()> {
        self.execute("set_link", json!({ "name": name, "up": up }))
            .await
            .map(drop)
    }

    /// Sets a property of a device; `bootindex` of a peripheral counts from the next reset.
    pub async fn qom_set(&self, path: &str, property: &str, value: Value) -> io::Result<()> {
        self.execute("qom-set", json!({ "path": path, "property": property, "value": value }))
            .await
            .map(drop)
    }

    /// Puts a raw image into a removable drive, or empties it.
    pub async fn set_media(&self, device: &str, image: Option<&Path>) -> io::Result<()> {
        match image {
            Some(path) => {
                let arguments = json!({ "id": device, "filename": path, "format": "raw", "read-only-mode": "read-only", "force": true });
                self.execute("blockdev-change-medium", arguments).await?;
            }
            None => {
                self.execute("blockdev-open-tray", json!({ "id": device, "force": true }))
                    .await?;
                self.execute("blockdev-remove-medium", json!({ "id": device })).await?;
            }
        }
        Ok(())
    }

    async fn plain(&self, command: &str) -> io::Result<()> {
        self.execute(command, json!({})).await.map(drop)
    }
}

/// Sorts what QEMU says into answers and events until it goes away.
async fn read(mut reader: BufReader<OwnedReadHalf>, pending: Arc<Pending>, events: broadcast::Sender<Event>) {
    let mut line = String::new();
    while matches!(reader.read_line(&mut line).await, Ok(1..)) {
        if let Ok(mut message) = serde_json::from_str::<Value>(&line) {
            if let Some(name) = message.get("event").and_then(Value::as_str) {
                let event = Event {
                    name: name.to_owned(),
                    data: message.get("data").cloned().unwrap_or(json!({})),
                };
                // Nobody listening is fine.
                let _ = events.send(event);
            } else if let Some(waiting) = message
                .get("id")
                .and_then(Value::as_u64)
                .and_then(|id| locked(&pending).remove(&id))
            {
                let result = match message.get("error") {
                    Some(error) => Err(error
                        .get("desc")
                        .and_then(Value::as_str)
                        .unwrap_or("no reason")
                        .to_owned()),
                    None => Ok(message.get_mut("return").map(Value::take).unwrap_or_default()),
                };
                let _ = waiting.send(result);
            }
        }
        line.clear();
    }
    // Whoever still waits learns that no answer will come.
    locked(&pending).clear();
}
