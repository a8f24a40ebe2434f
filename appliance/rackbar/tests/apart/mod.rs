//! A daemon in a network namespace of its own, with a rack's and a BMCs' network.

#![allow(clippy::unwrap_used, reason = "a helper of tests: a panic is the failure")]
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const RACKBAR: &str = env!("CARGO_BIN_EXE_rackbar");
const PATIENCE: Duration = Duration::from_secs(60);

/// The appliance's address on the rack's network.
pub const OURS: &str = "10.10.0.1";

/// What encrypts an exported state.
pub const WORDS: &str = "correct horse battery";

/// A configuration of the rack's network with a proxy and no DHCP.
pub fn config() -> String {
    format!(
        "version = 1\n[[network]]\nname = \"rack\"\nrole = \"rack\"\ninterface = \"rack0\"\naddress = \"{OURS}/24\"\n\
         dhcp = \"off\"\nproxy = \"own\"\n"
    )
}

/// A daemon in a network namespace of its own, which this thread then enters too.
pub struct Appliance {
    daemon: Child,
    folder: tempfile::TempDir,
}

impl Appliance {
    /// Starts by this configuration, with more arguments, and enters its namespace.
    pub fn start(config: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        std::fs::write(folder.path().join("rackbar.toml"), config).unwrap();
        let script = format!(
            "ip link set lo up && for name in rack bmc; do ip link add ${{name}}0 type veth peer name ${{name}}1 \
             && ip link set ${{name}}0 up && ip link set ${{name}}1 up || exit 1; done \
             && ip addr add {OURS}/24 dev rack0 && ip addr add 10.20.0.1/24 dev bmc0 \
             && exec {RACKBAR} daemon --no-network-setup --boot-files /nonexistent --config {at}/rackbar.toml \
             --data {at}/data --run {at}/run {more} >{at}/out 2>{at}/log"
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
        appliance.enter();
        appliance
    }

    /// Another appliance by [`config`], without an uplink, into which the state that was exported with [`WORDS`] is put; `token`
    /// is of who exported it.
    pub fn moved(state: &str, token: &Path) -> Self {
        let moved = Self::start(&format!("{}[proxy]\nmode = \"offline\"\n", config()), "");
        moved.until("listening on 10.10.0.1:3128, offline");
        let words = moved.file("pass", WORDS);
        moved.well(&["import", state, "--passphrase-file", &words]);
        moved.wait("it starts anew", || {
            let out = std::fs::read_to_string(moved.path("out")).unwrap();
            out.matches("rackbar: serving").count() == 2
        });
        std::fs::copy(token, moved.path("run/admin-token")).unwrap();
        moved.until("listening on 10.10.0.1:3128, offline");
        moved
    }

    /// Ends the daemon and starts it again with the same data, in the namespace that this thread has entered.
    pub fn restart(&mut self) {
        self.end();
        std::fs::write(self.path("out"), "").unwrap();
        let at = self.folder.path().display();
        let script = format!(
            "exec {RACKBAR} daemon --no-network-setup --boot-files /nonexistent --config {at}/rackbar.toml --data {at}/data \
             --run {at}/run >{at}/out 2>>{at}/log"
        );
        let mut again = Command::new("sh");
        again.args(["-c", &script]).stdin(Stdio::null());
        self.daemon = again.spawn().unwrap();
        self.wait("the daemon serves again", || {
            std::fs::read_to_string(self.path("out")).is_ok_and(|text| text.contains("rackbar: serving"))
        });
    }

    fn end(&mut self) {
        let _ = kill(Pid::from_raw(self.daemon.id().try_into().unwrap()), Signal::SIGTERM);
        let _ = self.daemon.wait();
    }

    /// What this thread does from now on, and what it starts, happens in the appliance's namespace.
    pub fn enter(&self) {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.daemon.id())).unwrap();
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let new = self.path("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
        self.path(name).display().to_string()
    }

    pub fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) {
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

    pub fn ask(&self, arguments: &[&str]) -> Output {
        let ready = std::fs::read_to_string(self.path("out")).unwrap();
        let fingerprint = ready.trim().rsplit(' ').next().unwrap().to_owned();
        let token = self.path("run/admin-token");
        let mut command = Command::new(RACKBAR);
        command
            .args(["--endpoint", OURS, "--fingerprint", &fingerprint, "--token-file"])
            .arg(token);
        command.args(arguments).output().unwrap()
    }

    pub fn well(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let all = [output.stdout, output.stderr].concat();
        String::from_utf8(all).unwrap()
    }

    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Waits until the status of the services says so.
    pub fn until(&self, words: &str) {
        self.wait(words, || self.well(&["service", "status"]).contains(words));
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        self.end();
    }
}
