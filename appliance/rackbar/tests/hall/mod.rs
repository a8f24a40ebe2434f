//! A hall with one machine in it: the real daemon in a network namespace, and behind its BMC network a simulated BMC that
//! gets its address by udhcpc, as every BMC that Rackbar has not met before.

#![allow(clippy::unwrap_used, reason = "a helper of tests: a panic is the failure")]
#![allow(dead_code, reason = "each test program uses a part")]

use std::net::Ipv4Addr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use rackbar_model::MacAddr;
use rackbar_vrack::bmc::{BmcState, Loopback, LoopbackConfig, Pretend};
use rackbar_vrack::console::Console;
use rackbar_vrack::seat::{Identity, PowerState};
use serde_json::Value;

pub(crate) const RACKBAR: &str = env!("CARGO_BIN_EXE_rackbar");
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The API, inside the daemon's namespace.
const API: &str = "127.0.0.1:443";
const NIC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const BMC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x65]);

const CONFIG: &str = r#"
version = 1
name = "hall"
[[network]]
name = "rack"
role = "rack"
interface = "lo"
address = "10.255.255.1/30"
dhcp = "off"
[[network]]
name = "bmc"
role = "bmc"
interface = "bmc0"
address = "10.79.0.1/24"
dhcp = "own"
pool = ["10.79.0.100-10.79.0.110"]
[bmc]
[[bmc.credential]]
username = "admin"
password = "secret"
"#;

/// Two namespaces on one cable: `server` has `bmc0` (10.79.0.1), `client` has `c0`, the BMC's own port.
struct Net(String);

impl Net {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let euid = nix::unistd::geteuid();
        assert!(euid.is_root(), "this test makes network namespaces and needs root");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let net = Self(format!("rbh{}-{number}", std::process::id()));
        let [server, client] = ["server", "client"].map(|part| net.name(part));
        for name in [&server, &client] {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        ip(&format!(
            "-n {server} link add bmc0 type veth peer name c0 netns {client}"
        ));
        ip(&format!("-n {server} addr add 10.79.0.1/24 dev bmc0"));
        ip(&format!("-n {server} link set bmc0 up"));
        ip(&format!("-n {client} link set c0 address {BMC} up"));
        net
    }

    fn name(&self, part: &str) -> String {
        format!("{}-{part}", self.0)
    }

