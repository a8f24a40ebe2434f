//! What machines are given to boot: the policy for those nobody named, `clients.unknown`, and files by architecture,
//! `boot.file`. The real daemon in a network namespace, asked by udhcpc, curl and tftp-hpa from another one.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const RACKBAR: &str = env!("CARGO_BIN_EXE_rackbar");
const PATIENCE: Duration = Duration::from_secs(60);
const STRANGER: &str = "02:00:00:00:00:51";
const KNOWN: &str = "02:00:00:00:00:52";

const BASE: &str = r#"version = 1
name = "unknown"
[[network]]
name = "rack"
role = "rack"
interface = "rack0"
address = "10.78.0.1/24"
dhcp = "own"
pool = ["10.78.0.100-10.78.0.120"]
"#;

/// Two namespaces on one cable: `server` has `rack0` (10.78.0.1), `client` has `c0`.
struct Net(String);

impl Net {
    fn new() -> Self {
        let euid = nix::unistd::geteuid();
        assert!(euid.is_root(), "this test makes network namespaces and needs root");
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let net = Self(format!("rbu{}x{serial}", std::process::id()));
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
        Self::start_with(net, &format!("[clients]\n{clients}\n"), &[])
    }

    /// With more in its configuration, and files beside it.
    fn start_with(net: &'a Net, more: &str, files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("boot")).unwrap();
        for name in ["vmlinuz", "base.cpio.zst", "undionly.kpxe", "snponly.efi"] {
            std::fs::write(path("boot").join(name), format!("what stands for {name}")).unwrap();
        }
        for (name, content) in files {
            std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            std::fs::write(path(name), content).unwrap();
        }
        std::fs::write(path("rackbar.toml"), format!("{BASE}{more}")).unwrap();
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
        self.boots_as(mac, "PXEClient", 0)
    }

    /// As [`Self::boots`], a firmware of this class and architecture.
    fn boots_as(&self, mac: &str, class: &str, arch: u16) -> String {
        let class = format!("{class}:Arch:{arch:05}:UNDI:003000");
        let option = format!("0x5d:{arch:04x}");
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
            &class,
            "-x",
            &option,
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

const FILES: &str = r#"
[[boot.file]]
architecture = 6
file = "ia32.efi"
[[boot.file]]
architecture = 10
file = "arm32.efi"
[[boot.file]]
architecture = 11
file = "arm64/ipxe.efi"
[[boot.file]]
architecture = 15
url = "http://10.78.0.1:8000/ia32.efi"
[[boot.file]]
architecture = 19
file = "arm64/ipxe.efi"
[[boot.file]]
file = "arm64/grub.cfg"
"#;

#[test]
fn each_architecture_boots_the_file_the_site_names_for_it_and_what_has_none_is_told() {
    let net = Net::new();
    // More than what is sent from memory as it is: 40,000 blocks of 512 bytes would be too many for a block number.
    let arm64: Vec<u8> = (0..5_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let files = [
        ("ia32.efi", &b"MZ ia32"[..]),
        ("arm32.efi", b"MZ arm32"),
        ("arm64/ipxe.efi", &arm64),
        ("arm64/grub.cfg", b"set timeout=1"),
        ("secret", b"beside it and not named"),
    ];
    let appliance = Appliance::start_with(&net, FILES, &files);
    let mac = |arch: u16| format!("02:00:00:00:01:{arch:02x}");
    let curl = |url: &str| net.run("client", "curl", &["-s", "-m", "20", url]).stdout;
    for (arch, name, content) in [
        (6, "ia32.efi", &b"MZ ia32"[..]),
        (10, "arm32.efi", b"MZ arm32"),
        (11, "arm64/ipxe.efi", &arm64),
    ] {
        let told = appliance.boots_as(&mac(arch), "PXEClient", arch);
        assert!(told.contains(&format!("={name}\n")), "{name}: {told}");
        assert!(told.contains("siaddr=10.78.0.1"), "{told}");
        assert_eq!(curl(&format!("tftp://10.78.0.1/{name}")).len(), content.len());
        let out = appliance.folder.path().join("fetched");
        let out = out.to_str().unwrap();
        let got = net.run("client", "tftp", &["-m", "binary", "10.78.0.1", "-c", "get", name, out]);
        assert!(std::fs::read(out).unwrap() == content, "{name}: {got:?}");
    }
    let url = "http://10.78.0.1/boot/v1/site/arm64/ipxe.efi";
    for (arch, url) in [(15, "http://10.78.0.1:8000/ia32.efi"), (19, url)] {
        let told = appliance.boots_as(&mac(arch), "HTTPClient", arch);
        assert!(told.contains(url), "{told}");
    }
    assert!(curl(url) == arm64);
    assert_eq!(curl("tftp://10.78.0.1/arm64/grub.cfg"), b"set timeout=1");
    assert_eq!(curl("http://10.78.0.1/boot/v1/site/arm64/grub.cfg"), b"set timeout=1");
    for hidden in ["secret", "rackbar.toml", "arm64/../secret"] {
        assert_eq!(curl(&format!("tftp://10.78.0.1/{hidden}")), b"");
        let found = curl(&format!("http://10.78.0.1/boot/v1/site/{hidden}"));
        assert!(!String::from_utf8_lossy(&found).contains("beside it"), "{hidden}");
    }
    // A RISC-V machine has none.
    let told = appliance.boots_as(&mac(27), "PXEClient", 27);
    assert!(!told.contains(".efi"), "{told}");
    appliance.until("its timeline says so", || {
        appliance
            .ask(&["events"])
            .contains("name one in a [[boot.file]] with architecture = 27")
    });

    // A file that changes is served as it is then; a mistake changes nothing, and what is named no more is gone.
    let path = |name: &str| appliance.folder.path().join(name);
    std::fs::write(path("ia32.efi"), "MZ ia32, rebuilt").unwrap();
    appliance.until("the new file is served", || {
        curl("tftp://10.78.0.1/ia32.efi") == b"MZ ia32, rebuilt"
    });
    let twice = FILES.replace("= 10\n", "= 6\n");
    std::fs::write(path("rackbar.toml"), format!("{BASE}{twice}")).unwrap();
    appliance.until("the mistake is told", || {
        let events = appliance.ask(&["events"]);
        events.contains("line 15, boot.file.architecture: there are two boot files for x86 UEFI (architecture 6)")
    });
    assert_eq!(curl("tftp://10.78.0.1/arm32.efi"), b"MZ arm32");
    std::fs::write(path("rackbar.toml"), BASE).unwrap();
    appliance.until("it is gone", || curl("tftp://10.78.0.1/arm32.efi").is_empty());
}
