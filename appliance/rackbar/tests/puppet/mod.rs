//! A real Puppet server (Debian's `puppetserver`) in a folder of its own, on loopback, whose classifier and policy executable
//! are the scripts of `docs/handoff.md`, and real agents.
#![allow(clippy::unwrap_used, reason = "a helper of tests: a panic is the failure")]
#![allow(dead_code, reason = "each test program uses a part")]

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Half a minute of two idle processors; builds and emulated machines beside it make that minutes.
const PATIENCE: Duration = Duration::from_secs(400);
const JAR: &str = "/usr/share/puppetserver/puppetserver.jar";

/// What the server consists of: all that signs and compiles, nothing that measures itself or asks its makers for news.
const SERVICES: &str = "\
puppetlabs.services.request-handler.request-handler-service/request-handler-service
puppetlabs.services.jruby.jruby-puppet-service/jruby-puppet-pooled-service
puppetlabs.services.jruby-pool-manager.jruby-pool-manager-service/jruby-pool-manager-service
puppetlabs.services.puppet-profiler.puppet-profiler-service/puppet-profiler-service
puppetlabs.trapperkeeper.services.webserver.jetty9-service/jetty9-service
puppetlabs.trapperkeeper.services.webrouting.webrouting-service/webrouting-service
puppetlabs.services.config.puppet-server-config-service/puppet-server-config-service
puppetlabs.services.master.master-service/master-service
puppetlabs.trapperkeeper.services.authorization.authorization-service/authorization-service
puppetlabs.services.versioned-code-service.versioned-code-service/versioned-code-service
puppetlabs.trapperkeeper.services.scheduler.scheduler-service/scheduler-service
puppetlabs.trapperkeeper.services.status.status-service/status-service
puppetlabs.trapperkeeper.services.metrics.metrics-service/metrics-service
puppetlabs.services.jruby.jruby-metrics-service/jruby-metrics-service
puppetlabs.services.ca.certificate-authority-service/certificate-authority-service
puppetlabs.trapperkeeper.services.watcher.filesystem-watch-service/filesystem-watch-service
";

/// The server's settings, with its own name, folder and port. An agent that has put its request asks for the certificate on the
/// same connection, and Debian's Jetty answers that only when the connection counts as idle, which is half a minute by default.
const SETTINGS: &str = r#"
global: { logging-config: "FOLDER/logback.xml" }
metrics: { server-id: test, registries: { puppetserver: { reporters: { jmx: { enabled: false } } } } }
webserver: { client-auth: want, ssl-host: 127.0.0.1, ssl-port: PORT, idle-timeout-milliseconds: 3000 }
web-router-service: {
  "puppetlabs.services.ca.certificate-authority-service/certificate-authority-service": "/puppet-ca"
  "puppetlabs.services.master.master-service/master-service": "/puppet"
  "puppetlabs.trapperkeeper.services.status.status-service/status-service": "/status"
}
jruby-puppet: {
  ruby-load-path: [/usr/lib/puppetserver/ruby/vendor_ruby]
  gem-home: "FOLDER/var/gems"
  gem-path: ["FOLDER/var/gems", /usr/lib/puppetserver/vendored-jruby-gems]
  server-conf-dir: "FOLDER"
  server-code-dir: "FOLDER/code"
  server-var-dir: "FOLDER/var"
  server-run-dir: "FOLDER/run"
  server-log-dir: "FOLDER/log"
  max-active-instances: 1
}
authorization: { version: 1, rules: [
  { name: own, sort-order: 1, allow: "$2",
    match-request: { path: "^/puppet/v3/(catalog|node|report)/([^/]+)$", type: regex, method: [get, post, put] } }
  { name: files, sort-order: 2, allow: "*", match-request: { path: "/puppet/v3/", type: path } }
  { name: ask, sort-order: 3, allow-unauthenticated: true, match-request: { type: regex, method: [get, put],
    path: "^/puppet-ca/v1/(certificate/|certificate_revocation_list/ca|certificate_request)" } }
  { name: authority, sort-order: 4, allow: { extensions: { pp_cli_auth: "true" } },
    match-request: { path: "^/puppet-ca/v1/(certificate_status|clean)", type: regex } }
] }
"#;

const LOGGING: &str = r#"<configuration><appender name="out" class="ch.qos.logback.core.ConsoleAppender"><encoder>
<pattern>%d %-5p [%c{2}] %m%n</pattern></encoder></appender><root level="info"><appender-ref ref="out"/></root></configuration>
"#;

/// The class that the site file gives: one file, whose place the classifier says, and which tells by what the agent is known.
const PROBE: &str = "class probe {
  file { $probe_path: content => \"${rackbar_role} in ${region}, certified as ${trusted['extensions']['pp_uuid']}\\n\" }
}
";

/// A server that starts, or serves. Dropping it ends it.
pub struct Server {
    child: Child,
    folder: tempfile::TempDir,
    rackbar: PathBuf,
    port: u16,
}

