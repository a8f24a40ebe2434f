//! Two network namespaces joined by a veth pair: servers at 10.88.0.1, load at 10.88.0.2, both /16.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};

pub(crate) struct Net {
    name: String,
    folder: tempfile::TempDir,
}

impl Net {
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::tempdir_in(std::env::current_dir()?.join("target"))
            .or_else(|_| tempfile::tempdir())
            .context("making a folder for the servers' files")?;
        let net = Self {
            name: format!("rbbench{}", std::process::id()),
            folder,
        };
        let (server, client) = (net.namespace("server"), net.namespace("client"));
        for line in [
            format!("netns add {server}"),
            format!("netns add {client}"),
            format!("-n {server} link add rack0 type veth peer name load0 netns {client}"),
            format!("-n {server} addr add 10.88.0.1/16 dev rack0"),
            format!("-n {client} addr add 10.88.0.2/16 dev load0"),
            format!("-n {server} link set lo up"),
            format!("-n {server} link set rack0 up"),
            format!("-n {client} link set load0 up"),
        ] {
            let output = Command::new("ip")
                .args(line.split(' '))
                .output()
                .context("running ip")?;
            ensure!(
                output.status.success(),
                "ip {line}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(net)
    }

    fn namespace(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    /// A command that runs in the servers' namespace.
    pub(crate) fn server_command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace("server"), program]);
        command
    }

    /// A command that runs in the clients' namespace.
    pub(crate) fn client_command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace("client"), program]);
        command
    }

    /// Runs `load` on a thread in the clients' namespace; threads it starts stay there.
    pub(crate) fn load<T: Send>(&self, load: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let handle = std::fs::File::open(format!("/run/netns/{}", self.namespace("client")))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(&handle, CloneFlags::CLONE_NEWNET)?;
                load()
            });
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("the load generator panicked"))?
        })
    }

    /// A file of this run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for part in ["server", "client"] {
            // It goes away with the machine at the latest.
            let _ = Command::new("ip")
                .args(["netns", "del", &self.namespace(part)])
                .output();
        }
    }
}
