//! The real daemon beside a router and a client, each in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "a helper of tests: a panic is the failure")]
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const RACKBAR: &str = env!("CARGO_BIN_EXE_rackbar");
/// Our questions after other DHCP servers are up to half a minute apart.
const PATIENCE: Duration = Duration::from_secs(120);
/// The client's MAC address.
pub const MACHINE: &str = "02:00:00:00:00:61";

/// Three namespaces: `server` has `rack0` (10.78.0.1), `router` has `up0` (10.78.0.254) and `down0` (10.79.0.254), `client`
/// has `c0`.
pub struct Net(String);

impl Net {
    /// With our side set up by others.
    pub fn new() -> Self {
        let net = Self::bare();
        let server = net.name("server");
        ip(&format!("-n {server} addr add 10.78.0.1/24 dev rack0"));
        ip(&format!("-n {server} link set rack0 up"));
        ip(&format!("-n {server} route add 10.79.0.0/24 via 10.78.0.254"));
        net
    }

    /// With `rack0` as a kernel finds it: down, and without an address.
    pub fn bare() -> Self {
        let euid = nix::unistd::geteuid();
        assert!(euid.is_root(), "this test makes network namespaces and needs root");
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let net = Self(format!("rbr{}x{serial}", std::process::id()));
        let [server, router, client] = ["server", "router", "client"].map(|part| net.name(part));
        for name in [&server, &router, &client] {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        ip(&format!(
            "-n {server} link add rack0 type veth peer name up0 netns {router}"
        ));
        ip(&format!(
            "-n {router} link add down0 type veth peer name c0 netns {client}"
        ));
        ip(&format!("-n {router} addr add 10.78.0.254/24 dev up0"));
        ip(&format!("-n {router} addr add 10.79.0.254/24 dev down0"));
        for link in ["up0", "down0"] {
            ip(&format!("-n {router} link set {link} up"));
        }
        ip(&format!("-n {client} link set c0 address {MACHINE} up"));
        let forward = net.run("router", "sh", &["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        assert!(forward.status.success(), "{forward:#?}");
        net
    }

    pub fn name(&self, part: &str) -> String {
        format!("{}-{part}", self.0)
    }

    pub fn command(&self, part: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(part), program]);
        command
    }

    pub fn run(&self, part: &str, program: &str, arguments: &[&str]) -> Output {
        self.command(part, program).args(arguments).output().unwrap()
    }

    /// Our side's routes to a subnet, a line each, without spaces at their ends.
    pub fn routes(&self, subnet: &str) -> Vec<String> {
        let said = self.run("server", "ip", &["-4", "route", "show", subnet]);
        text(&said).lines().map(|line| line.trim().to_owned()).collect()
    }

    /// Debian's relay between the two networks; adds option 82.
    pub fn relay(&self) -> Running {
        let mut command = self.command("router", "dhcrelay");
        command.args(["-4", "-d", "--no-pid", "-a", "-id", "down0", "-iu", "up0", "10.78.0.1"]);
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Running(quiet.spawn().unwrap())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for part in ["server", "router", "client"] {
            // The test is over either way.
            let _ = Command::new("ip").args(["netns", "del", &self.name(part)]).output();
        }
    }
}

pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {done:#?}");
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub struct Appliance<'a> {
    net: &'a Net,
    pub folder: tempfile::TempDir,
    _daemon: Running,
}

impl<'a> Appliance<'a> {
    pub fn start(net: &'a Net, config: &str) -> Self {
        Self::start_with(net, config, &["--no-network-setup"])
    }

    pub fn start_with(net: &'a Net, config: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("boot")).unwrap();
        for name in ["vmlinuz", "base.cpio.zst", "undionly.kpxe", "snponly.efi"] {
            std::fs::write(path("boot").join(name), format!("what stands for {name}")).unwrap();
        }
        std::fs::write(path("rackbar.toml"), config).unwrap();
        let log = std::fs::File::create(path("log")).unwrap();
        let mut command = net.command("server", RACKBAR);
        command.arg("daemon").args(more).args(["--listen-api", "127.0.0.1:443"]);
        for (option, name) in [
            ("--boot-files", "boot"),
            ("--config", "rackbar.toml"),
            ("--data", "data"),
            ("--run", "run"),
        ] {
            command.arg(option).arg(path(name));
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let daemon = Running(command.spawn().unwrap());
        let appliance = Self {
            net,
            folder,
            _daemon: daemon,
        };
        appliance.until("it serves", || appliance.log().contains("rackbar: serving"));
        appliance
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < end, "not in time: {what}; the log:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    /// The command line as admin.
    pub fn ask(&self, arguments: &[&str]) -> String {
        let log = self.log();
        let mark = "site CA ";
        let pin = &log[log.find(mark).unwrap() + mark.len()..][..64];
        let token = self.folder.path().join("run/admin-token").display().to_string();
        let login = [
            "--endpoint",
            "127.0.0.1:443",
            "--fingerprint",
            pin,
            "--token-file",
            &token,
        ];
        let said = self.net.run("server", RACKBAR, &[&login[..], arguments].concat());
        assert!(said.status.success(), "{arguments:?}: {said:#?}");
        text(&said)
    }

    /// A BIOS machine that asks for an address, keeps it, and gives it back when it is told to end.
    pub fn udhcpc(&self, tries: &str, script: &Path) -> Command {
        let arguments = [
            "udhcpc",
            "-i",
            "c0",
            "-n",
            "-f",
            "-t",
            tries,
            "-T",
            "1",
            "-R",
            "-V",
            "PXEClient:Arch:00000:UNDI:002001",
            "-x",
            "0x5d:0000",
            "-O",
            "bootfile",
            "-O",
            "tftp",
            "-s",
        ];
        let script = script.to_str().unwrap();
        let mut command = self.net.command("client", "busybox");
        command.args(arguments).arg(script).stdin(Stdio::null());
        command
    }
}
