//! The daemon as a child on loopback, and the command line that is put to it: both are the real program.

#![allow(clippy::unwrap_used, reason = "a helper of tests: a panic is the failure")]
#![allow(dead_code, reason = "each test program uses a part")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rackbar_store::Store;
use serde_json::{Value, json};

const RACKBAR: &str = env!("CARGO_BIN_EXE_rackbar");
/// Starting takes a second on an idle machine; builds beside it make it slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A rack without DHCP whose address nobody has: no port below 1024 is needed, and no other machine can be disturbed. A file
/// that is refused would make the daemon serve by its safe defaults, on the interfaces of this machine.
pub(crate) const CONFIG: &str = r#"
version = 1
name = "loop"
[[network]]
name = "rack"
role = "rack"
interface = "lo"
address = "10.255.255.1/30"
dhcp = "off"
"#;

/// The id of a machine that [`ready`] makes.
pub(crate) fn id(number: u8) -> String {
    format!("0000000{number}-0000-0000-0000-000000000000")
}

/// A machine that an earlier life of the appliance installed and proved.
pub(crate) fn ready(number: u8) -> Value {
    let at = "2026-11-20T17:24:28.123Z";
    let name = format!("web-{number}");
    json!({
        "id": id(number), "name": name, "state": "ready", "state_since": at, "first_seen": at, "last_seen": at,
        "agent_connected": false, "power": "on", "address": "127.0.0.9", "bmc_address": null,
        "macs": [format!("02:00:00:00:00:0{number}")], "witnesses": [], "collisions": [], "inventory": null,
        "inventory_at": null, "verdict": "", "role": "web",
        "installed": {
            "image": "debian-12", "sha256": "00".repeat(32), "target": { "disk": { "serial": "A" } },
            "hostname": name, "at": at, "run": 1,
        },
    })
}

/// Writes machines into the state of an appliance that has not started yet.
pub(crate) fn keep(folder: &Path, nodes: &[Value]) {
    let data = folder.join("data");
    std::fs::create_dir_all(&data).unwrap();
    let store = Store::open(data.join("rackbar.redb")).unwrap();
    for node in nodes {
        let id = node["id"].as_str().unwrap().parse().unwrap();
        store.save_node(id, serde_json::to_vec(&json!({ "node": node })).unwrap());
    }
    store.close();
}

/// A running appliance.
pub(crate) struct Appliance {
    child: Child,
    lines: Receiver<String>,
    folder: PathBuf,
    api: SocketAddr,
    fingerprint: String,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Its output, when it did well.
    pub(crate) fn well(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// What it complained of, when it ended with this code.
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.err
    }
}

/// The program; it finds no appliance by itself.
fn program(home: &Path, arguments: &[&str]) -> Command {
    let mut program = Command::new(RACKBAR);
    program
        .args(arguments)
        .env_clear()
        .env("XDG_CONFIG_HOME", home)
        .env("XDG_CACHE_HOME", home);
    program
}

/// Runs the program.
pub(crate) fn rackbar(home: &Path, arguments: &[&str], input: &str) -> Said {
    let mut child = program(home, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that does not read has closed it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// A daemon on the state in `folder`, which may not be ready yet, and what it prints.
fn spawn(folder: &Path) -> (Child, Receiver<String>) {
    std::fs::create_dir_all(folder).unwrap();
    let config = folder.join("rackbar.toml");
    // One that a test has put there stays.
    if !config.exists() {
        std::fs::write(&config, CONFIG).unwrap();
    }
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    let mut child = Command::new(RACKBAR)
        .args(["daemon", "--no-network-setup", "--boot-files", "/nonexistent"])
        .args(["--listen-api", "127.0.0.1:0", "--listen-http", "127.0.0.1:0"])
        .args(["--listen-tftp", "127.0.0.1:0", "--listen-agents", "127.0.0.1:0"])
        .arg("--config")
        .arg(&config)
        .arg("--data")
        .arg(folder.join("data"))
        .arg("--run")
        .arg(folder.join("run"))
        .arg("--agent")
        .arg(Path::new(RACKBAR).with_file_name("rackbar-agent"))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (send, lines) = channel();
    std::thread::spawn(move || out.lines().map_while(Result::ok).all(|line| send.send(line).is_ok()));
    (child, lines)
}

/// The next line that begins so; the log is shown when it does not come.
fn line(folder: &Path, lines: &Receiver<String>, begin: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line.starts_with(begin) => return line,
            Ok(_) => {}
            Err(error) => {
                let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
                panic!("the daemon did not say {begin:?}: {error}; its log:\n{log}");
            }
        }
    }
}

