//! Servers of the time by name, in the real program: looked up by the machine's resolver, told by `rackbar service status`, changed
//! while it runs. The names lead to where nobody answers, so that no clock moves.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RACKBAR: &str = env!("CARGO_BIN_EXE_rackbar");
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon in a namespace with `rack0` (10.10.0.1/24), and dnsmasq as the machine's resolver.
struct Rack {
    daemon: Child,
    folder: tempfile::TempDir,
}

fn configuration(servers: &str) -> String {
    format!(
        "version = 1\n[[network]]\nname = \"rack\"\nrole = \"rack\"\ninterface = \"rack0\"\naddress = \"10.10.0.1/24\"\n\
         dhcp = \"off\"\nntp = \"own\"\n[ntp]\nserver = [{servers}]\n"
    )
}

impl Rack {
    fn start(servers: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes namespaces and needs root"
        );
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("rackbar.toml"), configuration(servers)).unwrap();
        std::fs::write(folder.path().join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        // dnsmasq goes with the namespace's first process, which the daemon becomes.
        let script = format!(
            "ip link set lo up && ip link add rack0 type veth peer name rack1 && ip link set rack0 up && ip link set rack1 up \
             && ip addr add 10.10.0.1/24 dev rack0 && mount --bind {at}/resolv.conf /etc/resolv.conf \
             && {{ dnsmasq -k --conf-file=/dev/null --no-resolv --no-hosts --listen-address=127.0.0.1 --bind-interfaces \
             --pid-file={at}/dnsmasq.pid --address=/pool.example.org/10.10.0.77 --address=/pool.example.org/10.10.0.78 --host-record=own.example.org,10.10.0.1 \
             --local=/example.org/ 2>{at}/dnsmasq & }} && exec {RACKBAR} daemon --no-network-setup --boot-files /nonexistent \
             --config {at}/rackbar.toml --data {at}/data --run {at}/run >{at}/out 2>{at}/log"
        );
        let daemon = Command::new("unshare")
            .args([
                "-n",
                "-m",
                "-p",
                "-f",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                &script,
            ])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let rack = Self { daemon, folder };
        rack.wait("the daemon serves", || {
            std::fs::read_to_string(rack.path("out")).is_ok_and(|text| text.contains("rackbar: serving"))
        });
        rack
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !condition() {
            let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(
                Instant::now() < end,
                "not within {PATIENCE:?}: {what}; {}\n{}",
                self.ntp(),
                log()
            );
            std::thread::yield_now();
        }
    }

    /// The line of the time service.
    fn ntp(&self) -> String {
        let Ok(ready) = std::fs::read_to_string(self.path("out")) else {
            return String::new();
        };
        let fingerprint = ready.trim().rsplit(' ').next().unwrap_or_default();
        let (target, token) = (self.daemon.id().to_string(), self.path("run/admin-token"));
        let output = Command::new("nsenter")
            .args([
                "-t",
                &target,
                "-n",
                RACKBAR,
                "--endpoint",
                "10.10.0.1",
                "--fingerprint",
                fingerprint,
            ])
            .args(["--token-file", token.to_str().unwrap(), "service", "status"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.trim_start().starts_with("ntp"));
        line.unwrap_or_default().to_owned()
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        // With it goes everything in its namespace of processes.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn a_server_by_name_is_asked_at_its_addresses_and_one_without_says_why_and_what_to_do() {
    let rack = Rack::start("\"pool.example.org\", \"10.10.0.66\", \"typo.example.org\", \"own.example.org\"");
    rack.wait("each name has its word", || {
        let line = rack.ntp();
        [
            "pool.example.org is 10.10.0.7",
            "typo.example.org has no address",
            "[dns] upstream",
            "own.example.org has no address",
        ]
        .iter()
        .all(|word| line.contains(word))
    });
    let line = rack.ntp();
    assert!(line.contains("10.10.0.77") && line.contains("10.10.0.78"), "{line}");
    assert!(line.contains("it leads to this appliance itself"), "{line}");
    assert!(line.contains("the clock is not synchronised yet"), "{line}");

    let new = rack.path("new.toml");
    std::fs::write(&new, configuration("\"pool.example.org\"")).unwrap();
    std::fs::rename(new, rack.path("rackbar.toml")).unwrap();
    rack.wait("names that went are not spoken of", || {
        let line = rack.ntp();
        line.contains("pool.example.org is 10.10.0.7") && !line.contains("typo") && !line.contains("own.example")
    });
}
