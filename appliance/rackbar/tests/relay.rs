//! A network behind a DHCP relay: the real daemon, Debian's relay on a router, and udhcpc behind it.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const RACKBAR: &str = env!("CARGO_BIN_EXE_rackbar");
const PATIENCE: Duration = Duration::from_secs(60);
const MACHINE: &str = "02:00:00:00:00:61";

const NEAR: &str = r#"version = 1
name = "relay"
[[network]]
name = "near"
role = "rack"
interface = "rack0"
address = "10.78.0.1/24"
dhcp = "off"
"#;

const FAR: &str = r#"
[[network]]
name = "far"
role = "rack"
subnet = "10.79.0.0/24"
through = "near"
next_hop = "10.78.0.254"
gateway = "10.79.0.254"
dns = "own"
pool = ["10.79.0.100-10.79.0.120"]
"#;

/// Three namespaces: `server` has `rack0` (10.78.0.1), `router` has `up0` (10.78.0.254) and `down0` (10.79.0.254), `client`
/// has `c0`.
struct Net(String);

impl Net {
    /// With our side set up by others.
    fn new() -> Self {
        let net = Self::bare();
        let server = net.name("server");
        ip(&format!("-n {server} addr add 10.78.0.1/24 dev rack0"));
        ip(&format!("-n {server} link set rack0 up"));
        ip(&format!("-n {server} route add 10.79.0.0/24 via 10.78.0.254"));
        net
    }

