//! The policy for machines nobody named, `clients.unknown`: the real daemon in a network namespace, asked by udhcpc and
//! curl from another one.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const RACKBAR: &str = env!("CARGO_BIN_EXE_rackbar");
const PATIENCE: Duration = Duration::from_secs(60);
const STRANGER: &str = "02:00:00:00:00:51";
const KNOWN: &str = "02:00:00:00:00:52";

/// Two namespaces on one cable: `server` has `rack0` (10.78.0.1), `client` has `c0`.
struct Net(String);

impl Net {
    fn new() -> Self {
        let euid = nix::unistd::geteuid();
        assert!(euid.is_root(), "this test makes network namespaces and needs root");
        let net = Self(format!("rbu{}", std::process::id()));
        let [server, client] = ["server", "client"].map(|part| net.name(part));
        for name in [&server, &client] {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        ip(&format!(
            "-n {server} link add rack0 type veth peer name c0 netns {client}"
        ));
        ip(&format!("-n {server} addr add 10.78.0.1/24 dev rack0"));
        ip(&format!("-n {server} link set rack0 up"));
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

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The daemon with one policy.
struct Appliance<'a> {
    net: &'a Net,
    folder: tempfile::TempDir,
    child: Child,
}

impl<'a> Appliance<'a> {
    fn start(net: &'a Net, clients: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("boot")).unwrap();
        for name in ["vmlinuz", "base.cpio.zst", "undionly.kpxe", "snponly.efi"] {
            std::fs::write(path("boot").join(name), format!("what stands for {name}")).unwrap();
        }
        let config = format!(
            "version = 1\nname = \"unknown\"\n[[network]]\nname = \"rack\"\nrole = \"rack\"\ninterface = \"rack0\"\n\
             address = \"10.78.0.1/24\"\ndhcp = \"own\"\npool = [\"10.78.0.100-10.78.0.120\"]\n[clients]\n{clients}\n"
        );
        std::fs::write(path("rackbar.toml"), config).unwrap();
        let log = std::fs::File::create(path("log")).unwrap();
        let mut command = net.command("server", RACKBAR);
        command
            .args(["daemon", "--no-network-setup"])
            .args(["--listen-api", "127.0.0.1:443"]);
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
        let child = command.spawn().unwrap();
        let appliance = Self { net, folder, child };
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

    /// A page as a browser without JavaScript gets it, after logging in as it would.
    fn page(&self, path: &str) -> String {
        let token = std::fs::read_to_string(self.folder.path().join("run/admin-token")).unwrap();
        let form = self.folder.path().join("form");
        std::fs::write(&form, format!("token={}", token.trim())).unwrap();
        let (jar, form) = (self.folder.path().join("jar"), format!("@{}", form.display()));
        let jar = jar.to_str().unwrap();
        let home = "https://127.0.0.1";
        let login = format!("{home}/login");
        let base = ["-sSkL", "-m", "10", "-b", jar, "-c", jar];
        self.net
            .run("server", "curl", &[&base[..], &["-d", &form, &login]].concat());
        text(
            &self
                .net
                .run("server", "curl", &[&base[..], &[&format!("{home}{path}")]].concat()),
        )
    }

    /// A BIOS machine with this MAC asks for an address: what udhcpc was told, as `name=value` lines.
    fn boots(&self, mac: &str) -> String {
        let client = self.net.name("client");
        ip(&format!("-n {client} link set c0 down"));
        ip(&format!("-n {client} link set c0 address {mac} up"));
        let (script, told) = (self.folder.path().join("script"), self.folder.path().join("told"));
        write_script(&script, &told);
        let arguments = [
            "udhcpc",
            "-i",
            "c0",
            "-n",
            "-q",
            "-f",
            "-t",
            "8",
            "-T",
            "1",
            "-V",
            "PXEClient:Arch:00000:UNDI:002001",
            "-x",
            "0x5d:0000",
            "-O",
            "bootfile",
            "-O",
            "tftp",
            "-s",
            script.to_str().unwrap(),
        ];
        let said = self.net.run("client", "busybox", &arguments);
        assert!(said.status.success(), "no lease: {said:#?}; the log:\n{}", self.log());
        let told = std::fs::read_to_string(told).unwrap();
        let address = told.lines().find_map(|line| line.strip_prefix("ip=")).unwrap();
        ip(&format!("-n {client} addr flush dev c0"));
        ip(&format!("-n {client} addr add {address}/24 dev c0"));
        told
    }

    /// Status and body of its iPXE script.
    fn script(&self, mac: &str) -> (String, String) {
        let url = format!("http://10.78.0.1/boot/v1/script.ipxe?mac={}", mac.replace(':', "-"));
        let said = self
            .net
            .run("client", "curl", &["-s", "-m", "10", "-w", "\n%{http_code}", &url]);
        let said = text(&said);
        let (body, status) = said.rsplit_once('\n').unwrap();
        (status.to_owned(), body.to_owned())
    }
}

impl Drop for Appliance<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_script(path: &Path, told: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let text = format!("#!/bin/sh\n[ \"$1\" = bound ] && env > {}\nexit 0\n", told.display());
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn machines_nobody_named_get_what_the_policy_says() {
    let net = Net::new();

    let appliance = Appliance::start(&net, "unknown = \"enrol\"");
    let told = appliance.boots(STRANGER);
    assert!(told.contains("undionly.kpxe"), "{told}");
    let file = net.run("client", "curl", &["-s", "-m", "10", "tftp://10.78.0.1/undionly.kpxe"]);
    assert_eq!(text(&file), "what stands for undionly.kpxe");
    let (status, script) = appliance.script(STRANGER);
    assert!(status == "200" && script.starts_with("#!ipxe"), "{status} {script}");
    assert!(script.contains("rackbar.token="), "it is to boot our agent: {script}");
    assert!(appliance.ask(&["node", "list"]).contains(STRANGER));
    // What was seen of its firmware is shown, and forgotten when told.
    let known = || appliance.ask(&["--json", "node", "firmware", STRANGER]);
    appliance.until("its firmware is known", || known().contains("\"proven\": true"));
    appliance.ask(&["node", "firmware", STRANGER, "--forget"]);
    appliance.until("it is forgotten", || {
        known().split_whitespace().collect::<String>() == "[]"
    });
    // So is the whole machine, until it boots once more.
    appliance.ask(&["node", "forget", STRANGER]);
    assert!(!appliance.ask(&["node", "list"]).contains(STRANGER));
    assert!(appliance.ask(&["audit"]).contains("forget node-001"));
    appliance.boots(STRANGER);
    assert!(appliance.ask(&["node", "list"]).contains(STRANGER));
    drop(appliance);

    let listed = format!("unknown = \"listed\"\nlisted = [\"{KNOWN}\"]");
    for (policy, known) in [(listed.as_str(), true), ("unknown = \"ignore\"", false)] {
        let appliance = Appliance::start(&net, policy);
        let told = appliance.boots(STRANGER);
        assert!(!told.contains("undionly.kpxe"), "{policy}: {told}");
        let (status, words) = appliance.script(STRANGER);
        assert!(
            status == "200" && !words.contains("rackbar.token=") || status.starts_with('4'),
            "{policy}: {status} {words}"
        );
        appliance.until("the operator is told", || {
            appliance
                .ask(&["events"])
                .contains("not listed: the policy for unknown machines")
        });
        let page = appliance.page("/events");
        assert!(
            page.contains("not listed: the policy for unknown machines") && page.contains(STRANGER),
            "{page}"
        );
        let told = appliance.boots(KNOWN);
        assert_eq!(told.contains("undionly.kpxe"), known, "{policy}: {told}");
        let (_, script) = appliance.script(KNOWN);
        assert_eq!(script.contains("rackbar.token="), known, "{policy}: {script}");
    }
}
