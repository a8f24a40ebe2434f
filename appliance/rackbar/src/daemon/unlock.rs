//! The wait for the passphrase, when the stored secrets are behind one.
//!
//! The site's keys are among the secrets, so without them there is neither an API nor a signed boot manifest: the daemon
//! waits at a socket file that only root can open, for the console screen or `rackbar unlock`. One line with the
//! passphrase goes in, one line comes back: `ok`, or why not.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rackbar_model::EventKind;
use rackbar_orchestrator::Rack;
use rackbar_store::{LockState, Store};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::block_in_place;

/// The socket's name in the run folder.
pub(crate) const UNLOCK: &str = "unlock.sock";

/// Longest line that is read.
const LONGEST: u64 = 4_096;
/// Longest wait for that line: one who connects and says nothing does not keep others out.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the wait ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// There was nothing to wait for.
    Open,
    /// Somebody gave the passphrase, after so many wrong ones.
    Unlocked(u32),
    /// A signal ended it.
    Ended,
}

impl Waited {
    /// Writes into the audit trail that the secrets were opened: that could not be done before. Waits for the disk.
    ///
    /// # Errors
    /// When the journal does not hold it.
    pub(super) fn tell(self, rack: &Rack) -> Result<()> {
        let Self::Unlocked(wrong) = self else { return Ok(()) };
        let outcome = match wrong {
            0 => "done".to_owned(),
            _ => format!("done, after {wrong} that were refused"),
        };
        let change = EventKind::Changed {
            by: "console".into(),
            what: "open the stored secrets with their passphrase".into(),
            outcome,
            ok: true,
        };
        rack.record_change(change).context("the audit trail cannot be written")
    }
}

/// Waits until the secrets are open.
pub(super) async fn wait(store: &Store, run: &Path) -> Result<Waited> {
    match store.lock_state() {
        LockState::KeyFile | LockState::Memory | LockState::Passphrase => return Ok(Waited::Open),
        LockState::KeyFileLost(why) => bail!("the stored secrets cannot be opened: {why}"),
        LockState::NeedsPassphrase => {}
    }
    let path = run.join(UNLOCK);
    let place = || path.display().to_string();
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(place)?;
    // The folder is root's; between bind and chmod nobody else can reach the socket.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).with_context(place)?;
    println!(
        "rackbar: the stored secrets are locked; waiting for the passphrase at {}",
        place()
    );
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut wrong = 0u32;
    let end = loop {
        let stream = tokio::select! {
            _ = term.recv() => break Waited::Ended,
            _ = interrupt.recv() => break Waited::Ended,
            accepted = listener.accept() => accepted.with_context(place)?.0,
        };
        match tokio::time::timeout(PATIENCE, answer(store, stream)).await {
            Ok(Ok(true)) => break Waited::Unlocked(wrong),
            Ok(Ok(false)) => wrong = wrong.saturating_add(1),
            Err(_) => {}
            Ok(Err(error)) => tracing::debug!(%error, "who came to unlock went away"),
        }
    };
    let _ = std::fs::remove_file(&path);
    Ok(end)
}

async fn answer(store: &Store, stream: UnixStream) -> std::io::Result<bool> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(LONGEST)).read_line(&mut line).await?;
    let opened = block_in_place(|| store.unlock(line.trim_end_matches(['\r', '\n'])));
    let words = match &opened {
        Ok(()) => "ok\n".to_owned(),
        Err(error) => format!("{error}\n"),
    };
    tracing::info!(open = opened.is_ok(), "a passphrase was given");
    write.write_all(words.as_bytes()).await?;
    Ok(opened.is_ok())
}

/// Gives the passphrase to the daemon that waits at `socket`.
///
/// # Errors
/// When nobody waits there, or the passphrase is not the right one.
pub(crate) async fn unlock(socket: &Path, passphrase: &str) -> Result<()> {
    let stream = UnixStream::connect(socket).await;
    let mut stream = stream.with_context(|| {
        format!(
            "no daemon waits for a passphrase at {}: either nothing is locked, or this is not the appliance",
            socket.display()
        )
    })?;
    stream.write_all(format!("{passphrase}\n").as_bytes()).await?;
    let mut words = String::new();
    stream.take(LONGEST).read_to_string(&mut words).await?;
    match words.trim() {
        "ok" => Ok(()),
        "" => bail!("the daemon went away without an answer"),
        why => bail!("{why}"),
    }
}
