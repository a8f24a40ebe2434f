//! Three network namespaces on one Ethernet: `hub` holds the bridge `br0` (10.77.0.2), `server` has `rack0` (10.77.0.1),
//! `client` has `c0` without an address.

use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

use super::{need_root, run, wait_until};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Net {
    prefix: String,
    pub(crate) folder: tempfile::TempDir,
}

impl Net {
    pub(crate) fn new() -> Self {
        need_root();
        let prefix = format!("rb{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let net = Self {
            prefix,
            folder: tempfile::tempdir().unwrap(),
        };
        let [hub, server, client] = ["hub", "server", "client"].map(|part| net.name(part));
        for name in [&hub, &server, &client] {
            run("ip", &["netns", "add", name]);
            run("ip", &["-n", name, "link", "set", "lo", "up"]);
        }
        let ip = |args: &str| run("ip", &args.split(' ').collect::<Vec<_>>());
        ip(&format!("-n {hub} link add br0 type bridge forward_delay 0"));
        ip(&format!(
            "-n {hub} link add p1 type veth peer name rack0 netns {server}"
        ));
        ip(&format!("-n {hub} link add p2 type veth peer name c0 netns {client}"));
        for port in ["p1", "p2"] {
            ip(&format!("-n {hub} link set {port} master br0 up"));
        }
        ip(&format!("-n {hub} addr add 10.77.0.2/24 dev br0"));
        ip(&format!("-n {hub} link set br0 up"));
        ip(&format!("-n {server} addr add 10.77.0.1/24 dev rack0"));
        ip(&format!("-n {server} link set rack0 up"));
        ip(&format!("-n {client} link set c0 up"));
        net
    }

    fn name(&self, part: &str) -> String {
        format!("{}-{part}", self.prefix)
    }

    /// Runs `body` on a thread inside a namespace; threads it starts stay there.
    pub(crate) fn inside<T: Send>(&self, part: &str, body: impl FnOnce() -> T + Send) -> T {
        let handle = std::fs::File::open(format!("/run/netns/{}", self.name(part))).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(&handle, CloneFlags::CLONE_NEWNET).unwrap();
                body()
            });
            thread.join().unwrap()
        })
    }

    fn command(&self, part: &str, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(part), program]).args(args);
        command
    }

    /// Runs a program in a namespace to its end.
    pub(crate) fn exec(&self, part: &str, program: &str, args: &[&str]) -> Output {
        self.command(part, program, args).output().unwrap()
    }

    /// Like [`Self::exec`]; the test fails when the program does.
    pub(crate) fn exec_ok(&self, part: &str, program: &str, args: &[&str]) -> Output {
        let output = self.exec(part, program, args);
        assert!(output.status.success(), "{program} {args:?}: {output:#?}");
        output
    }

    /// Starts a program in a namespace; it ends with the test.
    pub(crate) fn spawn(&self, part: &str, program: &str, args: &[&str]) -> Running {
        let mut command = self.command(part, program, args);
        Running(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    /// Another DHCP server on the same Ethernet, at 10.77.0.2, which leases .50 to .60.
    pub(crate) fn dnsmasq(&self) -> Running {
        let leases = format!("--dhcp-leasefile={}", self.path("dnsmasq.leases"));
        let args = [
            "--no-daemon",
            "--port=0",
            "--conf-file=/dev/null",
            "--interface=br0",
            "--bind-interfaces",
            "--dhcp-range=10.77.0.50,10.77.0.60,1h",
            "--dhcp-authoritative",
            "--no-ping",
            &leases,
        ];
        let running = self.spawn("hub", "dnsmasq", &args);
        wait_until("dnsmasq serves", || {
            let table = self.exec("hub", "cat", &["/proc/net/udp"]);
            String::from_utf8_lossy(&table.stdout).contains(":0043 ")
        });
        running
    }

    /// A file in this test's folder.
    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes an executable script.
    pub(crate) fn script(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// The client's hardware address.
    pub(crate) fn client_mac(&self) -> rackbar_model::MacAddr {
        self.inside("client", || rackbar_services::Link::find("test", "c0").unwrap().mac)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for part in ["hub", "server", "client"] {
            let _ = Command::new("ip").args(["netns", "del", &self.name(part)]).output();
        }
    }
}

/// A program that runs beside the test.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
