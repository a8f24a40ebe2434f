//! The second terminal: verbs for a rack that runs, and the registry that says where it is.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use rackbar_vrack::rack::control::{Request, Seen, ask};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::project::Project;

/// Ctrl-], the key telnet and virsh leave with.
const LEAVE: u8 = 0x1d;

/// What a second terminal may ask.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Show running racks and their machines
    List,
    /// Attach to a machine's serial console (Ctrl-] leaves)
    Console(Target),
    /// Press a machine's power button, past its BMC
    Power {
        #[command(flatten)]
        target: Target,
        /// What to do
        #[arg(value_parser = ["on", "off"])]
        state: String,
    },
    /// Write what passes the switch and what happens beside it into a pcapng file until Ctrl-C
    ///
    /// Consoles' lines, faults, links and the appliance's events are lines among the packets in Wireshark, and
    /// FILE.timeline.txt and FILE.timeline.jsonl hold them alone.
    Capture {
        /// One node's ports only, BMC included
        node: Option<String>,
        /// The file [default: NODE.pcapng or rack.pcapng]
        #[arg(long, short)]
        output: Option<PathBuf>,
        #[command(flatten)]
        rack: Which,
    },
    /// Pull a node's network cables
    Cut {
        #[command(flatten)]
        target: Target,
        /// Plug them in again
        #[arg(long)]
        heal: bool,
    },
    /// Restart the switch with its configuration lost: all ports in VLAN 1, spanning tree on, no bundles
    Forget {
        /// Give it its configuration back
        #[arg(long)]
        restore: bool,
        #[command(flatten)]
        rack: Which,
    },
    /// End a rack
    Down {
        #[command(flatten)]
        rack: Which,
    },
}

/// A machine of a running rack.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// A node, or `appliance`
    node: String,
    #[command(flatten)]
    rack: Which,
}

/// Which running rack.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The rack's name, when several run
    #[arg(long)]
    rack: Option<String>,
}

/// Where running racks are written down: a folder with a file each.
pub(super) struct Registry {
    folder: PathBuf,
}

/// One running rack.
#[derive(Debug, Serialize, Deserialize)]
struct Running {
    name: String,
    socket: PathBuf,
}

/// A rack's line in the registry; gone when dropped.
pub(super) struct Entry(PathBuf);

impl Drop for Entry {
    fn drop(&mut self) {
        // One that is gone already is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Registry {
    pub(super) fn new(project: &Project) -> Self {
        Self {
            folder: project.target.join("racks"),
        }
    }

    /// Writes a rack down.
    pub(super) fn enter(&self, name: &str, socket: &Path) -> Result<Entry> {
        std::fs::create_dir_all(&self.folder).with_context(|| format!("creating {}", self.folder.display()))?;
        let path = self.folder.join(format!("{name}-{}.json", std::process::id()));
        let running = Running {
            name: name.to_owned(),
            socket: socket.to_path_buf(),
        };
        let text = serde_json::to_string(&running).context("writing the registry")?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(Entry(path))
    }

    /// All racks that answer, with their machines; entries of racks that were killed are removed.
    async fn running(&self) -> Result<Vec<(Running, Vec<Seen>)>> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.context("reading the registry of racks")?.path();
            let Ok(file) = File::open(&path) else { continue };
            let Ok(running) = serde_json::from_reader::<_, Running>(file) else {
                continue;
            };
            match ask(&running.socket, &Request::List).await {
                Ok((answer, _)) => found.push((running, answer.machines)),
                Err(_) => drop(Entry(path)),
            }
        }
        Ok(found)
    }

    /// The one rack that is meant.
    async fn find(&self, which: &Which) -> Result<Running> {
        let mut found = self.running().await?;
        if let Some(name) = &which.rack {
            found.retain(|(running, _)| running.name == *name);
        }
        match found.pop() {
            Some((running, _)) if found.is_empty() => Ok(running),
            Some(_) => bail!("several racks run; say which with --rack NAME"),
            None => bail!("no such rack runs; start one with `cargo xtask rack`"),
        }
    }
}

