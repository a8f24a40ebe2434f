//! A running rack's control socket: what a second terminal asks of it. One JSON line each way; a console then goes on
//! as raw bytes, a capture for as long as the connection stands.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;

use super::Rack;
use crate::console::Console;
use crate::seat::{MachinePower, PowerAction, PowerState};
use crate::switch::Tasks;

/// Longest request line.
const LONGEST: u64 = 64 << 10;
/// The appliance's name in requests.
const APPLIANCE: &str = "appliance";

/// A request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Request {
    /// What is there.
    List,
    /// Attach to a serial console.
    Console {
        /// A node, or `appliance`.
        node: String,
    },
    /// Power on or off, past the BMC.
    Power {
        /// A node, or `appliance`.
        node: String,
        /// On, or off.
        on: bool,
    },
    /// Capture into a file until the connection ends.
    Capture {
        /// One node, or the whole switch.
        node: Option<String>,
        /// Where to write.
        path: PathBuf,
    },
    /// Pull or plug a node's cables.
    Cut {
        /// The node.
        node: String,
        /// Pull, or plug in again.
        cut: bool,
    },
    /// Restart the switch, its configuration lost.
    ForgetSwitch,
    /// Give the switch its configuration back.
    RestoreSwitch,
    /// End the rack.
    Down,
}

/// One machine in an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// It has power.
    pub on: bool,
    /// Hardware address of its first NIC.
    pub mac: String,
    /// Its BMC's address, when it has one.
    pub bmc: Option<String>,
    /// Its console's log file.
    pub log: PathBuf,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Why not, when it was not done.
    pub error: Option<String>,
    /// The machines, for [`Request::List`].
    #[serde(default)]
    pub machines: Vec<Seen>,
}

/// Answers on a socket until dropped; `down` is notified when somebody wants the rack to end.
pub struct Control {
    socket: PathBuf,
    _tasks: Tasks,
}

impl Control {
    /// Listens in the rack's run directory.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(rack: &Arc<Rack>, down: Arc<Notify>) -> io::Result<Self> {
        let socket = rack.directory().join("control");
        let listener = UnixListener::bind(&socket)?;
        let tasks = Tasks::default();
        // Weak: the socket must not keep the rack alive.
        let rack = Arc::downgrade(rack);
        tasks.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let Some(rack) = rack.upgrade() else { return };
                connections.spawn(serve(rack, stream, Arc::clone(&down)));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { socket, _tasks: tasks })
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Sends a request to a running rack; the stream goes on after the answer.
///
/// # Errors
/// When the rack is not there, or it refused: its words.
pub async fn ask(socket: &Path, request: &Request) -> io::Result<(Answer, BufReader<UnixStream>)> {
    let mut stream = BufReader::new(UnixStream::connect(socket).await?);
    let mut line = serde_json::to_string(request).map_err(io::Error::other)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let answer: Answer = serde_json::from_str(&line).map_err(io::Error::other)?;
    match answer.error {
        Some(error) => Err(io::Error::other(error)),
        None => Ok((answer, stream)),
    }
}

async fn serve(rack: Arc<Rack>, stream: UnixStream, down: Arc<Notify>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    (&mut reader).take(LONGEST).read_line(&mut line).await?;
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => return answer(&mut writer, Err(io::Error::other(format!("not a request: {error}")))).await,
    };
    match request {
        Request::List => answer(&mut writer, Ok(list(&rack))).await,
        Request::Power { node, on } => {
            let action = if on { PowerAction::On } else { PowerAction::ForceOff };
            let done = power(&rack, &node, action).await;
            answer(&mut writer, done.map(|()| Vec::new())).await
        }
        Request::Cut { node, cut } => {
            let done = rack.cut(&node, cut).await;
            answer(&mut writer, done.map(|()| Vec::new())).await
        }
        Request::ForgetSwitch => answer(&mut writer, rack.forget_switch().await.map(|()| Vec::new())).await,
        Request::RestoreSwitch => {
            rack.restore_switch();
            answer(&mut writer, Ok(Vec::new())).await
        }
        Request::Down => {
            answer(&mut writer, Ok(Vec::new())).await?;
            down.notify_one();
            Ok(())
        }
        Request::Capture { node, path } => {
            let file = match rack.capture(node.as_deref(), &path) {
                Ok(file) => file,
                Err(error) => return answer(&mut writer, Err(error)).await,
            };
            answer(&mut writer, Ok(Vec::new())).await?;
            // The other end says nothing more; its end ends the capture.
            let _ = reader.read_u8().await;
            rack.switch().stop_capture(&file);
            Ok(())
        }
        Request::Console { node } => match console(&rack, &node) {
            Ok(console) => {
                answer(&mut writer, Ok(Vec::new())).await?;
                // The rack may end while somebody watches.
                drop(rack);
                attach(&console, reader, writer).await
            }
            Err(error) => answer(&mut writer, Err(error)).await,
        },
    }
}

async fn answer(writer: &mut (impl AsyncWrite + Unpin), result: io::Result<Vec<Seen>>) -> io::Result<()> {
    let answer = match result {
        Ok(machines) => Answer { error: None, machines },
        Err(error) => Answer {
            error: Some(error.to_string()),
            machines: Vec::new(),
        },
    };
    let mut line = serde_json::to_string(&answer).map_err(io::Error::other)?;
    line.push('\n');
    writer.write_all(line.as_bytes()).await
}

fn list(rack: &Rack) -> Vec<Seen> {
    let appliance = rack.appliance().map(|appliance| Seen {
        name: APPLIANCE.into(),
        on: appliance.machine.state() == PowerState::On,
        mac: rack.appliance_interfaces()[0].mac.to_string(),
        bmc: None,
        log: appliance.machine.console().log_path().to_path_buf(),
    });
    let nodes = rack.nodes().iter().map(|node| Seen {
        name: node.name.clone(),
        on: node.machine.state() == PowerState::On,
        mac: node.macs.first().map(ToString::to_string).unwrap_or_default(),
        bmc: node
            .bmc
            .as_ref()
            .and_then(|host| Some(host.bound()?.address.to_string())),
        log: node.machine.console().log_path().to_path_buf(),
    });
    appliance.into_iter().chain(nodes).collect()
}

async fn power(rack: &Rack, name: &str, action: PowerAction) -> io::Result<()> {
    match rack.appliance().filter(|_| name == APPLIANCE) {
        Some(appliance) => appliance.machine.act(action).await,
        None => rack.power(name, action).await,
    }
}

fn console(rack: &Rack, name: &str) -> io::Result<Console> {
    match rack.appliance().filter(|_| name == APPLIANCE) {
        Some(appliance) => Ok(appliance.machine.console().clone()),
        None => rack
            .node(name)
            .map(|node| node.machine.console().clone())
            .ok_or_else(|| super::no_node(rack, name)),
    }
}

/// Joins a terminal and a console until the terminal leaves.
async fn attach(
    console: &Console,
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let (before, mut output) = console.attach();
    writer.write_all(&before).await?;
    let mut typed = [0; 1024];
    loop {
        tokio::select! {
            read = reader.read(&mut typed) => match read? {
                0 => return Ok(()),
                count => console.write(&typed[..count]),
            },
            printed = output.recv() => match printed {
                Ok(bytes) => writer.write_all(&bytes).await?,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}