impl Appliance {
    /// Starts on the state in `folder` and waits until it serves.
    pub(crate) fn start(folder: &Path) -> Self {
        let (child, lines) = spawn(folder);
        let mut appliance = Self {
            child,
            lines,
            folder: folder.to_path_buf(),
            api: ([127, 0, 0, 1], 0).into(),
            fingerprint: String::new(),
        };
        appliance.await_service();
        appliance
    }

    /// Starts where the secrets are locked, and waits until the daemon waits for the passphrase.
    pub(crate) fn start_locked(folder: &Path) -> Self {
        let (child, lines) = spawn(folder);
        line(folder, &lines, "rackbar: the stored secrets are locked");
        Self {
            child,
            lines,
            folder: folder.to_path_buf(),
            api: ([127, 0, 0, 1], 0).into(),
            fingerprint: String::new(),
        }
    }

    /// Waits until it says that it serves, as it does at each start, and until the API answers.
    pub(crate) fn await_service(&mut self) {
        let ready = line(&self.folder, &self.lines, "rackbar: serving");
        // Not by its safe defaults.
        assert!(ready.contains("10.255.255.1/30"), "{ready}");
        let after = |mark: &str| {
            let rest = &ready[ready.find(mark).unwrap() + mark.len()..];
            rest.split([';', ' ']).next().unwrap().to_owned()
        };
        self.api = after("; api ").parse().unwrap();
        self.fingerprint = after("; site CA ");
        // What listens is known; that somebody accepts there is seen by a connection.
        TcpStream::connect_timeout(&self.api, PATIENCE).unwrap();
    }

    /// The most memory that it had so far, in bytes (`VmHWM` of proc(5)).
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Where API and page are.
    pub(crate) fn api(&self) -> SocketAddr {
        self.api
    }

    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn run_folder(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// The command line as the holder of the token in this file.
    pub(crate) fn by(&self, token_file: &Path, arguments: &[&str], input: &str) -> Said {
        let token = token_file.display().to_string();
        rackbar(
            &self.folder,
            &self.whole(&self.api.to_string(), &token, arguments),
            input,
        )
    }

    fn whole<'a>(&'a self, api: &'a str, token: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
        let place = [
            "--endpoint",
            api,
            "--fingerprint",
            &self.fingerprint,
            "--token-file",
            token,
        ];
        [&place, arguments].concat()
    }

    /// The command line as admin, to be started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let token = self.run_folder().join("admin-token").display().to_string();
        program(&self.folder, &self.whole(&self.api.to_string(), &token, arguments))
    }

    /// The command line as admin.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Said {
        self.by(&self.run_folder().join("admin-token"), arguments, "")
    }

    /// A file beside its state.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// Ends it in good order and gives its state's folder.
    pub(crate) fn stop(mut self) -> PathBuf {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        // Its output ends with it.
        let deadline = Instant::now() + PATIENCE;
        while self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .is_ok()
        {}
        assert!(self.child.wait().unwrap().success());
        self.folder.clone()
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let mut log = String::new();
            let read = std::fs::File::open(self.folder.join("log")).map(|mut file| file.read_to_string(&mut log));
            eprintln!("the daemon's log ({read:?}):\n{log}");
        }
    }
}
