//! The story of an operator with the caching proxy: the real daemon, the real command line, an origin on loopback.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const RACKBAR: &str = env!("CARGO_BIN_EXE_rackbar");
const PATIENCE: Duration = Duration::from_secs(60);
const OURS: &str = "10.10.0.1";

fn config(upstream: &str, proxy: &str) -> String {
    format!(
        "version = 1\n[[network]]\nname = \"rack\"\nrole = \"rack\"\ninterface = \"rack0\"\n\
         address = \"{OURS}/24\"\ndhcp = \"off\"\n{proxy}\n[[network]]\nname = \"bmc\"\nrole = \"bmc\"\n\
         interface = \"bmc0\"\naddress = \"10.20.0.1/24\"\ndhcp = \"off\"\n[[proxy.mirror]]\nname = \"m\"\n\
         upstream = [\"{upstream}\"]\n"
    )
}

/// A daemon in a network namespace of its own, which this thread then enters too.
struct Appliance {
    daemon: Child,
    folder: tempfile::TempDir,
}

impl Appliance {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        std::fs::write(folder.path().join("rackbar.toml"), config("http://127.0.0.1:9/", "")).unwrap();
        let script = format!(
            "ip link set lo up && for name in rack bmc; do ip link add ${{name}}0 type veth peer name ${{name}}1 \
             && ip link set ${{name}}0 up && ip link set ${{name}}1 up || exit 1; done \
             && ip addr add {OURS}/24 dev rack0 && ip addr add 10.20.0.1/24 dev bmc0 \
             && exec {RACKBAR} daemon --no-network-setup --boot-files /nonexistent --config {at}/rackbar.toml \
             --data {at}/data --run {at}/run >{at}/out 2>{at}/log"
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["-n", "sh", "-c", &script]).stdin(Stdio::null());
        let appliance = Self {
            daemon: unshare.spawn().unwrap(),
            folder,
        };
        appliance.wait("the daemon serves", || {
            std::fs::read_to_string(appliance.path("out")).is_ok_and(|text| text.contains("rackbar: serving"))
        });
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", appliance.daemon.id())).unwrap();
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        appliance
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let new = self.path("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
        self.path(name).display().to_string()
    }

    fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(
                Instant::now() < end,
                "not within {PATIENCE:?}: {what}; the log:\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let ready = std::fs::read_to_string(self.path("out")).unwrap();
        let fingerprint = ready.trim().rsplit(' ').next().unwrap().to_owned();
        let token = self.path("run/admin-token");
        let mut command = Command::new(RACKBAR);
        command
            .args(["--endpoint", OURS, "--fingerprint", &fingerprint, "--token-file"])
            .arg(token);
        command.args(arguments).output().unwrap()
    }

    fn well(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let all = [output.stdout, output.stderr].concat();
        String::from_utf8(all).unwrap()
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Waits until the status of the services says so.
    fn until(&self, words: &str) {
        self.wait(words, || self.well(&["service", "status"]).contains(words));
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.daemon.id().try_into().unwrap()), Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

/// An origin that gives everybody the same.
fn origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/base", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            );
        }
    });
    url
}

fn get(path: &str) -> String {
    let mut stream = TcpStream::connect((OURS, 3128)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut out = String::new();
    stream.read_to_string(&mut out).unwrap();
    out
}

#[test]
fn the_proxy_follows_the_file_and_the_site_and_its_cache_is_ruled_by_the_command_line() {
    let appliance = Appliance::start();
    let refused = appliance.refused(&["cache", "list"]);
    assert!(refused.contains("the proxy does not run"), "{refused}");

    // The file is read while the daemon runs.
    let upstream = origin();
    appliance.file("rackbar.toml", config(&upstream, "proxy = \"own\""));
    appliance.until("listening on 10.10.0.1:3128, online");
    assert!(get("/mirror/m/a").ends_with("\r\n\r\nhello"));
    for address in ["127.0.0.1", "10.10.0.1", "10.20.0.7"] {
        let refused = get(&format!("http://{address}/x"));
        assert!(refused.starts_with("HTTP/1.1 403"), "{address}: {refused}");
    }

    appliance.well(&["cache", "pin", "mirror:m/b"]);
    let list = appliance.well(&["cache", "list"]);
    assert!(
        list.contains("mirror:m/a") && list.contains("mirror:m/b") && list.contains("yes"),
        "{list}"
    );
    let verified = appliance.well(&["cache", "verify"]);
    assert!(verified.contains("1 objects are whole, 0 were damaged"), "{verified}");
    appliance.well(&["cache", "refresh", "mirror:m/a"]);
    appliance.well(&["cache", "mode", "offline"]);
    let missed = get("/mirror/m/c");
    assert!(
        missed.starts_with("HTTP/1.1 504") && missed.contains("rackbar cache pin mirror:m/c"),
        "{missed}"
    );
    assert!(get("/mirror/m/b").ends_with("hello"));
    appliance.well(&["cache", "mode", "online"]);
    appliance.well(&["cache", "unpin", "mirror:m/b"]);
    let wrong = appliance.refused(&["cache", "pin", "no key"]);
    assert!(wrong.contains("mirror:NAME/PATH"), "{wrong}");

    // Without a word in the file nobody is served, until the site wants it; "off" rules over that.
    appliance.file("rackbar.toml", config(&upstream, ""));
    appliance.until("no network wants it");
    let site = "version = 1\n[network.rack]\nsubnet = \"10.10.0.0/24\"\nproxy = \"own\"\n";
    let site = appliance.file("site.toml", site);
    appliance.well(&["site", "set", &site]);
    appliance.until("listening on 10.10.0.1:3128");
    assert!(get("/mirror/m/a").ends_with("hello"), "what was stored is still there");
    appliance.file("rackbar.toml", config(&upstream, "proxy = \"off\""));
    appliance.until("no network wants it");
}