impl Server {
    /// Begins to start one whose certificate has `name`; its scripts run the command line `rackbar`, logged in by
    /// [`Self::login`].
    pub fn start(name: &str, rackbar: &Path) -> Self {
        assert!(
            Path::new(JAR).exists(),
            "{JAR} is missing: `cargo xtask setup test` installs Debian's puppetserver"
        );
        let folder = tempfile::tempdir().unwrap();
        // It is free now; nobody else on loopback asks for this very one.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        configure(folder.path(), name, port, rackbar);
        let path = |name: &str| folder.path().join(name);
        let log = std::fs::File::create(path("server.log")).unwrap();
        let child = Command::new("java")
            // Most of its life is its start: compiling well costs more than it gains.
            .args(["-Xms128m", "-Xmx640m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .args(["-Djruby.lib=/usr/share/jruby/lib", "-jar", JAR, "--config"])
            .arg(path("server.conf"))
            .arg("--bootstrap-config")
            .arg(path("services.cfg"))
            .arg("--restart-file")
            .arg(path("started"))
            .env("HOME", folder.path())
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            child,
            folder,
            rackbar: rackbar.to_owned(),
            port,
        }
    }

    /// Logs its scripts in, as its administrator does once.
    pub fn login(&self, endpoint: &str, fingerprint: &str, token: &str) {
        let mut login = Command::new(&self.rackbar)
            .args(["login", "--endpoint", endpoint, "--fingerprint", fingerprint])
            .env("HOME", self.folder.path())
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        login.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        assert!(login.wait().unwrap().success());
    }

    /// Waits until it serves.
    pub fn until_serves(&mut self) {
        let end = Instant::now() + PATIENCE;
        // It counts its starts in this file.
        let started = || std::fs::read_to_string(self.folder.path().join("started")).unwrap_or_default();
        while !started().starts_with('1') {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < end,
                "the Puppet server does not serve ({ended:?}); it said:\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What it logged.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether its authority has signed for this name.
    pub fn signed(&self, name: &str) -> bool {
        self.folder.path().join(format!("ca/signed/{name}.pem")).exists()
    }

    /// Its authority takes a certificate back and forgets the machine, as before a reinstall.
    pub fn clean(&self, name: &str) {
        let mut clean = Command::new("puppetserver");
        clean.args(["ca", "clean", "--certname", name, "--config"]);
        let said = clean.arg(self.folder.path().join("puppet.conf")).output().unwrap();
        assert!(said.status.success(), "{said:?}; the server:\n{}", self.said());
        assert!(!self.signed(name), "{said:?}");
    }

    /// Its authority has no record of a certificate any more, which is still good: as after a restore of an older state.
    pub fn forget(&self, name: &str) {
        std::fs::remove_file(self.folder.path().join(format!("ca/signed/{name}.pem"))).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the Puppet server's log:\n{}", self.said());
        }
    }
}

fn configure(folder: &Path, name: &str, port: u16, rackbar: &Path) {
    let put = |path: &str, text: &str| {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let at = folder.display();
    let settings = SETTINGS
        .replace("FOLDER", &at.to_string())
        .replace("PORT", &port.to_string());
    put("server.conf", &settings);
    put("services.cfg", SERVICES);
    put("logback.xml", LOGGING);
    let puppet = format!(
        "[main]\nserver = localhost\nserverport = {port}\nssldir = {at}/ssl\n\
         [server]\ncertname = {name}\nca_server = localhost\nca_port = {port}\ndns_alt_names = localhost,{name}\n\
         cadir = {at}/ca\nautosign = {at}/autosign\nnode_terminus = exec\nexternal_nodes = {at}/enc\n"
    );
    put("puppet.conf", &puppet);
    put("code/environments/production/modules/probe/manifests/init.pp", PROBE);
    let rackbar = rackbar.display();
    for verb in ["enc", "autosign"] {
        put(
            verb,
            &format!("#!/bin/sh\nexec {rackbar} handoff puppet {verb} \"$1\"\n"),
        );
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.join(verb), mode).unwrap();
    }
}

/// What a run of an agent came to.
#[derive(Debug)]
pub struct Ran {
    /// 0: nothing to do; 2: changed something; 1: no run.
    pub code: i32,
    /// Everything it said.
    pub said: String,
}

/// An agent on this machine that has no privileges and everything in a folder of its own.
pub struct Agent {
    folder: tempfile::TempDir,
    port: u16,
}

impl Agent {
    /// One without a certificate, for the server.
    pub fn new(server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("conf")).unwrap();
        let port = server.port;
        Self { folder, port }
    }

    /// Where its configuration is.
    pub fn confdir(&self) -> PathBuf {
        self.folder.path().join("conf")
    }

    /// Runs it once.
    pub fn run(&self, more: &[&str]) -> Ran {
        let mut command = Command::new("puppet");
        command.args(["agent", "--color", "false", "--serverport", &self.port.to_string()]);
        for (option, name) in [
            ("--confdir", "conf"),
            ("--vardir", "var"),
            ("--ssldir", "ssl"),
            ("--rundir", "run"),
            ("--logdir", "log"),
            ("--publicdir", "public"),
        ] {
            command.arg(option).arg(self.folder.path().join(name));
        }
        let output = command.args(more).env("LC_ALL", "C.UTF-8").output();
        let output = output.expect("puppet: `cargo xtask setup test` installs it");
        Ran {
            code: output.status.code().unwrap(),
            said: String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        }
    }
}
