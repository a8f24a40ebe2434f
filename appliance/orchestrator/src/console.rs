//! Serial consoles, live and shared: one Serial-over-LAN session per machine, however many look on.
//!
//! A BMC has one console, and who opens it a second time takes it away from the first. So the first who looks on opens
//! it, others join and are shown what was before, and it is given back some seconds after the last one left. Everything
//! that comes while it is open is recorded in a file per machine, of bounded size.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rackbar_devices::SolStream;
use rackbar_model::{Node, NodeId};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex as AsyncMutex, broadcast, mpsc};

use crate::rack::locked;
use crate::{PowerError, Rack};

/// Bytes that a newcomer is shown of what was before.
const HISTORY: usize = 64 << 10;
/// Pieces that a slow reader may be behind before it misses some.
const BEHIND: usize = 1_024;
/// Typed pieces that may wait for the BMC.
const TYPED: usize = 64;
/// Bytes of one record file; with the one before there are two.
const RECORD: u64 = 1 << 20;
/// Between two looks whether anybody still looks on. A page that is loaded again comes back within it.
const LOOK: Duration = Duration::from_secs(5);

/// The consoles that are open.
pub struct Consoles {
    rack: Rack,
    folder: PathBuf,
    slots: Mutex<HashMap<NodeId, Slot>>,
}

type Slot = Arc<AsyncMutex<Option<Line>>>;

/// One open console.
#[derive(Clone)]
struct Line {
    shown: broadcast::Sender<Arc<[u8]>>,
    typed: mpsc::Sender<Vec<u8>>,
    history: Arc<Mutex<VecDeque<u8>>>,
}

/// One who looks on.
pub struct Watcher {
    history: Option<Vec<u8>>,
    live: broadcast::Receiver<Arc<[u8]>>,
}

impl Watcher {
    /// What was printed lately, then each piece as it comes. `None` when the console ended. Who is too slow misses some.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(history) = self.history.take().filter(|history| !history.is_empty()) {
            return Some(history);
        }
        loop {
            match self.live.recv().await {
                Ok(piece) => return Some(piece.to_vec()),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

impl Consoles {
    /// Consoles of the rack's machines, recorded in `folder`.
    pub fn new(rack: Rack, folder: PathBuf) -> Self {
        Self {
            rack,
            folder,
            slots: Mutex::default(),
        }
    }

    /// Looks on at a machine's console, and opens it when nobody does yet.
    ///
    /// # Errors
    /// When the node or its BMC is not known, or the BMC did not open it.
    pub async fn watch(&self, id: NodeId) -> Result<Watcher, PowerError> {
        let slot = locked(&self.slots).entry(id).or_default().clone();
        let mut open = slot.lock().await;
        if let Some(line) = &*open {
            // One lock for both, so that no piece is in both or in neither.
            let history = locked(&line.history);
            return Ok(Watcher {
                history: Some(history.iter().copied().collect()),
                live: line.shown.subscribe(),
            });
        }
        let (node, stream) = self.rack.serial_console(id).await?;
        let (typed, keys) = mpsc::channel(TYPED);
        let (shown, live) = broadcast::channel(BEHIND);
        let line = Line {
            shown,
            typed,
            history: Arc::default(),
        };
        let record = Record::begin(&self.folder, &node.name).await;
        tokio::spawn(carry(stream, keys, record, line.clone(), slot.clone()));
        *open = Some(line);
        Ok(Watcher { history: None, live })
    }

    /// Types on a console that somebody looks on at. False when nobody does.
    pub async fn type_in(&self, id: NodeId, keys: Vec<u8>) -> bool {
        let slot = locked(&self.slots).get(&id).cloned();
        let Some(slot) = slot else { return false };
        let line = slot.lock().await.clone();
        match line {
            Some(line) => line.typed.send(keys).await.is_ok(),
            None => false,
        }
    }
}

/// Carries characters until the BMC ends it or nobody looks on any more.
async fn carry(mut stream: SolStream, mut keys: mpsc::Receiver<Vec<u8>>, mut record: Record, line: Line, slot: Slot) {
    let mut look = tokio::time::interval(LOOK);
    let mut alone = false;
    loop {
        tokio::select! {
            piece = stream.read() => match piece {
                Some(piece) => {
                    record.add(&piece).await;
                    let mut history = locked(&line.history);
                    history.extend(&piece);
                    let excess = history.len().saturating_sub(HISTORY);
                    history.drain(..excess);
                    // Nobody may be there this moment.
                    let _ = line.shown.send(piece.into());
                }
                None => break,
            },
            Some(typed) = keys.recv() => if !stream.write(&typed).await { break },
            _ = look.tick() => {
                let mut open = slot.lock().await;
                match (line.shown.receiver_count(), alone) {
                    // Under the lock: who comes now opens it anew.
                    (0, true) => {
                        *open = None;
                        drop(open);
                        return stream.close().await;
                    }
                    (watchers, _) => alone = watchers == 0,
                }
            }
        }
    }
    *slot.lock().await = None;
    stream.close().await;
}

/// What a console printed, in a file. A record that cannot be written is no reason to show nothing.
struct Record {
    path: PathBuf,
    file: Option<(File, u64)>,
}

impl Record {
    async fn begin(folder: &Path, name: &str) -> Self {
        // Node names are host names already; a path must not depend on that.
        let safe: String = name
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .collect();
        let path = folder.join(format!("{safe}.log"));
        let file = match tokio::fs::create_dir_all(folder).await {
            Ok(()) => Self::open(&path).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &file {
            tracing::warn!(%error, path = %path.display(), "a console is not recorded");
        }
        Self { path, file: file.ok() }
    }

    async fn open(path: &Path) -> std::io::Result<(File, u64)> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .await?;
        let length = file.metadata().await?.len();
        Ok((file, length))
    }

    async fn add(&mut self, piece: &[u8]) {
        let Some((file, length)) = &mut self.file else { return };
        let written = async {
            file.write_all(piece).await?;
            file.flush().await?;
            *length += piece.len() as u64;
            if *length >= RECORD {
                tokio::fs::rename(&self.path, self.path.with_extension("log.1")).await?;
                (*file, *length) = Self::open(&self.path).await?;
            }
            std::io::Result::Ok(())
        };
        if let Err(error) = written.await {
            tracing::warn!(%error, path = %self.path.display(), "a console is not recorded any more");
            self.file = None;
        }
    }
}

impl Rack {
    /// Opens the serial console of a machine through its BMC. One that another session has is taken over.
    ///
    /// # Errors
    /// When the node or its BMC is not known, or the BMC did not open it.
    async fn serial_console(&self, id: NodeId) -> Result<(Arc<Node>, SolStream), PowerError> {
        let bmc = self.bmc_of(id)?;
        let stream = bmc.asked("its serial console", bmc.door.console(bmc.address)).await?;
        Ok((bmc.node, stream))
    }
}
