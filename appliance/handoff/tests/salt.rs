//! A real Salt master that was given the key we made for a machine, and real minions: the machine's own comes in at once, one
//! that says it is that machine and has another key does not.
#![allow(clippy::unwrap_used, reason = "a helper of tests: a panic is the failure")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{of_venv, sample, text};
use rackbar_handoff::enrol::{self, Kind};
use rackbar_handoff::{render, salt_files};
use serde_json::Value;

/// The machine, as its minion and its certificate are called.
const NAME: &str = "ctl-1.rack.example";
/// Salt's daemons take seconds to be there, and on a busy machine many.
const DEADLINE: Duration = Duration::from_secs(180);

/// A daemon of Salt's with all that it began.
struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    fn start(name: &str, home: &Path) -> Self {
        let log = home.join("said");
        let said = fs::File::create(&log).unwrap();
        let mut command = salt(name, home);
        command.args(["--log-level", "info"]).process_group(0);
        let child = command
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("{name}: {error}; `cargo xtask setup test` installs it"));
        Self { child, log }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

fn salt(name: &str, home: &Path) -> Command {
    let mut command = Command::new(of_venv(name));
    command.arg("--config-dir").arg(home);
    command
        .env("HOME", home)
        .env("LC_ALL", "C.UTF-8")
        .env("PYTHONWARNINGS", "ignore");
    command
}

fn free_port() -> u16 {
    let probe = TcpListener::bind("127.0.0.1:0").unwrap();
    probe.local_addr().unwrap().port()
}

/// Everything of a daemon lies in its own folder, whatever the system has.
fn own_places(home: &Path) -> String {
    let at = home.display();
    format!(
        "user: root\nroot_dir: {at}\npki_dir: {at}/pki\ncachedir: {at}/cache\nsock_dir: {at}/sock\nlog_file: {at}/log\n\
         pidfile: {at}/pid\n"
    )
}

struct Ports {
    publish: u16,
    ret: u16,
}

/// A minion of this name whose keys are these, at the master that has these ports.
fn minion(home: &Path, ports: &Ports, private: &str, public: &str) {
    let pki = home.join("pki");
    fs::create_dir_all(&pki).unwrap();
    fs::write(pki.join("minion.pem"), private).unwrap();
    fs::write(pki.join("minion.pub"), public).unwrap();
    let config = format!(
        "master: 127.0.0.1\nmaster_port: {}\npublish_port: {}\nid: {NAME}\nauth_timeout: 10\nauth_tries: 2\n\
         acceptance_wait_time: 1\nrejected_retry: false\n{}",
        ports.ret,
        ports.publish,
        own_places(home)
    );
    fs::write(home.join("minion"), config).unwrap();
}

fn pair() -> (String, String) {
    match enrol::pair().unwrap() {
        Kind::Pair {
            private: Some(private),
            public,
        } => (private.0, public),
        other => panic!("{other:?}"),
    }
}

/// What the minion answers when it is asked whether its pillar has this; nothing while it does not answer.
fn has(master: &Path, what: &str) -> Option<bool> {
    let mut command = salt("salt", master);
    command.args(["--out", "json", "--static", "--timeout", "10"]);
    let output = command.args(["*", "match.pillar", what]).output().unwrap();
    let out = text(&output);
    let all: Value = serde_json::from_str(out.get(out.find('{')?..)?).ok()?;
    all.get(NAME)?.as_bool()
}

/// Those that the master turned away.
fn denied(master: &Path) -> Vec<String> {
    let listed = salt("salt-key", master)
        .args(["--list", "denied", "--out", "json"])
        .output();
    let out = text(&listed.unwrap());
    let listed: Value = serde_json::from_str(&out[out.find('{').unwrap()..]).unwrap();
    serde_json::from_value(listed["minions_denied"].clone()).unwrap()
}

#[test]
fn a_machine_s_minion_is_taken_by_its_real_master_and_nobody_else_under_its_name() {
    let sample = sample();
    let folder = tempfile::tempdir().unwrap();
    let [master, own, stranger] = ["master", "own", "stranger"].map(|name| folder.path().join(name));
    let ports = Ports {
        publish: free_port(),
        ret: free_port(),
    };
    let (private, public) = pair();
    let files = salt_files(sample.site.handoff.salt.as_ref().unwrap(), NAME, &private, &public);
    let accepted = master.join("pki/minions");
    fs::create_dir_all(&accepted).unwrap();
    fs::write(accepted.join(NAME), &public).unwrap();
    // The master asks for the pillar as the documentation has it do, here by what it was told before.
    let pillar = render(&sample.rack(), "salt", "pillar", Some("ctl-1")).unwrap();
    fs::write(master.join(NAME), pillar).unwrap();
    let config = format!(
        "interface: 127.0.0.1\npublish_port: {}\nret_port: {}\nworker_threads: 2\next_pillar: [{{ cmd_yaml: 'cat {}/%s' }}]\n{}",
        ports.publish,
        ports.ret,
        master.display(),
        own_places(&master)
    );
    fs::write(master.join("master"), config).unwrap();
    minion(&own, &ports, &files[0].content, &files[1].content);

    let running = Daemon::start("salt-master", &master);
    let of_machine = Daemon::start("salt-minion", &own);
    let began = Instant::now();
    let is_controller = loop {
        if let Some(has) = has(&master, "rackbar:role:controller") {
            break has;
        }
        assert!(
            began.elapsed() < DEADLINE,
            "the minion never came in:\n{}\n{}",
            running.said(),
            of_machine.said()
        );
    };
    assert!(is_controller, "{}", of_machine.said());
    assert_eq!(has(&master, "rackbar:role:storage"), Some(false));
    drop(of_machine);

    let (private, public) = pair();
    minion(&stranger, &ports, &private, &public);
    let refused = salt("salt-call", &stranger).arg("test.ping").output().unwrap();
    let words = format!("{}{}", text(&refused), String::from_utf8_lossy(&refused.stderr));
    assert!(!refused.status.success() && !words.contains("True"), "{words}");
    // A master that is slow has it a moment later.
    while denied(&master) != [NAME] {
        assert!(began.elapsed() < 2 * DEADLINE, "{}", running.said());
    }
}
