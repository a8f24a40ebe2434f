//! One life of a machine: from the start of its QEMU to its end.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};

use super::arguments::{Start, arguments};
use super::children;
use super::config::MachineConfig;
use crate::console::Console;
use crate::qmp::Qmp;

/// swtpm creates its socket within a second; a busy machine gets more.
const TPM_READY: Duration = Duration::from_secs(60);

/// A running QEMU, paused at its first instruction (`-S`) until [`Qmp::cont`].
pub(super) struct Process {
    pub(super) qmp: Arc<Qmp>,
    pub(super) pid: Option<u32>,
    /// Tells the monitor to kill.
    pub(super) kill: Option<oneshot::Sender<()>>,
}

/// What the monitor waits on.
pub(super) struct Children {
    pub(super) qemu: Child,
    pub(super) tpm: Option<Child>,
}

/// Starts the machine's processes and connects to its control socket.
pub(super) async fn launch(
    config: &MachineConfig,
    start: &Start<'_>,
    console: &Console,
) -> io::Result<(Process, Children)> {
    let tpm = if config.tpm {
        Some(start_tpm(config).await?)
    } else {
        None
    };
    let log = config.path("qemu.log");
    let mut command = Command::new("qemu-system-x86_64");
    command.args(arguments(config, start));
    // The directory the relative parts of QEMU (core dumps, stray files) would land in.
    command.current_dir(&config.directory);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log)?);
    let socket = config.path("qmp");
    remove_stale(&socket)?;
    let mut qemu = children::spawn(command).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            error.kind(),
            "qemu-system-x86_64 is not installed: run `cargo xtask setup`, or apt-get install qemu-system-x86",
        ),
        _ => error,
    })?;
    if let (Some(stdin), Some(stdout)) = (qemu.stdin.take(), qemu.stdout.take()) {
        wire_console(console, stdin, stdout);
    }
    let pid = qemu.id();
    let qmp = tokio::select! {
        qmp = Qmp::connect(&socket) => qmp,
        ended = qemu.wait() => return Err(died(&config.name, ended, &log)),
    };
    // A QEMU that dislikes a later argument ends in the middle of the greeting; its own words are on its log.
    let qmp = match qmp {
        Ok(qmp) => qmp,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
        Err(_) => return Err(died(&config.name, qemu.wait().await, &log)),
    };
    let process = Process {
        qmp: Arc::new(qmp),
        pid,
        kill: None,
    };
    Ok((process, Children { qemu, tpm }))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn died(name: &str, ended: io::Result<std::process::ExitStatus>, log: &Path) -> io::Error {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let ended = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
    io::Error::other(format!("QEMU of {name} ended at its start ({ended}): {}", said.trim()))
}

/// The serial port is QEMU's standard input and output: nothing is lost before a reader has connected.
fn wire_console(console: &Console, mut stdin: ChildStdin, mut stdout: ChildStdout) {
    let (sender, mut typed) = mpsc::unbounded_channel::<Vec<u8>>();
    console.set_input(Some(sender));
    // Both end by themselves when QEMU does.
    let screen = console.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = stdout.read(&mut buffer).await {
            screen.printed(&buffer[..count]);
        }
    });
    tokio::spawn(async move {
        while let Some(bytes) = typed.recv().await {
            if stdin.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
}

/// Starts the TPM of one machine; its state stays in the run directory, as a soldered chip's would.
async fn start_tpm(config: &MachineConfig) -> io::Result<Child> {
    let state = config.path("tpm");
    std::fs::create_dir_all(&state)?;
    let socket = config.path("tpm.sock");
    remove_stale(&socket)?;
    let mut command = Command::new("swtpm");
    command.args(["socket", "--tpm2", "--terminate", "--flags", "startup-clear"]);
    command.arg("--tpmstate").arg(format!("dir={}", state.display()));
    command
        .arg("--ctrl")
        .arg(format!("type=unixio,path={}", socket.display()));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(config.path("tpm.log"))?);
    let mut child = children::spawn(command).await.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot start swtpm, the software TPM (Debian package swtpm): {error}"),
        )
    })?;
    let ready = async {
        while !socket.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = ready => Ok(child),
        ended = child.wait() => Err(died(&config.name, ended, &config.path("tpm.log"))),
        () = tokio::time::sleep(TPM_READY) => Err(io::Error::other(format!("swtpm of {} made no socket", config.name))),
    }
}