    fn command(&self, part: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(part), program]);
        command
    }

    /// Runs `body` on a thread inside a namespace.
    fn inside(&self, part: &str, body: impl FnOnce() + Send + 'static) {
        let handle = std::fs::File::open(format!("/run/netns/{}", self.name(part))).unwrap();
        std::thread::spawn(move || {
            setns(&handle, CloneFlags::CLONE_NEWNET).unwrap();
            body();
        });
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for part in ["server", "client"] {
            // The test is over either way.
            let _ = Command::new("ip").args(["netns", "del", &self.name(part)]).output();
        }
    }
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {done:#?}");
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
    #[track_caller]
    pub(crate) fn well(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// What it complained of, when it ended with this code.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.err
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

/// The hall.
pub(crate) struct Hall {
    daemon: Child,
    pub(crate) folder: tempfile::TempDir,
    /// What the BMC holds, behind its faces.
    pub(crate) bmc: Arc<BmcState>,
    /// The machine behind it.
    pub(crate) machine: Arc<Pretend>,
    /// Its serial port.
    pub(crate) serial: Console,
    /// The machine's name.
    pub(crate) node: String,
    // Ends the BMC when dropped.
    _bmc: tokio::sync::oneshot::Sender<()>,
    net: Net,
}

impl Hall {
    /// A machine that is on, found by its BMC.
    pub(crate) fn open() -> Self {
        Self::prepared(|_| {})
    }

    /// The same, with something put into its folder, where the configuration lies, before the daemon starts.
    pub(crate) fn prepared(put: impl FnOnce(&std::path::Path)) -> Self {
        Self::prepared_with("", put)
    }

    /// The same, with more in its configuration.
    pub(crate) fn prepared_with(more: &str, put: impl FnOnce(&std::path::Path)) -> Self {
        let (net, folder) = (Net::new(), tempfile::tempdir().unwrap());
        put(folder.path());
        let machine = Arc::new(Pretend::new(PowerState::On));
        let serial = Console::new(&folder.path().join("serial.log")).unwrap();
        let (bmc, end) = start_bmc(&net, machine.clone(), serial.clone());
        let daemon = start_daemon(&net, folder.path(), more);
        let mut hall = Self {
            daemon,
            folder,
            bmc,
            machine,
            serial,
            node: String::new(),
            _bmc: end,
            net,
        };
        hall.until("it serves", |hall| {
            hall.log().contains("rackbar: serving").then_some(())
        });
        hall.lease();
        hall.node = hall.until("its BMC is found and asked for its power", |hall| {
            let nodes: Value = serde_json::from_str(&hall.ask(&["--json", "node", "list"]).well()).unwrap();
            let found = nodes.as_array()?.iter().find(|node| node["power"] == "on")?;
            Some(found["name"].as_str()?.to_owned())
        });
        hall
    }

    /// The BMC asks for an address and takes it.
    fn lease(&self) {
        use std::os::unix::fs::PermissionsExt as _;
        let script = self.folder.path().join("script");
        let text = "#!/bin/sh\n[ \"$1\" = bound ] && exec ip addr add $ip/$mask dev $interface\nexit 0\n";
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut udhcpc = self.net.command("client", "busybox");
        udhcpc.args(["udhcpc", "-i", "c0", "-n", "-q", "-f", "-t", "8", "-T", "1", "-s"]);
        let said = udhcpc.arg(&script).output().unwrap();
        assert!(said.status.success(), "no lease: {said:#?}; the log:\n{}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until there is an answer.
    #[track_caller]
    pub(crate) fn until<T>(&self, what: &str, mut answer: impl FnMut(&Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = answer(self) {
                return answer;
            }
            assert!(Instant::now() < end, "not in time: {what}; the log:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    /// The command line as admin, ready to be started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_by("run/admin-token", arguments)
    }

    /// The command line as the holder of the token in this file.
    pub(crate) fn command_by(&self, token: &str, arguments: &[&str]) -> Command {
        let log = self.log();
        let mark = "site CA ";
        let pin = &log[log.find(mark).unwrap() + mark.len()..][..64];
        let mut command = self.net.command("server", RACKBAR);
        command
            .args(["--endpoint", API, "--fingerprint", pin, "--token-file"])
            .arg(self.folder.path().join(token))
            .args(arguments);
        command
    }

    /// Runs the command line as admin.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Said {
        self.command(arguments).stdin(Stdio::null()).output().unwrap().into()
    }

    /// The same, read as JSON.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let said = self.ask(&[&["--json"], arguments].concat()).well();
        serde_json::from_str(&said).unwrap()
    }

    /// Brings this thread beside the daemon: what it starts and connects to from now on is there.
    pub(crate) fn enter(&self) {
        let handle = std::fs::File::open(format!("/run/netns/{}", self.net.name("server"))).unwrap();
        setns(&handle, CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// A program beside the daemon.
    pub(crate) fn program(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.net.command("server", program);
        command.args(arguments);
        command
    }

    /// Runs a program on the BMC's side of the cable to its end.
    pub(crate) fn inside_client(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = self.net.command("client", program);
        command.args(arguments).output().unwrap()
    }

    /// Address of the BMC.
    pub(crate) fn bmc_address(&self) -> String {
        let node = self.json(&["node", "show", &self.node]);
        node["bmc_address"].as_str().unwrap().to_owned()
    }

    /// The audit trail, in words.
    pub(crate) fn audit(&self) -> String {
        self.ask(&["audit"]).well()
    }
}

impl Drop for Hall {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}

/// The BMC on every address of its namespace, with the ports of its standards.
fn start_bmc(net: &Net, machine: Arc<Pretend>, console: Console) -> (Arc<BmcState>, tokio::sync::oneshot::Sender<()>) {
    let config = LoopbackConfig {
        power: machine,
        console,
        identity: Identity {
            manufacturer: "Virtual".into(),
            product: "Node".into(),
            serial: "SN-1".into(),
            uuid: "4c4c4544-0042-4410-8056-b4c04f363132".into(),
            board_serial: "B-1".into(),
            asset_tag: "A-1".into(),
            firmware_version: "1".into(),
        },
        nics: vec![NIC],
        mac: BMC,
        username: "admin".into(),
        password: "secret".into(),
        kcs_socket: None,
    };
    let (end, ended) = tokio::sync::oneshot::channel();
    let (send, started) = std::sync::mpsc::channel();
    net.inside("client", move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let bmc = Loopback::start_at(config, Ipv4Addr::UNSPECIFIED, (443, 623))
                .await
                .unwrap();
            send.send(bmc.state().clone()).unwrap();
            // The hall is closed either way.
            let _ = ended.await;
        });
    });
    (started.recv_timeout(PATIENCE).unwrap(), end)
}

fn start_daemon(net: &Net, folder: &std::path::Path, more: &str) -> Child {
    let path = |name: &str| folder.join(name);
    std::fs::write(path("rackbar.toml"), format!("{CONFIG}{more}")).unwrap();
    let log = std::fs::File::create(path("log")).unwrap();
    let mut command = net.command("server", RACKBAR);
    command
        .args(["daemon", "--no-network-setup", "--boot-files", "/nonexistent"])
        .args(["--listen-api", API]);
    for (option, name) in [("--config", "rackbar.toml"), ("--data", "data"), ("--run", "run")] {
        command.arg(option).arg(path(name));
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}