/// Carries out a verb.
pub(super) async fn run(verb: &Verb, registry: &Registry) -> Result<()> {
    match verb {
        Verb::List => list(&registry.running().await?),
        Verb::Console(target) => console(&registry.find(&target.rack).await?.socket, &target.node).await?,
        Verb::Power { target, state } => {
            let request = Request::Power {
                node: target.node.clone(),
                on: state == "on",
            };
            ask(&registry.find(&target.rack).await?.socket, &request).await?;
            println!("{} is {state}", target.node);
        }
        Verb::Capture { node, output, rack } => {
            capture(&registry.find(rack).await?.socket, node.as_deref(), output.as_deref()).await?;
        }
        Verb::Cut { target, heal } => {
            let request = Request::Cut {
                node: target.node.clone(),
                cut: !heal,
            };
            ask(&registry.find(&target.rack).await?.socket, &request).await?;
            println!(
                "{}: cables {}",
                target.node,
                if *heal { "plugged in" } else { "pulled" }
            );
        }
        Verb::Forget { restore, rack } => {
            let (request, said) = if *restore {
                (Request::RestoreSwitch, "has its configuration again")
            } else {
                (
                    Request::ForgetSwitch,
                    "restarted and forgot its configuration; `rack forget --restore` gives it back",
                )
            };
            ask(&registry.find(rack).await?.socket, &request).await?;
            println!("the switch {said}");
        }
        Verb::Down { rack } => {
            ask(&registry.find(rack).await?.socket, &Request::Down).await?;
        }
    }
    Ok(())
}

fn list(running: &[(Running, Vec<Seen>)]) {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["rack", "machine", "power", "MAC", "BMC", "console log"]);
    for (rack, machines) in running {
        for machine in machines {
            table.add_row([
                rack.name.clone(),
                machine.name.clone(),
                if machine.on { "on" } else { "off" }.to_owned(),
                machine.mac.clone(),
                machine.bmc.clone().unwrap_or_default(),
                machine.log.display().to_string(),
            ]);
        }
    }
    println!("{table}");
}

async fn capture(socket: &Path, node: Option<&str>, output: Option<&Path>) -> Result<()> {
    let path = match output {
        Some(path) => path.to_path_buf(),
        None => PathBuf::from(format!("{}.pcapng", node.unwrap_or("rack"))),
    };
    // The rack runs in another folder.
    let path = std::path::absolute(&path).with_context(|| format!("finding {}", path.display()))?;
    let request = Request::Capture {
        node: node.map(str::to_owned),
        path: path.clone(),
    };
    let (_, mut stream) = ask(socket, &request).await?;
    let text = path.with_extension("timeline.txt");
    println!(
        "capturing into {} and {}; Ctrl-C ends it",
        path.display(),
        text.display()
    );
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for Ctrl-C")?,
        // The rack says nothing more; the end of the stream is its end.
        _ = stream.read_u8() => println!("the rack ended"),
    }
    Ok(())
}

/// The terminal as it was, put back when dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Option<Self>> {
        let input = std::io::stdin();
        if !input.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(input.as_fd()).context("reading the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(input.as_fd(), SetArg::TCSANOW, &raw).context("setting the terminal")?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone away needs no settings.
        let _ = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, &self.0);
    }
}

async fn console(socket: &Path, node: &str) -> Result<()> {
    let (_, mut stream) = ask(socket, &Request::Console { node: node.to_owned() }).await?;
    eprintln!("console of {node}; Ctrl-] leaves");
    let raw = Raw::enter()?;
    let (mut keyboard, mut screen) = (tokio::io::stdin(), tokio::io::stdout());
    let (mut typed, mut printed) = ([0; 256], [0; 8192]);
    let mut typing = true;
    loop {
        tokio::select! {
            read = keyboard.read(&mut typed), if typing => match read.context("reading the keyboard")? {
                // A script's input has ended; its output may go on.
                0 => typing = false,
                count if raw.is_some() && typed[..count].contains(&LEAVE) => break,
                count => stream.write_all(&typed[..count]).await.context("typing")?,
            },
            read = stream.read(&mut printed) => match read.context("reading the console")? {
                0 => break,
                count => {
                    screen.write_all(&printed[..count]).await.context("printing")?;
                    screen.flush().await.context("printing")?;
                }
            },
        }
    }
    drop(raw);
    eprintln!();
    Ok(())
}
