//! Serial consoles, live and shared: one Serial-over-LAN session per machine, however many look on.
//!
//! A BMC has one console, and who opens it a second time takes it away from the first. So the first who looks on opens
//! it, others join and are shown what was before, and it is given back some seconds after the last one left. Everything
//! that comes while it is open is recorded in a file per machine, of bounded size.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rackbar_devices::SolStream;
use rackbar_model::{Node, NodeId};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex as AsyncMutex, broadcast, mpsc};
use tokio::task::JoinHandle;

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
/// A console that ended, or could not be opened, is opened again for its record after so long: a BMC that has no Serial
/// over LAN, or whose console somebody else took, is not asked every few seconds.
const AGAIN: Duration = Duration::from_secs(60);

/// The consoles that are open.
pub struct Consoles {
    rack: Rack,
    folder: PathBuf,
    slots: Mutex<HashMap<NodeId, Slot>>,
}

type Slot = Arc<AsyncMutex<Option<Line>>>;

/// Who looks on for the record alone: gone when dropped.
struct Holding {
    task: JoinHandle<()>,
    /// When that is tried again after it ended.
    again: Instant,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.task.abort();
    }
}

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

    /// What is recorded of a machine's console, oldest first.
    ///
    /// # Errors
    /// [`std::io::ErrorKind::NotFound`] when nothing was, or it cannot be read.
    pub async fn record(&self, name: &str) -> std::io::Result<Vec<u8>> {
        let path = path_of(&self.folder, name);
        let newest = tokio::fs::read(&path).await;
        let mut whole = match (tokio::fs::read(path.with_extension("log.1")).await, &newest) {
            (Ok(before), _) => before,
            (Err(_), Ok(_)) => Vec::new(),
            (Err(error), Err(_)) => return Err(error),
        };
        whole.extend(newest.unwrap_or_default());
        Ok(whole)
    }

    /// Keeps consoles open while the settings want them recorded, for as long as somebody has this.
    pub fn record_where_wanted(self: &Arc<Self>) {
        let consoles = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut held: HashMap<NodeId, Holding> = HashMap::new();
            loop {
                let Some(consoles) = consoles.upgrade() else { return };
                consoles.hold(&mut held);
                drop(consoles);
                tokio::time::sleep(LOOK).await;
            }
        });
    }

    /// Looks on wherever it is wanted and nobody of ours does.
    fn hold(self: &Arc<Self>, held: &mut HashMap<NodeId, Holding>) {
        if !self.rack.look(|mind| mind.settings.record_consoles) {
            // Who holds them is dropped, and they are given back as when a person leaves.
            held.clear();
            return;
        }
        for node in self.rack.nodes() {
            if node.bmc_address.is_none() {
                continue;
            }
            let now = Instant::now();
            let rests = |held: &Holding| !held.task.is_finished() || now < held.again;
            if held.get(&node.id).is_some_and(rests) {
                continue;
            }
            let (consoles, id) = (self.clone(), node.id);
            let task = tokio::spawn(async move {
                match consoles.watch(id).await {
                    Ok(mut watcher) => {
                        drop(consoles);
                        while watcher.next().await.is_some() {}
                    }
                    Err(error) => tracing::debug!(node = %id, %error, "its console is not recorded"),
                }
            });
            let again = now + AGAIN;
            held.insert(node.id, Holding { task, again });
        }
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

/// Where a machine's console is recorded. Node names are host names already; a path must not depend on that.
fn path_of(folder: &Path, name: &str) -> PathBuf {
    let safe = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-');
    folder.join(format!("{}.log", safe.collect::<String>()))
}

/// What a console printed, in a file. A record that cannot be written is no reason to show nothing.
struct Record {
    path: PathBuf,
    file: Option<(File, u64)>,
}

impl Record {
    async fn begin(folder: &Path, name: &str) -> Self {
        let path = path_of(folder, name);
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
