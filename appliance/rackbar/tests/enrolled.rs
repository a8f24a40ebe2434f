//! Machines enrol at a real Puppet server whose policy executable and classifier are the real command line, against a daemon
//! on loopback. Real agents ask for certificates and apply catalogues.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod common;
mod puppet;

use std::path::{Path, PathBuf};

use common::{Appliance, CONFIG, id, ready};
use puppet::{Agent, Ran, Server};
use serde_json::Value;

const NAME: &str = "web-1.rack.example";
const OTHER: &str = "web-2.rack.example";
const USED: &str = "the token was used already, for another key";

fn site(confdir: &Path, probe: &Path) -> String {
    format!(
        "version = 1\ndomain = \"rack.example\"\n[role.web]\nos = \"debian-12\"\nroot = {{ pick = \"smallest\" }}\n\
         [[rule]]\nname = \"all\"\nwhen = \"true\"\nrole = \"web\"\n\
         [handoff.puppet]\nserver = \"localhost\"\nconfdir = \"{}\"\n\
         [handoff.role.web]\nenrol = [\"puppet\"]\npuppet_classes = [\"probe\"]\n\
         parameters = {{ region = \"north\", probe_path = \"{}\" }}\n",
        confdir.display(),
        probe.display()
    )
}

/// An appliance that has installed two machines, beside a Puppet server that asks it.
struct Hall {
    folder: tempfile::TempDir,
    server: Server,
    appliance: Option<Appliance>,
    web: Agent,
    probe: PathBuf,
}

impl Hall {
    fn new() -> Self {
        let server = Server::start("localhost", Path::new(env!("CARGO_BIN_EXE_rackbar")));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rackbar.toml"), CONFIG).unwrap();
        common::keep(folder.path(), &[ready(1), ready(2)]);
        let mut hall = Self {
            probe: folder.path().join("probe"),
            web: Agent::new(&server),
            folder,
            server,
            appliance: None,
        };
        hall.appliance_comes("first");
        let site = site(&hall.web.confdir(), &hall.probe);
        let file = hall.appliance().file("site.toml", site);
        hall.appliance().ask(&["site", "set", &file]).well();
        hall.server.until_serves();
        hall
    }

    fn appliance(&self) -> &Appliance {
        self.appliance.as_ref().unwrap()
    }

    /// The appliance starts, and the Puppet server is logged in to it by a token of its own.
    fn appliance_comes(&mut self, token: &str) {
        let appliance = self.appliance.insert(Appliance::start(self.folder.path()));
        let token = appliance.ask(&["token", "create", token, "--role", "operator"]).well();
        let endpoint = appliance.api().to_string();
        self.server.login(&endpoint, appliance.fingerprint(), &token);
    }

    /// The files that a new secret of a machine comes in, by the ends of their paths.
    fn enrol(&self, node: &str) -> impl Fn(&str) -> String + use<> {
        let made = self.appliance().ask(&["handoff", "enrol", node, "--tool", "puppet"]);
        let files: Vec<Value> = serde_json::from_str(&made.well()).unwrap();
        move |end| {
            let mut paths = files.iter();
            let file = paths.find(|file| file["path"].as_str().unwrap().ends_with(end));
            file.unwrap()["content"].as_str().unwrap().to_owned()
        }
    }

    /// The appliance said no to a request for this name, for this reason, and the server did not sign.
    fn refused(&self, ran: &Ran, name: &str, why: &str) {
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(!self.server.signed(name), "{ran:?}");
        let line = format!("asked for the certificate of {name}: do not sign, {why}");
        self.in_audit(&line);
    }

    fn in_audit(&self, line: &str) {
        // The audit trail is written behind the answer.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let audit = self.appliance().ask(&["audit"]).well();
            if audit.contains(line) {
                return;
            }
            assert!(std::time::Instant::now() < end, "{line:?} is not in {audit}");
        }
    }

    /// The file of the catalogue is as the classifier and the certificate say; it is taken away.
    fn probed(&self) {
        let text = std::fs::read_to_string(&self.probe).unwrap();
        assert_eq!(text, format!("web in north, certified as {}\n", id(1)));
        std::fs::remove_file(&self.probe).unwrap();
    }
}

fn lay(agent: &Agent, name: &str, text: &str) {
    std::fs::write(agent.confdir().join(name), text).unwrap();
}

/// An agent of somebody who has this token, under a name of their choice and with a key of their own.
fn with_token_of(hall: &Hall, attributes: &str, name: &str) -> Ran {
    let agent = Agent::new(&hall.server);
    lay(
        &agent,
        "puppet.conf",
        &format!("[main]\nserver = localhost\ncertname = {name}\n"),
    );
    lay(&agent, "csr_attributes.yaml", attributes);
    agent.run(&["--test"])
}

#[test]
fn a_real_puppet_server_signs_one_request_for_one_machine_and_goes_on_without_us() {
    let mut hall = Hall::new();
    let (first, _) = (hall.enrol("web-1"), hall.enrol("web-2"));
    let attributes = first("/csr_attributes.yaml");
    lay(&hall.web, "csr_attributes.yaml", &attributes);
    lay(&hall.web, "puppet.conf", &first("/puppet.conf"));

    // Another machine, which has a token too, shows this one's; then somebody whom nobody knows.
    let ran = with_token_of(&hall, &attributes, OTHER);
    hall.refused(&ran, OTHER, "the token is not the one this machine was given");
    let ran = with_token_of(&hall, &attributes, "stranger.rack.example");
    hall.refused(
        &ran,
        "stranger.rack.example",
        "no machine of that name has a system of ours",
    );

    // The machine itself: a certificate, a catalogue by our classes and parameters, and one change.
    let ran = hall.web.run(&["--test", "--waitforcert", "5"]);
    assert_eq!(ran.code, 2, "{}", ran.said);
    assert!(hall.server.signed(NAME));
    hall.in_audit(&format!("asked for the certificate of {NAME}: sign"));
    hall.probed();
    let listed = hall.appliance().ask(&["handoff", "enrolments", "--json"]).well();
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let state = |name: &str| listed.iter().find(|one| one["name"] == name).unwrap()["state"].clone();
    assert_eq!((state(NAME), state(OTHER)), ("used".into(), "placed".into()));

    without_us(&mut hall);

    // Its token again, with another key: first the server itself knows better, then it asks us.
    let ran = with_token_of(&hall, &attributes, NAME);
    assert_eq!(ran.code, 1, "{ran:?}");
    hall.server.clean(NAME);
    let ran = with_token_of(&hall, &attributes, NAME);
    hall.refused(&ran, NAME, USED);
    let ran = hall.web.run(&["--test"]);
    assert_eq!(ran.code, 1, "its certificate was taken back: {ran:?}");
}

/// While the appliance is away the classifier fails, and an agent in its ordinary life applies the catalogue that it kept.
fn without_us(hall: &mut Hall) {
    hall.appliance.take().unwrap().stop();
    let ran = hall.web.run(&["--onetime", "--no-daemonize", "--verbose"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.said.contains("Using cached catalog"), "{ran:?}");
    hall.probed();
    // A run by hand tells of it instead: `--test` turns the cached catalogue off.
    let ran = hall.web.run(&["--test"]);
    assert!(ran.code == 1 && !hall.probe.exists(), "{ran:?}");

    hall.appliance_comes("second");
    let ran = hall.web.run(&["--test"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    hall.probed();
}
