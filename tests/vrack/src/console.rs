//! A machine's serial console: one source, any number of readers (the log file, `rack console`, Serial over LAN).
//! It belongs to the machine, not to the process, so readers stay attached through power cycles.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::{broadcast, watch};

use crate::switch::locked;

/// Bytes a newcomer is shown of what was before.
const HISTORY: usize = 64 << 10;
/// Chunks a slow reader may fall behind before it misses some.
const BEHIND: usize = 1024;

/// The console. Clones share it.
#[derive(Clone)]
pub struct Console {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    output: broadcast::Sender<Arc<[u8]>>,
    grown: watch::Sender<u64>,
    log_path: PathBuf,
}

struct State {
    history: VecDeque<u8>,
    log: std::fs::File,
    input: Option<tokio::sync::mpsc::UnboundedSender<Vec<u8>>>,
}

impl Console {
    /// A console that records into `log`.
    ///
    /// # Errors
    /// When the log cannot be opened.
    pub fn new(log: &Path) -> io::Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let state = State {
            history: VecDeque::new(),
            log: file,
            input: None,
        };
        let shared = Shared {
            state: Mutex::new(state),
            output: broadcast::Sender::new(BEHIND),
            grown: watch::Sender::new(0),
            log_path: log.to_path_buf(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// What was printed lately and everything from now on, without a gap between the two. A reader that falls far
    /// behind gets `Lagged` and may go on.
    pub fn attach(&self) -> (Vec<u8>, broadcast::Receiver<Arc<[u8]>>) {
        let state = locked(&self.shared.state);
        (state.history.iter().copied().collect(), self.shared.output.subscribe())
    }

    /// Types on the keyboard. Lost while the machine is off, as on a real wire.
    pub fn write(&self, bytes: &[u8]) {
        if let Some(input) = &locked(&self.shared.state).input {
            // The machine may be going down at this moment: then nobody reads, as on a real wire.
            let _ = input.send(bytes.to_vec());
        }
    }

    /// The file with everything printed since the rack started.
    pub fn log_path(&self) -> &Path {
        &self.shared.log_path
    }

    /// Waits until the log holds `text`, and returns the whole log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn wait_for(&self, text: &str) -> io::Result<String> {
        let mut grown = self.shared.grown.subscribe();
        loop {
            let log = String::from_utf8_lossy(&std::fs::read(&self.shared.log_path)?).into_owned();
            if log.contains(text) {
                return Ok(log);
            }
            if grown.changed().await.is_err() {
                return Err(io::Error::other("the console is gone"));
            }
        }
    }

    /// Records what the machine printed and shows it to all readers. The machine calls it; so does a test of a BMC that
    /// has no machine.
    pub fn printed(&self, bytes: &[u8]) {
        {
            let mut state = locked(&self.shared.state);
            if let Err(error) = state.log.write_all(bytes) {
                tracing::warn!(log = %self.shared.log_path.display(), %error, "the console log cannot be written");
            }
            let drop = (state.history.len() + bytes.len())
                .saturating_sub(HISTORY)
                .min(state.history.len());
            state.history.drain(..drop);
            state.history.extend(bytes);
            // Nobody listening is fine.
            let _ = self.shared.output.send(Arc::from(bytes));
        }
        self.shared.grown.send_modify(|count| *count += bytes.len() as u64);
    }

    /// Connects the keyboard to a new process, or to nothing.
    pub fn set_input(&self, input: Option<tokio::sync::mpsc::UnboundedSender<Vec<u8>>>) {
        locked(&self.shared.state).input = input;
    }
}