    /// With `rack0` as a kernel finds it: down, and without an address.
    fn bare() -> Self {
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

    fn name(&self, part: &str) -> String {
        format!("{}-{part}", self.0)
    }

    fn command(&self, part: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(part), program]);
        command
    }

    fn run(&self, part: &str, program: &str, arguments: &[&str]) -> Output {
        self.command(part, program).args(arguments).output().unwrap()
    }

    /// Our side's routes to a subnet, a line each, without spaces at their ends.
    fn routes(&self, subnet: &str) -> Vec<String> {
        let said = self.run("server", "ip", &["-4", "route", "show", subnet]);
        text(&said).lines().map(|line| line.trim().to_owned()).collect()
    }

    /// Debian's relay between the two networks; adds option 82.
    fn relay(&self) -> Running {
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

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {done:#?}");
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

struct Appliance<'a> {
    net: &'a Net,
    folder: tempfile::TempDir,
    _daemon: Running,
}

impl<'a> Appliance<'a> {
    fn start(net: &'a Net, config: &str) -> Self {
        Self::start_with(net, config, &["--no-network-setup"])
    }

    fn start_with(net: &'a Net, config: &str, more: &[&str]) -> Self {
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

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < end, "not in time: {what}; the log:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    /// The command line as admin.
    fn ask(&self, arguments: &[&str]) -> String {
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
    fn udhcpc(&self, tries: &str, script: &Path) -> Command {
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

/// Takes the address and the router, and leaves what it was told in `told`.
fn write_script(path: &Path, told: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = renew ] && touch {0}.renewed\n[ \"$1\" = bound ] || exit 0\nip addr add $ip/24 dev c0\nip route add default via $router\nenv > {0}.new && mv {0}.new {0}\n",
        told.display()
    );
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_machine_behind_a_real_relay_boots_and_gives_its_address_back() {
    let net = Net::new();
    let _relay = net.relay();
    let appliance = Appliance::start(&net, &format!("{NEAR}{FAR}"));
    let path = |name: &str| appliance.folder.path().join(name);
    let (script, told) = (path("script"), path("told"));
    write_script(&script, &told);
    let client = Running(appliance.udhcpc("20", &script).spawn().unwrap());
    appliance.until("the machine has a lease", || told.exists());
    let told = std::fs::read_to_string(told).unwrap();
    for line in [
        "router=10.79.0.254",
        "serverid=10.78.0.1",
        "siaddr=10.78.0.1",
        "dns=10.78.0.1",
        "mask=24",
    ] {
        assert!(told.lines().any(|one| one == line), "{line}: {told}");
    }
    let address = told.lines().find_map(|line| line.strip_prefix("ip=10.79.0.")).unwrap();
    assert!((100..=120).contains(&address.parse::<u8>().unwrap()), "{told}");
    assert!(told.contains("undionly.kpxe"), "{told}");

    // What it boots from is reached through the router, and knows it.
    let curl = |url: &str| text(&net.run("client", "curl", &["-s", "-m", "10", url]));
    assert_eq!(curl("tftp://10.78.0.1/undionly.kpxe"), "what stands for undionly.kpxe");
    let url = format!("http://10.78.0.1/boot/v1/script.ipxe?mac={}", MACHINE.replace(':', "-"));
    let ipxe = curl(&url);
    assert!(ipxe.contains("rackbar.token=") && ipxe.contains("10.78.0.1"), "{ipxe}");
    assert!(appliance.ask(&["node", "list"]).contains(MACHINE));
    let events = appliance.ask(&["events"]);
    assert!(
        events.contains("discover on far") && events.contains("through relay 10.79.0.254 port down0"),
        "{events}"
    );
    // Past the relay it renews, and gives back what it had.
    let pid = nix::unistd::Pid::from_raw(client.0.id().cast_signed());
    let told_of = |word: &str| {
        let events = appliance.ask(&["events"]);
        events
            .lines()
            .filter(|line| line.contains(word) && line.contains("10.79.0."))
            .count()
    };
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
    appliance.until("the lease is renewed", || path("told.renewed").exists());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    appliance.until("the lease is released", || told_of("released") == 1);
}

#[test]
fn a_relay_of_a_network_nobody_configured_is_told_in_words() {
    let net = Net::new();
    let _relay = net.relay();
    let near = NEAR.replace("dhcp = \"off\"", "pool = [\"10.78.0.100-10.78.0.120\"]\ndhcp = \"own\"");
    let appliance = Appliance::start(&net, &near);
    let script = appliance.folder.path().join("script");
    write_script(&script, &appliance.folder.path().join("told"));
    appliance.until("the relay is told of", || {
        let asked = appliance.udhcpc("1", &script).output().unwrap();
        assert!(!asked.status.success(), "nobody serves it");
        appliance
            .ask(&["events"])
            .contains("the DHCP relay 10.79.0.254 passes on requests")
    });
    let events = appliance.ask(&["events"]);
    assert!(events.contains("through = \"near\""), "{events}");
    assert_eq!(events.matches("passes on requests").count(), 1, "once");
}

#[test]
fn the_appliance_sets_the_way_to_a_network_behind_a_relay_and_takes_it_away() {
    // The daemon writes one where there is none.
    assert!(
        Path::new("/etc/resolv.conf").exists(),
        "this machine is to keep its resolvers"
    );
    let net = Net::bare();
    let _relay = net.relay();
    let server = net.name("server");
    let appliance = Appliance::start_with(&net, &format!("{NEAR}{FAR}"), &[]);
    let path = |name: &str| appliance.folder.path().join(name);
    let ours = "10.79.0.0/24 via 10.78.0.254 dev rack0";
    let is_set = |subnet: &str, way: &str| {
        let routes = net.routes(subnet);
        routes.len() == 1 && routes[0].starts_with(way) && routes[0].contains("metric 1024")
    };
    appliance.until("the way is set", || is_set("10.79.0.0/24", ours));
    // Answers to the relay and to the machine itself leave by it: there is no other way out of our namespace.
    let (script, told) = (path("script"), path("told"));
    write_script(&script, &told);
    let client = Running(appliance.udhcpc("20", &script).spawn().unwrap());
    appliance.until("the machine has a lease", || told.exists());
    let file = net.run("client", "curl", &["-s", "-m", "10", "tftp://10.78.0.1/undionly.kpxe"]);
    assert_eq!(text(&file), "what stands for undionly.kpxe");
    drop(client);

    // One that somebody took away comes back.
    ip(&format!("-n {server} route del 10.79.0.0/24 via 10.78.0.254"));
    appliance.until("it is set again", || is_set("10.79.0.0/24", ours));

    // It follows the configuration; a person's own way to the same network is not ours to touch.
    ip(&format!("-n {server} route add 10.79.0.0/24 via 10.78.0.253 metric 50"));
    let moved = FAR
        .replace("10.79.0.", "10.80.0.")
        .replace("10.78.0.254", "10.78.0.252");
    std::fs::write(path("rackbar.toml"), format!("{NEAR}{moved}")).unwrap();
    let new = "10.80.0.0/24 via 10.78.0.252 dev rack0";
    appliance.until("the new way is set", || is_set("10.80.0.0/24", new));
    assert_eq!(
        net.routes("10.79.0.0/24"),
        ["10.79.0.0/24 via 10.78.0.253 dev rack0 metric 50"]
    );
    std::fs::write(path("rackbar.toml"), NEAR).unwrap();
    appliance.until("the way is taken away", || net.routes("10.80.0.0/24").is_empty());
    assert_eq!(net.routes("10.79.0.0/24").len(), 1);
}
